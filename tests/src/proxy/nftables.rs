//! kube-proxy's nftables form (pkg/proxy/nftables): table `ip kube-proxy`, in the older layout (a chain per endpoint) or
//! the newer one (a dnat map per Service and a set of hairpin connections).

use super::{ServicePort, hash};
use crate::lab::cidr::Cidr;
use std::net::SocketAddr;

/// Which layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `vmap` to a chain per endpoint.
    EndpointChains,
    /// `dnat ip to numgen … map`.
    DnatMaps,
}

/// Table `ip kube-proxy` in nft syntax.
pub fn render(
    ports: &[ServicePort],
    pod_cidr: Cidr,
    service_cidr: Cidr,
    node_ip: std::net::IpAddr,
    layout: Layout,
) -> String {
    let served: Vec<&ServicePort> = ports.iter().filter(|p| !p.endpoints.is_empty()).collect();
    let rejected: Vec<&ServicePort> = ports.iter().filter(|p| p.endpoints.is_empty()).collect();
    let chains: String = served
        .iter()
        .map(|p| service(p, pod_cidr, layout))
        .collect();
    let key = |p: &ServicePort| format!("{} . {} . {}", p.vip.ip(), p.proto, p.vip.port());
    let cluster_ips = ports.iter().map(|p| p.vip.ip().to_string());
    let service_ips = served
        .iter()
        .map(|p| format!("{} : goto {}", key(p), chain(p)));
    let no_endpoints = rejected.iter().map(|p| {
        format!(
            "{} comment \"{}\" : goto reject-chain",
            key(p),
            p.full_name()
        )
    });
    let (hairpin_set, masquerading) = match layout {
        Layout::EndpointChains => (String::new(), String::new()),
        Layout::DnatMaps => (
            format!(
                "  set hairpin-connections {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; comment \"service hairpin connections\"; {} }}\n",
                elements(served.iter().flat_map(|p| hairpins(p)))
            ),
            "    ct status & dnat == dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random\n".to_owned(),
        ),
    };
    let cluster_masquerade = match layout {
        Layout::EndpointChains => String::new(),
        Layout::DnatMaps => format!(
            "    ip daddr @cluster-ips ip saddr != {pod_cidr} meta mark set meta mark | 0x4000 comment \"masquerade clusterIP traffic from outside cluster\"\n"
        ),
    };
    format!(
        r#"table ip kube-proxy {{
  comment "rules for kube-proxy"
{hairpin_set}  set cluster-ips {{ type ipv4_addr; comment "Active ClusterIPs"; {cluster_ips} }}
  set nodeport-ips {{ type ipv4_addr; comment "IPs that accept NodePort traffic"; elements = {{ {node_ip} }} }}
  map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; comment "destinations that are subject to LoadBalancerSourceRanges"; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to service nodeports with no endpoints"; }}
  map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to services with no endpoints"; {no_endpoints} }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; comment "NodePort traffic"; }}
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"; {service_ips} }}
  chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
  chain masquerading {{
{masquerading}    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }}
  chain reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }}
{chains}  chain services {{
{cluster_masquerade}    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }}
  chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
  chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
  chain cluster-ips-check {{
    ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    ip daddr {{ {service_cidr} }} drop comment "Drop traffic to unallocated ClusterIPs"
  }}
  chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
  chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}
  chain filter-input {{
    type filter hook input priority 0;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }}
  chain filter-forward {{
    type filter hook forward priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-output {{
    type filter hook output priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
}}
"#,
        cluster_ips = elements(cluster_ips.collect::<std::collections::BTreeSet<_>>()),
        no_endpoints = elements(no_endpoints),
        service_ips = elements(service_ips),
    )
}

/// `elements = { … };`, or nothing: nft takes no empty list.
fn elements(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    if items.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }};", items.join(", "))
    }
}

fn base(port: &ServicePort) -> String {
    let ServicePort {
        namespace,
        service,
        port_name,
        proto,
        ..
    } = port;
    format!("{namespace}/{service}/{proto}/{port_name}")
}

fn chain(port: &ServicePort) -> String {
    let base = base(port);
    format!("service-{}-{base}", hash(&base, 8))
}

fn endpoint_chain(port: &ServicePort, endpoint: SocketAddr) -> String {
    let base = format!("{}__{}/{}", base(port), endpoint.ip(), endpoint.port());
    format!("endpoint-{}-{base}", hash(&base, 8))
}

fn hairpins(port: &ServicePort) -> Vec<String> {
    let row = |e: &SocketAddr| format!("{0} . {0} . {1} . {2}", e.ip(), port.proto, e.port());
    port.endpoints.iter().map(row).collect()
}

fn service(port: &ServicePort, pod_cidr: Cidr, layout: Layout) -> String {
    let (name, vip, proto, count) = (
        chain(port),
        port.vip.ip(),
        &port.proto,
        port.endpoints.len(),
    );
    let numbered = |f: &dyn Fn(SocketAddr) -> String| {
        let rows = port
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, e)| format!("{i} : {}", f(*e)));
        rows.collect::<Vec<_>>().join(", ")
    };
    match layout {
        Layout::EndpointChains => {
            let chains: Vec<String> = port
                .endpoints
                .iter()
                .map(|e| {
                    let (chain, ip) = (endpoint_chain(port, *e), e.ip());
                    format!("  chain {chain} {{\n    ip saddr {ip} jump mark-for-masquerade\n    meta l4proto {proto} dnat to {e}\n  }}\n")
                })
                .collect();
            let targets = numbered(&|e| format!("goto {}", endpoint_chain(port, e)));
            chains.concat()
                + &format!(
                    "  chain {name} {{\n    ip daddr {vip} ip saddr != {pod_cidr} jump mark-for-masquerade\n    numgen random mod {count} vmap {{ {targets} }}\n  }}\n"
                )
        }
        Layout::DnatMaps => {
            let targets = numbered(&|e| format!("{} . {}", e.ip(), e.port()));
            format!(
                "  chain {name} {{\n    meta l4proto {proto} dnat ip to numgen random mod {count} map {{ {targets} }}\n  }}\n"
            )
        }
    }
}
