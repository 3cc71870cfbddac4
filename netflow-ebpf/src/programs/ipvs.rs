//! IPVS: where it sends a connection, and that it has nowhere to.
//!
//! What `ip_vs_schedule` decides is seen when the connection's first packet is sent on, with the way it is sent; that it found
//! nothing, when `ip_vs_leave` is called for it.

use super::clock;
use super::conntrack::{fold, mix};
use super::module::{at, modules};
use super::read::{Probe, Read as _, address};
use super::ring::{self, Place};
use super::seen::is_seen;
use super::skb::Skb;
use aya_ebpf::macros::{kprobe, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::ProbeContext;
use core::ffi::c_void;
use netflow_ebpf::map::IPVS_SEEN_ENTRIES;
use netflow_ebpf::{
    Addr, CtSeen, IPVS_DIRECT, IPVS_LOCAL, IPVS_NAT, IPVS_NONE, IPVS_TUNNEL, IpvsRecord, Kind,
    Tuple,
};

/// An IPVS connection's flags: how it forwards
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/ip_vs.h>).
const FWD_MASK: u32 = 0x7;
const LOCALNODE: u32 = 1;
const TUNNEL: u32 = 2;
const DROUTE: u32 = 3;

const AF_INET: u8 = 2;

/// A connection is told again when it was quiet for so long: its address may be another's by then.
const AGAIN_AFTER: u64 = 3_000_000_000;

/// By address of the `struct ip_vs_conn`; the hash is of its ports.
#[map]
static IPVS_SEEN: LruHashMap<u64, CtSeen> = LruHashMap::with_max_entries(IPVS_SEEN_ENTRIES, 0);

#[kprobe]
fn netflow_ipvs(ctx: ProbeContext) -> u32 {
    let _ = sent(&ctx);
    0
}

#[inline(always)]
fn sent(ctx: &ProbeContext) -> Option<()> {
    let cp: *const c_void = ctx.arg(1)?;
    let modules = modules()?;
    // SAFETY: integers.
    let (cport, dport) = unsafe {
        (
            Probe::read(at::<u16>(cp, modules.vs_cport)),
            u16::from_be(Probe::read(at::<u16>(cp, modules.vs_dport))),
        )
    };
    // Every packet comes here: look no further than to what is known already.
    let hash = u64::from(cport) << 16 | u64::from(dport);
    if is_known(cp as u64, hash) {
        return None;
    }
    let skb = Skb::watched::<Probe>(ctx.arg(0)?)?;
    let buffer = skb.buffer::<Probe>();
    let tuple = skb.packet(&buffer).ok()?.tuple;
    // SAFETY: integers.
    let (flags, daf) = unsafe {
        (
            Probe::read(at::<u32>(cp, modules.vs_flags)),
            Probe::read(at::<u8>(cp, modules.vs_daf)),
        )
    };
    let method = match flags & FWD_MASK {
        LOCALNODE => IPVS_LOCAL,
        TUNNEL => IPVS_TUNNEL,
        DROUTE => IPVS_DIRECT,
        _ => IPVS_NAT,
    };
    let dst = address::<Probe>(at(cp, modules.vs_daddr));
    let to = if daf == AF_INET {
        (Addr::v4(dst.0[0]), dport, 4)
    } else {
        (dst, dport, 6)
    };
    send(&skb, &tuple, method, to, clock::now())
}

#[kprobe]
fn netflow_ipvs_leave(ctx: ProbeContext) -> u32 {
    let _ = left(&ctx);
    0
}

#[inline(always)]
fn left(ctx: &ProbeContext) -> Option<()> {
    let skb = Skb::watched::<Probe>(ctx.arg(1)?)?;
    let buffer = skb.buffer::<Probe>();
    let tuple = skb.packet(&buffer).ok()?.tuple;
    let now = clock::now();
    let key = mix(
        fold(
            fold(Kind::Ipvs as u64, skb.netns.cookie),
            u64::from(skb.netns.inum),
        ),
        &tuple,
    );
    if is_seen(key, now) {
        return None;
    }
    send(&skb, &tuple, IPVS_NONE, (Addr([0; 4]), 0, 0), now)
}

#[inline(always)]
fn send(skb: &Skb, tuple: &Tuple, method: u8, to: (Addr, u16, u8), now: u64) -> Option<()> {
    let place = Place {
        time: now,
        netns: skb.netns,
        ifindex: skb.ifindex,
        tuple: Some(tuple),
    };
    let mut entry = ring::reserve::<IpvsRecord>(Kind::Ipvs, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        ((*record).dst, (*record).dport, (*record).family) = to;
        (*record).method = method;
        (*record).pad = 0;
    }
    ring::submit(entry);
    Some(())
}

/// Whether the connection was told of already; notes that it is in use.
#[inline(always)]
fn is_known(cp: u64, hash: u64) -> bool {
    if let Some(seen) = IPVS_SEEN.get_ptr_mut(&cp) {
        // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
        let seen = unsafe { &mut *seen };
        let known = seen.hash == hash && clock::since(seen.tick) < AGAIN_AFTER;
        *seen = CtSeen::new(hash, clock::tick());
        return known;
    }
    let _ = IPVS_SEEN.insert(&cp, &CtSeen::new(hash, clock::tick()), 0);
    false
}
