//! Debian packages: the tools that the lab, the tests and clusters make nodes, Pods and virtual machines with, and the
//! compiler of libFuzzer. netflow itself runs none of them.

use super::{Need, State};
use crate::process;
use crate::root;
use anyhow::{Result, bail};
use std::fs;
use std::process::Command;

/// Program → Debian package.
type Tool = (&'static str, &'static str);

/// What the lab's nodes and Pods are made with.
const TOOLS: &[Tool] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("iptables-legacy-restore", "iptables"),
    ("iptables-nft-restore", "iptables"),
    ("ip6tables-legacy-restore", "iptables"),
    ("ip6tables-nft-restore", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ping", "iputils-ping"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("tmux", "tmux"),
];

/// What boots another kernel, unpacks and loads its modules, and sets up what only other kernels may have.
const EMULATOR: &[Tool] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("ipvsadm", "ipvsadm"),
    ("wg", "wireguard-tools"),
];

/// What runs the containers of a cluster's nodes.
const CONTAINERS: &[Tool] = &[
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    // not in PATH: whoever joins an absolute path to a directory gets that path
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// What libFuzzer is compiled with.
const COMPILER: &[Tool] = &[("c++", "g++")];

/// Packages that some part of the project needs.
#[derive(Clone, Copy)]
pub struct Packages {
    what: &'static str,
    tools: &'static [Tool],
}

/// Those of the lab.
pub const LAB: Packages = Packages {
    what: "the lab",
    tools: TOOLS,
};

/// Those of the virtual machines.
pub const GUESTS: Packages = Packages {
    what: "virtual machines",
    tools: EMULATOR,
};

/// Those of `cargo xtask cluster`.
pub const CLUSTER: Packages = Packages {
    what: "a cluster",
    tools: CONTAINERS,
};

/// That of `cargo xtask fuzz`.
pub const FUZZING: Packages = Packages {
    what: "fuzzing",
    tools: COMPILER,
};

impl Need for Packages {
    fn name(&self) -> String {
        format!("Debian packages for {}", self.what)
    }

    fn check(&self) -> Result<State> {
        let absent: Vec<&str> = self.absent().map(|(tool, _)| tool).collect();
        Ok(if absent.is_empty() {
            State::Present
        } else {
            State::Missing(absent.join(", "))
        })
    }

    fn install(&self) -> Result<()> {
        if process::find("apt-get").is_none() {
            let tools: Vec<&str> = self.absent().map(|(tool, _)| tool).collect();
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
        let first = process::run(&mut self.apt_install());
        if first.is_ok() || fresh {
            return first;
        }
        // the lists may name versions that the mirror no longer has
        process::run(&mut apt_get(&["update"]))?;
        process::run(&mut self.apt_install())
    }

    fn command(&self) -> String {
        process::show(&self.apt_install())
    }
}

impl Packages {
    fn absent(&self) -> impl Iterator<Item = Tool> {
        let absent = |(tool, _): &Tool| process::find(tool).is_none();
        self.tools.iter().copied().filter(absent)
    }

    fn apt_install(&self) -> Command {
        let mut packages: Vec<&str> = self.absent().map(|(_, package)| package).collect();
        packages.dedup();
        let mut apt = apt_get(&["install", "-y", "--no-install-recommends"]);
        apt.args(packages);
        apt
    }
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
        for Packages { what, tools } in [LAB, GUESTS, CLUSTER] {
            let mut seen: Vec<&str> = tools.iter().map(|(_, package)| *package).collect();
            seen.dedup();
            let once: std::collections::BTreeSet<_> = seen.iter().collect();
            assert_eq!(once.len(), seen.len(), "{what}: apt-get is given each once");
        }
    }
}
