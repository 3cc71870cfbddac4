//! Translation that was not made, not made back, or not possible.

use super::conntrack::insertion_failed;
use super::service::{dialled, drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::flows::{Connection, Leg, Sight};
use crate::model::answer::{Basis, Changes, Fix, Severity, Via};
use crate::model::flow::Direction;
use crate::model::node::Link;
use crate::model::record::Drop;
use crate::model::{CtTuples, Proto, Tuple};
use std::collections::BTreeSet;

/// Why a Pod's packet to itself did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The bridge does not send back through the port that it came from.
    Refused,
    /// It came back with the Pod's own address as its source.
    OwnSource,
}

/// The Service chose the Pod that dialled it, and the packet did not get round.
pub fn hairpin(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "hairpin",
        Basis::Observed,
        |a| {
            let (turn, mut evidence) = turned(case, a)?;
            evidence.extend(case.translation(a));
            evidence.extend(dialled(case, a));
            Some(Because {
                key: format!("{turn:?}|{}", a.client()),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some((turn, _)) = turned(case, a) else {
                return Saying::new("");
            };
            let pod = case.backend_name(a.client(), a.began());
            let service = full_name(case);
            let Some(port) = port_of_client(a).filter(|_| turn == Turn::Refused) else {
                let summary = format!(
                    "{pod} does not reach itself through {service}: its packets come back to it with its own address as \
                     source, no rule masquerades them"
                );
                return Saying::new(summary);
            };
            let summary = format!(
                "{pod} does not reach itself through {service}: bridge port {} does not send packets back where they came \
                 from",
                port.name
            );
            Saying {
                evidence: port_draft(a, port).into_iter().collect(),
                fixes: vec![hairpin_fix(port)],
                ..Saying::new(summary)
            }
        },
    );
}

fn hairpin_fix(port: &Link) -> Fix {
    Fix {
        text: format!(
            "Let bridge port {} send packets back, until the Pod is made anew",
            port.name
        ),
        command: format!("bridge link set dev {} hairpin on", port.name),
        changes: Changes::Node,
    }
}

fn turned(case: &Case<'_>, a: &Attempt<'_>) -> Option<(Turn, Vec<Draft>)> {
    let direct = a.is_direct();
    let itself = a.backend().is_some_and(|b| b.ip() == a.client());
    if direct || !itself || a.outcome != Outcome::Timeout {
        return None;
    }
    let mut found: Option<(Turn, Vec<Draft>)> = None;
    for (part, event, drop, leg) in a.drops() {
        let own = event.record.netns == part.node.start.netns;
        let turn = match (own, event.record.tuple) {
            (true, _) if leg.is_forward() && is_bridge_refusal(drop) => Turn::Refused,
            (false, Some(t)) if t.src == t.dst && refuses_itself(leg, drop) => Turn::OwnSource,
            _ => continue,
        };
        if found.as_ref().is_none_or(|(first, _)| *first == turn) {
            let (_, evidence) = found.get_or_insert_with(|| (turn, Vec::new()));
            evidence.push(drop_draft(case, part, event, drop));
        }
    }
    found.or_else(|| sent_back(case, a))
}

/// Nothing was seen to drop it, but it went back to the Pod as from itself, and nothing came.
fn sent_back(case: &Case<'_>, a: &Attempt<'_>) -> Option<(Turn, Vec<Draft>)> {
    let heard = a.parts.iter().any(|p| a.heard_backend(*p).is_some());
    if heard || !a.drops().is_empty() {
        return None;
    }
    let part = a.part_of(a.client())?;
    let sight = a.sent_on(part).filter(|s| {
        let t = s.key.tuple;
        t.src == t.dst && client_ports(part).contains(&s.key.ifindex)
    })?;
    let text = format!(
        "the packet goes back to {} as from itself, no answer",
        a.client()
    );
    let draft = case.sight(part, sight, "turned", text);
    Some((Turn::OwnSource, vec![draft]))
}

/// A bridge forwards to the port of origin in hairpin mode only (`should_deliver`, `net/bridge/br_forward.c`, v6.18); what it
/// can send nowhere it frees in `br_handle_frame_finish` (`net/bridge/br_input.c`).
fn is_bridge_refusal(drop: &Drop) -> bool {
    drop.place == "br_handle_frame_finish"
}

/// A Pod drops what came to it as from itself. IPv4 refuses it on its way in; IPv6 takes it, and answers: to itself, where
/// nobody waits for an answer from there.
fn refuses_itself(leg: Leg, drop: &Drop) -> bool {
    !leg.is_forward() || is_source_refusal(drop)
}

/// What comes in from an own address is refused with the route lookup (`fib_validate_source`, `net/ipv4/fib_frontend.c`,
/// v6.18), which kernels before 6.17 give no reason for.
fn is_source_refusal(drop: &Drop) -> bool {
    drop.reason == "IP_LOCAL_SOURCE"
        || drop.reason == "NOT_SPECIFIED"
            && matches!(
                drop.place.as_str(),
                "ip_rcv_finish_core" | "ip_rcv_finish" | "ip_route_input_noref"
            )
}

/// Interfaces through which the client's packets come into the node.
fn client_ports(part: Part<'_>) -> BTreeSet<u32> {
    part.conn
        .sights_of(Leg::Orig)
        .filter(|s| s.key.dir == Direction::Ingress)
        .map(|s| s.key.ifindex)
        .collect()
}

/// The bridge port behind which the client is.
fn port_of_client<'a>(a: &Attempt<'a>) -> Option<&'a Link> {
    let part = a.part_of(a.client()).or(a.parts.first().copied())?;
    let links = client_ports(part).into_iter();
    links
        .filter_map(|i| part.node.link(i))
        .find(|l| l.master != 0)
}

/// Evidence: what the bridge port is set to.
fn port_draft(a: &Attempt<'_>, port: &Link) -> Option<Draft> {
    let part = a.part_of(a.client()).or(a.parts.first().copied())?;
    let mode = if port.hairpin { "on" } else { "off" };
    let text = format!("bridge port {}: hairpin mode {mode}", port.name);
    let kind = format!("hairpin {}", port.name);
    let mut draft = Draft::of_node(part.view, part.node, kind, text);
    draft.ifname = Some(port.name.clone());
    Some(draft)
}

/// The backend's answer came to the client as from the Pod itself, so nobody took it.
pub fn reply_bypasses(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "reply-bypasses-nat",
        Basis::Observed,
        |a| {
            if a.outcome != Outcome::Timeout {
                return None;
            }
            let (part, answer) = raw_answer(a)?;
            // Answers that were translated before: the connection has lost its translation on the way.
            if part.conn.sights_of(Leg::Unnat).any(|s| s.key.dir == Direction::Egress) {
                return None;
            }
            let mut evidence = raw_drafts(case, a, part, answer);
            evidence.extend(case.translation(a));
            Some(Because {
                key: part.node.name().to_owned(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some((part, answer)) = raw_answer(a) else {
                return Saying::new("");
            };
            let from = case.named(answer.key.tuple.source(), a.began());
            let cause = unfiltered_bridge(part, a);
            let why = cause
                .as_ref()
                .map_or("; what bypassed conntrack there is not known".to_owned(), |c| format!(": {}", c.text));
            let summary = format!(
                "Answers of {} reach the client as from {from} and not as from {}, so it resets them{why}",
                full_name(case),
                a.orig.destination()
            );
            Saying {
                evidence: cause.into_iter().collect(),
                ..Saying::new(summary)
            }
        },
    );
}

/// An answer in the backend's own form where only translated ones belong: at the interface behind which the client is.
pub(super) fn raw_answer<'a>(a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    a.parts.iter().copied().find_map(|part| {
        let nat = part
            .conn
            .nat()
            .filter(|nat| nat.is_dnat() && !nat.is_snat())?;
        let ports = client_ports(part);
        let mut answers = part.conn.sights.iter().filter(|s| {
            s.key.dir == Direction::Egress
                && s.key.tuple == nat.reply
                && ports.contains(&s.key.ifindex)
        });
        answers.next().map(|s| (part, s))
    })
}

/// Evidence: the untranslated answer, and how the client took it.
pub(super) fn raw_drafts(
    case: &Case<'_>,
    a: &Attempt<'_>,
    part: Part<'_>,
    answer: &Sight,
) -> Vec<Draft> {
    let from = answer.key.tuple.source();
    let text = format!(
        "an answer reaches {} as from {from}, not as from {}",
        case.name(a.client(), a.began()),
        a.orig.destination()
    );
    let mut drafts = vec![case.sight(part, answer, "untranslated answer", text)];
    let rst = part.conn.sights.iter().find(|s| {
        s.key.dir == Direction::Ingress
            && s.key.ifindex == answer.key.ifindex
            && s.key.tuple == answer.key.tuple.inverse()
            && s.stats.rst.is_some()
    });
    drafts.extend(rst.map(|s| {
        let text = format!("the client answers {from}, which it never dialled, with RST");
        case.sight(part, s, "rst of client", text)
    }));
    for (p, event, drop, leg) in a.drops() {
        let of_client = event.record.netns != p.node.start.netns;
        if of_client && leg == Leg::Reply && drop.reason == "NO_SOCKET" {
            drafts.push(drop_draft(case, p, event, drop));
        }
    }
    drafts
}

/// Evidence: client and backend are ports of one bridge whose packets pass no rules.
fn unfiltered_bridge(part: Part<'_>, a: &Attempt<'_>) -> Option<Draft> {
    let facts = part.node.facts.as_ref()?;
    let v6 = a.orig.dst.is_ipv6();
    let name = format!(
        "net.bridge.bridge-nf-call-{}",
        if v6 { "ip6tables" } else { "iptables" }
    );
    let value = facts.sysctls.get(&name).map(String::as_str);
    let master = |i: u32| part.node.link(i).map_or(0, |l| l.master);
    let clients: BTreeSet<u32> = client_ports(part).into_iter().map(master).collect();
    let came_in = a.heard_backend(part).map(|s| master(s.key.ifindex))?;
    if value == Some("1") || came_in == 0 || !clients.contains(&came_in) {
        return None;
    }
    let bridge = part.node.ifname(came_in).unwrap_or_default();
    let setting = value.map_or_else(
        || "br_netfilter is not loaded".to_owned(),
        |v| format!("{name} is {v}"),
    );
    let text = format!("{setting}, and both are on bridge {bridge}");
    let mut draft = Draft::node(name, text);
    draft.time = Some(facts.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(facts.netns);
    Some(draft)
}

/// Every source port that the masquerading rule may give is taken toward this destination: the connection got one that another
/// holds (`nf_nat_setup_info` accepts that, `net/netfilter/nf_nat_core.c`, v6.18), and its entry could not be inserted.
pub fn snat_exhausted(case: &Case<'_>, report: &mut Report) {
    for (proved, basis) in [(true, Basis::Observed), (false, Basis::Inferred)] {
        report.explain(
            case,
            "snat-ports-exhausted",
            basis,
            |a| {
                let (part, event, drop, ct) = insertion_failed(a).filter(|f| f.3.is_snat())?;
                let taken = taken_ports(part, &ct);
                if taken.contains(&ct.reply.dport) != proved || has_twin(part, &ct) {
                    return None;
                }
                let mut evidence = vec![drop_draft(case, part, event, drop)];
                evidence.extend(case.translation(a));
                evidence.extend(dialled(case, a));
                Some(Because {
                    key: part.node.name().to_owned(),
                    evidence,
                })
            },
            |of| {
                let a = of[0];
                let Some((part, _, _, ct)) = insertion_failed(a) else {
                    return Saying::new("");
                };
                let taken = taken_ports(part, &ct);
                let (to, own) = (ct.reply.source(), ct.reply.dst);
                let summary = format!(
                    "{} has no source port left on {own} for masqueraded connections to {}: {} are in use toward it",
                    part.node.name(),
                    case.named(to, a.began()),
                    taken.len()
                );
                Saying {
                    evidence: vec![ports_draft(part, &ct, &taken)],
                    ..Saying::new(summary)
                }
            },
        );
    }
}

/// Source ports on the address of this translation that connections hold toward the same destination.
fn taken_ports(part: Part<'_>, ct: &CtTuples) -> BTreeSet<u16> {
    let of_facts = part.node.facts.iter().chain(&part.node.before);
    let entries = of_facts.flat_map(|f| f.conntrack.entries.iter().map(|e| e.tuples));
    let seen = part.node.connections().filter_map(Connection::ct);
    let rivals = entries
        .chain(seen)
        .filter(|t| t.status.confirmed() && t.orig != ct.orig && same_ends(t.reply, ct.reply));
    rivals.map(|t| t.reply.dport).collect()
}

fn same_ends(a: Tuple, b: Tuple) -> bool {
    (a.proto, a.source(), a.dst) == (b.proto, b.source(), b.dst)
}

/// Another entry stands for the very same packet: that is a race, and no matter of ports. TCP begins with one packet, and
/// where an entry stands for it, it was let in when it was sent again.
fn has_twin(part: Part<'_>, ct: &CtTuples) -> bool {
    let entries = part.node.facts.iter().flat_map(|f| &f.conntrack.entries);
    ct.orig.proto != Proto::TCP && entries.map(|e| e.tuples.orig).any(|orig| orig == ct.orig)
}

/// Evidence: which ports are in use.
fn ports_draft(part: Part<'_>, ct: &CtTuples, taken: &BTreeSet<u16>) -> Draft {
    let (to, own) = (ct.reply.source(), ct.reply.dst);
    let failed = part.node.facts.as_ref();
    let failed = failed.and_then(|f| f.conntrack.stats.get("insert_failed").copied());
    let failed = failed.map_or(String::new(), |n| format!("; insert_failed is {n}"));
    let range = match (taken.first(), taken.last()) {
        (Some(low), Some(high)) => format!(" ({low} to {high})"),
        _ => String::new(),
    };
    let text = format!(
        "conntrack of {}: {} source ports of {own} in use toward {to}{range}{failed}",
        part.node.name(),
        taken.len()
    );
    let mut draft = Draft::of_node(part.view, part.node, format!("ports {to}"), text);
    draft.tuple = Some(ct.orig);
    draft
}

/// The backend sees the node's address and not the client's.
pub fn source_masqueraded(case: &Case<'_>, report: &mut Report) {
    let hides = |a: &&Attempt<'_>| {
        let snat = a
            .nat()
            .is_some_and(|ct| ct.is_dnat() && ct.reply.dst != ct.orig.src);
        // A node's own client stays a node, and a Pod that reaches itself knows itself.
        let from_node = a.parts.iter().any(|p| p.node.is_own(a.client()))
            || case.objects.node_at(a.client()).is_some();
        let itself = a.backend().is_some_and(|b| b.ip() == a.client());
        snat && !from_node && !itself && a.outcome == Outcome::Ok
    };
    let Some(a) = case.attempts.iter().find(hides) else {
        return;
    };
    let Some(ct) = a.nat() else { return };
    let service = full_name(case);
    let why = match a.via {
        Via::NodePort | Via::Lb | Via::ExternalIp if !case.service.external_local => {
            " (externalTrafficPolicy: Cluster)"
        }
        _ => "",
    };
    let summary = format!(
        "Backends of {service} see {} as the source of connections from {}{why}",
        case.name(ct.reply.dst, a.began()),
        case.name(a.client(), a.began())
    );
    let saying = Saying {
        evidence: case.translation(a).into_iter().collect(),
        ..Saying::new(summary)
    };
    report.state(
        case,
        "source-ip-masqueraded",
        Basis::Observed,
        Severity::Info,
        saying,
    );
}
