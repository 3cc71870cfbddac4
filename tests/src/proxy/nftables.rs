//! kube-proxy's nftables form (pkg/proxy/nftables): table `ip kube-proxy` or `ip6 kube-proxy`, in the older layout (a chain per endpoint) or
//! the newer one (a dnat map per Service and a set of hairpin connections).

use super::{ServicePort, Turned, hash};
use crate::lab::cidr::Cidr;
use crate::settings::Masquerade;
use std::net::{IpAddr, SocketAddr};

/// Which layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `vmap` to a chain per endpoint.
    EndpointChains,
    /// `dnat ip to numgen … map`.
    DnatMaps,
}

/// nft's word for the family of an address.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

/// Table `ip kube-proxy` or `ip6 kube-proxy` in nft syntax.
pub fn render(
    ports: &[ServicePort],
    pod_cidr: Cidr,
    service_cidr: Cidr,
    node_ip: IpAddr,
    layout: Layout,
    masquerade: Masquerade,
) -> String {
    let ip = family(node_ip);
    let addr = if node_ip.is_ipv4() {
        "ipv4_addr"
    } else {
        "ipv6_addr"
    };
    let served: Vec<&ServicePort> = ports.iter().filter(|p| !p.endpoints.is_empty()).collect();
    let rejected: Vec<&ServicePort> = ports.iter().filter(|p| p.endpoints.is_empty()).collect();
    let chains: String = served
        .iter()
        .map(|p| service(p, pod_cidr, layout, masquerade))
        .collect();
    let key = |p: &ServicePort| format!("{} . {} . {}", p.vip.ip(), p.proto, p.vip.port());
    let external_chains: String = served
        .iter()
        .filter(|p| p.node_port.is_some())
        .map(|p| external(p, pod_cidr, layout))
        .collect();
    let node_ports = served.iter().filter_map(|p| {
        let (number, proto) = (p.node_port?, &p.proto);
        Some(format!(
            "{proto} . {number} : goto {}",
            named("external", p)
        ))
    });
    let no_endpoint_node_ports = ports.iter().filter_map(|p| {
        let (number, (turned, _)) = (p.node_port?, p.turned_away()?);
        let verdict = match turned {
            Turned::Reject => "goto reject-chain",
            Turned::Drop => "drop",
        };
        let (proto, name) = (&p.proto, p.full_name());
        Some(format!("{proto} . {number} comment \"{name}\" : {verdict}"))
    });
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
        Layout::DnatMaps if masquerade.covers_hairpin() => (
            format!(
                "  set hairpin-connections {{ type {addr} . {addr} . inet_proto . inet_service; comment \"service hairpin connections\"; {} }}\n",
                elements(served.iter().flat_map(|p| hairpins(p)))
            ),
            format!(
                "    ct status & dnat == dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random\n"
            ),
        ),
        _ => (String::new(), String::new()),
    };
    let from = outsiders(pod_cidr, masquerade);
    let snat = masquerade.ports().map_or_else(
        || "masquerade fully-random".to_owned(),
        |(low, high)| format!("meta l4proto tcp masquerade to :{low}-{high} fully-random"),
    );
    let cluster_masquerade = match layout {
        Layout::EndpointChains => String::new(),
        Layout::DnatMaps => format!(
            "    {ip} daddr @cluster-ips {from}meta mark set meta mark | 0x4000 comment \"masquerade clusterIP traffic from outside cluster\"\n"
        ),
    };
    format!(
        r#"table {ip} kube-proxy {{
  comment "rules for kube-proxy"
{hairpin_set}  set cluster-ips {{ type {addr}; comment "Active ClusterIPs"; {cluster_ips} }}
  set nodeport-ips {{ type {addr}; comment "IPs that accept NodePort traffic"; elements = {{ {node_ip} }} }}
  map firewall-ips {{ type {addr} . inet_proto . inet_service : verdict; comment "destinations that are subject to LoadBalancerSourceRanges"; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to service nodeports with no endpoints"; {no_endpoint_node_ports} }}
  map no-endpoint-services {{ type {addr} . inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to services with no endpoints"; {no_endpoints} }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; comment "NodePort traffic"; {node_ports} }}
  map service-ips {{ type {addr} . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"; {service_ips} }}
  chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
  chain masquerading {{
{masquerading}    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    {snat}
  }}
  chain reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }}
{chains}{external_chains}  chain services {{
{cluster_masquerade}    {ip} daddr . meta l4proto . th dport vmap @service-ips
    {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }}
  chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}
  chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain nodeport-endpoints-check {{ {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
  chain cluster-ips-check {{
    {ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    {ip} daddr {{ {service_cidr} }} drop comment "Drop traffic to unallocated ClusterIPs"
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
        node_ports = elements(node_ports),
        no_endpoint_node_ports = elements(no_endpoint_node_ports),
        service_ips = elements(service_ips),
    )
}

/// The match of sources that are masqueraded: all, or those that are no Pods.
fn outsiders(pod_cidr: Cidr, masquerade: Masquerade) -> String {
    if masquerade.covers_all() {
        String::new()
    } else {
        format!("{} saddr != {pod_cidr} ", family(pod_cidr.base))
    }
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

fn named(kind: &str, port: &ServicePort) -> String {
    let base = base(port);
    format!("{kind}-{}-{base}", hash(&base, 8))
}

fn chain(port: &ServicePort) -> String {
    named("service", port)
}

fn endpoint_chain(port: &ServicePort, endpoint: SocketAddr) -> String {
    // A chain name holds no colon.
    let ip = endpoint.ip().to_string().replace(':', ".");
    let base = format!("{}__{ip}/{}", base(port), endpoint.port());
    format!("endpoint-{}-{base}", hash(&base, 8))
}

fn hairpins(port: &ServicePort) -> Vec<String> {
    let row = |e: &SocketAddr| format!("{0} . {0} . {1} . {2}", e.ip(), port.proto, e.port());
    port.endpoints.iter().map(row).collect()
}

fn service(port: &ServicePort, pod_cidr: Cidr, layout: Layout, masquerade: Masquerade) -> String {
    let (name, vip, ip) = (chain(port), port.vip.ip(), family(port.vip.ip()));
    let choice = choice(port, &port.endpoints, layout);
    match layout {
        Layout::EndpointChains => {
            let endpoints = port.endpoints.iter();
            let chains: String = endpoints.map(|e| endpoint(port, *e, masquerade)).collect();
            let from = outsiders(pod_cidr, masquerade);
            chains
                + &format!(
                    "  chain {name} {{\n    {ip} daddr {vip} {from}jump mark-for-masquerade\n    {choice}\n  }}\n"
                )
        }
        Layout::DnatMaps => format!("  chain {name} {{\n    {choice}\n  }}\n"),
    }
}

fn endpoint(port: &ServicePort, to: SocketAddr, masquerade: Masquerade) -> String {
    let (chain, own, ip) = (endpoint_chain(port, to), to.ip(), family(to.ip()));
    let mark = if masquerade.covers_hairpin() {
        format!("    {ip} saddr {own} jump mark-for-masquerade\n")
    } else {
        String::new()
    };
    format!(
        "  chain {chain} {{\n{mark}    meta l4proto {} dnat to {to}\n  }}\n",
        port.proto
    )
}

/// The rule that chooses one of `endpoints` by chance.
fn choice(port: &ServicePort, endpoints: &[SocketAddr], layout: Layout) -> String {
    let count = endpoints.len();
    let numbered = |f: &dyn Fn(SocketAddr) -> String| {
        let rows = endpoints.iter().enumerate();
        let rows = rows.map(|(i, e)| format!("{i} : {}", f(*e)));
        rows.collect::<Vec<_>>().join(", ")
    };
    match layout {
        Layout::EndpointChains => {
            let targets = numbered(&|e| format!("goto {}", endpoint_chain(port, e)));
            format!("numgen random mod {count} vmap {{ {targets} }}")
        }
        Layout::DnatMaps => {
            let targets = numbered(&|e| format!("{} . {}", e.ip(), e.port()));
            format!(
                "meta l4proto {} dnat {} to numgen random mod {count} map {{ {targets} }}",
                port.proto,
                family(port.vip.ip())
            )
        }
    }
}

/// Where traffic from outside goes first; under the Local policy only to endpoints of the node.
fn external(port: &ServicePort, pod_cidr: Cidr, layout: Layout) -> String {
    let (name, all, ip) = (named("external", port), chain(port), family(port.vip.ip()));
    if !port.external_local {
        return format!("  chain {name} {{\n    jump mark-for-masquerade\n    goto {all}\n  }}\n");
    }
    let own = named("local", port);
    let (chain, goto) = if port.local.is_empty() {
        (String::new(), String::new())
    } else {
        let choice = choice(port, &port.local, layout);
        (
            format!("  chain {own} {{\n    {choice}\n  }}\n"),
            format!("    goto {own}\n"),
        )
    };
    format!(
        r#"{chain}  chain {name} {{
    {ip} saddr {pod_cidr} goto {all} comment "short-circuit pod traffic"
    fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"
    fib saddr type local goto {all} comment "short-circuit local traffic"
{goto}  }}
"#
    )
}
