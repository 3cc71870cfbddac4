//! What a cluster is made of before any of it exists: names, addresses, places.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Everything that a cluster keeps is here while it is up, and nothing is when it is down.
pub const DIR: &str = "/var/lib/netflow-cluster";

/// Namespaces and cgroups of a cluster begin with this, and nobody else's do.
pub const PREFIX: &str = "nfk-";

/// Where the control plane runs: its network namespace and its cgroup.
pub const CONTROL: &str = "nfk-cp";

/// Where the control plane serves, and its nodes' gateway.
pub const CONTROL_IP: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// Addresses of Pods.
pub const PODS: &str = "10.244.0.0/16";

/// Addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";

/// The Service `kubernetes`: the first address of [`SERVICES`].
pub const KUBERNETES_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The name server's Service, as tests/cluster/coredns.yaml has it.
pub const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// As many nodes as the addresses have room for.
pub const MOST_NODES: u8 = 9;

/// What `up` was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u8,
    /// How Services are translated.
    pub proxy: Proxy,
    /// How Pods of two nodes reach each other.
    pub network: Network,
}

/// Mode of kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// Chains of iptables
    Iptables,
    /// Maps of nftables
    Nftables,
}

/// The network between the nodes' Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A route to each node's Pods
    Routed,
    /// A VXLAN tunnel between the nodes
    Vxlan,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proxy::Iptables => "iptables",
            Proxy::Nftables => "nftables",
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::Routed => "routed",
            Network::Vxlan => "VXLAN",
        })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            nodes,
            proxy,
            network,
        } = self;
        match nodes {
            0 => write!(f, "control plane only"),
            1 => write!(f, "1 node, {proxy}, {network}"),
            _ => write!(f, "{nodes} nodes, {proxy}, {network}"),
        }
    }
}

impl Settings {
    /// The nodes.
    pub fn nodes(self) -> impl Iterator<Item = Node> {
        (1..=self.nodes).map(Node)
    }
}

/// A node, by its number from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(u8);

impl Node {
    /// The node of this name.
    pub fn named(name: &str) -> Option<Node> {
        (1..=MOST_NODES).map(Node).find(|node| node.name() == name)
    }

    /// Its name in Kubernetes, and its hostname.
    pub fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// Its network namespace and its cgroup.
    pub fn place(self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    /// Its address.
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 0, 10 + self.0)
    }

    /// Addresses of its Pods.
    pub fn pods(self) -> String {
        format!("{}/24", self.first_of_pods())
    }

    /// The address that stands for all of its Pods: the tunnel's own.
    pub fn first_of_pods(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.0, 0)
    }

    /// The link-layer address of an interface that others must know: `02:` makes it one of ours to give.
    pub fn mac(self, kind: u8) -> String {
        format!("02:00:00:00:{kind:02x}:{:02x}", self.0)
    }

    /// What is its own on the disk.
    pub fn dir(self) -> PathBuf {
        dir().join(self.name())
    }
}

/// [`DIR`].
pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// Where components write their logs.
pub fn logs() -> PathBuf {
    dir().join("log")
}

/// The administrator's kubeconfig.
pub fn kubeconfig() -> PathBuf {
    super::pki::kubeconfig("admin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_apart_in_all_that_is_theirs() {
        let settings = Settings {
            nodes: MOST_NODES,
            proxy: Proxy::Iptables,
            network: Network::Routed,
        };
        let all: Vec<Node> = settings.nodes().collect();
        assert_eq!(all.len(), usize::from(MOST_NODES));
        for node in &all {
            assert_eq!(Node::named(&node.name()), Some(*node));
            assert!(node.place().starts_with(PREFIX) && node.place() != CONTROL);
            assert_ne!(node.ip(), CONTROL_IP);
        }
        assert_eq!(Node::named("n0"), None);
        assert_eq!(Node::named("cp"), None);
    }
}
