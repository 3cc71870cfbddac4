//! How the nodes are set, where that is not what kube-proxy and the network plugin expect.

/// Settings of both nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Ports of the Pods' bridge send a packet back where it came from (`hairpin_mode`).
    pub hairpin: bool,
    /// What crosses the bridge passes the rules of the IP layer (`bridge-nf-call-iptables`, `bridge-nf-call-ip6tables`).
    pub bridge_nf: bool,
    /// The proxy drops what conntrack calls INVALID, where its form has a rule for that.
    pub drops_invalid: bool,
    /// Whose connections to a Service get the node's address as their source.
    pub masquerade: Masquerade,
    /// Percent of the client node's conntrack table that lasting entries of others fill.
    pub conntrack_fill: u8,
}

/// Whose connections the proxy masquerades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Those from outside the Pods' network, and those of a Pod to itself.
    Usual,
    /// Those from outside only.
    NotHairpin,
    /// All (`--masquerade-all`), with source ports of this range.
    All(u16, u16),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hairpin: true,
            bridge_nf: true,
            drops_invalid: true,
            masquerade: Masquerade::Usual,
            conntrack_fill: 0,
        }
    }
}

impl Masquerade {
    /// A Pod that reaches itself is masqueraded.
    pub fn covers_hairpin(self) -> bool {
        !matches!(self, Masquerade::NotHairpin)
    }

    /// Everybody is.
    pub fn covers_all(self) -> bool {
        matches!(self, Masquerade::All(..))
    }

    /// The range of source ports, where there is one.
    pub fn ports(self) -> Option<(u16, u16)> {
        match self {
            Masquerade::All(low, high) => Some((low, high)),
            Masquerade::Usual | Masquerade::NotHairpin => None,
        }
    }
}
