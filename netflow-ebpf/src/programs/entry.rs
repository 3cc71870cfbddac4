//! What befalls conntrack entries: confirmed, not inserted, clashed, ended, or not to be had.

use super::call::{self, Function, Note};
use super::clock;
use super::conntrack::{self, IPS_CONFIRMED, fold, leaving, mix};
use super::module::modules;
use super::netns::Netns;
use super::read::{Probe, field, forget};
use super::ring::{self, Place};
use super::seen::is_seen;
use aya_ebpf::macros::{kprobe, kretprobe, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use netflow_ebpf::map::CLASHED_ENTRIES;
use netflow_ebpf::parse::{ICMP, ICMPV6};
use netflow_ebpf::{CT_CLASHED, CT_EVICTED, Ct, CtFullRecord, CtRecord, Kind, NatRecord, Tuple};

/// `enum ip_conntrack_status`: the entry is being taken out of the table
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/netfilter/nf_conntrack_common.h>).
const IPS_DYING: u32 = 1 << 9;
/// Verdict.
const NF_DROP: u32 = 0;
/// `-ENOMEM` as a pointer.
const NO_MEMORY: u64 = (-12_i64).cast_unsigned();

/// Packets whose clash was not resolved, until their insertion has failed.
#[map]
static CLASHED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(CLASHED_ENTRIES, 0);

/// Every connection passes here once, after its last hook: its translation is final. An entry that is in the table already (that of
/// the connection an ICMP error is about, say) does not come here (`nf_conntrack_confirm`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/netfilter/nf_conntrack_core.h>).
#[kprobe]
fn netflow_confirm(ctx: ProbeContext) -> u32 {
    let _ = confirm(&ctx);
    0
}

#[inline(always)]
fn confirm(ctx: &ProbeContext) -> Option<()> {
    let skb: *const c_void = ctx.arg(0)?;
    let ct = conntrack::entry(field!(Probe, skb, skb_nfct: u64));
    conntrack::netns(ct)?;
    let note = Note {
        first: skb as u64,
        second: 0,
    };
    call::begins(ctx, Function::Confirm, note);
    Some(())
}

/// The packet is the caller's still, also where it is to be dropped.
#[kretprobe]
fn netflow_confirm_ret(ctx: RetProbeContext) -> u32 {
    let _ = confirmed(&ctx);
    0
}

#[inline(always)]
fn confirmed(ctx: &RetProbeContext) -> Option<()> {
    let skb = call::ends(ctx, Function::Confirm)?.first as *const c_void;
    let nfct = field!(Probe, skb, skb_nfct: u64);
    let netns = conntrack::netns(conntrack::entry(nfct))?;
    let ct = conntrack::read(nfct)?;
    if ctx.ret::<u32>() == NF_DROP {
        let clashed = clashed(skb);
        return send(
            Kind::CtInsertFailed,
            netns,
            &ct,
            if clashed { CT_CLASHED } else { 0 },
        );
    }
    if ct.status & IPS_CONFIRMED == 0 {
        return None;
    }
    let dev = field!(Probe, skb, skb_dev: *const c_void);
    let leaving = leaving(&ct);
    let place = Place {
        time: clock::now(),
        netns,
        ifindex: if dev.is_null() {
            0
        } else {
            field!(Probe, dev, dev_ifindex: u32)
        },
        tuple: Some(&leaving),
    };
    let mut entry = ring::reserve::<NatRecord>(Kind::Nat, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe { (*record).ct = ct };
    ring::submit(entry);
    Some(())
}

/// Two packets of one connection have each made an entry for it.
#[kprobe]
fn netflow_clash(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg::<*const c_void>(0)
        && conntrack::netns(conntrack::entry(field!(Probe, skb, skb_nfct: u64))).is_some()
    {
        let note = Note {
            first: skb as u64,
            second: 0,
        };
        call::begins(&ctx, Function::Clash, note);
    }
    0
}

/// Resolved: the packet has the other entry by now, or its own is in the table beside it. Not resolved: that is left for the record
/// of the insertion that fails by it.
#[kretprobe]
fn netflow_clash_ret(ctx: RetProbeContext) -> u32 {
    let _ = resolved(&ctx);
    0
}

#[inline(always)]
fn resolved(ctx: &RetProbeContext) -> Option<()> {
    let skb = call::ends(ctx, Function::Clash)?.first;
    if ctx.ret::<u32>() == NF_DROP {
        let _ = CLASHED.insert(&skb, &1, 0);
        return None;
    }
    let nfct = field!(Probe, skb as *const c_void, skb_nfct: u64);
    let netns = conntrack::netns(conntrack::entry(nfct))?;
    let ct = conntrack::read(nfct)?;
    send(Kind::CtClash, netns, &ct, 0)
}

/// Whether the clash of this packet was not resolved; forgets it.
#[inline(always)]
fn clashed(skb: *const c_void) -> bool {
    let key = skb as u64;
    let clashed = CLASHED.get_ptr(&key).is_some();
    if clashed {
        let _ = CLASHED.remove(&key);
    }
    clashed
}

/// An entry ends: it timed out, was deleted, or had to make room. One that is on its way out already is told once.
#[kprobe]
fn netflow_ct_end(ctx: ProbeContext) -> u32 {
    let _ = ends(&ctx);
    0
}

#[inline(always)]
fn ends(ctx: &ProbeContext) -> Option<()> {
    let address: *const c_void = ctx.arg(0)?;
    let netns = conntrack::netns(address)?;
    let ct = conntrack::read(address as u64)?;
    if ct.status & IPS_DYING != 0 {
        return None;
    }
    let modules = modules()?;
    let caller = call::caller(ctx);
    let evicted = modules.early_drop <= caller && caller < modules.early_drop_end;
    send(
        Kind::CtEnd,
        netns,
        &ct,
        if evicted { CT_EVICTED } else { 0 },
    )
}

#[inline(always)]
fn send(kind: Kind, netns: Netns, ct: &Ct, flags: u32) -> Option<()> {
    let place = Place {
        time: clock::now(),
        netns,
        ifindex: 0,
        tuple: Some(&ct.orig),
    };
    let mut entry = ring::reserve::<CtRecord>(kind, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).ct = *ct;
        (*record).flags = flags;
        (*record).pad = 0;
    }
    ring::submit(entry);
    Some(())
}

/// A packet is to have a new entry. The tuple is its caller's, and is there at the return too.
#[kprobe]
fn netflow_ct_alloc(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(orig)) = (ctx.arg::<*const c_void>(0), ctx.arg::<u64>(2))
        && Netns::watched::<Probe>(net).is_some()
    {
        let note = Note {
            first: net as u64,
            second: orig,
        };
        call::begins(&ctx, Function::Alloc, note);
    }
    0
}

/// The table is full, and nothing in it could be evicted.
#[kretprobe]
fn netflow_ct_alloc_ret(ctx: RetProbeContext) -> u32 {
    let _ = allocated(&ctx);
    0
}

#[inline(always)]
fn allocated(ctx: &RetProbeContext) -> Option<()> {
    let note = call::ends(ctx, Function::Alloc)?;
    if ctx.ret::<u64>() != NO_MEMORY {
        return None;
    }
    let netns = Netns::watched::<Probe>(note.first as *const c_void)?;
    let mut tuple = MaybeUninit::<Tuple>::uninit();
    // SAFETY: memory of this program; once written, all of it is.
    let tuple = unsafe {
        conntrack::tuple(note.second as *const c_void, tuple.as_mut_ptr());
        forget(tuple.as_mut_ptr());
        tuple.assume_init()
    };
    let now = clock::now();
    if is_seen(client_and_service(netns, &tuple), now) {
        return None;
    }
    let place = Place {
        time: now,
        netns,
        ifindex: 0,
        tuple: Some(&tuple),
    };
    let entry = ring::reserve::<CtFullRecord>(Kind::CtFull, &place)?;
    ring::submit(entry);
    Some(())
}

/// Whom it is about, whatever port the client has this time.
#[inline(always)]
fn client_and_service(netns: Netns, tuple: &Tuple) -> u64 {
    let tuple = Tuple {
        sport: 0,
        dport: if matches!(tuple.proto, ICMP | ICMPV6) {
            0
        } else {
            tuple.dport
        },
        ..*tuple
    };
    mix(
        fold(
            fold(Kind::CtFull as u64, netns.cookie),
            u64::from(netns.inum),
        ),
        &tuple,
    )
}
