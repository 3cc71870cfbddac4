//! What the kernel's conntrack says of a connection.

use super::{Time, Tuple};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `enum ip_conntrack_status` as a bit set (`include/uapi/linux/netfilter/nf_conntrack_common.h`, v6.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CtStatus(pub u32);

impl CtStatus {
    /// A reply was seen (`IPS_SEEN_REPLY`).
    pub fn seen_reply(self) -> bool {
        self.0 & 1 << 1 != 0
    }
    /// `IPS_ASSURED`.
    pub fn assured(self) -> bool {
        self.0 & 1 << 2 != 0
    }
    /// The first packet left the box and the entry is in the table (`IPS_CONFIRMED`).
    pub fn confirmed(self) -> bool {
        self.0 & 1 << 3 != 0
    }
    /// A source NAT applies (`IPS_SRC_NAT`).
    pub fn src_nat(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    /// A destination NAT applies (`IPS_DST_NAT`). IPVS does not set it: compare the tuples.
    pub fn dst_nat(self) -> bool {
        self.0 & 1 << 5 != 0
    }
    /// The POSTROUTING decision was taken (`IPS_SRC_NAT_DONE`).
    pub fn src_nat_done(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// The PREROUTING/OUTPUT decision was taken (`IPS_DST_NAT_DONE`).
    pub fn dst_nat_done(self) -> bool {
        self.0 & 1 << 8 != 0
    }
    /// A flowtable forwards its packets (`IPS_OFFLOAD`).
    pub fn offloaded(self) -> bool {
        self.0 & 1 << 14 != 0
    }
    /// Hardware forwards its packets (`IPS_HW_OFFLOAD`).
    pub fn offloaded_to_hardware(self) -> bool {
        self.0 & 1 << 15 != 0
    }
}

/// Both tuples of a conntrack entry. `reply` is the tuple of a packet coming back, so with DNAT and SNAT
/// `orig` = client → VIP and `reply` = backend → SNAT address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CtTuples {
    /// Tuple of the first packet as it came in.
    pub orig: Tuple,
    /// Tuple of a reply before it is translated back.
    pub reply: Tuple,
    /// Status bits.
    pub status: CtStatus,
    /// Conntrack zone.
    #[serde(default)]
    pub zone: u16,
    /// Conntrack mark.
    #[serde(default)]
    pub mark: u32,
    /// `enum ip_conntrack_info` of the packet that showed the entry (low three bits of `skb->_nfct`), where a
    /// packet did.
    #[serde(default)]
    pub info: u8,
}

impl CtTuples {
    /// What becomes of packets that something besides conntrack sends to another destination (IPVS), as conntrack would write it.
    pub fn sent_to(orig: Tuple, to: SocketAddr) -> CtTuples {
        let translated = Tuple {
            dst: to.ip(),
            dport: to.port(),
            ..orig
        };
        CtTuples {
            orig,
            reply: translated.inverse(),
            status: CtStatus::default(),
            zone: 0,
            mark: 0,
            info: 0,
        }
    }

    /// The original packet after DNAT and SNAT, as the backend gets it.
    pub fn translated(&self) -> Tuple {
        self.reply.inverse()
    }
    /// Whether the destination was rewritten (any mechanism that keeps conntrack, IPVS included).
    pub fn is_dnat(&self) -> bool {
        (self.orig.dst, self.orig.dport) != (self.reply.src, self.reply.sport)
    }
    /// Whether the source was rewritten.
    pub fn is_snat(&self) -> bool {
        (self.orig.src, self.orig.sport) != (self.reply.dst, self.reply.dport)
    }
}

/// One row of the conntrack table, read by netlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtEntry {
    /// Tuples, status, zone, mark.
    pub tuples: CtTuples,
    /// The kernel's id of the entry (`CTA_ID`).
    pub id: u32,
    /// Seconds until it expires.
    pub timeout_secs: u32,
    /// TCP conntrack state (`enum tcp_conntrack`), where TCP: 1 = `SYN_SENT`, 2 = `SYN_RECV`, 3 = `ESTABLISHED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_state: Option<u8>,
}

/// The table as a whole in one network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CtTable {
    /// When it was read.
    pub time: Time,
    /// When the entries were, where that was before: listing a big table takes long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Time>,
    /// Entries that touch an address asked about (VIPs, endpoints, addresses of the Service's Pods).
    pub entries: Vec<CtEntry>,
    /// Entries in the table, all of them.
    pub count: u64,
    /// `nf_conntrack_max`.
    pub max: u64,
    /// Sum over CPUs of `ctnetlink` statistics by name (`insert_failed`, `drop`, `early_drop`, `clash_resolve`, …).
    pub stats: std::collections::BTreeMap<String, u64>,
}
