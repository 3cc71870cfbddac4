//! Network namespaces of the control plane and the nodes, a bridge that joins them, and the way between Pods.

use super::inside::Place;
use super::plan::{CONTROL, CONTROL_IP, Network, Node, PREFIX, Settings};
use crate::process;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// The tunnel's interface.
const TUNNEL: &str = "vxlan.1";

/// What a packet in the tunnel may have: the underlay's 1500 without IPv4, UDP, VXLAN and Ethernet headers.
pub const TUNNEL_MTU: u16 = 1450;

/// The bridge that the control plane and the nodes are on.
const BRIDGE: &str = "br0";

/// Second but last byte of link-layer addresses.
const ETHERNET: u8 = 1;
const VTEP: u8 = 2;

/// Makes the namespaces and what is in them.
pub fn make(settings: Settings) -> Result<()> {
    let mut places = vec![CONTROL.to_owned()];
    places.extend(settings.nodes().map(Node::place));
    let add: Vec<String> = places
        .iter()
        .map(|name| format!("netns add {name}"))
        .collect();
    feed("ip", &["-batch", "-"], &add)?;
    feed("ip", &["-n", CONTROL, "-batch", "-"], &control(settings))?;
    for node in settings.nodes() {
        let place = node.place();
        feed(
            "ip",
            &["-n", &place, "-batch", "-"],
            &node_links(settings, node),
        )?;
        if settings.network == Network::Vxlan {
            feed(
                "bridge",
                &["-n", &place, "-batch", "-"],
                &tunnel_ends(settings, node),
            )?;
        }
        sysctls(&place)?;
    }
    Ok(())
}

/// Removes every namespace of a cluster.
pub fn remove() -> Result<()> {
    let del: Vec<String> = present()
        .iter()
        .map(|name| format!("netns del {name}"))
        .collect();
    if del.is_empty() {
        return Ok(());
    }
    feed("ip", &["-force", "-batch", "-"], &del)
}

/// Those that exist.
pub fn present() -> Vec<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

fn control(settings: Settings) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge"),
        format!("addr add {CONTROL_IP}/24 dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
    ];
    for node in settings.nodes() {
        let (name, place) = (node.name(), node.place());
        lines.push(format!(
            "link add {name} type veth peer name eth0 netns {place}"
        ));
        lines.push(format!("link set {name} master {BRIDGE} up"));
        // Pods reach the API server by its Service's address and are not masqueraded
        lines.push(format!("route add {} via {}", node.pods(), node.ip()));
    }
    lines
}

fn node_links(settings: Settings, node: Node) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link set eth0 address {}", node.mac(ETHERNET)),
        format!("addr add {}/24 dev eth0", node.ip()),
        "link set eth0 up".to_owned(),
        format!("route add default via {CONTROL_IP}"),
    ];
    if settings.network == Network::Vxlan {
        lines.push(format!(
            "link add {TUNNEL} address {} mtu {TUNNEL_MTU} type vxlan id 1 dstport 8472 local {} dev eth0 nolearning",
            node.mac(VTEP),
            node.ip()
        ));
        lines.push(format!("addr add {}/32 dev {TUNNEL}", node.first_of_pods()));
        lines.push(format!("link set {TUNNEL} up"));
    }
    for other in others(settings, node) {
        let (pods, first) = (other.pods(), other.first_of_pods());
        match settings.network {
            Network::Routed => lines.push(format!("route add {pods} via {}", other.ip())),
            Network::Vxlan => {
                let mac = other.mac(VTEP);
                lines.push(format!(
                    "neigh add {first} lladdr {mac} dev {TUNNEL} nud permanent"
                ));
                lines.push(format!("route add {pods} via {first} dev {TUNNEL} onlink"));
            }
        }
    }
    lines
}

/// Which node has which end of the tunnel.
fn tunnel_ends(settings: Settings, node: Node) -> Vec<String> {
    others(settings, node)
        .map(|other| {
            format!(
                "fdb append {} dev {TUNNEL} dst {}",
                other.mac(VTEP),
                other.ip()
            )
        })
        .collect()
}

fn others(settings: Settings, node: Node) -> impl Iterator<Item = Node> {
    settings.nodes().filter(move |other| *other != node)
}

/// A node forwards, and what its bridge forwards is seen by the Services' rules.
fn sysctls(place: &str) -> Result<()> {
    let place = Place {
        name: place.to_owned(),
        holder: None,
    };
    place.on_network(|| {
        for name in ["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"] {
            let path = format!("/proc/sys/net/{name}");
            fs::write(&path, "1").with_context(|| match name {
                "ipv4/ip_forward" => path,
                _ => format!("{path} (the kernel module br_netfilter; modprobe br_netfilter)"),
            })?;
        }
        Ok(())
    })?
}

/// Gives `program` its lines; what it complains of is the error.
fn feed(program: &str, args: &[&str], lines: &[String]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| process::show(&command))?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that gives up early says why on stderr
        let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}\n{}",
            process::show(&command),
            said.trim(),
            lines.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::Proxy;
    use super::*;

    fn two(network: Network) -> Settings {
        Settings {
            nodes: 2,
            proxy: Proxy::Iptables,
            network,
        }
    }

    #[test]
    fn routed_nodes_send_to_each_other_directly() {
        let settings = two(Network::Routed);
        let [one, _] = [1, 2].map(|n| settings.nodes().nth(n - 1));
        let lines = one
            .map(|node| node_links(settings, node))
            .unwrap_or_default();
        assert_eq!(
            lines.last().map(String::as_str),
            Some("route add 10.244.2.0/24 via 10.88.0.12")
        );
        assert!(lines.iter().all(|line| !line.contains(TUNNEL)));
    }

    #[test]
    fn tunnels_know_each_others_ends() {
        let settings = two(Network::Vxlan);
        let all: Vec<Node> = settings.nodes().collect();
        let (lines, ends) = (node_links(settings, all[0]), tunnel_ends(settings, all[0]));
        let mac = all[1].mac(VTEP);
        assert_eq!(
            ends,
            [format!("fdb append {mac} dev vxlan.1 dst 10.88.0.12")]
        );
        assert!(
            lines.contains(&"route add 10.244.2.0/24 via 10.244.2.0 dev vxlan.1 onlink".to_owned())
        );
        let its_own = format!("address {mac} ");
        let there = node_links(settings, all[1]);
        assert!(
            there.iter().any(|line| line.contains(&its_own)),
            "{there:?}"
        );
    }
}
