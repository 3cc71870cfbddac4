//! How the nodes reach each other's Pods: by routes through the router, by VXLAN as flannel sets it up, or by a tunnel of which the
//! other node is the only peer.

use super::address;
use super::cidr::Cidr;
use super::plan::{Network, NodeNet, Plan};

/// Rules by which a machine tells nobody that a packet is too big.
pub const MUTE: &str = "table inet mute { chain output { type filter hook output priority 0;\n\
    icmp type destination-unreachable icmp code frag-needed drop\n\
    icmpv6 type packet-too-big drop\n}\n}\n";

/// Lines of `ip` that lead node `n` to the Pods of the other.
pub fn to_other(plan: &Plan, n: usize) -> Vec<String> {
    let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
    let tunnel = &node.tunnel;
    let mut lines = Vec::new();
    if let Some(device) = device(plan, n) {
        lines.extend([device, format!("link set {tunnel} up")]);
    }
    for (own, other_net) in node.nets().zip(other.nets()) {
        if plan.shape.network.is_tunnelled() {
            lines.push(address(endpoint(own), Cidr::host(endpoint(own)), tunnel));
        }
        if carries_frames(plan.shape.network) {
            let to = endpoint(other_net);
            let is_at = format!("{to} lladdr {} dev {tunnel}", other.vtep);
            lines.push(format!("neigh add {is_at} nud permanent"));
        }
        lines.push(format!("route add {}", route(plan, n, own, other_net)));
    }
    lines
}

/// A tunnel device that carries none asks nobody for a link-layer address.
fn carries_frames(network: Network) -> bool {
    matches!(network, Network::Vxlan | Network::Geneve)
}

/// The route of node `n` to the other's Pods, of the family that is dialled, as `ip route` takes it.
pub fn route_to_other(plan: &Plan, n: usize) -> String {
    let net = |n: usize| plan.nodes[n].net();
    route(plan, n, net(n), net(1 - n))
}

fn route(plan: &Plan, n: usize, own: NodeNet, other: NodeNet) -> String {
    let (pods, network) = (other.pods, plan.shape.network);
    let tunnel = &plan.nodes[n].tunnel;
    if !network.is_tunnelled() {
        format!("{pods} via {}", own.gateway)
    } else if carries_frames(network) {
        format!("{pods} via {} dev {tunnel} onlink", endpoint(other))
    } else {
        format!("{pods} dev {tunnel}")
    }
}

/// Line of `ip` that makes node `n`'s tunnel device.
fn device(plan: &Plan, n: usize) -> Option<String> {
    let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
    let (tunnel, mtu, (vni, port)) = (&node.tunnel, plan.pod_mtu, plan.vni);
    Some(match plan.shape.network {
        Network::Bridge | Network::Veth => return None,
        Network::Vxlan => format!(
            "link add {tunnel} address {} mtu {mtu} type vxlan id {vni} local {} dev {} dstport {port} nolearning",
            node.vtep, node.ip, node.uplink
        ),
        Network::Geneve => format!(
            "link add {tunnel} address {} mtu {mtu} type geneve id {vni} remote {} dstport {port}",
            node.vtep, other.ip
        ),
        Network::Ipip => format!(
            "link add {tunnel} mtu {mtu} type {} local {} remote {}",
            if node.ip.is_ipv4() {
                "ipip"
            } else {
                "ip6tnl mode any encaplimit none"
            },
            node.ip,
            other.ip
        ),
        Network::Wireguard => format!("link add {tunnel} mtu {mtu} type wireguard"),
    })
}

/// Lines of `bridge` that say behind which node the other's link-layer address is.
pub fn fdb(plan: &Plan, n: usize) -> String {
    let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
    if plan.shape.network != Network::Vxlan {
        return String::new();
    }
    format!(
        "fdb append {} dev {} dst {}\n",
        other.vtep, node.tunnel, other.ip
    )
}

/// A node's own address in the overlay: the first of its Pod network, which no Pod has.
fn endpoint(net: NodeNet) -> std::net::IpAddr {
    net.pods.nth(0)
}
