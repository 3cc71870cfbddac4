//! Slices that list what is no Pod's address any more.

use super::codes::*;
use super::story::*;
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::model::Time;
use crate::model::answer::{Answer, Severity, Verdict};
use crate::model::flow::Direction;
use crate::model::objects::{Away, Limit, Objects};
use crate::model::{Input, Proto};

/// `shop/cart` with slices of the controller, which name the Pods behind their addresses.
fn managed() -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.slices[0].by_controller = true;
    for (endpoint, name) in o.slices[0].endpoints.iter_mut().zip(["cart", "cart-far"]) {
        endpoint.pod = Some(name.into());
    }
    o
}

/// The remote Pod has gone.
fn gone() -> Objects {
    let mut o = managed();
    o.pods.retain(|p| p.name != "cart-far");
    o
}

/// The remote Pod came back with another address.
fn moved() -> Objects {
    let mut o = managed();
    o.pods[2].ips = vec![ip("10.9.2.8")];
    o
}

/// A client's packets leave for the remote backend in vain.
fn sent(objects: Objects) -> Story {
    let mut s = Story::new("a", objects, facts_a());
    let r = reply(4001, remote());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    s
}

fn top_of(objects: Objects) -> &'static str {
    top(&explain(&[sent(objects).told(ms(8000))]))
}

fn warned(answer: &Answer) -> bool {
    let mut all = answer.findings.iter();
    all.any(|f| f.code == "endpointslice-stale" && f.severity == Severity::Warning)
}

#[test]
fn connections_to_a_pod_that_is_gone_or_moved_show_slices_that_are_behind() {
    for (objects, says) in [(gone(), "which is gone"), (moved(), "has 10.9.2.8 now")] {
        let answer = explain(&[sent(objects).told(ms(8000))]);
        assert_cause(&answer, "endpointslice-stale", Verdict::Failing);
        let cause = &answer.findings[0];
        assert!(cause.summary.contains(says), "{}", cause.summary);
        assert!(cause.summary.contains("10.9.2.7 of Pod cart-far"));
        let mut checks = cause.check.iter();
        assert!(checks.any(|c| c.command.contains("endpointslice cart-x -n shop")));
    }
}

#[test]
fn whoever_has_the_address_now_is_not_to_blame() {
    let mut o = gone();
    let mut other = pod("mail", REMOTE, "b", &[25]);
    other.namespace = "other".into();
    o.pods.push(other);
    let mut s = sent(o);
    let r = reply(4001, remote());
    s.rst(r, UPLINK, Direction::Ingress, ms(11));
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(8000))]);
    assert_cause(&answer, "endpointslice-stale", Verdict::Failing);
}

#[test]
fn slices_may_be_behind_for_a_moment() {
    let answer = explain(&[sent(gone()).told(ms(1500))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
}

#[test]
fn how_long_they_are_behind_counts_from_the_change() {
    let later = |mut o: Objects, at: Time| {
        o.time = at;
        Input::Objects(Box::new(o))
    };
    for (at, code) in [
        (ms(7000), "lost-beyond-node"),
        (ms(4000), "endpointslice-stale"),
    ] {
        let mut s = sent(managed());
        s.inputs.push(later(gone(), at));
        let answer = explain(&[s.told(ms(8000))]);
        assert_eq!(top(&answer), code, "{answer:#?}");
    }
}

#[test]
fn what_the_controller_does_not_write_need_not_follow_pods() {
    let mut by_hand = gone();
    by_hand.slices[0].by_controller = false;
    let mut without_selector = gone();
    without_selector.services[0].selector = None;
    let mut nameless = gone();
    nameless.slices[0].endpoints[1].pod = None;
    for objects in [by_hand, without_selector, nameless, managed()] {
        assert_eq!(top_of(objects), "lost-beyond-node");
    }
}

#[test]
fn pods_that_are_not_known_are_not_gone() {
    let mut unknown = gone();
    unknown.pods.clear();
    unknown.unknown_kinds.push("Pod".into());
    let mut limited = gone();
    limited.limits.push(Limit {
        kind: "Pod".into(),
        namespaces: vec!["other".into()],
        why: "forbidden".into(),
    });
    for kind in ["", "Pod", "EndpointSlice"] {
        let mut old = gone();
        old.away.push(Away {
            kind: kind.into(),
            since: ms(0),
            why: "refused".into(),
        });
        assert_eq!(top_of(old), "lost-beyond-node");
    }
    for objects in [unknown, limited] {
        assert_eq!(top_of(objects), "lost-beyond-node");
    }
}

#[test]
fn a_pod_whose_address_was_not_given_has_not_moved() {
    let mut o = managed();
    o.pods[2].ips.clear();
    assert_eq!(top_of(o), "lost-beyond-node");
}

#[test]
fn an_address_that_another_slice_lists_rightly_is_right() {
    let mut o = moved();
    let mut newer = o.slices[0].clone();
    newer.name = "cart-y".into();
    newer.endpoints.remove(0);
    newer.endpoints[0].pod = Some("cart-new".into());
    o.slices.push(newer);
    let mut successor = o.pods[2].clone();
    successor.name = "cart-new".into();
    successor.ips = vec![ip(REMOTE)];
    o.pods.push(successor);
    assert_eq!(top_of(o), "lost-beyond-node");
}

#[test]
fn a_pod_that_a_node_has_is_there_whatever_the_objects_say() {
    let mut o = managed();
    o.pods.retain(|p| p.name != "cart");
    let mut s = Story::new("a", o, facts_a());
    let r = reply(4001, backend());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), r, ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(8000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}

#[test]
fn where_nobody_goes_there_it_is_a_warning() {
    let mut s = Story::new("a", gone(), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let answer = explain(&[s.told(ms(8000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(warned(&answer));
    let idle = explain(&[Story::new("a", gone(), facts_a()).told(ms(8000))]);
    assert_eq!(idle.verdict, Verdict::NotEnoughEvidence);
    assert!(warned(&idle));
}

#[test]
fn only_connections_that_go_there_fail_for_it() {
    let mut s = sent(gone());
    s.served(4002, backend(), BACKEND_VETH, ms(20));
    let t = tuple(Proto::TCP, CLIENT, 4003, VIP, 80);
    let r = reply(4003, backend());
    s.syn(t, CLIENT_VETH, ms(30), 9, 1);
    s.nat(t, r, ms(30));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(30), 9, 1);
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(31));
    s.rst(t.inverse(), CLIENT_VETH, Direction::Egress, ms(31));
    let answer = explain(&[s.told(ms(8000))]);
    assert_eq!(answer.verdict, Verdict::Degraded);
    let stale = answer
        .findings
        .iter()
        .find(|f| f.code == "endpointslice-stale");
    assert_eq!(stale.map(|f| f.affected.attempts), Some(1), "{answer:#?}");
}

#[test]
fn what_had_stood_on_top_before_it_was_told_need_not_stand_again() {
    let mut o = managed();
    o.pods.retain(|p| p.name != "cart");
    let mut facts = on_link(facts_a(), BACKEND);
    facts.pods.remove(1);
    let mut s = Story::new("a", o, facts);
    let r = reply(4001, backend());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.nat(vip(4001), r, ms(10));
    s.neighbor_failed(r.inverse(), ms(20));
    let mut explainer = Explainer::new(Box::new(Identities::default()));
    for input in s.told(ms(1050)) {
        explainer.feed(0, &input);
    }
    assert!(!explainer.settled());
    assert_eq!(top(&explainer.answer()), "backend-gone");
    explainer.feed(0, &Input::Tick { time: ms(3100) });
    assert!(explainer.settled());
    assert_eq!(top(&explainer.answer()), "endpointslice-stale");
}

#[test]
fn files_that_hold_none_of_the_services_pods_do_not_say_that_they_are_gone() {
    let mut chosen = managed();
    chosen.source = "manifests: some.yaml".into();
    chosen.pods.retain(|p| p.name == "client");
    assert_eq!(top_of(chosen), "lost-beyond-node");
    let mut whole = gone();
    whole.source = "manifests: all.yaml".into();
    let answer = explain(&[sent(whole).told(ms(8000))]);
    assert_cause(&answer, "endpointslice-stale", Verdict::Failing);
    let mut said = answer.evidence.iter();
    assert!(said.any(|e| e.text.contains("as the objects given have it")));
}
