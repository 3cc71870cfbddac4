//! Debian packages: the tools that the lab and the tests make nodes and Pods with. netflow itself runs none of them.

use super::{Need, State};
use crate::process;
use crate::root;
use anyhow::{Result, bail};
use std::fs;
use std::process::Command;

/// Program → Debian package.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables-legacy-restore", "iptables"),
    ("iptables-nft-restore", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ping", "iputils-ping"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// The packages of [`TOOLS`].
pub struct Packages;

impl Need for Packages {
    fn name(&self) -> String {
        "Debian packages".to_owned()
    }

    fn check(&self) -> Result<State> {
        let absent: Vec<&str> = absent().map(|(tool, _)| tool).collect();
        Ok(if absent.is_empty() {
            State::Present
        } else {
            State::Missing(absent.join(", "))
        })
    }

    fn install(&self) -> Result<()> {
        if process::find("apt-get").is_none() {
            let tools: Vec<&str> = absent().map(|(tool, _)| tool).collect();
            bail!(
                "there is no apt-get; install these programs by other means: {}",
                tools.join(", ")
            );
        }
        if !root::is() {
            bail!("apt-get needs root; run: sudo {}", self.command());
        }
        let mut fresh = false;
        if !has_lists() {
            process::run(&mut apt_get(&["update"]))?;
            fresh = true;
        }
        let first = process::run(&mut apt_install());
        if first.is_ok() || fresh {
            return first;
        }
        // the lists may name versions that the mirror no longer has
        process::run(&mut apt_get(&["update"]))?;
        process::run(&mut apt_install())
    }

    fn command(&self) -> String {
        process::show(&apt_install())
    }
}

fn absent() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOOLS
        .into_iter()
        .filter(|(tool, _)| process::find(tool).is_none())
}

fn apt_install() -> Command {
    let mut packages: Vec<&str> = absent().map(|(_, package)| package).collect();
    packages.dedup();
    let mut apt = apt_get(&["install", "-y", "--no-install-recommends"]);
    apt.args(packages);
    apt
}

fn apt_get(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(args);
    apt
}

/// Whether package lists were ever fetched: images come without.
fn has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|dir| {
        dir.flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_one_package_stand_together() {
        let mut seen: Vec<&str> = TOOLS.iter().map(|(_, package)| *package).collect();
        seen.dedup();
        let once: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(once.len(), seen.len(), "so that apt-get is given each once");
    }
}
