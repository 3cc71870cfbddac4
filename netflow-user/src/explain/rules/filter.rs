//! Filters: NetworkPolicy and other rules that drop.

use super::service::{dialled, drop_draft, full_name, hook_name};
use crate::explain::attempt::{Attempt, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::policy::{self, Verdict};
use crate::explain::report::{Because, Report, Saying};
use crate::flows::{ConnEvent, Leg};
use crate::model::Tuple;
use crate::model::answer::Basis;
use crate::model::flow::Direction;
use crate::model::node::FirewallRule;
use crate::model::record::Drop;
use std::collections::BTreeSet;

/// A filter dropped a packet that was on its way to or from a backend.
struct Filtered<'a> {
    part: Part<'a>,
    event: &'a ConnEvent,
    drop: &'a Drop,
    tuple: Tuple,
}

/// The first drop by a filter of the attempt's own packets.
fn filtered<'a>(a: &Attempt<'a>) -> Option<Filtered<'a>> {
    a.drops().into_iter().find_map(|(part, event, drop, _)| {
        let tuple = event.record.tuple?;
        (is_filter(drop) && !is_afterwards(a, part, event)).then_some(Filtered {
            part,
            event,
            drop,
            tuple,
        })
    })
}

/// The node had already carried the backend's RST when it dropped this. Conntrack ends an entry with the first RST, so
/// what follows on either side (a second RST, data in flight) is INVALID, and Service proxies drop that
/// (`nf_conntrack_tcp_packet` in `net/netfilter/nf_conntrack_proto_tcp.c`, v6.18): it changed nothing for the client.
/// Inside a Pod there is no telling, its own filter may have made the RST.
fn is_afterwards(a: &Attempt<'_>, part: Part<'_>, event: &ConnEvent) -> bool {
    let came_in = part
        .conn
        .sights
        .iter()
        .filter(|s| s.key.dir == Direction::Ingress && a.is_from_backend(part, &s.key.tuple));
    let rst = came_in.filter_map(|s| s.stats.rst).min();
    event.record.netns == part.node.start.netns && rst.is_some_and(|rst| rst < event.record.time)
}

/// Kernels without a reason for it show the place: the rule engines free the packet themselves.
fn is_filter(drop: &Drop) -> bool {
    drop.reason == "NETFILTER_DROP"
        || drop.reason == "NETFILTER_INGRESS"
        || matches!(
            drop.place.as_str(),
            "nf_hook_slow" | "nft_do_chain" | "ipt_do_table" | "ip6t_do_table"
        )
}

/// The dropped packet, as it stood where it was dropped, is one that a NetworkPolicy denies.
pub fn policy_denied(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "policy-denied-ingress",
        Basis::Observed,
        |a| {
            let f = filtered(a)?;
            let denied = denied(case, a, &f)?;
            let evidence = evidence(case, a, &f);
            Some(Because {
                key: denied
                    .first()
                    .map(|d| d.policy.to_string())
                    .unwrap_or_default(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some(denied) = filtered(a).and_then(|f| denied(case, a, &f)) else {
                return Saying::new("");
            };
            let names: Vec<String> = denied.iter().map(|d| d.policy.to_string()).collect();
            let why: Vec<String> = denied
                .iter()
                .map(|d| match d.nearest() {
                    Some(miss) => format!("{} rule {}: {miss}", d.policy, miss.rule + 1),
                    None => format!("{} admits nothing", d.policy),
                })
                .collect();
            let to = a.translated();
            let summary = format!(
                "NetworkPolicy {} does not admit {} to {} port {}: {}",
                names.join(", "),
                case.name(a.client(), a.began()),
                case.name(to.dst, a.began()),
                to.dport,
                why.join("; ")
            );
            let mut evidence = vec![Draft::objects("policy", why.join("; "))];
            evidence.extend(rule_of(a).map(|(p, r)| rule_draft(p, r)));
            let name = denied
                .first()
                .map(|d| d.policy.name.clone())
                .unwrap_or_default();
            Saying {
                evidence,
                values: vec![("policy", name)],
                ..Saying::new(summary)
            }
        },
    );
}

fn denied(case: &Case<'_>, a: &Attempt<'_>, f: &Filtered<'_>) -> Option<Vec<policy::DeniedBy>> {
    // Replies of an admitted connection are always admitted: a policy never explains their loss.
    if !a.is_to_backend(f.part, &f.tuple) {
        return None;
    }
    match policy::ingress(case.objects, &f.tuple)? {
        Verdict::Denied { policies } => Some(policies),
        _ => None,
    }
}

/// A filter dropped it and no NetworkPolicy explains that.
pub fn firewall_drop(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "firewall-drop",
        Basis::Observed,
        |a| {
            let f = filtered(a)?;
            // The same rule in several Pods is one cause; nodes are told apart.
            let own = f.event.record.netns == f.part.node.start.netns;
            let key = if own {
                f.part.node.name().to_owned()
            } else {
                "pod".to_owned()
            };
            Some(Because {
                key,
                evidence: evidence(case, a, &f),
            })
        },
        |of| {
            let a = of[0];
            let Some(f) = filtered(a) else {
                return Saying::new("");
            };
            let rule = rule_of(a);
            let hook = f
                .drop
                .hook
                .map_or(String::new(), |h| format!(" at {}", hook_name(h)));
            let by = match rule {
                Some((_, r)) => format!(
                    "{} rule in {} {} ({})",
                    r.mode,
                    r.table,
                    r.chain,
                    text_of(r)
                ),
                None => "a filter rule".to_owned(),
            };
            let back = if a.is_to_backend(f.part, &f.tuple)
                || f.part.conn.leg(&f.tuple) == Some(Leg::Orig)
            {
                "packets"
            } else {
                "the replies"
            };
            let places: BTreeSet<String> = of
                .iter()
                .filter_map(|a| filtered(a))
                .map(|f| place_of(case, &f))
                .collect();
            let places: Vec<String> = places.into_iter().collect();
            let summary = format!(
                "{} drops {back} of {} to {}{hook}: {by}; no NetworkPolicy explains it",
                places.join(", "),
                full_name(case),
                f.tuple.destination()
            );
            let values = rule.map_or(Vec::new(), |(_, r)| {
                vec![("table", r.table.clone()), ("chain", r.chain.clone())]
            });
            let evidence = rule.map(|(p, r)| rule_draft(p, r)).into_iter().collect();
            Saying {
                evidence,
                values,
                ..Saying::new(summary)
            }
        },
    );
}

fn evidence(case: &Case<'_>, a: &Attempt<'_>, f: &Filtered<'_>) -> Vec<Draft> {
    let mut all = vec![drop_draft(case, f.part, f.event, f.drop)];
    all.extend(case.translation(a));
    all.extend(dialled(case, a));
    all
}

/// The node, or the Pod on it, in whose namespace the packet was dropped.
fn place_of(case: &Case<'_>, f: &Filtered<'_>) -> String {
    let node = f.part.node;
    let netns = f.event.record.netns;
    if netns == node.start.netns {
        return format!("node {}", node.name());
    }
    let pods = node.facts.iter().flat_map(|n| &n.pods);
    let ip = pods
        .filter(|p| p.netns == netns)
        .flat_map(|p| &p.ips)
        .next();
    ip.map_or_else(
        || format!("a Pod of {}", node.name()),
        |ip| format!("Pod {}", case.name(*ip, f.event.record.time)),
    )
}

/// The rule that dropped: of those whose matches fit the packet, the one whose counter rose while we watched.
fn rule_of<'a>(a: &Attempt<'a>) -> Option<(Part<'a>, &'a FirewallRule)> {
    let f = filtered(a)?;
    let (before, now) = (f.part.node.before.as_ref()?, f.part.node.facts.as_ref()?);
    let netns = f.event.record.netns;
    let of = |facts: &'a crate::model::node::NodeFacts| -> Option<&'a [FirewallRule]> {
        if netns == f.part.node.start.netns {
            Some(&facts.firewall)
        } else {
            facts
                .pods
                .iter()
                .find(|p| p.netns == netns)
                .map(|p| p.firewall.as_slice())
        }
    };
    let old = of(before).unwrap_or_default();
    let fits = |r: &&FirewallRule| {
        let same = |o: &&FirewallRule| {
            (&o.mode, &o.table, &o.chain, o.handle) == (&r.mode, &r.table, &r.chain, r.handle)
        };
        let then = old.iter().find(same).and_then(|o| o.packets);
        let rose = match (then, r.packets) {
            (Some(then), Some(now)) => now > then,
            (None, Some(now)) => now > 0,
            _ => false,
        };
        let hook = f.drop.hook.is_none() || r.hook.is_none() || f.drop.hook == r.hook;
        rose && hook && r.matches.as_ref().is_none_or(|m| matches(m, &f.tuple))
    };
    // More than one can have risen: a match on the packet's own addresses says more than a policy of a chain.
    let best = of(now)?
        .iter()
        .filter(fits)
        .max_by_key(|r| r.matches.as_ref().map_or(0, specific))?;
    Some((f.part, best))
}

fn matches(m: &crate::model::node::RuleMatch, t: &Tuple) -> bool {
    let net =
        |n: &Option<(std::net::IpAddr, u8)>, ip| n.is_none_or(|(net, len)| contains(net, len, ip));
    let port = |r: Option<(u16, u16)>, p: u16| r.is_none_or(|(lo, hi)| (lo..=hi).contains(&p));
    net(&m.src, t.src)
        && net(&m.dst, t.dst)
        && m.proto.is_none_or(|p| p == t.proto)
        && port(m.dport, t.dport)
        && port(m.sport, t.sport)
}

fn specific(m: &crate::model::node::RuleMatch) -> usize {
    usize::from(m.src.is_some())
        + usize::from(m.dst.is_some())
        + usize::from(m.proto.is_some())
        + usize::from(m.dport.is_some())
        + usize::from(m.sport.is_some())
}

/// Whether a network holds an address.
fn contains(net: std::net::IpAddr, len: u8, ip: std::net::IpAddr) -> bool {
    use std::net::IpAddr;
    match (net, ip) {
        (IpAddr::V4(n), IpAddr::V4(i)) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(len.min(32)))
                .unwrap_or(0);
            u32::from(n) & mask == u32::from(i) & mask
        }
        (IpAddr::V6(n), IpAddr::V6(i)) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(len.min(128)))
                .unwrap_or(0);
            u128::from(n) & mask == u128::from(i) & mask
        }
        _ => false,
    }
}

fn text_of(rule: &FirewallRule) -> String {
    match (&rule.comment, rule.text.as_str()) {
        (Some(comment), "") => format!("{}, \"{comment}\"", rule.verdict),
        (Some(comment), text) => format!("{text} {}, \"{comment}\"", rule.verdict),
        (None, "") => rule.verdict.clone(),
        (None, text) => format!("{text} {}", rule.verdict),
    }
}

/// Evidence: the rule whose counter rose.
fn rule_draft(part: Part<'_>, rule: &FirewallRule) -> Draft {
    let packets = rule
        .packets
        .map_or(String::new(), |n| format!(", {n} packets"));
    let text = format!(
        "{} {} {}: {}{packets}",
        rule.mode,
        rule.table,
        rule.chain,
        text_of(rule)
    );
    let mut draft = Draft::node(
        format!("rule {} {} {}", rule.table, rule.chain, rule.handle),
        text,
    );
    draft.time = part.node.facts.as_ref().map(|f| f.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(part.node.start.netns);
    draft
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn networks() {
        let ip = |s: &str| s.parse().unwrap_or_else(|_| panic!("{s}"));
        assert!(contains(ip("10.1.0.0"), 16, ip("10.1.255.3")));
        assert!(!contains(ip("10.1.0.0"), 16, ip("10.2.0.1")));
        assert!(contains(ip("0.0.0.0"), 0, ip("192.0.2.1")));
        assert!(contains(ip("192.0.2.1"), 32, ip("192.0.2.1")));
        assert!(contains(ip("2001:db8::"), 32, ip("2001:db8:1::1")));
        assert!(!contains(ip("::"), 0, ip("192.0.2.1")), "families differ");
    }
}
