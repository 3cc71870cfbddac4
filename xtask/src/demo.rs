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
}

/// Modes of kube-proxy that the lab writes rules for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Proxy {
    Iptables,
    Nftables,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = if args.list { Root::AsIs } else { lab::need()? };
    lab::become_lab(root, &arguments(args))
}

fn arguments(args: &Args) -> Vec<OsString> {
    let Args { fault, proxy, list } = args;
    let mut words = vec!["demo"];
    words.extend(fault.as_deref());
    words.extend(match proxy {
        None => [].as_slice(),
        Some(Proxy::Iptables) => &["--proxy", "iptables"],
        Some(Proxy::Nftables) => &["--proxy", "nftables"],
    });
    words.extend(list.then_some("--list"));
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
        };
        assert_eq!(arguments(&none), ["demo"]);
        let all = Args {
            fault: Some("mtu-blackhole".to_owned()),
            proxy: Some(Proxy::Nftables),
            list: true,
        };
        assert_eq!(
            arguments(&all),
            ["demo", "mtu-blackhole", "--proxy", "nftables", "--list"]
        );
    }
}
