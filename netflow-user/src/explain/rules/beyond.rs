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

/// The backend's node was asked and never got it.
pub fn never_arrived(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "never-arrived",
        Basis::Observed,
        |a| {
            let (part, sight) = left(case, a)?;
            let to = a.translated().dst;
            let asked = case.views.iter().position(|v| case.is_local(v, to))?;
            if a.parts.iter().any(|p| p.view == asked) {
                return None;
            }
            let mut evidence = vec![sent_draft(case, a, part, sight)];
            evidence.extend(case.translation(a));
            Some(Because { key: format!("{asked}|{}", part.view), evidence })
        },
        |of| {
            let a = of[0];
            let to = a.translated().dst;
            let sender = a.parts[0].node.name();
            let Some(receiver) = case.views.iter().find(|v| case.is_local(v, to)) else { return Saying::new("") };
            let summary = format!(
                "Packets leave {sender} toward {} and never come in at {}: they are lost between the nodes",
                case.name(to, a.began()),
                receiver.name()
            );
            let absent = format!("no packet of these attempts was seen at any interface of {}", receiver.name());
            let mut draft = Draft::node("absent", absent);
            draft.view = case.views.iter().position(|v| std::ptr::eq(v, receiver)).map(|i| (i, receiver.name().to_owned()));
            draft.time = Some(receiver.now);
            draft.netns = Some(receiver.start.netns);
            Saying { evidence: vec![draft], values: vec![("node", receiver.name().to_owned())], ..Saying::new(summary) }
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
            let mut evidence = vec![sent_draft(case, a, part, sight)];
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

fn sent_draft(case: &Case<'_>, a: &Attempt<'_>, part: Part<'_>, sight: &Sight) -> Draft {
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
