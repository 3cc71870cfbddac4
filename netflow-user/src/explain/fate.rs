//! What became of a packet that the IP layer dropped, by the kernel's reason or, where it gives none, by the function.
//!
//! Kernels before 5.17 have no reasons, and newer ones leave some drops without (`NOT_SPECIFIED`). The function that freed
//! the packet is known on all of them; where it frees packets for more than one cause, facts of the node must decide.

use crate::model::record::Drop;

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// There is no route to its destination, or one that says unreachable, prohibit or blackhole.
    NoRoute,
    /// It came in through an interface that may not forward.
    NotForwarded,
    /// Its source is not reached through the interface by which it came (reverse path filter).
    ReversePath,
    /// Its next hop did not answer for its link-layer address.
    NeighborFailed,
    /// Its frame was addressed to another station.
    OtherHost,
    /// A checksum does not fit.
    BadChecksum,
}

/// How well the record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// It was dropped for something else.
    Not,
    /// The function drops for this and for other causes.
    Possibly,
    /// For nothing else.
    Surely,
}

/// What functions free packets for without a reason, in v5.10 and, where they still do, in v6.18.
const PLACES: &[(&str, Fate, Told)] = &[
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv4/route.c>: what `ip_route_input_slow` answered with an error,
    // "forwarding is off here" included.
    ("ip_error", Fate::NoRoute, Told::Possibly),
    ("ip_error", Fate::NotForwarded, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv6/route.c>
    ("ip6_pkt_drop", Fate::NoRoute, Told::Surely),
    ("ip6_pkt_discard", Fate::NoRoute, Told::Surely),
    ("ip6_pkt_prohibit", Fate::NoRoute, Told::Surely),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/bridge/br_netfilter_ipv6.c>: the route of a bridged packet whose
    // destination was translated is an error. Nobody is told.
    ("br_nf_pre_routing_finish_ipv6", Fate::NoRoute, Told::Surely),
    // Blackhole routes: <https://elixir.bootlin.com/linux/v5.10/source/net/core/dst.c>
    ("dst_discard", Fate::NoRoute, Told::Surely),
    ("dst_discard_out", Fate::NoRoute, Told::Surely),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv6/ip6_output.c>: forwarding off, hop limit, policies.
    ("ip6_forward", Fate::NotForwarded, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv4/ip_input.c>: whatever `ip_route_input_noref` refuses, the
    // reverse path (-EXDEV) and martians among it; `ip_rcv_core` also drops broken headers.
    ("ip_rcv_finish_core", Fate::ReversePath, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/bridge/br_netfilter_hooks.c>: the same of a bridged packet whose
    // destination was translated.
    (
        "br_nf_pre_routing_finish",
        Fate::ReversePath,
        Told::Possibly,
    ),
    ("ip_rcv_core", Fate::OtherHost, Told::Possibly),
    ("ip_rcv_core", Fate::BadChecksum, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv4/tcp_ipv4.c>, <https://elixir.bootlin.com/linux/v5.10/source/net/ipv4/udp.c>
    // and their IPv6 forms, which also drop what no socket takes.
    ("tcp_v4_rcv", Fate::BadChecksum, Told::Possibly),
    ("tcp_v6_rcv", Fate::BadChecksum, Told::Possibly),
    ("__udp4_lib_rcv", Fate::BadChecksum, Told::Possibly),
    ("__udp6_lib_rcv", Fate::BadChecksum, Told::Possibly),
    ("udp_queue_rcv_one_skb", Fate::BadChecksum, Told::Possibly),
    ("udpv6_queue_rcv_one_skb", Fate::BadChecksum, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv6/ip6_input.c>
    ("ip6_rcv_core", Fate::OtherHost, Told::Possibly),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/core/neighbour.c>: the queue of an entry that failed.
    ("neigh_invalidate", Fate::NeighborFailed, Told::Surely),
    // <https://elixir.bootlin.com/linux/v5.10/source/net/ipv4/arp.c>, <https://elixir.bootlin.com/linux/v5.10/source/net/ipv6/ndisc.c>
    ("arp_error_report", Fate::NeighborFailed, Told::Surely),
    ("ndisc_error_report", Fate::NeighborFailed, Told::Surely),
];

impl Fate {
    /// Whether a drop was for this.
    pub fn told(self, drop: &Drop) -> Told {
        if drop.reason == "NOT_SPECIFIED" {
            return PLACES
                .iter()
                .filter(|(place, fate, _)| *place == drop.place && *fate == self)
                .map(|(_, _, told)| *told)
                .max()
                .unwrap_or(Told::Not);
        }
        if self.is_named(&drop.reason) {
            Told::Surely
        } else {
            Told::Not
        }
    }

    /// Names of `enum skb_drop_reason`:
    /// <https://elixir.bootlin.com/linux/v6.18/source/include/net/dropreason-core.h>.
    fn is_named(self, reason: &str) -> bool {
        match self {
            Fate::NoRoute => reason.ends_with("NOROUTES"),
            Fate::NotForwarded => reason == "IP_INADDRERRORS",
            Fate::ReversePath => reason == "IP_RPFILTER",
            Fate::NeighborFailed => reason.starts_with("NEIGH_"),
            Fate::OtherHost => reason == "OTHERHOST",
            Fate::BadChecksum => reason.ends_with("_CSUM"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flow::TcpFlags;

    fn drop(reason: &str, place: &str) -> Drop {
        Drop {
            reason: reason.into(),
            place: place.into(),
            hook: None,
            flags: TcpFlags(0),
            seq: 0,
            len: 60,
            ct: None,
            quoted: None,
            count: 1,
            verdict: None,
        }
    }

    #[test]
    fn a_reason_decides_and_a_place_only_without_one() {
        let named = drop("IP_INADDRERRORS", "ip_error");
        assert_eq!(Fate::NotForwarded.told(&named), Told::Surely);
        assert_eq!(Fate::NoRoute.told(&named), Told::Not);
        let bare = drop("NOT_SPECIFIED", "ip_error");
        assert_eq!(Fate::NotForwarded.told(&bare), Told::Possibly);
        assert_eq!(Fate::NoRoute.told(&bare), Told::Possibly);
        assert_eq!(Fate::ReversePath.told(&bare), Told::Not);
        let bridged = drop("NOT_SPECIFIED", "br_nf_pre_routing_finish_ipv6");
        assert_eq!(Fate::NoRoute.told(&bridged), Told::Surely);
        let queue = drop("NOT_SPECIFIED", "neigh_invalidate");
        assert_eq!(Fate::NeighborFailed.told(&queue), Told::Surely);
        assert_eq!(
            Fate::BadChecksum.told(&drop("TCP_CSUM", "tcp_v4_rcv")),
            Told::Surely
        );
    }
}
