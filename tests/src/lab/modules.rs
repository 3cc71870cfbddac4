//! What a node loads before its first packet, as kube-proxy's and the network's own set-up do. What comes by itself
//! when it is first used (links, rules, connection tracking) is not here.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Lets packets that a bridge forwards pass iptables; the setting appears with the module.
const BRIDGE: (&str, &str) = (
    "br_netfilter",
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
);

/// IPVS, with which a node may proxy Services.
const IPVS: (&str, &str) = ("ip_vs", "/proc/net/ip_vs");

/// Loads what every node needs.
pub fn load() -> Result<()> {
    need(BRIDGE)
}

/// Loads IPVS; an error says that this kernel has none.
pub fn load_ipvs() -> Result<()> {
    need(IPVS)
}

/// Whether the kernel describes the types of its modules, which it does since 5.11: there is IPVS, loaded by now.
pub fn are_described() -> bool {
    Path::new("/sys/kernel/btf").join(IPVS.0).exists()
}

/// Loads it, unless it is there or built in.
fn need((module, setting): (&str, &str)) -> Result<()> {
    if Path::new(setting).exists() {
        return Ok(());
    }
    let output = Command::new("modprobe").arg(module).output();
    let output = output.with_context(|| format!("modprobe {module}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("modprobe {module}: {}", why.trim());
    }
    Ok(())
}
