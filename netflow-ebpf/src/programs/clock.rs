//! Two clocks.

use super::layout::layout;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};

/// For events: `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// For every packet: the low half of `jiffies`, which the verifier turns into one load
/// (`do_misc_fixups`, <https://elixir.bootlin.com/linux/v6.18/source/kernel/bpf/verifier.c>).
#[inline(always)]
pub fn tick() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}

/// Nanoseconds since a tick, as far as ticks tell.
#[inline(always)]
pub fn since(earlier: u32) -> u64 {
    u64::from(tick().wrapping_sub(earlier)) * u64::from(layout!(tick_ns))
}
