//! Findings since the look began: when each arose, and which are gone.

use crate::model::Time;
use crate::model::answer::{Answer, Finding};
use std::time::Duration;

/// So long a finding that is gone is still shown.
const REMEMBERED: Duration = Duration::from_mins(1);

/// A finding and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The finding as it was last told.
    pub finding: Finding,
    /// Since when it holds.
    pub arose: Time,
    /// Since when it no longer does.
    pub gone: Option<Time>,
}

/// Takes in what an answer finds, in its order; those that are gone follow.
pub fn update(before: &[Told], answer: &Answer) -> Vec<Told> {
    let now = answer.window.to;
    let known = |finding: &Finding| {
        let mut standing = before.iter().filter(|t| t.gone.is_none());
        standing.find(|t| is_same(&t.finding, finding))
    };
    let standing = answer.findings.iter().map(|finding| Told {
        finding: finding.clone(),
        arose: known(finding).map_or(finding.from.unwrap_or(now), |t| t.arose),
        gone: None,
    });
    let gone = before.iter().filter_map(|told| {
        let back = answer.findings.iter().any(|f| is_same(f, &told.finding));
        let since = told.gone.unwrap_or(now);
        let recent = now.since(since) <= REMEMBERED;
        (!back && recent).then(|| Told {
            gone: Some(since),
            ..told.clone()
        })
    });
    standing.chain(gone).collect()
}

/// The same fault at the same place: its counts may differ.
fn is_same(a: &Finding, b: &Finding) -> bool {
    (a.code, a.hop) == (b.code, b.hop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{healthy, mismatch};

    fn later(mut answer: Answer, seconds: u64) -> Answer {
        answer.window.to = answer.window.to + Duration::from_secs(seconds);
        answer
    }

    fn codes(told: &[Told]) -> Vec<(&str, bool)> {
        told.iter()
            .map(|t| (t.finding.code, t.gone.is_some()))
            .collect()
    }

    #[test]
    fn a_finding_keeps_its_age_while_it_stands() {
        let first = update(&[], &mismatch());
        assert_eq!(Some(first[0].arose), mismatch().findings[0].from);
        assert_eq!(
            first[1].arose,
            mismatch().window.to,
            "now, where nothing says since when"
        );
        let again = update(&first, &later(mismatch(), 5));
        assert_eq!(again, first);
    }

    #[test]
    fn what_is_gone_is_remembered_for_a_while() {
        let standing = update(&[], &mismatch());
        let gone = update(&standing, &healthy());
        let both = [("target-port-mismatch", true), ("pmtu-learned", true)];
        assert_eq!(codes(&gone), both);
        let still = update(&gone, &later(healthy(), 60));
        assert_eq!(still, gone);
        assert_eq!(update(&gone, &later(healthy(), 61)), []);
        let back = update(&gone, &later(mismatch(), 9));
        assert_eq!(codes(&back), both.map(|(code, _)| (code, false)));
    }
}
