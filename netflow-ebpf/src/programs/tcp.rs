//! What TCP of this kernel does: retransmissions, resets sent and received.

use super::clock;
use super::layout::layout;
use super::netns::Netns;
use super::read::{Direct, Probe, Read};
use super::ring::{self, Place};
use super::skb::Skb;
use super::sock;
use super::zero::clear;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::{Kind, REASON_ABSENT, SocketRecord, Tuple};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn netflow_retransmit(ctx: BtfTracePointContext) -> i32 {
    of_socket::<Direct>(Kind::TcpRetransmit, ctx.arg(0), REASON_ABSENT);
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
fn netflow_retransmit_raw(ctx: RawTracePointContext) -> i32 {
    of_socket::<Probe>(Kind::TcpRetransmit, ctx.arg(0), REASON_ABSENT);
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
fn netflow_reset_received(ctx: BtfTracePointContext) -> i32 {
    of_socket::<Direct>(Kind::ResetReceived, ctx.arg(0), REASON_ABSENT);
    0
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
fn netflow_reset_received_raw(ctx: RawTracePointContext) -> i32 {
    of_socket::<Probe>(Kind::ResetReceived, ctx.arg(0), REASON_ABSENT);
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
fn netflow_reset_sent(ctx: BtfTracePointContext) -> i32 {
    let reason = if layout!(tcp_send_reset_args) >= 3 {
        ctx.arg(2)
    } else {
        REASON_ABSENT
    };
    reset_sent::<Direct>(ctx.arg(0), ctx.arg(1), reason);
    0
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
fn netflow_reset_sent_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if layout!(tcp_send_reset_args) >= 3 {
        ctx.arg(2)
    } else {
        REASON_ABSENT
    };
    reset_sent::<Probe>(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// Without a socket there is the packet that is answered; without a packet, the socket that gives up.
#[inline(always)]
fn reset_sent<R: Read>(sk: *const c_void, skb: *const c_void, reason: u32) -> Option<()> {
    if !sk.is_null() {
        return of_socket::<R>(Kind::ResetSent, sk, reason);
    }
    if skb.is_null() {
        return None;
    }
    let skb = Skb::watched::<R>(skb)?;
    let Tuple {
        saddr,
        daddr,
        sport,
        dport,
        proto,
        family,
        pad,
    } = skb.packet(&skb.buffer::<R>()).ok()?.tuple;
    let answer = Tuple {
        saddr: daddr,
        daddr: saddr,
        sport: dport,
        dport: sport,
        proto,
        family,
        pad,
    };
    record(Kind::ResetSent, skb.netns, skb.ifindex, &answer, reason, 0)
}

#[inline(always)]
fn of_socket<R: Read>(kind: Kind, sk: *const c_void, reason: u32) -> Option<()> {
    let netns = Netns::of_socket::<R>(sk)?;
    let tuple = sock::tuple::<R>(sk)?;
    record(kind, netns, 0, &tuple, reason, sock::state::<R>(sk))
}

#[inline(always)]
fn record(
    kind: Kind,
    netns: Netns,
    ifindex: u32,
    tuple: &Tuple,
    reason: u32,
    state: u8,
) -> Option<()> {
    let place = Place {
        time: clock::now(),
        netns,
        ifindex,
        tuple: Some(tuple),
    };
    let mut entry = ring::reserve::<SocketRecord>(kind, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).reason = reason;
        (*record).state = state;
        clear(&raw mut (*record).pad);
    }
    ring::submit(entry);
    Some(())
}
