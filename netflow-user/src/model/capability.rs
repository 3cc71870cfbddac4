//! What a node can see, on which tier, and what is lost by it.

use serde::{Deserialize, Serialize};

/// The rows of the tier table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Counters and TCP state at each interface.
    Flow,
    /// Both tuples of each new connection.
    Nat,
    /// End of conntrack entries, table full, clash.
    CtEvents,
    /// Dropped packets with reason and place.
    Drop,
    /// REJECT answers.
    Reject,
    /// Fragmentation needed, PMTU learned or ignored.
    Mtu,
    /// Retransmissions and resets of local sockets.
    Tcp,
    /// Neighbour and route failures.
    Neighbor,
    /// IPVS decisions.
    Ipvs,
}

impl Capability {
    /// All, in the order of the table.
    pub const ALL: [Capability; 9] = [
        Capability::Flow,
        Capability::Nat,
        Capability::CtEvents,
        Capability::Drop,
        Capability::Reject,
        Capability::Mtu,
        Capability::Tcp,
        Capability::Neighbor,
        Capability::Ipvs,
    ];

    /// As in JSON and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Flow => "flow",
            Capability::Nat => "nat",
            Capability::CtEvents => "ct-events",
            Capability::Drop => "drop",
            Capability::Reject => "reject",
            Capability::Mtu => "mtu",
            Capability::Tcp => "tcp",
            Capability::Neighbor => "neighbor",
            Capability::Ipvs => "ipvs",
        }
    }
}

/// The tier on which a capability runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStatus {
    /// Which capability.
    pub capability: Capability,
    /// Name of the tier that holds (`tcx`, `clsact`, `tp_btf`, `raw_tp`, `net_dev_start_xmit`, `ctnetlink`), `None` = none.
    pub tier: Option<String>,
    /// Whether it is the best tier of the table.
    pub best: bool,
    /// Why no better tier holds, a sentence each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What cannot be seen because of it; empty on the best tier.
    #[serde(default)]
    pub lost: String,
}
