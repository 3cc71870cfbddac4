//! Drops of healthy traffic, by reason and place.

use super::plain::plain;

/// [`NoiseRule::reason`] and [`super::DropRecord::reason`] on kernels whose tracepoint carries no reason.
pub const REASON_ABSENT: u32 = u32::MAX;

/// [`NoiseRule::flags`]: only TCP packets with the RST flag.
pub const RULE_RST_ONLY: u32 = 1;

/// Where a [`Noise`] row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoisePlace {
    /// Anywhere.
    Any,
    /// In this function (all symbols of that name, with any `.isra`, `.constprop`, `.part`, `.cold` suffix).
    Function(&'static str),
}

/// One row: such drops happen on healthy machines and mean nothing.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Name in `enum skb_drop_reason` without the `SKB_DROP_REASON_` prefix.
    pub reason: &'static str,
    /// Where.
    pub place: NoisePlace,
    /// The row holds only on kernels whose enum also has this name: there the meaningful drops at this place have a reason
    /// of their own.
    pub only_with: Option<&'static str>,
    /// [`RULE_RST_ONLY`] or 0.
    pub flags: u32,
}

const fn at(reason: &'static str, function: &'static str) -> Noise {
    Noise {
        reason,
        place: NoisePlace::Function(function),
        only_with: None,
        flags: 0,
    }
}

const fn anywhere(reason: &'static str) -> Noise {
    Noise {
        reason,
        place: NoisePlace::Any,
        only_with: None,
        flags: 0,
    }
}

/// The table. A `NOT_SPECIFIED` row holds with [`REASON_ABSENT`] too where the tracepoint has no reason (`only_with` then fails);
/// it always needs a place. The programs themselves also pass over packets that are not IP, ICMP
/// redirects and neighbour discovery.
pub const NOISE: &[Noise] = &[
    // A segment that TCP took in and has no more use for.
    at("NOT_SPECIFIED", "tcp_rcv_state_process"),
    at("NOT_SPECIFIED", "tcp_rcv_established"),
    // What was still queued when a socket closed.
    at("NOT_SPECIFIED", "udp_destruct_common"),
    at("NOT_SPECIFIED", "udp_destroy_sock"),
    at("NOT_SPECIFIED", "inet_sock_destruct"),
    at("NOT_SPECIFIED", "skb_queue_purge"),
    at("NOT_SPECIFIED", "skb_queue_purge_reason"),
    at("NOT_SPECIFIED", "skb_rbtree_purge"),
    anywhere("QUEUE_PURGE"),
    // A RST for a socket that is already gone.
    Noise {
        flags: RULE_RST_ONLY,
        only_with: Some("NO_SOCKET"),
        ..at("NOT_SPECIFIED", "tcp_v4_rcv")
    },
    Noise {
        flags: RULE_RST_ONLY,
        only_with: Some("NO_SOCKET"),
        ..at("NOT_SPECIFIED", "tcp_v6_rcv")
    },
    // TCP doing its work; resets, retransmissions and late segments are seen by tc and by the TCP hooks.
    anywhere("TCP_RESET"),
    anywhere("TCP_OLD_DATA"),
    anywhere("TCP_OLD_ACK"),
    anywhere("TCP_OFOMERGE"),
    anywhere("TCP_OFO_DROP"),
    anywhere("TCP_CLOSE"),
    anywhere("TCP_FASTOPEN"),
    // A filter on a packet socket (tcpdump, DHCP clients) that did not want its copy.
    at("NOT_SPECIFIED", "packet_rcv"),
    at("NOT_SPECIFIED", "tpacket_rcv"),
    anywhere("PACKET_SOCK_ERROR"),
    anywhere("TAP_FILTER"),
    // The packet that the kernel makes up to answer a route lookup over rtnetlink, as our own reading of the node asks for
    // (inet_rtm_getroute, net/ipv4/route.c, v6.18).
    at("NOT_SPECIFIED", "inet_rtm_getroute"),
    at("NOT_SPECIFIED", "inet6_rtm_getroute"),
    // Multicast of the link that nobody here listens to.
    at("NOT_SPECIFIED", "ip6_mc_input"),
    // Neighbour discovery and frames that nobody here speaks.
    anywhere("UNHANDLED_PROTO"),
    anywhere("UNICAST_IN_L2_MULTICAST"),
    anywhere("IPV6_NDISC_NS_OTHERHOST"),
    // Neighbour discovery and group reports for a multicast group that nobody here has joined.
];

/// A row as the programs read it, resolved for the running kernel. A row whose function has several symbols takes several
/// rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseRule {
    /// First address of the function, 0 for any place.
    pub start: u64,
    /// First address after it, `u64::MAX` for any place. `start == end`: no rule (all rules after it are none either).
    pub end: u64,
    /// Value in the running kernel's enum, or [`REASON_ABSENT`].
    pub reason: u32,
    /// [`RULE_RST_ONLY`] or 0.
    pub flags: u32,
}

impl NoiseRule {
    /// Matches nothing.
    pub const NONE: Self = Self {
        start: 0,
        end: 0,
        reason: 0,
        flags: 0,
    };
}

plain!(NoiseRule = 8 + 8 + 4 + 4);
