//! `neigh_timer_handler`: a neighbour did not answer.

use super::clock;
use super::netns::Netns;
use super::read::{Direct, Probe, Read, address, field, field_address};
use super::ring::{self, Place};
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::{Addr, Kind, NeighborRecord};

/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/neighbour.h>
const NUD_FAILED: u8 = 0x20;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

#[btf_tracepoint(function = "neigh_timer_handler")]
fn netflow_neighbor(ctx: BtfTracePointContext) -> i32 {
    timer::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "neigh_timer_handler")]
fn netflow_neighbor_raw(ctx: RawTracePointContext) -> i32 {
    timer::<Probe>(ctx.arg(0));
    0
}

#[inline(always)]
fn timer<R: Read>(neigh: *const c_void) -> Option<()> {
    if field!(R, neigh, neigh_state: u8) & NUD_FAILED == 0 {
        return None;
    }
    let dev = field!(R, neigh, neigh_dev: *const c_void);
    let netns = Netns::of_device::<R>(dev)?;
    let table = field!(R, neigh, neigh_tbl: *const c_void);
    // The address stands behind the struct's last member, where the verifier knows of nothing.
    let key: *const u32 = field_address!(neigh, neigh_key);
    let ip = match field!(R, table, neigh_family: i32) {
        // SAFETY: an integer.
        AF_INET => Addr::v4(unsafe { Probe::read(key) }),
        AF_INET6 => address::<Probe>(key),
        _ => return None,
    };
    let place = Place {
        time: clock::now(),
        netns,
        ifindex: field!(R, dev, dev_ifindex: u32),
        tuple: None,
    };
    let mut entry = ring::reserve::<NeighborRecord>(Kind::NeighborFailed, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe { (*record).ip = ip };
    ring::submit(entry);
    Some(())
}
