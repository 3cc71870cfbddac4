//! Listening sockets whose queue of connections to accept is full.
//!
//! The kernel gives up such a packet without reporting a drop, and counts it by an inlined function. So the question it asks is
//! asked here as well, at the entry of the functions that ask it: for a SYN, and for the ACK that completes a handshake
//! (`tcp_conn_request`, <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_input.c>; `tcp_v4_syn_recv_sock`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_ipv4.c>).

use super::clock;
use super::conntrack::{fold, mix};
use super::layout::layout;
use super::netns::Netns;
use super::read::{Probe, field};
use super::ring::{self, Place};
use super::seen::is_seen;
use super::skb::Skb;
use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use core::ffi::c_void;
use netflow_ebpf::{ABSENT, Addr, Kind, ListenOverflowRecord, Tuple};

#[kprobe]
fn netflow_listen_syn(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(2), ctx.arg(3)) {
        let _ = arrived(sk, skb);
    }
    0
}

#[kprobe]
fn netflow_listen_ack(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        let _ = arrived(sk, skb);
    }
    0
}

#[inline(always)]
fn arrived(sk: *const c_void, skb: *const c_void) -> Option<()> {
    let backlog = field!(Probe, sk, sk_ack_backlog: u32);
    let limit = field!(Probe, sk, sk_max_ack_backlog: u32);
    // `sk_acceptq_is_full`
    if backlog <= limit {
        return None;
    }
    let netns = Netns::of_socket::<Probe>(sk)?;
    // TCP has taken the device off the packet by now (`tcp_v4_rcv`).
    let skb = Skb {
        address: skb,
        netns,
        ifindex: if layout!(skb_iif) == ABSENT {
            0
        } else {
            field!(Probe, skb, skb_iif: u32)
        },
        ethertype: field!(Probe, skb, skb_protocol: u16),
    };
    let buffer = skb.buffer::<Probe>();
    let tuple = skb.packet(&buffer).ok()?.tuple;
    let now = clock::now();
    let listener = Tuple {
        saddr: Addr([0; 4]),
        sport: 0,
        ..tuple
    };
    let key = mix(
        fold(
            fold(Kind::ListenOverflow as u64, netns.cookie),
            u64::from(netns.inum),
        ),
        &listener,
    );
    if is_seen(key, now) {
        return None;
    }
    let place = Place {
        time: now,
        netns,
        ifindex: skb.ifindex,
        tuple: Some(&tuple),
    };
    let mut entry = ring::reserve::<ListenOverflowRecord>(Kind::ListenOverflow, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).backlog = backlog;
        (*record).limit = limit;
    }
    ring::submit(entry);
    Some(())
}
