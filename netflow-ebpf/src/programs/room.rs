//! Room that is kept, in the flow map and in the ring, for what touches the addresses of the Service asked about: however
//! much else there is, its story is told.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use netflow_ebpf::map::{FLOWS_ENTRIES, FLOWS_KEPT, WATCHED_ENTRIES};
use netflow_ebpf::{Addr, Tuple};

#[map]
static WATCHED: HashMap<Addr, u32> = HashMap::with_max_entries(WATCHED_ENTRIES, 0);

/// Entries of the flow map: a hash map does not tell how many it has.
#[map]
static TAKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Whether a packet is from or to one of the addresses.
#[inline(never)]
pub fn is_watched(tuple: &Tuple) -> bool {
    WATCHED.get_ptr(&tuple.saddr).is_some() || WATCHED.get_ptr(&tuple.daddr).is_some()
}

/// Whether the flow map takes an entry for this tuple.
#[inline(always)]
pub fn takes_flow(tuple: &Tuple) -> bool {
    let taken = match TAKEN.get_ptr(0) {
        // SAFETY: an element of an array is always there. The count may be a packet old.
        Some(taken) => unsafe { *taken },
        None => 0,
    };
    taken < u64::from(FLOWS_ENTRIES - FLOWS_KEPT) || is_watched(tuple)
}

/// One entry more. Two CPUs at the same moment may count as one: the room kept is far bigger than what that hides until
/// user space counts again, four times a second.
#[inline(always)]
pub fn take_flow() {
    if let Some(taken) = TAKEN.get_ptr_mut(0) {
        // SAFETY: an element of an array is always there.
        unsafe { *taken += 1 };
    }
}
