//! The maps: names, keys, values.
//!
//! | map | type | key → value | who writes |
//! |---|---|---|---|
//! | `FLOWS` | hash, preallocated | [`FlowKey`](super::FlowKey) → [`FlowValue`](super::FlowValue) | programs add and update, user space sweeps and deletes |
//! | `RECORDS` | ring buffer | records, no wakeup: user space polls every 50–100 ms | programs |
//! | `LOST` | per-CPU array | [`Lost`](super::Lost) → `u64` | programs |
//! | `NETNS` | hash | `u64` → `u32` | user space, before attaching: the namespaces that the tracing programs keep, its own included |
//! | `WATCHED` | hash | [`Addr`](super::Addr) → `u32` | user space: what room is kept for; the value is not looked at |
//! | `TAKEN` | array of one | → `u64` entries of `FLOWS` | programs count up, user space sets it after each sweep |
//! | `IFACES` | hash | ifindex `u32` → `u32` flags ([`IFACE_EMIT_INGRESS`] …) | user space, before attaching to the interface |
//! | `DROPS` | LRU hash | [`DropKey`] → [`DropTail`] | programs; user space flushes |
//! | `CT_SEEN` | LRU hash | address of the conntrack entry `u64` → [`CtSeen`] | programs only |
//! | `WAIT_SEEN` | LRU hash | `u64` hash of netns, neighbour and tuple → `u64` time | programs only |
//! | `VERDICTS` | LRU hash | address of a packet `u64` → what netfilter hook and rules it is at | programs only |
//! | `CALLS` | LRU hash | place on the stack `u64` → arguments of the call there | programs only |
//! | `CLASHED`, `TOO_BIG`, `ICMP_MTU` | LRU hash | address of a packet `u64` → `u32` | programs only |
//! | `IPVS_SEEN` | LRU hash | address of the IPVS connection `u64` → [`CtSeen`] | programs only |
//! | `SEEN` | LRU hash | `u64` hash of a record's kind, netns and tuple → `u64` time | programs only |
//! | `MODULES` | array of one | → [`ModuleLayout`](super::ModuleLayout) | user space |
//! | `FIB_SEEN` | LRU hash | `u64` hash of netns, table, destination and error → `u64` time | programs only |
//!
//! **`NETNS`**: the key is the namespace's cookie where [`Layout::net_cookie`](super::Layout::net_cookie) is present, else its
//! inode number; the value is not looked at. The tracing programs drop whatever happens in a namespace that is not listed.
//!
//! **`IFACES`** is looked at only when a record is about to be sent. Without an entry both directions send records. See the
//! constants for which flags an interface gets.
//!
//! **`DROPS`**: a drop whose key was recorded less than a second ago is only counted in [`DropTail::pending`]; the next one
//! after that second is recorded with all of them. What is still pending when no next one comes is user space's to fetch: every
//! second, for each entry with `pending > 0` whose `emitted` is more than a second old, make a drop record of `pending`
//! packets from key and value, and delete the entry.

use super::Tuple;
use super::plain::plain;

/// Ingress of this interface sends SYN/SYN-ACK/RST/first-packet/retransmission/ICMP records. For every interface except
/// those whose packets have already come in through another interface of the same namespace: bridge, bond and team
/// masters, VLAN and macvlan/ipvlan devices on a lower device here, VRF devices, and `lo` (seen at its egress).
pub const IFACE_EMIT_INGRESS: u32 = 1;
/// Egress of this interface sends such records for packets that began on this machine (`skb->skb_iif == 0`). For every
/// interface except those that only carry on what an upper device of the same namespace has just sent: ports of
/// a bridge, bond or team.
pub const IFACE_EMIT_EGRESS: u32 = 2;

/// Flow map.
pub const FLOWS: &str = "FLOWS";
/// Ring buffer.
pub const RECORDS: &str = "RECORDS";
/// Lost and odd counters.
pub const LOST: &str = "LOST";
/// Network namespaces watched.
pub const NETNS: &str = "NETNS";
/// Addresses that room is kept for.
pub const WATCHED: &str = "WATCHED";
/// Entries of the flow map.
pub const TAKEN: &str = "TAKEN";
/// Per-interface switches.
pub const IFACES: &str = "IFACES";
/// Drops counted but not recorded.
pub const DROPS: &str = "DROPS";
/// Conntrack entries that a NAT record was sent for.
pub const CT_SEEN: &str = "CT_SEEN";
/// Packets recorded that wait for a neighbour.
pub const WAIT_SEEN: &str = "WAIT_SEEN";
/// Route failures recorded.
pub const FIB_SEEN: &str = "FIB_SEEN";
/// Offsets of types of modules.
pub const MODULES: &str = "MODULES";
/// The frozen global of type [`Layout`](super::Layout).
pub const LAYOUT: &str = "LAYOUT";

/// Entries of each map, as built in: about 28 MiB together, of which the flow map has 23. The loader may change them.
pub const FLOWS_ENTRIES: u32 = 98_304;
/// Of these, entries that only flows of watched addresses get.
pub const FLOWS_KEPT: u32 = FLOWS_ENTRIES / 8;
/// See [`FLOWS_ENTRIES`].
pub const WATCHED_ENTRIES: u32 = 4_096;
/// Bytes of the ring; [`Layout::ring_limit`](super::Layout::ring_limit) is three quarters of it.
pub const RECORDS_BYTES: u32 = 4 << 20;
/// See [`FLOWS_ENTRIES`].
pub const NETNS_ENTRIES: u32 = 1_024;
/// See [`FLOWS_ENTRIES`].
pub const IFACES_ENTRIES: u32 = 4_096;
/// See [`FLOWS_ENTRIES`].
pub const DROPS_ENTRIES: u32 = 4_096;
/// See [`FLOWS_ENTRIES`].
pub const CT_SEEN_ENTRIES: u32 = 8_192;
/// See [`FLOWS_ENTRIES`].
pub const WAIT_SEEN_ENTRIES: u32 = 1_024;
/// See [`FLOWS_ENTRIES`].
pub const FIB_SEEN_ENTRIES: u32 = 1_024;

/// See [`FLOWS_ENTRIES`].
pub const VERDICTS_ENTRIES: u32 = 4_096;
/// See [`FLOWS_ENTRIES`].
pub const CALLS_ENTRIES: u32 = 4_096;
/// See [`FLOWS_ENTRIES`].
pub const CLASHED_ENTRIES: u32 = 512;
/// See [`FLOWS_ENTRIES`].
pub const TOO_BIG_ENTRIES: u32 = 512;
/// See [`FLOWS_ENTRIES`].
pub const ICMP_MTU_ENTRIES: u32 = 512;
/// See [`FLOWS_ENTRIES`].
pub const IPVS_SEEN_ENTRIES: u32 = 4_096;
/// See [`FLOWS_ENTRIES`].
pub const SEEN_ENTRIES: u32 = 1_024;

/// What makes drops the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    /// Namespace cookie, 0 where there is none.
    pub netns_cookie: u64,
    /// Return address in the dropping function.
    pub place: u64,
    /// Namespace inode.
    pub netns_inum: u32,
    /// Interface.
    pub ifindex: u32,
    /// Drop reason.
    pub reason: u32,
    /// Always 0.
    pub pad: u32,
    /// The packet's tuple.
    pub tuple: Tuple,
}

/// Drops counted since the last record of their key. The rest of what a record says is as in that record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropTail {
    /// When the last record was sent (`CLOCK_MONOTONIC`, ns).
    pub emitted: u64,
    /// Latest drop.
    pub last: u64,
    /// Drops since.
    pub pending: u32,
    /// TCP sequence number of the latest.
    pub seq: u32,
    /// IP length of the latest.
    pub len: u32,
    /// TCP flags of the latest.
    pub tcp_flags: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

/// A conntrack entry that a NAT record was sent for, or a connection of IPVS that was told of. Entries are reused by the kernel at once:
/// it counts as the same connection only with the same hash, seen again within three seconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtSeen {
    /// Hash of what tells it from others: both tuples; of IPVS two ports.
    pub hash: u64,
    /// Low half of `jiffies` at the latest packet.
    pub tick: u32,
    /// Always 0.
    pub pad: u32,
}

impl CtSeen {
    /// One seen at a tick.
    #[inline]
    #[must_use]
    pub fn new(hash: u64, tick: u32) -> Self {
        Self { hash, tick, pad: 0 }
    }
}

plain!(
    DropKey = 8 + 8 + 4 * 4 + 40,
    DropTail = 8 + 8 + 4 + 4 + 4 + 1 + 3,
    CtSeen = 16,
);
