//! Conntrack entries: reading them off a packet, and the record of each new connection.

use super::clock;
use super::layout::layout;
use super::netns::Netns;
use super::read::{Direct, Probe, Read, address, field, field_address, forget};
use super::ring::{self, Place};
use super::zero::clear;
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use netflow_ebpf::map::CT_SEEN_ENTRIES;
use netflow_ebpf::parse::{ICMP, ICMPV6, SCTP, TCP, UDP};
use netflow_ebpf::{ABSENT, Addr, Ct, CtSeen, Kind, NatRecord, Tuple};

/// `enum ip_conntrack_info`: the packet begins a connection
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/netfilter/nf_conntrack_common.h>).
const IP_CT_NEW: u64 = 2;
/// `enum ip_conntrack_status`: the entry is in the table, its NAT decided.
pub const IPS_CONFIRMED: u32 = 1 << 3;
/// The low bits of `skb->_nfct`, which hold it (`NFCT_INFOMASK`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/linux/skbuff.h>).
const INFO_MASK: u64 = 7;
const AF_INET: u16 = 2;

/// One-way traffic stays NEW for ever: after the first packet an entry is quiet for as long as it is seen this often.
const AGAIN_AFTER: u64 = 3_000_000_000;

#[map]
static CT_SEEN: LruHashMap<u64, CtSeen> = LruHashMap::with_max_entries(CT_SEEN_ENTRIES, 0);

/// Writes the entry of the packet at `skb` to `to`; all zero without one.
///
/// # Safety
/// `to` can be written.
#[inline(always)]
pub unsafe fn of<R: Read>(skb: *const c_void, to: *mut Ct) {
    let nfct = if layout!(skb_nfct) == ABSENT {
        0
    } else {
        field!(R, skb, skb_nfct: u64)
    };
    // SAFETY: zeros are a valid value, and `to` can be written.
    unsafe {
        clear(to);
        write(nfct, to);
    }
}

/// Address of the entry that `skb->_nfct` names.
#[inline(always)]
pub fn entry(nfct: u64) -> *const c_void {
    (nfct & !INFO_MASK) as *const c_void
}

/// Namespace of an entry, if it is watched.
#[inline(always)]
pub fn netns(ct: *const c_void) -> Option<Netns> {
    if ct.is_null() {
        return None;
    }
    Netns::watched::<Probe>(field!(Probe, ct, ct_net: *const c_void))
}

/// The entry that `skb->_nfct` names.
#[inline(always)]
pub fn read(nfct: u64) -> Option<Ct> {
    let mut ct = MaybeUninit::<Ct>::uninit();
    // SAFETY: memory of this program; once written, all of it is.
    unsafe {
        write(nfct, ct.as_mut_ptr())?;
        forget(ct.as_mut_ptr());
        Some(ct.assume_init())
    }
}

/// Writes all fields of the entry that `skb->_nfct` names to `to`.
///
/// # Safety
/// `to` can be written.
#[inline(always)]
unsafe fn write(nfct: u64, to: *mut Ct) -> Option<()> {
    let ct = entry(nfct);
    if ct.is_null() || layout!(ct_orig) == ABSENT {
        return None;
    }
    let (orig, reply) = (field_address!(ct, ct_orig), field_address!(ct, ct_reply));
    let status = field!(Probe, ct, ct_status: u32);
    let mark = if layout!(ct_mark) == ABSENT {
        0
    } else {
        field!(Probe, ct, ct_mark: u32)
    };
    let zone = if layout!(ct_zone) == ABSENT {
        0
    } else {
        field!(Probe, ct, ct_zone: u16)
    };
    // SAFETY: `to` can be written.
    unsafe {
        tuple(orig, &raw mut (*to).orig);
        tuple(reply, &raw mut (*to).reply);
        (*to).status = status;
        (*to).mark = mark;
        (*to).zone = zone;
        (*to).info = (nfct & INFO_MASK) as u8;
        (*to).pad = 0;
        (*to).end = 0;
    }
    Some(())
}

/// Writes a `struct nf_conntrack_tuple` to `to`. Who keeps it on the stack forgets it ([`forget`]): it comes about in many ways.
///
/// # Safety
/// `to` can be written.
#[inline(always)]
pub unsafe fn tuple(at: *const c_void, to: *mut Tuple) {
    let is_v4 = field!(Probe, at, tuple_l3num: u16) == AF_INET;
    let mut saddr = address::<Probe>(field_address!(at, tuple_src));
    let mut daddr = address::<Probe>(field_address!(at, tuple_dst));
    if is_v4 {
        saddr = Addr::v4(saddr.0[0]);
        daddr = Addr::v4(daddr.0[0]);
    }
    let proto = field!(Probe, at, tuple_proto: u8);
    let (sport, dport) = if matches!(proto, TCP | UDP | SCTP | ICMP | ICMPV6) {
        (
            u16::from_be(field!(Probe, at, tuple_sport: u16)),
            u16::from_be(field!(Probe, at, tuple_dport: u16)),
        )
    } else {
        (0, 0)
    };
    // SAFETY: `to` can be written.
    unsafe {
        (*to).saddr = saddr;
        (*to).daddr = daddr;
        (*to).sport = sport;
        (*to).dport = dport;
        (*to).proto = proto;
        (*to).family = if is_v4 { 4 } else { 6 };
        (*to).pad = 0;
    }
}

#[btf_tracepoint(function = "net_dev_start_xmit")]
fn netflow_nat(ctx: BtfTracePointContext) -> i32 {
    xmit::<Direct>(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
fn netflow_nat_raw(ctx: RawTracePointContext) -> i32 {
    xmit::<Probe>(ctx.arg(0), ctx.arg(1));
    0
}

/// A packet leaves through a device: with POSTROUTING behind it, the tuples are final.
#[inline(always)]
fn xmit<R: Read>(skb: *const c_void, dev: *const c_void) -> Option<()> {
    let nfct = field!(R, skb, skb_nfct: u64);
    if nfct & INFO_MASK != IP_CT_NEW {
        return None;
    }
    // One-way traffic comes here with every packet: what is known is asked first.
    let hash = hash_of(entry(nfct))?;
    if is_seen(nfct & !INFO_MASK, hash) {
        return None;
    }
    let netns = Netns::of_device::<R>(dev)?;
    let ct = read(nfct)?;
    // Not confirmed: not through POSTROUTING yet (a bridge may send a packet with its first NAT round once more).
    if ct.status & IPS_CONFIRMED == 0 {
        return None;
    }
    see(nfct & !INFO_MASK, hash);
    let leaving = leaving(&ct);
    let place = Place {
        time: clock::now(),
        netns,
        ifindex: field!(R, dev, dev_ifindex: u32),
        tuple: Some(&leaving),
    };
    let mut entry = ring::reserve::<NatRecord>(Kind::Nat, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe { (*record).ct = ct };
    ring::submit(entry);
    Some(())
}

/// The packet's own tuple: what a reply to it would be, turned round.
#[inline(always)]
pub fn leaving(ct: &Ct) -> Tuple {
    if matches!(ct.orig.proto, ICMP | ICMPV6) {
        return Tuple {
            saddr: ct.reply.daddr,
            daddr: ct.reply.saddr,
            ..ct.orig
        };
    }
    Tuple {
        saddr: ct.reply.daddr,
        daddr: ct.reply.saddr,
        sport: ct.reply.dport,
        dport: ct.reply.sport,
        ..ct.orig
    }
}

/// `struct nf_conntrack_tuple`, which has no padding
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/net/netfilter/nf_conntrack_tuple.h>).
type RawTuple = [u64; 5];

/// Hash of both tuples of the entry at `ct`.
#[inline(always)]
fn hash_of(ct: *const c_void) -> Option<u64> {
    if ct.is_null() || layout!(ct_orig) == ABSENT {
        return None;
    }
    let (orig, reply) = (field_address!(ct, ct_orig), field_address!(ct, ct_reply));
    // SAFETY: integers.
    let (orig, reply): (RawTuple, RawTuple) = unsafe { (Probe::read(orig), Probe::read(reply)) };
    let mut hash = 0;
    for word in orig {
        hash = fold(hash, word);
    }
    for word in reply {
        hash = fold(hash, word);
    }
    Some(hash)
}

/// Whether a record was sent for this entry already; notes that it is seen again. Another connection passes for the same one only
/// with the same conntrack entry and hash within three seconds.
#[inline(always)]
fn is_seen(address: u64, hash: u64) -> bool {
    let Some(seen) = CT_SEEN.get_ptr_mut(&address) else {
        return false;
    };
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let seen = unsafe { &mut *seen };
    let again = seen.hash == hash && clock::since(seen.tick) < AGAIN_AFTER;
    // Once a tick: what is written goes from CPU to CPU.
    if again && seen.tick != clock::tick() {
        seen.tick = clock::tick();
    }
    again
}

/// Notes that a record is sent for this entry.
#[inline(always)]
fn see(address: u64, hash: u64) {
    // A full map only means a record more.
    let _ = CT_SEEN.insert(&address, &CtSeen::new(hash, clock::tick()), 0);
}

/// Folds a tuple into a hash.
#[inline(always)]
pub fn mix(hash: u64, tuple: &Tuple) -> u64 {
    let ports = u64::from(tuple.sport) << 16 | u64::from(tuple.dport);
    let mut hash = hash;
    for word in tuple.saddr.0 {
        hash = fold(hash, u64::from(word));
    }
    for word in tuple.daddr.0 {
        hash = fold(hash, u64::from(word));
    }
    fold(hash, ports)
}

/// One step of FNV-1a, word-wise.
#[inline(always)]
pub fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}
