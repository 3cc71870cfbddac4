//! Backends on a node that is not Ready.

use super::codes::*;
use super::story::*;
use crate::model::answer::Verdict;
use crate::model::flow::Direction;
use crate::model::objects::Objects;
use std::net::SocketAddr;

/// Node `b`, which has the remote backend.
fn with_node(ready: Option<bool>) -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.nodes[1].ready = ready;
    o
}

/// The client's packets leave for the remote backend.
fn sent(objects: Objects) -> Story {
    let mut s = Story::new("a", objects, facts_a());
    let r = reply(4001, remote());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    s
}

#[test]
fn silence_of_a_node_that_is_not_ready_is_its_own() {
    let answer = explain(&[sent(with_node(Some(false))).told(ms(8000))]);
    assert_cause(&answer, "backend-node-down", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("on node b"));
    let mut checks = answer.findings[0].check.iter();
    assert!(checks.any(|c| c.command == "kubectl describe node b"));
}

#[test]
fn a_node_that_is_ready_or_not_known_to_be_is_not_down() {
    for ready in [Some(true), None] {
        let answer = explain(&[sent(with_node(ready)).told(ms(8000))]);
        assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    }
}

#[test]
fn another_node_that_is_down_does_not_matter() {
    let mut o = with_node(Some(true));
    o.nodes[0].ready = Some(false);
    let answer = explain(&[sent(o).told(ms(8000))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
}

#[test]
fn a_node_that_was_asked_runs() {
    let o = with_node(Some(false));
    let there = Story::new("b", o.clone(), facts_b());
    let answer = explain(&[sent(o).told(ms(8000)), there.told(ms(8000))]);
    assert_cause(&answer, "never-arrived", Verdict::Failing);
}

#[test]
fn pods_that_serve_there_are_no_fault() {
    let mut s = Story::new("a", with_node(Some(false)), facts_a());
    s.served(4001, remote(), UPLINK, ms(10));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.is_empty());
}

#[test]
fn a_node_on_which_another_pod_answers_runs() {
    let mut o = with_node(Some(false));
    let other = "10.9.2.8";
    let mut pod = o.pods[2].clone();
    (pod.name, pod.ips) = ("cart-2".into(), vec![ip(other)]);
    o.pods.push(pod);
    let mut endpoint = o.slices[0].endpoints[1].clone();
    endpoint.addresses = vec![ip(other)];
    o.slices[0].endpoints.push(endpoint);
    let mut s = sent(o);
    s.served(4002, SocketAddr::new(ip(other), 8080), UPLINK, ms(10));
    let answer = explain(&[s.told(ms(8000))]);
    assert_ne!(top(&answer), "backend-node-down");
    assert_eq!(answer.verdict, Verdict::Degraded);
}

#[test]
fn what_refuses_there_is_not_down() {
    let mut s = sent(with_node(Some(false)));
    let r = reply(4001, remote());
    s.rst(r, UPLINK, Direction::Ingress, ms(11));
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(8000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}
