//! One story per code, and its near misses.

use super::story::*;
use crate::model::answer::{Answer, Basis, Evidence, Severity, Verdict, Via};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{Listener, NodeFacts, ProxyService};
use crate::model::objects::{NetworkPolicy, Objects, Selector};
use crate::model::query::Target;
use crate::model::record::Event;
use crate::model::shared::{Map, Shared};
use crate::model::{CtTuples, Input, Proto, Tuple};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) fn top(answer: &Answer) -> &'static str {
    answer.findings.first().map_or("none", |f| f.code)
}

/// Codes of the critical findings, in their order.
pub(super) fn critical(answer: &Answer) -> Vec<&'static str> {
    let all = answer.findings.iter();
    all.filter(|f| f.severity == Severity::Critical)
        .map(|f| f.code)
        .collect()
}

/// The finding on top is this one, observed, and the only critical one; every id it cites exists.
pub(super) fn assert_cause(answer: &Answer, code: &str, verdict: Verdict) {
    assert_eq!(top(answer), code, "{answer:#?}");
    assert_eq!(answer.findings[0].basis, Basis::Observed, "{answer:#?}");
    assert_eq!(answer.verdict, verdict, "{answer:#?}");
    let critical = answer
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Critical)
        .count();
    assert_eq!(critical, 1, "{answer:#?}");
    assert!(!answer.findings[0].evidence.is_empty());
    for id in &answer.findings[0].evidence {
        assert!(
            answer.evidence.iter().any(|e| e.id == *id),
            "{id} is cited and not there"
        );
    }
    for path in &answer.paths {
        let o = path.outcomes;
        let sum = o.ok + o.refused + o.reset + o.timeout + o.unreachable + o.stalled + o.pending;
        assert_eq!(sum, o.attempts, "outcomes sum to attempts");
    }
}

pub(super) fn backend() -> SocketAddr {
    SocketAddr::new(ip(BACKEND), 8080)
}

pub(super) fn remote() -> SocketAddr {
    SocketAddr::new(ip(REMOTE), 8080)
}

pub(super) fn vip(sport: u16) -> Tuple {
    tuple(Proto::TCP, CLIENT, sport, VIP, 80)
}

pub(super) fn reply(sport: u16, from: SocketAddr) -> Tuple {
    tuple(
        Proto::TCP,
        &from.ip().to_string(),
        from.port(),
        CLIENT,
        sport,
    )
}

/// The local backend refuses.
fn refused(objects: Objects, facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects, facts);
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 1);
    let ct = s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.drop(
        r.inverse(),
        BACKEND_NETNS,
        "NO_SOCKET",
        "tcp_v4_rcv",
        None,
        ms(10),
    );
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let _ = ct;
    explain(&[s.told(ms(3000))])
}

fn listening(addr: &str) -> NodeFacts {
    let mut facts = facts_a();
    facts.pods[1].listeners.push(Listener {
        proto: Proto::TCP,
        addr: addr.parse().unwrap_or_else(|_| panic!("{addr}")),
        v6only: false,
        queue: 0,
        backlog: 128,
        ephemeral: false,
    });
    facts
}

#[test]
fn served_attempts_are_healthy() {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    s.served(4002, remote(), UPLINK, ms(20));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty());
    assert_eq!(answer.paths.len(), 2);
    assert!(
        answer
            .paths
            .iter()
            .all(|p| p.via == Via::Vip && p.outcomes.ok == 1)
    );
}

#[test]
fn nothing_seen_is_not_enough_evidence() {
    let answer = explain(&[Story::new("a", objects(&[BACKEND]), facts_a()).told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence);
    assert!(answer.findings.is_empty());
}

#[test]
fn unknown_service_is_a_finding_with_the_nearest_names() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.target = Target::Name("carts".into());
    }
    let answer = explain(&[s.told(ms(100))]);
    assert_eq!(
        (top(&answer), answer.verdict),
        ("service-not-found", Verdict::Suspected)
    );
    assert!(
        answer.findings[0].summary.contains("nearest: shop/cart"),
        "{}",
        answer.findings[0].summary
    );
}

#[test]
fn listener_missing_when_the_declared_port_has_no_socket() {
    let answer = refused(objects(&[BACKEND]), listening("0.0.0.0:15090"));
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}

#[test]
fn listener_on_loopback_only() {
    let answer = refused(objects(&[BACKEND]), listening("127.0.0.1:8080"));
    assert_cause(&answer, "listener-loopback-only", Verdict::Failing);
}

#[test]
fn target_port_that_the_pod_neither_declares_nor_serves() {
    let mut declared = objects(&[BACKEND]);
    declared.pods[1].ports = vec![super::listener::declared("app", 9090)].into();
    assert_cause(
        &refused(declared.clone(), listening("0.0.0.0:9090")),
        "target-port-mismatch",
        Verdict::Failing,
    );
    assert_cause(
        &refused(declared, facts_a()),
        "listener-missing",
        Verdict::Failing,
    );
    let mut undeclared = objects(&[BACKEND]);
    undeclared.pods[1].ports = Shared::default();
    assert_cause(
        &refused(undeclared, listening("[::]:9090")),
        "target-port-mismatch",
        Verdict::Failing,
    );
}

#[test]
fn target_port_fix_names_the_port_that_serves() {
    let mut declared = objects(&[BACKEND]);
    declared.pods[1].ports = vec![super::listener::declared("app", 9090)].into();
    let answer = refused(declared, listening("0.0.0.0:9090"));
    let fix = &answer.findings[0].fix[0].command;
    assert!(
        fix.contains("patch svc cart -n shop") && fix.contains("\"value\":9090"),
        "{fix}"
    );
}

/// VIP attempts that the node rejects without translating them.
pub(super) fn rejected(objects: Objects) -> Answer {
    let mut s = Story::new("a", objects, facts_a());
    for n in 0..3 {
        let o = vip(4001 + n);
        s.syn(o, CLIENT_VETH, ms(10 + u64::from(n)), 7, 1);
        let ct = CtTuples {
            orig: o,
            reply: o.inverse(),
            status: crate::model::CtStatus(0x100),
            zone: 0,
            mark: 0,
            info: 2,
        };
        s.drop(
            o,
            NETNS,
            "NETFILTER_DROP",
            "nft_do_chain",
            Some(ct),
            ms(10 + u64::from(n)),
        );
        // ICMP is limited in rate: only the first gets its answer.
        if n == 0 {
            s.unreachable(NODE_A, o, 3, 0, ms(11));
        }
    }
    explain(&[s.told(ms(3000))])
}

#[test]
fn no_endpoints_by_selector_and_by_readiness() {
    let mut wrong = objects(&[]);
    wrong.services[0].selector = Some([("app".to_owned(), "kart".to_owned())].into());
    let answer = rejected(wrong);
    assert_cause(&answer, "no-endpoints-selector", Verdict::Failing);
    let o = answer.paths[0].outcomes;
    assert_eq!(
        (o.refused, o.timeout),
        (1, 2),
        "ICMP is rate limited: outcomes are mixed"
    );
    let mut unready = objects(&[BACKEND]);
    for p in &mut unready.pods {
        p.conditions = Map::default();
    }
    unready.slices[0].endpoints[0].ready = false;
    unready.slices[0].endpoints[0].serving = false;
    assert_cause(
        &rejected(unready),
        "no-endpoints-not-ready",
        Verdict::Failing,
    );
}

#[test]
fn broken_objects_without_traffic_are_suspected_never_failing() {
    let mut wrong = objects(&[]);
    wrong.services[0].selector = Some([("app".to_owned(), "kart".to_owned())].into());
    let answer = explain(&[Story::new("a", wrong, facts_a()).told(ms(3000))]);
    assert_eq!(
        (top(&answer), answer.verdict),
        ("no-endpoints-selector", Verdict::Suspected)
    );
    assert_eq!(answer.findings[0].basis, Basis::Objects);
}

#[test]
fn objects_that_look_broken_while_traffic_passes_are_no_fault() {
    let mut wrong = objects(&[]);
    wrong.services[0].selector = Some([("app".to_owned(), "kart".to_owned())].into());
    let mut s = Story::new("a", wrong, facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy);
    assert!(
        answer.findings.iter().all(|f| f.severity == Severity::Info),
        "{answer:#?}"
    );
}

#[test]
fn undefined_port_and_wrong_protocol() {
    let attempt = |proto, port| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let o = tuple(proto, CLIENT, 4001, VIP, port);
        s.flow(o, CLIENT_VETH, Direction::Ingress, ms(10), |f| {
            f.packets = 3;
            if proto == Proto::TCP {
                f.flags = TcpFlags(2);
                f.syn = Some(ms(10));
            }
        });
        explain(&[s.told(ms(3000))])
    };
    assert_cause(
        &attempt(Proto::TCP, 81),
        "service-port-undefined",
        Verdict::Failing,
    );
    assert_cause(
        &attempt(Proto::UDP, 80),
        "protocol-mismatch",
        Verdict::Failing,
    );
    assert_cause(
        &attempt(Proto::UDP, 81),
        "service-port-undefined",
        Verdict::Failing,
    );
}

#[test]
fn a_port_scan_beside_healthy_traffic_is_no_fault() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    for port in 1000..1020 {
        let o = tuple(Proto::TCP, "10.9.1.66", 5000, VIP, port);
        s.syn(o, CLIENT_VETH, ms(20), 9, 1);
    }
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty());
}

#[test]
fn vip_that_leaves_untranslated() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.syn_at(vip(4001), UPLINK, Direction::Egress, ms(10), 7, 3);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "vip-not-translated", Verdict::Failing);
}

#[test]
fn filter_on_the_vip_itself_is_not_a_missing_translation() {
    let mut facts = facts_a();
    facts.proxy.modes = vec!["nftables".into()];
    facts.proxy.services.push(ProxyService {
        mode: "nftables".into(),
        ip: Some(ip(VIP)),
        port: 80,
        proto: Proto::TCP,
        backends: vec![backend()],
        reject: false,
        drop: false,
        place: "nat/x".into(),
    });
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        vip(4001),
        NETNS,
        "NETFILTER_DROP",
        "nft_do_chain",
        None,
        ms(10),
    );
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
}

#[test]
fn new_connection_to_an_address_outside_the_slices() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let old = SocketAddr::new(ip("10.9.1.99"), 8080);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), reply(4001, old), ms(10));
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Failing);
}

#[test]
fn endpoint_that_no_pod_holds() {
    let mut gone = objects(&["10.9.1.99"]);
    gone.pods.truncate(1);
    let mut s = Story::new("a", gone, on_link(facts_a(), "10.9.1.99"));
    let old = SocketAddr::new(ip("10.9.1.99"), 8080);
    let (o, r) = (vip(4001), reply(4001, old));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = unconfirmed(o, r);
    s.drop(
        r.inverse(),
        NETNS,
        "NEIGH_FAILED",
        "neigh_invalidate",
        Some(ct),
        ms(3010),
    );
    s.unreachable(NODE_A, o, 1, 0, ms(3011));
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "backend-gone", Verdict::Failing);
    assert_eq!(answer.paths[0].outcomes.unreachable, 1);
}

/// The kernel gives a neighbour up only after three seconds: until then the packet waits.
fn waiting(left: bool, answered: bool) -> Answer {
    let mut s = Story::new("a", objects(&["10.9.1.99"]), facts_a());
    let gone = SocketAddr::new(ip("10.9.1.99"), 8080);
    let (o, r) = (vip(4001), reply(4001, gone));
    s.syn(o, CLIENT_VETH, ms(10), 7, 2);
    let ct = unconfirmed(o, r);
    let wait = Event::NeighborWait {
        ip: gone.ip(),
        ct: Some(Arc::new(ct)),
    };
    s.record(ms(10), NETNS, UPLINK, Some(r.inverse()), wait);
    if left {
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(20), 7, 2);
    }
    if answered {
        s.syn_ack(r, UPLINK, Direction::Ingress, ms(20));
        s.syn_ack(o.inverse(), CLIENT_VETH, Direction::Egress, ms(20));
    }
    explain(&[s.told(ms(1500))])
}

/// A bridged packet waits for its neighbour before its source is translated (`br_nf_pre_routing_finish_bridge`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/bridge/br_netfilter_hooks.c>): the entry is not yet what it will be.
#[test]
fn a_packet_that_waits_before_masquerade_is_sent_on() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let (o, r) = (vip(4001), reply(4001, backend()));
    let ct = Some(Arc::new(unconfirmed(o, r)));
    let ip = backend().ip();
    let wait = Event::NeighborWait { ip, ct };
    s.record(ms(10), NETNS, BACKEND_VETH, Some(r.inverse()), wait);
    let masked = tuple(Proto::TCP, BACKEND, 8080, NODE_A, 61_000);
    s.syn(o, CLIENT_VETH, ms(10), 7, 1);
    s.nat(o, masked, ms(11));
    s.syn_at(
        masked.inverse(),
        BACKEND_VETH,
        Direction::Egress,
        ms(11),
        7,
        1,
    );
    s.syn_ack(masked, BACKEND_VETH, Direction::Ingress, ms(12));
    s.syn_ack(o.inverse(), CLIENT_VETH, Direction::Egress, ms(12));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}

#[test]
fn packet_that_waits_for_a_silent_neighbour() {
    let answer = waiting(false, false);
    assert_cause(&answer, "backend-gone", Verdict::Failing);
    // Every first packet to a neighbour waits for a moment: what left has not waited in vain.
    let codes = |a: &Answer| a.findings.iter().any(|f| f.code == "backend-gone");
    assert!(!codes(&waiting(true, false)));
    assert!(!codes(&waiting(true, true)));
}

/// A filter drops the translated packet.
fn filtered(objects: Objects) -> Answer {
    let mut facts = facts_a();
    facts.firewall = vec![dropping(None)];
    let mut s = Story::new("a", objects, facts);
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = unconfirmed(o, r);
    s.drop(
        r.inverse(),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(ct),
        ms(10),
    );
    explain(&[s.told(ms(4000))])
}

#[test]
fn drop_that_a_policy_explains_and_drop_that_none_does() {
    let policy = |labels: &[(&str, &str)]| NetworkPolicy {
        namespace: "shop".into(),
        name: "locked".into(),
        pod_selector: Selector {
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Selector::default()
        },
        ingress: Some(Vec::new()),
        egress: None,
    };
    let mut denied = objects(&[BACKEND]);
    denied.policies.push(policy(&[("app", "cart")]));
    let answer = filtered(denied);
    assert_cause(&answer, "policy-denied-ingress", Verdict::Failing);
    assert!(
        answer.findings[0].summary.contains("shop/locked"),
        "{}",
        answer.findings[0].summary
    );
    let mut other = objects(&[BACKEND]);
    other.policies.push(policy(&[("app", "something-else")]));
    assert_cause(&filtered(other), "firewall-drop", Verdict::Failing);
}

#[test]
fn policy_that_nobody_enforces_is_not_a_cause() {
    let mut denied = objects(&[BACKEND]);
    denied.policies.push(NetworkPolicy {
        namespace: "shop".into(),
        name: "locked".into(),
        ingress: Some(Vec::new()),
        ..NetworkPolicy::default()
    });
    let mut s = Story::new("a", denied, facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty());
}

/// A connection whose handshake passes and whose request of `size`-byte packets is sent again and again.
fn stalled(size: u16) -> Story {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    s.served(4001, remote(), UPLINK, ms(10));
    let again = |f: &mut crate::model::flow::FlowStats| {
        f.packets = 9;
        f.flags = TcpFlags(26);
        f.syn = Some(ms(10));
        f.isn = 4001;
        f.data = Some(ms(20));
        f.seq_end = 5000;
        f.retrans = 4;
        f.retrans_first = Some(ms(220));
        f.retrans_last = Some(ms(3400));
        f.retrans_max = size;
        f.max_packet = size;
        f.last = ms(3400);
    };
    s.flow(vip(4001), CLIENT_VETH, Direction::Ingress, ms(10), again);
    s.flow(
        reply(4001, remote()).inverse(),
        UPLINK,
        Direction::Egress,
        ms(10),
        again,
    );
    s
}

#[test]
fn big_packets_vanish_while_small_ones_pass() {
    let mut s = stalled(1500);
    s.served(4002, remote(), UPLINK, ms(900));
    let answer = explain(&[s.told(ms(3500))]);
    assert_cause(&answer, "mtu-blackhole", Verdict::Degraded);
    assert_eq!(answer.paths[0].outcomes.stalled, 1);
}

/// A server sends its SYN-ACK again to a client that is long gone, whose SYN was not seen.
#[test]
fn a_syn_ack_that_nobody_takes_up_shows_no_open_way() {
    let mut s = stalled(1500);
    let (o, r) = (vip(4002), reply(4002, remote()));
    s.nat(o, r, ms(900));
    s.syn_ack(r, UPLINK, Direction::Ingress, ms(900));
    s.syn_ack(o.inverse(), CLIENT_VETH, Direction::Egress, ms(900));
    let answer = explain(&[s.told(ms(3500))]);
    assert_ne!(top(&answer), "mtu-blackhole", "{answer:#?}");
}

#[test]
fn a_backend_that_dies_within_a_transfer_is_no_matter_of_size() {
    let mut s = stalled(1500);
    s.served(4002, remote(), UPLINK, ms(15));
    let answer = explain(&[s.told(ms(3500))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Degraded);
}

#[test]
fn small_packets_that_vanish_are_not_lost_for_their_size() {
    let answer = explain(&[stalled(120).told(ms(3500))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
}

#[test]
fn too_big_message_that_was_heeded_is_worth_knowing() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    s.served(4001, remote(), UPLINK, ms(10));
    s.unreachable("192.0.2.254", vip(4001), 4, 1400, ms(30));
    let answer = explain(&[s.told(ms(3500))]);
    assert_eq!(
        (top(&answer), answer.verdict),
        ("pmtu-learned", Verdict::Healthy),
        "{answer:#?}"
    );
    assert_eq!(answer.findings[0].severity, Severity::Info);
}

/// Client's node: the packet leaves on the uplink and nothing comes back.
fn sent_away() -> Vec<Input> {
    sent_away_by(facts_a())
}

fn sent_away_by(facts: NodeFacts) -> Vec<Input> {
    let mut s = Story::new("a", objects(&[REMOTE]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), reply(4001, remote()), ms(10));
    s.syn_at(
        reply(4001, remote()).inverse(),
        UPLINK,
        Direction::Egress,
        ms(10),
        7,
        3,
    );
    s.told(ms(4000))
}

#[test]
fn silence_from_another_node_says_which_to_ask() {
    let answer = explain(&[sent_away()]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    assert!(
        answer.findings[0].summary.contains("node b"),
        "{}",
        answer.findings[0].summary
    );
}

#[test]
fn the_other_node_never_got_it() {
    let silent = Story::new("b", objects(&[REMOTE]), facts_b()).told(ms(4000));
    let answer = explain(&[sent_away(), silent]);
    assert_cause(&answer, "never-arrived", Verdict::Failing);
}

#[test]
fn whom_the_sender_hands_it_to_is_told_where_it_is_not_the_other_node() {
    for (via, told) in [("192.0.2.254", true), (NODE_B, false)] {
        let facts = routed(facts_a(), REMOTE, Some(via));
        let silent = Story::new("b", objects(&[REMOTE]), facts_b()).told(ms(4000));
        let answer = explain(&[sent_away_by(facts), silent]);
        assert_cause(&answer, "never-arrived", Verdict::Failing);
        let summary = &answer.findings[0].summary;
        let hands = summary.contains("a hands them to 192.0.2.254, which is no address of b");
        assert_eq!(hands, told, "{summary}");
        let route = format!("the route to {REMOTE} leads through");
        let cited =
            |e: &Evidence| answer.findings[0].evidence.contains(&e.id) && e.text.contains(&route);
        assert_eq!(answer.evidence.iter().any(cited), told);
    }
}

/// The backend's node looked for a while and saw none of it.
fn silent(from: u64, to: u64) -> Vec<Input> {
    let mut told = Story::new("b", objects(&[REMOTE]), facts_b()).told(ms(to));
    if let Input::Start(start) = &mut told[0] {
        start.time = ms(from);
    }
    told
}

#[test]
fn a_node_that_was_not_looking_cannot_have_missed_it() {
    // The packets were sent at 10, 1010 and 3010 ms; clocks differ, and what is on its way is no loss.
    for (from, to) in [(0, 5), (0, 400), (2700, 3400), (3100, 4000), (5000, 9000)] {
        let answer = explain(&[sent_away(), silent(from, to)]);
        assert!(answer.findings.is_empty(), "{from}-{to}: {answer:#?}");
        assert_eq!(answer.verdict, Verdict::Failing);
    }
    let answer = explain(&[sent_away(), silent(2000, 4000)]);
    assert_cause(&answer, "never-arrived", Verdict::Failing);
}

/// A stall shows a second after its data was sent, at the next sweep.
#[test]
fn whether_answers_arrive_is_not_known_of_a_node_that_stopped_looking() {
    let outcomes = |stopped| {
        let mut a = Story::new("a", objects(&[REMOTE]), facts_a());
        a.served(4001, remote(), UPLINK, ms(1000));
        let mut b = Story::new("b", objects(&[REMOTE]), facts_b());
        let arrived = reply(4001, remote()).inverse();
        b.syn(arrived, UPLINK, ms(1000), 4001, 1);
        b.syn_ack(arrived.inverse(), UPLINK, Direction::Egress, ms(1000));
        explain(&[a.told(ms(9000)), b.told(ms(stopped))]).paths[0].outcomes
    };
    for (stopped, ok) in [(1900, 0), (2400, 0), (3100, 1)] {
        let outcomes = outcomes(stopped);
        assert_eq!((outcomes.ok, outcomes.attempts), (ok, 1), "{stopped}");
    }
}

#[test]
fn what_a_node_saw_before_it_was_ready_takes_nothing_from_another() {
    let mut s = Story::new("b", objects(&[REMOTE]), facts_b());
    s.syn(reply(4001, remote()).inverse(), UPLINK, ms(10), 7, 1);
    let mut early = s.told(ms(9000));
    if let Input::Start(start) = &mut early[0] {
        start.time = ms(5000);
    }
    let answer = explain(&[sent_away(), early]);
    assert_eq!(answer.verdict, Verdict::Failing, "{answer:#?}");
}

#[test]
fn the_other_node_shows_the_cause() {
    let mut facts = facts_b();
    facts.firewall = vec![dropping(None)];
    let mut s = Story::new("b", objects(&[REMOTE]), facts.clone());
    let arrived = reply(4001, remote()).inverse();
    s.syn(arrived, UPLINK, ms(10), 7, 3);
    s.drop(
        arrived,
        NETNS + 1,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    let alone = explain(&[s.told(ms(4000))]);
    assert_cause(&alone, "firewall-drop", Verdict::Failing);
    let mut s = Story::new("b", objects(&[REMOTE]), facts);
    s.syn(arrived, UPLINK, ms(10), 7, 3);
    s.drop(
        arrived,
        NETNS + 1,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    let both = explain(&[sent_away(), s.told(ms(4000))]);
    assert_cause(&both, "firewall-drop", Verdict::Failing);
    assert_eq!(
        both.paths.iter().map(|p| p.outcomes.attempts).sum::<u64>(),
        1,
        "two nodes, one attempt"
    );
}

#[test]
fn one_endpoint_of_two_resets_what_it_accepted() {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    for n in 0..4 {
        s.served(4001 + n, remote(), UPLINK, ms(10));
    }
    for n in 0..4 {
        let sport = 5001 + n;
        s.served(sport, backend(), BACKEND_VETH, ms(20));
        s.flow(
            vip(sport).inverse(),
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
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "one-bad-endpoint", Verdict::Degraded);
    assert!(
        answer.findings[0].summary.contains("shop/cart"),
        "{}",
        answer.findings[0].summary
    );
}

#[test]
fn one_endpoint_that_refuses_has_a_cause_of_its_own() {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    s.served(4001, remote(), UPLINK, ms(10));
    let (o, r) = (vip(4002), reply(4002, backend()));
    s.syn(o, CLIENT_VETH, ms(20), 7, 1);
    s.nat(o, r, ms(20));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(20), 7, 1);
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(21));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(21));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "listener-missing", Verdict::Degraded);
}

#[test]
fn direct_attempts_of_this_node_alone_do_not_accuse_the_service() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let direct = reply(4001, backend()).inverse();
    s.syn(direct, CLIENT_VETH, ms(10), 7, 1);
    s.syn_at(direct, BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.rst(direct.inverse(), BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(direct.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty());
    assert_eq!(answer.paths[0].outcomes.refused, 1);
}

#[test]
fn attempts_that_ended_before_everything_was_attached_prove_nothing() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    if let Input::Start(start) = &mut s.inputs[0] {
        start.time = ms(500);
    }
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.paths.is_empty());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let json = |r: &[Vec<Input>]| serde_json::to_string(&explain(r)).unwrap_or_default();
    let told = [sent_away()];
    assert_eq!(json(&told), json(&told));
    assert!(json(&told).contains("netflow.explain/v1"));
}
