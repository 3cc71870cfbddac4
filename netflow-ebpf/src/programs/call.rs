//! Joins the return of a function to its call: a return probe sees what was returned, but no arguments any more.
//!
//! What was noted at the call is kept under the place on the stack that holds its return address. No two calls that are running at
//! one time have the same, on whatever CPU, in whatever task, interrupt or nested call they run; and a task that is moved to another
//! CPU meanwhile takes its stack with it. So no nesting has to be counted, and a return that is missed (the kernel has only so many
//! return probes at hand) spoils nothing but its own note, which the next call at the same place of the stack replaces and counts.
//! A return without a note belongs to a call that was not of interest, or that was missed.

use super::lost;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use netflow_ebpf::Lost;
use netflow_ebpf::map::CALLS_ENTRIES;

/// The functions whose returns are joined. At most eight: a place on the stack is a multiple of that, and they share a key.
#[derive(Clone, Copy)]
pub enum Function {
    Confirm = 0,
    Alloc = 1,
    Clash = 2,
    Nft = 3,
    Xt = 4,
    TooBig = 5,
    TcpErr = 6,
}

/// What is noted: two numbers, by which the function's arguments are found again.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Note {
    pub first: u64,
    pub second: u64,
}

#[map]
static CALLS: LruHashMap<u64, Note> = LruHashMap::with_max_entries(CALLS_ENTRIES, 0);

/// Notes a call.
#[inline(always)]
pub fn begins(ctx: &ProbeContext, function: Function, note: Note) {
    let key = at_entry(ctx) + function as u64;
    if CALLS.insert(&key, &note, u64::from(BPF_NOEXIST)).is_err() {
        lost::count(Lost::ReturnMissed);
        let _ = CALLS.insert(&key, &note, 0);
    }
}

/// The note of the call that returns.
#[inline(always)]
pub fn ends(ctx: &RetProbeContext, function: Function) -> Option<Note> {
    let key = at_return(ctx) + function as u64;
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let note = unsafe { *CALLS.get_ptr(&key)? };
    let _ = CALLS.remove(&key);
    Some(note)
}

/// At the first instruction of a function the stack ends with the return address.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn at_entry(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of a probe is valid.
    unsafe { (*ctx.regs).rsp }
}

/// The return has taken the address off the stack.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn at_return(ctx: &RetProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).rsp.wrapping_sub(8) }
}

/// The address that the function at whose first instruction `ctx` stands returns to.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn caller(ctx: &ProbeContext) -> u64 {
    use super::read::{Probe, Read as _};
    // SAFETY: an integer.
    unsafe { Probe::read(at_entry(ctx) as *const u64) }
}

/// The return address is in a register: the stack is the same at both ends. A function that is called from another, whose stack it
/// continues, has pushed that one's frame before.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn at_entry(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).sp }
}

/// See [`at_entry`].
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn at_return(ctx: &RetProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).sp }
}

/// See above: register 30 holds it.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn caller(ctx: &ProbeContext) -> u64 {
    // SAFETY: as above.
    unsafe { (*ctx.regs).regs[30] }
}
