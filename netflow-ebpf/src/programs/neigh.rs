//! Neighbours: packets that wait for a link-layer address, and neighbours that never answered.

use super::clock;
use super::conntrack::{self, fold, mix};
use super::netns::Netns;
use super::read::{Direct, Probe, Read, address, field, field_address, forgotten};
use super::ring::{self, Place};
use super::skb::Skb;
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::map::WAIT_SEEN_ENTRIES;
use netflow_ebpf::{Addr, Kind, NeighborRecord, NeighborWaitRecord, Tuple};

/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/neighbour.h>
const NUD_FAILED: u8 = 0x20;
/// See [`NUD_FAILED`].
const NUD_INCOMPLETE: u8 = 0x01;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// The same waiting packet is recorded this often.
const AGAIN_AFTER: u64 = 1_000_000_000;

#[map]
static WAIT_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(WAIT_SEEN_ENTRIES, 0);

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

#[btf_tracepoint(function = "neigh_event_send_done")]
fn netflow_waiting(ctx: BtfTracePointContext) -> i32 {
    queued::<Direct>(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "neigh_event_send_done")]
fn netflow_waiting_raw(ctx: RawTracePointContext) -> i32 {
    queued::<Probe>(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn timer<R: Read>(neigh: *const c_void) -> Option<()> {
    if field!(R, neigh, neigh_state: u8) & NUD_FAILED == 0 {
        return None;
    }
    let dev = field!(R, neigh, neigh_dev: *const c_void);
    let place = Place {
        time: clock::now(),
        netns: Netns::of_device::<R>(dev)?,
        ifindex: field!(R, dev, dev_ifindex: u32),
        tuple: None,
    };
    let ip = ip::<R>(neigh)?;
    let mut entry = ring::reserve::<NeighborRecord>(Kind::NeighborFailed, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe { (*record).ip = ip };
    ring::submit(entry);
    Some(())
}

/// A packet for a neighbour whose address is not known yet is put at the end of the neighbour's queue, and `kept` is not 0
/// (`__neigh_event_send`, <https://elixir.bootlin.com/linux/v6.18/source/net/core/neighbour.c>). Where the answer came at once
/// the queue is empty again by now.
#[inline(always)]
fn queued<R: Read>(neigh: *const c_void, kept: i32) -> Option<()> {
    if kept == 0 || field!(R, neigh, neigh_state: u8) & NUD_INCOMPLETE == 0 {
        return None;
    }
    let dev = field!(R, neigh, neigh_dev: *const c_void);
    let netns = Netns::of_device::<R>(dev)?;
    let queue: *const c_void = field_address!(neigh, neigh_queue);
    let last = field!(Probe, queue, queue_last: *const c_void);
    if last == queue {
        return None;
    }
    let skb = Skb {
        address: last,
        netns,
        ifindex: field!(R, dev, dev_ifindex: u32),
        ethertype: field!(Probe, last, skb_protocol: u16),
    };
    if !skb.is_ip() {
        return None;
    }
    let buffer = skb.buffer::<Probe>();
    let packet = forgotten(skb.packet(&buffer).ok()?);
    let ip = ip::<R>(neigh)?;
    let now = clock::now();
    if is_seen(netns, ip, &packet.tuple, now) {
        return None;
    }
    let place = Place {
        time: now,
        netns,
        ifindex: skb.ifindex,
        tuple: Some(&packet.tuple),
    };
    let mut entry = ring::reserve::<NeighborWaitRecord>(Kind::NeighborWait, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).ip = ip;
        conntrack::of::<Probe>(last, &raw mut (*record).ct);
    }
    ring::submit(entry);
    Some(())
}

/// The neighbour's address.
#[inline(always)]
fn ip<R: Read>(neigh: *const c_void) -> Option<Addr> {
    let table = field!(R, neigh, neigh_tbl: *const c_void);
    // The address stands behind the struct's last member, where the verifier knows of nothing.
    let key: *const u32 = field_address!(neigh, neigh_key);
    match field!(R, table, neigh_family: i32) {
        // SAFETY: an integer.
        AF_INET => Some(Addr::v4(unsafe { Probe::read(key) })),
        AF_INET6 => Some(address::<Probe>(key.cast())),
        _ => None,
    }
}

/// Whether this packet was recorded as waiting within the last second; notes that it is now.
#[inline(always)]
fn is_seen(netns: Netns, ip: Addr, tuple: &Tuple, now: u64) -> bool {
    let mut key = fold(fold(0, netns.cookie), u64::from(netns.inum));
    for word in ip.0 {
        key = fold(key, u64::from(word));
    }
    let key = mix(key, tuple);
    if let Some(seen) = WAIT_SEEN.get_ptr_mut(&key) {
        // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
        unsafe {
            if now.wrapping_sub(*seen) < AGAIN_AFTER {
                return true;
            }
            *seen = now;
        }
        return false;
    }
    // A full map only means a record more.
    let _ = WAIT_SEEN.insert(&key, &now, 0);
    false
}
