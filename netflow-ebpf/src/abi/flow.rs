//! The value of the flow map.

use super::plain::plain;

/// Counters of a flow entry since its first packet. What every packet of a known flow touches stands in the first 64 bytes.
///
/// Times are `CLOCK_MONOTONIC` nanoseconds, 0 = did not happen; that of the latest packet is told in kernel ticks, which are
/// much cheaper to read: see [`FlowValue::last`]. Adds are plain, not atomic: two CPUs working on one flow at the same moment may
/// lose a packet from the count, never more.
///
/// When a SYN with another initial sequence number reuses the tuple, the entry starts anew. The old value is sent as
/// [`super::FlowEndRecord`] if it changed within [`FLOW_END_WITHIN`]; otherwise the last sweep has seen it as it was, and a sweep that
/// finds another `first` knows that it was final. User space sweeps at least twice in that time, and deletes entries (idle, or closed
/// for a while).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue {
    /// Packets; a GSO/GRO aggregate counts its segments.
    pub packets: u64,
    /// Bytes from the IP header on; for an aggregate as the wire carries them (headers of each segment).
    pub bytes: u64,
    /// The low half of `jiffies` at `first`.
    pub first_tick: u32,
    /// The low half of `jiffies` at the latest packet.
    pub last_tick: u32,
    /// First segment with payload (TCP).
    pub data: u64,
    /// Highest end of sequence sent (seq + payload), valid if `data` is set.
    pub seq_end: u32,
    /// Highest acknowledgement number sent, valid if the ACK flag was seen.
    pub ack: u32,
    /// Biggest IP packet, bytes; per segment where aggregated.
    pub max_packet: u16,
    /// MSS option of the SYN or SYN-ACK, 0 if none.
    pub mss: u16,
    /// OR of the TCP flags seen, as in the header.
    pub flags: u8,
    /// TTL or hop limit of the latest packet.
    pub ttl: u8,
    /// Biggest IP packet of a retransmitted data segment.
    pub retrans_max: u16,
    /// Segments with payload that ended at or before `seq_end` when they passed.
    pub retrans: u32,
    /// SYNs or SYN-ACKs after the first one, with the same sequence number.
    pub syn_retrans: u32,

    /// First packet.
    pub first: u64,
    /// First SYN without ACK.
    pub syn: u64,
    /// First SYN-ACK.
    pub syn_ack: u64,
    /// First RST.
    pub rst: u64,
    /// First FIN.
    pub fin: u64,
    /// First retransmitted data segment.
    pub retrans_first: u64,
    /// Latest retransmitted data segment.
    pub retrans_last: u64,
    /// Initial sequence number of the SYN or SYN-ACK seen.
    pub isn: u32,
    /// VNI or other tunnel id, for `depth` 1.
    pub tunnel_id: u32,
}

impl FlowValue {
    /// When the latest packet came, to the tick, where a tick is `tick_ns` long ([`super::Layout::tick_ns`]).
    #[must_use]
    pub fn last(&self, tick_ns: u32) -> u64 {
        let ticks = self.last_tick.wrapping_sub(self.first_tick);
        self.first + u64::from(ticks) * u64::from(tick_ns)
    }
}

/// Nanoseconds; see [`FlowValue`].
pub const FLOW_END_WITHIN: u64 = 3_000_000_000;

plain!(FlowValue = 4 * 8 + 2 * 4 + 2 * 2 + 2 + 2 + 2 * 4 + 7 * 8 + 2 * 4);
const _: () = assert!(core::mem::offset_of!(FlowValue, first) <= 64);

#[cfg(test)]
mod tests {
    use super::super::Plain as _;
    use super::*;

    #[test]
    fn ticks_wrap() {
        let value = FlowValue {
            first: 5_000,
            first_tick: u32::MAX - 1,
            last_tick: 2,
            ..FlowValue::zero()
        };
        assert_eq!(value.last(4_000_000), 5_000 + 4 * 4_000_000);
    }
}
