//! IPVS of a node: virtual servers, and the addresses that they answer on.

use super::netns;
use crate::proxy::ServicePort;
use crate::proxy::ipvs::{DEVICE, addresses, changes, servers};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

/// Makes a node ready, as kube-proxy does when it starts. `tracked`: conntrack follows what IPVS does, as kube-proxy wants it.
pub fn prepare(node: &str, tracked: bool) -> Result<()> {
    netns::batch(node, &[format!("link add {DEVICE} type dummy")])?;
    netns::sysctl(
        node,
        &[
            ("net.ipv4.vs.conntrack", if tracked { "1" } else { "0" }),
            ("net.ipv4.vs.expire_nodest_conn", "1"),
            ("net.ipv4.vs.expire_quiescent_template", "1"),
        ],
    )
}

/// Makes the virtual servers of a node those of `ports`.
pub fn program(node: &str, ports: &[ServicePort]) -> Result<()> {
    let (there, held) = netns::within(node, || Ok((saved()?, held()?)))?;
    let wanted = addresses(ports);
    let line = |verb: &str, ip: &IpAddr| {
        let len = if ip.is_ipv4() { 32 } else { 128 };
        format!("addr {verb} {ip}/{len} dev {DEVICE}")
    };
    let gone = held.difference(&wanted).map(|ip| line("del", ip));
    let new = wanted.difference(&held).map(|ip| line("add", ip));
    netns::batch(node, &gone.chain(new).collect::<Vec<_>>())?;
    let changes = changes(&there, &servers(ports));
    if changes.is_empty() {
        return Ok(());
    }
    let lines = changes.join("\n") + "\n";
    netns::within(node, || netns::feed("ipvsadm", &["--restore"], &lines))
}

/// The servers that there are.
fn saved() -> Result<Vec<String>> {
    let mut command = Command::new("ipvsadm");
    let output = command.args(["--save", "--numeric"]).output();
    let output = output.context("ipvsadm (is it installed? `cargo xtask setup` installs it)")?;
    if !output.status.success() {
        bail!("ipvsadm: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(|l| l.trim().to_owned()).collect())
}

/// The addresses that the device has.
fn held() -> Result<BTreeSet<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?.filter(|i| i.interface_name == DEVICE);
    let ip = |i: nix::ifaddrs::InterfaceAddress| {
        let address = i.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    Ok(all.filter_map(ip).collect())
}
