//! What listens in the backend, and what is said of it.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Basis, Verdict};
use crate::model::flow::Direction;
use crate::model::node::{Listener, NodeFacts};
use crate::model::objects::{
    ContainerPort, Limit, Objects, Service, ServicePort, SlicePort, TargetPort,
};
use crate::model::query::Target;
use crate::model::shared::{Name, Shared};
use crate::model::{Input, Proto};
use std::net::SocketAddr;

/// The local backend refuses what comes for `port` of the Service and leads to `target`.
fn refused(objects: Objects, facts: NodeFacts, target: u16) -> Answer {
    explain(&[refusing(objects, facts, target).told(ms(3000))])
}

pub(super) fn refusing(objects: Objects, facts: NodeFacts, target: u16) -> Story {
    let mut s = Story::new("a", objects, facts);
    let to = SocketAddr::new(ip(BACKEND), target);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), reply(4001, to), ms(10));
    let sent = reply(4001, to).inverse();
    s.syn_at(sent, BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.rst(reply(4001, to), BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    s
}

pub(super) fn listening(proto: Proto, on: &[&str]) -> NodeFacts {
    let mut facts = facts_a();
    facts.pods[1].listeners = on
        .iter()
        .map(|addr| Listener {
            proto,
            addr: addr.parse().unwrap_or_else(|_| panic!("{addr}")),
            v6only: false,
            queue: 0,
            backlog: 128,
            ephemeral: false,
        })
        .collect();
    facts
}

fn port(name: &str, number: u16, target: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        proto: Proto::TCP,
        port: number,
        target: TargetPort::Number(target),
        node_port: None,
    }
}

fn slice_port(name: &str, number: u16) -> SlicePort {
    SlicePort {
        name: name.into(),
        proto: Proto::TCP,
        port: Some(number),
    }
}

pub(super) fn declared(container: &str, number: u16) -> ContainerPort {
    ContainerPort {
        container: container.into(),
        name: Name::default(),
        port: number,
        proto: Proto::TCP,
    }
}

fn patches(answer: &Answer) -> bool {
    let mut fixes = answer.findings.iter().flat_map(|f| &f.fix);
    fixes.any(|f| f.command.contains(" patch "))
}

#[test]
fn a_port_that_another_port_of_the_service_leads_to_is_not_the_right_one() {
    let mut two = objects(&[BACKEND]);
    two.services[0].ports = vec![port("http", 80, 8080), port("metrics", 9090, 9090)];
    two.slices[0].ports = vec![slice_port("http", 8080), slice_port("metrics", 9090)];
    two.pods[1].ports = vec![declared("app", 9090)].into();
    let answer = refused(two.clone(), listening(Proto::TCP, &["0.0.0.0:9090"]), 8080);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    assert!(!patches(&answer));
}

#[test]
fn nor_is_one_that_another_service_leads_to_for_something_else() {
    let other = |name: &str, ports| {
        let mut all = objects(&[BACKEND]);
        all.services.push(Service {
            namespace: "shop".into(),
            name: name.into(),
            selector: all.services[0].selector.clone(),
            ports,
            ..Service::default()
        });
        all.pods[1].ports = Shared::default();
        refused(all, listening(Proto::TCP, &["0.0.0.0:9102"]), 8080)
    };
    let answer = other("cart-metrics", vec![port("", 9102, 9102)]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    // A second Service for the same purpose, such as a headless one, means the same port.
    let answer = other("cart-headless", vec![port("", 80, 9102)]);
    assert_cause(&answer, "target-port-mismatch", Verdict::Failing);
    assert!(patches(&answer));
}

#[test]
fn a_port_that_only_a_sidecar_declares_is_the_sidecars() {
    let mut meshed = objects(&[BACKEND]);
    meshed.pods[1].containers = vec!["app".into(), "proxy".into()].into();
    meshed.pods[1].ports = vec![declared("proxy", 15_090)].into();
    let answer = refused(
        meshed.clone(),
        listening(Proto::TCP, &["0.0.0.0:15090"]),
        8080,
    );
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    let both = listening(Proto::TCP, &["0.0.0.0:15090", "0.0.0.0:9000"]);
    let answer = refused(meshed.clone(), both, 8080);
    assert_cause(&answer, "target-port-mismatch", Verdict::Failing);
    assert!(
        answer.findings[0].summary.contains("port 9000"),
        "{}",
        answer.findings[0].summary
    );
    assert!(patches(&answer));
    meshed.pods[1].ports = vec![declared("proxy", 15_090), declared("app", 9000)].into();
    let answer = refused(meshed, listening(Proto::TCP, &["0.0.0.0:15090"]), 8080);
    assert!(
        !patches(&answer),
        "the application may be down: {answer:#?}"
    );
}

#[test]
fn several_candidates_are_named_and_none_is_offered() {
    let mut plain = objects(&[BACKEND]);
    plain.pods[1].ports = Shared::default();
    let on = listening(Proto::TCP, &["0.0.0.0:9000", "0.0.0.0:9001", "[::]:9001"]);
    let answer = refused(plain, on, 8080);
    assert_cause(&answer, "target-port-mismatch", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("ports 9000 and 9001"));
    assert!(!patches(&answer));
}

#[test]
fn a_udp_socket_that_asked_for_no_port_is_no_server() {
    let mut udp = objects(&[BACKEND]);
    udp.services[0].ports[0].proto = Proto::UDP;
    udp.slices[0].ports[0].proto = Proto::UDP;
    udp.pods[1].ports = Shared::default();
    let answer = |ephemeral| {
        let mut facts = listening(Proto::UDP, &["0.0.0.0:41000"]);
        facts.pods[1].listeners[0].ephemeral = ephemeral;
        let mut s = Story::new("a", udp.clone(), facts);
        let dialled = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
        let back = tuple(Proto::UDP, BACKEND, 8080, CLIENT, 4001);
        s.flow(dialled, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
        s.nat(dialled, back, ms(10));
        s.flow(
            back.inverse(),
            BACKEND_VETH,
            Direction::Egress,
            ms(10),
            |_| {},
        );
        s.drop(
            back.inverse(),
            BACKEND_NETNS,
            "NO_SOCKET",
            "__udp4_lib_rcv",
            None,
            ms(10),
        );
        explain(&[s.told(ms(3000))])
    };
    assert_cause(&answer(true), "listener-missing", Verdict::Failing);
    assert_cause(&answer(false), "target-port-mismatch", Verdict::Failing);
}

#[test]
fn a_socket_that_listens_by_now_is_not_called_missing() {
    let answer = refused(
        objects(&[BACKEND]),
        listening(Proto::TCP, &["0.0.0.0:8080"]),
        8080,
    );
    let finding = &answer.findings[0];
    assert_eq!(
        (finding.code, finding.basis),
        ("listener-missing", Basis::Inferred)
    );
    assert!(
        !finding.summary.contains("Nothing listens"),
        "{}",
        finding.summary
    );
}

#[test]
fn a_refusal_from_a_node_that_was_not_asked_may_be_a_rule_there() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), reply(4001, remote()), ms(10));
    let sent = reply(4001, remote()).inverse();
    s.syn_at(sent, UPLINK, Direction::Egress, ms(10), 7, 1);
    s.rst(reply(4001, remote()), UPLINK, Direction::Ingress, ms(11));
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    assert!(answer.findings[0].confusable.contains(&"firewall-drop"));
    let mut spots = answer.blind.iter().filter(|b| b.code == "node-not-asked");
    assert!(
        spots.any(|b| b.text.contains("a rule there that rejects")),
        "{answer:#?}"
    );
}

#[test]
fn the_number_of_the_slice_is_read_from_the_slice() {
    let mut plain = objects(&[BACKEND]);
    plain.pods[1].ports = Shared::default();
    let answer = refused(plain, listening(Proto::TCP, &["0.0.0.0:9000"]), 8080);
    let mut texts = answer.evidence.iter().map(|e| e.text.as_str());
    assert!(
        texts.any(|t| t.contains("the slice says port 8080")),
        "{answer:#?}"
    );
}

#[test]
fn a_finished_pod_does_not_keep_its_address() {
    let mut reused = objects(&[BACKEND]);
    let mut done = pod("done", BACKEND, "a", &[9000]);
    done.phase = "Succeeded".into();
    reused.pods.insert(0, done);
    let answer = refused(reused, listening(Proto::TCP, &["0.0.0.0:9000"]), 8080);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}

#[test]
fn an_address_may_be_that_of_a_service_that_may_not_be_read() {
    let asked = |limits: Vec<Limit>| {
        let mut some = objects(&[BACKEND]);
        some.limits = limits;
        let mut s = Story::new("a", some, facts_a());
        if let Input::Start(start) = &mut s.inputs[0] {
            start.query.target = Target::Address(ip("172.30.9.9"));
        }
        explain(&[s.told(ms(100))])
    };
    assert_eq!(asked(Vec::new()).findings[0].code, "service-not-found");
    let answer = asked(vec![Limit {
        kind: "Service".into(),
        namespaces: vec!["shop".into()],
        why: "services is forbidden".into(),
    }]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty());
    let blind = &answer.blind[0];
    assert_eq!(
        (&*blind.code, &*blind.capability),
        ("objects-limited", "Service")
    );
}

#[test]
fn without_any_service_object_none_is_said_to_be_missing() {
    let mut none = objects(&[BACKEND]);
    none.services.clear();
    none.unknown_kinds = vec!["Service".into()];
    let mut s = Story::new("a", none, facts_a());
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.target = Target::Name("cart".into());
    }
    let answer = explain(&[s.told(ms(100))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty());
}
