//! Clusters in which the socket, and not a packet, is given a backend.

use super::codes::{assert_cause, backend, remote, reply, top};
use super::story::*;
use crate::model::Proto;
use crate::model::answer::{Answer, Blind, Verdict};
use crate::model::flow::Direction;
use crate::model::node::{NodeFacts, SocketProgram};
use crate::model::objects::Objects;

fn facts(hook: &str) -> NodeFacts {
    let mut facts = facts_a();
    facts.socket_programs = vec![SocketProgram {
        id: 7,
        name: "lb_connect".into(),
        hook: hook.into(),
    }];
    facts
}

/// Clients dial the Pod's port, which refuses.
fn refused(objects: Objects, facts: NodeFacts, with_vip: bool) -> Answer {
    let mut s = Story::new("a", objects, facts);
    for n in 0..3 {
        let r = reply(4001 + n, backend());
        s.syn(r.inverse(), CLIENT_VETH, ms(10), 7, 1);
        s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
        s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
        s.rst(r, CLIENT_VETH, Direction::Egress, ms(11));
    }
    if with_vip {
        s.served(5001, remote(), UPLINK, ms(20));
    }
    explain(&[s.told(ms(3000))])
}

fn said(answer: &Answer) -> Option<&Blind> {
    let mut all = answer.blind.iter();
    all.find(|b| b.code == "socket-load-balancing")
}

#[test]
fn the_pods_path_is_the_services_where_no_packet_carries_its_address() {
    let answer = refused(objects(&[BACKEND]), facts(SocketProgram::CONNECT4), false);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    let text = said(&answer).map_or("", |b| b.text.as_str());
    assert!(
        text.contains("cgroup/connect4 lb_connect (id 7)"),
        "{answer:#?}"
    );
    assert!(text.contains("counts as its traffic"), "{text}");
}

#[test]
fn served_pods_are_a_healthy_service() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts(SocketProgram::CONNECT4));
    let r = reply(4001, backend());
    s.syn(r.inverse(), CLIENT_VETH, ms(10), 7, 1);
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.syn_ack(r, CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(said(&answer).is_some());
}

#[test]
fn direct_traffic_is_the_services_only_where_a_program_fits_and_no_address_is_dialled() {
    let none = refused(objects(&[BACKEND]), facts_a(), false);
    assert_eq!(none.verdict, Verdict::NotEnoughEvidence, "{none:#?}");
    assert_eq!((top(&none), said(&none)), ("none", None));
    for hook in [SocketProgram::CONNECT6, SocketProgram::SENDMSG4] {
        let other = refused(objects(&[BACKEND]), facts(hook), false);
        assert_eq!(other.verdict, Verdict::NotEnoughEvidence, "{other:#?}");
        assert_eq!(said(&other), None);
    }
    let both = objects(&[BACKEND, REMOTE]);
    let dialled = refused(both, facts(SocketProgram::CONNECT4), true);
    assert_eq!(dialled.verdict, Verdict::Healthy, "{dialled:#?}");
    assert_eq!(said(&dialled), None);
}

#[test]
fn another_nodes_packets_do_not_show_what_sockets_dial_here() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts(SocketProgram::CONNECT4));
    let o = tuple(Proto::TCP, "203.0.113.9", 5000, VIP, 80);
    let r = tuple(Proto::TCP, BACKEND, 8080, "203.0.113.9", 5000);
    s.syn(o, UPLINK, ms(10), 7, 1);
    s.nat(o, r, ms(10));
    assert!(said(&explain(&[s.told(ms(3000))])).is_some());
}

#[test]
fn without_any_traffic_it_is_said_that_there_may_be_no_packet() {
    let s = Story::new("a", objects(&[BACKEND]), facts(SocketProgram::CONNECT4));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(said(&answer).is_some_and(|b| b.text.contains("none to its Pods")));
}
