//! How Pods are attached to their node: by a bridge, or each by a route to its own veth, as Calico does it.

use super::cidr::Cidr;
use super::plan::{NodeNet, Plan, PodPlan};
use super::{address, nodad};
use std::net::IpAddr;

/// What a Pod's veth has as link-layer address where each is routed; so its link-local address is known beforehand.
const ROUTED_LLADDR: &str = "ee:ee:ee:ee:ee:ee";
/// The gateway that such a Pod asks for: an address that nothing has and the veth answers for, and the veth's own.
const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"];

/// Lines of `ip` that make node `n` ready for its Pods.
pub fn on_node(plan: &Plan, n: usize) -> Vec<String> {
    let node = &plan.nodes[n];
    if !plan.shape.network.is_bridged() {
        // What is for a Pod that does not exist must not go back to the router.
        return node
            .nets()
            .map(|net| format!("route add blackhole {}", net.pods))
            .collect();
    }
    let bridge = &node.bridge;
    let mut lines = vec![
        format!("link add {bridge} mtu {} type bridge", plan.pod_mtu),
        format!("link set {bridge} up"),
    ];
    for net in node.nets() {
        lines.push(address(net.pods.nth(1), net.pods, bridge));
    }
    for pod in plan.pods().filter(|p| p.node == n) {
        let veth = &pod.veth;
        lines.push(format!("link set {veth} master {bridge} up"));
        lines.push(format!("link set {veth} type bridge_slave hairpin on"));
    }
    lines
}

/// Lines of `ip` on the node that attach a Pod, whether it is attached already or not.
pub fn attach(plan: &Plan, pod: &PodPlan) -> Vec<String> {
    if plan.shape.network.is_bridged() {
        return Vec::new();
    }
    let veth = &pod.veth;
    let up = [
        format!("link set {veth} address {ROUTED_LLADDR}"),
        format!("link set {veth} up"),
    ];
    let routes = pod
        .ips()
        .map(|ip| format!("route replace {} dev {veth}", Cidr::host(ip)));
    up.into_iter().chain(routes).collect()
}

/// Lines of `ip` on the node for a Pod that is gone.
pub fn detach(plan: &Plan, pod: &PodPlan) -> Vec<String> {
    if plan.shape.network.is_bridged() {
        return Vec::new();
    }
    vec![format!("link set {} down", pod.veth)]
}

/// Sysctls of the node by which it answers for the gateway that a Pod asks for.
pub fn answering(plan: &Plan, pod: &PodPlan) -> Vec<(String, &'static str)> {
    if plan.shape.network.is_bridged() {
        return Vec::new();
    }
    vec![
        (format!("net.ipv4.conf.{}.proxy_arp", pod.veth), "1"),
        (format!("net.ipv4.neigh.{}.proxy_delay", pod.veth), "0"),
    ]
}

/// Lines of `ip` inside a Pod, whether it has its addresses already or not.
pub fn inside(plan: &Plan, pod: &PodPlan) -> Vec<String> {
    let ifname = &pod.ifname;
    let mut lines = vec![format!("link set {ifname} up")];
    for (ip, net) in pod.ips().zip(plan.nodes[pod.node].nets()) {
        let bridged = plan.shape.network.is_bridged();
        let len = if bridged {
            net.pods.len
        } else {
            Cidr::host(ip).len
        };
        lines.push(format!("addr replace {ip}/{len} dev {ifname}{}", nodad(ip)));
        let gateway = gateway_of(plan, &net, ip);
        if !bridged && ip.is_ipv4() {
            lines.push(format!("route replace {gateway} dev {ifname} scope link"));
        }
        lines.push(format!("route replace default via {gateway} dev {ifname}"));
    }
    lines
}

/// Lines of `ip` inside a Pod that is gone.
pub fn gone(pod: &PodPlan) -> Vec<String> {
    let ifname = &pod.ifname;
    vec![
        format!("addr flush dev {ifname}"),
        format!("link set {ifname} down"),
    ]
}

/// Line of `ip` that gives a Pod its way out again.
pub fn default_route(plan: &Plan, pod: &PodPlan) -> Option<String> {
    let net = plan.nodes[pod.node].nets().next()?;
    let gateway = gateway_of(plan, &net, pod.ip);
    Some(format!(
        "route add default via {gateway} dev {}",
        pod.ifname
    ))
}

fn gateway_of(plan: &Plan, net: &NodeNet, ip: IpAddr) -> String {
    if plan.shape.network.is_bridged() {
        net.pods.nth(1).to_string()
    } else {
        gateway(ip).to_owned()
    }
}

fn gateway(ip: IpAddr) -> &'static str {
    GATEWAYS[usize::from(ip.is_ipv6())]
}
