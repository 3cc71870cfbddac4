//! Path MTU: told to this machine, learnt by it, and packets cut to fit.

use super::call::{self, Function, Note};
use super::clock;
use super::conntrack::{fold, mix};
use super::layout::layout;
use super::netns::Netns;
use super::read::{Probe, address, field, field_address, forgotten};
use super::ring::{self, Place};
use super::seen::is_seen;
use super::skb::Skb;
use super::zero::clear;
use aya_ebpf::macros::{kprobe, kretprobe, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use core::ffi::c_void;
use netflow_ebpf::map::TOO_BIG_ENTRIES;
use netflow_ebpf::parse::{self, ICMP};
use netflow_ebpf::{ABSENT, Addr, FragmentedRecord, Kind, PmtuLearnedRecord, PmtuReceivedRecord};

/// `ICMPV6_PKT_TOOBIG`.
const PACKET_TOO_BIG: u8 = 2;
/// `ICMP_DEST_UNREACH` with `ICMP_FRAG_NEEDED`, as a tuple holds them.
const FRAGMENTATION_NEEDED: u16 = 3 << 8 | 4;

/// Messages that say so and are being taken in: packet → 1 if TCP found the socket that had sent the one complained about.
#[map]
static TOO_BIG: LruHashMap<u64, u32> = LruHashMap::with_max_entries(TOO_BIG_ENTRIES, 0);

#[kprobe]
fn netflow_too_big(ctx: ProbeContext) -> u32 {
    let _ = taken_in(&ctx);
    0
}

/// `icmpv6_notify` is told the type.
#[kprobe]
fn netflow_too_big6(ctx: ProbeContext) -> u32 {
    if ctx.arg::<u8>(1) == Some(PACKET_TOO_BIG) {
        let _ = taken_in(&ctx);
    }
    0
}

#[inline(always)]
fn taken_in(ctx: &ProbeContext) -> Option<()> {
    let skb = Skb::watched::<Probe>(ctx.arg(0)?)?;
    let buffer = skb.buffer::<Probe>();
    let tuple = skb.packet(&buffer).ok()?.tuple;
    if tuple.proto == ICMP && tuple.dport != FRAGMENTATION_NEEDED {
        return None;
    }
    let key = skb.address as u64;
    let _ = TOO_BIG.insert(&key, &0, 0);
    let note = Note {
        first: key,
        second: 0,
    };
    call::begins(ctx, Function::TooBig, note);
    Some(())
}

/// On the way to the sockets of TCP.
#[kprobe]
fn netflow_tcp_err(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg::<u64>(0)
        && TOO_BIG.get_ptr(&skb).is_some()
    {
        let note = Note {
            first: skb,
            second: 0,
        };
        call::begins(&ctx, Function::TcpErr, note);
    }
    0
}

/// 0: there was a socket.
#[kretprobe]
fn netflow_tcp_err_ret(ctx: RetProbeContext) -> u32 {
    if let Some(note) = call::ends(&ctx, Function::TcpErr)
        && ctx.ret::<i32>() == 0
    {
        let _ = TOO_BIG.insert(&note.first, &1, 0);
    }
    0
}

/// The message is its caller's still.
#[kretprobe]
fn netflow_too_big_ret(ctx: RetProbeContext) -> u32 {
    let _ = done(&ctx);
    0
}

#[inline(always)]
fn done(ctx: &RetProbeContext) -> Option<()> {
    let key = call::ends(ctx, Function::TooBig)?.first;
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let socket = unsafe { *TOO_BIG.get_ptr(&key)? };
    let _ = TOO_BIG.remove(&key);
    let skb = Skb::watched::<Probe>(key as *const c_void)?;
    let buffer = skb.buffer::<Probe>();
    let packet = forgotten(skb.packet(&buffer).ok()?);
    let (mtu, quoted) = parse::icmp_error(&buffer, packet.tuple.proto, packet.transport)?;
    let place = Place {
        time: clock::now(),
        netns: skb.netns,
        ifindex: skb.ifindex,
        tuple: Some(&packet.tuple),
    };
    let mut entry = ring::reserve::<PmtuReceivedRecord>(Kind::PmtuReceived, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        match quoted {
            Some(quoted) => (*record).quoted = quoted.tuple,
            None => clear(&raw mut (*record).quoted),
        }
        (*record).mtu = mtu;
        (*record).socket = socket as u8;
        clear(&raw mut (*record).pad);
    }
    ring::submit(entry);
    Some(())
}

/// A path MTU goes into the cache of an IPv4 route. A redirect comes here too, with a gateway and no MTU.
#[kprobe]
fn netflow_learned(ctx: ProbeContext) -> u32 {
    let _ = learned4(&ctx);
    0
}

#[inline(always)]
fn learned4(ctx: &ProbeContext) -> Option<()> {
    let nhc: *const c_void = ctx.arg(0)?;
    let dst = Addr::v4(ctx.arg(1)?);
    let mtu: u32 = ctx.arg(3)?;
    if mtu == 0 {
        return None;
    }
    learned(field!(Probe, nhc, nhc_dev: *const c_void), dst, mtu)
}

/// A path MTU goes into an IPv6 route.
#[kprobe]
fn netflow_learned6(ctx: ProbeContext) -> u32 {
    let _ = learned6(&ctx);
    0
}

#[inline(always)]
fn learned6(ctx: &ProbeContext) -> Option<()> {
    let route: *const c_void = ctx.arg(0)?;
    let dst = address::<Probe>(field_address!(route, rt6_dst));
    learned(
        field!(Probe, route, rt6_dev: *const c_void),
        dst,
        ctx.arg(1)?,
    )
}

#[inline(always)]
fn learned(dev: *const c_void, dst: Addr, mtu: u32) -> Option<()> {
    let place = Place {
        time: clock::now(),
        netns: Netns::of_device::<Probe>(dev)?,
        ifindex: field!(Probe, dev, dev_ifindex: u32),
        tuple: None,
    };
    let mut entry = ring::reserve::<PmtuLearnedRecord>(Kind::PmtuLearned, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).dst = dst;
        (*record).mtu = mtu;
        (*record).link_mtu = link_mtu(dev);
    }
    ring::submit(entry);
    Some(())
}

/// A packet is cut: both functions begin with the same arguments.
#[kprobe]
fn netflow_fragment(ctx: ProbeContext) -> u32 {
    let _ = cut(&ctx);
    0
}

#[inline(always)]
fn cut(ctx: &ProbeContext) -> Option<()> {
    Netns::watched::<Probe>(ctx.arg(0)?)?;
    let skb = Skb::watched::<Probe>(ctx.arg(2)?)?;
    let buffer = skb.buffer::<Probe>();
    let packet = forgotten(skb.packet(&buffer).ok()?);
    let now = clock::now();
    let key = mix(
        fold(
            fold(Kind::Fragmented as u64, skb.netns.cookie),
            u64::from(skb.netns.inum),
        ),
        &packet.tuple,
    );
    if is_seen(key, now) {
        return None;
    }
    let place = Place {
        time: now,
        netns: skb.netns,
        ifindex: skb.ifindex,
        tuple: Some(&packet.tuple),
    };
    let mut entry = ring::reserve::<FragmentedRecord>(Kind::Fragmented, &place)?;
    let dev = field!(Probe, skb.address, skb_dev: *const c_void);
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).len = packet.len;
        (*record).link_mtu = link_mtu(dev);
    }
    ring::submit(entry);
    Some(())
}

#[inline(always)]
fn link_mtu(dev: *const c_void) -> u32 {
    if dev.is_null() || layout!(dev_mtu) == ABSENT {
        0
    } else {
        field!(Probe, dev, dev_mtu: u32)
    }
}
