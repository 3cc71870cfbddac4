//! Two clocks, both `CLOCK_MONOTONIC`.

use super::layout::layout;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// For events.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// For every packet: the time of the last kernel tick, where the kernel has the helper.
#[inline(always)]
pub fn tick() -> u64 {
    if layout!(coarse_clock) == 0 {
        return now();
    }
    // SAFETY: has no preconditions; 5.11, as the loader has found out.
    unsafe { bpf_ktime_get_coarse_ns() }
}
