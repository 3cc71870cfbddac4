//! One event from the kernel, decoded.

use super::flow::{Direction, FlowSnapshot, TcpFlags};
use super::{CtTuples, Time, Tuple};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Something the kernel told us through the ring, with where and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, wall clock.
    pub time: Time,
    /// Inode number of the network namespace it happened in (0 = could not be read).
    pub netns: u32,
    /// Interface in that namespace (0 = none).
    #[serde(default)]
    pub ifindex: u32,
    /// The packet's own tuple at that place, where there was a packet that could be parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Tuple>,
    /// What happened.
    pub event: Event,
}

/// What happened. Adjacently tagged in recordings, so that a later version can add kinds. Conntrack's tuples are shared with the
/// connection that a record becomes part of (a drop's are not: few records are drops).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// A SYN with an initial sequence number not seen before on this tuple: an attempt begins.
    /// Sent from the node's first observation point only.
    Syn(Segment),
    /// First SYN-ACK of a handshake, where it came into the node.
    SynAck(Segment),
    /// A RST, where it came into the node or was first seen leaving it.
    Rst(Segment),
    /// First packet of a non-TCP tuple, or of a TCP connection that was already running.
    FirstPacket(Segment),
    /// First retransmitted data segment of an entry.
    Retransmit(Segment),
    /// The tuple was reused: the counters of the connection that had it before.
    FlowEnd {
        /// Its last state.
        flow: Box<FlowSnapshot>,
    },
    /// An ICMP error passed an interface.
    IcmpError(IcmpError),
    /// `kfree_skb`: the kernel dropped a packet.
    Drop(Box<Drop>),
    /// The first packet of a connection left the box: final tuples (`net_dev_start_xmit` with conntrack NEW,
    /// `__nf_conntrack_confirm`, or ctnetlink NEW).
    Nat {
        /// Both tuples.
        ct: Arc<CtTuples>,
        /// Of ctnetlink, which tells no time: it was by then, and after the record's time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Time>,
    },
    /// A conntrack entry ended (ctnetlink DESTROY or `nf_ct_delete`).
    CtEnd {
        /// Both tuples.
        ct: Arc<CtTuples>,
        /// It had to make room for another, in a table that was full (`early_drop`).
        #[serde(default)]
        evicted: bool,
    },
    /// A new connection found no place in the conntrack table (`__nf_conntrack_confirm` says drop): its packet is dropped, which is
    /// a record of its own.
    CtInsertFailed {
        /// The entry that was not inserted.
        ct: Arc<CtTuples>,
        /// Another entry had one of its tuples, and they could not be made one.
        #[serde(default)]
        clash: bool,
    },
    /// Two packets of one connection raced for an entry, and the kernel sorted it out (`nf_ct_resolve_clash`).
    CtClash {
        /// The entry that the packet goes on with.
        ct: Arc<CtTuples>,
    },
    /// No conntrack entry could be had for the packet of `Record::tuple`: the table is full and nothing in it may be evicted
    /// (`__nf_conntrack_alloc` says `-ENOMEM`). The packet is dropped.
    CtFull,
    /// The kernel of this namespace generated an ICMP error for `Record::tuple` (`icmp_send`, `icmp6_send`).
    IcmpSent {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
        /// The MTU told (ICMP 3/4, `ICMPv6` 2), 0 = not known.
        #[serde(default)]
        mtu: u32,
        /// Conntrack of the packet complained about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ct: Option<Arc<CtTuples>>,
    },
    /// A local socket retransmitted (`tcp_retransmit_skb`); tuple as the socket has it (local → remote).
    TcpRetransmit {
        /// `sk->sk_state` (`TCP_ESTABLISHED` = 1, `TCP_SYN_SENT` = 2, …).
        state: u8,
    },
    /// This namespace's TCP sent a RST (`tcp_send_reset`); tuple of the RST (local → remote).
    ResetSent,
    /// A local socket got a RST (`tcp_receive_reset`); tuple local → remote.
    ResetReceived,
    /// A socket's route lookup found nothing in one table (`fib_table_lookup` with err < 0). Never a finding alone.
    FibError {
        /// Destination looked up.
        dst: IpAddr,
        /// Negative errno.
        err: i32,
        /// Routing table id.
        table: u32,
    },
    /// A packet waits until the link-layer address of its next hop is known: `Record::tuple`, as it would leave
    /// (`neigh_event_send_done`). Every first packet to a neighbour does, for a moment.
    NeighborWait {
        /// The neighbour that is asked for.
        ip: IpAddr,
        /// Conntrack of the packet, its NAT decided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ct: Option<Arc<CtTuples>>,
    },
    /// A neighbour entry went to `NUD_FAILED`.
    NeighborFailed {
        /// The neighbour that did not answer.
        ip: IpAddr,
    },
    /// The IP stack of this namespace took in a "fragmentation needed" or "packet too big", `Record::tuple` (`icmp_unreach`,
    /// `icmpv6_notify`).
    PmtuReceived {
        /// The MTU it tells.
        mtu: u32,
        /// The packet that was too big.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quoted: Option<Tuple>,
        /// TCP found the socket here that had sent it (`tcp_v4_err`, `tcp_v6_err`).
        #[serde(default)]
        socket: bool,
    },
    /// The IP stack of this namespace learnt a path MTU (`update_or_create_fnhe`, `rt6_do_update_pmtu`).
    PmtuLearned {
        /// Destination.
        dst: IpAddr,
        /// The path MTU from now on.
        mtu: u32,
        /// MTU of the interface that the route leads to, `Record::ifindex`; 0 = not known.
        #[serde(default)]
        link_mtu: u32,
    },
    /// The packet of `Record::tuple` was cut into fragments before it left by `Record::ifindex` (`ip_do_fragment`, `ip6_fragment`).
    Fragmented {
        /// IP packet length before.
        len: u32,
        /// MTU of the interface, 0 = not known.
        #[serde(default)]
        link_mtu: u32,
    },
    /// IPVS sent the first packet of a connection on, or had nowhere to send it. `Record::tuple` is the packet's before that.
    Ipvs {
        /// How it was sent.
        method: IpvsMethod,
        /// To where; `None` with [`IpvsMethod::NoDestination`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<SocketAddr>,
    },
    /// The queue of a listening socket is full: the packet of `Record::tuple`, a SYN or the ACK that would have completed
    /// a handshake, was given up (`tcp_conn_request`, `tcp_v4_syn_recv_sock`, `tcp_v6_syn_recv_sock`).
    ListenOverflow {
        /// Connections that wait to be accepted.
        backlog: u32,
        /// As many may wait.
        limit: u32,
    },
}

/// How IPVS sends a packet to the destination that it has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpvsMethod {
    /// Its destination is rewritten (masquerading).
    Nat,
    /// As it is, to the destination's link-layer address (direct routing).
    Direct,
    /// Inside another packet.
    Tunnel,
    /// The destination is this machine.
    Local,
    /// Not at all: there was none to choose (`ip_vs_leave`).
    NoDestination,
}

/// What the tc program saw of one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Direction at `Record::ifindex`.
    pub dir: Direction,
    /// TCP flags of this packet.
    #[serde(default)]
    pub flags: TcpFlags,
    /// Sequence number.
    #[serde(default)]
    pub seq: u32,
    /// Acknowledgement number.
    #[serde(default)]
    pub ack: u32,
    /// MSS option, 0 if none.
    #[serde(default)]
    pub mss: u16,
    /// IP packet length, bytes (per segment where aggregated).
    #[serde(default)]
    pub len: u16,
    /// TTL or hop limit.
    #[serde(default)]
    pub ttl: u8,
}

/// An ICMP or ICMPv6 error seen by tc. `Record::tuple` is the ICMP packet's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpError {
    /// Direction at `Record::ifindex`.
    pub dir: Direction,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU for type 3 code 4 and ICMPv6 type 2, else 0.
    #[serde(default)]
    pub mtu: u32,
    /// Tuple of the packet quoted inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Tuple>,
}

impl IcmpError {
    /// Fragmentation needed (ICMP 3/4) or packet too big (`ICMPv6` 2).
    pub fn is_too_big(&self, family_v6: bool) -> bool {
        if family_v6 {
            self.icmp_type == 2
        } else {
            (self.icmp_type, self.code) == (3, 4)
        }
    }
}

/// A packet that the kernel freed as dropped. Same (netns, place, reason, tuple) within a short time is one record
/// with a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Name from the running kernel's `enum skb_drop_reason` without the prefix (`NETFILTER_DROP`), or
    /// `NOT_SPECIFIED` where the kernel gives none.
    pub reason: String,
    /// Kernel function that freed it, without `.isra`/`.constprop` suffix and module, or a hex address.
    pub place: String,
    /// Netfilter hook it was at, where it can be known (`skb` route not set = PREROUTING, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<NfHook>,
    /// TCP flags of the packet.
    #[serde(default)]
    pub flags: TcpFlags,
    /// TCP sequence number.
    #[serde(default)]
    pub seq: u32,
    /// IP packet length in bytes.
    #[serde(default)]
    pub len: u32,
    /// Conntrack entry of the packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ct: Option<CtTuples>,
    /// For an ICMP error: the tuple quoted inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Tuple>,
    /// How many packets this record stands for (≥ 1).
    #[serde(default = "one")]
    pub count: u32,
    /// Whose verdict it was, where netfilter's own functions were listened to. They are listened to from the first such drop on, so
    /// that one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// What netfilter said of a packet that it dropped. The hook is [`Drop::hook`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Family of the hook; `None` = the hook was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<NfFamily>,
    /// Interface that it came in through, 0 = none.
    #[serde(default)]
    pub input: u32,
    /// Interface that it was about to leave through, 0 = none.
    #[serde(default)]
    pub output: u32,
    /// The rules that dropped it; `None` = not rules but netfilter itself (conntrack, IPVS), or it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// How the sender was told (`nf_send_unreach`, `nf_send_reset` and their IPv6 forms); `None` = not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Rejection>,
}

/// A set of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Rules {
    /// A base chain of nftables, or a chain that it jumps to.
    Nftables {
        /// Family of the table, where it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<NfFamily>,
        /// Table.
        table: String,
        /// Base chain.
        chain: String,
    },
    /// The chain of the hook in a table of iptables or ip6tables, or a chain that it jumps to.
    Iptables {
        /// Table.
        table: String,
    },
}

/// How a rule told the sender that its packet is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "with", rename_all = "kebab-case")]
pub enum Rejection {
    /// An ICMP or `ICMPv6` "unreachable", which a rate limit may have held back.
    Unreachable {
        /// Its code.
        code: u8,
    },
    /// A TCP reset.
    Reset,
}

/// `NFPROTO_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NfFamily {
    /// IPv4 and IPv6 alike.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// At a device.
    Netdev,
    /// Bridged frames.
    Bridge,
    /// IPv6.
    Ip6,
}

impl NfFamily {
    /// As `nft` spells it.
    pub fn name(self) -> &'static str {
        match self {
            NfFamily::Inet => "inet",
            NfFamily::Ip => "ip",
            NfFamily::Arp => "arp",
            NfFamily::Netdev => "netdev",
            NfFamily::Bridge => "bridge",
            NfFamily::Ip6 => "ip6",
        }
    }
}

fn one() -> u32 {
    1
}

/// `enum nf_inet_hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NfHook {
    /// Before routing.
    Prerouting,
    /// To a local socket.
    Input,
    /// Routed on.
    Forward,
    /// From a local socket.
    Output,
    /// About to leave.
    Postrouting,
}
