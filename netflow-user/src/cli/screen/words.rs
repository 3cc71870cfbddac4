//! Values in few columns.

use crate::explain::attempt::Outcome;
use std::time::Duration;

/// `7s`, `3m`, `2h`: how old something is.
pub fn age(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..100 => format!("{s}s"),
        s @ 100..6000 => format!("{}m", s / 60),
        s => format!("{}h", s / 3600),
    }
}

/// `85µs`, `1.2ms`, `1.3s`: how long something took.
pub fn took(d: Duration) -> String {
    let micros = d.as_micros();
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{:.1}ms", micros as f64 / 1e3),
        _ => format!("{:.1}s", d.as_secs_f64()),
    }
}

/// How an attempt ended, as elsewhere.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Refused => "refused",
        Outcome::Reset => "reset",
        Outcome::Timeout => "timed out",
        Outcome::Unreachable => "unreachable",
        Outcome::Stalled => "stalled",
        Outcome::Pending => "undecided",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let ages = [0, 99, 100, 5_999, 6_000].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages, ["0s", "99s", "1m", "99m", "1h"]);
        let took = [85, 1_249, 2_000_000].map(|us| took(Duration::from_micros(us)));
        assert_eq!(took, ["85µs", "1.2ms", "2.0s"]);
    }
}
