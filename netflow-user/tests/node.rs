//! The node reader on real network namespaces. Needs root; everything happens in namespaces made for it.
//!
//! A node with a bridge and routed Pods, a router, and a second node on the same kernel with a Pod of the same address.

use netflow_user::model::node::{Listener, NodeFacts, PodNetns, Route, RouteLookup};
use netflow_user::model::source::{Ask, NodeSource};
use netflow_user::model::{NetnsId, Proto};
use netflow_user::node::{NodeReader, netns};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Namespaces of one test, taken down at its end.
struct Lab {
    prefix: String,
    names: Vec<String>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _gone = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Lab {
            prefix: format!("nfnode-{}-{n}", std::process::id()),
            names: Vec::new(),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn add(&mut self, name: &str) -> Outcome {
        let full = self.full(name);
        run("ip", &format!("netns add {full}"))?;
        self.names.push(full);
        self.ip(name, "link set lo up")
    }

    /// `ip` in a namespace.
    fn ip(&self, name: &str, args: &str) -> Outcome {
        run("ip", &format!("-n {} {args}", self.full(name)))
    }

    /// `nft` in a namespace.
    fn nft(&self, name: &str, rule: &str) -> Outcome {
        run("ip", &format!("netns exec {} nft {rule}", self.full(name)))
    }

    /// `veth` between two namespaces.
    fn cable(&self, a: (&str, &str), b: (&str, &str)) -> Outcome {
        let peer = self.full(b.0);
        self.ip(
            a.0,
            &format!("link add {} type veth peer name {} netns {peer}", a.1, b.1),
        )?;
        self.ip(a.0, &format!("link set {} up", a.1))?;
        self.ip(b.0, &format!("link set {} up", b.1))
    }

    /// Does something on a thread in a namespace. What it opens stays there.
    fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let file = File::open(format!("/run/netns/{}", self.full(name)))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join().map_err(|_| "the thread panicked")?
        })
    }

    fn id(&self, name: &str) -> Outcome<NetnsId> {
        self.inside(name, || Ok(netns::own()?))
    }

    fn set(&self, name: &str, sysctl: &'static str, value: &'static str) -> Outcome {
        self.inside(name, || {
            Ok(std::fs::write(format!("/proc/sys/net/{sysctl}"), value)?)
        })
    }

    fn read(&self, ask: &Ask) -> Outcome<NodeFacts> {
        self.inside("n", || Ok(NodeReader::default().read(ask)?))
    }
}

fn run(program: &str, args: &str) -> Outcome {
    let out = Command::new(program)
        .args(args.split_whitespace())
        .output()?;
    if out.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(format!("{program} {args}: {why} (these tests need root)").into())
}

/// Reads until `there` finds what it looks for.
fn eventually<T>(mut there: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = there()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err("it never came".into());
        }
        std::thread::yield_now();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

const CLIENT: &str = "10.77.0.2";
const SERVER: &str = "10.77.0.3";
const ROUTED: &str = "10.77.9.4";
const LOST: &str = "10.77.0.5";
const NODE: &str = "192.0.2.2";
const FAR: &str = "198.51.100.9";
const VIP: &str = "10.96.77.1";

/// A node whose Pods hang on a bridge.
fn bridged(lab: &mut Lab, node: &str, pods: &[(&str, &str)]) -> Outcome {
    lab.add(node)?;
    lab.set(node, "ipv4/ip_forward", "1")?;
    lab.ip(node, "link add cbr0 type bridge")?;
    lab.ip(node, "addr add 10.77.0.1/24 dev cbr0")?;
    lab.ip(node, "link set cbr0 up")?;
    for (i, (pod, address)) in pods.iter().enumerate() {
        lab.add(pod)?;
        lab.cable((node, &format!("p{i}")), (pod, "eth0"))?;
        lab.ip(node, &format!("link set p{i} master cbr0"))?;
        lab.ip(pod, &format!("addr add {address}/24 dev eth0"))?;
        lab.ip(pod, "route add default via 10.77.0.1")?;
    }
    Ok(())
}

/// Node `n` with Pods `client`, `server`, `lost` on a bridge and `routed` behind a proxy-ARP device; router `r`; node
/// `m` with Pod `twin`, which has the address of `client`.
fn build() -> Outcome<Lab> {
    let mut lab = Lab::new();
    // First the stranger, so that finding it first would show.
    bridged(&mut lab, "m", &[("twin", CLIENT)])?;
    let pods = [("client", CLIENT), ("server", SERVER), ("lost", LOST)];
    bridged(&mut lab, "n", &pods)?;
    lab.ip("lost", "route del default")?;
    lab.add("routed")?;
    lab.cable(("n", "cali1"), ("routed", "eth0"))?;
    lab.set("n", "ipv4/conf/cali1/proxy_arp", "1")?;
    lab.ip("n", &format!("route add {ROUTED} dev cali1"))?;
    lab.ip("routed", &format!("addr add {ROUTED}/32 dev eth0"))?;
    lab.ip("routed", "route add 169.254.1.1 dev eth0")?;
    lab.ip("routed", "route add default via 169.254.1.1 dev eth0")?;
    lab.add("r")?;
    lab.cable(("n", "eth0"), ("r", "n0"))?;
    lab.cable(("m", "eth0"), ("r", "m0"))?;
    lab.ip("n", &format!("addr add {NODE}/24 dev eth0"))?;
    lab.ip("r", "addr add 192.0.2.1/24 dev n0")?;
    lab.ip("n", "route add default via 192.0.2.1")?;
    lab.ip("n", "link set eth0 mtu 1300")?;
    lab.ip("m", "addr add 203.0.113.2/24 dev eth0")?;
    lab.ip("r", "addr add 203.0.113.1/24 dev m0")?;
    lab.ip("m", "route add default via 203.0.113.1")?;
    Ok(lab)
}

fn ask() -> Ask {
    Ask {
        vips: vec![(ip(VIP), 80, Proto::TCP)],
        conntrack: vec![ip(VIP), ip(SERVER)],
        pods: [CLIENT, SERVER, ROUTED, LOST, NODE].map(ip).to_vec(),
        ..Ask::default()
    }
}

fn pod<'a>(facts: &'a NodeFacts, address: &str) -> Outcome<&'a PodNetns> {
    let mut pods = facts.pods.iter().filter(|p| p.ips.contains(&ip(address)));
    let pod = pods
        .next()
        .ok_or_else(|| format!("no namespace of {address}"))?;
    assert!(pods.next().is_none(), "two namespaces of {address}");
    Ok(pod)
}

fn lookup<'a>(facts: &'a NodeFacts, netns: u32, dst: &str) -> Outcome<&'a RouteLookup> {
    let mut all = facts.lookups.iter();
    let found = all.find(|l| l.netns == netns && l.dst == ip(dst));
    Ok(found.ok_or_else(|| format!("no lookup of {dst} in {netns}"))?)
}

#[test]
fn pods_are_found_among_the_nodes_own_namespaces() -> Outcome {
    let lab = build()?;
    let facts = lab.read(&ask())?;
    assert_eq!(facts.netns, lab.id("n")?.inum);
    for (name, address) in [
        ("client", CLIENT),
        ("server", SERVER),
        ("routed", ROUTED),
        ("lost", LOST),
        ("n", NODE),
    ] {
        let found = pod(&facts, address)?;
        let id = lab.id(name)?;
        assert_eq!((found.netns, found.cookie), (id.inum, id.cookie), "{name}");
        assert!(found.links.iter().any(|l| l.name == "eth0"), "{name}");
    }
    // The same search for the hooks.
    let found = lab.inside("n", || Ok(netns::pods(&[ip(CLIENT)])?))?;
    let ids: Vec<_> = found.namespaces.iter().map(|n| n.id).collect();
    assert_eq!(ids, [lab.id("client")?]);
    // Asked on the other node, the twin has the address.
    let found = lab.inside("m", || Ok(netns::pods(&[ip(CLIENT), ip(SERVER)])?))?;
    let ids: Vec<_> = found.namespaces.iter().map(|n| n.id).collect();
    assert_eq!(ids, [lab.id("twin")?]);
    Ok(())
}

#[test]
fn without_objects_the_default_next_hop_decides() -> Outcome {
    let lab = build()?;
    let found = lab.inside("n", || Ok(netns::by_next_hop()?))?;
    let mut ids: Vec<_> = found.namespaces.iter().map(|n| n.id.inum).collect();
    ids.sort_unstable();
    // Neither the router nor the other node nor its Pod; `lost` has no default route to tell by.
    let mut expected = Vec::new();
    for name in ["client", "server", "routed"] {
        expected.push(lab.id(name)?.inum);
    }
    expected.sort_unstable();
    assert_eq!(ids, expected);
    // The router has no next hop here, and a node behind it is not its Pod either.
    let found = lab.inside("r", || Ok(netns::by_next_hop()?))?;
    for namespace in &found.namespaces {
        assert!(![lab.id("client")?, lab.id("twin")?].contains(&namespace.id));
    }
    Ok(())
}

#[test]
fn a_new_pod_is_found_when_asked_again() -> Outcome {
    let mut lab = build()?;
    let ask = Ask {
        pods: vec![ip("10.77.0.77")],
        ..Ask::default()
    };
    let before = lab.read(&ask)?;
    assert!(before.pods.is_empty());
    let what = "network namespace of 10.77.0.77";
    assert!(before.unread.iter().any(|u| u.what == what));
    lab.add("new")?;
    lab.cable(("n", "pnew"), ("new", "eth0"))?;
    lab.ip("new", "addr add 10.77.0.77/24 dev eth0")?;
    let after = lab.read(&ask)?;
    assert_eq!(pod(&after, "10.77.0.77")?.netns, lab.id("new")?.inum);
    assert!(!after.unread.iter().any(|u| u.what == what));
    Ok(())
}

#[test]
fn a_namespace_without_a_name_is_found_by_its_process() -> Outcome {
    let lab = build()?;
    let mut child = Command::new("unshare")
        .args(["--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let process = format!("/proc/{}/ns/net", child.id());
    let own = std::fs::read_link("/proc/self/ns/net")?;
    eventually(|| Ok((std::fs::read_link(&process)? != own).then_some(())))?;
    lab.ip(
        "n",
        &format!(
            "link add pid0 type veth peer name eth0 netns {}",
            child.id()
        ),
    )?;
    let file = File::open(&process)?;
    let added = std::thread::spawn(move || -> Outcome {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        run("ip", "addr add 10.77.0.78/24 dev eth0")
    });
    added.join().map_err(|_| "the thread panicked")??;
    let facts = lab.read(&Ask {
        pods: vec![ip("10.77.0.78")],
        ..Ask::default()
    });
    child.kill()?;
    child.wait()?;
    assert_eq!(pod(&facts?, "10.77.0.78")?.links.len(), 2);
    Ok(())
}

#[test]
fn links_routes_and_settings_are_those_of_each_namespace() -> Outcome {
    let lab = build()?;
    lab.set("n", "ipv4/conf/cali1/forwarding", "0")?;
    lab.ip("n", "route add blackhole 10.123.0.0/16")?;
    lab.ip(
        "n",
        "route add 10.124.0.0/16 via 192.0.2.1 table 77 mtu 1234",
    )?;
    lab.ip(
        "n",
        "route add 10.125.0.0/16 nexthop via 192.0.2.1 nexthop via 192.0.2.7",
    )?;
    lab.ip(
        "n",
        "neigh add 10.77.0.200 lladdr 02:00:00:00:00:c8 dev cbr0 nud permanent",
    )?;
    lab.ip("n", "link set p0 type bridge_slave hairpin on")?;
    let facts = lab.read(&ask())?;

    let link = |name: &str| facts.links.iter().find(|l| l.name == name);
    let bridge = link("cbr0").ok_or("no cbr0")?;
    let port = link("p0").ok_or("no p0")?;
    assert_eq!(bridge.kind, "bridge");
    assert_eq!((port.kind.as_str(), port.master), ("veth", bridge.ifindex));
    assert!(port.link_elsewhere && port.up && port.running && port.hairpin);
    assert!(!link("p1").ok_or("no p1")?.hairpin);
    assert_eq!(link("eth0").ok_or("no eth0")?.mtu, 1300);
    assert!(bridge.addrs.contains(&(ip("10.77.0.1"), 24)));
    let inner = pod(&facts, CLIENT)?.links.iter().find(|l| l.name == "eth0");
    assert_eq!(inner.map(|l| (l.ifindex, l.mtu)), Some((port.link, 1500)));

    let route = |dst: &str| facts.routes.iter().find(|r| r.dst == ip(dst));
    assert_eq!(
        route("10.123.0.0").map(|r| r.kind.as_str()),
        Some("blackhole")
    );
    let metric = route("10.124.0.0").ok_or("no route in table 77")?;
    assert_eq!((metric.table, metric.mtu), (77, Some(1234)));
    let ways = route("10.125.0.0").map(|r| r.nexthops.len());
    assert_eq!(ways, Some(2));

    let neighbor = facts.neighbors.iter().find(|n| n.ip == ip("10.77.0.200"));
    let neighbor = neighbor.map(|n| (n.state.as_str(), n.lladdr.as_deref()));
    assert_eq!(neighbor, Some(("permanent", Some("02:00:00:00:00:c8"))));

    let setting = |name: &str| facts.sysctls.get(name).map(String::as_str);
    assert_eq!(setting("net.ipv4.ip_forward"), Some("1"));
    assert_eq!(setting("net.ipv4.conf.cali1.forwarding"), Some("0"));
    assert_eq!(setting("net.ipv4.conf.cali1.proxy_arp"), Some("1"));
    Ok(())
}

#[test]
fn the_kernels_own_answers_show_a_missing_route_and_a_learned_mtu() -> Outcome {
    let lab = build()?;
    let mut ask = ask();
    ask.conntrack.push(ip(FAR));
    let facts = lab.read(&ask)?;
    let client = pod(&facts, CLIENT)?.netns;
    let fine = lookup(&facts, client, VIP)?;
    assert_eq!((fine.errno, fine.via), (None, Some(ip("10.77.0.1"))));
    assert_eq!(fine.src, Some(ip(CLIENT)));
    assert_eq!(lookup(&facts, client, FAR)?.learned_mtu(), None);
    let lost = lookup(&facts, pod(&facts, LOST)?.netns, VIP)?;
    assert_eq!(lost.errno, Some(libc::ENETUNREACH));
    let node = lookup(&facts, facts.netns, SERVER)?;
    assert_eq!((node.kind.as_str(), node.via), ("unicast", None));

    // Too big for the uplink: the node says so, and the Pod's kernel remembers.
    let sender = lab.inside("client", || {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((FAR, 9))?;
        Ok(socket)
    })?;
    let learned = eventually(|| {
        let _refused = sender.send(&[0; 1400]);
        let facts = lab.read(&ask)?;
        Ok(lookup(&facts, client, FAR)?.learned_mtu())
    })?;
    assert_eq!(learned, 1300);
    Ok(())
}

#[test]
fn the_same_over_ipv6() -> Outcome {
    const SERVER6: &str = "fd77::3";
    const FAR6: &str = "2001:db8:9::9";
    let lab = build()?;
    lab.set("n", "ipv6/conf/all/forwarding", "1")?;
    lab.ip("n", "addr add fd77::1/64 dev cbr0 nodad")?;
    lab.ip("n", "addr add 2001:db8::2/64 dev eth0 nodad")?;
    lab.ip("n", "route add default via 2001:db8::1")?;
    for (pod, address) in [
        ("client", "fd77::2"),
        ("twin", "fd77::2"),
        ("server", SERVER6),
    ] {
        lab.ip(pod, &format!("addr add {address}/64 dev eth0 nodad"))?;
    }
    lab.ip("client", "route add default via fd77::1")?;
    let ask = Ask {
        conntrack: vec![ip(SERVER6), ip(FAR6)],
        pods: vec![ip("fd77::2"), ip(SERVER6)],
        ..Ask::default()
    };
    let listener = lab.inside("server", || Ok(TcpListener::bind("[::]:8080")?))?;
    let connected =
        eventually(|| lab.inside("client", || Ok(TcpStream::connect((SERVER6, 8080)).ok())))?;
    // The uplink takes less than the Pod's device: a datagram beyond it teaches the Pod.
    let sender = lab.inside("client", || {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.connect((FAR6, 9))?;
        Ok(socket)
    })?;
    let (facts, learned) = eventually(|| {
        let _refused = sender.send(&[0; 1400]);
        let facts = lab.read(&ask)?;
        let client = pod(&facts, "fd77::2")?.netns;
        let learned = lookup(&facts, client, FAR6)?.learned_mtu();
        Ok(learned.map(|mtu| (facts, mtu)))
    })?;
    assert_eq!(learned, 1300);

    let (client, server) = (pod(&facts, "fd77::2")?, pod(&facts, SERVER6)?);
    assert_eq!(client.netns, lab.id("client")?.inum);
    let to_server = client.sockets.iter().find(|s| s.remote.ip() == ip(SERVER6));
    let to_server = to_server.ok_or("no connection")?;
    assert_eq!(to_server.local, connected.local_addr()?);
    let takes = |l: &&Listener| l.accepts(Proto::TCP, SocketAddr::new(ip(SERVER), 8080));
    assert_eq!(server.listeners.iter().filter(takes).count(), 1);
    let nowhere = lookup(&facts, server.netns, FAR6)?;
    assert_eq!(nowhere.errno, Some(libc::ENETUNREACH));
    let default = |r: &&Route| r.dst == ip("::") && r.prefix == 0;
    let via = client.routes.iter().find(default).and_then(|r| r.via);
    assert_eq!(via, Some(ip("fd77::1")));
    drop(listener);
    Ok(())
}

#[test]
fn sockets_and_translated_connections() -> Outcome {
    let lab = build()?;
    lab.nft("n", "add table ip t")?;
    lab.nft(
        "n",
        "add chain ip t pre { type nat hook prerouting priority -100 ; }",
    )?;
    lab.nft(
        "n",
        &format!("add rule ip t pre ip daddr {VIP} tcp dport 80 dnat to {SERVER}:8080"),
    )?;
    lab.nft("server", "add table ip f")?;
    lab.nft(
        "server",
        "add chain ip f in { type filter hook input priority 0 ; }",
    )?;
    lab.nft("server", "add rule ip f in tcp dport 9 drop")?;
    let kubelet = lab.inside("n", || Ok(TcpListener::bind((NODE, 10_250))?))?;
    let (any, loopback, udp) = lab.inside("server", || {
        Ok((
            TcpListener::bind("0.0.0.0:8080")?,
            TcpListener::bind("127.0.0.1:8081")?,
            UdpSocket::bind("[::]:5353")?,
        ))
    })?;
    let mut client = lab.inside("client", || Ok(TcpStream::connect((VIP, 80))?))?;
    let (mut server, from) = any.accept()?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    // One more stays in the queue.
    let waiting = lab.inside("client", || Ok(TcpStream::connect((SERVER, 8080))?))?;
    let facts = lab.read(&ask())?;

    let backend = pod(&facts, SERVER)?;
    let listener = |addr: SocketAddr| {
        let all = &backend.listeners;
        all.iter().find(move |l| l.addr == addr)
    };
    let found = listener(any.local_addr()?).ok_or("no listener on any")?;
    assert!(found.accepts(Proto::TCP, SocketAddr::new(ip(SERVER), 8080)));
    assert_eq!((found.queue, found.backlog), (1, 128));
    let found = listener(loopback.local_addr()?).ok_or("no listener on loopback")?;
    assert!(found.is_loopback());
    assert!(!found.accepts(Proto::TCP, SocketAddr::new(ip(SERVER), 8081)));
    let found = listener(udp.local_addr()?).ok_or("no UDP socket")?;
    assert_eq!((found.proto, found.v6only), (Proto::UDP, false));
    assert!(pod(&facts, CLIENT)?.listeners.is_empty());
    // A Pod of the host's network listens where the node does.
    let host: Vec<_> = facts.listeners.iter().map(|l| l.addr).collect();
    assert_eq!(host, [kubelet.local_addr()?]);
    assert_eq!(pod(&facts, NODE)?.listeners, facts.listeners);
    assert!(backend.counters.contains_key("ListenOverflows"));

    let dialled = pod(&facts, CLIENT)?.sockets.iter();
    let dialled: Vec<_> = dialled.filter(|s| s.remote.ip() == ip(VIP)).collect();
    assert_eq!(dialled.len(), 1);
    assert_eq!(dialled[0].local, client.local_addr()?);
    assert_eq!((dialled[0].state, dialled[0].pmtu), (1, 1500));

    let entry = facts
        .conntrack
        .entries
        .iter()
        .find(|e| e.tuples.orig.dst == ip(VIP))
        .ok_or("no conntrack entry of the VIP")?;
    assert_eq!(entry.tuples.orig.source(), from);
    assert_eq!(
        entry.tuples.translated().destination(),
        SocketAddr::new(ip(SERVER), 8080)
    );
    assert!(entry.tuples.is_dnat() && entry.tuples.status.dst_nat());
    assert_eq!(entry.tcp_state, Some(3));
    // The rule that did it, and one inside the Pod, each where it stands.
    let service = facts.proxy.services.iter().find(|s| s.ip == Some(ip(VIP)));
    let backends = service.map(|s| s.backends.as_slice());
    assert_eq!(backends, Some(&[SocketAddr::new(ip(SERVER), 8080)][..]));
    assert!(backend.firewall.iter().any(|r| r.verdict == "drop"));
    assert!(facts.firewall.iter().all(|r| r.verdict != "drop"));
    assert!(facts.conntrack.count >= 2 && facts.conntrack.max > 0);
    assert!(facts.conntrack.stats.contains_key("insert_failed"));
    // Only what was asked about.
    let others = lab.read(&Ask {
        conntrack: vec![ip("10.9.9.9")],
        ..Ask::default()
    })?;
    assert_eq!(others.conntrack.entries, []);
    assert!(others.conntrack.count >= 2);
    drop(waiting);
    Ok(())
}

#[test]
fn reading_leaves_the_caller_where_it_was() -> Outcome {
    let lab = build()?;
    lab.inside("n", || {
        let before = netns::own()?;
        let facts = NodeReader::default().read(&ask())?;
        assert_eq!(netns::own()?, before);
        assert_eq!(facts.netns, before.inum);
        Ok(())
    })
}

/// Whether this kernel has flowtables: a kernel without refuses the first one.
fn add_flowtable(lab: &Lab) -> Outcome {
    lab.nft("n", "add table inet t")?;
    lab.nft(
        "n",
        "add flowtable inet t fast { hook ingress priority 0 ; devices = { p0 , p1 } ; }",
    )
}

#[test]
fn flowtables_and_what_they_took_over() -> Outcome {
    let mut lab = Lab::new();
    for name in ["n", "a", "b"] {
        lab.add(name)?;
    }
    lab.cable(("n", "p0"), ("a", "eth0"))?;
    lab.cable(("n", "p1"), ("b", "eth0"))?;
    for (at, device, address) in [
        ("n", "p0", "10.77.1.1/24"),
        ("a", "eth0", "10.77.1.2/24"),
        ("n", "p1", "10.77.2.1/24"),
        ("b", "eth0", "10.77.2.2/24"),
    ] {
        lab.ip(at, &format!("addr add {address} dev {device}"))?;
    }
    lab.ip("a", "route add default via 10.77.1.1")?;
    lab.ip("b", "route add default via 10.77.2.1")?;
    lab.set("n", "ipv4/ip_forward", "1")?;
    if let Err(e) = add_flowtable(&lab) {
        println!("this kernel has no flowtables (CONFIG_NF_FLOW_TABLE_INET): {e}");
        // How the kernel says that it has no such type (`nf_tables_newflowtable`); anything else is a fault of this test.
        assert!(e.to_string().contains("No such file or directory"), "{e}");
        let facts = lab.read(&Ask::default())?;
        assert!(facts.flowtables.is_empty());
        let unread = |what: &str| facts.unread.iter().any(|u| u.what.contains(what));
        assert!(!unread("nftables"), "{:?}", facts.unread);
        return Ok(());
    }
    // netflow loads no module, and without this one it cannot list entries.
    run("modprobe", "nf_conntrack_netlink")?;
    lab.nft(
        "n",
        "add chain inet t forwarded { type filter hook forward priority 0 ; }",
    )?;
    lab.nft(
        "n",
        "add rule inet t forwarded ct state established flow add @fast",
    )?;
    let listener = lab.inside("b", || Ok(TcpListener::bind("0.0.0.0:8080")?))?;
    let to = (ip("10.77.2.2"), 8080);
    let mut client = lab.inside("a", || Ok(TcpStream::connect(to)?))?;
    let (mut server, _) = listener.accept()?;
    for _ in 0..4 {
        client.write_all(b"x")?;
        server.read_exact(&mut [0])?;
        server.write_all(b"y")?;
        client.read_exact(&mut [0])?;
    }
    let ask = Ask {
        conntrack: vec![to.0],
        ..Ask::default()
    };
    let facts = lab.read(&ask)?;
    let [table] = &facts.flowtables[..] else {
        return Err(format!("{:?}", facts.flowtables).into());
    };
    assert_eq!((&*table.table, &*table.name), ("inet t", "fast"));
    // In whatever order the kernel keeps them.
    let devices: BTreeSet<&str> = table.devices.iter().map(String::as_str).collect();
    assert_eq!(devices, ["p0", "p1"].into());
    assert!(!table.hardware);
    let [entry] = &facts.conntrack.entries[..] else {
        return Err(format!("{:?}", facts.conntrack).into());
    };
    let status = entry.tuples.status;
    assert!(status.offloaded() && !status.offloaded_to_hardware());
    Ok(())
}
