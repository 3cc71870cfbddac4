//! Some clients fail, and others are served: what parts them, and what only looks as if it did.

use super::codes::*;
use super::story::*;
use crate::explain::endpoints::ZONE_LABEL;
use crate::model::answer::{Answer, Evidence, Plane, Verdict};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::objects::Labels;
use crate::model::objects::Objects;
use crate::model::{Proto, Tuple};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Another Pod of `shop` on node A, one of another namespace there, and two on node B, one of them of `shop`.
const NEIGHBOUR: &str = "10.9.1.6";
const STRANGER: &str = "10.9.1.9";
const FAR: &str = "10.9.2.5";
const FAR_STRANGER: &str = "10.9.2.9";

const BOTH: [&str; 2] = [BACKEND, REMOTE];

fn cluster() -> Objects {
    let mut o = objects(&BOTH);
    let mut add = |name: &str, address: &str, node: &str, namespace: &str| {
        let mut p = pod(name, address, node, &[]);
        p.namespace = namespace.into();
        o.pods.push(p);
    };
    add("neighbour", NEIGHBOUR, "a", "shop");
    add("stranger", STRANGER, "a", "crm");
    add("far", FAR, "b", "shop");
    add("far-stranger", FAR_STRANGER, "b", "crm");
    o
}

/// How one attempt goes.
#[derive(Clone, Copy, PartialEq)]
enum Goes {
    Well,
    /// Accepted, and reset by the backend.
    Reset,
    /// Nothing comes back.
    Unanswered,
}

/// An attempt of a client on the Story's node.
fn dials(s: &mut Story, client: &str, sport: u16, to: SocketAddr, goes: Goes) {
    let at = ms(10 + u64::from(sport % 1000));
    let orig = tuple(Proto::TCP, client, sport, VIP, 80);
    let reply = Tuple {
        src: to.ip(),
        sport: to.port(),
        ..orig.inverse()
    };
    let out = if to == backend() {
        BACKEND_VETH
    } else {
        UPLINK
    };
    let isn = u32::from(sport);
    let sends = if goes == Goes::Unanswered { 2 } else { 1 };
    s.syn(orig, CLIENT_VETH, at, isn, sends);
    s.nat(orig, reply, at);
    s.syn_at(reply.inverse(), out, Direction::Egress, at, isn, sends);
    if goes == Goes::Unanswered {
        return;
    }
    s.syn_ack(reply, out, Direction::Ingress, at);
    let back = orig.inverse();
    if goes == Goes::Well {
        return s.syn_ack(back, CLIENT_VETH, Direction::Egress, at);
    }
    s.flow(back, CLIENT_VETH, Direction::Egress, at, |f| {
        f.flags = TcpFlags(22);
        f.syn_ack = Some(at);
        f.rst = Some(ms(1500));
    });
}

/// So many attempts of one client.
fn keeps_dialling(s: &mut Story, (client, n): (&str, u16), to: SocketAddr, goes: Goes) {
    let first = if to == backend() { 4000 } else { 4100 };
    for sport in first..first + n {
        dials(s, client, sport, to, goes);
    }
}

fn story(objects: Objects) -> Story {
    Story::new("a", objects, facts_a())
}

fn summary(answer: &Answer) -> &str {
    &answer.findings[0].summary
}

fn is_told(answer: &Answer) -> bool {
    answer
        .findings
        .iter()
        .any(|f| f.code == "some-clients-fail")
}

/// On node A: the one of another namespace is reset, the others are not.
fn stranger_is_reset() -> Story {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (STRANGER, 4), remote(), Goes::Reset);
    keeps_dialling(&mut s, (CLIENT, 4), remote(), Goes::Well);
    keeps_dialling(&mut s, (NEIGHBOUR, 4), remote(), Goes::Well);
    s
}

#[test]
fn a_single_client_and_all_that_is_true_of_it_alone() {
    let answer = explain(&[stranger_is_reset().told(ms(4000))]);
    assert_cause(&answer, "some-clients-fail", Verdict::Degraded);
    assert_eq!(critical(&answer), ["some-clients-fail"]);
    let told = summary(&answer);
    assert!(
        told.contains("Of 3 clients of shop/cart port 80 only crm/stranger"),
        "{told}"
    );
    assert!(told.contains("It alone is in namespace crm"), "{told}");
    assert!(!told.contains("on node"), "{told}");
    assert_eq!(
        answer.findings[0].until, None,
        "others are served all the time"
    );
    assert_eq!(answer.findings[0].affected.clients, ["crm/stranger"]);
}

#[test]
fn a_single_client_that_nothing_else_tells_from_the_others() {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (NEIGHBOUR, 3), remote(), Goes::Reset);
    keeps_dialling(&mut s, (CLIENT, 3), remote(), Goes::Well);
    keeps_dialling(&mut s, (STRANGER, 3), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "some-clients-fail", Verdict::Degraded);
    assert!(
        summary(&answer).contains("true of one of them, too"),
        "{}",
        summary(&answer)
    );
}

/// Both nodes: those on node A fail at the remote backend, those on node B do not.
fn node_a_is_reset(objects: &Objects) -> Answer {
    let mut a = story(objects.clone());
    keeps_dialling(&mut a, (CLIENT, 3), remote(), Goes::Reset);
    keeps_dialling(&mut a, (STRANGER, 3), remote(), Goes::Reset);
    let mut b = Story::new("b", objects.clone(), facts_b());
    for client in [FAR, FAR_STRANGER] {
        keeps_dialling_on_b(&mut b, (client, 3));
    }
    explain(&[a.told(ms(4000)), b.told(ms(4000))])
}

/// Served by the Pod on the same node.
fn keeps_dialling_on_b(s: &mut Story, (client, n): (&str, u16)) {
    for k in 0..n {
        let sport = 9000 + k + u16::from(client == FAR) * 100;
        let orig = tuple(Proto::TCP, client, sport, VIP, 80);
        let reply = Tuple {
            src: remote().ip(),
            sport: remote().port(),
            ..orig.inverse()
        };
        let at = ms(20);
        s.syn(orig, CLIENT_VETH, at, 9, 1);
        s.nat(orig, reply, at);
        s.syn_at(reply.inverse(), BACKEND_VETH, Direction::Egress, at, 9, 1);
        s.syn_ack(reply, BACKEND_VETH, Direction::Ingress, at);
        s.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, at);
    }
}

#[test]
fn clients_of_one_node() {
    let answer = node_a_is_reset(&cluster());
    assert_cause(&answer, "some-clients-fail", Verdict::Degraded);
    assert!(
        summary(&answer).ends_with("Only these are on node a"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn whatever_parts_them_as_well_is_told_too() {
    let mut zoned = cluster();
    for (node, zone) in zoned.nodes.iter_mut().zip(["z1", "z2"]) {
        node.labels.insert(ZONE_LABEL.into(), zone.into());
    }
    let answer = node_a_is_reset(&zoned);
    let told = summary(&answer);
    assert!(
        told.contains("Only these are on node a and in zone z1: which"),
        "{told}"
    );
    // A node without the label may be in the same zone.
    zoned.nodes[1].labels = Labels::default();
    let answer = node_a_is_reset(&zoned);
    assert!(
        summary(&answer).ends_with("on node a"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn clients_of_a_zone_on_several_nodes() {
    let mut zoned = cluster();
    let mut third = zoned.nodes[0].clone();
    third.name = "c".into();
    third.internal_ips = vec![ip("192.0.2.3")];
    zoned.nodes.push(third);
    for (node, zone) in zoned.nodes.iter_mut().zip(["z1", "z2", "z1"]) {
        node.labels.insert(ZONE_LABEL.into(), zone.into());
    }
    for p in zoned.pods.iter_mut().filter(|p| p.name == "stranger") {
        p.node = Some("c".into());
    }
    let answer = node_a_is_reset(&zoned);
    assert!(
        summary(&answer).ends_with("Only these are in zone z1"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn clients_of_one_namespace() {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (STRANGER, 3), remote(), Goes::Reset);
    keeps_dialling(&mut s, (FAR_STRANGER, 3), remote(), Goes::Reset);
    keeps_dialling(&mut s, (CLIENT, 3), remote(), Goes::Well);
    keeps_dialling(&mut s, (FAR, 3), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert!(
        summary(&answer).ends_with("Only these are in namespace crm"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn those_who_share_nothing_are_no_scope() {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (CLIENT, 3), remote(), Goes::Reset);
    keeps_dialling(&mut s, (FAR_STRANGER, 3), remote(), Goes::Reset);
    keeps_dialling(&mut s, (STRANGER, 3), remote(), Goes::Well);
    keeps_dialling(&mut s, (FAR, 3), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert!(!is_told(&answer), "{answer:#?}");
    assert_eq!(answer.verdict, Verdict::Degraded);
}

#[test]
fn too_few_attempts_or_clients_are_no_scope() {
    for (failing, well, neighbour) in [(2, 4, 4), (4, 1, 1), (4, 4, 0)] {
        let mut s = story(cluster());
        keeps_dialling(&mut s, (STRANGER, failing), remote(), Goes::Reset);
        keeps_dialling(&mut s, (CLIENT, well), remote(), Goes::Well);
        keeps_dialling(&mut s, (NEIGHBOUR, neighbour), remote(), Goes::Well);
        let answer = explain(&[s.told(ms(4000))]);
        assert!(
            !is_told(&answer),
            "{failing} {well} {neighbour}: {answer:#?}"
        );
    }
}

#[test]
fn a_client_that_fails_now_and_then_is_not_parted_from_the_others() {
    let mut s = stranger_is_reset();
    dials(&mut s, NEIGHBOUR, 4800, remote(), Goes::Reset);
    let answer = explain(&[s.told(ms(4000))]);
    assert!(!is_told(&answer), "{answer:#?}");
}

#[test]
fn clients_that_reached_other_endpoints_prove_nothing() {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (STRANGER, 4), backend(), Goes::Reset);
    keeps_dialling(&mut s, (CLIENT, 4), remote(), Goes::Well);
    keeps_dialling(&mut s, (NEIGHBOUR, 4), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert!(!is_told(&answer), "{answer:#?}");
    assert_eq!(answer.verdict, Verdict::Degraded);
}

#[test]
fn clients_that_fail_at_one_endpoint_alike_are_not_parted() {
    let mut s = stranger_is_reset();
    keeps_dialling(&mut s, (STRANGER, 4), backend(), Goes::Reset);
    for client in [CLIENT, NEIGHBOUR] {
        keeps_dialling(&mut s, (client, 4), backend(), Goes::Reset);
    }
    let answer = explain(&[s.told(ms(4000))]);
    assert!(!is_told(&answer), "{answer:#?}");
}

#[test]
fn silence_beyond_the_node_that_hits_only_some_is_not_of_the_way() {
    let mut s = story(cluster());
    keeps_dialling(&mut s, (STRANGER, 3), remote(), Goes::Unanswered);
    keeps_dialling(&mut s, (CLIENT, 3), remote(), Goes::Well);
    keeps_dialling(&mut s, (NEIGHBOUR, 3), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "some-clients-fail", Verdict::Degraded);
    assert!(
        summary(&answer).contains("gets no answer"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn silence_between_nodes_is_not_held_against_those_who_must_cross() {
    let mut a = story(cluster());
    keeps_dialling(&mut a, (CLIENT, 3), remote(), Goes::Unanswered);
    keeps_dialling(&mut a, (STRANGER, 3), remote(), Goes::Unanswered);
    let mut b = Story::new("b", cluster(), facts_b());
    for client in [FAR, FAR_STRANGER] {
        keeps_dialling_on_b(&mut b, (client, 3));
    }
    let both = explain(&[a.told(ms(4000)), b.told(ms(4000))]);
    assert_cause(&both, "never-arrived", Verdict::Degraded);
    assert!(!is_told(&both), "{both:#?}");
}

#[test]
fn a_cause_goes_before_the_scope() {
    let mut s = story(cluster());
    for k in 0..3 {
        let sport = 4001 + k;
        let orig = tuple(Proto::TCP, STRANGER, sport, VIP, 80);
        let reply = Tuple {
            src: remote().ip(),
            sport: remote().port(),
            ..orig.inverse()
        };
        s.syn(orig, CLIENT_VETH, ms(10), 7, 3);
        let ct = s.nat(orig, reply, ms(10));
        let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
        s.drop(reply.inverse(), NETNS, reason, place, Some(ct), ms(10));
    }
    keeps_dialling(&mut s, (CLIENT, 3), remote(), Goes::Well);
    keeps_dialling(&mut s, (NEIGHBOUR, 3), remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert_eq!(critical(&answer), ["firewall-drop"], "{answer:#?}");
    assert!(!is_told(&answer), "{answer:#?}");
}

#[test]
fn it_is_over_once_one_that_failed_is_served() {
    let mut s = stranger_is_reset();
    keeps_dialling(&mut s, (STRANGER, 12), backend(), Goes::Reset);
    keeps_dialling(&mut s, (CLIENT, 4), backend(), Goes::Well);
    dials(&mut s, STRANGER, 4900, remote(), Goes::Well);
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "some-clients-fail", Verdict::Degraded);
    assert!(answer.findings[0].until.is_some(), "{answer:#?}");
}

#[test]
fn of_several_that_fail_at_one_place_each_is_cited() {
    let answer = node_a_is_reset(&cluster());
    let cited = |e: &&Evidence| answer.findings[0].evidence.contains(&e.id);
    let flows = answer.evidence.iter().filter(cited);
    let reset = flows.filter(|e| e.plane == Plane::Flow && !e.text.contains("serves"));
    let ends = reset
        .filter_map(|e| e.flow.as_ref())
        .flat_map(|f| [f.src.ip, f.dst.ip]);
    let ends: BTreeSet<IpAddr> = ends.collect();
    for client in [CLIENT, STRANGER] {
        assert!(ends.contains(&ip(client)), "{client}: {ends:?}");
    }
}
