//! What each encapsulation adds to a packet, measured between two network namespaces, beside what netflow reckons from the device
//! (`docs/mtu.md`).

use crate::lab::netns;
use crate::lab::wireguard::Key;
use anyhow::{Context, Result, bail, ensure};
use netflow_user::model::source::{Ask, NodeSource};
use netflow_user::node::NodeReader;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// MTU of the tunnel device; every packet is of this size.
const MTU: u32 = 1400;
/// MTU of the link below, which must not be in the way.
const BELOW: u32 = 9000;
/// Packets of a measure.
const PACKETS: u64 = 20;
/// What a veth counts before the outer IP header.
const ETHERNET: u64 = 14;
/// What the namespaces' names begin with.
const PREFIX: &str = "nfo";
/// Names of the devices: below, and the tunnel.
const LINK: &str = "below";
const TUNNEL: &str = "tunnel";

/// A kind of tunnel.
#[derive(Debug, Clone, Copy)]
struct Encapsulation {
    /// As `ip link add … type` spells it, with options.
    kind: &'static str,
    /// Family of the packets that carry it.
    outer: Family,
    /// Families of the packets that it carries.
    inner: &'static [Family],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

use Family::{V4, V6};

const BOTH: &[Family] = &[V4, V6];

/// What is measured.
const ALL: [Encapsulation; 16] = [
    of("vxlan id 7 dstport 4789", V4, BOTH),
    of("vxlan id 7 dstport 4789", V6, BOTH),
    of("geneve id 7 dstport 6081", V4, BOTH),
    of("geneve id 7 dstport 6081", V6, BOTH),
    of("ipip", V4, &[V4]),
    of("sit", V4, &[V6]),
    of("ip6tnl mode any encaplimit none", V6, BOTH),
    of("ip6tnl mode any", V6, BOTH),
    of("gre", V4, BOTH),
    of("gre key 7 csum", V4, BOTH),
    of("ip6gre encaplimit none", V6, BOTH),
    of("ip6gre", V6, BOTH),
    of("gretap", V4, BOTH),
    of("ip6gretap encaplimit none", V6, BOTH),
    of("wireguard", V4, BOTH),
    of("wireguard", V6, BOTH),
];

const fn of(kind: &'static str, outer: Family, inner: &'static [Family]) -> Encapsulation {
    Encapsulation { kind, outer, inner }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            V4 => "IPv4",
            V6 => "IPv6",
        }
    }

    /// Address of end `n` on the link (`inside` false) or in the tunnel.
    fn address(self, n: u8, inside: bool) -> IpAddr {
        let net = if inside { 99 } else { 98 };
        match self {
            V4 => Ipv4Addr::new(10, net, 0, n + 1).into(),
            V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, u16::from(n) + 1).into(),
        }
    }

    fn prefix(self) -> u8 {
        match self {
            V4 => 24,
            V6 => 64,
        }
    }

    /// IP and UDP header.
    fn headers(self) -> usize {
        match self {
            V4 => 20 + 8,
            V6 => 40 + 8,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    encapsulation: Encapsulation,
    inner: Family,
    /// Bytes of overhead that were measured; `None`: the kernel has no such device.
    pub measured: Option<u64>,
    /// What netflow reckons from the device.
    pub reckoned: u64,
}

impl Row {
    /// Whether netflow reckons with what is on the wire.
    pub fn is_right(&self) -> bool {
        self.measured
            .is_none_or(|measured| measured == self.reckoned)
    }
}

/// Heads of the table.
pub const HEAD: &str =
    "| encapsulation | outer | inner | measured | reckoned |\n|---|---|---|--:|--:|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            encapsulation: Encapsulation { kind, outer, .. },
            inner,
            measured,
            reckoned,
        } = self;
        let (outer, inner) = (outer.name(), inner.name());
        match measured {
            Some(bytes) => write!(f, "| {kind} | {outer} | {inner} | {bytes} | {reckoned} |"),
            None => write!(f, "| {kind} | {outer} | {inner} | – | – |"),
        }
    }
}

/// Namespaces that a measure which was killed has left.
fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir("/run/netns").into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|n| n.split_once('-'));
        if let Some(pid) = owner.and_then(|(pid, _)| u32::from_str_radix(pid, 16).ok())
            && (pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists())
        {
            netns::manage(&[format!("netns del {name}")], true)?;
        }
    }
    Ok(())
}

/// Measures the kinds of tunnel that `which` names and the kernel has. It loads their modules, of which some leave a device of their own in
/// the first network namespace.
pub fn measure(which: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    remove_leftovers()?;
    let mut rows = Vec::new();
    for encapsulation in ALL.into_iter().filter(|e| which(e.kind)) {
        let pair = Pair::new()?;
        let there = pair.connect(encapsulation)?;
        for &inner in encapsulation.inner {
            let (measured, reckoned) = if there {
                (Some(pair.overhead(inner)?), pair.reckoned(encapsulation)?)
            } else {
                (None, 0)
            };
            rows.push(Row {
                encapsulation,
                inner,
                measured,
                reckoned,
            });
        }
    }
    Ok(rows)
}

/// Two namespaces with a link between them; they go when this does.
struct Pair {
    names: [String; 2],
}

impl Drop for Pair {
    fn drop(&mut self) {
        let lines = self.names.each_ref().map(|n| format!("netns del {n}"));
        if let Err(e) = netns::manage(&lines, true) {
            eprintln!("taking the measure down: {e:#}");
        }
    }
}

impl Pair {
    fn new() -> Result<Pair> {
        let names = ["a", "b"].map(|end| format!("{PREFIX}{:x}-{end}", std::process::id()));
        let pair = Pair { names };
        let adds = pair.names.each_ref().map(|n| format!("netns add {n}"));
        netns::manage(&adds, false)?;
        let [a, b] = &pair.names;
        netns::batch(
            a,
            &[format!(
                "link add {LINK} mtu {BELOW} type veth peer name {LINK} mtu {BELOW} netns {b}"
            )],
        )?;
        for (n, name) in (0..).zip(&pair.names) {
            let mut lines = vec![format!("link set {LINK} up"), "link set lo up".to_owned()];
            lines.extend(BOTH.iter().map(|f| assign(*f, n, false)));
            netns::batch(name, &lines)?;
        }
        Ok(pair)
    }

    /// A tunnel between the two; false if the kernel has no such device.
    fn connect(&self, encapsulation: Encapsulation) -> Result<bool> {
        let Encapsulation { kind, outer, inner } = encapsulation;
        for (n, name) in (0..).zip(&self.names) {
            let (own, other) = (outer.address(n, false), outer.address(1 - n, false));
            let ends = match kind.split(' ').next() {
                Some("wireguard") => String::new(),
                Some("geneve") => format!("remote {other}"),
                _ => format!("local {own} remote {other}"),
            };
            let device = format!("link add {TUNNEL} mtu {MTU} type {kind} {ends}");
            if let Err(e) = netns::batch(name, &[device]) {
                // What `ip` says of the kernel's EOPNOTSUPP.
                if format!("{e:#}").contains("not supported")
                    || format!("{e:#}").contains("Unknown device type")
                {
                    return Ok(false);
                }
                return Err(e);
            }
        }
        if kind == "wireguard" {
            self.exchange_keys(outer)?;
        }
        for (n, name) in (0..).zip(&self.names) {
            let mut lines = vec![format!("link set {TUNNEL} up")];
            lines.extend(inner.iter().map(|f| assign(*f, n, true)));
            netns::batch(name, &lines)?;
        }
        Ok(true)
    }

    fn exchange_keys(&self, outer: Family) -> Result<()> {
        let keys = [Key::new()?, Key::new()?];
        let to = |n: u8| SocketAddr::new(outer.address(n, false), 51_820);
        let nets = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        for (n, name) in (0..).zip(&self.names) {
            let other = &keys[usize::from(1 - n)];
            keys[usize::from(n)].speak(name, TUNNEL, 51_820, (other, to(1 - n)), &nets)?;
        }
        Ok(())
    }

    /// Bytes that a packet of the tunnel's MTU has more on the link.
    fn overhead(&self, inner: Family) -> Result<u64> {
        let from = &self.names[0];
        // Neighbours are known and keys agreed on before it counts.
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let before = sent(from)?;
            netns::within(from, || send(inner))?;
            let after = settled(from, before)?;
            let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
            // Anything else on the link, and it is measured again.
            if packets == PACKETS && bytes % PACKETS == 0 {
                return Ok(bytes / PACKETS - ETHERNET - u64::from(MTU));
            }
        }
        bail!(
            "the link was never quiet: {:?} packets and bytes",
            sent(from)?
        )
    }

    /// The same as netflow has it.
    fn reckoned(&self, encapsulation: Encapsulation) -> Result<u64> {
        let facts = netns::within(&self.names[0], || {
            NodeReader::default()
                .read(&Ask::default())
                .map_err(|e| anyhow::anyhow!("{}: {}", e.what, e.why))
        })?;
        let link = facts.links.iter().find(|l| l.name == TUNNEL);
        let link = link.context("netflow does not see the tunnel")?;
        Ok(link.overhead(encapsulation.outer == V6).into())
    }
}

fn assign(family: Family, n: u8, inside: bool) -> String {
    let device = if inside { TUNNEL } else { LINK };
    let (ip, prefix) = (family.address(n, inside), family.prefix());
    let nodad = if family == V6 { " nodad" } else { "" };
    format!("addr add {ip}/{prefix} dev {device}{nodad}")
}

/// Sends packets of the tunnel's MTU through it.
fn send(inner: Family) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(inner.address(0, true), 0))?;
    let payload = vec![0; MTU as usize - inner.headers()];
    for _ in 0..PACKETS {
        socket.send_to(&payload, SocketAddr::new(inner.address(1, true), 9))?;
    }
    Ok(())
}

/// Packets and bytes that an end has sent on the link, once no more come.
fn settled(name: &str, before: (u64, u64)) -> Result<(u64, u64)> {
    let mut latest = before;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        let now = sent(name)?;
        if now == latest && now.0 >= before.0 + PACKETS {
            break;
        }
        latest = now;
    }
    Ok(latest)
}

fn sent(name: &str) -> Result<(u64, u64)> {
    let output = Command::new("ip")
        .args(["-n", name, "-s", "-j", "link", "show", "dev", LINK])
        .output()
        .context("ip")?;
    ensure!(output.status.success(), "ip link show: {}", output.status);
    let links: Value = serde_json::from_slice(&output.stdout)?;
    let tx = &links[0]["stats64"]["tx"];
    let number = |name: &str| tx[name].as_u64().context("no counters of the link");
    Ok((number("packets")?, number("bytes")?))
}
