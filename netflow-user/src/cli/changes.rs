//! What differs between two answers, as events for `watch`.

use super::render;
use crate::model::Time;
use crate::model::answer::{Answer, Finding, Hop, Path, State, Verdict, Via};
use serde::Serialize;

/// Value of `schema`.
pub const SCHEMA: &str = "netflow.watch/v1";

/// One line of `watch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When it was noticed.
    #[serde(serialize_with = "text")]
    pub time: Time,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's serialize_with passes a reference"
)]
fn text<S: serde::Serializer>(t: &Time, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(t)
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// Connections on a path, or the state of its hops.
    Path {
        /// The path as it is now.
        path: Path,
        /// Attempts since the line before.
        new: u64,
    },
    /// A finding arose.
    Finding {
        /// The finding.
        finding: Finding,
    },
    /// A finding no longer holds.
    FindingGone {
        /// Its code.
        code: &'static str,
    },
    /// Another verdict.
    Verdict {
        /// The verdict.
        verdict: Verdict,
    },
    /// Records were lost.
    Lost {
        /// So many since the line before.
        records: u64,
    },
}

/// Events that lead from `before` to `after`.
pub fn between(before: Option<&Answer>, after: &Answer) -> Vec<Event> {
    let mut changes = Vec::new();
    for path in &after.paths {
        let old = before.and_then(|b| b.paths.iter().find(|p| key(p) == key(path)));
        if old.is_none_or(|o| o.outcomes != path.outcomes || states(o) != states(path)) {
            let new = path
                .outcomes
                .attempts
                .saturating_sub(old.map_or(0, |o| o.outcomes.attempts));
            changes.push(Change::Path {
                path: path.clone(),
                new,
            });
        }
    }
    let old_findings = before.map_or(&[][..], |b| &b.findings);
    for finding in &after.findings {
        if !old_findings.iter().any(|o| same(o, finding)) {
            changes.push(Change::Finding {
                finding: finding.clone(),
            });
        }
    }
    for finding in old_findings {
        if !after.findings.iter().any(|n| n.code == finding.code) {
            changes.push(Change::FindingGone { code: finding.code });
        }
    }
    let lost = |a: &Answer| a.nodes.iter().map(|n| n.lost.records).sum::<u64>();
    let records = lost(after).saturating_sub(before.map_or(0, lost));
    if records > 0 {
        changes.push(Change::Lost { records });
    }
    if before.is_none_or(|b| b.verdict != after.verdict) {
        changes.push(Change::Verdict {
            verdict: after.verdict,
        });
    }
    let event = |change| Event {
        schema: SCHEMA,
        time: after.window.to,
        change,
    };
    changes.into_iter().map(event).collect()
}

/// The same fault, said on the same ground: its counts may differ.
fn same(a: &Finding, b: &Finding) -> bool {
    (a.code, a.severity, a.basis, a.hop) == (b.code, b.severity, b.basis, b.hop)
}

fn key(p: &Path) -> (Via, &str, u16, &str, Option<&str>) {
    (p.via, p.family, p.port, &p.from, p.backend.as_deref())
}

fn states(p: &Path) -> Vec<(Hop, State)> {
    p.hops.iter().map(|h| (h.hop, h.state)).collect()
}

impl Event {
    /// As a line for a reader.
    pub fn line(&self) -> String {
        let what = match &self.change {
            Change::Path { path, .. } => {
                let broken: Vec<&str> = path
                    .hops
                    .iter()
                    .filter(|h| matches!(h.state, State::Broken | State::Degraded))
                    .map(|h| h.hop.name())
                    .collect();
                let stops = if broken.is_empty() {
                    String::new()
                } else {
                    format!("; stops at {}", broken.join(", "))
                };
                format!(
                    "path     {} :{} {}, {}{stops}",
                    render::via(path.via),
                    path.port,
                    render::path_ends(path),
                    render::outcomes(&path.outcomes)
                )
            }
            Change::Finding { finding } => {
                format!("finding  {}: {}", finding.code, finding.summary)
            }
            Change::FindingGone { code } => format!("gone     {code}"),
            Change::Verdict { verdict } => format!("verdict  {}", verdict.name()),
            Change::Lost { records } => format!("lost     {records} records"),
        };
        format!("{} {what}", self.time)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::cli::render::samples::{healthy, mismatch, silent};

    fn lines(before: Option<&Answer>, after: &Answer) -> Vec<String> {
        let line = |e: &Event| e.line().split_once(' ').unwrap().1.to_owned();
        between(before, after).iter().map(line).collect()
    }

    #[test]
    fn the_first_answer_is_all_news_and_the_same_again_is_none() {
        let a = mismatch();
        let text = lines(None, &a);
        assert_eq!(
            text[0],
            "path     VIP :8080 app/client → app/web-api-0, 42 attempts: 42 refused; stops at listener"
        );
        assert!(
            text.iter()
                .any(|l| l.starts_with("finding  target-port-mismatch: "))
        );
        assert!(text.contains(&"lost     12 records".to_owned()));
        assert_eq!(text.last().unwrap(), "verdict  failing");
        assert_eq!(lines(Some(&a), &a), Vec::<String>::new());
    }

    #[test]
    fn more_attempts_are_news_of_their_path_only() {
        let before = mismatch();
        let mut after = mismatch();
        after.paths[0].outcomes.attempts += 2;
        after.paths[0].outcomes.refused += 2;
        after.findings[0].affected.attempts += 2;
        let events = between(Some(&before), &after);
        assert!(
            matches!(
                &events[..],
                [Event {
                    change: Change::Path { new: 2, .. },
                    ..
                }]
            ),
            "{events:?}"
        );
    }

    #[test]
    fn a_finding_that_ends_is_said_to_be_gone() {
        let text = lines(Some(&mismatch()), &healthy());
        assert!(
            text.contains(&"gone     target-port-mismatch".to_owned()),
            "{text:?}"
        );
        assert_eq!(text.last().unwrap(), "verdict  healthy");
    }

    #[test]
    fn events_are_as_their_schema_says() {
        let schema = include_str!("../../../docs/schema/watch.v1.json");
        let schema = serde_json::from_str(schema).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut events = between(None, &mismatch());
        events.extend(between(Some(&mismatch()), &silent()));
        for event in events {
            let value = serde_json::to_value(&event).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}\n{value:#}");
        }
    }
}
