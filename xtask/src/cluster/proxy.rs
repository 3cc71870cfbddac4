//! kube-proxy of a node.

use super::build;
use super::inside::Place;
use super::node;
use super::pki;
use super::plan::{Node, PODS};
use super::raise::Raising;
use anyhow::Result;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The component's name.
pub const NAME: &str = "kube-proxy";

/// How long it may take to have written its rules.
const LIMIT: Duration = Duration::from_mins(1);

/// Where it says so.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// Starts it; done when its rules are written.
pub fn start(raising: &Raising, node: Node, place: &Place) -> Result<()> {
    let args = [
        format!("--kubeconfig={}", pki::kubeconfig(NAME).display()),
        format!("--hostname-override={}", node.name()),
        format!("--proxy-mode={}", raising.settings.proxy),
        format!("--cluster-cidr={PODS}"),
        // the size of the conntrack table is the machine's: other network namespaces cannot set it
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        format!("--healthz-bind-address={HEALTH}"),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
    ];
    let mut proxy = node::component(raising, node, place, NAME, &build::path(NAME)?, &args)?;
    proxy.until(LIMIT, || {
        place
            .on_network(|| healthy().unwrap_or(false))
            .unwrap_or(false)
    })
}

fn healthy() -> io::Result<bool> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&HEALTH, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}
