//! Proxies that follow the slices late, and what looks like it and is not.

use super::codes::*;
use super::story::*;
use crate::model::Input;
use crate::model::answer::{Answer, Severity, Verdict};
use crate::model::feed::Clock;
use crate::model::flow::Direction;
use crate::model::node::{NodeFacts, ProxyService, Unread};
use crate::model::objects::{Condition, Objects};
use std::net::SocketAddr;

/// The slices change here.
const CHANGE: u64 = 500;

/// The objects as they are told at a time.
fn version(at: u64, endpoints: &[&str]) -> Objects {
    Objects {
        time: ms(at),
        ..objects(endpoints)
    }
}

/// Facts of node A with rules that lead to `backends`, read at a time.
fn read(at: u64, backends: &[SocketAddr]) -> NodeFacts {
    NodeFacts {
        time: ms(at),
        ..ruled(facts_a(), rules_to(backends))
    }
}

/// Both are endpoints, and the rules say so.
fn both() -> Story {
    let facts = read(1, &[backend(), remote()]);
    Story::new("a", version(0, &[BACKEND, REMOTE]), facts)
}

/// The local one leaves the slice.
fn leaves(s: &mut Story) {
    let left = version(CHANGE, &[REMOTE]);
    s.inputs.push(Input::Objects(Box::new(left)));
}

/// A new connection is sent to the local backend, which refuses it.
fn refused(s: &mut Story, sport: u16, at: u64) {
    let (o, r) = (vip(sport), reply(sport, backend()));
    s.syn(o, CLIENT_VETH, ms(at), u32::from(sport), 1);
    s.nat(o, r, ms(at));
    let (out, back) = (Direction::Egress, Direction::Ingress);
    s.syn_at(r.inverse(), BACKEND_VETH, out, ms(at), u32::from(sport), 1);
    s.rst(r, BACKEND_VETH, back, ms(at + 1));
    s.rst(o.inverse(), CLIENT_VETH, out, ms(at + 1));
}

/// It ends with the rules as they are read then.
fn ends(s: Story, at: u64, rules: &[SocketAddr]) -> Answer {
    ends_with(s, at, read(at - 10, rules))
}

fn ends_with(mut s: Story, at: u64, facts: NodeFacts) -> Answer {
    s.inputs.push(Input::Node(Box::new(facts)));
    explain(&[s.told(ms(at))])
}

/// The local endpoint leaves, and so long after that a connection is sent to it.
fn late_by(millis: u64, end: u64, rules: &[SocketAddr]) -> Answer {
    let mut s = both();
    leaves(&mut s);
    s.served(4000, remote(), UPLINK, ms(CHANGE + millis));
    refused(&mut s, 4001, CHANGE + millis);
    ends(s, end, rules)
}

fn warned(answer: &Answer) -> Vec<&str> {
    let warnings = answer.findings.iter();
    warnings
        .filter(|f| f.severity == Severity::Warning)
        .map(|f| f.code)
        .collect()
}

#[test]
fn rules_that_followed_late_are_told_with_how_late() {
    let answer = late_by(5200, 8000, &[remote()]);
    assert_cause(&answer, "proxy-sync-lag", Verdict::Degraded);
    assert_eq!(critical(&answer), ["proxy-sync-lag"], "{answer:#?}");
    let lag = &answer.findings[0];
    assert!(lag.summary.contains("5.2 s after"), "{}", lag.summary);
    assert!(
        lag.summary.contains("shop/cart (10.9.1.7:8080)"),
        "{}",
        lag.summary
    );
    assert!(lag.summary.contains("follow by now"), "{}", lag.summary);
    assert_eq!(lag.from, Some(ms(CHANGE)));
    assert_eq!(lag.until, Some(ms(CHANGE + 5201)));
    assert_eq!(lag.affected.attempts, 1);
}

#[test]
fn rules_that_do_not_follow_yet_are_late_until_kube_proxy_has_tried_again() {
    let both = [backend(), remote()];
    let answer = late_by(5000, 8000, &both);
    assert_cause(&answer, "proxy-sync-lag", Verdict::Degraded);
    let lag = &answer.findings[0];
    assert!(
        lag.summary.contains("still do not follow"),
        "{}",
        lag.summary
    );
    assert_eq!(lag.until, None);
    let answer = late_by(5000, 40_000, &both);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Degraded);
    assert!(warned(&answer).is_empty(), "{answer:#?}");
    let followed = late_by(5000, 40_000, &[remote()]);
    assert_cause(&followed, "proxy-sync-lag", Verdict::Degraded);
}

#[test]
fn clocks_that_do_not_agree_measure_no_lag() {
    let late = |ahead: i64| {
        let mut s = both();
        leaves(&mut s);
        s.served(4001, backend(), BACKEND_VETH, ms(CHANGE + 4000));
        let clock = |ahead| Input::Clock(Clock { ahead, within: 0 });
        s.inputs.push(clock(ahead));
        s.inputs
            .push(Input::Node(Box::new(read(7990, &[remote()]))));
        let mut b = Story::new("b", version(0, &[BACKEND, REMOTE]), facts_b());
        b.inputs.push(clock(0));
        let answer = explain(&[s.told(ms(8000)), b.told(ms(8000))]);
        warned(&answer) == ["proxy-sync-lag"]
    };
    assert!(late(900_000_000));
    assert!(!late(1_100_000_000));
}

#[test]
fn what_a_proxy_ordinarily_takes_is_no_lag() {
    let answer = late_by(2900, 8000, &[remote()]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(answer.findings.iter().all(|f| f.code != "proxy-sync-lag"));
}

#[test]
fn a_change_that_nobody_saw_is_no_lag() {
    let mut s = Story::new("a", version(0, &[REMOTE]), read(1, &[backend(), remote()]));
    refused(&mut s, 4001, 5000);
    let answer = ends(s, 8000, &[backend(), remote()]);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Failing);
}

#[test]
fn rules_that_could_not_be_read_are_not_said_to_be_late() {
    let mut s = both();
    leaves(&mut s);
    refused(&mut s, 4001, CHANGE + 5000);
    let mut facts = facts_a();
    facts.time = ms(7990);
    facts.unread.push(Unread {
        what: "nftables".into(),
        why: "Operation not permitted".into(),
    });
    let answer = ends_with(s, 8000, facts);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Failing);
}

#[test]
fn an_endpoint_that_comes_back_had_not_left() {
    let mut s = both();
    leaves(&mut s);
    s.served(4000, backend(), BACKEND_VETH, ms(CHANGE + 5000));
    let back = version(CHANGE + 5100, &[BACKEND, REMOTE]);
    s.inputs.push(Input::Objects(Box::new(back)));
    let answer = ends(s, 8000, &[backend(), remote()]);
    assert_eq!(answer.verdict, Verdict::Healthy);
    assert!(
        answer.findings.iter().all(|f| f.code != "proxy-sync-lag"),
        "{answer:#?}"
    );
}

#[test]
fn a_connection_of_before_that_goes_on_is_no_lag() {
    let mut s = both();
    s.served(4001, backend(), BACKEND_VETH, ms(CHANGE - 100));
    leaves(&mut s);
    let answer = ends(s, 8000, &[remote()]);
    assert_eq!(answer.verdict, Verdict::Healthy);
    assert!(
        answer.findings.iter().all(|f| f.code != "proxy-sync-lag"),
        "{answer:#?}"
    );
}

#[test]
fn a_former_endpoint_that_still_serves_hurts_nobody() {
    let mut s = both();
    leaves(&mut s);
    s.served(4001, backend(), BACKEND_VETH, ms(CHANGE + 4000));
    let answer = ends(s, 8000, &[remote()]);
    assert_eq!(answer.verdict, Verdict::Healthy);
    assert_eq!(warned(&answer), ["proxy-sync-lag"], "{answer:#?}");
    assert!(
        answer
            .findings
            .iter()
            .any(|f| f.summary.contains("4.0 s after"))
    );
}

#[test]
fn rules_alone_warn_once_they_are_late() {
    for (end, expected) in [(3000, &[][..]), (5000, &["proxy-sync-lag"][..])] {
        let mut s = both();
        leaves(&mut s);
        let answer = ends(s, end, &[backend(), remote()]);
        assert_eq!(warned(&answer), expected, "{answer:#?}");
        assert_eq!(answer.verdict, Verdict::NotEnoughEvidence);
    }
}

#[test]
fn an_endpoint_that_shuts_down_is_left_while_others_are_ready() {
    let mut s = both();
    let mut leaving = version(CHANGE, &[BACKEND, REMOTE]);
    leaving.slices[0].endpoints[0].ready = false;
    leaving.slices[0].endpoints[0].terminating = true;
    s.inputs.push(Input::Objects(Box::new(leaving.clone())));
    refused(&mut s, 4001, CHANGE + 5000);
    let answer = ends(s, 8000, &[backend(), remote()]);
    assert_cause(&answer, "proxy-sync-lag", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("terminating"));

    // Where none is ready it is what there is.
    let mut s = both();
    leaving.slices[0].endpoints[1] = leaving.slices[0].endpoints[0].clone();
    leaving.slices[0].endpoints[1].addresses = vec![ip(REMOTE)];
    s.inputs.push(Input::Objects(Box::new(leaving)));
    refused(&mut s, 4001, CHANGE + 5000);
    let answer = ends(s, 8000, &[backend(), remote()]);
    assert_cause(&answer, "terminating-backend", Verdict::Failing);
}

#[test]
fn a_proxy_that_is_out_of_order_does_not_follow_at_all() {
    let unready = |mut o: Objects| {
        let mut agent = pod("kube-proxy-x", NODE_A, "a", &[]);
        agent.namespace = "kube-system".into();
        agent.host_network = true;
        agent.containers = vec!["kube-proxy".into()].into();
        let condition = Condition {
            status: false,
            reason: "ContainersNotReady".into(),
        };
        agent.conditions = [("Ready".to_owned(), condition)].into();
        o.pods.push(agent);
        o
    };
    let first = unready(version(0, &[BACKEND, REMOTE]));
    let mut s = Story::new("a", first, read(1, &[backend(), remote()]));
    let left = unready(version(CHANGE, &[REMOTE]));
    s.inputs.push(Input::Objects(Box::new(left)));
    refused(&mut s, 4001, CHANGE + 5000);
    let answer = ends(s, 8000, &[backend(), remote()]);
    assert_eq!(critical(&answer), ["proxy-rules-stale"], "{answer:#?}");
    assert_eq!(warned(&answer), ["proxy-unhealthy"], "{answer:#?}");
}

/// Rules that turn the address away.
fn reject() -> ProxyService {
    ProxyService {
        reject: true,
        ..rules_to(&[])
    }
}

#[test]
fn connections_turned_away_though_there_is_an_endpoint() {
    let turned_away = |after: u64, last: NodeFacts| {
        let mut s = Story::new("a", version(0, &[]), ruled(facts_a(), reject()));
        let came = version(CHANGE, &[REMOTE]);
        s.inputs.push(Input::Objects(Box::new(came)));
        let at = ms(CHANGE + after);
        s.syn(vip(4001), CLIENT_VETH, at, 7, 1);
        s.drop(vip(4001), NETNS, "NETFILTER_DROP", "nf_hook_slow", None, at);
        s.unreachable(NODE_A, vip(4001), 3, 0, at);
        ends_with(s, 8000, last)
    };
    let rejecting = || NodeFacts {
        time: ms(7990),
        ..ruled(facts_a(), reject())
    };
    let answer = turned_away(4000, rejecting());
    assert_eq!(critical(&answer), ["proxy-sync-lag"], "{answer:#?}");
    assert!(answer.findings[0].summary.contains("away"));
    let answer = turned_away(4000, read(7990, &[remote()]));
    assert_eq!(critical(&answer), ["proxy-sync-lag"], "{answer:#?}");
    assert!(answer.findings[0].summary.contains("follow by now"));
    assert!(answer.findings[0].until.is_some());
    let answer = turned_away(1000, read(7990, &[remote()]));
    assert!(
        !critical(&answer).contains(&"proxy-sync-lag"),
        "{answer:#?}"
    );
}

#[test]
fn the_backends_node_adds_nothing_to_it() {
    let mut s = both();
    leaves(&mut s);
    refused(&mut s, 4001, CHANGE + 5000);
    s.inputs
        .push(Input::Node(Box::new(read(7990, &[remote()]))));
    let mut b = Story::new("b", version(0, &[BACKEND, REMOTE]), facts_b());
    leaves(&mut b);
    let answer = explain(&[s.told(ms(8000)), b.told(ms(8000))]);
    assert_cause(&answer, "proxy-sync-lag", Verdict::Failing);
    assert_eq!(critical(&answer), ["proxy-sync-lag"], "{answer:#?}");
}
