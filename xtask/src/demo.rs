//! `cargo xtask demo`: one broken Service, explained.

use crate::lab;
use crate::root::Root;
use anyhow::Result;
use std::ffi::OsString;
use std::process::ExitCode;

/// Raise the lab, break one thing, let netflow explain it, take everything down.
///
/// Traffic goes to the Service's virtual IP and to the Pod IP while the real `netflow explain` runs on the node.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                                   the Service sends to a port that the Pod does not listen on
  cargo xtask demo --list                            the faults there are
  cargo xtask demo policy-denied-ingress --proxy nftables")]
pub struct Args {
    /// What to break [default: target-port-mismatch]
    fault: Option<String>,
    /// How Service rules are written
    #[arg(long, value_enum)]
    proxy: Option<Proxy>,
    /// List the faults and stop
    #[arg(long)]
    list: bool,
    /// Draw names, addresses and ports from this number; each run prints the one it used
    #[arg(long)]
    seed: Option<u64>,
}

/// Modes of kube-proxy that the lab writes rules for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Proxy {
    /// Its iptables mode, written by iptables-legacy
    Iptables,
    /// Its iptables mode, written by iptables-nft
    IptablesNft,
    /// Its nftables mode
    Nftables,
}

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Proxy::Iptables => "iptables",
            Proxy::IptablesNft => "iptables-nft",
            Proxy::Nftables => "nftables",
        }
    }
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = if args.list { Root::AsIs } else { lab::need()? };
    lab::become_lab(root, &arguments(args))
}

fn arguments(args: &Args) -> Vec<OsString> {
    let Args {
        fault,
        proxy,
        list,
        seed,
    } = args;
    let mut words = vec!["demo".to_owned()];
    words.extend(fault.clone());
    if let Some(proxy) = proxy {
        words.extend(["--proxy".to_owned(), proxy.name().to_owned()]);
    }
    if let Some(seed) = seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    words.extend(list.then(|| "--list".to_owned()));
    words.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_is_given_what_was_typed() {
        let none = Args {
            fault: None,
            proxy: None,
            list: false,
            seed: None,
        };
        assert_eq!(arguments(&none), ["demo"]);
        let all = Args {
            fault: Some("mtu-blackhole".to_owned()),
            proxy: Some(Proxy::Nftables),
            list: true,
            seed: Some(7),
        };
        assert_eq!(
            arguments(&all),
            [
                "demo",
                "mtu-blackhole",
                "--proxy",
                "nftables",
                "--seed",
                "7",
                "--list"
            ]
        );
    }
}
