//! What the Service proxy did, and what looks like its fault and is none.

use super::codes::*;
use super::listener::declared;
use super::story::*;
use crate::model::answer::{Answer, Verdict};
use crate::model::flow::Direction;
use crate::model::node::{NodeFacts, ProxyService, Unread};
use crate::model::objects::{Endpoint, Objects, Service, ServicePort, TargetPort};
use crate::model::{Input, Proto, Tuple};
use std::net::SocketAddr;

const OUTSIDE: &str = "203.0.113.9";
const LB: &str = "198.51.100.10";

fn commands(answer: &Answer) -> String {
    let fixes = answer.findings.iter().flat_map(|f| &f.fix);
    fixes.map(|f| f.command.as_str()).collect()
}

/// The SYN to a remote backend waits on node A for a neighbour that never answers.
fn neighbor_fails(facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(vip(4001), reply(4001, remote()), ms(10));
    let sent = reply(4001, remote()).inverse();
    s.drop(
        sent,
        NETNS,
        "NEIGH_FAILED",
        "neigh_invalidate",
        Some(ct),
        ms(3010),
    );
    s.unreachable(NODE_A, vip(4001), 1, 0, ms(3011));
    explain(&[s.told(ms(4000))])
}

#[test]
fn a_silent_router_does_not_make_the_backend_gone() {
    let answer = neighbor_fails(routed(facts_a(), REMOTE, Some(NODE_B)));
    assert!(!critical(&answer).contains(&"backend-gone"), "{answer:#?}");
    assert!(!commands(&answer).contains("delete pod"));
    assert_eq!(answer.verdict, Verdict::Failing);
}

#[test]
fn a_backend_on_the_own_link_that_nobody_answers_for_is_gone_or_its_node_is() {
    let answer = neighbor_fails(on_link(facts_a(), REMOTE));
    assert_cause(&answer, "backend-gone", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("or its node is down"));
    assert!(
        !commands(&answer).contains("delete pod"),
        "node b was not asked"
    );
}

/// ICMP host unreachable about the SYN that went to node B, from `router`.
fn host_unreachable(router: &str, second: Option<Vec<Input>>) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), reply(4001, remote()), ms(10));
    let sent = reply(4001, remote()).inverse();
    s.syn_at(sent, UPLINK, Direction::Egress, ms(10), 7, 1);
    s.unreachable(router, vip(4001), 1, 0, ms(2000));
    let mut told = vec![s.told(ms(4000))];
    told.extend(second);
    explain(&told)
}

#[test]
fn host_unreachable_proves_a_missing_pod_only_from_its_node() {
    let of_router = host_unreachable("192.0.2.254", None);
    assert!(
        !critical(&of_router).contains(&"backend-gone"),
        "{of_router:#?}"
    );
    let of_node = host_unreachable(NODE_B, None);
    assert_cause(&of_node, "backend-gone", Verdict::Failing);
    assert!(!commands(&of_node).contains("delete pod"));
}

#[test]
fn the_pod_object_may_be_removed_where_its_node_was_asked_and_has_no_such_pod() {
    let mut facts = facts_b();
    facts.pods.clear();
    let b = Story::new("b", objects(&[REMOTE]), facts).told(ms(4000));
    let answer = host_unreachable("192.0.2.254", Some(b));
    assert_cause(&answer, "backend-gone", Verdict::Failing);
    assert!(commands(&answer).contains("kubectl delete pod cart-far -n shop"));
}

/// A packet to the VIP that a netfilter hook of the node dropped as it was dialled.
fn vip_dropped(objects: Objects, facts: NodeFacts, dialled: Tuple) -> Answer {
    let mut s = Story::new("a", objects, facts);
    s.syn(dialled, CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        dialled,
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    explain(&[s.told(ms(3000))])
}

fn turned_away(ip: &str) -> ProxyService {
    ProxyService {
        ip: Some(super::story::ip(ip)),
        drop: true,
        ..rules_to(&[])
    }
}

#[test]
fn a_rule_that_turns_the_address_away_is_a_rule() {
    let mut local = objects(&[REMOTE]);
    local.services[0].internal_local = true;
    local.slices[0].endpoints[0].node = Some("b".into());
    let answer = vip_dropped(local, ruled(facts_a(), turned_away(VIP)), vip(4001));
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
    assert!(
        !critical(&answer).contains(&"proxy-rules-stale"),
        "{answer:#?}"
    );

    let mut dual = objects(&[BACKEND]);
    dual.services[0].cluster_ips.push(ip("fd00:96::1"));
    let dialled = tuple(Proto::TCP, "fd00:1::5", 4001, "fd00:96::1", 80);
    let answer = vip_dropped(dual, ruled(facts_a(), turned_away("fd00:96::1")), dialled);
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
    assert!(
        !critical(&answer).contains(&"proxy-rules-stale"),
        "{answer:#?}"
    );
}

#[test]
fn no_endpoint_for_this_node_is_no_missing_translation_even_without_rules() {
    let mut local = objects(&[REMOTE]);
    local.services[0].internal_local = true;
    local.slices[0].endpoints[0].node = Some("b".into());
    let answer = vip_dropped(local, facts_a(), vip(4001));
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
}

#[test]
fn rules_that_turn_away_what_has_endpoints_do_not_translate_it() {
    let answer = vip_dropped(
        objects(&[BACKEND]),
        ruled(facts_a(), turned_away(VIP)),
        vip(4001),
    );
    assert_cause(&answer, "vip-not-translated", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("turn them away"));
}

#[test]
fn rules_that_were_not_read_may_be_there() {
    let mut facts = facts_a();
    facts.unread.push(Unread {
        what: "nftables".into(),
        why: "Operation not permitted".into(),
    });
    let answer = vip_dropped(objects(&[BACKEND]), facts, vip(4001));
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
    let answer = vip_dropped(objects(&[BACKEND]), facts_a(), vip(4001));
    assert_eq!(critical(&answer), ["vip-not-translated"], "{answer:#?}");
}

#[test]
fn rules_count_on_every_node_and_without_pod_objects() {
    let mut bare = objects(&[BACKEND]);
    bare.pods.clear();
    let mut facts = ruled(facts_a(), rules_to(&[backend()]));
    facts.pods.clear();
    let answer = vip_dropped(bare, facts, vip(4001));
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );

    let mut public = objects(&[BACKEND]);
    public.services[0].lb_ips = vec![ip(LB)];
    let facts = ruled(
        facts_a(),
        ProxyService {
            ip: Some(ip(LB)),
            drop: true,
            ..rules_to(&[backend()])
        },
    );
    let answer = vip_dropped(public, facts, tuple(Proto::TCP, OUTSIDE, 4001, LB, 80));
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
    assert!(
        !critical(&answer).contains(&"proxy-rules-stale"),
        "{answer:#?}"
    );
}

#[test]
fn a_node_port_that_the_node_refuses_itself_is_not_translated() {
    let mut exposed = objects(&[BACKEND]);
    exposed.services[0].ports[0].node_port = Some(30_080);
    let refused = |facts| {
        let mut s = Story::new("a", exposed.clone(), facts);
        let dialled = tuple(Proto::TCP, OUTSIDE, 5000, NODE_A, 30_080);
        s.syn(dialled, UPLINK, ms(10), 7, 1);
        s.rst(dialled.inverse(), UPLINK, Direction::Egress, ms(11));
        s.drop(dialled, NETNS, "NO_SOCKET", "tcp_v4_rcv", None, ms(10));
        explain(&[s.told(ms(3000))])
    };
    assert_cause(&refused(facts_a()), "vip-not-translated", Verdict::Failing);
    let known = ruled(
        facts_a(),
        ProxyService {
            ip: None,
            port: 30_080,
            ..rules_to(&[backend()])
        },
    );
    assert!(!critical(&refused(known)).contains(&"vip-not-translated"));
}

/// A client from outside dials `to` and is refused by whoever has it, while the Service serves.
fn another_port(objects: Objects, to: SocketAddr, translated: Option<SocketAddr>) -> Answer {
    let mut s = Story::new("a", objects, facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let dialled = Tuple {
        proto: Proto::TCP,
        src: ip(OUTSIDE),
        sport: 5000,
        dst: to.ip(),
        dport: to.port(),
    };
    s.syn(dialled, UPLINK, ms(20), 7, 1);
    if let Some(backend) = translated {
        let back = tuple(
            Proto::TCP,
            &backend.ip().to_string(),
            backend.port(),
            OUTSIDE,
            5000,
        );
        s.nat(dialled, back, ms(20));
    }
    s.rst(dialled.inverse(), UPLINK, Direction::Egress, ms(21));
    explain(&[s.told(ms(3000))])
}

#[test]
fn ports_of_the_node_behind_a_load_balancer_address_are_the_nodes() {
    let mut shared = objects(&[BACKEND]);
    shared.services[0].lb_ips = vec![ip(NODE_A)];
    let answer = another_port(shared, SocketAddr::new(ip(NODE_A), 9100), None);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty());
}

#[test]
fn ports_of_another_service_on_the_same_load_balancer_address_are_its() {
    let mut shared = objects(&[BACKEND]);
    shared.services[0].lb_ips = vec![ip(LB)];
    shared.services.push(Service {
        namespace: "shop".into(),
        name: "mail".into(),
        kind: "LoadBalancer".into(),
        cluster_ips: vec![ip("172.30.4.9")],
        lb_ips: vec![ip(LB)],
        ports: vec![ServicePort {
            name: String::new(),
            proto: Proto::TCP,
            port: 443,
            target: TargetPort::Number(8443),
            node_port: None,
        }],
        ..Service::default()
    });
    let mail = SocketAddr::new(ip("10.9.1.20"), 8443);
    let answer = another_port(shared.clone(), SocketAddr::new(ip(LB), 443), Some(mail));
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let nobodys = another_port(shared, SocketAddr::new(ip(LB), 444), None);
    assert_eq!(
        critical(&nobodys),
        ["service-port-undefined"],
        "{nobodys:#?}"
    );
}

#[test]
fn rules_with_the_port_of_before_are_stale() {
    let mut moved = objects(&[BACKEND]);
    moved.services[0].ports[0].target = TargetPort::Number(8081);
    moved.slices[0].ports[0].port = Some(8081);
    moved.pods[1].ports = vec![declared("app", 8081)].into();
    let mut s = Story::new("a", moved, facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), reply(4001, backend()), ms(10));
    let sent = reply(4001, backend()).inverse();
    s.syn_at(sent, BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.rst(
        reply(4001, backend()),
        BACKEND_VETH,
        Direction::Ingress,
        ms(11),
    );
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Failing);
    let held = answer.evidence.iter().find(|e| e.text.contains("hold"));
    assert!(held.is_some_and(|e| e.text.contains("10.9.1.7:8081")));
}

/// The slice loses the local endpoint at `left`; a connection at `at` is still sent to it and refused.
fn rolled_out(left: u64, at: u64) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    let mut later = objects(&[REMOTE]);
    later.time = ms(left);
    s.inputs.push(Input::Objects(Box::new(later)));
    s.served(4001, remote(), UPLINK, ms(10));
    s.syn(vip(4002), CLIENT_VETH, ms(at), 7, 1);
    s.nat(vip(4002), reply(4002, backend()), ms(at));
    let sent = reply(4002, backend()).inverse();
    s.syn_at(sent, BACKEND_VETH, Direction::Egress, ms(at), 7, 1);
    s.rst(
        reply(4002, backend()),
        BACKEND_VETH,
        Direction::Ingress,
        ms(at + 1),
    );
    s.rst(
        vip(4002).inverse(),
        CLIENT_VETH,
        Direction::Egress,
        ms(at + 1),
    );
    explain(&[s.told(ms(20_000))])
}

#[test]
fn an_endpoint_that_is_just_leaving_is_no_fault() {
    for (left, at) in [(5000, 4000), (5000, 5500), (5000, 7000)] {
        let answer = rolled_out(left, at);
        assert_eq!(answer.verdict, Verdict::Healthy, "{left} {at} {answer:#?}");
        assert!(answer.findings.is_empty(), "{answer:#?}");
    }
}

#[test]
fn an_endpoint_that_left_long_ago_is() {
    let answer = rolled_out(5000, 10_000);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Degraded);
}

#[test]
fn an_endpoint_that_refused_long_before_it_left_refused() {
    let answer = rolled_out(15_000, 5000);
    assert_eq!(critical(&answer), ["listener-missing"], "{answer:#?}");
}

#[test]
fn an_endpoint_that_refuses_and_is_then_unready_refused() {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    let mut later = objects(&[BACKEND, REMOTE]);
    later.time = ms(5000);
    later.slices[0].endpoints[0] = Endpoint {
        addresses: vec![ip(BACKEND)],
        ..Endpoint::default()
    };
    s.inputs.push(Input::Objects(Box::new(later)));
    s.syn(vip(4002), CLIENT_VETH, ms(4000), 7, 1);
    s.nat(vip(4002), reply(4002, backend()), ms(4000));
    let sent = reply(4002, backend()).inverse();
    s.syn_at(sent, BACKEND_VETH, Direction::Egress, ms(4000), 7, 1);
    s.rst(
        reply(4002, backend()),
        BACKEND_VETH,
        Direction::Ingress,
        ms(4001),
    );
    s.rst(
        vip(4002).inverse(),
        CLIENT_VETH,
        Direction::Egress,
        ms(4001),
    );
    let answer = explain(&[s.told(ms(20_000))]);
    assert_eq!(critical(&answer), ["listener-missing"], "{answer:#?}");
}

/// A client on each node is served by the Pod there.
fn translated_by(here: &str, there: &str) -> Vec<String> {
    let told = |node: &str, facts: NodeFacts, client: &str, to: &str, mode: &str| {
        let to = SocketAddr::new(ip(to), 8080);
        let row = ProxyService {
            mode: mode.into(),
            ..rules_to(&[to])
        };
        let mut s = Story::new(node, objects(&[BACKEND, REMOTE]), ruled(facts, row));
        let orig = tuple(Proto::TCP, client, 4001, VIP, 80);
        let reply = tuple(Proto::TCP, &to.ip().to_string(), 8080, client, 4001);
        s.syn(orig, CLIENT_VETH, ms(10), 7, 1);
        s.nat(orig, reply, ms(10));
        s.syn_at(
            reply.inverse(),
            BACKEND_VETH,
            Direction::Egress,
            ms(10),
            7,
            1,
        );
        s.syn_ack(reply, BACKEND_VETH, Direction::Ingress, ms(11));
        s.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
        s.told(ms(4000))
    };
    let answer = explain(&[
        told("a", facts_a(), CLIENT, BACKEND, here),
        told("b", facts_b(), "10.9.2.5", REMOTE, there),
    ]);
    let modes = answer.findings.iter().filter(|f| f.code == "proxy-mode");
    modes.map(|f| f.summary.clone()).collect()
}

#[test]
fn how_nodes_translate_is_told_once_where_it_is_the_same() {
    let same = translated_by("nftables", "nftables");
    assert_eq!(same.len(), 1, "{same:?}");
    assert!(same[0].starts_with("a, b: Services are translated by nftables"));
    let apart = translated_by("nftables", "ipvs");
    assert_eq!(apart.len(), 2, "{apart:?}");
    assert!(
        apart
            .iter()
            .any(|s| s.starts_with("b: Services are translated by ipvs"))
    );
}
