//! The kernel part against the running kernel, in network namespaces that the tests make and remove.
//!
//! They need root and the Debian packages iproute2 and iptables; without, they fail and say so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "kernel/functions.rs"]
mod functions;

use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};
use netflow_user::kernel::{self, Kernel, Options};
use netflow_user::model::capability::Capability;
use netflow_user::model::flow::{FlowSnapshot, TcpFlags};
use netflow_user::model::record::{Event, NfHook, Record};
use netflow_user::model::source::RecordSource as _;
use netflow_user::model::{Input, NetnsId, Proto};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Network namespace that the process of [`child_runs_until_killed`] shall start in.
const CHILD_NETNS: &str = "NETFLOW_TEST_CHILD_NETNS";
/// Set when that process shall use clsact.
const CHILD_CLSACT: &str = "NETFLOW_TEST_CHILD_CLSACT";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace of the test's own, removed at its end.
struct Netns {
    name: String,
}

impl Netns {
    fn new() -> Netns {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads BPF programs: run it as root"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nfkern-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let netns = Netns { name };
        netns.ip("link set lo up");
        // Router solicitations and neighbour discovery would be noise between the packets that a test sends.
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        netns
    }

    /// Runs in a thread of its own inside the namespace.
    fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.name);
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn ip(&self, command: &str) {
        self.run("ip", command);
    }

    fn run(&self, program: &str, command: &str) -> String {
        let net = format!("--net=/run/netns/{}", self.name);
        let mut args = vec![net.as_str(), program];
        args.extend(command.split_ascii_whitespace());
        run("nsenter", &args)
    }

    fn sysctl(&self, path: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/{path}"), value).unwrap());
    }

    fn id(&self) -> NetnsId {
        self.inside(|| kernel::sys::current_netns().unwrap())
    }

    /// A veth pair between two namespaces, with addresses.
    fn link(&self, own: (&str, &str), other: (&Netns, &str, &str)) {
        let (name, address) = own;
        let (peer, peer_name, peer_address) = other;
        self.pair(name, peer, peer_name);
        self.address(name, address);
        peer.address(peer_name, peer_address);
    }

    /// A veth pair that is down.
    fn pair(&self, name: &str, peer: &Netns, peer_name: &str) {
        self.ip(&format!(
            "link add {name} type veth peer name {peer_name} netns {}",
            peer.name
        ));
    }

    /// An interface comes up with an address.
    fn address(&self, interface: &str, address: &str) {
        self.ip(&format!("addr add {address} dev {interface}"));
        self.ip(&format!("link set {interface} up"));
    }

    /// Names of the TCX programs on both sides of an interface.
    fn tcx_programs(&self, interface: &str) -> Vec<String> {
        self.inside(|| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .into_iter()
                .flat_map(|side| SchedClassifier::query_tcx(interface, side).unwrap().1)
                .map(|program| program.name_as_str().unwrap_or_default().to_owned())
                .collect()
        })
    }

    /// What `tc` shows of the filters on both sides.
    fn filters(&self, interface: &str) -> String {
        ["ingress", "egress"]
            .map(|side| self.run("tc", &format!("-s filter show dev {interface} {side}")))
            .concat()
    }

    fn has_clsact(&self, interface: &str) -> bool {
        self.run("tc", &format!("qdisc show dev {interface}"))
            .contains("clsact")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Moves the calling thread into a namespace.
fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program} (Debian: iproute2, iptables, util-linux): {e}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Polls until `ready` says so.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything that a kernel has told.
#[derive(Debug, Default)]
struct Seen {
    records: Vec<Record>,
    flows: Vec<FlowSnapshot>,
    lost: BTreeMap<String, u64>,
}

impl Seen {
    fn drain(&mut self, kernel: &mut Kernel) {
        for input in kernel.drain().unwrap() {
            match input {
                Input::Records { records } => self.records.extend(records),
                Input::Flows { flows, .. } => self.flows.extend(flows),
                Input::Lost { lost } => self.lost = lost,
                other => panic!("not for a record source: {other:?}"),
            }
        }
    }

    /// Waits for a record.
    fn record(&mut self, kernel: &mut Kernel, what: &str, is: impl Fn(&Record) -> bool) -> Record {
        let mut found = None;
        until(what, || {
            self.drain(kernel);
            found = self.records.iter().find(|r| is(r)).cloned();
            found.is_some()
        });
        found.unwrap()
    }
}

fn to_port(record: &Record, port: u16) -> bool {
    record.tuple.is_some_and(|t| t.dport == port)
}

fn from_port(record: &Record, port: u16) -> bool {
    record.tuple.is_some_and(|t| t.sport == port)
}

fn clsact() -> Options {
    Options {
        force_clsact: true,
        ..Options::default()
    }
}

/// A connection that is accepted and one that is refused, seen from the machine that answers, with tc attached either way.
#[test]
fn a_handshake_and_a_refusal() {
    for options in [Options::default(), clsact()] {
        let (node, client) = (Netns::new(), Netns::new());
        node.link(("eth0", "10.91.0.1/24"), (&client, "eth0", "10.91.0.2/24"));
        node.inside(|| {
            let mut kernel = Kernel::start(options.clone()).unwrap();
            let flow = kernel.tiers()[0].clone();
            let method = if options.force_clsact {
                "clsact"
            } else {
                "tcx"
            };
            assert_eq!(flow.tier.as_deref(), Some(method));
            let listener = TcpListener::bind("10.91.0.1:8080").unwrap();
            client.inside(|| {
                let mut stream = TcpStream::connect("10.91.0.1:8080").unwrap();
                stream.write_all(b"hello").unwrap();
                assert!(TcpStream::connect("10.91.0.1:9").is_err());
            });
            let (mut accepted, _) = listener.accept().unwrap();
            let mut hello = [0; 5];
            accepted.read_exact(&mut hello).unwrap();

            let mut seen = Seen::default();
            let syn = seen.record(&mut kernel, "the SYN", |r| {
                matches!(r.event, Event::Syn(_)) && to_port(r, 8080)
            });
            assert_eq!(syn.netns, kernel.own_netns().inum);
            assert_eq!(syn.tuple.unwrap().src.to_string(), "10.91.0.2");
            seen.record(&mut kernel, "the SYN-ACK", |r| {
                matches!(&r.event, Event::SynAck(s) if s.flags.ack()) && from_port(r, 8080)
            });
            seen.record(&mut kernel, "the RST", |r| {
                matches!(&r.event, Event::Rst(s) if s.flags.rst()) && from_port(r, 9)
            });
            seen.record(&mut kernel, "the socket layer's word on it", |r| {
                r.event == Event::ResetSent && from_port(r, 9)
            });
            let dropped = seen.record(&mut kernel, "the drop", |r| {
                matches!(r.event, Event::Drop(_)) && to_port(r, 9)
            });
            let Event::Drop(dropped) = dropped.event else {
                unreachable!()
            };
            assert_eq!(
                (dropped.reason.as_str(), dropped.place.as_str()),
                ("NO_SOCKET", "tcp_v4_rcv")
            );
            until("the counters", || {
                seen.drain(&mut kernel);
                seen.flows.iter().any(|f| {
                    let of_the_client = f.key.tuple.dport == 8080;
                    of_the_client && f.stats.data.is_some() && f.stats.packets >= 3
                })
            });
            assert_eq!(seen.lost.get("garbled"), None);
        });
    }
}

/// A client, a node that translates and filters, and a backend.
struct Routed {
    client: Netns,
    node: Netns,
    backend: Netns,
}

const VIP: &str = "10.96.7.7";
const BACKEND: &str = "10.92.2.2";

impl Routed {
    fn new(iptables: &str) -> Routed {
        let (client, node, backend) = (Netns::new(), Netns::new(), Netns::new());
        node.link(("to-c", "10.92.1.1/24"), (&client, "eth0", "10.92.1.2/24"));
        node.link(
            ("to-b", "10.92.2.1/24"),
            (&backend, "eth0", &format!("{BACKEND}/24")),
        );
        client.ip("route add default via 10.92.1.1");
        backend.ip("route add default via 10.92.2.1");
        node.sysctl("net/ipv4/ip_forward", "1");
        for rule in [
            format!("-t nat -A PREROUTING -d {VIP} -p tcp --dport 80 -j DNAT --to {BACKEND}:8080"),
            format!("-t nat -A PREROUTING -d {VIP} -p tcp --dport 81 -j DNAT --to {BACKEND}:8081"),
            "-A FORWARD -p tcp --dport 8081 -j DROP".to_owned(),
            "-A FORWARD -p tcp --dport 8082 -j REJECT".to_owned(),
        ] {
            node.run(iptables, &rule);
        }
        Routed {
            client,
            node,
            backend,
        }
    }

    fn connect(&self, to: &str) -> bool {
        let address = to.parse().unwrap();
        self.client
            .inside(|| TcpStream::connect_timeout(&address, Duration::from_millis(600)).is_ok())
    }

    /// One translated connection that works, one that a rule drops, one that a rule rejects.
    fn traffic(&self) {
        let listener = self
            .backend
            .inside(|| TcpListener::bind((BACKEND, 8080)).unwrap());
        assert!(self.connect(&format!("{VIP}:80")));
        assert!(!self.connect(&format!("{VIP}:81")));
        assert!(!self.connect(&format!("{BACKEND}:8082")));
        drop(listener);
    }
}

fn nat_of(seen: &mut Seen, kernel: &mut Kernel) {
    let nat = seen.record(
        kernel,
        "the translation",
        |r| matches!(&r.event, Event::Nat { ct, .. } if ct.orig.dport == 80),
    );
    let Event::Nat { ct, .. } = nat.event else {
        unreachable!()
    };
    assert_eq!(ct.orig.dst.to_string(), VIP);
    assert_eq!(ct.translated().destination().to_string(), "10.92.2.2:8080");
    assert!(ct.is_dnat() && !ct.is_snat() && ct.status.dst_nat());
}

#[test]
fn translation_drop_and_reject() {
    for (iptables, force_raw_tp) in [
        ("iptables-legacy", false),
        ("iptables-nft", false),
        ("iptables-nft", true),
    ] {
        let lab = Routed::new(iptables);
        lab.node.inside(|| {
            let mut kernel = Kernel::start(Options {
                force_raw_tp,
                ..Options::default()
            })
            .unwrap();
            let tiers = kernel.tiers();
            let drops = tiers.iter().find(|t| t.capability == Capability::Drop);
            let tier = if force_raw_tp { "raw_tp" } else { "tp_btf" };
            let drops = drops.unwrap().tier.as_deref().unwrap();
            assert!(drops.starts_with(tier), "{drops}");
            lab.traffic();
            let mut seen = Seen::default();
            nat_of(&mut seen, &mut kernel);
            let dropped = seen.record(&mut kernel, "the drop", |r| {
                matches!(r.event, Event::Drop(_)) && to_port(r, 8081)
            });
            let Event::Drop(dropped) = dropped.event else {
                unreachable!()
            };
            assert_eq!(dropped.reason, "NETFILTER_DROP", "{iptables}");
            assert_eq!(dropped.hook, Some(NfHook::Forward));
            assert_eq!(dropped.flags, TcpFlags(2));
            let ct = dropped.ct.unwrap();
            assert_eq!(ct.orig.destination().to_string(), format!("{VIP}:81"));
            assert!(ct.is_dnat() && !ct.status.confirmed());
            let rejected = seen.record(&mut kernel, "the reject", |r| {
                matches!(r.event, Event::IcmpSent { .. }) && to_port(r, 8082)
            });
            assert!(matches!(
                rejected.event,
                Event::IcmpSent {
                    icmp_type: 3,
                    code: 3,
                    ..
                }
            ));
            seen.record(&mut kernel, "the ICMP error on its way", |r| {
                matches!(&r.event, Event::IcmpError(e) if e.quoted.is_some_and(|t| t.dport == 8082))
            });
        });
    }
}

/// The same packets of a retrying client are few records with a count, and none is forgotten.
#[test]
fn repeated_drops_are_counted() {
    let lab = Routed::new("iptables-legacy");
    lab.node
        .run("iptables-legacy", "-A FORWARD -p udp --dport 5353 -j DROP");
    lab.node.inside(|| {
        let mut kernel = Kernel::start(Options::default()).unwrap();
        lab.client.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..50 {
                socket.send_to(b"x", (BACKEND, 5353)).unwrap();
            }
        });
        let mut seen = Seen::default();
        let mut drops = Vec::new();
        until("all 50 drops", || {
            seen.drain(&mut kernel);
            drops = seen
                .records
                .iter()
                .filter(|r| to_port(r, 5353))
                .filter_map(|r| match &r.event {
                    Event::Drop(d) => Some(d.clone()),
                    _ => None,
                })
                .collect();
            drops.iter().map(|d| d.count).sum::<u32>() == 50
        });
        assert!(drops.len() <= 3, "{} records", drops.len());
        assert!(drops.iter().all(|d| d.ct.is_some()), "{drops:?}");
    });
}

/// Drops inside a Pod's namespace are told only after it is watched.
#[test]
fn only_watched_namespaces_are_told_of() {
    let lab = Routed::new("iptables-legacy");
    let pod = lab.backend.id();
    lab.node.inside(|| {
        let mut kernel = Kernel::start(Options::default()).unwrap();
        assert!(!lab.connect(&format!("{BACKEND}:7001")));
        kernel.watch_netns(&[pod]).unwrap();
        assert!(!lab.connect(&format!("{BACKEND}:7002")));
        let mut seen = Seen::default();
        let record = seen.record(&mut kernel, "the drop in the Pod", |r| {
            matches!(r.event, Event::Drop(_)) && to_port(r, 7002)
        });
        assert_eq!(record.netns, pod.inum);
        assert!(
            seen.records
                .iter()
                .all(|r| !(matches!(r.event, Event::Drop(_)) && to_port(r, 7001)))
        );
        kernel.watch_netns(&[]).unwrap();
        assert!(!lab.connect(&format!("{BACKEND}:7003")));
        // The RST is told by the node's own interface, after the Pod would have told of the drop.
        seen.record(&mut kernel, "the RST through the node", |r| {
            matches!(r.event, Event::Rst(_)) && from_port(r, 7003)
        });
        assert!(
            seen.records
                .iter()
                .all(|r| !(matches!(r.event, Event::Drop(_)) && to_port(r, 7003)))
        );
    });
}

#[test]
fn translation_by_conntrack_events() {
    let lab = Routed::new("iptables-legacy");
    lab.node.inside(|| {
        let mut kernel = Kernel::start(Options {
            force_ctnetlink: true,
            ..Options::default()
        })
        .unwrap();
        let nat = kernel.tiers()[1].clone();
        assert_eq!(nat.tier.as_deref(), Some("ctnetlink"));
        lab.traffic();
        let mut seen = Seen::default();
        nat_of(&mut seen, &mut kernel);
    });
}

/// Held by a test that measures how soon something is attached, and by one that keeps the kernel busy attaching: all
/// network namespaces share one `rtnl_lock`.
static ATTACHING: Mutex<()> = Mutex::new(());

fn attaching_alone() -> MutexGuard<'static, ()> {
    ATTACHING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_new_interface_is_attached_within_a_second() {
    let _alone = attaching_alone();
    for options in [Options::default(), clsact()] {
        let (node, pod) = (Netns::new(), Netns::new());
        node.inside(|| {
            let mut kernel = Kernel::start(options).unwrap();
            node.pair("late", &pod, "eth0");
            let start = Instant::now();
            let is_known = |kernel: &Kernel, name: &str| {
                let all = kernel.interfaces();
                all.iter().any(|i| i.name == name && i.problem.is_empty())
            };
            until("the interface", || is_known(&kernel, "late"));
            assert!(start.elapsed() < Duration::from_secs(1));
            node.address("late", "10.93.0.1/24");
            pod.address("eth0", "10.93.0.2/24");
            pod.inside(|| assert!(TcpStream::connect("10.93.0.1:9").is_err()));
            let mut seen = Seen::default();
            seen.record(&mut kernel, "the SYN", |r| {
                matches!(r.event, Event::Syn(_)) && to_port(r, 9)
            });
            node.ip("link set late name renamed");
            until("the new name", || is_known(&kernel, "renamed"));
            node.ip("link del renamed");
            until("the end of the interface", || {
                kernel.interfaces().iter().all(|i| i.name == "lo")
            });
            assert_eq!(kernel.interfaces().len(), 1);
        });
    }
}

#[test]
fn a_hundred_interfaces() {
    let _alone = attaching_alone();
    let (node, pods) = (Netns::new(), Netns::new());
    for n in 0..100 {
        node.ip(&format!(
            "link add v{n} group 7 type veth peer name p{n} netns {}",
            pods.name
        ));
    }
    let few = Netns::new();
    let start_in = |netns: &Netns, options: Options| {
        netns.inside(|| {
            let start = Instant::now();
            let kernel = Kernel::start(options).unwrap();
            let took = start.elapsed();
            let interfaces = kernel.interfaces();
            assert!(interfaces.iter().all(|i| i.problem.is_empty()));
            (took, interfaces.len())
        })
    };
    // The kernel waits for an RCU grace period for every TCX link (`tcx_entry_sync` in `include/net/tcx.h`, v6.18): some
    // milliseconds each, more on a busy machine, whoever attaches. The bound is far above that: it is to find out
    // a cost that grows with the number of interfaces there are already.
    for options in [Options::default(), clsact()] {
        let (alone, one) = start_in(&few, options.clone());
        let (together, all) = start_in(&node, options);
        assert_eq!((one, all), (1, 101));
        let added = together.saturating_sub(alone);
        println!("start {alone:?} with lo alone, {together:?} with 100 veths");
        assert!(added < Duration::from_secs(10), "100 veths took {added:?}");
    }
    // With their namespace they would go later, while the next test measures.
    node.ip("link del group 7");
}

/// A filter of somebody else: one instruction that matches nothing.
fn add_foreign_filter(netns: &Netns, priority: &str) {
    let net = format!("--net=/run/netns/{}", netns.name);
    let filter = "tc filter add dev eth0 ingress protocol all prio";
    let mut args = vec![net.as_str()];
    args.extend(filter.split(' '));
    args.extend([priority, "bpf", "bytecode", "1,6 0 0 0"]);
    run("nsenter", &args);
}

/// A tc program of somebody else.
struct Foreign {
    object: aya::Ebpf,
}

impl Foreign {
    const NAME: &str = "bench_empty";

    /// Attaches to the ingress of `eth0` in the namespace of the calling thread.
    fn attach(how: TcAttachOptions) -> Foreign {
        let bytes = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netflow"));
        let mut object = aya::Ebpf::load(bytes).unwrap();
        let program: &mut SchedClassifier =
            object.program_mut(Self::NAME).unwrap().try_into().unwrap();
        program.load().unwrap();
        program
            .attach_with_options("eth0", TcAttachType::Ingress, how)
            .unwrap();
        Foreign { object }
    }

    /// Packets it has seen while statistics were on.
    fn packets(&self) -> u64 {
        let info = self.object.program(Self::NAME).unwrap().info().unwrap();
        info.run_count()
    }
}

fn at_priority(priority: u16) -> TcAttachOptions {
    TcAttachOptions::Netlink(NlOptions {
        priority,
        ..NlOptions::default()
    })
}

#[test]
fn foreign_programs_keep_seeing_every_packet() {
    for options in [Options::default(), clsact()] {
        let (node, client) = (Netns::new(), Netns::new());
        node.link(("eth0", "10.94.0.1/24"), (&client, "eth0", "10.94.0.2/24"));
        node.run("tc", "qdisc add dev eth0 clsact");
        // Nothing but the datagrams shall pass: no neighbour discovery, and somebody takes them.
        for (from, to, address) in [(&client, &node, "10.94.0.1"), (&node, &client, "10.94.0.2")] {
            let lladdr = mac(to);
            from.ip(&format!(
                "neigh replace {address} lladdr {lladdr} dev eth0 nud permanent"
            ));
        }
        let _receiver = node.inside(|| UdpSocket::bind("10.94.0.1:5000").unwrap());
        let (before, after) = if options.force_clsact {
            (at_priority(1), at_priority(40))
        } else {
            (
                TcAttachOptions::TcxOrder(LinkOrder::last()),
                TcAttachOptions::TcxOrder(LinkOrder::first()),
            )
        };
        node.inside(|| {
            let _statistics = enable_stats(Stats::RunTime).unwrap();
            let there_before = Foreign::attach(before);
            let mut kernel = Kernel::start(options.clone()).unwrap();
            let there_after = Foreign::attach(after);
            let foreign = [&there_before, &there_after];
            let start = foreign.map(Foreign::packets);
            client.inside(|| {
                let socket = UdpSocket::bind("10.94.0.2:4000").unwrap();
                for _ in 0..7 {
                    socket.send_to(b"x", "10.94.0.1:5000").unwrap();
                }
            });
            let mut seen = Seen::default();
            until("our own count", || {
                seen.drain(&mut kernel);
                seen.flows
                    .iter()
                    .any(|f| f.key.tuple.dport == 5000 && f.stats.packets == 7)
            });
            for (program, start) in foreign.into_iter().zip(start) {
                assert_eq!(program.packets() - start, 7);
            }
        });
        assert!(node.has_clsact("eth0"));
        assert!(!node.filters("eth0").contains("netflow"));
    }
}

fn mac(netns: &Netns) -> String {
    netns.inside(|| {
        let output = run("ip", &["-o", "link", "show", "dev", "eth0"]);
        let mut words = output.split_ascii_whitespace();
        words.find(|word| *word == "link/ether").unwrap();
        words.next().unwrap().to_owned()
    })
}

#[test]
fn a_qdisc_of_ours_goes_unless_somebody_uses_it() {
    let (node, peer) = (Netns::new(), Netns::new());
    node.link(("eth0", "10.95.0.1/24"), (&peer, "eth0", "10.95.0.2/24"));
    node.inside(|| {
        let kernel = Kernel::start(clsact()).unwrap();
        assert!(node.has_clsact("eth0") && node.has_clsact("lo"));
        assert!(node.filters("eth0").contains("netflow:in:"));
        add_foreign_filter(&node, "9");
        drop(kernel);
    });
    assert!(!node.has_clsact("lo"));
    assert!(node.has_clsact("eth0"));
    let left = node.filters("eth0");
    assert!(
        left.contains("bytecode") && !left.contains("netflow"),
        "{left}"
    );
}

/// Not a test by itself: the process that the tests below kill. Without the environment variable it has nothing to do.
#[test]
fn child_runs_until_killed() {
    let Ok(netns) = std::env::var(CHILD_NETNS) else {
        return;
    };
    enter(&netns);
    let force_clsact = std::env::var(CHILD_CLSACT).is_ok();
    let kernel = Kernel::start(Options {
        force_clsact,
        ..Options::default()
    })
    .unwrap();
    println!("\nATTACHED {}", kernel.interfaces().len());
    loop {
        std::thread::park();
    }
}

/// Starts the process above in `netns` and kills it as soon as it has attached and `while_alive` has run.
fn killed(netns: &Netns, clsact: bool, while_alive: impl FnOnce()) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_runs_until_killed", "--nocapture"])
        .env(CHILD_NETNS, &netns.name)
        .stdout(Stdio::piped());
    if clsact {
        command.env(CHILD_CLSACT, "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let attached = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("ATTACHED"));
    assert!(attached, "the child did not start");
    while_alive();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_with_tcx_nothing_is_left_at_once() {
    let (node, peer) = (Netns::new(), Netns::new());
    node.link(("eth0", "10.96.0.1/24"), (&peer, "eth0", "10.96.0.2/24"));
    killed(&node, false, || {
        let programs = node.tcx_programs("eth0");
        assert_eq!(programs.len(), 2, "{programs:?}");
    });
    // wait() returned: the descriptors are closed.
    assert!(node.tcx_programs("eth0").is_empty());
    assert!(node.tcx_programs("lo").is_empty());
    assert!(!node.has_clsact("eth0"));
}

#[test]
fn killed_with_clsact_the_next_one_cleans_up() {
    for by_start in [false, true] {
        let (node, peer) = (Netns::new(), Netns::new());
        node.link(("eth0", "10.97.0.1/24"), (&peer, "eth0", "10.97.0.2/24"));
        node.run("tc", "qdisc add dev eth0 clsact");
        add_foreign_filter(&node, "5");
        killed(&node, true, || {
            let removed = node.inside(|| kernel::cleanup().unwrap());
            assert_eq!(removed, Vec::<String>::new(), "the owner is alive");
            assert!(node.filters("eth0").contains("netflow:in:"));
        });
        let left = node.filters("eth0");
        assert!(left.contains("netflow:in:") && left.contains("netflow:out:"));
        assert!(node.has_clsact("lo"));
        if by_start {
            node.inside(|| drop(Kernel::start(Options::default()).unwrap()));
        } else {
            let removed = node.inside(|| kernel::cleanup().unwrap());
            assert_eq!(
                removed.len(),
                5,
                "two filters each and a qdisc: {removed:?}"
            );
        }
        let left = node.filters("eth0");
        assert!(!left.contains("netflow"), "{left}");
        assert!(left.contains("bytecode"), "{left}");
        assert!(node.has_clsact("eth0") && !node.has_clsact("lo"));
    }
}

#[test]
fn two_at_a_time() {
    let (node, client) = (Netns::new(), Netns::new());
    node.link(("eth0", "10.98.0.1/24"), (&client, "eth0", "10.98.0.2/24"));
    node.inside(|| {
        let mut kernels = [
            Kernel::start(Options::default()).unwrap(),
            Kernel::start(Options::default()).unwrap(),
            Kernel::start(clsact()).unwrap(),
            Kernel::start(clsact()).unwrap(),
        ];
        client.inside(|| assert!(TcpStream::connect("10.98.0.1:9").is_err()));
        for kernel in &mut kernels {
            Seen::default().record(kernel, "the SYN", |r| {
                matches!(r.event, Event::Syn(_)) && to_port(r, 9)
            });
        }
    });
    assert!(!node.has_clsact("eth0"));
    assert!(node.tcx_programs("eth0").is_empty());
}

/// The kernel's types from a file, with the programs' own log and every hook switched on.
#[test]
fn started_with_everything() {
    let node = Netns::new();
    node.inside(|| {
        let mut kernel = Kernel::start(Options {
            btf: Some("/sys/kernel/btf/vmlinux".into()),
            verbose_log: true,
            ring_bytes: 1 << 16,
            ..Options::default()
        })
        .unwrap();
        kernel
            .watch_addresses(&[IpAddr::from([192, 0, 2, 1])])
            .unwrap();
        assert!(TcpStream::connect("192.0.2.1:9").is_err());
        let record =
            Seen::default().record(&mut kernel, "the failed route lookup", is_failed_lookup);
        assert_eq!(record.netns, kernel.own_netns().inum);
    });
}

fn is_failed_lookup(record: &Record) -> bool {
    matches!(record.event, Event::FibError { err, .. } if err < 0)
}

/// They come several times for each packet that is forwarded.
#[test]
fn route_lookups_are_listened_to_only_while_somebody_asks() {
    let node = Netns::new();
    node.inside(|| {
        let mut kernel = Kernel::start(Options::default()).unwrap();
        let own = kernel.own_netns().inum;
        let mut heard = |asked: &[IpAddr], to: &str| {
            kernel.watch_addresses(asked).unwrap();
            // The lookup is made within the call, and so is its record.
            assert!(TcpStream::connect(to).is_err());
            let mut seen = Seen::default();
            seen.drain(&mut kernel);
            let here = |r: &&Record| r.netns == own && is_failed_lookup(r);
            seen.records.iter().filter(here).count()
        };
        let asked = [IpAddr::from([192, 0, 2, 1])];
        assert_eq!(heard(&[], "192.0.2.1:9"), 0, "nobody asked yet");
        assert_ne!(heard(&asked, "192.0.2.1:9"), 0, "somebody asks");
        assert_eq!(heard(&[], "192.0.2.2:9"), 0, "nobody asks any more");
        assert_ne!(heard(&asked, "192.0.2.3:9"), 0, "somebody asks again");
    });
}

#[test]
fn without_btf_it_says_what_to_do() {
    let node = Netns::new();
    node.inside(|| {
        let options = Options {
            btf: Some("/nonexistent/vmlinux".into()),
            ..Options::default()
        };
        let Err(error) = Kernel::start(options) else {
            panic!("no such file");
        };
        assert!(
            error.to_string().contains("/nonexistent/vmlinux"),
            "{error}"
        );
        assert!(error.hint().contains("--btf"));
    });
    assert!(node.tcx_programs("lo").is_empty());
}

/// The watched addresses, IPv4 and the loopback interface: a hostNetwork client of a local backend is on `lo` only.
#[test]
fn loopback_is_seen_once() {
    let node = Netns::new();
    node.inside(|| {
        let mut kernel = Kernel::start(Options::default()).unwrap();
        kernel
            .watch_addresses(&[IpAddr::from([127, 0, 0, 1])])
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let _stream = TcpStream::connect("127.0.0.1:8080").unwrap();
        let _accepted = listener.accept().unwrap();
        let mut seen = Seen::default();
        seen.record(&mut kernel, "the SYN-ACK", |r| {
            matches!(r.event, Event::SynAck(_)) && from_port(r, 8080)
        });
        let syns = seen
            .records
            .iter()
            .filter(|r| matches!(r.event, Event::Syn(_)) && to_port(r, 8080))
            .count();
        assert_eq!(syns, 1);
        let tcp = |f: &FlowSnapshot| f.key.tuple.proto == Proto::TCP;
        until("both directions", || {
            seen.drain(&mut kernel);
            seen.flows.iter().filter(|f| tcp(f)).count() >= 4
        });
        assert!(kernel.live_flows() >= 4);
    });
}
