//! kube-proxy's iptables form (pkg/proxy/iptables), with the jumps that it puts into the built-in chains.

use super::{ServicePort, hash};
use crate::lab::cidr::Cidr;

/// Rules of the two tables that the proxy uses, in restore syntax.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Chains of `filter`.
    pub filter_chains: Vec<String>,
    /// Rules of `filter`.
    pub filter: Vec<String>,
    /// Chains of `nat`.
    pub nat_chains: Vec<String>,
    /// Rules of `nat`.
    pub nat: Vec<String>,
}

impl Rules {
    /// Input for iptables-restore. Replaces both tables.
    pub fn restore(&self) -> String {
        let table = |name: &str, builtin: &[&str], chains: &[String], rules: &[String]| {
            let mut lines = vec![format!("*{name}")];
            lines.extend(builtin.iter().map(|c| format!(":{c} ACCEPT [0:0]")));
            lines.extend(chains.iter().map(|c| format!(":{c} - [0:0]")));
            lines.extend_from_slice(rules);
            lines.push("COMMIT\n".to_owned());
            lines.join("\n")
        };
        table(
            "filter",
            &["INPUT", "FORWARD", "OUTPUT"],
            &self.filter_chains,
            &self.filter,
        ) + &table(
            "nat",
            &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
            &self.nat_chains,
            &self.nat,
        )
    }
}

/// The proxy's rules for `ports`.
pub fn render(ports: &[ServicePort], pod_cidr: Cidr) -> Rules {
    let mut rules = frame();
    for port in ports {
        if port.endpoints.is_empty() {
            rules.filter.push(no_endpoints(port));
        } else {
            service(&mut rules, port, pod_cidr);
        }
    }
    rules.nat.push(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
         -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
            .to_owned(),
    );
    rules
}

/// What is there with no Service at all.
fn frame() -> Rules {
    let own = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    Rules {
        filter_chains: own(&[
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FIREWALL",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SERVICES",
        ]),
        filter: own(&[
            "-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
            "-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS",
            "-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
            "-A INPUT -j KUBE-FIREWALL",
            "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
            "-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
            "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
            "-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
            "-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A OUTPUT -j KUBE-FIREWALL",
            "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
            "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]),
        nat_chains: own(&[
            "KUBE-KUBELET-CANARY",
            "KUBE-MARK-MASQ",
            "KUBE-NODEPORTS",
            "KUBE-POSTROUTING",
            "KUBE-SERVICES",
        ]),
        nat: own(&[
            "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
            "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
            "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
        ]),
    }
}

fn no_endpoints(port: &ServicePort) -> String {
    let ServicePort { proto, vip, .. } = port;
    format!(
        "-A KUBE-SERVICES -m comment --comment \"{} has no endpoints\" -m {proto} -p {proto} -d {} --dport {} -j REJECT",
        port.full_name(),
        vip.ip(),
        vip.port()
    )
}

fn service(rules: &mut Rules, port: &ServicePort, pod_cidr: Cidr) {
    let (name, proto) = (port.full_name(), &port.proto);
    let chain = format!("KUBE-SVC-{}", hash(&format!("{name}{proto}"), 16));
    let (ip, dport) = (port.vip.ip(), port.vip.port());
    let matches = format!(
        "-m comment --comment \"{name} cluster IP\" -m {proto} -p {proto} -d {ip} --dport {dport}"
    );
    rules.nat_chains.push(chain.clone());
    rules
        .nat
        .push(format!("-A KUBE-SERVICES {matches} -j {chain}"));
    rules.nat.push(format!(
        "-A {chain} {matches} ! -s {pod_cidr} -j KUBE-MARK-MASQ"
    ));
    let count = port.endpoints.len();
    for (i, endpoint) in port.endpoints.iter().enumerate() {
        let target = format!("KUBE-SEP-{}", hash(&format!("{name}{proto}{endpoint}"), 16));
        let left = count - i;
        let chance = if left > 1 {
            format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / left as f64
            )
        } else {
            String::new()
        };
        rules.nat.push(format!(
            "-A {chain} -m comment --comment \"{name} -> {endpoint}\" {chance}-j {target}"
        ));
        rules.nat.push(format!(
            "-A {target} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ",
            endpoint.ip()
        ));
        rules.nat.push(format!(
            "-A {target} -m comment --comment {name} -m {proto} -p {proto} -j DNAT --to-destination {endpoint}"
        ));
        rules.nat_chains.push(target);
    }
}
