//! Filters: NetworkPolicy and other rules that drop.

use super::refusals::{Refusal, Refusals, refuses};
use super::service::{dialled, drop_draft, full_name, hook_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::policy::{self, PolicyName, Verdict};
use crate::explain::report::{Because, Report, Saying};
use crate::explain::view::View;
use crate::flows::{ConnEvent, Leg, Sight};
use crate::model::answer::{Basis, Changes, Fix};
use crate::model::cidr::{self, Cidr};
use crate::model::flow::Direction;
use crate::model::node::{FirewallRule, NodeFacts, ProxyService, RuleMatch};
use crate::model::record::{Drop, Event, NfHook, Rules};
use crate::model::{Time, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A filter dropped a packet that was on its way to or from a backend.
struct Filtered<'a> {
    part: Part<'a>,
    event: &'a ConnEvent,
    drop: &'a Drop,
    tuple: Tuple,
}

/// The first drop by a filter of the attempt's own packets.
fn filtered<'a>(a: &Attempt<'a>) -> Option<Filtered<'a>> {
    let drops = a.drops();
    let mut all = drops.into_iter().filter_map(|(part, event, drop, _)| {
        let tuple = event.record.tuple?;
        (is_filtered(drop) && !is_afterwards(a, part, event)).then_some(Filtered {
            part,
            event,
            drop,
            tuple,
        })
    });
    let first = all.next()?;
    if rules_of(first.drop).is_some() {
        return Some(first);
    }
    // The kernel is asked for the rules from the first drop on: the next one like it tells them.
    let named = all.find(|f| rules_of(f.drop).is_some() && f.is_like(&first));
    Some(named.unwrap_or(first))
}

impl Filtered<'_> {
    /// The same packet sent again, dropped at the same place.
    fn is_like(&self, other: &Filtered<'_>) -> bool {
        (self.event.record.netns, self.tuple) == (other.event.record.netns, other.tuple)
            && (&self.drop.reason, &self.drop.place, self.drop.hook)
                == (&other.drop.reason, &other.drop.place, other.drop.hook)
    }
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

/// A filter's drop of its own packets was seen.
pub(super) fn is_dropped(a: &Attempt<'_>) -> bool {
    filtered(a).is_some()
}

/// A filter of any kind dropped it.
pub(super) fn is_filtered(drop: &Drop) -> bool {
    is_netfilter(drop) || program(drop).is_some()
}

/// Kernels without a reason for it show the place: the rule engines free the packet themselves.
pub(super) fn is_netfilter(drop: &Drop) -> bool {
    drop.reason == "NETFILTER_DROP"
        || drop.reason == "NETFILTER_INGRESS"
        || is_hook(drop)
        || is_engine(drop)
}

/// Any callback of a hook said so: rules, but also conntrack, NAT and IPVS.
fn is_hook(drop: &Drop) -> bool {
    drop.place == "nf_hook_slow"
}

/// A rule engine freed it, so a rule said so.
fn is_engine(drop: &Drop) -> bool {
    matches!(
        drop.place.as_str(),
        "nft_do_chain" | "ipt_do_table" | "ip6t_do_table"
    )
}

/// The rules that dropped it, where netfilter was listened to.
fn rules_of(drop: &Drop) -> Option<&Rules> {
    drop.verdict.as_ref()?.rules.as_ref()
}

/// Netfilter was heard telling the sender.
fn is_told(drop: &Drop) -> bool {
    drop.verdict.as_ref().is_some_and(|v| v.reject.is_some())
}

/// A program or filter on an interface dropped it (`include/net/dropreason-core.h`, v6.18).
fn program(drop: &Drop) -> Option<&'static str> {
    match drop.reason.as_str() {
        "TC_INGRESS" => Some("a tc program or filter on ingress"),
        "TC_EGRESS" => Some("a tc program or filter on egress"),
        "XDP" => Some("an XDP program"),
        _ => None,
    }
}

/// Who dropped it, as far as it can be told.
enum Culprit<'a> {
    /// A rule that fits the packet and whose counter rose meanwhile.
    Counted(&'a FirewallRule),
    /// A rule of the Service proxy for what was dialled.
    Proxy(&'a ProxyService),
    /// A program or filter on an interface.
    Program(&'static str),
    /// A rule of this set.
    OfSet(&'a Rules),
    /// A rule, of which no more is known.
    SomeRule,
    /// A rule that fits the packet and does not count.
    Possible(&'a FirewallRule),
    /// No rule that could: conntrack, NAT and IPVS drop there as well.
    Unknown,
}

impl Culprit<'_> {
    /// It is known that a rule or program did it, or one that could is there.
    fn is_filter(&self) -> bool {
        !matches!(self, Culprit::Unknown)
    }
}

fn culprit<'a>(a: &Attempt<'a>, f: &Filtered<'a>) -> Culprit<'a> {
    if let Some(program) = program(f.drop) {
        return Culprit::Program(program);
    }
    if let Some((_, rule)) = rule_of(a) {
        return Culprit::Counted(rule);
    }
    let own = f.event.record.netns == f.part.node.start.netns;
    let dialled = f.tuple;
    let rows = f.part.node.proxy(dialled.dst, dialled.dport, dialled.proto);
    if let Some(row) = rows.into_iter().find(|r| own && (r.drop || r.reject)) {
        return Culprit::Proxy(row);
    }
    if let Some(rules) = rules_of(f.drop) {
        return Culprit::OfSet(rules);
    }
    if is_engine(f.drop) {
        return Culprit::SomeRule;
    }
    let now = f.part.node.facts.as_ref().and_then(|n| rules_in(n, f));
    let counts = |r: &FirewallRule| {
        let before = f.part.node.before.as_ref().and_then(|n| rules_in(n, f));
        r.packets.is_some() && before.is_some()
    };
    let mut possible = now.into_iter().flatten();
    possible
        .find(|r| !counts(r) && is_for(r, f))
        .map_or(Culprit::Unknown, Culprit::Possible)
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
            evidence.extend(rule_of(a).map(|(f, r)| rule_draft(&f, r)));
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

/// A filter answered in place of the backend: where it dropped the packet, its namespace made the answer. Where only the
/// answer came, from elsewhere, an ICMP error that TCP itself never makes says so as well.
pub fn firewall_reject(case: &Case<'_>, report: &mut Report) {
    // ICMP is limited in rate (icmp_ratelimit): silence where another attempt got an answer is the same refusal.
    let rejecting: BTreeMap<Spot, String> = case
        .attempts
        .iter()
        .filter_map(|a| filtered(a).map(|f| (a, f)))
        .filter(|(a, f)| !answers_of_filter(case, a, f).is_empty())
        .map(|(_, f)| (Spot::of(&f), owner_of(&f)))
        .collect();
    let refusals = [(true, Basis::Observed), (false, Basis::Inferred)]
        .map(|(certain, basis)| (Refusals::of(case, certain), basis));
    report.explain(
        case,
        "firewall-reject",
        Basis::Observed,
        |a| {
            let Some(f) = filtered(a) else {
                let refusal = refusals.iter().find_map(|(r, _)| r.refused(a))?;
                return refused_likewise(case, a, &rejecting, refusal);
            };
            let answers = answers_of_filter(case, a, &f);
            let by_rule =
                is_told(f.drop) || matches!(culprit(a, &f), Culprit::Counted(r) if is_reject(r));
            if answers.is_empty() && !by_rule && !rejecting.contains_key(&Spot::of(&f)) {
                return None;
            }
            let mut evidence = evidence(case, a, &f);
            evidence.extend(answers);
            Some(Because {
                key: owner_of(&f),
                evidence,
            })
        },
        |of| {
            let mut saying = filter_saying(case, of, "refuses");
            if of.iter().any(|a| untranslated_rst(a)) {
                saying.summary += ". Its RST does not carry the Service's address, which bridged packets' answers are not translated \
                                   back to, so the client takes no notice and waits";
            }
            saying
        },
    );
    for (refusals, basis) in &refusals {
        report.explain(
            case,
            "firewall-reject",
            *basis,
            |a| {
                let refusal = refusals.refused(a)?;
                // The same rule in several Pods is one cause; nodes are told apart.
                let in_pod = refusal.from == a.translated().dst;
                let key = if in_pod {
                    "pod".to_owned()
                } else {
                    refusal.from.to_string()
                };
                Some(because_of(case, a, key, refusal))
            },
            |of| refusals.saying(of),
        );
    }
}

fn because_of(case: &Case<'_>, a: &Attempt<'_>, key: String, refusal: Refusal) -> Because {
    let mut evidence = vec![refusal.draft];
    evidence.extend(refusal.sent);
    evidence.extend(case.translation(a));
    evidence.extend(dialled(case, a));
    Because { key, evidence }
}

/// The drop itself was not seen, as before all was attached, but its ICMP error came from a node that was asked and was seen
/// to reject others, or from a Pod whose node saw one like it.
fn refused_likewise(
    case: &Case<'_>,
    a: &Attempt<'_>,
    rejecting: &BTreeMap<Spot, String>,
    refusal: Refusal,
) -> Option<Because> {
    let from = refusal.from;
    let holds = |v: &View| v.is_own(from) || v.pod(from).is_some();
    let view = case.views.iter().position(holds)?;
    let to = a.translated().destination();
    // A node has one set of rules for all endpoints, each Pod has its own.
    let node = case.views[view].start.netns;
    let is_like = |s: &Spot| {
        let same = s.to == to || case.views[view].is_own(from) && s.netns == node;
        s.view == view && same
    };
    let (_, owner) = rejecting.iter().find(|(s, _)| is_like(s))?;
    Some(because_of(case, a, owner.clone(), refusal))
}

/// Where and for what a filter dropped.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    view: usize,
    netns: u32,
    hook: Option<NfHook>,
    to: SocketAddr,
}

impl Spot {
    fn of(f: &Filtered<'_>) -> Spot {
        Spot {
            view: f.part.view,
            netns: f.event.record.netns,
            hook: f.drop.hook,
            to: f.tuple.destination(),
        }
    }
}

fn is_reject(rule: &FirewallRule) -> bool {
    rule.verdict.contains("reject")
}

/// Evidence: the answers that the namespace of the drop made itself.
fn answers_of_filter(case: &Case<'_>, a: &Attempt<'_>, f: &Filtered<'_>) -> Vec<Draft> {
    if !is_netfilter(f.drop) {
        return Vec::new();
    }
    let netns = f.event.record.netns;
    let own = netns == f.part.node.start.netns;
    let here = |part: &Part<'_>| part.view == f.part.view;
    let v6 = a.orig.dst.is_ipv6();
    let mut drafts = Vec::new();
    for (part, event) in a.events().filter(|(p, _)| here(p)) {
        let record = &event.record;
        let draft = |(kind, code): (u8, u8)| {
            let text = format!(
                "{} answers with ICMP type {kind} code {code}",
                place_of(case, f)
            );
            case.event(part, event, &format!("rejected {kind}/{code}"), text)
        };
        match &record.event {
            Event::IcmpSent {
                icmp_type, code, ..
            } if record.netns == netns && refuses(*icmp_type, *code, v6) => {
                drafts.push(draft((*icmp_type, *code)));
            }
            Event::IcmpError(icmp) if refuses(icmp.icmp_type, icmp.code, v6) => {
                let from = record.tuple.map(|t| t.src);
                let of_pod =
                    || from.is_some_and(|ip| part.node.pod(ip).is_some_and(|p| p.netns == netns));
                if own && icmp.dir == Direction::Egress && !came_in(a, part)
                    || !own && icmp.dir == Direction::Ingress && of_pod()
                {
                    drafts.push(draft((icmp.icmp_type, icmp.code)));
                }
            }
            _ => {}
        }
    }
    drafts.extend(rst_of_filter(case, a, f));
    drafts
}

/// An ICMP error about the attempt came into this node: what leaves it may be that one.
fn came_in(a: &Attempt<'_>, part: Part<'_>) -> bool {
    a.icmp()
        .any(|(p, _, icmp)| p.view == part.view && icmp.dir == Direction::Ingress)
}

/// A rejection and its drop are one run of the rule; clocks of CPUs differ by less.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Evidence: a RST in answer to the SYN that the filter dropped, which no socket's absence explains.
fn rst_of_filter(case: &Case<'_>, a: &Attempt<'_>, f: &Filtered<'_>) -> Option<Draft> {
    let netns = f.event.record.netns;
    let own = netns == f.part.node.start.netns;
    let no_socket = a
        .drops()
        .iter()
        .any(|(_, e, d, _)| e.record.netns == netns && d.reason == "NO_SOCKET");
    let syn = f.drop.flags.syn() && !f.drop.flags.ack();
    let from_backend = a.backend_rst().is_some();
    if !syn || no_socket || own == from_backend {
        return None;
    }
    let toward = if own {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    // It answers at once; a later one is of another packet, which may have been let through to another backend.
    let at_once = |rst: Time| f.drop.count > 1 || rst.since(f.event.record.time) < AT_ONCE;
    let mut back = f.part.conn.sights_towards(false);
    let sight = back.find(|s| s.key.dir == toward && s.stats.rst.is_some_and(at_once))?;
    let text = format!("{} answers the SYN with RST", place_of(case, f));
    Some(case.sight(f.part, sight, "rejected rst", text))
}

/// The RST of a filter that leaves as from the backend's address, while the client dialled another: what comes over a bridge is
/// answered at the port it came from, past the translation back (`nf_send_reset`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/netfilter/nf_reject_ipv4.c>).
fn untranslated_rst(a: &Attempt<'_>) -> bool {
    let foreign = |p: &Part<'_>, s: &Sight| {
        let raw = p.conn.leg(&s.key.tuple) == Some(Leg::Reply);
        raw && s.key.dir == Direction::Egress && s.stats.rst.is_some()
    };
    let mut parts = a.parts.iter().filter(|p| p.conn.is_dnat());
    a.outcome == Outcome::Timeout
        && a.backend_rst().is_none()
        && parts.any(|p| p.conn.sights.iter().any(|s| foreign(p, s)))
}

/// The same rule in several Pods is one cause; nodes are told apart.
fn owner_of(f: &Filtered<'_>) -> String {
    if f.event.record.netns == f.part.node.start.netns {
        f.part.node.name().to_owned()
    } else {
        "pod".to_owned()
    }
}

/// A filter dropped it and no NetworkPolicy explains that. Where netfilter did and no rule that could is there, that it was
/// a filter is a conclusion.
pub fn firewall_drop(case: &Case<'_>, report: &mut Report) {
    // The kernel is asked for the rules, and for the hook where only they know it, from the first drop on, and an attempt may
    // end with that one: what dropped others like it at the same place dropped it, too.
    let known = case
        .attempts
        .iter()
        .filter_map(|a| filtered(a).filter(|f| culprit(a, f).is_filter()));
    let at_any_hook = |f: &Filtered<'_>| Spot {
        hook: None,
        ..Spot::of(f)
    };
    let filtering: BTreeSet<Spot> = known
        .flat_map(|f| [Spot::of(&f), at_any_hook(&f)])
        .collect();
    for (by_filter, basis) in [(true, Basis::Observed), (false, Basis::Inferred)] {
        report.explain(
            case,
            "firewall-drop",
            basis,
            |a| {
                let f = filtered(a)?;
                if filtering.contains(&Spot::of(&f)) != by_filter {
                    return None;
                }
                Some(Because {
                    key: owner_of(&f),
                    evidence: evidence(case, a, &f),
                })
            },
            |of| filter_saying(case, of, "drops"),
        );
    }
}

fn filter_saying(case: &Case<'_>, of: &[&Attempt<'_>], does: &str) -> Saying {
    let seen = || of.iter().filter_map(|a| Some((*a, filtered(a)?)));
    // One of which it is known, before others like it.
    let known = seen().find(|(a, f)| culprit(a, f).is_filter());
    let Some((a, f)) = known.or_else(|| seen().next()) else {
        return Saying::new("");
    };
    let hook = f
        .drop
        .hook
        .map_or(String::new(), |h| format!(" at {}", hook_name(h)));
    let forward = a.is_to_backend(f.part, &f.tuple) || f.part.conn.leg(&f.tuple) == Some(Leg::Orig);
    let what = if forward { "packets" } else { "the replies" };
    let places: BTreeSet<String> = of
        .iter()
        .filter_map(|a| filtered(a))
        .map(|f| place_of(case, &f))
        .collect();
    let places: Vec<String> = places.into_iter().collect();
    let culprit = culprit(a, &f);
    let by = match &culprit {
        Culprit::Counted(r) => format!(
            "{} rule in {} {} ({})",
            r.mode,
            r.table,
            r.chain,
            text_of(r)
        ),
        Culprit::Possible(r) => format!(
            "{} rule in {} {} ({}) can, and does not count",
            r.mode,
            r.table,
            r.chain,
            text_of(r)
        ),
        Culprit::Proxy(row) => {
            format!(
                "a rule of the Service proxy for this address ({} {})",
                row.mode, row.place
            )
        }
        Culprit::Program(which) => match drop_draft(case, f.part, f.event, f.drop).ifname {
            Some(ifname) => format!("{which} of {ifname}"),
            None => (*which).to_owned(),
        },
        Culprit::OfSet(Rules::Nftables {
            family,
            table,
            chain,
        }) => {
            let family = family.map_or(String::new(), |f| format!("{} ", f.name()));
            format!("a rule reached from nftables chain {chain} of table {family}{table}")
        }
        Culprit::OfSet(Rules::Iptables { table }) => format!("a rule of iptables table {table}"),
        Culprit::SomeRule => "a filter rule".to_owned(),
        Culprit::Unknown => format!(
            "{}; conntrack, NAT and IPVS drop there as well, which of them it was could not be told",
            if are_rules_known(&f) {
                "no rule that would drop them was found"
            } else {
                "the rules could not all be read"
            }
        ),
    };
    let policies = policies_on(case, a, &f);
    let tail = if culprit.is_filter() {
        policies.tail()
    } else {
        String::new()
    };
    let verb = if culprit.is_filter() || does != "drops" {
        does
    } else {
        "drops in netfilter"
    };
    let summary = format!(
        "{} {verb} {what} of {} to {}{hook}: {by}{tail}",
        places.join(", "),
        full_name(case),
        f.tuple.destination()
    );
    let rule = match culprit {
        Culprit::Counted(r) | Culprit::Possible(r) => Some(r),
        _ => None,
    };
    let of_rule = rule.map(|r| (r.table.clone(), r.chain.clone()));
    let of_set = || match &culprit {
        Culprit::OfSet(Rules::Nftables { table, chain, .. }) => {
            Some((table.clone(), chain.clone()))
        }
        Culprit::OfSet(Rules::Iptables { table }) => Some((table.clone(), String::new())),
        _ => None,
    };
    let values = of_rule
        .or_else(of_set)
        .map_or(Vec::new(), |(table, chain)| {
            vec![("table", table), ("chain", chain)]
        });
    let mut evidence: Vec<Draft> = rule.map(|r| rule_draft(&f, r)).into_iter().collect();
    let mut fixes = Vec::new();
    if let Policies::DenyEgress { policy, why, .. } = &policies {
        evidence.push(Draft::objects("egress policy", format!("{policy}: {why}")));
        fixes.push(egress_fix(case, policy));
    }
    Saying {
        evidence,
        values,
        fixes,
        ..Saying::new(summary)
    }
}

/// What NetworkPolicies say of a dropped packet which none denies at the backend.
enum Policies {
    /// They admit it, or do not concern it.
    Silent,
    /// None was given, or not enough to evaluate them.
    Unknown,
    /// One keeps the client from sending it.
    DenyEgress {
        policy: PolicyName,
        client: String,
        to: SocketAddr,
        why: String,
    },
}

impl Policies {
    fn tail(&self) -> String {
        match self {
            Policies::Silent => "; no NetworkPolicy explains it".to_owned(),
            Policies::Unknown => "; whether a NetworkPolicy explains it is not known".to_owned(),
            Policies::DenyEgress {
                policy,
                client,
                to,
                why,
            } => format!("; NetworkPolicy {policy} does not let {client} send to {to}: {why}"),
        }
    }
}

fn policies_on(case: &Case<'_>, a: &Attempt<'_>, f: &Filtered<'_>) -> Policies {
    // Replies of an admitted connection are always admitted.
    if !f.part.conn.leg(&f.tuple).is_some_and(Leg::is_forward) {
        return Policies::Silent;
    }
    let to = a.translated();
    let sent = Tuple {
        src: a.orig.src,
        sport: a.orig.sport,
        ..to
    };
    let verdicts = [
        policy::egress(case.objects, &sent),
        policy::ingress(case.objects, &f.tuple),
    ];
    if let Some(Verdict::Denied { policies }) = &verdicts[0]
        && let Some(denied) = policies.first()
    {
        let why = denied.nearest().map_or_else(
            || "it admits nothing".to_owned(),
            |miss| format!("rule {}: {miss}", miss.rule + 1),
        );
        return Policies::DenyEgress {
            policy: denied.policy.clone(),
            client: case.name(a.client(), a.began()),
            to: to.destination(),
            why,
        };
    }
    if verdicts.contains(&Some(Verdict::Unknown)) {
        Policies::Unknown
    } else {
        Policies::Silent
    }
}

fn egress_fix(case: &Case<'_>, policy: &PolicyName) -> Fix {
    let values = [("policy", &*policy.name), ("ns", &*policy.namespace)];
    Fix {
        text: "If the client may send there: add an egress rule for just this destination and port"
            .to_owned(),
        command: case.command("kubectl edit networkpolicy {policy} -n {ns}", &values),
        changes: Changes::Cluster,
    }
}

/// Whether the rules of the namespace in which it was dropped could be read.
fn are_rules_known(f: &Filtered<'_>) -> bool {
    let of_rules = |what: &str| {
        ["nftables", "iptables-legacy", "firewall rules"]
            .iter()
            .any(|part| what.starts_with(part))
    };
    f.part
        .node
        .facts
        .as_ref()
        .is_some_and(|n| rules_in(n, f).is_some() && !n.unread.iter().any(|u| of_rules(&u.what)))
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

/// Rules of the namespace in which the packet was dropped; `None` = it was not looked into.
fn rules_in<'a>(facts: &'a NodeFacts, f: &Filtered<'_>) -> Option<&'a [FirewallRule]> {
    let netns = f.event.record.netns;
    if netns == f.part.node.start.netns {
        return Some(&facts.firewall);
    }
    let mut pods = facts.pods.iter();
    pods.find(|p| p.netns == netns)
        .map(|p| p.firewall.as_slice())
}

/// The rule that dropped: of those whose matches fit the packet, the one whose counter rose while we watched. What a counter
/// was before must be known of the namespace, else an old one would have risen.
fn rule_of<'a>(a: &Attempt<'a>) -> Option<(Filtered<'a>, &'a FirewallRule)> {
    let f = filtered(a).filter(|f| is_netfilter(f.drop))?;
    let (before, now) = (f.part.node.before.as_ref()?, f.part.node.facts.as_ref()?);
    let (old, new) = (rules_in(before, &f)?, rules_in(now, &f)?);
    // More than one can have risen: a match on the packet's own addresses says more than a policy of a chain.
    let best = new
        .iter()
        .filter(|r| is_for(r, &f) && counted(new, r) > counted(old, r))
        .max_by_key(|r| r.matches.as_ref().map_or(0, specific))?;
    Some((f, best))
}

/// Whether a rule is known to have dropped it.
pub(super) fn is_by_rule(a: &Attempt<'_>) -> bool {
    rule_of(a).is_some() || filtered(a).is_some_and(|f| rules_of(f.drop).is_some())
}

/// Packets counted by rules that say the same. A position is no identity: rules before it come and go.
fn counted(rules: &[FirewallRule], like: &FirewallRule) -> u64 {
    let id = |r: &FirewallRule| if r.mode == "nftables" { r.handle } else { 0 };
    let same = |r: &&FirewallRule| {
        (&r.mode, &r.table, &r.chain, id(r)) == (&like.mode, &like.table, &like.chain, id(like))
            && (&r.verdict, &r.text, &r.comment) == (&like.verdict, &like.text, &like.comment)
    };
    rules.iter().filter(same).filter_map(|r| r.packets).sum()
}

/// How the text of a rule names the packets that conntrack does not place.
const INVALID: &str = "ct state invalid";

/// Whether a rule's hook and matches fit the dropped packet, as far as they are known.
fn is_for(rule: &FirewallRule, f: &Filtered<'_>) -> bool {
    let hook = f.drop.hook.is_none() || rule.hook.is_none() || f.drop.hook == rule.hook;
    // What conntrack calls INVALID has no entry.
    let state = f.drop.ct.is_none() || !rule.text.contains(INVALID);
    hook && state && rule.matches.as_ref().is_none_or(|m| matches(m, &f.tuple))
}

fn matches(m: &RuleMatch, t: &Tuple) -> bool {
    let net = |n: Option<Cidr>, ip| n.is_none_or(|net| cidr::contains(net, ip));
    let port = |r: Option<(u16, u16)>, p: u16| r.is_none_or(|(lo, hi)| (lo..=hi).contains(&p));
    net(m.src, t.src)
        && net(m.dst, t.dst)
        && m.proto.is_none_or(|p| p == t.proto)
        && port(m.dport, t.dport)
        && port(m.sport, t.sport)
}

fn specific(m: &RuleMatch) -> usize {
    usize::from(m.src.is_some())
        + usize::from(m.dst.is_some())
        + usize::from(m.proto.is_some())
        + usize::from(m.dport.is_some())
        + usize::from(m.sport.is_some())
}

fn text_of(rule: &FirewallRule) -> String {
    match (&rule.comment, rule.text.as_str()) {
        (Some(comment), "") => format!("{}, \"{comment}\"", rule.verdict),
        (Some(comment), text) => format!("{text} {}, \"{comment}\"", rule.verdict),
        (None, "") => rule.verdict.clone(),
        (None, text) => format!("{text} {}", rule.verdict),
    }
}

/// Evidence: a rule with its counter.
fn rule_draft(f: &Filtered<'_>, rule: &FirewallRule) -> Draft {
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
    let kind = format!("rule {} {} {}", rule.table, rule.chain, rule.handle);
    fact_draft(f, &kind, text)
}

/// Evidence: a fact of the namespace in which the packet was dropped.
fn fact_draft(f: &Filtered<'_>, kind: &str, text: String) -> Draft {
    let mut draft = Draft::node(kind, text);
    draft.time = f.part.node.facts.as_ref().map(|n| n.time);
    draft.view = Some((f.part.view, f.part.node.name().to_owned()));
    draft.netns = Some(f.event.record.netns);
    draft
}
