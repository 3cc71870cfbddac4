//! Stories of routes, neighbours and what the IP layer refuses, on kernels with drop reasons and without.

use super::codes::{assert_cause, backend, remote, reply, vip};
use super::story::*;
use crate::model::answer::{Answer, Basis, Severity, Verdict};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{Neighbor, NodeFacts, Route, TcpSocket};
use crate::model::record::Event;
use crate::model::{Proto, Time, Tuple};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const GATEWAY: &str = "192.0.2.254";
const MAC: &str = "02:00:00:00:00:07";

fn codes(answer: &Answer) -> Vec<&'static str> {
    answer.findings.iter().map(|f| f.code).collect()
}

fn text(answer: &Answer) -> String {
    let texts: Vec<&str> = answer.evidence.iter().map(|e| e.text.as_str()).collect();
    texts.join("\n")
}

/// An attempt that is translated to `to` and ends in a drop of `dropped` in `netns`.
fn dropped(
    facts: NodeFacts,
    to: SocketAddr,
    dropped: Tuple,
    netns: u32,
    reason: &str,
    place: &str,
) -> Answer {
    let endpoint = to.ip().to_string();
    let mut s = Story::new("a", objects(&[&endpoint]), facts);
    let (o, r) = (vip(4001), reply(4001, to));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(o, r, ms(10));
    s.drop(dropped, netns, reason, place, Some(ct), ms(11));
    explain(&[s.told(ms(4000))])
}

fn forward(to: SocketAddr) -> Tuple {
    reply(4001, to).inverse()
}

#[test]
fn a_packet_without_a_route_is_no_route() {
    let a = facts_a();
    for (reason, place) in [("IP_INNOROUTES", "ip_error"), ("NOT_SPECIFIED", "ip_error")] {
        let answer = dropped(a.clone(), remote(), forward(remote()), NETNS, reason, place);
        assert_cause(&answer, "no-route", Verdict::Failing);
        assert!(answer.findings[0].summary.contains("it drops packets"));
    }
    let back = dropped(
        a,
        remote(),
        reply(4001, remote()),
        NETNS,
        "IP_INNOROUTES",
        "ip_error",
    );
    assert_cause(&back, "no-route", Verdict::Failing);
    assert!(back.findings[0].summary.contains("it drops answers"));
}

fn set(mut facts: NodeFacts, name: &str, value: &str) -> NodeFacts {
    facts.sysctls.insert(name.into(), value.into());
    facts
}

#[test]
fn forwarding_that_is_off_is_told_by_the_reason_or_by_the_setting() {
    let bare = ("NOT_SPECIFIED", "ip_error");
    let cases = [
        ("1", bare, "no-route"),
        ("0", bare, "forwarding-disabled"),
        ("1", ("IP_INADDRERRORS", "ip_error"), "forwarding-disabled"),
        ("0", ("IP_INNOROUTES", "ip_error"), "no-route"),
    ];
    for (value, (reason, place), code) in cases {
        let facts = set(facts_a(), "net.ipv4.conf.v-client.forwarding", value);
        let answer = dropped(facts, remote(), forward(remote()), NETNS, reason, place);
        assert_cause(&answer, code, Verdict::Failing);
    }
    // A Pod never forwards: what ends there so was not for it.
    let facts = set(facts_a(), "net.ipv4.conf.v-client.forwarding", "0");
    let answer = dropped(
        facts,
        backend(),
        forward(backend()),
        BACKEND_NETNS,
        "IP_INADDRERRORS",
        "ip_error",
    );
    assert_eq!(codes(&answer), Vec::<&str>::new());
}

#[test]
fn forwarding_is_turned_on_where_it_is_off() {
    let facts = set(facts_a(), "net.ipv4.conf.v-client.forwarding", "0");
    let facts = set(facts, "net.ipv4.ip_forward", "0");
    let to = forward(remote());
    let answer = dropped(facts, remote(), to, NETNS, "IP_INADDRERRORS", "ip_error");
    assert_eq!(
        answer.findings[0].fix[0].command,
        "sysctl -w net.ipv4.ip_forward=1"
    );
}

#[test]
fn a_dot_in_the_name_of_an_interface_is_none_between_names() {
    let mut facts = set(facts_a(), "net.ipv4.conf.bond0.7.forwarding", "0");
    let veth = facts.links.iter_mut().find(|l| l.ifindex == CLIENT_VETH);
    if let Some(veth) = veth {
        veth.name = "bond0.7".into();
    }
    let to = forward(remote());
    let answer = dropped(facts, remote(), to, NETNS, "IP_INADDRERRORS", "ip_error");
    let finding = &answer.findings[0];
    assert_eq!(
        finding.fix[0].command,
        "sysctl -w net/ipv4/conf/bond0.7/forwarding=1"
    );
    assert!(
        finding.check[0]
            .command
            .contains("net/ipv4/conf/bond0.7/forwarding")
    );
}

/// The packet to a remote backend waits for a neighbour; `left`: it went out a moment later.
fn waited(neighbor: &str, left: bool, end: Time) -> Answer {
    let facts = routed(facts_a(), REMOTE, Some(GATEWAY));
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    let (o, r) = (vip(4001), reply(4001, remote()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 2);
    let ct = s.nat(o, r, ms(10));
    let wait = Event::NeighborWait {
        ip: ip(neighbor),
        ct: Some(Arc::new(ct)),
    };
    s.record(ms(10), NETNS, UPLINK, Some(r.inverse()), wait);
    if left {
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(11), 7, 2);
    }
    explain(&[s.told(end)])
}

#[test]
fn a_gateway_that_does_not_answer_is_neighbor_failed() {
    let answer = waited(GATEWAY, false, ms(1500));
    assert_cause(&answer, "neighbor-failed", Verdict::Failing);
    assert!(answer.findings[0].summary.contains(GATEWAY));
    // It answered, and what was sent through it got lost further on.
    assert_cause(
        &waited(GATEWAY, true, ms(1500)),
        "lost-beyond-node",
        Verdict::Failing,
    );
}

/// The client's Pod, which is routed, waits for its next hop.
fn waited_in_pod(forwarding: &str, default_route: bool, end: u64) -> Answer {
    let mut facts = set(facts_a(), "net.ipv4.conf.v-client.forwarding", forwarding);
    facts.routes.retain(|r| r.prefix > 0);
    if default_route {
        facts.routes.push(Route {
            dst: ip("0.0.0.0"),
            prefix: 0,
            via: Some(ip(GATEWAY)),
            ifindex: UPLINK,
            table: 254,
            kind: "unicast".into(),
            mtu: None,
            nexthops: Vec::new(),
        });
    }
    facts = set(facts, "net.ipv4.conf.v-client.proxy_arp", "1");
    for link in &mut facts.links {
        link.kind = "veth".into();
        link.link = 3;
    }
    let inner = crate::model::node::Link {
        ifindex: 3,
        link: CLIENT_VETH,
        ..Default::default()
    };
    facts.pods[0].links.push(inner);
    let inside = facts.pods[0].netns;
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    let wait = Event::NeighborWait {
        ip: ip("169.254.1.1"),
        ct: None,
    };
    s.record(ms(10), inside, 3, Some(vip(4001)), wait);
    if end > 3100 {
        let why = ("NEIGH_FAILED", "neigh_invalidate");
        s.drop(vip(4001), inside, why.0, why.1, None, ms(3100));
        for drop in s.latest(1) {
            drop.ifindex = 3;
        }
    }
    explain(&[s.told(ms(end))])
}

#[test]
fn a_node_that_does_not_forward_does_not_answer_for_a_routed_pods_gateway() {
    // The kernel gives up after three seconds; what waits for one is not answered.
    for end in [1500, 4000] {
        let off = waited_in_pod("0", true, end);
        assert_cause(&off, "forwarding-disabled", Verdict::Failing);
        assert!(off.findings[0].summary.contains("169.254.1.1"));
        let on = waited_in_pod("1", true, end);
        assert_cause(&on, "neighbor-failed", Verdict::Failing);
    }
}

#[test]
fn a_node_without_a_route_does_not_answer_for_a_routed_pods_gateway() {
    for end in [1500, 4000] {
        let answer = waited_in_pod("1", false, end);
        assert_cause(&answer, "no-route", Verdict::Failing);
        assert!(answer.findings[0].summary.contains("169.254.1.1"));
    }
}

#[test]
fn what_is_dropped_as_its_neighbour_is_given_up_waited_for_it() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let sent = reply(4001, remote()).inverse();
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 2);
    let ct = s.nat(vip(4001), reply(4001, remote()), ms(10));
    let why = ("NEIGH_FAILED", "neigh_invalidate");
    s.drop(sent, NETNS, why.0, why.1, Some(ct), ms(3010));
    let hop = Event::NeighborFailed { ip: ip(GATEWAY) };
    s.record(ms(3010), NETNS, UPLINK, None, hop);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "neighbor-failed", Verdict::Failing);
    assert!(answer.findings[0].summary.contains(GATEWAY), "{answer:#?}");
}

#[test]
fn a_pod_that_is_there_and_does_not_answer_is_not_gone() {
    for (reason, place) in [
        ("NEIGH_FAILED", "neigh_invalidate"),
        ("NOT_SPECIFIED", "arp_error_report"),
    ] {
        let facts = on_link(facts_a(), BACKEND);
        let answer = dropped(facts, backend(), forward(backend()), NETNS, reason, place);
        assert_cause(&answer, "neighbor-failed", Verdict::Failing);
        assert!(answer.findings[0].summary.contains(BACKEND));
    }
}

fn known(entry: &str, own: &str) -> NodeFacts {
    let mut facts = facts_a();
    facts.neighbors.push(Neighbor {
        ip: ip(BACKEND),
        ifindex: BACKEND_VETH,
        state: "permanent".into(),
        lladdr: Some(entry.into()),
    });
    let mut link = facts.links[2].clone();
    link.addrs = vec![(ip(BACKEND), 24)];
    link.lladdr = Some(own.into());
    facts.pods[1].links = vec![link];
    facts
}

#[test]
fn a_frame_for_another_station_that_reaches_its_pod_is_neighbor_stale() {
    let to = forward(backend());
    let misdirected =
        |facts, netns, reason| dropped(facts, backend(), to, netns, reason, "ip_rcv_core");
    let old = "02:00:00:00:00:99";
    for reason in ["OTHERHOST", "NOT_SPECIFIED"] {
        let answer = misdirected(known(old, MAC), BACKEND_NETNS, reason);
        assert_cause(&answer, "neighbor-stale", Verdict::Failing);
        assert!(text(&answer).contains(old), "{answer:#?}");
    }
    // Broken otherwise, or a copy that a bridge sent to every port.
    for (facts, netns, reason) in [
        (known(MAC, MAC), BACKEND_NETNS, "NOT_SPECIFIED"),
        (known(old, MAC), BACKEND_NETNS + 1, "OTHERHOST"),
    ] {
        assert_eq!(
            codes(&misdirected(facts, netns, reason)),
            Vec::<&str>::new()
        );
    }
}

#[test]
fn answers_that_come_in_elsewhere_are_asymmetric() {
    let facts = |filter: &str| {
        let facts = set(facts_a(), "net.ipv4.conf.v-client.rp_filter", filter);
        routed(facts, REMOTE, Some(GATEWAY))
    };
    let cases = [
        ("1", "IP_RPFILTER", "asymmetric-return"),
        ("1", "NOT_SPECIFIED", "asymmetric-return"),
        ("0", "NOT_SPECIFIED", "none"),
    ];
    for (filter, reason, code) in cases {
        let from = reply(4001, remote());
        let answer = dropped(
            facts(filter),
            remote(),
            from,
            NETNS,
            reason,
            "ip_rcv_finish_core",
        );
        assert_eq!(super::codes::top(&answer), code, "{answer:#?}");
    }
}

#[test]
fn a_wrong_checksum_is_named_or_counted() {
    let at_backend = |facts, reason, place| {
        dropped(
            facts,
            backend(),
            forward(backend()),
            BACKEND_NETNS,
            reason,
            place,
        )
    };
    let named = at_backend(facts_a(), "TCP_CSUM", "tcp_v4_rcv");
    assert_cause(&named, "bad-checksum", Verdict::Failing);

    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(o, r, ms(10));
    s.drop(
        r.inverse(),
        BACKEND_NETNS,
        "NOT_SPECIFIED",
        "tcp_v4_rcv",
        Some(ct),
        ms(11),
    );
    let mut inputs = s.told(ms(4000));
    assert_eq!(codes(&explain(&[inputs.clone()])), Vec::<&str>::new());
    for (n, count) in [(2, 5), (inputs.len() - 1, 8)] {
        let mut facts = facts_a();
        facts.pods[1].counters.insert("InCsumErrors".into(), count);
        let at = if n == 2 { 2 } else { inputs.len() - 1 };
        if n == 2 {
            inputs[at] = crate::model::Input::Node(Box::new(facts));
        } else {
            inputs.insert(at, crate::model::Input::Node(Box::new(facts)));
        }
    }
    assert_cause(&explain(&[inputs]), "bad-checksum", Verdict::Failing);
}

/// Two attempts leave for a remote backend; a router answers the first with ICMP type 3.
fn answered_by_router(code: u8) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    for sport in [4001, 4002] {
        let (o, r) = (vip(sport), reply(sport, remote()));
        s.syn(o, CLIENT_VETH, ms(10), 7, 2);
        s.nat(o, r, ms(10));
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 2);
    }
    s.unreachable("198.51.100.1", vip(4001), code, 0, ms(30));
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_a_router_says_of_one_attempt_holds_for_its_siblings() {
    let answer = answered_by_router(0);
    assert_cause(&answer, "no-route", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("198.51.100.1"));
    assert_eq!(answer.findings[0].affected.attempts, 2);

    let answer = answered_by_router(1);
    assert_eq!(codes(&answer), ["neighbor-failed"]);
    assert_eq!(answer.findings[0].basis, Basis::Inferred);
}

/// A connection whose request hangs: the client sends again segments of `size` bytes.
fn stalled(s: &mut Story, sport: u16, size: u16) {
    let (o, r) = (vip(sport), reply(sport, remote()));
    s.served(sport, remote(), UPLINK, ms(10));
    for (tuple, ifindex, dir) in [
        (o, CLIENT_VETH, Direction::Ingress),
        (r.inverse(), UPLINK, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.packets = 50;
            f.flags = TcpFlags(26);
            f.syn = Some(ms(10));
            f.isn = u32::from(sport);
            f.data = Some(ms(20));
            f.seq_end = 64_000;
            f.retrans = 5;
            f.retrans_first = Some(ms(220));
            f.retrans_last = Some(ms(3400));
            f.retrans_max = size;
            f.max_packet = 1500;
            f.last = ms(3400);
        });
    }
    for (tuple, ifindex, dir) in [
        (r, UPLINK, Direction::Ingress),
        (o.inverse(), CLIENT_VETH, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.flags = TcpFlags(18);
            f.syn_ack = Some(ms(10));
            f.ack = u32::from(sport) + 1;
        });
    }
}

/// A long request to a remote backend: none of it is acknowledged, and `told` says how often a router asked for packets
/// of 1300 bytes. Segments that are sent again have `size` bytes.
fn long_request(told: &[u64], size: u16) -> Answer {
    let mut facts = facts_a();
    facts.pods[0].sockets.push(TcpSocket {
        local: SocketAddr::new(ip(CLIENT), 4001),
        remote: SocketAddr::new(ip(VIP), 80),
        state: 1,
        pmtu: 1500,
        snd_mss: 1448,
        total_retrans: 5,
        unacked: 3,
    });
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    stalled(&mut s, 4001, size);
    s.served(4002, remote(), UPLINK, ms(900));
    for at in told {
        s.unreachable(GATEWAY, vip(4001), 4, 1300, ms(*at));
    }
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_hangs_beside_a_black_hole_hangs_in_it() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    stalled(&mut s, 4001, 1500);
    // Only its small last segment was sent again so far.
    stalled(&mut s, 4003, 120);
    s.served(4002, remote(), UPLINK, ms(900));
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "mtu-blackhole", Verdict::Degraded);
    assert_eq!(answer.findings[0].affected.attempts, 2);
}

#[test]
fn a_sender_that_was_told_and_goes_on_ignores_it() {
    assert_cause(&long_request(&[], 1500), "mtu-blackhole", Verdict::Degraded);
    let answer = long_request(&[25], 1500);
    assert_cause(&answer, "pmtu-ignored", Verdict::Degraded);
    assert!(text(&answer).contains("uses a path MTU of 1500"));
    assert_cause(
        &long_request(&[300, 1400], 1500),
        "pmtu-ignored",
        Verdict::Degraded,
    );
    // What is sent again fits: it is lost for another reason.
    assert!(!codes(&long_request(&[25], 1300)).contains(&"pmtu-ignored"));
}

/// Datagrams of the client to the backend, whose later fragments show where `seen` says.
fn datagrams(seen: &[(IpAddr, IpAddr, u32, Direction)], first: u16) -> Answer {
    let mut all = objects(&[BACKEND]);
    all.services[0].ports[0].proto = Proto::UDP;
    all.slices[0].ports[0].proto = Proto::UDP;
    let mut s = Story::new("a", all, facts_a());
    let o = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
    let r = tuple(Proto::UDP, BACKEND, 8080, CLIENT, 4001);
    s.nat(o, r, ms(10));
    for (t, ifindex, dir) in [
        (o, CLIENT_VETH, Direction::Ingress),
        (r.inverse(), BACKEND_VETH, Direction::Egress),
        (r, BACKEND_VETH, Direction::Ingress),
        (o.inverse(), CLIENT_VETH, Direction::Egress),
    ] {
        s.flow(t, ifindex, dir, ms(10), |f| f.max_packet = first);
    }
    for (src, dst, ifindex, dir) in seen {
        let portless = Tuple {
            proto: Proto::UDP,
            src: *src,
            sport: 0,
            dst: *dst,
            dport: 0,
        };
        s.flow(portless, *ifindex, *dir, ms(10), |f| f.max_packet = 1480);
    }
    explain(&[s.told(ms(4000))])
}

#[test]
fn fragments_are_named_where_they_first_show() {
    let (client, service, to) = (ip(CLIENT), ip(VIP), ip(BACKEND));
    let inside = (client, service, CLIENT_VETH, Direction::Ingress);
    let outside = (client, to, BACKEND_VETH, Direction::Egress);
    let came = datagrams(&[inside, outside], 1500);
    assert_eq!(codes(&came), ["fragmentation"]);
    assert_eq!(came.verdict, Verdict::Healthy);
    assert_eq!(came.findings[0].severity, Severity::Warning);
    assert!(
        came.findings[0]
            .summary
            .contains("before they reach v-client")
    );
    let made = datagrams(&[outside], 1500);
    assert!(
        made.findings[0]
            .summary
            .contains("on the way out through v-cart")
    );
    // Another flow's: none of this one's packets is as big.
    assert_eq!(codes(&datagrams(&[inside], 200)), Vec::<&str>::new());
}

#[test]
fn what_the_backends_node_says_of_one_endpoint_may_come_for_the_next() {
    let other: SocketAddr = SocketAddr::new(ip("10.9.2.9"), 8080);
    let told = |end: u64| {
        let mut all = objects(&[REMOTE, "10.9.2.9"]);
        all.pods.push(pod("cart-next", "10.9.2.9", "b", &[8080]));
        let mut s = Story::new("a", all, facts_a());
        for (sport, to) in [(4001, remote()), (4002, other)] {
            let (o, r) = (vip(sport), reply(sport, to));
            s.syn(o, CLIENT_VETH, ms(10), 7, 3);
            s.nat(o, r, ms(10));
            s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
        }
        s.unreachable(NODE_B, reply(4001, remote()).inverse(), 1, 0, ms(3050));
        explain(&[s.told(ms(end))])
    };
    for end in [3500, 6000] {
        let answer = told(end);
        assert_cause(&answer, "backend-gone", Verdict::Failing);
        let said = &answer.findings[0].summary;
        assert!(
            said.contains("10.9.2.9 on the same node met silence"),
            "{said}"
        );
    }
}

#[test]
fn a_network_that_a_router_does_not_know_holds_the_endpoints_beside_too() {
    let beside = "10.9.2.8";
    for (code, served, known) in [(0, false, 2), (0, true, 1), (1, false, 1)] {
        let mut all = objects(&[REMOTE, beside]);
        all.slices[0].endpoints[1].node = Some("b".into());
        let mut s = Story::new("a", all, facts_a());
        let other = SocketAddr::new(ip(beside), 8080);
        for (sport, to) in [(4001, remote()), (4002, other)] {
            let (o, r) = (vip(sport), reply(sport, to));
            s.syn(o, CLIENT_VETH, ms(10), 7, 2);
            s.nat(o, r, ms(10));
            s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 2);
        }
        s.unreachable("198.51.100.1", forward(remote()), code, 0, ms(11));
        if served {
            s.served(4003, other, UPLINK, ms(600));
        }
        let answer = explain(&[s.told(ms(4000))]);
        let finding = answer
            .findings
            .iter()
            .find(|f| f.code != "lost-beyond-node");
        let attempts = finding.map(|f| f.affected.attempts);
        assert_eq!(attempts, Some(known), "{answer:#?}");
    }
}

#[test]
fn what_reached_the_receivers_node_did_not_vanish_for_its_size() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let (o, r) = (vip(4001), reply(4001, remote()));
    // It ran before netflow looked. Of a long answer the end came, which was small enough, and nothing before it.
    for (tuple, ifindex, dir) in [
        (r, UPLINK, Direction::Ingress),
        (o.inverse(), CLIENT_VETH, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.flags = TcpFlags(24);
            f.data = Some(ms(20));
            f.isn = 1000;
            f.seq_end = 63_465;
            f.max_packet = 1_400;
            f.last = ms(20);
        });
    }
    for (tuple, ifindex, dir) in [
        (o, CLIENT_VETH, Direction::Ingress),
        (r.inverse(), UPLINK, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(3000), |f| {
            f.flags = TcpFlags(16);
            f.ack = 1001;
            f.last = ms(3000);
        });
    }
    s.nat(o, r, ms(10));
    s.served(4002, remote(), UPLINK, ms(900));
    let answer = explain(&[s.told(ms(4000))]);
    assert_eq!(answer.verdict, Verdict::Degraded);
    assert_eq!(codes(&answer), Vec::<&str>::new(), "{answer:#?}");
}
