//! What happens where we cannot see.

use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::flows::Sight;
use crate::model::answer::Basis;

/// Left on the way to a backend that is not on this node, and nothing came back.
fn left<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    let to = a.translated().dst;
    if !matches!(a.outcome, Outcome::Timeout | Outcome::Stalled) || a.backend().is_none() {
        return None;
    }
    a.parts.iter().copied().find_map(|part| {
        let silent = a.heard_backend(part).is_none() || a.outcome == Outcome::Stalled;
        if case.is_local(part.node, to) || !silent {
            return None;
        }
        Some((part, a.sent_on(part)?))
    })
}

/// The answer left on the way to a client that is not on this node, and the client never took it up.
fn answer_left<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    if !matches!(a.outcome, Outcome::Timeout | Outcome::Stalled) {
        return None;
    }
    a.parts.iter().copied().find_map(|part| {
        let to = a.translated();
        let remote_client =
            !case.is_local(part.node, a.client()) && case.is_local(part.node, to.dst);
        (remote_client && a.heard_backend(part).is_some()).then_some((part, a.answered_on(part)?))
    })
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
    if let Some((sender, sight)) = left(case, a)
        && let Some(receiver) = asked(a.translated().dst)
        && part_at(receiver).is_none()
        && was_looking(case, receiver, sight)
    {
        return Some(Between {
            sender,
            sight,
            receiver,
        });
    }
    let (sender, sight) = answer_left(case, a)?;
    let receiver = asked(sight.key.tuple.dst)?;
    let deaf = part_at(receiver).is_some_and(|p| a.heard_backend(p).is_none());
    (deaf && was_looking(case, receiver, sight)).then_some(Between {
        sender,
        sight,
        receiver,
    })
}

/// Only what was sent while the receiver looked, too, can be missed there.
fn was_looking(case: &Case<'_>, receiver: usize, sent: &Sight) -> bool {
    let view = &case.views[receiver];
    (view.start.time..view.now).contains(&sent.stats.first)
}

/// The node it was sent to was asked and never got it.
pub fn never_arrived(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "never-arrived",
        Basis::Observed,
        |a| {
            let Between { sender, sight, receiver } = between(case, a)?;
            let mut evidence = vec![sent_draft(a, case, sender, sight)];
            evidence.extend(case.translation(a));
            Some(Because { key: format!("{receiver}|{}", sender.view), evidence })
        },
        |of| {
            let a = of[0];
            let Some(Between { sender, sight, receiver }) = between(case, a) else { return Saying::new("") };
            let to = &case.views[receiver];
            let what = if a.is_to_backend(sender, &sight.key.tuple) { "Packets" } else { "Answers" };
            let summary = format!(
                "{what} leave {} toward {} and never come in at {}: they are lost between the nodes",
                sender.node.name(),
                case.name(sight.key.tuple.dst, a.began()),
                to.name()
            );
            let absent = format!("none of these packets was seen at any interface of {}", to.name());
            let mut draft = Draft::node("absent", absent);
            draft.view = Some((receiver, to.name().to_owned()));
            draft.time = Some(to.now);
            draft.netns = Some(to.start.netns);
            let values = vec![("node", to.name().to_owned())];
            Saying { evidence: vec![draft], values, ..Saying::new(summary) }
        },
    );
}

/// It left this node on an uplink, nothing came back, and the node it went to was not asked.
pub fn lost_beyond_node(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "lost-beyond-node",
        Basis::Observed,
        |a| {
            let (part, sight) = left(case, a).or_else(|| answer_left(case, a))?;
            let toward = sight.key.tuple.dst;
            if case.views.iter().any(|v| case.is_local(v, toward)) {
                return None;
            }
            let mut evidence = vec![sent_draft(a, case, part, sight)];
            evidence.extend(case.translation(a));
            let node = case.node_of(toward, a.began()).unwrap_or_else(|| toward.to_string());
            Some(Because { key: format!("{node}|{}", part.node.name()), evidence })
        },
        |of| {
            let a = of[0];
            let Some((part, sight)) = left(case, a).or_else(|| answer_left(case, a)) else { return Saying::new("") };
            let toward = sight.key.tuple.dst;
            let node = case.node_of(toward, a.began());
            let ask = node.as_deref().map_or_else(|| "the way to it".to_owned(), |n| format!("node {n}"));
            let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
            let what = if left(case, a).is_some() { "Packets" } else { "Answers" };
            let summary = format!(
                "{what} leave {} through {dev} toward {} and nothing comes back; nothing on {} dropped them: look at {ask}",
                part.node.name(),
                case.name(toward, a.began()),
                part.node.name()
            );
            let values = node.map(|n| ("node", n)).into_iter().collect();
            Saying { values, ..Saying::new(summary) }
        },
    );
}

fn sent_draft(a: &Attempt<'_>, case: &Case<'_>, part: Part<'_>, sight: &Sight) -> Draft {
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
