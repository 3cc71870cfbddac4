//! Connections that are sent to a Pod which is not ready to take them: it shuts down, or it has not started.

use super::listener::refusal;
use super::scope::last_sight;
use super::service::full_name;
use crate::explain::attempt::{Attempt, Outcome};
use crate::explain::case::Case;
use crate::explain::endpoints::{self, Backend};
use crate::explain::evidence::Draft;
use crate::explain::lack;
use crate::explain::report::{Because, Report, Saying};
use crate::model::answer::Basis;
use crate::model::objects::Pod;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The chosen endpoint is being shut down and takes no connections any more.
pub fn terminating(case: &Case<'_>, report: &mut Report) {
    explain(
        case,
        report,
        "terminating-backend",
        is_leaving,
        |pods| {
            format!(
                "Connections of {} are sent to {pods}, shutting down and no longer taking them",
                full_name(case)
            )
        },
        |backend, pod| {
            let deleted = pod.filter(|p| p.deleting);
            let deleted = deleted.map_or(String::new(), |p| {
                format!("; Pod {} is being deleted", p.name)
            });
            format!(
                "the slice says of {}: ready {}, serving {}, terminating {}{deleted}",
                backend.address,
                backend.endpoint.ready,
                backend.endpoint.serving,
                backend.endpoint.terminating
            )
        },
    );
}

/// The Service has its Pods published before they are ready, and the chosen one does not take connections yet.
pub fn published(case: &Case<'_>, report: &mut Report) {
    explain(
        case,
        report,
        "publish-not-ready",
        is_published,
        |pods| {
            format!(
                "Service {} has publishNotReadyAddresses, so connections are sent to {pods} before they can be taken there",
                full_name(case)
            )
        },
        |backend, pod| {
            let why = pod.and_then(lack::unready);
            let why = why.unwrap_or_else(|| format!("{} does not serve", backend.address));
            format!("publishNotReadyAddresses is true; not ready: {why}")
        },
    );
}

/// Attempts that ended at an endpoint in such a state, if those at the others did not.
fn explain(
    case: &Case<'_>,
    report: &mut Report,
    code: &'static str,
    is_it: fn(&Case<'_>, &Attempt<'_>) -> bool,
    summary: impl Fn(&str) -> String,
    state: impl Fn(&Backend<'_>, Option<&Pod>) -> String,
) {
    // Where endpoints in order fail alike, this state is not what they have in common.
    let in_order = |a: &Attempt<'_>| chosen(case, a).is_some() && !is_it(case, a);
    let mut open = report.open(case).into_iter();
    if open.any(|(_, a)| in_order(a) && ended_there(case, a).is_some()) {
        return;
    }
    report.explain(
        case,
        code,
        Basis::Observed,
        |a| {
            let evidence = Some(a)
                .filter(|a| is_it(case, a))
                .and_then(|a| ended_there(case, a))?;
            Some(Because {
                key: String::new(),
                evidence,
            })
        },
        |of| {
            let mut known: BTreeSet<IpAddr> = BTreeSet::new();
            let mut names = BTreeSet::new();
            let mut evidence = Vec::new();
            for a in of {
                let Some(backend) = chosen(case, a).filter(|b| known.insert(b.address.ip())) else {
                    continue;
                };
                names.insert(case.named(backend.address, a.began()));
                let text = state(&backend, pod_then(case, a));
                evidence.push(Draft::objects(format!("state {}", backend.address), text));
            }
            let names: Vec<String> = names.into_iter().collect();
            Saying {
                evidence,
                ..Saying::new(summary(&names.join(", ")))
            }
        },
    );
}

/// The endpoint that an attempt went to, for the Service or directly, as the slices had it then.
fn chosen<'a>(case: &Case<'a>, a: &Attempt<'_>) -> Option<Backend<'a>> {
    let to = a.backend()?;
    let port = case.port_of_attempt(a)?;
    let (objects, service) = case.then(a.began());
    let mut all = endpoints::backends(objects, service, port, to.is_ipv6()).into_iter();
    all.find(|b| b.address == to)
}

fn pod_then<'a>(case: &Case<'a>, a: &Attempt<'_>) -> Option<&'a Pod> {
    let (objects, _) = case.then(a.began());
    objects.pod_at(a.backend()?.ip())
}

fn is_leaving(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    chosen(case, a)
        .is_some_and(|b| b.endpoint.terminating || pod_then(case, a).is_some_and(|p| p.deleting))
}

fn is_published(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    let (_, service) = case.then(a.began());
    let starting = |b: Backend<'_>| {
        let pod = pod_then(case, a);
        b.endpoint.ready && pod.map_or(!b.endpoint.serving, |p| !p.is_ready())
    };
    service.publish_not_ready && chosen(case, a).is_some_and(starting)
}

/// Evidence: it came to the backend and ended there: refused, reset by the Pod, or unanswered where the Pod's own node
/// delivered it.
fn ended_there(case: &Case<'_>, a: &Attempt<'_>) -> Option<Vec<Draft>> {
    let backend = a.backend()?;
    if let Some((_, evidence)) = refusal(case, a) {
        return Some(evidence);
    }
    let delivered = || {
        let here = a.part_of(backend.ip());
        here.is_some_and(|p| a.sent_on(p).is_some() && a.heard_backend(p).is_none())
    };
    let ended = match a.outcome {
        Outcome::Reset => !a.is_cut_by_client(),
        Outcome::Timeout => a.drops().is_empty() && delivered(),
        _ => false,
    };
    let sight = last_sight(case, a).filter(|_| ended)?;
    Some(std::iter::once(sight).chain(case.translation(a)).collect())
}
