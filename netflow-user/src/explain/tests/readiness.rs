//! Connections that are sent to Pods which shut down or have not started.

use super::codes::*;
use super::story::*;
use crate::model::Proto;
use crate::model::answer::{Answer, Verdict};
use crate::model::flow::Direction;
use crate::model::objects::Objects;
use crate::model::shared::Map;
use std::net::SocketAddr;

/// Both Pods shut down; they are all that is left, so proxies still send to them.
fn leaving() -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    for endpoint in &mut o.slices[0].endpoints {
        endpoint.ready = false;
        endpoint.terminating = true;
    }
    for pod in o.pods.iter_mut().skip(1) {
        pod.deleting = true;
    }
    o
}

/// The Service publishes its Pods, and neither is ready.
fn starting() -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.services[0].publish_not_ready = true;
    for endpoint in &mut o.slices[0].endpoints {
        endpoint.serving = false;
    }
    for pod in o.pods.iter_mut().skip(1) {
        pod.conditions = Map::default();
    }
    o
}

fn cases() -> [(&'static str, Objects); 2] {
    [
        ("terminating-backend", leaving()),
        ("publish-not-ready", starting()),
    ]
}

/// The client's packet goes to `to` through `out`.
fn sent(s: &mut Story, sport: u16, to: SocketAddr, out: u32, sends: u64) {
    let r = reply(sport, to);
    s.syn(vip(sport), CLIENT_VETH, ms(10), 7, sends);
    s.nat(vip(sport), r, ms(10));
    s.syn_at(r.inverse(), out, Direction::Egress, ms(10), 7, sends);
}

fn refuse(s: &mut Story, sport: u16, to: SocketAddr, out: u32) {
    sent(s, sport, to, out, 1);
    s.rst(reply(sport, to), out, Direction::Ingress, ms(11));
    s.rst(vip(sport).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
}

fn refused(objects: Objects) -> Answer {
    let mut s = Story::new("a", objects, facts_a());
    refuse(&mut s, 4001, backend(), BACKEND_VETH);
    explain(&[s.told(ms(3000))])
}

#[test]
fn what_the_pod_refuses_is_its_state() {
    for (code, objects) in cases() {
        let answer = refused(objects);
        assert_cause(&answer, code, Verdict::Failing);
        let says = &answer.findings[0].summary;
        assert!(says.contains("shop/cart ("), "{says}");
    }
}

#[test]
fn who_dials_the_pod_itself_meets_the_same_state() {
    for (code, objects) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        refuse(&mut s, 4001, backend(), BACKEND_VETH);
        let t = tuple(Proto::TCP, CLIENT, 4002, BACKEND, 8080);
        s.syn(t, CLIENT_VETH, ms(20), 8, 1);
        s.syn_at(t, BACKEND_VETH, Direction::Egress, ms(20), 8, 1);
        s.rst(t.inverse(), BACKEND_VETH, Direction::Ingress, ms(21));
        s.rst(t.inverse(), CLIENT_VETH, Direction::Egress, ms(21));
        let answer = explain(&[s.told(ms(3000))]);
        assert_cause(&answer, code, Verdict::Failing);
        assert_eq!(answer.findings[0].affected.attempts, 2);
    }
}

#[test]
fn what_the_pods_own_node_delivers_in_vain_is_its_state() {
    for (code, objects) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        sent(&mut s, 4001, backend(), BACKEND_VETH, 3);
        assert_cause(&explain(&[s.told(ms(8000))]), code, Verdict::Failing);
    }
}

#[test]
fn silence_from_another_node_says_nothing_of_the_pod() {
    for (_, objects) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        sent(&mut s, 4001, remote(), UPLINK, 3);
        let answer = explain(&[s.told(ms(8000))]);
        assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    }
}

#[test]
fn pods_that_serve_in_such_a_state_are_no_fault() {
    for (_, objects) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        s.served(4001, backend(), BACKEND_VETH, ms(10));
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
        assert!(answer.findings.is_empty());
    }
}

#[test]
fn objects_alone_say_nothing_of_it() {
    for (_, objects) in cases() {
        let answer = explain(&[Story::new("a", objects, facts_a()).told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::NotEnoughEvidence);
    }
}

#[test]
fn where_an_endpoint_in_order_refuses_too_its_state_is_not_the_cause() {
    for (code, mut objects) in cases() {
        let fine = super::story::objects(&[BACKEND, REMOTE]);
        objects.slices[0].endpoints[1] = fine.slices[0].endpoints[1].clone();
        objects.pods[2] = fine.pods[2].clone();
        let mut s = Story::new("a", objects, facts_a());
        refuse(&mut s, 4001, backend(), BACKEND_VETH);
        refuse(&mut s, 4002, remote(), UPLINK);
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(critical(&answer), ["listener-missing"], "not {code}");
    }
}

#[test]
fn without_publishing_a_pod_that_is_not_ready_is_none_of_its_endpoints() {
    let mut o = starting();
    o.services[0].publish_not_ready = false;
    assert_cause(&refused(o), "listener-missing", Verdict::Failing);
}

#[test]
fn a_pod_that_is_ready_is_not_refusing_because_it_is_published() {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.services[0].publish_not_ready = true;
    assert_cause(&refused(o), "listener-missing", Verdict::Failing);
}
