//! The Service proxy: whether the VIP is translated, and to whom.

use super::service::{answer_of_node, dialled, drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::lack::served;
use crate::explain::report::{Because, Report, Saying};
use crate::flows::{ConnEvent, Leg};
use crate::model::CtTuples;
use crate::model::answer::{Basis, Via};
use crate::model::flow::Direction;
use crate::model::record::{Event, IcmpError, Record};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// VIP packets pass the node as they came, or die without a translation, though there are endpoints.
pub fn vip_not_translated(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "vip-not-translated",
        Basis::Observed,
        |a| {
            if !matches!(a.via, Via::Vip | Via::Lb | Via::ExternalIp)
                || a.ct().is_some_and(|ct| ct.is_dnat())
            {
                return None;
            }
            let port = case.port_of(&a.orig)?;
            if !served(case.objects, case.service, port) {
                return None;
            }
            let mut evidence: Vec<Draft> = left_untranslated(case, a).into_iter().collect();
            if evidence.is_empty() && !ruled(case, a) {
                evidence = answer_of_node(case, a);
            }
            if evidence.is_empty() {
                return None;
            }
            evidence.extend(dialled(case, a));
            Some(Because {
                key: a.orig.destination().to_string(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let node = a.parts[0].node;
            let summary = format!(
                "{} sends packets to {} on untranslated: no Service proxy rule takes them",
                node.name(),
                a.orig.destination()
            );
            Saying {
                evidence: rules_draft(a).into_iter().collect(),
                ..Saying::new(summary)
            }
        },
    );
}

/// Evidence: a VIP packet that leaves an interface with its destination unchanged.
fn left_untranslated(case: &Case<'_>, a: &Attempt<'_>) -> Option<Draft> {
    let part = a.parts.iter().find(|p| !p.conn.is_dnat())?;
    let sight = part
        .conn
        .sights_of(Leg::Orig)
        .filter(|s| s.key.dir == Direction::Egress)
        .max_by_key(|s| (s.stats.first, s.key))?;
    let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
    let text = format!(
        "the packet to {} leaves {} through {dev} with its destination unchanged",
        a.orig.destination(),
        part.node.name()
    );
    Some(case.sight(*part, sight, "untranslated", text))
}

/// Whether the node's proxy rules have a backend for what the attempt dialled.
fn ruled(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    let dialled = a.orig;
    let of_node = |p: &Part<'_>| {
        p.node
            .proxy(dialled.dst, dialled.dport, dialled.proto)
            .iter()
            .any(|s| !s.backends.is_empty())
    };
    let client_side = a.parts.iter().filter(|p| case.is_local(p.node, a.client()));
    client_side.into_iter().any(of_node)
}

/// Evidence: what the proxy rules of the client's node say of the address.
fn rules_draft(a: &Attempt<'_>) -> Option<Draft> {
    let part = a.parts.first()?;
    let facts = part.node.facts.as_ref()?;
    let d = a.orig;
    let rows = part.node.proxy(d.dst, d.dport, d.proto);
    let text = if rows.is_empty() {
        let modes = if facts.proxy.modes.is_empty() {
            "no Service proxy rules at all".to_owned()
        } else {
            format!(
                "Service proxy rules ({}), none for {}",
                facts.proxy.modes.join(", "),
                d.destination()
            )
        };
        format!("{} has {modes}", part.node.name())
    } else {
        let row = |s: &&crate::model::node::ProxyService| {
            let to: Vec<String> = s.backends.iter().map(ToString::to_string).collect();
            let verdict = if s.reject {
                "reject".to_owned()
            } else if s.drop {
                "drop".to_owned()
            } else {
                to.join(", ")
            };
            format!("{} {} → {verdict}", s.mode, s.place)
        };
        format!(
            "rules for {}: {}",
            d.destination(),
            rows.iter().map(row).collect::<Vec<_>>().join("; ")
        )
    };
    let mut draft = Draft::node(format!("rules {}", d.destination()), text);
    draft.time = Some(facts.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(facts.netns);
    Some(draft)
}

/// A new connection was translated to an address that is in no slice of the Service.
pub fn rules_stale(case: &Case<'_>, report: &mut Report) {
    let known = case.slice_addresses();
    report.explain(
        case,
        "proxy-rules-stale",
        Basis::Observed,
        |a| {
            if a.via == Via::Pod || known.is_empty() && case.slices().next().is_none() {
                return None;
            }
            let ct = a.ct().filter(CtTuples::is_dnat)?;
            let to = ct.translated().destination();
            if known.contains(&to.ip()) || !is_new(a, &ct) {
                return None;
            }
            let mut evidence: Vec<Draft> = case.translation(a).into_iter().collect();
            // A drop carries the conntrack entry as well: it proves the same.
            for (part, event, drop, _) in a.drops() {
                evidence.push(drop_draft(case, part, event, drop));
            }
            evidence.extend(dialled(case, a));
            Some(Because {
                key: String::new(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let to: BTreeSet<SocketAddr> =
                of.iter().map(|a| a.translated().destination()).collect();
            let to = list(&to);
            let summary = format!(
                "{} still sends new connections for {} to {to}, no endpoint of {} any more",
                a.parts[0].node.name(),
                a.orig.destination(),
                full_name(case)
            );
            let text = format!(
                "EndpointSlices of {} hold {}",
                full_name(case),
                list(&known)
            );
            let slices = Draft::objects("slices", text);
            let evidence = std::iter::once(slices).chain(rules_draft(a)).collect();
            Saying {
                evidence,
                ..Saying::new(summary)
            }
        },
    );
}

/// Today's rules made the entry: it was announced as new, never got into the table, or was not there when we began to look.
fn is_new(a: &Attempt<'_>, ct: &CtTuples) -> bool {
    let began_here = |p: &Part<'_>| {
        let stood = p.node.before.iter().flat_map(|f| &f.conntrack.entries);
        p.conn.opened
            && p.conn.began >= p.node.start.time
            && !stood.map(|e| e.tuples.orig).any(|orig| orig == ct.orig)
    };
    !ct.status.confirmed() || a.parts.iter().any(|p| p.conn.ct_new || began_here(p))
}

/// The chosen endpoint does not exist: nobody answers for its address, and no Pod holds it.
pub fn backend_gone(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "backend-gone",
        Basis::Observed,
        |a| {
            let backend = a.backend()?;
            if held(case, backend.ip()) {
                return None;
            }
            let mut evidence: Vec<Draft> = Vec::new();
            for (part, event, drop, leg) in a.drops() {
                if leg.is_forward() && is_neighbor_failure(drop) {
                    evidence.push(drop_draft(case, part, event, drop));
                }
            }
            if a.outcome == Outcome::Unreachable {
                for (part, event, icmp) in a
                    .icmp()
                    .filter(|(_, _, i)| is_host_unreachable(i, backend.is_ipv6()))
                {
                    let from = event
                        .record
                        .tuple
                        .map_or(String::new(), |t| format!(" from {}", t.src));
                    let text = format!(
                        "ICMP type {} code {} (unreachable) came{from}",
                        icmp.icmp_type, icmp.code
                    );
                    let kind = format!("icmp {}/{}", icmp.icmp_type, icmp.code);
                    evidence.push(case.event(part, event, &kind, text));
                }
            }
            evidence.extend(waiting(case, a, backend.ip()));
            evidence.extend(silent_neighbors(a));
            if evidence.is_empty() {
                return None;
            }
            evidence.extend(case.translation(a));
            Some(Because {
                key: String::new(),
                evidence,
            })
        },
        |of| {
            let gone: BTreeSet<IpAddr> = of
                .iter()
                .filter_map(|a| a.backend().map(|b| b.ip()))
                .collect();
            let evidence = gone.iter().map(|ip| objects_draft(case, *ip)).collect();
            let summary = format!(
                "Connections of {} go to {}, which no Pod holds any more",
                full_name(case),
                list(&gone)
            );
            Saying {
                evidence,
                ..Saying::new(summary)
            }
        },
    );
}

/// Evidence: what the objects still say of an address that nobody holds.
fn objects_draft(case: &Case<'_>, ip: IpAddr) -> Draft {
    let listed = if case.slice_addresses().contains(&ip) {
        "an EndpointSlice lists"
    } else {
        "no EndpointSlice lists"
    };
    let pod = case.pod(ip).map_or_else(
        || "no Pod object has it".to_owned(),
        |p| format!("Pod object {}/{} still has it", p.namespace, p.name),
    );
    Draft::objects(format!("gone {ip}"), format!("{listed} {ip}; {pod}"))
}

fn list<T: ToString>(all: &BTreeSet<T>) -> String {
    all.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether a node that was asked has the address, itself or in a Pod. Objects do not decide it: they outlive Pods.
fn held(case: &Case<'_>, ip: IpAddr) -> bool {
    case.views
        .iter()
        .any(|v| v.pod(ip).is_some() || v.is_own(ip))
}

/// ICMP host unreachable, ICMPv6 address unreachable: the last router asked for the address and nobody answered.
fn is_host_unreachable(icmp: &IcmpError, v6: bool) -> bool {
    (icmp.icmp_type, icmp.code) == if v6 { (1, 3) } else { (3, 1) }
}

fn is_neighbor_failure(drop: &crate::model::record::Drop) -> bool {
    drop.reason.starts_with("NEIGH_")
        || drop.place == "neigh_invalidate"
        || drop.place == "arp_error_report"
}

/// Evidence: the packet waits for the backend's link-layer address, and never left. The kernel drops it only after the last
/// unanswered request, seconds later.
fn waiting(case: &Case<'_>, a: &Attempt<'_>, backend: IpAddr) -> Option<Draft> {
    if !a.outcome.is_failure() || a.parts.iter().any(|p| a.sent_on(*p).is_some()) {
        return None;
    }
    let is_wait =
        |e: &ConnEvent| matches!(e.record.event, Event::NeighborWait { ip, .. } if ip == backend);
    let (part, event) = a.events().find(|(_, e)| is_wait(e))?;
    let text = format!("the packet to {backend} waits for a neighbour that does not answer");
    Some(case.event(part, event, &format!("waits {backend}"), text))
}

/// Evidence: the neighbour entry of the backend failed.
fn silent_neighbors(a: &Attempt<'_>) -> Vec<Draft> {
    let Some(ip) = a.backend().map(|b| b.ip()) else {
        return Vec::new();
    };
    let of_part = |part: &Part<'_>| -> Vec<Draft> {
        let failed = |r: &Record| matches!(r.event, Event::NeighborFailed { ip: n } if n == ip);
        let during = part
            .node
            .loose
            .iter()
            .filter(|(_, r)| failed(r) && r.time >= a.began());
        during
            .map(|(cite, record)| {
                let text = format!("nobody answered the neighbour request for {ip}");
                let mut draft = Draft::node(format!("neighbor {ip}"), text);
                draft.time = Some(record.time);
                draft.view = Some((part.view, part.node.name().to_owned()));
                draft.netns = Some(record.netns);
                draft.ifname = part.node.ifname(record.ifindex);
                draft.hook = Some("neigh_timer_handler".to_owned());
                draft.tuple = Some(a.translated());
                draft.cites = vec![*cite];
                draft
            })
            .collect()
    };
    let mut drafts: Vec<Draft> = a.parts.iter().flat_map(of_part).collect();
    drafts.extend(a.parts.iter().filter_map(|p| unresolved(a, *p, ip)));
    drafts
}

/// Evidence: the neighbour table has no link-layer address for the backend, though packets wait for it.
fn unresolved(a: &Attempt<'_>, part: Part<'_>, ip: IpAddr) -> Option<Draft> {
    let facts = part.node.facts.as_ref()?;
    let asked = |state: &str| matches!(state, "incomplete" | "failed");
    let entry = facts
        .neighbors
        .iter()
        .find(|n| n.ip == ip && asked(&n.state))?;
    let text = format!("neighbour {ip} is {}: it does not answer", entry.state);
    let mut draft = Draft::node(format!("neighbor table {ip}"), text);
    draft.time = Some(facts.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(facts.netns);
    draft.ifname = part.node.ifname(entry.ifindex);
    draft.tuple = Some(a.translated());
    Some(draft)
}
