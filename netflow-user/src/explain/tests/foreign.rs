//! Stories from clusters that are built another way: masquerading nodes, routed Pods, the host's network, sidecars.

use super::codes::assert_cause;
use super::story::*;
use crate::model::answer::{Answer, Verdict};
use crate::model::conntrack::CtStatus;
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{Listener, NodeFacts, ProxyService, Route, RouteLookup};
use crate::model::objects::{Objects, Pod, TargetPort};
use crate::model::record::Event;
use crate::model::shared::Shared;
use crate::model::{CtTuples, Proto, Tuple};
use std::net::SocketAddr;

const GONE: &str = "10.9.1.99";

fn vip(sport: u16) -> Tuple {
    tuple(Proto::TCP, CLIENT, sport, VIP, 80)
}

fn reply(sport: u16, from: &str) -> Tuple {
    tuple(Proto::TCP, from, 8080, CLIENT, sport)
}

fn to(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), 8080)
}

fn listener(addr: &str) -> Listener {
    Listener {
        proto: Proto::TCP,
        addr: addr.parse().unwrap_or_else(|_| panic!("{addr}")),
        v6only: false,
        queue: 0,
        backlog: 128,
        ephemeral: false,
    }
}

#[test]
fn untranslated_vip_is_masqueraded_as_all_that_leaves_the_cluster() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let (o, r) = (vip(4001), tuple(Proto::TCP, VIP, 80, NODE_A, 61_001));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "vip-not-translated", Verdict::Failing);
}

/// The local backend refuses, and the node drops a packet of the attempt before or after that.
fn refused_and_dropped(dropped: Tuple, at: u64) -> Answer {
    let mut facts = facts_a();
    facts.firewall = vec![dropping(None)];
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    let (o, r) = (vip(4001), reply(4001, BACKEND));
    s.syn(o, CLIENT_VETH, ms(10), 7, 2);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 2);
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(1200));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(1200));
    s.drop(
        dropped,
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(at),
    );
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_is_invalid_after_the_reset_is_no_cause() {
    let second_rst = refused_and_dropped(reply(4001, BACKEND), 1201);
    assert_cause(&second_rst, "listener-missing", Verdict::Failing);
    let late_data = refused_and_dropped(reply(4001, BACKEND).inverse(), 1201);
    assert_cause(&late_data, "listener-missing", Verdict::Failing);
    let before = refused_and_dropped(reply(4001, BACKEND).inverse(), 1100);
    assert_cause(&before, "firewall-drop", Verdict::Failing);
}

/// Connections to `backend` are refused.
fn refused(objects: Objects, facts: NodeFacts, backend: &str, out: u32) -> Answer {
    let mut s = Story::new("a", objects, facts);
    let (o, r) = (vip(4001), reply(4001, backend));
    s.syn(o, CLIENT_VETH, ms(10), 7, 1);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), out, Direction::Egress, ms(10), 7, 1);
    s.rst(r, out, Direction::Ingress, ms(11));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    explain(&[s.told(ms(3000))])
}

#[test]
fn the_right_port_is_the_applications_not_a_declared_sidecars() {
    let mut declared = objects(&[BACKEND]);
    declared.pods[1].ports = vec![
        super::listener::declared("app", 9090),
        super::listener::declared("proxy", 15_090),
    ]
    .into();
    let mut facts = facts_a();
    facts.pods[1].listeners = vec![listener("0.0.0.0:15090"), listener("0.0.0.0:9090")];
    let answer = refused(declared.clone(), facts.clone(), BACKEND, BACKEND_VETH);
    assert_cause(&answer, "target-port-mismatch", Verdict::Failing);
    let found = &answer.findings[0];
    assert!(found.summary.contains("ports 9090 and 15090"));
    assert!(!found.fix.iter().any(|f| f.command.contains("\"value\"")));

    // The port with the Service's name is meant.
    let mut ports = declared.pods[1].ports.to_vec();
    ports.reverse();
    ports[1].name = "web".into();
    declared.pods[1].ports = ports.into();
    declared.services[0].ports[0].name = "web".into();
    declared.slices[0].ports[0].name = "web".into();
    let answer = refused(declared, facts, BACKEND, BACKEND_VETH);
    let fix = &answer.findings[0].fix[0].command;
    assert!(fix.contains("\"value\":9090"), "{fix}");
}

/// The endpoint is a Pod of the host's network on node B, which is node A's uplink's far side.
fn host_backend() -> Objects {
    let mut all = objects(&[NODE_B]);
    all.services[0].ports[0].target = TargetPort::Number(8080);
    all.slices[0].endpoints[0].pod = Some("cart-host".into());
    all.pods.truncate(1);
    all.pods.push(Pod {
        host_network: true,
        ..pod("cart-host", NODE_B, "b", &[8080])
    });
    all
}

#[test]
fn an_endpoint_on_a_nodes_address_is_named_as_its_pod() {
    let answer = refused(host_backend(), facts_a(), NODE_B, UPLINK);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(summary.contains("shop/cart-host"), "{summary}");
    let commands: String = answer.findings[0]
        .check
        .iter()
        .map(|c| c.command.as_str())
        .collect();
    assert!(!commands.contains("exec b "), "{commands}");
}

#[test]
fn a_nodes_other_sockets_are_no_hint_at_the_target_port() {
    let mut undeclared = host_backend();
    undeclared.pods[1].ports = Shared::default();
    undeclared.pods[1].ips = vec![ip(NODE_A)];
    undeclared.slices[0].endpoints[0].addresses = vec![ip(NODE_A)];
    let mut facts = facts_a();
    facts.pods[1].ips = vec![ip(NODE_A)];
    facts.pods[1].netns = NETNS;
    facts.pods[1].listeners = vec![listener("0.0.0.0:22")];
    let answer = refused(undeclared, facts, NODE_A, 1);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}

/// The slice lists an address that node A should hold.
fn gone_from_a() -> Objects {
    let mut all = objects(&[GONE]);
    all.pods[1].ips = vec![ip(GONE)];
    all.slices[0].endpoints[0].node = Some("a".into());
    all
}

/// The node drops what goes to `backend` for want of a route.
fn unroutable(objects: Objects, backend: &str) -> Answer {
    let mut facts = facts_a();
    facts.pods.truncate(1);
    let mut s = Story::new("a", objects, facts);
    let (o, r) = (vip(4001), reply(4001, backend));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        r.inverse(),
        NETNS,
        "NOT_SPECIFIED",
        "ip_error",
        Some(unconfirmed(o, r)),
        ms(10),
    );
    explain(&[s.told(ms(4000))])
}

#[test]
fn route_of_the_pod_went_with_it() {
    let answer = unroutable(gone_from_a(), GONE);
    assert_cause(&answer, "backend-gone", Verdict::Failing);
    let mut listed_only = gone_from_a();
    listed_only.pods.remove(1);
    let answer = unroutable(listed_only, GONE);
    assert_cause(&answer, "backend-gone", Verdict::Failing);
}

#[test]
fn a_missing_route_to_another_nodes_pod_is_no_missing_pod() {
    let answer = unroutable(objects(&[REMOTE]), REMOTE);
    assert!(
        answer.findings.iter().all(|f| f.code != "backend-gone"),
        "{answer:#?}"
    );
}

/// Node A routes each Pod on its own; the default route leads to a gateway on the uplink.
fn sent_out(via: Option<&str>, seen: bool) -> Answer {
    let mut facts = facts_a();
    facts.pods.truncate(1);
    facts.routes.push(Route {
        dst: ip("0.0.0.0"),
        prefix: 0,
        via: Some(ip("192.0.2.254")),
        ifindex: UPLINK,
        table: 254,
        kind: "unicast".into(),
        mtu: None,
        nexthops: Vec::new(),
    });
    facts.lookups.push(RouteLookup {
        netns: NETNS,
        dst: ip(GONE),
        errno: None,
        kind: "unicast".into(),
        via: via.map(ip),
        ifindex: UPLINK,
        src: None,
        table: 254,
        mtu: None,
        mtu_expires_secs: None,
    });
    let mut s = Story::new("a", gone_from_a(), facts);
    let (o, r) = (vip(4001), reply(4001, GONE));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    if seen {
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    }
    explain(&[s.told(ms(4000))])
}

#[test]
fn packets_to_a_vanished_pod_take_the_default_route() {
    for seen in [true, false] {
        let answer = sent_out(Some("192.0.2.254"), seen);
        assert_cause(&answer, "backend-gone", Verdict::Failing);
    }
    // A network that the uplink shares with Pods: silence alone does not say that the Pod is gone.
    assert!(sent_out(None, true).findings.is_empty());
}

#[test]
fn an_old_connection_that_todays_rules_would_send_there_too_is_stale_rules() {
    let mut facts = facts_a();
    facts.proxy.modes = vec!["iptables-nft".into()];
    facts.proxy.services.push(ProxyService {
        mode: "iptables-nft".into(),
        ip: Some(ip(VIP)),
        port: 80,
        proto: Proto::TCP,
        backends: vec![to(GONE)],
        reject: false,
        drop: false,
        place: "nat/x".into(),
    });
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    for (sport, status) in [(4001, 0x1a8), (4002, 0x120)] {
        let (o, r) = (vip(sport), reply(sport, GONE));
        s.syn_at(o, CLIENT_VETH, Direction::Ingress, ms(10), 7, 3);
        let ct = CtTuples {
            status: CtStatus(status),
            ..unconfirmed(o, r)
        };
        s.drop(
            r.inverse(),
            NETNS,
            "NEIGH_FAILED",
            "neigh_invalidate",
            Some(ct),
            ms(500),
        );
    }
    let mut inputs = s.told(ms(4000));
    for input in &mut inputs {
        // The first of them stood in the table when netflow came.
        if let crate::model::Input::Node(facts) = input {
            facts
                .conntrack
                .entries
                .push(crate::model::conntrack::CtEntry {
                    tuples: unconfirmed(vip(4001), reply(4001, GONE)),
                    id: 1,
                    timeout_secs: 60,
                    tcp_state: None,
                });
        }
    }
    assert_cause(&explain(&[inputs]), "proxy-rules-stale", Verdict::Failing);
}

#[test]
fn a_connection_accepted_this_moment_does_not_clear_its_endpoint() {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    for n in 0..4 {
        s.served(4001 + n, to(REMOTE), UPLINK, ms(10));
    }
    for n in 0..3 {
        s.served(5001 + n, to(BACKEND), BACKEND_VETH, ms(20));
        s.flow(
            vip(5001 + n).inverse(),
            CLIENT_VETH,
            Direction::Egress,
            ms(20),
            |f| {
                f.flags = TcpFlags(22);
                f.syn_ack = Some(ms(20));
                f.rst = Some(ms(30));
            },
        );
    }
    s.served(5009, to(BACKEND), BACKEND_VETH, ms(2990));
    assert_cause(
        &explain(&[s.told(ms(3000))]),
        "one-bad-endpoint",
        Verdict::Degraded,
    );
}

/// A tunnel's path is narrow: of a long request not even the first segment passes, and what is sent again first is
/// smaller than what followed it. `acked` is what the backend acknowledged.
fn long_request(acked: u32) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let (o, r) = (vip(4001), reply(4001, REMOTE));
    s.served(4001, to(REMOTE), UPLINK, ms(10));
    for (tuple, ifindex, dir) in [
        (o, CLIENT_VETH, Direction::Ingress),
        (r.inverse(), UPLINK, Direction::Egress),
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
            f.retrans_max = 1346;
            f.max_packet = 1450;
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
            f.ack = acked;
        });
    }
    // A small one gets through meanwhile.
    s.served(4002, to(REMOTE), UPLINK, ms(900));
    explain(&[s.told(ms(4000))])
}

#[test]
fn what_is_sent_again_may_be_smaller_than_what_never_passed() {
    assert_cause(&long_request(4002), "mtu-blackhole", Verdict::Degraded);
    // Full-size packets passed before: size is not what the later ones are lost for.
    assert_cause(&long_request(40_000), "lost-beyond-node", Verdict::Degraded);
}

/// A client whose datagrams reach the backend's veth and are not answered; `sign` adds what else was seen of the first.
fn one_way(facts: NodeFacts, sign: impl FnOnce(&mut Story, Tuple)) -> Answer {
    let mut all = objects(&[BACKEND]);
    all.services[0].ports[0].proto = Proto::UDP;
    all.slices[0].ports[0].proto = Proto::UDP;
    let mut s = Story::new("a", all, facts);
    let o = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
    let r = tuple(Proto::UDP, BACKEND, 8080, CLIENT, 4001);
    s.flow(o, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
    s.nat(o, r, ms(10));
    s.flow(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), |_| {});
    sign(&mut s, r.inverse());
    explain(&[s.told(ms(4000))])
}

fn dropped(s: &mut Story, packet: Tuple) {
    let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
    s.drop(packet, BACKEND_NETNS, reason, place, None, ms(10));
}

/// The first packet to a neighbour waits for its link-layer address, and leaves.
fn waited(s: &mut Story, packet: Tuple) {
    let (ip, ct) = (packet.dst, None);
    let wait = Event::NeighborWait { ip, ct };
    s.record(ms(9), NETNS, BACKEND_VETH, Some(packet), wait);
}

#[test]
fn datagrams_that_a_socket_takes_need_no_answer() {
    let mut facts = facts_a();
    facts.pods[1].listeners = vec![Listener {
        proto: Proto::UDP,
        ..listener("0.0.0.0:8080")
    }];
    for sign in [|_: &mut Story, _| {}, waited] {
        let taken = one_way(facts.clone(), sign);
        assert_eq!(taken.verdict, Verdict::NotEnoughEvidence, "{taken:#?}");
        assert!(taken.findings.is_empty());
    }
    facts.pods[1].firewall = vec![dropping(None)];
    assert_cause(&one_way(facts, dropped), "firewall-drop", Verdict::Failing);
    let unheard = one_way(facts_a(), |_, _| {});
    assert_eq!(unheard.verdict, Verdict::Failing, "{unheard:#?}");
}

/// The end of a long answer passes, what came before it does not: the client's node sees data that nobody acknowledges.
fn answer_with_a_hole(aborted: bool) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let (o, r) = (vip(4001), reply(4001, REMOTE));
    s.served(4001, to(REMOTE), UPLINK, ms(10));
    let mut data = |tuple, ifindex, dir, seq_end, ack| {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.packets = 3;
            f.flags = TcpFlags(24);
            f.syn_ack = (seq_end > 1000).then_some(ms(10));
            f.syn = (seq_end <= 1000).then_some(ms(10));
            f.isn = if seq_end > 1000 { 0 } else { 4001 };
            f.data = Some(ms(20));
            f.last = ms(20);
            f.seq_end = seq_end;
            f.ack = ack;
            f.rst = (aborted && seq_end <= 1000).then_some(ms(30));
        });
    };
    data(o, CLIENT_VETH, Direction::Ingress, 100, 500);
    data(r, UPLINK, Direction::Ingress, 60_000, 100);
    data(o.inverse(), CLIENT_VETH, Direction::Egress, 60_000, 100);
    explain(&[s.told(ms(4000))])
}

#[test]
fn unacknowledged_data_is_not_an_answer() {
    let hole = answer_with_a_hole(false);
    assert_eq!(hole.verdict, Verdict::NotEnoughEvidence, "{hole:#?}");
    let aborted = answer_with_a_hole(true);
    assert_eq!(aborted.verdict, Verdict::Healthy, "{aborted:#?}");
}

#[test]
fn a_finished_pod_does_not_keep_its_address() {
    let mut reused = objects(&[BACKEND]);
    let mut job = pod("job", BACKEND, "b", &[]);
    job.phase = "Succeeded".into();
    reused.pods.insert(0, job);
    let mut facts = facts_a();
    facts.pods[1].listeners = vec![listener("127.0.0.1:8080")];
    let answer = refused(reused, facts, BACKEND, BACKEND_VETH);
    assert_cause(&answer, "listener-loopback-only", Verdict::Failing);
    let evidence: String = answer.evidence.iter().map(|e| e.text.as_str()).collect();
    assert!(!evidence.contains("shop/job"), "{evidence}");
}
