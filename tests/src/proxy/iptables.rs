//! kube-proxy's iptables form (pkg/proxy/iptables), with the jumps that it puts into the built-in chains.

use super::{ServicePort, Turned, hash};
use crate::lab::cidr::Cidr;
use crate::settings::{Masquerade, Settings};
use std::net::SocketAddr;

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

const LOCALNET: &str = "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";

/// The proxy's rules for `ports`.
pub fn render(ports: &[ServicePort], pod_cidr: Cidr, settings: &Settings) -> Rules {
    let mut rules = frame(settings);
    if pod_cidr.base.is_ipv4() {
        // There is no such rule for IPv6: the kernel has no route_localnet there.
        rules.filter.push(LOCALNET.to_owned());
    }
    for port in ports {
        if port.endpoints.is_empty() {
            rules.filter.push(no_endpoints(port));
        } else {
            service(&mut rules, port, pod_cidr, settings.masquerade);
        }
        if let Some(number) = port.node_port {
            node_port(&mut rules, port, number, pod_cidr);
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
fn frame(settings: &Settings) -> Rules {
    let own = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let mut rules = Rules {
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
        ]),
    };
    if !settings.drops_invalid {
        rules.filter.retain(|r| !r.contains("--ctstate INVALID"));
    }
    let (proto, ports) = settings
        .masquerade
        .ports()
        .map_or_else(Default::default, |(a, b)| {
            ("-p tcp ".to_owned(), format!(" --to-ports {a}-{b}"))
        });
    rules.nat.push(format!(
        "-A KUBE-POSTROUTING {proto}-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{ports} --random-fully"
    ));
    rules
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

fn chain(kind: &str, port: &ServicePort) -> String {
    let ServicePort { proto, .. } = port;
    format!("KUBE-{kind}-{}", hash(&(port.full_name() + proto), 16))
}

fn service(rules: &mut Rules, port: &ServicePort, pod_cidr: Cidr, masquerade: Masquerade) {
    let (name, proto) = (port.full_name(), &port.proto);
    let chain = chain("SVC", port);
    let (ip, dport) = (port.vip.ip(), port.vip.port());
    let matches = format!(
        "-m comment --comment \"{name} cluster IP\" -m {proto} -p {proto} -d {ip} --dport {dport}"
    );
    rules.nat_chains.push(chain.clone());
    rules
        .nat
        .push(format!("-A KUBE-SERVICES {matches} -j {chain}"));
    let from = if masquerade.covers_all() {
        String::new()
    } else {
        format!("! -s {pod_cidr} ")
    };
    rules
        .nat
        .push(format!("-A {chain} {matches} {from}-j KUBE-MARK-MASQ"));
    spread(rules, port, &chain, &port.endpoints);
    for endpoint in &port.endpoints {
        let target = target(port, *endpoint);
        if masquerade.covers_hairpin() {
            rules.nat.push(format!(
                "-A {target} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ",
                endpoint.ip()
            ));
        }
        rules.nat.push(format!(
            "-A {target} -m comment --comment {name} -m {proto} -p {proto} -j DNAT --to-destination {endpoint}"
        ));
        rules.nat_chains.push(target);
    }
}

/// Chain of an endpoint.
fn target(port: &ServicePort, endpoint: SocketAddr) -> String {
    let base = format!("{}{}{endpoint}", port.full_name(), port.proto);
    format!("KUBE-SEP-{}", hash(&base, 16))
}

/// Chooses one of `endpoints` by chance.
fn spread(rules: &mut Rules, port: &ServicePort, chain: &str, endpoints: &[SocketAddr]) {
    let name = port.full_name();
    for (i, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - i;
        let chance = if left > 1 {
            format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / left as f64
            )
        } else {
            String::new()
        };
        rules.nat.push(format!(
            "-A {chain} -m comment --comment \"{name} -> {endpoint}\" {chance}-j {}",
            target(port, *endpoint)
        ));
    }
}

fn node_port(rules: &mut Rules, port: &ServicePort, number: u16, pod_cidr: Cidr) {
    let (name, proto) = (port.full_name(), &port.proto);
    let matches = format!("-m {proto} -p {proto} --dport {number}");
    if let Some((turned, why)) = port.turned_away() {
        let verdict = match turned {
            Turned::Reject => "REJECT",
            Turned::Drop => "DROP",
        };
        rules.filter.push(format!(
            "-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name} {why}\" -m addrtype --dst-type LOCAL {matches} -j {verdict}"
        ));
    }
    if port.endpoints.is_empty() {
        return;
    }
    let (external, all) = (chain("EXT", port), chain("SVC", port));
    rules.nat.push(format!(
        "-A KUBE-NODEPORTS -m comment --comment {name} {matches} -j {external}"
    ));
    let mut outside = |comment: &str, rule: &str| {
        rules.nat.push(format!(
            "-A {external} -m comment --comment \"{comment} {name} external destinations\" {rule}"
        ));
    };
    if port.external_local {
        let local = "-m addrtype --src-type LOCAL";
        outside("pod traffic for", &format!("-s {pod_cidr} -j {all}"));
        outside(
            "masquerade LOCAL traffic for",
            &format!("{local} -j KUBE-MARK-MASQ"),
        );
        outside("route LOCAL traffic for", &format!("{local} -j {all}"));
        if !port.local.is_empty() {
            let own = chain("SVL", port);
            rules.nat.push(format!("-A {external} -j {own}"));
            spread(rules, port, &own, &port.local);
            rules.nat_chains.push(own);
        }
    } else {
        outside("masquerade traffic for", "-j KUBE-MARK-MASQ");
        rules.nat.push(format!("-A {external} -j {all}"));
    }
    rules.nat_chains.push(external);
}
