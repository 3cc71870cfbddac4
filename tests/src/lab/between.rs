//! How the nodes reach each other's Pods: by routes through the router, or by VXLAN as flannel sets it up.

use super::address;
use super::cidr::Cidr;
use super::plan::{Network, NodeNet, Plan};

/// Lines of `ip` that lead node `n` to the Pods of the other.
pub fn to_other(plan: &Plan, n: usize) -> Vec<String> {
    let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
    match plan.shape.network {
        Network::Bridge | Network::Veth => {
            let nets = node.nets().zip(other.nets());
            nets.map(|(net, other)| format!("route add {} via {}", other.pods, net.gateway))
                .collect()
        }
        Network::Vxlan => {
            let (vxlan, (vni, port)) = (&node.vxlan, plan.vxlan);
            let mut lines = vec![
                format!(
                    "link add {vxlan} address {} mtu {} type vxlan id {vni} local {} dev {} dstport {port} nolearning",
                    node.vtep, plan.pod_mtu, node.ip, node.uplink
                ),
                format!("link set {vxlan} up"),
            ];
            for (own, other_net) in node.nets().zip(other.nets()) {
                let to = endpoint(other_net);
                lines.extend([
                    address(endpoint(own), Cidr::host(endpoint(own)), vxlan),
                    format!(
                        "neigh add {to} lladdr {} dev {vxlan} nud permanent",
                        other.vtep
                    ),
                    format!("route add {} via {to} dev {vxlan} onlink", other_net.pods),
                ]);
            }
            lines
        }
    }
}

/// Lines of `bridge` that say behind which node the other's link-layer address is.
pub fn fdb(plan: &Plan, n: usize) -> String {
    let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
    match plan.shape.network {
        Network::Bridge | Network::Veth => String::new(),
        Network::Vxlan => format!(
            "fdb append {} dev {} dst {}\n",
            other.vtep, node.vxlan, other.ip
        ),
    }
}

/// A node's own address in the overlay: the first of its Pod network, which no Pod has.
fn endpoint(net: NodeNet) -> std::net::IpAddr {
    net.pods.nth(0)
}
