//! Size: packets that fit pass, big ones do not, or somebody said so.

use super::service::drop_draft;
use crate::explain::attempt::{Attempt, Outcome, Part, Stall};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::explain::view::View;
use crate::flows::Sight;
use crate::model::answer::{Basis, Plane, Severity};
use crate::model::record::{Event, IcmpError};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Every path carries this much (RFC 791: 576 bytes for IPv4; RFC 8200: 1280 for IPv6). What is lost at or below it is
/// not lost for its size.
fn always_fits(v6: bool) -> u16 {
    if v6 { 1280 } else { 576 }
}

/// Handshakes and small packets pass, full-size segments are sent again and again, and nobody told the sender why.
pub fn blackhole(case: &Case<'_>, report: &mut Report) {
    let small = Small::of(case);
    report.explain(
        case,
        "mtu-blackhole",
        Basis::Observed,
        |a| {
            let stall = (a.outcome == Outcome::Stalled).then(|| a.stall()).flatten()?;
            let size = stall.size();
            let bigger_passed = size < stall.sight.stats.max_packet && !stall.passed_nothing();
            let big = size > always_fits(a.orig.dst.is_ipv6()) && !bigger_passed;
            if !big || told(a, &stall) {
                return None;
            }
            let mut evidence = vec![stall_draft(case, &stall), small.passes(case, a, &stall)?];
            evidence.extend(too_big_drops(case, a));
            Some(Because { key: if stall.forward { "requests" } else { "replies" }.to_owned(), evidence })
        },
        |of| {
            let Some(stall) = of[0].stall() else { return Saying::new("") };
            let size = stall.size();
            let (what, to) = if stall.forward {
                ("to", of[0].translated().dst)
            } else {
                ("from", of[0].translated().dst)
            };
            let summary = format!(
                "Packets of {size} bytes {what} {} vanish on the way while small ones pass, and no fragmentation-needed message reaches the sender",
                case.name(to, of[0].began())
            );
            let payload = u32::from(size).saturating_sub(100 + 28).to_string();
            Saying { values: vec![("payload", payload)], ..Saying::new(summary) }
        },
    );
}

/// A too-big message for this direction reached the sender's side.
fn told(a: &Attempt<'_>, stall: &Stall<'_>) -> bool {
    let v6 = a.orig.dst.is_ipv6();
    a.icmp().any(|(p, e, icmp)| {
        let sender = stall.sight.key.tuple.src;
        let to_sender = e
            .record
            .tuple
            .is_some_and(|t| t.dst == sender || t.dst == a.orig.src);
        let about = icmp
            .quoted
            .and_then(|q| p.conn.leg(&q))
            .is_some_and(|l| l.is_forward() == stall.forward);
        icmp.is_too_big(v6) && to_sender && about && delivered(p.node.is_own(sender), icmp)
    })
}

fn delivered(own: bool, icmp: &IcmpError) -> bool {
    use crate::model::flow::Direction;
    icmp.dir
        == if own {
            Direction::Ingress
        } else {
            Direction::Egress
        }
}

/// What got through on a way while big packets did not: whoever answers it lives, and the way to it is open.
struct Small {
    /// By client, backend and whether requests stall.
    between: HashMap<(IpAddr, IpAddr, bool), Draft>,
    /// The same by the backend's node: Pods of one node are reached the same way.
    toward: HashMap<(IpAddr, String, bool), Draft>,
}

impl Small {
    fn of(case: &Case<'_>) -> Small {
        let mut between: BTreeMap<_, Vec<&Attempt<'_>>> = BTreeMap::new();
        let stalled = |a: &Attempt<'_>| a.outcome == Outcome::Stalled;
        if case.attempts.iter().any(stalled) {
            for a in &case.attempts {
                let ends = (a.client(), a.translated().dst);
                between.entry(ends).or_default().push(a);
            }
        }
        let mut small = Small {
            between: HashMap::new(),
            toward: HashMap::new(),
        };
        for ((client, backend), mut attempts) in between {
            attempts.sort_by_cached_key(|a| Reverse(handshake(a).map(|(_, s)| s.stats.syn_ack)));
            for forward in [true, false] {
                let Some(draft) = passed_after(case, &attempts, forward) else {
                    continue;
                };
                if let Some(node) = case.node_of(backend, attempts[0].began()) {
                    small
                        .toward
                        .entry((client, node, forward))
                        .and_modify(|d| {
                            // Any will do, but always the same one.
                            if draft.time < d.time {
                                *d = draft.clone();
                            }
                        })
                        .or_insert_with(|| draft.clone());
                }
                small.between.insert((client, backend, forward), draft);
            }
        }
        small
    }

    /// Evidence: after big packets began to vanish that way, something small passed both ways.
    fn passes(&self, case: &Case<'_>, a: &Attempt<'_>, stall: &Stall<'_>) -> Option<Draft> {
        let (client, backend) = (a.client(), a.translated().dst);
        let between = self.between.get(&(client, backend, stall.forward));
        let toward = || {
            let node = case.node_of(backend, a.began())?;
            self.toward.get(&(client, node, stall.forward))
        };
        between.or_else(toward).cloned()
    }
}

/// Evidence that something small passed after the first of these attempts had stalled in that direction.
fn passed_after(case: &Case<'_>, attempts: &[&Attempt<'_>], forward: bool) -> Option<Draft> {
    let stalls = attempts
        .iter()
        .filter(|a| a.outcome == Outcome::Stalled)
        .filter_map(|a| a.stall())
        .filter(|s| s.forward == forward);
    let first = stalls.min_by_key(|s| (s.since(), s.sight.key))?;
    handshake_after(case, attempts, &first).or_else(|| small_data_after(case, attempts, &first))
}

/// A SYN reached the backend, and its SYN-ACK came so far that the client took it up.
fn handshake_after(case: &Case<'_>, others: &[&Attempt<'_>], stall: &Stall<'_>) -> Option<Draft> {
    let (part, sight) = others.first().and_then(|o| handshake(o))?;
    if sight.stats.syn_ack? <= stall.since() {
        return None;
    }
    let from = sight.key.tuple.source();
    let text = format!("the handshake with {from} passes");
    let mut draft = case.sight(part, sight, "handshake", text);
    draft.time = sight.stats.syn_ack;
    Some(draft)
}

/// A connection that sends the same way, and nothing as big, has its data acknowledged.
fn small_data_after(case: &Case<'_>, others: &[&Attempt<'_>], stall: &Stall<'_>) -> Option<Draft> {
    let forward = stall.forward;
    let parts = others.iter().flat_map(|o| o.parts.iter());
    let (part, sight) = parts
        .filter(|p| p.conn.acked_after(forward) > Some(stall.since()))
        .find_map(|p| {
            let mut sights = p.conn.sights_towards(forward);
            let biggest = sights.clone().map(|s| s.stats.max_packet).max()?;
            (biggest < stall.size()).then_some((*p, sights.find(|s| s.stats.data.is_some())?))
        })?;
    let text = format!(
        "segments of up to {} bytes to {} are acknowledged",
        sight.stats.max_packet,
        sight.key.tuple.destination()
    );
    Some(case.sight(part, sight, "small data", text))
}

/// Where the SYN-ACK of an attempt was seen, if the client took it up.
fn handshake<'a>(a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    a.parts.iter().find_map(|p| {
        let passed = p
            .conn
            .sights_towards(false)
            .filter(|s| s.stats.syn_ack.is_some());
        let sight = passed.min_by_key(|s| (s.stats.syn_ack, s.key))?;
        let acked = || p.conn.sights_towards(true).any(|s| s.stats.flags.ack());
        (sight.stats.syn_retrans == 0 || acked()).then_some((*p, sight))
    })
}

fn stall_draft(case: &Case<'_>, stall: &Stall<'_>) -> Draft {
    let s = &stall.sight.stats;
    let since = stall.since();
    let secs = s.retrans_last.unwrap_or(since).since(since).as_millis() / 100;
    let again = if stall.resent() > 0 {
        format!(
            "sent again {} times over {}.{} s",
            stall.resent(),
            secs / 10,
            secs % 10
        )
    } else {
        "sent".to_owned()
    };
    let text = format!(
        "segments of up to {} bytes {again} without acknowledgement",
        stall.size()
    );
    let mut draft = case.sight(stall.part, stall.sight, "stall", text);
    draft.time = Some(since);
    draft
}

/// Evidence: this node itself found packets too big, or dropped the message that would have said so.
fn too_big_drops(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (part, event) in a.events() {
        let Event::Drop(drop) = &event.record.event else {
            continue;
        };
        if drop.reason == "PKT_TOO_BIG" {
            drafts.push(drop_draft(case, part, event, drop));
        } else if drop.quoted.is_some() {
            let from = event
                .record
                .tuple
                .map_or(String::new(), |t| format!(" from {}", t.src));
            let text = format!(
                "ICMP error{from} about it dropped: {} in {}()",
                drop.reason, drop.place
            );
            drafts.push(case.event(
                part,
                event,
                &format!("icmp dropped|{}|{}", drop.reason, drop.place),
                text,
            ));
        }
    }
    drafts
}

/// Somebody said how big packets may be, and the sender took it.
pub fn pmtu_learned(case: &Case<'_>, report: &mut Report) {
    let mut drafts = Vec::new();
    let mut said = None;
    for a in case.attempts.iter().filter(|a| a.outcome == Outcome::Ok) {
        let v6 = a.orig.dst.is_ipv6();
        for (part, event, icmp) in a.icmp().filter(|(_, _, i)| i.is_too_big(v6) && i.mtu > 0) {
            let who = event
                .record
                .tuple
                .map_or(String::new(), |t| case.name(t.src, event.record.time));
            let to = icmp.quoted.map_or(a.orig.dst, |q| q.dst);
            let text = format!("{who} says: packets to {to} may have {} bytes", icmp.mtu);
            drafts.push(case.event(
                part,
                event,
                &format!("too big {who} {} {to}", icmp.mtu),
                text,
            ));
            let old = part
                .conn
                .sights
                .iter()
                .map(|s| u32::from(s.stats.max_packet))
                .max()
                .unwrap_or(0);
            let from = format!(
                "packets of {} bytes became {}, told by {who}",
                old.max(icmp.mtu),
                icmp.mtu
            );
            said.get_or_insert((to, from));
        }
    }
    for (i, view) in case.views.iter().enumerate() {
        for (to, mtu, draft) in remembered(case, i, view) {
            drafts.push(draft);
            said.get_or_insert((to, format!("packets may have {mtu} bytes")));
        }
    }
    if let Some((to, how)) = said {
        let at = drafts.first().and_then(|d| d.time).unwrap_or_default();
        let summary = format!("Path MTU to {} learned: {how}", case.name(to, at));
        let saying = Saying {
            evidence: drafts,
            ..Saying::new(summary)
        };
        report.state(
            case,
            "pmtu-learned",
            Basis::Observed,
            Severity::Info,
            saying,
        );
    }
}

/// Path MTUs that the node or one of its Pods keeps for an address of an attempt: learned, maybe before we looked.
fn remembered(case: &Case<'_>, index: usize, view: &View) -> Vec<(IpAddr, u32, Draft)> {
    let lookups = view
        .facts
        .iter()
        .flat_map(|f| f.lookups.iter().map(move |l| (f.time, l)));
    let concerned = |to: IpAddr| {
        let mut ok = case.attempts.iter().filter(|a| a.outcome == Outcome::Ok);
        ok.any(|a| [a.orig.src, a.orig.dst, a.translated().dst].contains(&to))
    };
    lookups
        .filter_map(|(time, l)| {
            let mtu = l.learned_mtu().filter(|_| concerned(l.dst))?;
            let text = format!(
                "the route to {} has a learned path MTU of {mtu} bytes",
                l.dst
            );
            let mut draft = Draft::node(format!("learned {} {mtu}", l.dst), text);
            draft.plane = Plane::Mtu;
            draft.time = Some(time);
            draft.view = Some((index, view.name().to_owned()));
            draft.netns = Some(l.netns);
            Some((l.dst, mtu, draft))
        })
        .collect()
}
