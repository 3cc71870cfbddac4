//! Backends on a node that is not Ready.

use super::codes::*;
use super::conntrack::entry;
use super::story::*;
use crate::model::Input;
use crate::model::answer::Verdict;
use crate::model::flow::{Direction, TcpFlags};
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

/// The endpoint left the rules before netflow looked; a SYN sent just before that is sent again, by its entry.
#[test]
fn what_dialled_a_node_just_before_it_was_given_up_meets_no_old_entry() {
    let answer = |sends| {
        let mut o = with_node(Some(false));
        o.slices[0].endpoints[1].ready = false;
        let r = reply(4001, remote());
        let mut facts = ruled(facts_a(), rules_to(&[backend()]));
        facts.time = ms(1500);
        facts.conntrack.entries.push(entry(vip(4001), r, 0x1ae));
        let mut s = Story::new("a", o, facts.clone());
        s.syn(vip(4001), CLIENT_VETH, ms(1000), 7, sends);
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(1000), 7, sends);
        let mut told = s.told(ms(12_000));
        if let Input::Start(start) = &mut told[0] {
            start.time = ms(1500);
        }
        told.insert(told.len() - 1, Input::Node(Box::new(facts)));
        explain(&[told])
    };
    assert_cause(&answer(2), "backend-node-down", Verdict::Failing);
    // For so long no proxy lags behind.
    assert_cause(&answer(4), "conntrack-stale", Verdict::Failing);
}

#[test]
fn whether_the_clients_node_is_ready_is_told_where_answers_to_it_are_lost() {
    for ready in [Some(false), Some(true), None] {
        let mut o = objects(&[BACKEND, REMOTE]);
        o.nodes[0].ready = ready;
        let mut s = Story::new("b", o, facts_b());
        let orig = reply(4001, remote()).inverse();
        s.syn(orig, UPLINK, ms(10), 7, 3);
        s.syn_at(orig, BACKEND_VETH, Direction::Egress, ms(10), 7, 3);
        for (ifindex, dir) in [
            (BACKEND_VETH, Direction::Ingress),
            (UPLINK, Direction::Egress),
        ] {
            s.flow(orig.inverse(), ifindex, dir, ms(11), |f| {
                f.packets = 3;
                f.flags = TcpFlags(18);
                f.syn_ack = Some(ms(11));
                f.syn_retrans = 2;
                f.last = ms(7000);
            });
        }
        let answer = explain(&[s.told(ms(8000))]);
        assert_eq!(top(&answer), "lost-beyond-node", "{answer:#?}");
        let summary = &answer.findings[0].summary;
        let told = summary.ends_with("look at node a, which is not Ready");
        assert_eq!(told, ready == Some(false), "{summary}");
    }
}
