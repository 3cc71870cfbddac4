//! WireGuard between two ends: keys, and whose packets are behind which.

use super::netns;
use super::plan::{Network, Plan};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// An end's private key, and the public one of it.
pub struct Key {
    private: String,
    public: String,
}

impl Key {
    /// A new one.
    pub fn new() -> Result<Key> {
        let private = wg(&["genkey"], "")?;
        let public = wg(&["pubkey"], &private)?;
        Ok(Key { private, public })
    }

    /// Sets a device of a namespace up: it listens on `port`, and what is for `allowed` goes to the peer.
    pub fn speak(
        &self,
        netns: &str,
        device: &str,
        port: u16,
        (peer, endpoint): (&Key, SocketAddr),
        allowed: &[String],
    ) -> Result<()> {
        let (port, endpoint) = (port.to_string(), endpoint.to_string());
        let allowed = allowed.join(",");
        let own = [
            "set",
            device,
            "listen-port",
            &port,
            "private-key",
            "/dev/stdin",
        ];
        let peer = [
            "peer",
            &peer.public,
            "endpoint",
            &endpoint,
            "allowed-ips",
            &allowed,
        ];
        let args = [own, peer].concat();
        netns::within(netns, || netns::feed("wg", &args, &self.private))
    }
}

/// Lets the nodes, whose namespaces these are, know each other. Nothing to do in a lab with another network.
pub fn join(plan: &Plan, nodes: [&str; 2]) -> Result<()> {
    if plan.shape.network != Network::Wireguard {
        return Ok(());
    }
    let keys = [Key::new()?, Key::new()?];
    for (n, netns) in nodes.into_iter().enumerate() {
        let (node, other) = (&plan.nodes[n], &plan.nodes[1 - n]);
        let endpoint = SocketAddr::new(other.ip, plan.tunnel_port(1 - n));
        let pods: Vec<String> = other.nets().map(|net| net.pods.to_string()).collect();
        let peer = (&keys[1 - n], endpoint);
        keys[n].speak(netns, &node.tunnel, plan.tunnel_port(n), peer, &pods)?;
    }
    Ok(())
}

/// What `wg` prints.
fn wg(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("wg")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("wg (is it installed? `cargo xtask setup` installs it)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "wg {}: {}",
        args.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
