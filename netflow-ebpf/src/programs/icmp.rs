//! `icmp_send`: this kernel complains about a packet (IPv4; there is no such tracepoint for IPv6).

use super::read::{Direct, Probe, Read};
use super::ring::{self, Place};
use super::skb::Skb;
use super::zero::clear;
use super::{clock, conntrack};
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::{IcmpSentRecord, Kind};

#[btf_tracepoint(function = "icmp_send")]
fn netflow_icmp(ctx: BtfTracePointContext) -> i32 {
    sent::<Direct>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "icmp_send")]
fn netflow_icmp_raw(ctx: RawTracePointContext) -> i32 {
    sent::<Probe>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn sent<R: Read>(skb: *const c_void, icmp_type: u8, code: u8) -> Option<()> {
    let skb = Skb::watched::<R>(skb)?;
    let buffer = skb.buffer::<R>();
    let tuple = skb.packet(&buffer).ok()?.tuple;
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
        (*record).mtu = 0;
    }
    ring::submit(entry);
    Some(())
}
