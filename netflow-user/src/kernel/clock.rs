//! The programs' clock to wall-clock time.

use super::sys;
use crate::model::Time;
use netflow_ebpf::FlowValue;
use std::time::{SystemTime, UNIX_EPOCH};

/// One offset between `CLOCK_MONOTONIC` and wall-clock time, measured once: a clock step during a run moves no record
/// against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Wall clock minus monotonic clock, nanoseconds.
    offset: u64,
    /// Length of a kernel tick, nanoseconds.
    tick_ns: u32,
}

impl Clock {
    /// Measures the offset: of several tries, the one with the least time between the two readings of the monotonic clock.
    pub fn measure() -> Clock {
        let mut best = (u64::MAX, 0);
        for _ in 0..8 {
            let before = sys::monotonic_ns();
            let wall = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
            let after = sys::monotonic_ns();
            let width = after.saturating_sub(before);
            if width < best.0 {
                best = (width, wall.wrapping_sub(before + width / 2));
            }
        }
        Clock::with_offset(best.1)
    }

    /// A clock with this offset.
    pub fn with_offset(offset: u64) -> Clock {
        let tick_ns = sys::tick_ns();
        Clock { offset, tick_ns }
    }

    /// Monotonic time of a flow's latest packet, to the tick.
    pub fn last(self, value: &FlowValue) -> u64 {
        value.last(self.tick_ns)
    }

    /// Wall-clock time of a reading of the monotonic clock.
    pub fn time(self, monotonic: u64) -> Time {
        Time(monotonic.wrapping_add(self.offset))
    }

    /// The same, where 0 means that it did not happen.
    pub fn some_time(self, monotonic: u64) -> Option<Time> {
        (monotonic != 0).then(|| self.time(monotonic))
    }

    /// Now, on this clock.
    pub fn now(self) -> Time {
        self.time(sys::monotonic_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_wall_clock() {
        let clock = Clock::measure();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let ours = u128::from(clock.now().0);
        assert!(wall.abs_diff(ours) < 1_000_000_000);
    }

    #[test]
    fn zero_did_not_happen() {
        let clock = Clock::with_offset(1000);
        assert_eq!(clock.some_time(0), None);
        assert_eq!(clock.some_time(5), Some(Time(1005)));
    }
}
