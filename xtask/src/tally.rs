//! Passed and failed, counted.

use std::fmt;
use std::ops::Add;

/// How many passed and how many failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

impl Tally {
    /// One thing passed.
    pub const PASSED: Tally = Tally {
        passed: 1,
        failed: 0,
    };
    /// One thing failed.
    pub const FAILED: Tally = Tally {
        passed: 0,
        failed: 1,
    };
}

impl Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The summary of a test harness: `test result: ok. 12 passed; 0 failed; …`.
pub fn of_harness(line: &str) -> Option<Tally> {
    let rest = line.trim().strip_prefix("test result: ")?;
    Some(Tally {
        passed: before(rest, " passed;")?,
        failed: before(rest, " failed;")?,
    })
}

/// Our own closing line: `12 passed, 0 failed`.
pub fn of_closing_line(line: &str) -> Option<Tally> {
    let (passed, failed) = line.trim().split_once(" passed, ")?;
    Some(Tally {
        passed: passed.parse().ok()?,
        failed: failed.strip_suffix(" failed")?.parse().ok()?,
    })
}

/// The number that stands before `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let (head, _) = text.split_once(word)?;
    head.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_harnesses_are_read() {
        let good = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            of_harness(good),
            Some(Tally {
                passed: 12,
                failed: 0
            })
        );
        assert_eq!(
            of_harness(bad),
            Some(Tally {
                passed: 1,
                failed: 2
            })
        );
        for other in [
            "test a::b ... ok",
            "running 3 tests",
            "",
            "test result: unclear",
        ] {
            assert_eq!(of_harness(other), None, "{other}");
        }
    }

    #[test]
    fn a_closing_line_reads_back_as_what_was_shown() {
        let tally = Tally {
            passed: 41,
            failed: 2,
        };
        assert_eq!(of_closing_line(&tally.to_string()), Some(tally));
        for other in [
            "41 passed",
            "x passed, 2 failed",
            "41 passed, 2 failed in 3 s",
        ] {
            assert_eq!(of_closing_line(other), None, "{other}");
        }
    }

    #[test]
    fn tallies_add_up() {
        assert_eq!(
            Tally::PASSED + Tally::FAILED + Tally::PASSED,
            Tally {
                passed: 2,
                failed: 1
            }
        );
    }
}
