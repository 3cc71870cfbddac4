//! One tuple at one interface in one direction, as the tc programs count it.

use super::{Time, Tuple};
use serde::{Deserialize, Serialize};

/// Direction at an interface, as tc names it: `Ingress` = received by this network namespace through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received through the interface.
    Ingress,
    /// Sent through the interface.
    Egress,
}

/// OR of the TCP flags seen, bits as in the header (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN was seen.
    pub fn fin(self) -> bool {
        self.0 & 1 != 0
    }
    /// SYN was seen.
    pub fn syn(self) -> bool {
        self.0 & 2 != 0
    }
    /// RST was seen.
    pub fn rst(self) -> bool {
        self.0 & 4 != 0
    }
    /// ACK was seen.
    pub fn ack(self) -> bool {
        self.0 & 16 != 0
    }
}

/// Where a flow entry was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// The packet's tuple as it stood at this place.
    pub tuple: Tuple,
    /// Interface, in the node's network namespace.
    pub ifindex: u32,
    /// Direction at the interface.
    pub dir: Direction,
    /// Outermost VLAN id, 0 for none.
    #[serde(default)]
    pub vlan: u16,
    /// 0 = outer packet, 1 = carried inside a tunnel.
    #[serde(default)]
    pub depth: u8,
}

/// Counters of a flow entry since its first packet. All TCP-only fields are 0/None for other protocols.
/// A new connection that reuses the tuple starts a new entry (the old one arrives as [`super::record::Event::FlowEnd`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowStats {
    /// Packets (GSO/GRO aggregates count their segments).
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
    /// First packet.
    pub first: Time,
    /// Latest packet (resolution: a kernel tick).
    pub last: Time,
    /// OR of all TCP flags.
    #[serde(default)]
    pub flags: TcpFlags,
    /// First SYN (without ACK).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn: Option<Time>,
    /// First SYN-ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_ack: Option<Time>,
    /// First RST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst: Option<Time>,
    /// First FIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fin: Option<Time>,
    /// First segment with payload (TCP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Time>,
    /// SYN or SYN-ACK packets after the first one with the same sequence number.
    #[serde(default)]
    pub syn_retrans: u32,
    /// Segments with payload that ended at or before the highest sequence number already seen here.
    #[serde(default)]
    pub retrans: u32,
    /// First and latest such segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrans_first: Option<Time>,
    /// Latest such segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrans_last: Option<Time>,
    /// Biggest IP packet of such a segment, bytes (per segment where aggregated).
    #[serde(default)]
    pub retrans_max: u16,
    /// Biggest IP packet, bytes, per segment where GSO/GRO aggregated several.
    #[serde(default)]
    pub max_packet: u16,
    /// Initial sequence number of the SYN or SYN-ACK seen.
    #[serde(default)]
    pub isn: u32,
    /// Highest end of sequence sent (seq + payload), valid if `data` is set.
    #[serde(default)]
    pub seq_end: u32,
    /// Highest acknowledgement number sent in this direction, valid if the ACK flag was seen.
    #[serde(default)]
    pub ack: u32,
    /// MSS option of the SYN/SYN-ACK, 0 if none.
    #[serde(default)]
    pub mss: u16,
    /// TTL/hop limit of the latest packet.
    #[serde(default)]
    pub ttl: u8,
    /// VNI or other tunnel id, for `depth` 1.
    #[serde(default)]
    pub tunnel_id: u32,
}

/// An entry of the flow map as one sweep found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSnapshot {
    /// Place and tuple.
    pub key: FlowKey,
    /// Counters.
    pub stats: FlowStats,
}
