//! How looks end, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was told.
    Answered,
    /// Whoever asked was gone before that.
    Abandoned,
    /// It could not be done, or not to its end.
    Failed,
    /// There were too many, or the agent was ending.
    Refused,
}

impl Outcome {
    /// All.
    pub const ALL: [Outcome; 4] = [
        Outcome::Answered,
        Outcome::Abandoned,
        Outcome::Failed,
        Outcome::Refused,
    ];

    /// As metrics show it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Abandoned => "abandoned",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
        }
    }
}

/// How many ended which way.
#[derive(Debug, Default)]
pub struct Outcomes([AtomicU64; Outcome::ALL.len()]);

impl Outcomes {
    /// One more.
    pub fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> [(Outcome, u64); Outcome::ALL.len()] {
        Outcome::ALL.map(|o| (o, self.0[o as usize].load(Ordering::Relaxed)))
    }
}
