//! The records of the ring.
//!
//! Each begins with a [`Header`]; [`Header::kind`] says which struct it is and [`Header::size`] how long. A reader checks
//! `version`, then the kind, and skips what it does not know.

use super::plain::plain;
use super::{Addr, FlowKey, FlowValue, Tuple};

/// Which record follows. One per kind of the model's events.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`SegmentRecord`]: a SYN with an initial sequence number not seen before at this entry.
    Syn = 1,
    /// [`SegmentRecord`]: the first SYN-ACK of an entry.
    SynAck = 2,
    /// [`SegmentRecord`]: the first RST of an entry.
    Rst = 3,
    /// [`SegmentRecord`]: first packet of a non-TCP tuple, or of a TCP connection that was already running.
    FirstPacket = 4,
    /// [`SegmentRecord`]: first retransmitted data segment of an entry.
    Retransmit = 5,
    /// [`FlowEndRecord`].
    FlowEnd = 6,
    /// [`IcmpErrorRecord`].
    IcmpError = 7,
    /// [`DropRecord`].
    Drop = 8,
    /// [`NatRecord`].
    Nat = 9,
    /// [`IcmpSentRecord`].
    IcmpSent = 10,
    /// [`SocketRecord`]: a local socket retransmitted; tuple local → remote.
    TcpRetransmit = 11,
    /// [`SocketRecord`]: TCP of this namespace sends a RST; tuple of the RST, local → remote.
    ResetSent = 12,
    /// [`SocketRecord`]: a local socket got a RST; tuple local → remote.
    ResetReceived = 13,
    /// [`FibRecord`].
    FibError = 14,
    /// [`NeighborRecord`].
    NeighborFailed = 15,
    /// [`NeighborWaitRecord`].
    NeighborWait = 16,
    /// [`CtRecord`]: an entry is taken out of the table.
    CtEnd = 17,
    /// [`CtRecord`]: a new connection found no place in the table, its packet is dropped.
    CtInsertFailed = 18,
    /// [`CtRecord`]: two packets of one connection raced for an entry; this is what the packet goes on with.
    CtClash = 19,
    /// [`CtFullRecord`].
    CtFull = 20,
    /// [`PmtuReceivedRecord`].
    PmtuReceived = 21,
    /// [`PmtuLearnedRecord`].
    PmtuLearned = 22,
    /// [`FragmentedRecord`].
    Fragmented = 23,
    /// [`IpvsRecord`].
    Ipvs = 24,
    /// [`ListenOverflowRecord`].
    ListenOverflow = 25,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_u8(kind: u8) -> Option<Kind> {
        Some(match kind {
            1 => Kind::Syn,
            2 => Kind::SynAck,
            3 => Kind::Rst,
            4 => Kind::FirstPacket,
            5 => Kind::Retransmit,
            6 => Kind::FlowEnd,
            7 => Kind::IcmpError,
            8 => Kind::Drop,
            9 => Kind::Nat,
            10 => Kind::IcmpSent,
            11 => Kind::TcpRetransmit,
            12 => Kind::ResetSent,
            13 => Kind::ResetReceived,
            14 => Kind::FibError,
            15 => Kind::NeighborFailed,
            16 => Kind::NeighborWait,
            17 => Kind::CtEnd,
            18 => Kind::CtInsertFailed,
            19 => Kind::CtClash,
            20 => Kind::CtFull,
            21 => Kind::PmtuReceived,
            22 => Kind::PmtuLearned,
            23 => Kind::Fragmented,
            24 => Kind::Ipvs,
            25 => Kind::ListenOverflow,
            _ => return None,
        })
    }

    /// Whether the record is refused when the ring is fuller than [`super::Layout::ring_limit`], so that room is left for
    /// drops, NAT, resets and MTU, and for what touches the Service asked about.
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        matches!(
            self,
            Kind::Syn
                | Kind::SynAck
                | Kind::FirstPacket
                | Kind::Retransmit
                | Kind::FlowEnd
                | Kind::CtEnd
        )
    }
}

/// Start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// `net->net_cookie`, 0 where the kernel has none that can be read.
    pub netns_cookie: u64,
    /// `net->ns.inum`, 0 = could not be read.
    pub netns_inum: u32,
    /// Interface in that namespace, 0 = none.
    pub ifindex: u32,
    /// The packet's own tuple at that place; `family` 0 = none.
    pub tuple: Tuple,
    /// Bytes of the whole record.
    pub size: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`super::VERSION`].
    pub version: u8,
    /// Always 0.
    pub pad: u32,
}

/// One packet as tc saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Common part.
    pub header: Header,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// MSS option, 0 if none.
    pub mss: u16,
    /// IP packet length, bytes; per segment where aggregated.
    pub len: u16,
    /// Outermost VLAN id, 0 for none.
    pub vlan: u16,
    /// TCP flags of this packet.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// [`super::DIR_INGRESS`] or [`super::DIR_EGRESS`].
    pub dir: u8,
    /// Always 0.
    pub pad: [u8; 7],
}

/// The tuple was reused by a new connection: the last state of the one that had it before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEndRecord {
    /// Common part.
    pub header: Header,
    /// Key of the entry.
    pub key: FlowKey,
    /// Its last value.
    pub value: FlowValue,
}

/// An ICMP or `ICMPv6` error that passed an interface; `header.tuple` is the ICMP packet's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpErrorRecord {
    /// Common part.
    pub header: Header,
    /// Tuple of the packet quoted inside, `family` 0 if it could not be read.
    pub quoted: Tuple,
    /// Next-hop MTU for type 3 code 4 and `ICMPv6` type 2, else 0.
    pub mtu: u32,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// [`super::DIR_INGRESS`] or [`super::DIR_EGRESS`].
    pub dir: u8,
    /// Always 0.
    pub pad: u8,
}

/// A conntrack entry, as `skb->_nfct` shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ct {
    /// `tuplehash[IP_CT_DIR_ORIGINAL]`; `family` 0 = the packet has no entry and all of this is 0.
    pub orig: Tuple,
    /// `tuplehash[IP_CT_DIR_REPLY]`.
    pub reply: Tuple,
    /// `enum ip_conntrack_status` bits.
    pub status: u32,
    /// Mark, 0 where the kernel keeps none.
    pub mark: u32,
    /// Zone, 0 where the kernel keeps none.
    pub zone: u16,
    /// `enum ip_conntrack_info` of the packet.
    pub info: u8,
    /// Always 0.
    pub pad: u8,
    /// Always 0.
    pub end: u32,
}

/// [`DropRecord::flags`]: the packet belongs to a local socket.
pub const DROP_HAS_SK: u8 = 1;
/// [`DropRecord::flags`]: the packet had a route, `dst_input` and `dst_ifindex` are valid.
pub const DROP_HAS_DST: u8 = 2;

/// Who gave a packet up, as netfilter's own functions tell (kprobes); all 0 where they are not listened to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Interface that the packet came in through, as the hook was told; 0 = none.
    pub input: u32,
    /// Interface that it was about to leave through; 0 = none.
    pub output: u32,
    /// `enum nf_inet_hooks` or its like in other families.
    pub hook: u8,
    /// `NFPROTO_*`; 0 = the hook is not known, all else of it is 0 too.
    pub family: u8,
    /// [`RULES_NONE`], [`RULES_NFT`] or [`RULES_XT`].
    pub rules: u8,
    /// 1: the rules themselves answered "drop". 0: they were asked last, which is the answer only where the packet was dropped
    /// inside them.
    pub sure: u8,
    /// [`REJECT_NONE`], [`REJECT_UNREACHABLE`] or [`REJECT_RESET`].
    pub reject: u8,
    /// ICMP or `ICMPv6` code of the rejection, as asked for.
    pub code: u8,
    /// `NFPROTO_*` of the nftables table, 0 = not known.
    pub table_family: u8,
    /// Always 0.
    pub pad: u8,
    /// Table, ended by a zero if shorter.
    pub table: [u8; NAME],
    /// Base chain (nftables), likewise.
    pub chain: [u8; NAME],
}

/// Bytes kept of a name.
pub const NAME: usize = 64;
/// [`Verdict::rules`]: no rules were asked.
pub const RULES_NONE: u8 = 0;
/// [`Verdict::rules`]: a base chain of nftables.
pub const RULES_NFT: u8 = 1;
/// [`Verdict::rules`]: a table of iptables or ip6tables.
pub const RULES_XT: u8 = 2;
/// [`Verdict::reject`]: dropped without an answer.
pub const REJECT_NONE: u8 = 0;
/// [`Verdict::reject`]: an ICMP error of [`Verdict::code`].
pub const REJECT_UNREACHABLE: u8 = 1;
/// [`Verdict::reject`]: a TCP reset.
pub const REJECT_RESET: u8 = 2;

/// `kfree_skb`. `header.ifindex` is `skb->dev`. The same (netns, place, reason, interface, tuple) is recorded at most once a
/// second; see `DROPS` in [`super::map`] for the count that stays behind at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRecord {
    /// Common part.
    pub header: Header,
    /// Return address in the function that freed the packet (resolve it by kallsyms).
    pub place: u64,
    /// Address of `dst->input` (`ip_forward`, `ip_local_deliver`, …): what the route had decided.
    pub dst_input: u64,
    /// Value of the running kernel's `enum skb_drop_reason`; [`super::REASON_ABSENT`] where the tracepoint has none.
    pub reason: u32,
    /// How many packets this record stands for: all since the last record of the same key, this one included.
    pub count: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// IP packet length in bytes.
    pub len: u32,
    /// `dst->dev->ifindex`: where the packet was going out.
    pub dst_ifindex: u32,
    /// `skb->skb_iif`: where it came in, 0 = it began here.
    pub iif: u32,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// [`DROP_HAS_SK`], [`DROP_HAS_DST`].
    pub flags: u8,
    /// Always 0.
    pub pad: [u8; 6],
    /// For an ICMP error: the tuple quoted inside.
    pub quoted: Tuple,
    /// Conntrack entry of the packet.
    pub ct: Ct,
    /// Which rules dropped it.
    pub verdict: Verdict,
}

/// The first packet of a connection left an interface, its NAT decided (`__nf_conntrack_confirm`, or `net_dev_start_xmit` with
/// conntrack NEW).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRecord {
    /// Common part.
    pub header: Header,
    /// Both tuples.
    pub ct: Ct,
}

/// The kernel generated an ICMP error about `header.tuple` (tracepoint `icmp_send`, which there is for IPv4 only; with kprobes
/// `icmp6_send`, and `__icmp_send` where the tracepoint is missing: these are also called for errors that a rate limit then holds back).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpSentRecord {
    /// Common part.
    pub header: Header,
    /// Conntrack of the packet complained about.
    pub ct: Ct,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// Always 0.
    pub pad: [u8; 2],
    /// The MTU told (type 3 code 4, `ICMPv6` type 2), 0 = not known.
    pub mtu: u32,
}

/// Something that TCP did with a socket, or without one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// Common part.
    pub header: Header,
    /// `enum sk_rst_reason` of a reset sent, [`super::REASON_ABSENT`] where there is none.
    pub reason: u32,
    /// `sk->sk_state`, 0 = no socket.
    pub state: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

/// A route lookup for the first packet of a socket failed in one table (`fib_table_lookup`, IPv4). The namespace is that of the
/// running task. Other tables may be asked after: never a finding alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FibRecord {
    /// Common part; the tuple is what was looked up: source 0.0.0.0, ports 0 where the lookup had none.
    pub header: Header,
    /// Destination looked up.
    pub dst: Addr,
    /// Negative errno.
    pub err: i32,
    /// Routing table id.
    pub table: u32,
}

/// A neighbour entry went to `NUD_FAILED`; interface and namespace in the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborRecord {
    /// Common part; no tuple.
    pub header: Header,
    /// The neighbour that did not answer.
    pub ip: Addr,
}

/// A packet waits until the link-layer address of its next hop is known (`neigh_event_send_done`). `header.tuple` is the
/// packet's own. The same packet to the same neighbour is recorded at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborWaitRecord {
    /// Common part; interface and namespace are the neighbour's.
    pub header: Header,
    /// The neighbour that is asked for.
    pub ip: Addr,
    /// Conntrack entry of the packet.
    pub ct: Ct,
}

/// [`CtRecord::flags`], `CtEnd`: evicted to make room for another (`early_drop`).
pub const CT_EVICTED: u32 = 1;
/// [`CtRecord::flags`], `CtInsertFailed`: another entry had one of its tuples.
pub const CT_CLASHED: u32 = 2;

/// Something happened to a conntrack entry. Namespace in the header is the entry's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtRecord {
    /// Common part; the tuple is the entry's original one.
    pub header: Header,
    /// The entry.
    pub ct: Ct,
    /// [`CT_EVICTED`], [`CT_CLASHED`].
    pub flags: u32,
    /// Always 0.
    pub pad: u32,
}

/// No conntrack entry could be had for a packet (`__nf_conntrack_alloc` says `-ENOMEM`): the table is full and nothing in it may be
/// evicted. The packet is dropped. The same (netns, client, destination) is recorded at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtFullRecord {
    /// Common part; the tuple is the packet's.
    pub header: Header,
}

/// The IP stack of this namespace took in an ICMP "fragmentation needed" or `ICMPv6` "packet too big". `header.tuple` is its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmtuReceivedRecord {
    /// Common part.
    pub header: Header,
    /// The packet that was too big.
    pub quoted: Tuple,
    /// The MTU it tells.
    pub mtu: u32,
    /// 1 = TCP found the socket that had sent the packet.
    pub socket: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

/// The IP stack of this namespace learnt a path MTU (`update_or_create_fnhe`, `rt6_do_update_pmtu`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmtuLearnedRecord {
    /// Common part; no tuple, the interface is the route's.
    pub header: Header,
    /// Destination.
    pub dst: Addr,
    /// The path MTU from now on.
    pub mtu: u32,
    /// MTU of the route's interface.
    pub link_mtu: u32,
}

/// A packet is cut into fragments (`ip_do_fragment`, `ip6_fragment`). The same tuple is recorded at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentedRecord {
    /// Common part; the interface is the one it leaves by.
    pub header: Header,
    /// Bytes from the IP header on, before.
    pub len: u32,
    /// MTU of the interface that it leaves by, 0 = not known.
    pub link_mtu: u32,
}

/// [`IpvsRecord::method`]: rewritten (`ip_vs_nat_xmit`).
pub const IPVS_NAT: u8 = 1;
/// [`IpvsRecord::method`]: sent to the backend's link-layer address as it is (`ip_vs_dr_xmit`).
pub const IPVS_DIRECT: u8 = 2;
/// [`IpvsRecord::method`]: through a tunnel (`ip_vs_tunnel_xmit`).
pub const IPVS_TUNNEL: u8 = 3;
/// [`IpvsRecord::method`]: the destination is this machine (`ip_vs_null_xmit`).
pub const IPVS_LOCAL: u8 = 4;
/// [`IpvsRecord::method`]: no destination was there to choose (`ip_vs_leave`).
pub const IPVS_NONE: u8 = 5;

/// IPVS sent the first packet of a connection on, or had nowhere to send it. `header.tuple` is the packet's before that.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpvsRecord {
    /// Common part.
    pub header: Header,
    /// The destination chosen.
    pub dst: Addr,
    /// Its port, host order.
    pub dport: u16,
    /// [`IPVS_NAT`] and its like.
    pub method: u8,
    /// 4 or 6, of `dst`; 0 = none was chosen.
    pub family: u8,
    /// Always 0.
    pub pad: u32,
}

/// A listening socket's queue of accepted connections is full: the packet `header.tuple` (a SYN, or the ACK that would have
/// completed a handshake) is given up without a drop being reported. The same listener is recorded at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOverflowRecord {
    /// Common part.
    pub header: Header,
    /// Connections that wait to be accepted.
    pub backlog: u32,
    /// As many may wait.
    pub limit: u32,
}

plain!(
    Header = 8 + 8 + 4 + 4 + 40 + 2 + 1 + 1 + 4,
    SegmentRecord = 72 + 4 + 4 + 2 + 2 + 2 + 1 + 1 + 1 + 7,
    FlowEndRecord = 72 + 48 + 120,
    IcmpErrorRecord = 72 + 40 + 4 + 1 + 1 + 1 + 1,
    Ct = 40 + 40 + 4 + 4 + 2 + 1 + 1 + 4,
    Verdict = 4 + 4 + 8 + 2 * NAME,
    DropRecord = 72 + 8 + 8 + 6 * 4 + 1 + 1 + 6 + 40 + 96 + size_of::<Verdict>(),
    NatRecord = 72 + 96,
    IcmpSentRecord = 72 + 96 + 1 + 1 + 2 + 4,
    SocketRecord = 72 + 4 + 1 + 3,
    FibRecord = 72 + 16 + 4 + 4,
    NeighborRecord = 72 + 16,
    NeighborWaitRecord = 72 + 16 + 96,
    CtRecord = 72 + 96 + 4 + 4,
    CtFullRecord = 72,
    PmtuReceivedRecord = 72 + 40 + 4 + 1 + 3,
    PmtuLearnedRecord = 72 + 16 + 4 + 4,
    FragmentedRecord = 72 + 4 + 4,
    IpvsRecord = 72 + 16 + 2 + 1 + 1 + 4,
    ListenOverflowRecord = 72 + 4 + 4,
);
