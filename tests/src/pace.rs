//! How long things may take: on an emulated machine, a stated number of times as long as on a real one.
//!
//! Only limits are stretched, and the look that netflow is given with them. What it must say stays the same.

use std::sync::OnceLock;
use std::time::Duration;

static PACE: OnceLock<u32> = OnceLock::new();

/// Everything may take `times` as long. The first call counts.
pub fn set(times: u32) {
    PACE.get_or_init(|| times.max(1));
}

/// How many times as long everything may take.
pub fn times() -> u32 {
    PACE.get().copied().unwrap_or(1)
}

/// A limit, as long as it is here.
pub fn paced(limit: Duration) -> Duration {
    limit * times()
}
