//! What was lost, or was odd, counted.

/// Index into the per-CPU array `LOST` of `u64`; user space sums over the CPUs. Absolute counts since load.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// Ring full (or above the room kept for drops): a SYN, SYN-ACK, first packet or retransmission record.
    RingSegment = 0,
    /// Ring full: a RST record of tc, a reset record of a socket.
    RingReset = 1,
    /// Ring full: the counters of a connection whose tuple was reused.
    RingFlowEnd = 2,
    /// Ring full: an ICMP error seen by tc or generated, a path MTU received or learnt, a packet fragmented.
    RingIcmp = 3,
    /// Ring full: a drop.
    RingDrop = 4,
    /// Ring full: a NAT record.
    RingNat = 5,
    /// Ring full: a socket's retransmission, a route or neighbour failure, what befell a conntrack entry, IPVS, a listener.
    RingOther = 6,
    /// Flow map full: packets of flows that could not get an entry.
    FlowMapFull = 7,
    /// A header was cut off by the end of the packet.
    Truncated = 8,
    /// Neither IPv4, IPv6 nor ARP (LLDP, MPLS, three VLAN tags …): passed, not counted as a flow.
    UnknownEtherType = 9,
    /// An IP header that is not one (version, header length), or more extension headers than are followed.
    BadIpHeader = 10,
    /// A fragment that is not the first: counted on the tuple with ports 0.
    FragmentNoPorts = 11,
    /// A transport without ports (ESP, GRE, …): counted on the tuple with ports 0.
    NoPorts = 12,
    /// A dropped packet whose headers could not be read: there is no record of it.
    DropNoTuple = 13,
    /// A call whose return was not seen (or not asked for any more): what it answered is not known.
    ReturnMissed = 14,
}

impl Lost {
    /// Number of counters.
    pub const COUNT: u32 = 15;

    /// All, in the order of the array.
    pub const ALL: [Lost; Self::COUNT as usize] = [
        Lost::RingSegment,
        Lost::RingReset,
        Lost::RingFlowEnd,
        Lost::RingIcmp,
        Lost::RingDrop,
        Lost::RingNat,
        Lost::RingOther,
        Lost::FlowMapFull,
        Lost::Truncated,
        Lost::UnknownEtherType,
        Lost::BadIpHeader,
        Lost::FragmentNoPorts,
        Lost::NoPorts,
        Lost::DropNoTuple,
        Lost::ReturnMissed,
    ];

    /// As results show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Lost::RingSegment => "ring:segment",
            Lost::RingReset => "ring:reset",
            Lost::RingFlowEnd => "ring:flow-end",
            Lost::RingIcmp => "ring:icmp",
            Lost::RingDrop => "ring:drop",
            Lost::RingNat => "ring:nat",
            Lost::RingOther => "ring:other",
            Lost::FlowMapFull => "flow-map-full",
            Lost::Truncated => "packet:truncated",
            Lost::UnknownEtherType => "packet:unknown-ethertype",
            Lost::BadIpHeader => "packet:bad-ip-header",
            Lost::FragmentNoPorts => "packet:fragment-without-ports",
            Lost::NoPorts => "packet:transport-without-ports",
            Lost::DropNoTuple => "drop:no-tuple",
            Lost::ReturnMissed => "kprobe:return-missed",
        }
    }

    /// Whether something that belongs to the story was lost; the others are traffic that netflow does not follow.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        (self as u32) <= Lost::FlowMapFull as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Lost;

    #[test]
    fn all_is_in_order_and_complete() {
        for (index, lost) in Lost::ALL.iter().enumerate() {
            assert_eq!(*lost as usize, index);
        }
    }
}
