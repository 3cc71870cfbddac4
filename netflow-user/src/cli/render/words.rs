//! Values of an answer in words.

use super::page::{BAD, DOUBT, GOOD};
use crate::model::Time;
use crate::model::answer::{Basis, Outcomes, Path, Severity, Verdict, Via};
use anstyle::Style;
use std::time::Duration;

/// How a client addressed the Service.
pub fn via(via: Via) -> &'static str {
    match via {
        Via::Vip => "VIP",
        Via::Pod => "Pod IP",
        Via::NodePort => "NodePort",
        Via::Lb => "load balancer",
        Via::ExternalIp => "external IP",
        Via::Headless => "headless",
    }
}

/// `42 attempts: 40 refused, 2 ok`.
pub fn outcomes(o: &Outcomes) -> String {
    let parts: Vec<String> = [
        (o.ok, "ok"),
        (o.refused, "refused"),
        (o.reset, "reset"),
        (o.timeout, "timed out"),
        (o.unreachable, "unreachable"),
        (o.stalled, "stalled"),
        (o.pending, "undecided"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    let attempts = count(o.attempts, "attempt");
    if parts.is_empty() {
        attempts
    } else {
        format!("{attempts}: {}", parts.join(", "))
    }
}

/// `1 attempt`, `2 attempts`.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// `app/client → app/web-0`.
pub fn path_ends(path: &Path) -> String {
    let backend = path.backend.as_deref().unwrap_or("no backend");
    format!("{} → {backend}", path.from)
}

/// The verdict as the first word of an answer.
pub fn verdict(v: Verdict) -> (&'static str, Style) {
    match v {
        Verdict::Healthy => ("HEALTHY", GOOD.bold()),
        Verdict::Failing => ("FAILING", BAD),
        Verdict::Degraded => ("DEGRADED", BAD),
        Verdict::Suspected => ("SUSPECTED", DOUBT.bold()),
        Verdict::NotEnoughEvidence => ("NOT ENOUGH EVIDENCE", DOUBT.bold()),
    }
}

/// Severity as in JSON.
pub fn severity(s: Severity) -> &'static str {
    match s {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// What a finding rests on.
pub fn basis(b: Basis) -> &'static str {
    match b {
        Basis::Observed => "observed on packets",
        Basis::Inferred => "inferred from records",
        Basis::Objects => "from objects alone",
    }
}

/// Time since the window opened; what was read before has a minus.
pub fn offset(from: Time, at: Time) -> String {
    if at >= from {
        format!("+{}", seconds(at.since(from)))
    } else {
        format!("-{}", seconds(from.since(at)))
    }
}

/// `1.204 s`; long ones without the fraction.
pub fn seconds(d: Duration) -> String {
    if d < Duration::from_secs(100) {
        format!("{:.3} s", d.as_secs_f64())
    } else {
        format!("{} s", d.as_secs())
    }
}
