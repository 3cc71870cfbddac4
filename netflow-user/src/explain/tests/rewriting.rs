//! Clusters in which a tc program translates the Service's address, and conntrack sees none of it.

use super::codes::{assert_cause, backend, reply, top, vip};
use super::story::*;
use crate::model::Tuple;
use crate::model::answer::{Answer, Blind, Hop, State, Verdict, Via};
use crate::model::flow::Direction;
use crate::model::node::{NodeFacts, TcProgram};

fn facts(ifindex: u32, side: &str, first: bool) -> NodeFacts {
    let mut facts = facts_a();
    facts.tc_programs = vec![TcProgram {
        ifindex,
        interface: "v-client".into(),
        side: side.into(),
        how: "tcx".into(),
        name: "lb_from_pod".into(),
        id: Some(12),
        first,
    }];
    facts
}

fn translating() -> NodeFacts {
    facts(CLIENT_VETH, "ingress", false)
}

fn said(answer: &Answer) -> Option<&Blind> {
    answer.blind.iter().find(|b| b.code == "tc-translation")
}

/// The client's SYN comes in for the Service and goes to `to` with this sequence number.
fn rewritten(s: &mut Story, sport: u16, to: Tuple, isn: u32) {
    s.syn(vip(sport), CLIENT_VETH, ms(10), 7, 1);
    s.syn_at(to, BACKEND_VETH, Direction::Egress, ms(10), isn, 1);
}

/// The endpoint's answer; netflow sees it on the client's interface before the program makes it the Service's.
fn answered(s: &mut Story, sport: u16) {
    let r = reply(sport, backend());
    s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.syn_ack(r, CLIENT_VETH, Direction::Egress, ms(11));
}

#[test]
fn a_translated_connection_is_followed() {
    let mut s = Story::new("a", objects(&[BACKEND]), translating());
    rewritten(&mut s, 4001, reply(4001, backend()).inverse(), 7);
    answered(&mut s, 4001);
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let [path] = &answer.paths[..] else {
        panic!("{answer:#?}");
    };
    assert_eq!((path.via, path.outcomes.ok), (Via::Vip, 1));
    let state = |hop| path.hops.iter().find(|h| h.hop == hop).map(|h| h.state);
    for hop in [Hop::Vip, Hop::Dnat, Hop::Backend, Hop::Listener] {
        assert_eq!(state(hop), Some(State::Ok), "{hop:?} {answer:#?}");
    }
    assert_eq!(state(Hop::Unnat), Some(State::Unseen));
    let text = said(&answer).map_or("", |b| b.text.as_str());
    let program = "lb_from_pod (id 12, tcx ingress of v-client, after netflow)";
    assert!(text.contains(program), "{answer:#?}");
    assert!(text.contains("1 attempts were followed"), "{text}");
}

#[test]
fn what_the_endpoint_refuses_is_the_services_fault() {
    let mut s = Story::new("a", objects(&[BACKEND]), translating());
    let r = reply(4001, backend());
    rewritten(&mut s, 4001, r.inverse(), 7);
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(r, CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    assert_eq!(answer.paths[0].via, Via::Vip);
    let texts: Vec<&str> = answer.evidence.iter().map(|e| e.text.as_str()).collect();
    assert!(
        texts.iter().any(|t| t.contains("a program did")),
        "{texts:#?}"
    );
    assert!(
        !texts.iter().any(|t| t.starts_with("conntrack:")),
        "{texts:#?}"
    );
}

#[test]
fn what_cannot_be_followed_is_not_guessed() {
    // Another sequence number is another packet; another destination is no endpoint.
    let elsewhere = tuple(crate::model::Proto::TCP, CLIENT, 4001, "10.9.1.99", 8080);
    for (to, isn) in [(reply(4001, backend()).inverse(), 8), (elsewhere, 7)] {
        let mut s = Story::new("a", objects(&[BACKEND]), translating());
        rewritten(&mut s, 4001, to, isn);
        let answer = explain(&[s.told(ms(4000))]);
        assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
        assert_eq!(top(&answer), "none", "{answer:#?}");
        let text = said(&answer).map_or("", |b| b.text.as_str());
        assert!(text.contains("is not known"), "{answer:#?}");
    }
}

/// The node sends the Service's packets out as they came.
fn left(facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.syn_at(vip(4001), UPLINK, Direction::Egress, ms(10), 7, 3);
    explain(&[s.told(ms(4000))])
}

#[test]
fn a_program_that_let_the_packet_pass_translates_nothing() {
    let passed = left(translating());
    assert_cause(&passed, "vip-not-translated", Verdict::Failing);
    assert_eq!(said(&passed), None);
    let before = left(facts(UPLINK, "egress", true));
    assert_cause(&before, "vip-not-translated", Verdict::Failing);
    // Behind the last place that shows the packet anything may happen.
    let behind = left(facts(UPLINK, "egress", false));
    assert!(
        behind
            .findings
            .iter()
            .all(|f| f.code != "vip-not-translated")
    );
    assert!(said(&behind).is_some());
}

#[test]
fn a_program_in_front_may_hide_the_services_address() {
    let hidden = |facts| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts);
        let r = reply(4001, backend());
        s.syn(r.inverse(), CLIENT_VETH, ms(10), 7, 1);
        s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
        explain(&[s.told(ms(3000))])
    };
    let answer = hidden(facts(CLIENT_VETH, "ingress", true));
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(said(&answer).is_some_and(|b| b.text.contains("before netflow")));
    assert_eq!(said(&hidden(translating())), None);
}
