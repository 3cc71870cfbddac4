//! The path walk: how far the packets of an attempt came, hop by hop.

use super::attempt::{Attempt, Outcome, Part};
use super::case::Case;
use super::evidence::{Book, Handle};
use super::report::Report;
use crate::flows::{Leg, Sight};
use crate::model::answer::{Hop, HopState, Outcomes, Path, State, Via};
use crate::model::flow::Direction;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A hop that an attempt passed, and where that was seen.
#[derive(Debug, Clone, Copy)]
struct Passed {
    view: usize,
    ifindex: u32,
    handle: Handle,
}

/// Hops of one attempt.
fn walk(case: &Case<'_>, a: &Attempt<'_>, book: &mut Book) -> BTreeMap<Hop, Passed> {
    let mut passed = BTreeMap::new();
    let mut mark = |hop: Hop, part: Part<'_>, sight: &Sight, text: String| {
        passed.entry(hop).or_insert_with(|| Passed {
            view: part.view,
            ifindex: sight.key.ifindex,
            handle: book.add(case.sight(part, sight, hop.name(), text)),
        });
    };
    let Some(first) = a.dialled_part() else {
        return passed;
    };
    let at = a.began();
    let to = a.translated();
    let seen = first
        .conn
        .sights_of(Leg::Orig)
        .min_by_key(|s| (s.stats.first, s.key));
    if let Some(s) = seen.filter(|_| a.via != Via::Pod && a.via != Via::Headless) {
        mark(
            Hop::Client,
            first,
            s,
            format!(
                "{} sends to {}",
                case.name(a.client(), at),
                a.orig.destination()
            ),
        );
        mark(
            Hop::Vip,
            first,
            s,
            format!(
                "packets to {} reach {}",
                a.orig.destination(),
                first.node.name()
            ),
        );
    } else if let Some(s) = seen {
        mark(
            Hop::Client,
            first,
            s,
            format!(
                "{} sends to {}",
                case.name(a.client(), at),
                a.orig.destination()
            ),
        );
    }
    for part in a.parts.iter().copied() {
        let sent = a.sent_on(part);
        if let Some(s) = sent {
            if part.conn.is_dnat() || a.rewritten == Some(part.conn.orig) {
                mark(
                    Hop::Dnat,
                    part,
                    s,
                    format!("translated to {}", to.destination()),
                );
            }
            mark(
                Hop::Policy,
                part,
                s,
                "the node's filters let it pass".to_owned(),
            );
            if part.conn.ct().is_some_and(|c| c.is_snat()) {
                mark(Hop::Snat, part, s, format!("source becomes {}", to.src));
            }
            let dev = part.node.ifname(s.key.ifindex).unwrap_or_default();
            mark(
                Hop::Route,
                part,
                s,
                format!("sent toward {} through {dev}", case.name(to.dst, at)),
            );
            if case.is_local(part.node, to.dst) {
                mark(
                    Hop::Backend,
                    part,
                    s,
                    format!("delivered to {} through {dev}", case.name(to.dst, at)),
                );
            }
        }
        if let Some(s) = a.heard_backend(part) {
            mark(
                Hop::Backend,
                part,
                s,
                format!("{} answers", case.name(to.dst, at)),
            );
            if !s.stats.flags.rst() || s.stats.syn_ack.is_some() {
                mark(
                    Hop::Listener,
                    part,
                    s,
                    format!("{} accepts", case.named(to.destination(), at)),
                );
            }
        }
    }
    let Some(client_side) = a.part_of(a.client()).or(Some(first)) else {
        return passed;
    };
    if let Some(s) = a.heard_backend(client_side) {
        mark(
            Hop::Return,
            client_side,
            s,
            format!("the answer reaches {}", client_side.node.name()),
        );
    }
    // What a program makes of the answer shows with the address dialled.
    let client_side = if a.rewritten.is_some() {
        first
    } else {
        client_side
    };
    let unnat = client_side
        .conn
        .sights_of(Leg::Unnat)
        .filter(|s| s.key.dir == Direction::Egress)
        .max_by_key(|s| (s.stats.first, s.key));
    if let Some(s) = unnat {
        let dev = client_side.node.ifname(s.key.ifindex).unwrap_or_default();
        mark(
            Hop::Unnat,
            client_side,
            s,
            format!(
                "the answer is delivered as from {} through {dev}",
                a.orig.dst
            ),
        );
    }
    passed
}

/// What attempts must share to be one path.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PathKey {
    via: Via,
    v6: bool,
    port: u16,
    client: IpAddr,
    backend: Option<IpAddr>,
}

/// Groups the attempts into paths and walks each.
pub fn paths(case: &Case<'_>, report: &mut Report) -> Vec<(Path, Vec<(usize, Handle)>)> {
    let mut groups: BTreeMap<PathKey, Vec<usize>> = BTreeMap::new();
    for (i, a) in case.attempts.iter().enumerate() {
        let key = PathKey {
            via: a.via,
            v6: a.orig.dst.is_ipv6(),
            port: a.orig.dport,
            client: a.client(),
            backend: a.backend().map(|b| b.ip()),
        };
        groups.entry(key).or_default().push(i);
    }
    groups
        .into_iter()
        .map(|(key, members)| path(case, report, &key, &members))
        .collect()
}

fn path(
    case: &Case<'_>,
    report: &mut Report,
    key: &PathKey,
    members: &[usize],
) -> (Path, Vec<(usize, Handle)>) {
    let mut outcomes = Outcomes::default();
    let mut passed: BTreeMap<Hop, (usize, Passed)> = BTreeMap::new();
    let mut broken: BTreeMap<Hop, Vec<Handle>> = BTreeMap::new();
    for &i in members {
        let a = &case.attempts[i];
        tally(&mut outcomes, a);
        let stop = report.broken.get(&i).cloned();
        if let Some((hop, handles)) = &stop {
            broken.entry(*hop).or_insert_with(|| handles.clone());
        }
        for (hop, p) in walk(case, a, &mut report.book) {
            // What was seen beyond the broken hop is not a hop passed by this attempt.
            if stop.as_ref().is_none_or(|(b, _)| hop < *b) {
                passed.entry(hop).or_insert((0, p)).0 += 1;
            }
        }
    }
    let mut cited = Vec::new();
    let hops = Hop::ALL
        .iter()
        .enumerate()
        .map(|(n, hop)| {
            let at = passed.get(hop).map(|(_, p)| *p);
            let handles = match (broken.get(hop), at) {
                (Some(handles), _) => handles.clone(),
                (None, Some(p)) => vec![p.handle],
                (None, None) => Vec::new(),
            };
            cited.extend(handles.iter().map(|h| (n, *h)));
            let state = match (broken.contains_key(hop), at) {
                (true, _) if outcomes.ok == 0 => State::Broken,
                (true, _) => State::Degraded,
                (false, Some(_)) => State::Ok,
                (false, None) => State::Unseen,
            };
            let view = at.map(|p| &case.views[p.view]);
            HopState {
                hop: *hop,
                state,
                node: view.map(|v| v.name().to_owned()),
                netns: view.map(|v| v.start.netns),
                ifname: at.zip(view).and_then(|(p, v)| v.ifname(p.ifindex)),
                evidence: Vec::new(),
            }
        })
        .collect();
    let at = members
        .first()
        .map(|i| case.attempts[*i].began())
        .unwrap_or_default();
    let path = Path {
        via: key.via,
        family: if key.v6 { "IPv6" } else { "IPv4" },
        port: key.port,
        from: case.name(key.client, at),
        backend: key.backend.map(|ip| case.backend_name(ip, at)),
        outcomes,
        hops,
    };
    (path, cited)
}

fn tally(outcomes: &mut Outcomes, a: &Attempt<'_>) {
    outcomes.attempts += a.weight;
    let slot = match a.outcome {
        Outcome::Ok => &mut outcomes.ok,
        Outcome::Refused => &mut outcomes.refused,
        Outcome::Reset => &mut outcomes.reset,
        Outcome::Timeout => &mut outcomes.timeout,
        Outcome::Unreachable => &mut outcomes.unreachable,
        Outcome::Stalled => &mut outcomes.stalled,
        Outcome::Pending => &mut outcomes.pending,
    };
    *slot += a.weight;
}
