//! This kernel complains about a packet: `icmp_send`, and with kprobes the functions behind it.
//!
//! The tracepoint says that a message is really sent, but not which MTU it tells; `__icmp_send` is told the MTU, but may yet be held
//! back by a rate limit. So the function notes the MTU for the tracepoint, and stands in for it only where there is none. For IPv6
//! there is no tracepoint on any kernel.

use super::layout::layout;
use super::read::{Direct, Probe, Read, forgotten};
use super::ring::{self, Place};
use super::skb::Skb;
use super::zero::clear;
use super::{clock, conntrack};
use aya_ebpf::macros::{btf_tracepoint, kprobe, map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, ProbeContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::map::ICMP_MTU_ENTRIES;
use netflow_ebpf::{IcmpSentRecord, Kind};

/// `ICMPV6_PKT_TOOBIG`.
const PACKET_TOO_BIG: u8 = 2;

/// By address of the packet complained about: the MTU told.
#[map]
static ICMP_MTU: LruHashMap<u64, u32> = LruHashMap::with_max_entries(ICMP_MTU_ENTRIES, 0);

#[btf_tracepoint(function = "icmp_send")]
fn netflow_icmp(ctx: BtfTracePointContext) -> i32 {
    let skb = ctx.arg(0);
    sent::<Direct>(skb, ctx.arg(1), ctx.arg(2), noted_mtu(skb));
    0
}

#[raw_tracepoint(tracepoint = "icmp_send")]
fn netflow_icmp_raw(ctx: RawTracePointContext) -> i32 {
    let skb = ctx.arg(0);
    sent::<Probe>(skb, ctx.arg(1), ctx.arg(2), noted_mtu(skb));
    0
}

#[kprobe]
fn netflow_icmp_call(ctx: ProbeContext) -> u32 {
    let _ = asked(&ctx);
    0
}

#[inline(always)]
fn asked(ctx: &ProbeContext) -> Option<()> {
    let skb: *const c_void = ctx.arg(0)?;
    let (icmp_type, code): (u8, u8) = (ctx.arg(1)?, ctx.arg(2)?);
    let mtu = if (icmp_type, code) == (3, 4) {
        u32::from_be(ctx.arg(3)?)
    } else {
        0
    };
    if layout!(icmp_send_args) == 0 {
        return sent::<Probe>(skb, icmp_type, code, mtu);
    }
    if mtu != 0 {
        let _ = ICMP_MTU.insert(&(skb as u64), &mtu, 0);
    }
    Some(())
}

#[kprobe]
fn netflow_icmp6_call(ctx: ProbeContext) -> u32 {
    let _ = asked6(&ctx);
    0
}

#[inline(always)]
fn asked6(ctx: &ProbeContext) -> Option<()> {
    let icmp_type: u8 = ctx.arg(1)?;
    let mtu = if icmp_type == PACKET_TOO_BIG {
        ctx.arg(3)?
    } else {
        0
    };
    sent::<Probe>(ctx.arg(0)?, icmp_type, ctx.arg(2)?, mtu)
}

/// What [`netflow_icmp_call`] has noted for this packet, 0 if nothing; forgets it.
#[inline(always)]
fn noted_mtu(skb: *const c_void) -> u32 {
    let key = skb as u64;
    let Some(mtu) = ICMP_MTU.get_ptr(&key) else {
        return 0;
    };
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let mtu = unsafe { *mtu };
    let _ = ICMP_MTU.remove(&key);
    mtu
}

#[inline(always)]
fn sent<R: Read>(skb: *const c_void, icmp_type: u8, code: u8, mtu: u32) -> Option<()> {
    let skb = Skb::watched::<R>(skb)?;
    let buffer = skb.buffer::<R>();
    let tuple = forgotten(skb.packet(&buffer).ok()?.tuple);
    let place = Place {
        time: clock::now(),
        netns: skb.netns,
        ifindex: skb.ifindex,
        tuple: Some(&tuple),
    };
    let mut entry = ring::reserve::<IcmpSentRecord>(Kind::IcmpSent, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        conntrack::of::<R>(skb.address, &raw mut (*record).ct);
        (*record).icmp_type = icmp_type;
        (*record).code = code;
        clear(&raw mut (*record).pad);
        (*record).mtu = mtu;
    }
    ring::submit(entry);
    Some(())
}
