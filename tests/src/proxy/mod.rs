//! Service proxy rules as kube-proxy writes them, rendered from the lab's objects.

pub mod iptables;
pub mod ipvs;
pub mod nftables;

use crate::manifests::{Objects, family, port_number};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How Services are proxied on the nodes of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Mode {
    /// kube-proxy's iptables mode through the legacy back end.
    #[value(name = "iptables", alias = "iptables-legacy")]
    IptablesLegacy,
    /// kube-proxy's iptables mode through the nft back end.
    IptablesNft,
    /// kube-proxy's nftables mode.
    Nftables,
    /// kube-proxy's IPVS mode, where the kernel has IPVS.
    Ipvs,
    /// The same, and conntrack does not follow what IPVS does (`net.ipv4.vs.conntrack=0`), so that nothing is masqueraded.
    IpvsUntracked,
}

impl Mode {
    /// Those of every kernel.
    pub const EVERYWHERE: [Mode; 3] = [Mode::IptablesLegacy, Mode::IptablesNft, Mode::Nftables];
    /// Those of kernels that have IPVS.
    pub const IPVS: [Mode; 2] = [Mode::Ipvs, Mode::IpvsUntracked];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Mode::IptablesLegacy => "iptables-legacy",
            Mode::IptablesNft => "iptables-nft",
            Mode::Nftables => "nftables",
            Mode::Ipvs => "ipvs",
            Mode::IpvsUntracked => "ipvs-untracked",
        }
    }

    /// From the name in the table.
    pub fn parse(name: &str) -> Option<Mode> {
        let mut all = Mode::EVERYWHERE.into_iter().chain(Mode::IPVS);
        all.find(|m| m.name() == name)
    }

    /// Whether it needs IPVS.
    pub fn is_ipvs(self) -> bool {
        Mode::IPVS.contains(&self)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One port of a Service with its usable endpoints, as the proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace.
    pub namespace: String,
    /// Service.
    pub service: String,
    /// Port name, may be empty.
    pub port_name: String,
    /// `tcp` or `udp`.
    pub proto: String,
    /// Cluster IP and port.
    pub vip: SocketAddr,
    /// Endpoints that get traffic.
    pub endpoints: Vec<SocketAddr>,
    /// Those of them on the proxy's own node.
    pub local: Vec<SocketAddr>,
    /// Port on every node.
    pub node_port: Option<u16>,
    /// Traffic from outside goes to the node's own endpoints only.
    pub external_local: bool,
}

/// How a proxy turns traffic away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It answers with ICMP.
    Reject,
    /// It says nothing: a load balancer will find another node.
    Drop,
}

impl ServicePort {
    /// What becomes of traffic from outside that no endpoint takes, and why, where that is so.
    pub fn turned_away(&self) -> Option<(Turned, &'static str)> {
        if self.endpoints.is_empty() {
            Some((Turned::Reject, "has no endpoints"))
        } else if self.external_local && self.local.is_empty() {
            Some((Turned::Drop, "has no local endpoints"))
        } else {
            None
        }
    }

    /// `namespace/name:port`, or `namespace/name` for a port without name.
    pub fn full_name(&self) -> String {
        let ServicePort {
            namespace,
            service,
            port_name,
            ..
        } = self;
        if port_name.is_empty() {
            format!("{namespace}/{service}")
        } else {
            format!("{namespace}/{service}:{port_name}")
        }
    }
}

/// All Service ports with a cluster IP of one family, as the proxier of that family on `node` knows them.
pub fn service_ports(objects: &Objects, v6: bool, node: &str) -> Vec<ServicePort> {
    objects
        .services
        .iter()
        .flat_map(|s| ports_of(s, &objects.slices, v6, node))
        .collect()
}

fn ports_of(service: &Service, slices: &[EndpointSlice], v6: bool, node: &str) -> Vec<ServicePort> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let vips = spec.cluster_ips.iter().flatten();
    let vip = vips
        .filter_map(|ip| ip.parse().ok())
        .find(|ip: &IpAddr| ip.is_ipv6() == v6);
    let Some(vip) = vip else { return Vec::new() };
    let own = |slice: &&EndpointSlice| {
        slice.address_type == family(vip)
            && slice.metadata.namespace == service.metadata.namespace
            && slice
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("kubernetes.io/service-name"))
                == Some(&name)
    };
    spec.ports
        .iter()
        .flatten()
        .map(|port| {
            let port_name = port.name.clone().unwrap_or_default();
            let slices = slices.iter().filter(own);
            let all: Vec<Candidate> = slices.flat_map(|s| candidates(s, &port_name)).collect();
            let local = all.iter().filter(|c| c.node.as_deref() == Some(node));
            ServicePort {
                namespace: service.metadata.namespace.clone().unwrap_or_default(),
                service: name.clone(),
                proto: port
                    .protocol
                    .as_deref()
                    .unwrap_or("TCP")
                    .to_ascii_lowercase(),
                vip: SocketAddr::new(vip, port_number(port.port)),
                local: usable(local),
                endpoints: usable(all.iter()),
                node_port: port.node_port.map(port_number),
                external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
                port_name,
            }
        })
        .collect()
}

/// An endpoint of one port.
struct Candidate {
    to: SocketAddr,
    node: Option<String>,
    ready: bool,
    /// It still serves while it shuts down.
    drains: bool,
}

fn candidates(slice: &EndpointSlice, port_name: &str) -> Vec<Candidate> {
    let mut ports = slice.ports.iter().flatten();
    let Some(port) = ports
        .find(|p| p.name.as_deref().unwrap_or_default() == port_name)
        .and_then(|p| p.port)
    else {
        return Vec::new();
    };
    let endpoints = slice.endpoints.iter();
    endpoints
        .filter_map(|e| {
            let ip = e.addresses.first()?.parse().ok()?;
            let conditions = e.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let drains =
                conditions.serving.unwrap_or(ready) && conditions.terminating == Some(true);
            Some(Candidate {
                to: SocketAddr::new(ip, port_number(port)),
                node: e.node_name.clone(),
                ready,
                drains,
            })
        })
        .collect()
}

/// The ready ones; where there are none, those that still serve while they shut down
/// (`CategorizeEndpoints`, kubernetes/pkg/proxy/topology.go).
fn usable<'a>(all: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<SocketAddr> {
    let ready = all.clone().filter(|c| c.ready);
    let ready: Vec<SocketAddr> = ready.map(|c| c.to).collect();
    if ready.is_empty() {
        all.filter(|c| c.drains).map(|c| c.to).collect()
    } else {
        ready
    }
}

/// Base32 (RFC 4648) of the SHA-256 of `text`, cut to `len` characters: what kube-proxy makes chain names of.
fn hash(text: &str, len: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(text.as_bytes());
    let bit = |i: usize| digest[i / 8] >> (7 - i % 8) & 1;
    (0..len)
        .map(|c| (0..5).fold(0, |n, b| n << 1 | bit(5 * c + b)))
        .map(|n| char::from(ALPHABET[usize::from(n)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_kube_proxys() {
        // nat/KUBE-SVC- of default/kubernetes:https is the same in every cluster.
        assert_eq!(hash("default/kubernetes:httpstcp", 16), "NPX46M4PTMTKRN6Y");
        assert_eq!(hash("ns1/svc1/tcp/p80", 8), "ULMVA6XW");
    }
}
