//! NetworkPolicy as a node's network plugin enforces it: on FORWARD, after DNAT, for the Pods placed on the node.

use crate::manifests::{Objects, pod_ips, port_number};
use crate::proxy::nftables::family as nft_family;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Which way traffic goes, seen from the Pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the Pod.
    Ingress,
    /// From the Pod.
    Egress,
}

/// What is admitted to or from one Pod; everything else is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// `namespace/name` of the Pod.
    pub pod: String,
    /// Its address.
    pub ip: IpAddr,
    /// Direction.
    pub way: Way,
    /// Admitted peers and ports.
    pub admitted: Vec<Admitted>,
}

/// A peer network (`None`: any) and protocol with port (`None`: any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Address or network, in rule syntax.
    pub peer: Option<String>,
    /// Protocol in lower case and first and last port.
    pub port: Option<(String, Option<(u16, u16)>)>,
}

/// Fences of the Pods on `node`.
pub fn fences(objects: &Objects, node: &str) -> Vec<Fence> {
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
    let mut fences = Vec::new();
    for pod in objects.pods.iter().filter(here) {
        for way in [Way::Ingress, Way::Egress] {
            for ip in pod_ips(pod) {
                fences.extend(fence(objects, pod, ip, way));
            }
        }
    }
    fences
}

fn fence(objects: &Objects, pod: &Pod, ip: IpAddr, way: Way) -> Option<Fence> {
    let policies: Vec<&NetworkPolicy> = objects
        .policies
        .iter()
        .filter(|p| selects(p, pod) && restricts(p, way))
        .collect();
    if policies.is_empty() {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(Fence {
        pod: format!(
            "{namespace}/{}",
            pod.metadata.name.as_deref().unwrap_or_default()
        ),
        ip,
        way,
        admitted: policies
            .iter()
            .flat_map(|p| admitted(objects, namespace, p, way))
            .filter(|a| a.peer.as_ref().is_none_or(|p| is_v6(p) == ip.is_ipv6()))
            .collect(),
    })
}

/// Whether an address or network in rule syntax is an IPv6 one.
fn is_v6(net: &str) -> bool {
    net.contains(':')
}

fn restricts(policy: &NetworkPolicy, way: Way) -> bool {
    let Some(spec) = &policy.spec else {
        return false;
    };
    match (way, &spec.policy_types) {
        (Way::Ingress, Some(types)) => types.iter().any(|t| t == "Ingress"),
        (Way::Egress, Some(types)) => types.iter().any(|t| t == "Egress"),
        (Way::Ingress, None) => true,
        (Way::Egress, None) => spec.egress.is_some(),
    }
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
    policy.metadata.namespace == pod.metadata.namespace
        && matches(selector, pod.metadata.labels.as_ref())
}

fn admitted(objects: &Objects, namespace: &str, policy: &NetworkPolicy, way: Way) -> Vec<Admitted> {
    let rules: Vec<_> = policy
        .spec
        .iter()
        .flat_map(|spec| match way {
            Way::Ingress => spec
                .ingress
                .iter()
                .flatten()
                .map(|r| {
                    (
                        r.from.clone().unwrap_or_default(),
                        r.ports.clone().unwrap_or_default(),
                    )
                })
                .collect::<Vec<_>>(),
            Way::Egress => spec
                .egress
                .iter()
                .flatten()
                .map(|r| {
                    (
                        r.to.clone().unwrap_or_default(),
                        r.ports.clone().unwrap_or_default(),
                    )
                })
                .collect(),
        })
        .collect();
    let mut all = Vec::new();
    for (peers, ports) in rules {
        let nets: Vec<Option<String>> = if peers.is_empty() {
            vec![None]
        } else {
            peers
                .iter()
                .flat_map(|p| networks(objects, namespace, p))
                .map(Some)
                .collect()
        };
        let ports: Vec<_> = if ports.is_empty() {
            vec![None]
        } else {
            ports.iter().map(|p| Some(port(p))).collect()
        };
        for peer in &nets {
            all.extend(ports.iter().map(|port| Admitted {
                peer: peer.clone(),
                port: port.clone(),
            }));
        }
    }
    all
}

fn networks(objects: &Objects, namespace: &str, peer: &NetworkPolicyPeer) -> Vec<String> {
    if let Some(block) = &peer.ip_block {
        return vec![block.cidr.clone()];
    }
    let in_namespace = |name: &str| match &peer.namespace_selector {
        None => name == namespace,
        Some(selector) => objects.namespaces.iter().any(|n| {
            n.metadata.name.as_deref() == Some(name)
                && matches(Some(selector), n.metadata.labels.as_ref())
        }),
    };
    objects
        .pods
        .iter()
        .filter(|p| in_namespace(p.metadata.namespace.as_deref().unwrap_or_default()))
        .filter(|p| matches(peer.pod_selector.as_ref(), p.metadata.labels.as_ref()))
        .flat_map(pod_ips)
        .map(|ip| ip.to_string())
        .collect()
}

fn port(port: &NetworkPolicyPort) -> (String, Option<(u16, u16)>) {
    let proto = port
        .protocol
        .as_deref()
        .unwrap_or("TCP")
        .to_ascii_lowercase();
    let range = match &port.port {
        Some(IntOrString::Int(n)) => {
            Some((port_number(*n), port_number(port.end_port.unwrap_or(*n))))
        }
        _ => None,
    };
    (proto, range)
}

fn matches(selector: Option<&LabelSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    let label = |key: &str| labels.and_then(|l| l.get(key));
    selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| label(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = label(&e.key);
            let listed = value.is_some_and(|v| e.values.iter().flatten().any(|x| x == v));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// Neighbour solicitation and advertisement (RFC 4861), which between Pods of one bridge pass the rules as well: no
/// plugin denies them.
const NEIGHBOR_DISCOVERY: [u8; 2] = [135, 136];

/// iptables (or ip6tables) chains and rules; `word` makes the chain names the plugin's own. The jumps go to the top of
/// FORWARD.
pub fn iptables(fences: &[Fence], word: &str, v6: bool) -> (Vec<String>, Vec<String>) {
    let (mut chains, mut jumps, mut rules) = (Vec::new(), Vec::new(), Vec::new());
    let own = fences.iter().filter(|f| f.ip.is_ipv6() == v6);
    for (i, fence) in own.enumerate() {
        let chain = format!("{}-POD-{i}", word.to_uppercase());
        let (own, peer) = match fence.way {
            Way::Ingress => ("-d", "-s"),
            Way::Egress => ("-s", "-d"),
        };
        jumps.push(format!("-A FORWARD {own} {} -j {chain}", fence.ip));
        rules.push(format!(
            "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
        ));
        if v6 {
            rules.extend(NEIGHBOR_DISCOVERY.map(|kind| {
                format!("-A {chain} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN")
            }));
        }
        for admitted in &fence.admitted {
            let from = admitted
                .peer
                .as_ref()
                .map_or(String::new(), |p| format!(" {peer} {p}"));
            let port = match &admitted.port {
                None => String::new(),
                Some((proto, None)) => format!(" -p {proto}"),
                Some((proto, Some((a, b)))) => format!(" -p {proto} -m {proto} --dport {a}:{b}"),
            };
            rules.push(format!("-A {chain}{from}{port} -j RETURN"));
        }
        rules.push(format!("-A {chain} -j DROP"));
        chains.push(chain);
    }
    jumps.extend(rules);
    (chains, jumps)
}

/// An nftables table of the plugin's own.
pub fn nftables(fences: &[Fence], word: &str) -> String {
    if fences.is_empty() {
        return String::new();
    }
    let (mut chains, mut jumps) = (Vec::new(), Vec::new());
    for (i, fence) in fences.iter().enumerate() {
        let (own, peer) = match fence.way {
            Way::Ingress => ("daddr", "saddr"),
            Way::Egress => ("saddr", "daddr"),
        };
        let ip = nft_family(fence.ip);
        jumps.push(format!("    {ip} {own} {} jump pod-{i}", fence.ip));
        chains.push(format!(
            "  chain pod-{i} {{\n    ct state established,related return"
        ));
        if fence.ip.is_ipv6() {
            let [solicit, advert] = NEIGHBOR_DISCOVERY;
            chains.push(format!("    icmpv6 type {{ {solicit}, {advert} }} return"));
        }
        for admitted in &fence.admitted {
            let from = admitted
                .peer
                .as_ref()
                .map_or(String::new(), |p| format!("{ip} {peer} {p} "));
            let port = match &admitted.port {
                None => String::new(),
                Some((proto, None)) => format!("meta l4proto {proto} "),
                Some((proto, Some((a, b)))) if a == b => format!("{proto} dport {a} "),
                Some((proto, Some((a, b)))) => format!("{proto} dport {a}-{b} "),
            };
            chains.push(format!("    {from}{port}return"));
        }
        chains.push("    counter drop\n  }".to_owned());
    }
    let (chains, jumps) = (chains.join("\n"), jumps.join("\n"));
    format!(
        "table inet {word}-policy {{\n{chains}\n  chain forward {{\n    type filter hook forward priority -5;\n{jumps}\n  }}\n}}\n"
    )
}
