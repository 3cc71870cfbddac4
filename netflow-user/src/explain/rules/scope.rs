//! Scopes: where no cause explains a group of failing attempts, what they have in common.

use super::service::full_name;
use crate::explain::attempt::{Attempt, Outcome};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::model::answer::Basis;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// One endpoint fails and the others serve.
pub fn one_bad_endpoint(case: &Case<'_>, report: &mut Report) {
    let mut served: BTreeMap<SocketAddr, (u64, u64)> = BTreeMap::new();
    for a in case
        .attempts
        .iter()
        .filter(|a| case.port_of_attempt(a).is_some())
    {
        let Some(backend) = a.backend() else { continue };
        let tally = served.entry(backend).or_default();
        if a.outcome == Outcome::Ok {
            tally.0 += a.weight;
        } else if is_its_doing(a) {
            tally.1 += a.weight;
        }
    }
    let is_bad = |b: &SocketAddr| {
        served
            .get(b)
            .is_some_and(|(ok, failed)| *failed > 0 && ok * 10 < *failed)
    };
    let good: Vec<SocketAddr> = served
        .iter()
        .filter(|(_, (ok, failed))| *ok > 0 && failed * 10 < *ok)
        .map(|(b, _)| *b)
        .collect();
    let bad = served.keys().filter(|b| is_bad(b)).count();
    if good.is_empty() || bad != 1 {
        return;
    }
    // Who was served by none may have its own reason, whichever endpoint was chosen for it.
    let served_clients: BTreeSet<IpAddr> = case
        .attempts
        .iter()
        .filter(|a| a.outcome == Outcome::Ok && a.backend().is_some_and(|b| good.contains(&b)))
        .map(Attempt::client)
        .collect();
    let mut failing = case
        .attempts
        .iter()
        .filter(|a| a.outcome.is_failure() && a.backend().is_some_and(|b| is_bad(&b)));
    if !failing.any(|a| served_clients.contains(&a.client())) {
        return;
    }
    // Silence from another node explains itself by what lies between, unless that node's other endpoints serve.
    let comparable = |a: &Attempt<'_>, b: SocketAddr| {
        let node = case.node_of(b.ip(), a.began());
        let beside = good.iter().any(|g| case.node_of(g.ip(), a.began()) == node);
        beside || answered(a) || case.views.iter().any(|v| case.is_local(v, b.ip()))
    };
    report.explain(
        case,
        "one-bad-endpoint",
        Basis::Observed,
        |a| {
            let is_bad = |b: &SocketAddr| is_bad(b) && comparable(a, *b) && is_its_doing(a);
            let backend = a.backend().filter(is_bad)?;
            let mut evidence: Vec<Draft> = last_sight(case, a).into_iter().collect();
            evidence.extend(case.translation(a));
            Some(Because {
                key: backend.to_string(),
                evidence,
            })
        },
        |of| {
            let Some(backend) = of[0].backend() else {
                return Saying::new("");
            };
            let how = match of[0].outcome {
                Outcome::Reset => "resets connections after accepting them",
                Outcome::Refused => "refuses connections",
                Outcome::Stalled => "stops answering within a connection",
                _ => "does not answer",
            };
            let summary = format!(
                "Of the endpoints of {}, only {} {how}; {} others serve",
                full_name(case),
                case.named(backend, of[0].began()),
                good.len()
            );
            Saying {
                evidence: good_draft(case, &good),
                ..Saying::new(summary)
            }
        },
    );
}

/// It failed, and not because the client itself gave it up.
pub(super) fn is_its_doing(a: &Attempt<'_>) -> bool {
    a.outcome.is_failure() && !a.is_cut_by_client()
}

pub(super) fn answered(a: &Attempt<'_>) -> bool {
    a.parts.iter().any(|p| a.heard_backend(*p).is_some())
}

/// Evidence: the last that was seen of a failing attempt.
pub(super) fn last_sight(case: &Case<'_>, a: &Attempt<'_>) -> Option<Draft> {
    let part = a
        .parts
        .iter()
        .copied()
        .find(|p| a.heard_backend(*p).is_some() || a.sent_on(*p).is_some())?;
    let sight = a.heard_backend(part).or_else(|| a.sent_on(part))?;
    let what = if a.heard_backend(part).is_some() {
        "ends with what came from"
    } else {
        "goes unanswered at"
    };
    let to = a.translated().destination();
    Some(case.sight(
        part,
        sight,
        &format!("bad {to}"),
        format!("the connection {what} {to}"),
    ))
}

fn good_draft(case: &Case<'_>, good: &[SocketAddr]) -> Vec<Draft> {
    let ok = case
        .attempts
        .iter()
        .filter(|a| a.outcome == Outcome::Ok && a.backend().is_some_and(|b| good.contains(&b)));
    ok.filter_map(|a| {
        let part = a.parts.first()?;
        let sight = part
            .conn
            .sights_towards(false)
            .min_by_key(|s| (s.stats.first, s.key))?;
        let backend = a.backend()?;
        let text = format!("{} answers", case.named(backend, a.began()));
        Some(case.sight(*part, sight, &format!("good {backend}"), text))
    })
    .collect()
}
