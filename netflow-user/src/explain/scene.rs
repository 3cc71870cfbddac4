//! How things stand, for whoever watches: the answer as of now with single connections and how many come.

use super::case::Case;
use super::connections::{self, ConnectionState};
use crate::model::Time;
use crate::model::answer::Answer;
use crate::model::query::Query;
use std::time::Duration;

/// Attempts of so long are counted for the rates.
const RATED: Duration = Duration::from_secs(10);

/// How things stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// What was asked.
    pub query: Query,
    /// The answer as of now.
    pub answer: Answer,
    /// Connections, those that failed first.
    pub connections: Vec<ConnectionState>,
    /// How many there are, shown or not.
    pub all: usize,
    /// How many come.
    pub rates: Rates,
}

/// Attempts of the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Begun.
    pub attempts: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Within so long.
    pub over: Duration,
}

impl Rates {
    /// A number of them by the second.
    pub fn per_second(self, n: u64) -> f64 {
        let seconds = self.over.as_secs_f64();
        if seconds > 0.0 {
            n as f64 / seconds
        } else {
            0.0
        }
    }
}

/// Which connections are wanted.
pub struct Wanted<'a> {
    /// At most so many.
    pub limit: usize,
    /// Only these.
    pub kept: &'a dyn Fn(&ConnectionState) -> bool,
}

/// Connections, their number, and the rates between `from` and `now`.
pub(super) fn of(
    case: Option<&Case<'_>>,
    wanted: &Wanted<'_>,
    from: Time,
    now: Time,
) -> (Vec<ConnectionState>, usize, Rates) {
    let Some(case) = case else {
        return (Vec::new(), 0, Rates::default());
    };
    let (connections, all) = connections::list(case, wanted.limit, wanted.kept);
    (connections, all, rates(case, from, now))
}

fn rates(case: &Case<'_>, from: Time, now: Time) -> Rates {
    let over = RATED.min(now.since(from));
    let mut rates = Rates {
        over,
        ..Rates::default()
    };
    for attempt in case.attempts.iter().filter(|a| a.began() >= now - over) {
        rates.attempts += attempt.weight;
        if attempt.outcome.is_failure() {
            rates.failed += attempt.weight;
        }
    }
    rates
}
