//! Attempts without connections: what of them was answered, and when silence says nothing.

use super::attempt::{Attempt, Outcome};
use super::case::Case;
use crate::model::Proto;
use crate::model::record::Event;
use std::collections::BTreeSet;

/// Port of DNS, where every query is answered (RFC 1035).
pub const DOMAIN: u16 = 53;

/// A client that uses one port again and again made several attempts on one tuple: those before the latest one, which
/// decided the outcome, become attempts of their own where they ended otherwise.
pub fn split(attempts: &mut Vec<Attempt<'_>>) {
    let mut earlier = Vec::new();
    for a in attempts.iter_mut().filter(|a| a.orig.proto == Proto::UDP) {
        let client_side = a.part_of(a.client()).or(a.parts.first().copied());
        let Some(datagrams) = client_side.map(|p| p.conn.datagrams()) else {
            continue;
        };
        let answered = u64::from(datagrams.answered);
        let unanswered = u64::from(datagrams.attempts.saturating_sub(1)) - answered;
        a.weight = 1;
        for (outcome, weight) in [(Outcome::Ok, answered), (Outcome::Timeout, unanswered)] {
            if outcome == a.outcome {
                a.weight += weight;
            } else if weight > 0 {
                earlier.push(Attempt {
                    outcome,
                    weight,
                    ..a.clone()
                });
            }
        }
    }
    attempts.extend(earlier);
}

/// Protocols may be one-way (syslog, statsd). Where a port never answered anybody, and neither an ICMP error nor a drop was
/// seen, what reached its backend is no failure that anyone could know of: it stays undecided. Gives these ports.
pub fn one_way(case: &Case<'_>, attempts: &mut [Attempt<'_>]) -> BTreeSet<u16> {
    let port = |a: &Attempt<'_>| {
        let of_service = case.port_of_attempt(a);
        of_service.map_or(a.orig.dport, |p| p.port)
    };
    let udp = |a: &&Attempt<'_>| a.orig.proto == Proto::UDP;
    let spoken: BTreeSet<u16> = attempts
        .iter()
        .filter(udp)
        .filter(|a| has_sign(a))
        .map(port)
        .collect();
    let mut ports = BTreeSet::new();
    for a in attempts.iter_mut() {
        if a.orig.proto != Proto::UDP || a.outcome != Outcome::Timeout {
            continue;
        }
        let to = port(a);
        if to != DOMAIN && !spoken.contains(&to) && was_sent(case, a) {
            a.outcome = Outcome::Pending;
            ports.insert(to);
        }
    }
    ports
}

/// Somebody said something about it.
fn has_sign(a: &Attempt<'_>) -> bool {
    let answered = a
        .parts
        .iter()
        .any(|p| p.conn.sights_towards(false).next().is_some());
    answered
        || a.events().any(|(_, e)| match e.record.event {
            Event::Drop(_) | Event::IcmpError(_) | Event::IcmpSent { .. } => true,
            // What waited and then left has found its neighbour.
            Event::NeighborWait { .. } => !a.parts.iter().any(|p| a.sent_on(*p).is_some()),
            _ => false,
        })
}

/// It went where it should, and as far as anyone knows something takes it there.
fn was_sent(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    let Some(backend) = a.backend() else {
        return false;
    };
    let mut pods = case.views.iter().filter_map(|v| v.pod(backend.ip()));
    let deaf = pods.any(|p| {
        let mut listeners = p.listeners.iter();
        !listeners.any(|l| l.accepts(a.orig.proto, backend))
    });
    !deaf && a.parts.iter().any(|p| a.sent_on(*p).is_some())
}
