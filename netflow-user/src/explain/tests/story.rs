//! A small cluster and a way to tell what a node saw, one attempt at a time.

use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::model::answer::Answer;
use crate::model::conntrack::CtStatus;
use crate::model::feed::Start;
use crate::model::flow::{Direction, FlowKey, FlowSnapshot, FlowStats, TcpFlags};
use crate::model::node::{
    FirewallRule, Link, NodeFacts, PodNetns, ProxyService, RouteLookup, RuleMatch,
};
use crate::model::objects::{
    Condition, ContainerPort, Endpoint, EndpointSlice, Node, Objects, Pod, Service, ServicePort,
    SlicePort, TargetPort,
};
use crate::model::query::{Query, Target};
use crate::model::record::{
    Drop, Event, IcmpError, IpvsMethod, NfHook, Record, Rules, Segment, Verdict,
};
use crate::model::shared::Name;
use crate::model::{CtTuples, Input, Proto, Time, Tuple};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub const CLIENT: &str = "10.9.1.5";
pub const BACKEND: &str = "10.9.1.7";
pub const REMOTE: &str = "10.9.2.7";
pub const VIP: &str = "172.30.4.4";
pub const NODE_A: &str = "192.0.2.1";
pub const NODE_B: &str = "192.0.2.2";
/// Interfaces of node A: the client's and the local backend's veth, the uplink.
pub const CLIENT_VETH: u32 = 11;
pub const BACKEND_VETH: u32 = 12;
pub const UPLINK: u32 = 2;
pub const NETNS: u32 = 4_026_531_000;
pub const BACKEND_NETNS: u32 = 4_026_532_000;

pub fn ip(s: &str) -> IpAddr {
    s.parse().unwrap_or_else(|_| panic!("{s} is no address"))
}

pub fn ms(n: u64) -> Time {
    Time(1_800_000_000_000_000_000 + n * 1_000_000)
}

pub fn tuple(proto: Proto, from: &str, sport: u16, to: &str, dport: u16) -> Tuple {
    Tuple {
        proto,
        src: ip(from),
        sport,
        dst: ip(to),
        dport,
    }
}

/// Conntrack as it is before a packet has passed all rules: where it goes is decided, the entry is not in the table.
pub fn unconfirmed(orig: Tuple, reply: Tuple) -> CtTuples {
    CtTuples {
        orig,
        reply,
        status: CtStatus(0x120),
        zone: 0,
        mark: 0,
        info: 2,
    }
}

pub fn pod(name: &str, address: &str, node: &str, ports: &[u16]) -> Pod {
    let port = |n: &u16| ContainerPort {
        container: "app".into(),
        name: Name::default(),
        port: *n,
        proto: Proto::TCP,
    };
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        ips: vec![ip(address)],
        node: Some(node.into()),
        phase: "Running".into(),
        conditions: [(
            "Ready".to_owned(),
            Condition {
                status: true,
                reason: Name::default(),
            },
        )]
        .into(),
        ports: ports.iter().map(port).collect(),
        ..Pod::default()
    }
}

/// A Service `shop/cart` on port 80 → 8080 with the endpoints given.
pub fn objects(endpoints: &[&str]) -> Objects {
    let endpoint = |a: &&str| Endpoint {
        addresses: vec![ip(a)],
        ready: true,
        serving: true,
        ..Endpoint::default()
    };
    let mut backend = pod("cart", BACKEND, "a", &[8080]);
    let mut remote = pod("cart-far", REMOTE, "b", &[8080]);
    for p in [&mut backend, &mut remote] {
        p.labels.insert("app".into(), "cart".into());
    }
    let node = |name: &str, address: &str| Node {
        name: name.into(),
        internal_ips: vec![ip(address)],
        ..Node::default()
    };
    Objects {
        time: ms(0),
        source: "manifests: test".into(),
        services: vec![Service {
            namespace: "shop".into(),
            name: "cart".into(),
            kind: "ClusterIP".into(),
            cluster_ips: vec![ip(VIP)],
            ports: vec![ServicePort {
                name: String::new(),
                proto: Proto::TCP,
                port: 80,
                target: TargetPort::Number(8080),
                node_port: None,
            }],
            selector: Some([("app".to_owned(), "cart".to_owned())].into()),
            ..Service::default()
        }]
        .into(),
        slices: vec![EndpointSlice {
            namespace: "shop".into(),
            name: "cart-x".into(),
            service: "cart".into(),
            by_controller: false,
            ports: vec![SlicePort {
                name: String::new(),
                proto: Proto::TCP,
                port: Some(8080),
            }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }]
        .into(),
        pods: vec![pod("client", CLIENT, "a", &[]), backend, remote].into(),
        nodes: vec![node("a", NODE_A), node("b", NODE_B)].into(),
        ..Objects::default()
    }
}

fn link(ifindex: u32, name: &str, address: Option<&str>) -> Link {
    Link {
        ifindex,
        name: name.into(),
        mtu: 1500,
        up: true,
        addrs: address.into_iter().map(|a| (ip(a), 24)).collect(),
        ..Link::default()
    }
}

/// Facts of node A: it holds the client and the local backend.
pub fn facts_a() -> NodeFacts {
    let held = |netns, address| PodNetns {
        netns,
        ips: vec![ip(address)],
        ..PodNetns::default()
    };
    NodeFacts {
        time: ms(1),
        netns: NETNS,
        links: vec![
            link(UPLINK, "up0", Some(NODE_A)),
            link(CLIENT_VETH, "v-client", None),
            link(BACKEND_VETH, "v-cart", None),
        ],
        pods: vec![
            held(BACKEND_NETNS + 1, CLIENT),
            held(BACKEND_NETNS, BACKEND),
        ],
        ..NodeFacts::default()
    }
}

/// Facts of node B: it holds the remote backend behind interface 12.
pub fn facts_b() -> NodeFacts {
    NodeFacts {
        time: ms(1),
        netns: NETNS + 1,
        links: vec![
            link(UPLINK, "up0", Some(NODE_B)),
            link(BACKEND_VETH, "v-far", None),
        ],
        pods: vec![PodNetns {
            netns: BACKEND_NETNS + 2,
            ips: vec![ip(REMOTE)],
            ..PodNetns::default()
        }],
        ..NodeFacts::default()
    }
}

/// The node's route to an address, which names `via` as router.
pub fn routed(mut facts: NodeFacts, to: &str, via: Option<&str>) -> NodeFacts {
    facts.lookups.push(RouteLookup {
        netns: facts.netns,
        dst: ip(to),
        errno: None,
        kind: "unicast".into(),
        via: via.map(ip),
        ifindex: UPLINK,
        src: None,
        table: 254,
        mtu: None,
        mtu_expires_secs: None,
    });
    facts
}

/// The node reaches an address without a router.
pub fn on_link(facts: NodeFacts, to: &str) -> NodeFacts {
    routed(facts, to, None)
}

/// The node's proxy rules for an address and port.
pub fn ruled(mut facts: NodeFacts, row: ProxyService) -> NodeFacts {
    facts.proxy.modes = vec![row.mode.clone()];
    facts.proxy.services.push(row);
    facts
}

/// Rules for the Service's address that lead to `backends`.
pub fn rules_to(backends: &[SocketAddr]) -> ProxyService {
    ProxyService {
        mode: "nftables".into(),
        ip: Some(ip(VIP)),
        port: 80,
        proto: Proto::TCP,
        backends: backends.to_vec(),
        reject: false,
        drop: false,
        place: "ip kube-proxy/service-x".into(),
    }
}

/// A rule of the node's FORWARD chain that drops everything.
pub fn dropping(packets: Option<u64>) -> FirewallRule {
    FirewallRule {
        mode: "nftables".into(),
        table: "inet site".into(),
        chain: "forward".into(),
        handle: 5,
        verdict: "drop".into(),
        hook: Some(NfHook::Forward),
        text: String::new(),
        comment: None,
        packets,
        matches: Some(RuleMatch::default()),
        partial: false,
    }
}

/// What one node saw, being written.
pub struct Story {
    pub inputs: Vec<Input>,
    records: Vec<Record>,
    flows: Vec<FlowSnapshot>,
    netns: u32,
}

impl Story {
    pub fn new(node: &str, objects: Objects, facts: NodeFacts) -> Story {
        let start = Start {
            time: ms(0),
            node: node.into(),
            netns: facts.netns,
            version: "test".into(),
            query: Query {
                namespace: "shop".into(),
                target: Target::Name("cart".into()),
                ..Query::default()
            },
            ..Start::default()
        };
        let netns = facts.netns;
        let inputs = vec![
            Input::Start(Box::new(start)),
            Input::Objects(Box::new(objects)),
            Input::Node(Box::new(facts)),
        ];
        Story {
            inputs,
            records: Vec::new(),
            flows: Vec::new(),
            netns,
        }
    }

    pub fn record(
        &mut self,
        at: Time,
        netns: u32,
        ifindex: u32,
        tuple: Option<Tuple>,
        event: Event,
    ) {
        self.records.push(Record {
            time: at,
            netns,
            ifindex,
            tuple,
            event,
        });
    }

    /// An entry of the flow map; `change` fills in what matters.
    pub fn flow(
        &mut self,
        tuple: Tuple,
        ifindex: u32,
        dir: Direction,
        at: Time,
        change: impl FnOnce(&mut FlowStats),
    ) {
        let key = FlowKey {
            tuple,
            ifindex,
            dir,
            vlan: 0,
            depth: 0,
        };
        let mut stats = FlowStats {
            packets: 1,
            bytes: 60,
            first: at,
            last: at,
            max_packet: 60,
            ..FlowStats::default()
        };
        change(&mut stats);
        self.flows.push(FlowSnapshot { key, stats });
    }

    /// A client's SYN as it comes into the node, seen `sends` times.
    pub fn syn(&mut self, t: Tuple, ifindex: u32, at: Time, isn: u32, sends: u64) {
        let segment = Segment {
            dir: Direction::Ingress,
            flags: TcpFlags(2),
            seq: isn,
            ack: 0,
            mss: 1460,
            len: 60,
            ttl: 64,
        };
        self.record(at, self.netns, ifindex, Some(t), Event::Syn(segment));
        self.syn_at(t, ifindex, Direction::Ingress, at, isn, sends);
    }

    /// The SYN at a further interface.
    pub fn syn_at(
        &mut self,
        t: Tuple,
        ifindex: u32,
        dir: Direction,
        at: Time,
        isn: u32,
        sends: u64,
    ) {
        self.flow(t, ifindex, dir, at, |s| {
            s.packets = sends;
            s.flags = TcpFlags(2);
            s.syn = Some(at);
            s.isn = isn;
            // It is sent again after one, two and four seconds.
            s.last = at + Duration::from_secs((1 << (sends - 1)) - 1);
        });
    }

    /// Conntrack chose a backend.
    pub fn nat(&mut self, orig: Tuple, reply: Tuple, at: Time) -> CtTuples {
        let ct = CtTuples {
            orig,
            reply,
            status: CtStatus(0x1a8),
            zone: 0,
            mark: 0,
            info: 2,
        };
        self.record(
            at,
            self.netns,
            0,
            Some(ct.translated()),
            Event::Nat {
                ct: Arc::new(ct),
                by: None,
            },
        );
        ct
    }

    /// Whose verdict the last drop was.
    pub fn dropped_by(&mut self, hook: NfHook, rules: Rules) {
        if let Some(Event::Drop(drop)) = self.records.last_mut().map(|r| &mut r.event) {
            drop.hook = Some(hook);
            drop.verdict = Some(Verdict {
                family: None,
                input: 0,
                output: 0,
                rules: Some(rules),
                reject: None,
            });
        }
    }

    /// It waited for a neighbour that never answered.
    pub fn neighbor_failed(&mut self, t: Tuple, at: Time) {
        let (reason, place) = ("NEIGH_FAILED", "neigh_invalidate");
        self.drop(t, self.netns, reason, place, None, at);
    }

    /// IPVS sent it on, or had nowhere to.
    pub fn ipvs(&mut self, t: Tuple, method: IpvsMethod, to: Option<SocketAddr>, at: Time) {
        let event = Event::Ipvs { method, to };
        self.record(at, self.netns, CLIENT_VETH, Some(t), event);
    }

    /// SYN-ACK of `t` (already the tuple of the answer) at an interface.
    pub fn syn_ack(&mut self, t: Tuple, ifindex: u32, dir: Direction, at: Time) {
        self.flow(t, ifindex, dir, at, |s| {
            s.flags = TcpFlags(18);
            s.syn_ack = Some(at);
            s.ack = 1;
        });
    }

    /// RST at an interface.
    pub fn rst(&mut self, t: Tuple, ifindex: u32, dir: Direction, at: Time) {
        self.flow(t, ifindex, dir, at, |s| {
            s.flags = TcpFlags(20);
            s.rst = Some(at);
        });
    }

    /// A dropped packet.
    pub fn drop(
        &mut self,
        t: Tuple,
        netns: u32,
        reason: &str,
        place: &str,
        ct: Option<CtTuples>,
        at: Time,
    ) {
        let drop = Drop {
            reason: reason.into(),
            place: place.into(),
            hook: None,
            flags: TcpFlags(2),
            seq: 0,
            len: 60,
            ct,
            quoted: None,
            count: 1,
            verdict: None,
        };
        self.record(at, netns, CLIENT_VETH, Some(t), Event::Drop(Box::new(drop)));
    }

    /// The latest records, to be changed.
    pub fn latest(&mut self, n: usize) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut().rev().take(n)
    }

    /// ICMP destination unreachable (type 3) on its way to the sender of `quoted`.
    pub fn unreachable(&mut self, from: &str, quoted: Tuple, code: u8, mtu: u32, at: Time) {
        let own = Tuple {
            proto: Proto::ICMP,
            src: ip(from),
            sport: 0,
            dst: quoted.src,
            dport: 3 << 8 | u16::from(code),
        };
        let error = IcmpError {
            dir: Direction::Egress,
            icmp_type: 3,
            code,
            mtu,
            quoted: Some(quoted),
        };
        self.record(
            at,
            self.netns,
            CLIENT_VETH,
            Some(own),
            Event::IcmpError(error),
        );
    }

    /// A whole attempt from the client to the VIP that is translated to `backend` and answered.
    pub fn served(&mut self, sport: u16, backend: SocketAddr, out: u32, at: Time) {
        let orig = tuple(Proto::TCP, CLIENT, sport, VIP, 80);
        let reply = Tuple {
            proto: Proto::TCP,
            src: backend.ip(),
            sport: backend.port(),
            dst: ip(CLIENT),
            dport: sport,
        };
        self.syn(orig, CLIENT_VETH, at, u32::from(sport), 1);
        self.nat(orig, reply, at);
        self.syn_at(
            reply.inverse(),
            out,
            Direction::Egress,
            at,
            u32::from(sport),
            1,
        );
        self.syn_ack(reply, out, Direction::Ingress, at);
        self.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, at);
    }

    /// All data and all acknowledgements got on by so many bytes.
    pub fn advance(&mut self, bytes: u32) {
        for flow in &mut self.flows {
            let stats = &mut flow.stats;
            stats.seq_end += if stats.data.is_some() { bytes } else { 0 };
            stats.ack += bytes;
        }
    }

    /// All data was acknowledged, and then a segment came that ends so many bytes further on.
    pub fn stray(&mut self, bytes: u32) {
        let acked = self.flows.iter().map(|f| f.stats.ack).max().unwrap_or(0);
        for flow in self.flows.iter_mut().filter(|f| f.stats.data.is_some()) {
            flow.stats.seq_end = acked.wrapping_add(bytes);
            flow.stats.retrans_first = Some(flow.stats.last);
        }
    }

    /// The node's recording up to `end`.
    pub fn told(mut self, end: Time) -> Vec<Input> {
        self.inputs.push(Input::Records {
            records: self.records,
        });
        self.inputs.push(Input::Flows {
            time: end,
            flows: self.flows,
        });
        self.inputs.push(Input::End { time: end });
        self.inputs
    }
}

/// Feeds recordings and answers.
pub fn explain(recordings: &[Vec<Input>]) -> Answer {
    let mut explainer = Explainer::new(Box::new(Identities::default()));
    for (i, inputs) in recordings.iter().enumerate() {
        for input in inputs {
            explainer.feed(i, input);
        }
    }
    explainer.answer()
}
