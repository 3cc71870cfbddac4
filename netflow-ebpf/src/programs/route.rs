//! `fib_table_lookup`: a route lookup failed (IPv4).

use super::clock;
use super::conntrack::fold;
use super::netns::Netns;
use super::read::{Direct, Probe, Read, field};
use super::ring::{self, Place};
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use core::ffi::c_void;
use netflow_ebpf::map::FIB_SEEN_ENTRIES;
use netflow_ebpf::{Addr, FibRecord, Kind, Tuple};

/// Interface that lookups for packets of this machine's own name as their input
/// (`LOOPBACK_IFINDEX`, <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/route.c>, `ip_route_output_key_hash`).
const LOOPBACK: u32 = 1;
/// `RT_TABLE_LOCAL`: looked at first for every packet; that it has nothing is how most lookups go on.
const TABLE_LOCAL: u32 = 255;
/// The same failure is recorded this often.
const AGAIN_AFTER: u64 = 1_000_000_000;

#[map]
static FIB_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(FIB_SEEN_ENTRIES, 0);

#[btf_tracepoint(function = "fib_table_lookup")]
fn netflow_route(ctx: BtfTracePointContext) -> i32 {
    looked_up::<Direct>(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

#[raw_tracepoint(tracepoint = "fib_table_lookup")]
fn netflow_route_raw(ctx: RawTracePointContext) -> i32 {
    looked_up::<Probe>(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

/// Only a socket's lookup for its first packet, which has no source address yet: it is made by a system call, so the running task
/// says whose it is. Others are left out: where they fail there is a packet, which is dropped and says more.
#[inline(always)]
fn looked_up<R: Read>(table: u32, flow: *const c_void, err: i32) -> Option<()> {
    if err >= 0 || table == TABLE_LOCAL || field!(R, flow, fl4_iif: u32) != LOOPBACK {
        return None;
    }
    if field!(R, flow, fl4_saddr: u32) != 0 {
        return None;
    }
    // SAFETY: has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const c_void;
    let nsproxy = field!(Probe, task, task_nsproxy: *const c_void);
    let netns = Netns::watched::<Probe>(field!(Probe, nsproxy, nsproxy_net: *const c_void))?;
    let dst = Addr::v4(field!(R, flow, fl4_daddr: u32));
    let now = clock::now();
    if is_seen(netns, table, dst, err, now) {
        return None;
    }
    let tuple = Tuple {
        saddr: Addr::v4(0),
        daddr: dst,
        sport: u16::from_be(field!(R, flow, fl4_sport: u16)),
        dport: u16::from_be(field!(R, flow, fl4_dport: u16)),
        proto: field!(R, flow, fl4_proto: u8),
        family: 4,
        pad: 0,
    };
    let place = Place {
        time: now,
        netns,
        ifindex: field!(R, flow, fl4_oif: u32),
        tuple: Some(&tuple),
    };
    let mut entry = ring::reserve::<FibRecord>(Kind::FibError, &place)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).dst = dst;
        (*record).err = err;
        (*record).table = table;
    }
    ring::submit(entry);
    Some(())
}

#[inline(always)]
fn is_seen(netns: Netns, table: u32, dst: Addr, err: i32, now: u64) -> bool {
    let place = fold(fold(0, netns.cookie), u64::from(netns.inum));
    let what = u64::from(table) << 32 | u64::from(dst.0[3]);
    let key = fold(fold(place, what), u64::from(err.cast_unsigned()));
    if let Some(seen) = FIB_SEEN.get_ptr_mut(&key) {
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
    let _ = FIB_SEEN.insert(&key, &now, 0);
    false
}
