//! kube-proxy's IPVS form (pkg/proxy/ipvs): virtual servers, and the few rules that masquerade and turn away. Where kube-proxy
//! asks a set (ipset), here is a rule for each of its members. NodePorts are not served.

use super::ServicePort;
use super::iptables::Rules;
use crate::lab::cidr::Cidr;
use crate::settings::{Masquerade, Settings};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The device that holds the addresses of Services: IPVS sees only what the node takes in as its own.
pub const DEVICE: &str = "kube-ipvs0";

/// Virtual and real servers, as `ipvsadm --save --numeric` prints them.
pub fn servers(ports: &[ServicePort]) -> Vec<String> {
    ports.iter().flat_map(server).collect()
}

fn server(port: &ServicePort) -> Vec<String> {
    let proto = if port.proto == "udp" { "-u" } else { "-t" };
    let own = format!("{proto} {}", port.vip);
    let real = port.endpoints.iter();
    let real = real.map(|to| format!("-a {own} -r {to} -m -w 1"));
    std::iter::once(format!("-A {own} -s rr"))
        .chain(real)
        .collect()
}

/// What must be done to the servers that there are, so that they become those `wanted`. What stays is not touched, nor are its
/// connections.
pub fn changes(there: &[String], wanted: &[String]) -> Vec<String> {
    let too_many = |what: &str| {
        let lines = there.iter().filter(|l| !wanted.contains(l));
        lines.filter(|l| l.starts_with(what)).cloned().collect()
    };
    let (virtual_ones, real): (Vec<String>, Vec<String>) = (too_many("-A"), too_many("-a"));
    let removed = real.iter().chain(&virtual_ones).map(|l| removal(l));
    let missing = wanted.iter().filter(|l| !there.contains(l)).cloned();
    removed.chain(missing).collect()
}

/// The line that takes a server away which another line has added.
fn removal(line: &str) -> String {
    let named = line.replacen("-A", "-D", 1).replacen("-a", "-d", 1);
    let words: Vec<&str> = named.split_whitespace().collect();
    let ends = if words.contains(&"-r") { 5 } else { 3 };
    words[..ends.min(words.len())].join(" ")
}

/// Addresses that the node must have.
pub fn addresses(ports: &[ServicePort]) -> BTreeSet<IpAddr> {
    ports.iter().map(|p| p.vip.ip()).collect()
}

/// The rules beside the virtual servers.
pub fn render(ports: &[ServicePort], pod_cidr: Cidr, settings: &Settings) -> Rules {
    let own = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let mut rules = Rules {
        filter_chains: own(&["KUBE-FORWARD", "KUBE-IPVS-FILTER"]),
        filter: own(&[
            "-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER",
            "-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
            "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]),
        nat_chains: own(&["KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-SERVICES"]),
        nat: own(&[
            "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
            "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
            "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        ]),
    };
    for port in ports {
        service(&mut rules, port, pod_cidr, settings.masquerade);
    }
    for ip in addresses(ports) {
        rules.filter.push(format!(
            "-A KUBE-IPVS-FILTER -d {ip} -m conntrack --ctstate NEW -j REJECT"
        ));
    }
    rules.nat.extend(own(&[
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    ]));
    rules
}

fn service(rules: &mut Rules, port: &ServicePort, pod_cidr: Cidr, masquerade: Masquerade) {
    let proto = &port.proto;
    let dialled = format!(
        "-p {proto} -m {proto} -d {} --dport {}",
        port.vip.ip(),
        port.vip.port()
    );
    let from = if masquerade.covers_all() {
        String::new()
    } else {
        format!("! -s {pod_cidr} ")
    };
    let portals = "-A KUBE-SERVICES -m comment --comment \"Kubernetes service cluster ip + port\"";
    rules
        .nat
        .push(format!("{portals} {from}{dialled} -j KUBE-MARK-MASQ"));
    rules.nat.push(format!("{portals} {dialled} -j ACCEPT"));
    rules
        .filter
        .push(format!("-A KUBE-IPVS-FILTER {dialled} -j RETURN"));
    let itself = port
        .endpoints
        .iter()
        .filter(|_| masquerade.covers_hairpin());
    for to in itself {
        rules.nat.push(format!(
            "-A KUBE-POSTROUTING -p {proto} -m {proto} -s {ip} -d {ip} --dport {} -j MASQUERADE",
            to.port(),
            ip = to.ip()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let there = lines(&[
            "-A -t 10.96.0.1:80 -s rr",
            "-a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1",
            "-A -u [fd00::a]:53 -s rr",
            "-a -u [fd00::a]:53 -r [fd01::a]:53 -m -w 1",
        ]);
        let wanted = lines(&[
            "-A -t 10.96.0.1:80 -s rr",
            "-a -t 10.96.0.1:80 -r 10.1.0.3:8080 -m -w 1",
        ]);
        let changed = [
            "-d -t 10.96.0.1:80 -r 10.1.0.2:8080",
            "-d -u [fd00::a]:53 -r [fd01::a]:53",
            "-D -u [fd00::a]:53",
            "-a -t 10.96.0.1:80 -r 10.1.0.3:8080 -m -w 1",
        ];
        assert_eq!(changes(&there, &wanted), changed);
        assert!(changes(&wanted, &wanted).is_empty());
        assert_eq!(changes(&[], &wanted), wanted);
    }
}
