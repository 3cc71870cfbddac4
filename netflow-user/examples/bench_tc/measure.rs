//! How long a program takes.

use crate::programs::Programs;
use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// New flows that are measured; each leaves an entry in the flow map.
pub const NEW_FLOWS: u32 = 10_000;
/// Times that each program is measured, in turn with the others.
const ROUNDS: usize = 9;
/// Packets per measurement.
const REPEAT: u32 = 500_000;

/// Nanoseconds of one packet, measured several times.
#[derive(Default)]
pub struct Cost(Vec<f64>);

impl Cost {
    /// One more measurement.
    pub fn push(&mut self, nanoseconds: f64) {
        self.0.push(nanoseconds);
    }

    /// The median.
    pub fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// The median of the ratios between measurements of the same round: a clock that changes its speed between
    /// rounds changes both.
    pub fn ratio(&self, to: &Cost) -> f64 {
        median(self.0.iter().zip(&to.0).map(|(a, b)| a / b).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Takes each measurement once, then each a second time, and so on.
pub fn alternate<const N: usize>(
    measurements: &[impl Fn() -> Result<f64>; N],
) -> Result<[Cost; N]> {
    let mut costs = [(); N].map(|()| Cost::default());
    for _ in 0..ROUNDS {
        for (cost, measurement) in costs.iter_mut().zip(measurements) {
            cost.push(measurement()?);
        }
    }
    Ok(costs)
}

/// Nanoseconds of one packet among many.
///
/// By this thread's CPU time: the kernel's own figure is cut to whole nanoseconds, which is too coarse for a program
/// of ten (`bpf_test_timer_continue`, <https://elixir.bootlin.com/linux/v6.18/source/net/bpf/test_run.c>). What the
/// call itself costs is spread over all packets.
pub fn repeated(programs: &Programs, program: &str, packet: &[u8]) -> Result<f64> {
    let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    programs.run(program, packet, REPEAT)?;
    let after = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let took = Duration::from(after).saturating_sub(Duration::from(before));
    Ok(took.as_secs_f64() * 1e9 / f64::from(REPEAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        let cost = |values: &[f64]| Cost(values.to_vec()).median();
        assert!((cost(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((cost(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(cost(&[]).is_nan());
    }

    #[test]
    fn a_slow_round_does_not_change_the_ratio() {
        let fast = Cost(vec![10.0, 30.0, 10.0]);
        let slow = Cost(vec![20.0, 60.0, 20.0]);
        assert!((slow.ratio(&fast) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn measurements_take_turns() -> Result<()> {
        let order = std::cell::RefCell::new(Vec::new());
        let order = &order;
        let measurement = |name: &'static str| {
            move || {
                order.borrow_mut().push(name);
                Ok(1.0)
            }
        };
        alternate(&[measurement("a"), measurement("b")])?;
        assert_eq!(order.borrow().len(), 2 * ROUNDS);
        assert_eq!(order.borrow()[..4], ["a", "b", "a", "b"]);
        Ok(())
    }
}
