//! Size: packets that fit pass, big ones do not, or somebody said so.

use super::service::drop_draft;
use crate::explain::attempt::{Attempt, Outcome, Stall};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::model::answer::{Basis, Plane, Severity};
use crate::model::record::{Event, IcmpError};

/// Every path carries this much (RFC 791: 576 bytes for IPv4; RFC 8200: 1280 for IPv6). What is lost at or below it is
/// not lost for its size.
fn always_fits(v6: bool) -> u16 {
    if v6 { 1280 } else { 576 }
}

/// Handshakes and small packets pass, full-size segments are sent again and again, and nobody told the sender why.
pub fn blackhole(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "mtu-blackhole",
        Basis::Observed,
        |a| {
            let stall = (a.outcome == Outcome::Stalled).then(|| a.stall()).flatten()?;
            let size = stall.sight.stats.retrans_max;
            let big = size > always_fits(a.orig.dst.is_ipv6()) && size >= stall.sight.stats.max_packet;
            if !big || told(a, &stall) || !small_passes(case, a) {
                return None;
            }
            let mut evidence = vec![stall_draft(case, &stall)];
            evidence.extend(small_draft(case, a));
            evidence.extend(too_big_drops(case, a));
            Some(Because { key: if stall.forward { "requests" } else { "replies" }.to_owned(), evidence })
        },
        |of| {
            let Some(stall) = of[0].stall() else { return Saying::new("") };
            let size = stall.sight.stats.retrans_max;
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

/// Small packets pass the same way: this connection's handshake in the window, or another attempt's.
fn small_passes(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    a.parts
        .iter()
        .any(|p| p.conn.sights.iter().any(|s| s.stats.syn_ack.is_some()))
        || others(case, a).next().is_some()
}

fn others<'c, 'a>(case: &'c Case<'a>, a: &Attempt<'a>) -> impl Iterator<Item = &'c Attempt<'a>> {
    let (client, backend) = (a.client(), a.translated().dst);
    case.attempts.iter().filter(move |o| {
        o.client() == client && o.translated().dst == backend && o.outcome == Outcome::Ok
    })
}

fn small_draft(case: &Case<'_>, a: &Attempt<'_>) -> Option<Draft> {
    let of = |a: &Attempt<'_>| {
        a.parts.iter().find_map(|p| {
            let s = p
                .conn
                .sights
                .iter()
                .filter(|s| s.stats.syn_ack.is_some())
                .min_by_key(|s| (s.stats.syn_ack, s.key))?;
            let from = s.key.tuple.source();
            Some(case.sight(
                *p,
                s,
                "handshake",
                format!("the handshake with {from} passes"),
            ))
        })
    };
    of(a).or_else(|| others(case, a).find_map(of))
}

fn stall_draft(case: &Case<'_>, stall: &Stall<'_>) -> Draft {
    let s = &stall.sight.stats;
    let secs = match (s.retrans_first, s.retrans_last) {
        (Some(first), Some(last)) => last.since(first).as_millis() / 100,
        _ => 0,
    };
    let text = format!(
        "segments of up to {} bytes sent again {} times over {}.{} s without acknowledgement",
        s.retrans_max,
        s.retrans,
        secs / 10,
        secs % 10
    );
    let mut draft = case.sight(stall.part, stall.sight, "stall", text);
    draft.time = s.retrans_first.or(draft.time);
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
            let mut draft = case.event(
                part,
                event,
                &format!("too big {who} {} {to}", icmp.mtu),
                text,
            );
            draft.plane = Plane::Mtu;
            drafts.push(draft);
            let old = part
                .conn
                .sights
                .iter()
                .map(|s| u32::from(s.stats.max_packet))
                .max()
                .unwrap_or(0);
            said.get_or_insert((who, icmp.mtu, old.max(icmp.mtu), to));
        }
    }
    if let Some((who, mtu, old, to)) = said {
        let from = if who.is_empty() {
            String::new()
        } else {
            format!(", told by {who}")
        };
        let summary = format!(
            "Path MTU to {} learned: packets of {old} bytes became {mtu}{from}",
            case.name(to, drafts[0].time.unwrap_or_default())
        );
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
