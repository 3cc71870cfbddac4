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

/// Loads it, unless it is there or built in.
pub fn load() -> Result<()> {
    let (module, setting) = BRIDGE;
    if Path::new(setting).exists() {
        return Ok(());
    }
    let status = Command::new("modprobe").arg(module).status();
    let status = status.with_context(|| format!("modprobe {module}"))?;
    if !status.success() {
        bail!("modprobe {module}: {status}");
    }
    Ok(())
}
