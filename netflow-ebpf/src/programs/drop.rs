//! `kfree_skb`: the kernel drops a packet.

use super::layout::layout;
use super::read::{Direct, Probe, Read, field, forgotten};
use super::ring::{self, Place};
use super::skb::{Route, Skb};
use super::zero::clear;
use super::{clock, conntrack, lost, verdict};
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use netflow_ebpf::map::DROPS_ENTRIES;
use netflow_ebpf::parse::{self, Packet, RST, TCP};
use netflow_ebpf::{
    ABSENT, DROP_HAS_DST, DROP_HAS_SK, DropKey, DropRecord, DropTail, Kind, Lost, REASON_ABSENT,
    RULE_RST_ONLY,
};

/// The same drop is recorded this often; in between it is counted.
const AGAIN_AFTER: u64 = 1_000_000_000;
/// Rules in [`netflow_ebpf::Layout::noise`].
const NOISE_RULES: usize = 40;

/// Result of [`noise`]: pass over it.
const NOISE: u32 = 1;
/// Result of [`noise`]: pass over it if it is a RST.
const NOISE_IF_RST: u32 = 1 << RULE_RST_ONLY;

#[map]
static DROPS: LruHashMap<DropKey, DropTail> = LruHashMap::with_max_entries(DROPS_ENTRIES, 0);

#[btf_tracepoint(function = "kfree_skb")]
fn netflow_drop(ctx: BtfTracePointContext) -> i32 {
    let reason = if layout!(kfree_skb_args) >= 3 {
        ctx.arg(2)
    } else {
        REASON_ABSENT
    };
    dropped::<Direct>(ctx.arg(0), ctx.arg(1), reason);
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
fn netflow_drop_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if layout!(kfree_skb_args) >= 3 {
        ctx.arg(2)
    } else {
        REASON_ABSENT
    };
    dropped::<Probe>(ctx.arg(0), ctx.arg(1), reason);
    0
}

#[inline(always)]
fn dropped<R: Read>(skb: *const c_void, place: u64, reason: u32) -> Option<()> {
    // The verifier would go on with as many states as there are rules.
    let (noise, place, reason) = (
        forgotten(noise(place, reason)),
        forgotten(place),
        forgotten(reason),
    );
    if noise & NOISE != 0 {
        return None;
    }
    let skb = Skb::watched::<R>(skb)?;
    if !skb.is_ip() {
        return None;
    }
    let buffer = skb.buffer::<R>();
    let Ok(packet) = skb.packet(&buffer) else {
        lost::count(Lost::DropNoTuple);
        return None;
    };
    let packet = forgotten(packet);
    let buffer = forgotten(buffer);
    let is_reset = packet.tuple.proto == TCP && packet.flags & RST != 0;
    if parse::is_redirect(&packet.tuple)
        || parse::is_link_control(&packet.tuple)
        || (noise & NOISE_IF_RST != 0 && is_reset)
    {
        return None;
    }
    let now = clock::now();
    let len = length::<R>(&skb, &packet);
    let count = count(
        &DropKey {
            netns_cookie: skb.netns.cookie,
            place,
            netns_inum: skb.netns.inum,
            ifindex: skb.ifindex,
            reason,
            pad: 0,
            tuple: packet.tuple,
        },
        &packet,
        len,
        now,
    )
    .map(forgotten)?;
    let mut entry = ring::reserve::<DropRecord>(
        Kind::Drop,
        &Place {
            time: now,
            netns: skb.netns,
            ifindex: skb.ifindex,
            tuple: Some(&packet.tuple),
        },
    )?;
    let route = Route::of::<R>(skb.address);
    let has_sk = !field!(R, skb.address, skb_sk: *const c_void).is_null();
    let iif = if layout!(skb_iif) == ABSENT {
        0
    } else {
        field!(R, skb.address, skb_iif: u32)
    };
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).place = place;
        (*record).reason = reason;
        (*record).count = count;
        (*record).seq = packet.seq;
        (*record).len = len;
        (*record).iif = iif;
        (*record).tcp_flags = packet.flags;
        (*record).flags = if has_sk { DROP_HAS_SK } else { 0 };
        (*record).dst_input = 0;
        (*record).dst_ifindex = 0;
        clear(&raw mut (*record).pad);
        clear(&raw mut (*record).quoted);
        verdict::take(skb.address, &raw mut (*record).verdict);
        if let Some(Route { input, ifindex }) = route {
            (*record).dst_input = input;
            (*record).dst_ifindex = ifindex;
            (*record).flags |= DROP_HAS_DST;
        }
        if let Some(quoted) = Skb::quoted(&buffer, &packet) {
            (*record).quoted = quoted.tuple;
        }
        conntrack::of::<R>(skb.address, &raw mut (*record).ct);
    }
    ring::submit(entry);
    Some(())
}

/// As the IP header states it, else as the buffer has it.
#[inline(always)]
fn length<R: Read>(skb: &Skb, packet: &Packet) -> u32 {
    if packet.len == 0 {
        field!(R, skb.address, skb_len: u32)
    } else {
        packet.len
    }
}

/// `None` if the drop was only counted, else how many the record stands for.
#[inline(always)]
fn count(key: &DropKey, packet: &Packet, len: u32, now: u64) -> Option<u32> {
    let Some(tail) = DROPS.get_ptr_mut(key) else {
        let mut tail = MaybeUninit::<DropTail>::uninit();
        // SAFETY: zeros are a valid value.
        let tail = unsafe {
            clear(tail.as_mut_ptr());
            tail.assume_init_mut()
        };
        tail.emitted = now;
        tail.last = now;
        // A full map only means more records.
        let _ = DROPS.insert(key, &*tail, 0);
        return Some(1);
    };
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let tail = unsafe { &mut *tail };
    tail.last = now;
    if now.wrapping_sub(tail.emitted) < AGAIN_AFTER {
        tail.pending += 1;
        tail.seq = packet.seq;
        tail.len = len;
        tail.tcp_flags = packet.flags;
        return None;
    }
    let count = tail.pending + 1;
    tail.pending = 0;
    tail.emitted = now;
    Some(count)
}

/// What the rules say of a reason and place. A function of its own, so that the verifier goes on with its three results and not
/// with every way to them.
#[inline(never)]
fn noise(place: u64, reason: u32) -> u32 {
    for n in 0..NOISE_RULES {
        let start = layout!(noise[n].start);
        let end = layout!(noise[n].end);
        if start == end {
            break;
        }
        if layout!(noise[n].reason) == reason && start <= place && place < end {
            return 1 << layout!(noise[n].flags);
        }
    }
    0
}
