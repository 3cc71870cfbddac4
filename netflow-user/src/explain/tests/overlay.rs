//! Stories of clusters whose nodes speak through tunnels.

use super::codes::{assert_cause, remote, reply, top, vip};
use super::story::*;
use crate::model::answer::{Answer, Evidence, Verdict};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{
    Link, Neighbor, NodeFacts, RouteLookup, Tunnel, TunnelPeer, WireguardPeer,
};
use crate::model::record::{Event, IcmpError, Segment};
use crate::model::{Input, Proto, Tuple};
use std::net::SocketAddr;

/// The tunnel device of node A, an odd port, and the address under which its peer is known, which no object names.
const DEVICE: u32 = 40;
const PORT: u16 = 18_472;
const LOCAL: &str = "198.51.100.1";
const PEER: &str = "198.51.100.2";

fn tunnelled(mtu: u32) -> NodeFacts {
    let hop = "10.9.2.0";
    let mut facts = routed(facts_a(), REMOTE, Some(hop));
    facts.links.push(Link {
        ifindex: DEVICE,
        name: "tun.7".into(),
        kind: "vxlan".into(),
        mtu,
        up: true,
        tunnel: Some(Tunnel {
            port: Some(PORT),
            local: Some(ip(LOCAL)),
            ..Tunnel::default()
        }),
        ..Link::default()
    });
    let lladdr = "02:00:00:00:00:22".to_owned();
    facts.neighbors.push(Neighbor {
        ip: ip(hop),
        ifindex: DEVICE,
        state: "permanent".into(),
        lladdr: Some(lladdr.clone()),
    });
    facts.tunnel_peers.push(TunnelPeer {
        ifindex: DEVICE,
        lladdr,
        remote: ip(PEER),
    });
    facts
}

fn outer(from: &str, to: &str, hash: u16) -> Tuple {
    tuple(Proto::UDP, from, hash, to, PORT)
}

fn syn_through_tunnel(s: &mut Story, sport: u16) {
    let (o, r) = (vip(sport), reply(sport, remote()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), DEVICE, Direction::Egress, ms(10), 7, 3);
}

/// An attempt goes into the tunnel, whose packets leave; `heard`: some come from the peer.
fn sent(heard: Option<&str>) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
    syn_through_tunnel(&mut s, 4001);
    s.flow(
        outer(LOCAL, PEER, 50_001),
        UPLINK,
        Direction::Egress,
        ms(11),
        |f| {
            f.last = ms(3000);
        },
    );
    if let Some(from) = heard {
        s.flow(
            outer(from, LOCAL, 50_777),
            UPLINK,
            Direction::Ingress,
            ms(900),
            |_| {},
        );
    }
    explain(&[s.told(ms(4000))])
}

#[test]
fn a_tunnel_that_brings_nothing_back_has_lost_its_peer() {
    let answer = sent(None);
    assert_cause(&answer, "overlay-peer-lost", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("18472"));
    // The tunnel works, and so does another's: what is lost is lost behind it.
    assert_cause(&sent(Some(PEER)), "lost-beyond-node", Verdict::Failing);
    assert_cause(
        &sent(Some("198.51.100.9")),
        "overlay-peer-lost",
        Verdict::Failing,
    );
}

/// What the node of the backend tells of the same attempt, its answer sent into the tunnel or seen at the Pod alone.
fn arrived(answered: bool) -> Vec<Input> {
    let r = reply(4001, remote());
    let mut facts = facts_b();
    let devices = tunnelled(1450).links.into_iter();
    facts.links.extend(devices.filter(|l| l.tunnel.is_some()));
    let mut s = Story::new("b", objects(&[REMOTE]), facts);
    let arriving = [
        (DEVICE, Direction::Ingress),
        (BACKEND_VETH, Direction::Egress),
    ];
    for (device, dir) in arriving {
        s.syn_at(r.inverse(), device, dir, ms(11), 7, 3);
    }
    s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(12));
    if answered {
        s.syn_ack(r, DEVICE, Direction::Egress, ms(12));
    }
    s.told(ms(4000))
}

/// The one that sends into the tunnel cannot tell; with both ends it is known which way broke.
#[test]
fn a_tunnel_out_of_which_packets_came_is_not_lost_for_answers_that_never_went_in() {
    let sending = || {
        let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
        syn_through_tunnel(&mut s, 4001);
        let out = outer(LOCAL, PEER, 50_001);
        s.flow(out, UPLINK, Direction::Egress, ms(11), |f| {
            f.last = ms(3000);
        });
        s.told(ms(4000))
    };
    let kept = explain(&[sending(), arrived(false)]);
    assert_ne!(top(&kept), "overlay-peer-lost", "{kept:#?}");
    let lost = explain(&[sending(), arrived(true)]);
    assert_cause(&lost, "overlay-peer-lost", Verdict::Failing);
}

#[test]
fn a_tunnel_whose_packets_wait_for_a_gateway_has_a_silent_gateway() {
    let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
    syn_through_tunnel(&mut s, 4001);
    let gateway = "198.51.100.254";
    let wait = Event::NeighborWait {
        ip: ip(gateway),
        ct: None,
    };
    let around = outer(LOCAL, PEER, 50_001);
    s.record(ms(11), NETNS, UPLINK, Some(around), wait);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "neighbor-failed", Verdict::Failing);
    let said = &answer.findings[0].summary;
    assert!(said.contains(gateway) && said.contains("in tunnel tun.7"));
}

/// An attempt goes into the tunnel, about whose packets a router between the nodes says at `at` that it knows no way for them.
fn refused_beside_the_tunnel(quoted: Tuple, at: u64) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
    for sport in [4001, 4002] {
        syn_through_tunnel(&mut s, sport);
    }
    let sent = outer(LOCAL, PEER, 50_001);
    s.flow(sent, UPLINK, Direction::Egress, ms(11), |f| {
        f.last = ms(3000);
    });
    s.unreachable("198.51.100.254", quoted, 0, 0, ms(at));
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_a_router_says_of_a_tunnels_packets_holds_for_what_they_carry() {
    let answer = refused_beside_the_tunnel(outer(LOCAL, PEER, 50_001), 30);
    assert_cause(&answer, "no-route", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(
        summary.contains("198.51.100.254") && summary.contains(PEER),
        "{summary}"
    );
    assert_eq!(answer.findings[0].affected.attempts, 2);
    // Of what was sent before the attempts, or to somebody else, it says nothing of them.
    let before = refused_beside_the_tunnel(outer(LOCAL, PEER, 50_001), 5);
    assert_cause(&before, "overlay-peer-lost", Verdict::Failing);
    let other = refused_beside_the_tunnel(outer(LOCAL, "198.51.100.9", 50_001), 30);
    assert_cause(&other, "overlay-peer-lost", Verdict::Failing);
}

#[test]
fn what_a_router_says_of_a_tunnels_packets_holds_for_all_that_it_carries() {
    let beside = "10.9.2.8";
    let mut all = objects(&[REMOTE, beside]);
    all.slices[0].endpoints[1].node = Some("b".into());
    let mut facts = tunnelled(1450);
    facts.lookups.push(RouteLookup {
        dst: ip(beside),
        ..facts.lookups[0].clone()
    });
    let mut s = Story::new("a", all, facts);
    let sent = outer(LOCAL, PEER, 50_001);
    s.flow(sent, UPLINK, Direction::Egress, ms(11), |f| {
        f.last = ms(3000);
    });
    syn_through_tunnel(&mut s, 4001);
    s.unreachable("198.51.100.254", sent, 0, 0, ms(30));
    // Its errors are limited in rate: of another endpoint it says nothing.
    let (o, r) = (vip(4002), reply(4002, SocketAddr::new(ip(beside), 8080)));
    s.syn(o, CLIENT_VETH, ms(100), 7, 3);
    s.nat(o, r, ms(100));
    s.syn_at(r.inverse(), DEVICE, Direction::Egress, ms(100), 7, 3);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "no-route", Verdict::Failing);
    assert_eq!(answer.findings[0].affected.attempts, 2, "{answer:#?}");
}

/// The same through a tunnel without a port of its own.
fn sent_in(kind: &str, proto: Proto) -> Answer {
    let mut facts = tunnelled(1480);
    for device in facts.links.iter_mut().filter(|l| l.ifindex == DEVICE) {
        device.kind = kind.to_owned();
        device.tunnel = Some(Tunnel {
            port: None,
            local: Some(ip(LOCAL)),
            remote: Some(ip(PEER)),
            ..Tunnel::default()
        });
    }
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    syn_through_tunnel(&mut s, 4001);
    let outer = tuple(proto, LOCAL, 0, PEER, 0);
    s.flow(outer, UPLINK, Direction::Egress, ms(11), |f| {
        f.last = ms(3000);
    });
    explain(&[s.told(ms(4000))])
}

#[test]
fn a_tunnel_without_a_port_is_known_by_its_protocol() {
    for (kind, proto) in [("ipip", 4), ("gre", 47)] {
        let answer = sent_in(kind, Proto(proto));
        assert_cause(&answer, "overlay-peer-lost", Verdict::Failing);
        let packets = format!("ip proto {proto}");
        assert!(answer.findings[0].summary.contains(&packets), "{answer:#?}");
        // Another protocol between the nodes is not the tunnel.
        assert_cause(
            &sent_in(kind, Proto(50)),
            "lost-beyond-node",
            Verdict::Failing,
        );
    }
}

/// What became of a request for a key that a WireGuard device sent before the attempt.
struct KeyRequest {
    /// When, and from which port.
    at: u64,
    sport: u16,
    /// A network that is the peer's.
    allowed: &'static str,
    /// When the peer answered.
    answered: Option<u64>,
    /// The key of this time serves.
    key: Option<u64>,
}

const UNANSWERED: KeyRequest = KeyRequest {
    at: 3_000,
    sport: PORT,
    allowed: REMOTE,
    answered: None,
    key: None,
};

/// An attempt 6 s after the start goes into a WireGuard device, which sends nothing then.
fn sent_in_wireguard(request: &KeyRequest) -> Answer {
    let mut facts = tunnelled(1420);
    facts.tunnel_peers.clear();
    for device in facts.links.iter_mut().filter(|l| l.ifindex == DEVICE) {
        device.kind = "wireguard".to_owned();
        device.tunnel = Some(Tunnel {
            port: Some(PORT),
            peers: vec![WireguardPeer {
                endpoint: Some(SocketAddr::new(ip(PEER), 51_871)),
                allowed: vec![(ip(request.allowed), 24)],
                handshake: request.key.map(ms),
            }],
            ..Tunnel::default()
        });
    }
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    let (o, r) = (vip(4001), reply(4001, remote()));
    s.syn(o, CLIENT_VETH, ms(6_000), 7, 3);
    s.nat(o, r, ms(6_000));
    s.syn_at(r.inverse(), DEVICE, Direction::Egress, ms(6_000), 7, 3);
    let outer = tuple(Proto::UDP, LOCAL, request.sport, PEER, 51_871);
    s.flow(outer, UPLINK, Direction::Egress, ms(request.at), |_| {});
    if let Some(at) = request.answered {
        let answer = outer.inverse();
        s.flow(answer, UPLINK, Direction::Ingress, ms(at), |_| {});
    }
    explain(&[s.told(ms(10_000))])
}

#[test]
fn a_wireguard_peer_is_known_by_what_is_allowed_to_it() {
    let answer = sent_in_wireguard(&UNANSWERED);
    assert_cause(&answer, "overlay-peer-lost", Verdict::Failing);
    let says = |e: &Evidence| e.text.contains("not agreed on a key");
    assert!(answer.evidence.iter().any(says), "{answer:#?}");
    let packets = format!("udp port {PORT} or udp port 51871");
    assert!(answer.findings[0].summary.contains(&packets), "{answer:#?}");
    for (why, request) in [
        (
            "no peer takes the address",
            KeyRequest {
                allowed: "192.0.2.0",
                ..UNANSWERED
            },
        ),
        (
            "another socket's",
            KeyRequest {
                sport: 50_001,
                ..UNANSWERED
            },
        ),
        (
            "it would have asked again",
            KeyRequest {
                at: 500,
                ..UNANSWERED
            },
        ),
        (
            "the peer answered",
            KeyRequest {
                answered: Some(3_100),
                ..UNANSWERED
            },
        ),
        (
            "the peer spoke later",
            KeyRequest {
                answered: Some(6_500),
                ..UNANSWERED
            },
        ),
        (
            "there is a key",
            KeyRequest {
                key: Some(1_000),
                ..UNANSWERED
            },
        ),
    ] {
        let answer = sent_in_wireguard(&request);
        let top = answer.findings.first().map(|f| f.code);
        assert_eq!(top, Some("lost-beyond-node"), "{why}: {answer:#?}");
    }
}

fn dropped_on_arrival(t: Tuple) -> Vec<Input> {
    let mut s = Story::new("b", objects(&[REMOTE]), facts_b());
    s.drop(t, NETNS + 1, "NETFILTER_DROP", "nft_do_chain", None, ms(12));
    s.told(ms(4000))
}

#[test]
fn a_filter_that_drops_the_tunnels_packets_is_named() {
    let client = || {
        let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
        syn_through_tunnel(&mut s, 4001);
        s.flow(
            outer(LOCAL, PEER, 50_001),
            UPLINK,
            Direction::Egress,
            ms(11),
            |_| {},
        );
        s.told(ms(4000))
    };
    let blocked = explain(&[client(), dropped_on_arrival(outer(LOCAL, PEER, 50_001))]);
    assert_cause(&blocked, "tunnel-port-blocked", Verdict::Failing);
    assert!(blocked.findings[0].summary.contains("on b"), "{blocked:#?}");
    // Something else that is dropped there explains nothing.
    let other = tuple(Proto::UDP, LOCAL, 50_001, PEER, 161);
    let answer = explain(&[client(), dropped_on_arrival(other)]);
    assert_cause(&answer, "overlay-peer-lost", Verdict::Failing);
}

/// A long request through the tunnel of which nothing is acknowledged; `told`: a router asks the node for smaller packets.
fn long_request(device_mtu: u16, told: bool) -> Answer {
    long_request_on(tunnelled(device_mtu.into()), device_mtu, told)
}

fn long_request_on(facts: NodeFacts, device_mtu: u16, told: bool) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    let (o, r) = (vip(4001), reply(4001, remote()));
    s.served(4001, remote(), DEVICE, ms(10));
    for (tuple, ifindex, dir) in [
        (o, CLIENT_VETH, Direction::Ingress),
        (r.inverse(), DEVICE, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.packets = 50;
            f.flags = TcpFlags(26);
            f.syn = Some(ms(10));
            f.isn = 4001;
            f.data = Some(ms(20));
            f.seq_end = 64_000;
            f.retrans = 5;
            f.retrans_first = Some(ms(220));
            f.retrans_last = Some(ms(3400));
            f.retrans_max = device_mtu;
            f.max_packet = device_mtu;
            f.last = ms(3400);
        });
    }
    for (tuple, ifindex, dir) in [
        (r, DEVICE, Direction::Ingress),
        (o.inverse(), CLIENT_VETH, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.flags = TcpFlags(18);
            f.syn_ack = Some(ms(10));
            f.ack = 4002;
        });
    }
    s.served(4002, remote(), DEVICE, ms(900));
    let out = outer(LOCAL, PEER, 50_001);
    let first = Segment {
        dir: Direction::Egress,
        flags: TcpFlags(0),
        seq: 0,
        ack: 0,
        mss: 0,
        len: 110,
        ttl: 64,
    };
    s.record(ms(11), NETNS, UPLINK, Some(out), Event::FirstPacket(first));
    s.flow(out, UPLINK, Direction::Egress, ms(11), |f| {
        f.last = ms(3400);
    });
    s.flow(
        outer(PEER, LOCAL, 50_777),
        UPLINK,
        Direction::Ingress,
        ms(11),
        |f| f.last = ms(900),
    );
    if told {
        let own = Tuple {
            proto: Proto::ICMP,
            src: ip("203.0.113.1"),
            sport: 0,
            dst: ip(LOCAL),
            dport: 0x304,
        };
        let error = IcmpError {
            dir: Direction::Ingress,
            icmp_type: 3,
            code: 4,
            mtu: 1400,
            quoted: Some(out),
        };
        s.record(ms(300), NETNS, UPLINK, Some(own), Event::IcmpError(error));
    }
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_the_node_learns_of_its_tunnel_the_pod_is_not_told() {
    let answer = long_request(1450, true);
    assert_cause(&answer, "pmtu-ignored", Verdict::Degraded);
    let summary = &answer.findings[0].summary;
    assert!(
        summary.contains("1400") && summary.contains("not told"),
        "{summary}"
    );
    assert_eq!(top(&long_request(1450, false)), "mtu-blackhole");
}

#[test]
fn what_the_node_learned_of_its_tunnel_before_is_kept_with_its_route() {
    let kept = |mtu, cut| {
        let mut facts = routed(tunnelled(1450), PEER, None);
        for way in facts.lookups.iter_mut().filter(|l| l.dst == ip(PEER)) {
            way.mtu = Some(mtu);
            way.mtu_expires_secs = Some(500);
        }
        let tunnels = facts.links.iter_mut().filter_map(|l| l.tunnel.as_mut());
        tunnels.for_each(|t| t.cut = cut);
        long_request_on(facts, 1450, false)
    };
    let answer = kept(1400, false);
    assert_cause(&answer, "pmtu-ignored", Verdict::Degraded);
    let evidence = &answer.evidence;
    assert!(
        evidence
            .iter()
            .any(|e| e.text.contains("learned path MTU of 1400"))
    );
    // What was sent fits into that, or is cut so that it does.
    assert_eq!(top(&kept(1500, false)), "mtu-blackhole");
    assert_eq!(top(&kept(1400, true)), "mtu-blackhole");
}

#[test]
fn a_tunnel_that_takes_more_than_its_uplink_carries_is_a_mismatch() {
    assert_cause(
        &long_request(1451, false),
        "mtu-mismatch",
        Verdict::Degraded,
    );
}

#[test]
fn a_tunnel_that_worked_since_the_first_silence_is_not_lost() {
    let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(1450));
    syn_through_tunnel(&mut s, 4001);
    let (o, r) = (vip(4002), reply(4002, remote()));
    s.syn(o, CLIENT_VETH, ms(2000), 8, 2);
    s.nat(o, r, ms(2000));
    s.syn_at(r.inverse(), DEVICE, Direction::Egress, ms(2000), 8, 2);
    let out = outer(LOCAL, PEER, 50_001);
    s.flow(out, UPLINK, Direction::Egress, ms(11), |f| {
        f.last = ms(3000);
    });
    let back = outer(PEER, LOCAL, 50_777);
    s.flow(back, UPLINK, Direction::Ingress, ms(900), |_| {});
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
}

#[test]
fn a_device_that_says_to_take_whatever_comes_is_no_mismatch() {
    let mut s = Story::new("a", objects(&[REMOTE]), tunnelled(65_000));
    s.served(4001, remote(), DEVICE, ms(10));
    let out = outer(LOCAL, PEER, 50_001);
    s.flow(out, UPLINK, Direction::Egress, ms(10), |_| {});
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty(), "{answer:#?}");
}
