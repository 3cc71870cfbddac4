//! What happens where we cannot see.

use super::route::answer_draft;
use super::service::drop_draft;
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::explain::view::View;
use crate::flows::Sight;
use crate::model::answer::Basis;
use crate::model::feed::TOO_SLOW;
use crate::model::node::RouteLookup;
use crate::model::{Proto, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Left on the way to a backend that is not on this node, and nothing came back.
pub(super) fn left<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    let to = a.translated().dst;
    if !is_silent(a, true) || a.backend().is_none() {
        return None;
    }
    a.parts.iter().copied().find_map(|part| {
        let connected = a.orig.proto == Proto::TCP && a.outcome != Outcome::Stalled;
        let silent = !connected || a.heard_backend(part).is_none();
        if case.is_local(part.node, to) || !silent {
            return None;
        }
        Some((part, a.sent_on(part)?))
    })
}

/// The answer left on the way to a client that is not on this node, and the client never took it up.
pub(super) fn answer_left<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    if !is_silent(a, false) {
        return None;
    }
    a.parts.iter().copied().find_map(|part| {
        let to = a.translated();
        let remote_client =
            !case.is_local(part.node, a.client()) && case.is_local(part.node, to.dst);
        (remote_client && a.heard_backend(part).is_some()).then_some((part, a.answered_on(part)?))
    })
}

/// It went unanswered; a stalled one in this direction.
fn is_silent(a: &Attempt<'_>, forward: bool) -> bool {
    match a.outcome {
        Outcome::Timeout => true,
        Outcome::Stalled => a.stall().is_none_or(|s| s.forward == forward),
        _ => false,
    }
}

/// Since when nothing more got through.
fn silent_since(a: &Attempt<'_>, sent: &Sight) -> Time {
    let stall = (a.outcome == Outcome::Stalled).then(|| a.stall()).flatten();
    stall.map_or(sent.stats.first, |s| s.since())
}

/// Lost between two nodes that were both asked.
struct Between<'a> {
    sender: Part<'a>,
    sight: &'a Sight,
    /// Index of the recording of the node it never reached.
    receiver: usize,
}

fn between<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<Between<'a>> {
    let asked = |ip| case.views.iter().position(|v| case.is_local(v, ip));
    let part_at = |view| a.parts.iter().copied().find(|p| p.view == view);
    let missed_stall = |p| a.stall().is_some_and(|s| !s.reached(p));
    if let Some((sender, sight)) = left(case, a)
        && let Some(receiver) = asked(a.translated().dst)
        && part_at(receiver).is_none_or(missed_stall)
        && was_looking(case, receiver, a, sight)
    {
        return Some(Between {
            sender,
            sight,
            receiver,
        });
    }
    let (sender, sight) = answer_left(case, a)?;
    let receiver = asked(sight.key.tuple.dst)?;
    let deaf = part_at(receiver).is_some_and(|p| a.heard_backend(p).is_none() || missed_stall(p));
    (deaf && was_looking(case, receiver, a, sight)).then_some(Between {
        sender,
        sight,
        receiver,
    })
}

/// Clocks of two nodes differ by less, and a packet is under way for less, than this.
const APART: Duration = Duration::from_millis(500);

/// Only what was sent while the receiver looked, too, can be missed there: one of the packets was on its way after all was
/// attached on it, and so long before the last sweep of its flow map that it would be in there.
fn was_looking(case: &Case<'_>, receiver: usize, a: &Attempt<'_>, sent: &Sight) -> bool {
    let view = &case.views[receiver];
    let missed = |t: Time| view.start.time + APART <= t && t + APART <= view.swept;
    missed(silent_since(a, sent)) || missed(sent.stats.last)
}

/// What a node did not keep, in words: then absence there is no proof. What it does not follow at all is no loss.
fn losses(view: &View) -> Option<String> {
    let of_story =
        |kind: &str| kind.starts_with("ring:") || kind.starts_with("flow-") || kind == TOO_SLOW;
    let lost = view
        .lost
        .iter()
        .filter(|(kind, n)| of_story(kind) && **n > 0);
    let mut all: Vec<String> = lost.map(|(kind, n)| format!("{n} {kind}")).collect();
    if view.table.evicted() > 0 {
        all.push(format!("{} connections evicted", view.table.evicted()));
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// The node it was sent to was asked and never got it.
pub fn never_arrived(case: &Case<'_>, report: &mut Report) {
    let lossy: Vec<bool> = case.views.iter().map(|v| losses(v).is_some()).collect();
    for basis in [Basis::Observed, Basis::Inferred] {
        report.explain(
            case,
            "never-arrived",
            basis,
            |a| {
                let Between {
                    sender,
                    sight,
                    receiver,
                } = between(case, a)?;
                if lossy[receiver] != (basis == Basis::Inferred) {
                    return None;
                }
                let mut evidence = vec![sent_draft(a, case, sender, sight)];
                evidence.extend(case.translation(a));
                Some(Because {
                    key: format!("{receiver}|{}", sender.view),
                    evidence,
                })
            },
            |of| between(case, of[0]).map_or_else(|| Saying::new(""), |b| absence(case, of, &b)),
        );
    }
}

fn absence(case: &Case<'_>, of: &[&Attempt<'_>], between: &Between<'_>) -> Saying {
    let a = of[0];
    let Between {
        sender,
        sight,
        receiver,
    } = *between;
    let to = &case.views[receiver];
    let what = if a.is_to_backend(sender, &sight.key.tuple) {
        "Packets"
    } else {
        "Answers"
    };
    let lost = losses(to);
    let unsure = lost.as_ref().map_or(
        "",
        |_| " (or were not kept there: its records are incomplete)",
    );
    let from = sender.node;
    // Not of each address the route is known.
    let sights = of
        .iter()
        .filter_map(|a| Some(self::between(case, a)?.sight));
    let mut toward = sights.map(|sight| sight.key.tuple.dst);
    let router = toward.find_map(|toward| router(from, toward, to));
    let handed = router.map_or(String::new(), |(via, _)| {
        format!(
            ". {} hands them to {via}, which is no address of {}: a router between them, or a route is missing on {}",
            from.name(),
            to.name(),
            from.name()
        )
    });
    let summary = format!(
        "{what} leave {} toward {} and never come in at {}: they are lost between the nodes{unsure}{handed}",
        from.name(),
        case.name(sight.key.tuple.dst, a.began()),
        to.name()
    );
    let lost = lost.map_or(String::new(), |lost| {
        format!(", which lost records: {lost}")
    });
    let absent = format!(
        "none of these packets was seen at any interface of {}{lost}",
        to.name()
    );
    let mut draft = Draft::node("absent", absent);
    draft.view = Some((receiver, to.name().to_owned()));
    draft.time = Some(to.now);
    draft.netns = Some(to.start.netns);
    let route = router.map(|(_, route)| answer_draft(sender.view, from, route));
    Saying {
        evidence: std::iter::once(draft).chain(route).collect(),
        values: vec![("node", to.name().to_owned())],
        ..Saying::new(summary)
    }
}

/// Next hop of a node's route to an address on another node, where it is not that node. Networks have routers between
/// nodes; where none is meant to be, this is how a route that is missing looks: the default one is taken.
fn router<'a>(from: &'a View, toward: IpAddr, to: &View) -> Option<(IpAddr, &'a RouteLookup)> {
    let own = from.start.netns;
    let mut routes = from.facts.iter().flat_map(|f| &f.lookups);
    let route = routes.find(|l| l.netns == own && l.dst == toward)?;
    let via = route.via.filter(|via| !to.is_own(*via))?;
    to.facts.is_some().then_some((via, route))
}

/// It left for a backend whose node is down, by the API. A node that was asked runs, whatever the API says: there the way
/// between the nodes is what fails.
pub fn node_down(case: &Case<'_>, report: &mut Report) {
    // A node that is not Ready may run all the same, as one whose kubelet stopped does: its Pods answer.
    let answered = case.attempts.iter().filter(|a| a.outcome == Outcome::Ok);
    let answered = answered.filter_map(|a| case.placed_on(a.backend()?.ip(), a.began()));
    let answered: BTreeSet<&str> = answered.collect();
    report.explain(
        case,
        "backend-node-down",
        Basis::Observed,
        |a| {
            let node = down_node(case, a).filter(|n| !answered.contains(n))?;
            let (part, sight) = left(case, a)?;
            if dropped_on(case, a, part, sight).is_some() {
                return None;
            }
            let sent = sent_draft(a, case, part, sight);
            Some(Because {
                key: node.to_owned(),
                evidence: std::iter::once(sent).chain(case.translation(a)).collect(),
            })
        },
        |of| {
            let node = down_node(case, of[0]).unwrap_or_default();
            let backends: BTreeSet<String> = of
                .iter()
                .filter_map(|a| Some(case.backend_name(a.backend()?.ip(), a.began())))
                .collect();
            let backends: Vec<String> = backends.into_iter().collect();
            let began = of.iter().all(|a| a.outcome == Outcome::Stalled);
            let more = if began { " any more" } else { "" };
            let summary = format!(
                "Nothing comes back{more} from {} on node {node}, which is not Ready; nothing here dropped the packets",
                backends.join(", ")
            );
            let text = format!("Node {node}: its condition Ready is not True");
            Saying {
                evidence: vec![Draft::objects(format!("node {node}"), text)],
                values: vec![("node", node.to_owned())],
                ..Saying::new(summary)
            }
        },
    );
}

/// Node of the backend, where it is not Ready and was not asked.
fn down_node<'a>(case: &Case<'a>, a: &Attempt<'_>) -> Option<&'a str> {
    let backend = a.backend()?.ip();
    let node = case.placed_on(backend, a.began())?;
    let down = case.objects.node(node)?.ready == Some(false);
    let is_it = |v: &View| v.name() == node || case.is_local(v, backend);
    let asked = case.views.iter().any(is_it);
    (down && !asked).then_some(node)
}

/// It left this node on an uplink, nothing came back, and the node it went to was not asked.
pub fn lost_beyond_node(case: &Case<'_>, report: &mut Report) {
    // What this node itself dropped after it was seen leaving may be all that is wrong.
    for basis in [Basis::Observed, Basis::Inferred] {
        report.explain(
            case,
            "lost-beyond-node",
            basis,
            |a| {
                let (part, sight) = left(case, a).or_else(|| answer_left(case, a))?;
                let toward = sight.key.tuple.dst;
                let dropped = dropped_on(case, a, part, sight);
                let asked = case.views.iter().any(|v| case.is_local(v, toward));
                if asked || dropped.is_some() != (basis == Basis::Inferred) {
                    return None;
                }
                let mut evidence = vec![sent_draft(a, case, part, sight)];
                evidence.extend(dropped);
                evidence.extend(case.translation(a));
                let node = case
                    .node_of(toward, a.began())
                    .unwrap_or_else(|| toward.to_string());
                Some(Because {
                    key: format!("{node}|{}", part.node.name()),
                    evidence,
                })
            },
            |of| {
                let a = of[0];
                let Some((part, sight)) = left(case, a).or_else(|| answer_left(case, a)) else {
                    return Saying::new("");
                };
                let toward = sight.key.tuple.dst;
                let node = case.node_of(toward, a.began());
                let is_down =
                    |n: &str| case.objects.node(n).is_some_and(|n| n.ready == Some(false));
                let ask = match node.as_deref() {
                    Some(n) if is_down(n) => format!("node {n}, which is not Ready"),
                    Some(n) => format!("node {n}"),
                    None => "the way to it".to_owned(),
                };
                let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
                let what = if left(case, a).is_some() {
                    "Packets"
                } else {
                    "Answers"
                };
                let here = part.node.name();
                let look = match dropped_on(case, a, part, sight) {
                    Some(drop) => format!(
                        "{here} itself dropped some ({}): look there, then at {ask}",
                        drop.text
                    ),
                    None => format!("nothing on {here} dropped them: look at {ask}"),
                };
                let summary = format!(
                    "{what} leave {here} through {dev} toward {} and nothing comes back; {look}",
                    case.name(toward, a.began()),
                );
                let there = node.map(|n| ("node", n));
                Saying {
                    values: there
                        .into_iter()
                        .chain([("here", here.to_owned())])
                        .collect(),
                    ..Saying::new(summary)
                }
            },
        );
    }
}

/// Evidence: this node dropped a packet of that direction after it was seen leaving.
fn dropped_on(case: &Case<'_>, a: &Attempt<'_>, part: Part<'_>, sent: &Sight) -> Option<Draft> {
    let forward = part.conn.leg(&sent.key.tuple)?.is_forward();
    let since = silent_since(a, sent);
    let (part, event, drop, _) = a.drops().into_iter().find(|(p, e, _, leg)| {
        p.view == part.view && leg.is_forward() == forward && e.record.time >= since
    })?;
    Some(drop_draft(case, part, event, drop))
}

pub(super) fn sent_draft(a: &Attempt<'_>, case: &Case<'_>, part: Part<'_>, sight: &Sight) -> Draft {
    let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
    let tail = if a.outcome == Outcome::Stalled {
        "no progress since"
    } else {
        "no answer"
    };
    let text = format!(
        "{} packets to {} left {} through {dev}, {tail}",
        sight.stats.packets,
        sight.key.tuple.destination(),
        part.node.name()
    );
    case.sight(part, sight, "left", text)
}
