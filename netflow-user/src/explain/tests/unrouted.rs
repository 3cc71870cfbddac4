//! Clients without a route, of whom no packet is seen.

use super::codes::{backend, vip};
use super::story::*;
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::model::Input;
use crate::model::answer::{Answer, Basis, Severity, Verdict};
use crate::model::node::{NodeFacts, RouteLookup};
use crate::model::record::Event;

/// As in `facts_a`.
const CLIENT_NETNS: u32 = BACKEND_NETNS + 1;

/// `errno`: what the kernel answers when the client's namespace is asked for the VIP.
fn facts(errno: Option<i32>) -> NodeFacts {
    let mut facts = facts_a();
    facts.lookups.push(RouteLookup {
        netns: CLIENT_NETNS,
        dst: ip(VIP),
        errno,
        kind: String::new(),
        via: None,
        ifindex: 0,
        src: None,
        table: 254,
        mtu: None,
        mtu_expires_secs: None,
    });
    facts
}

/// The client dials the VIP, and one table of its namespace has no route.
fn lookup_fails(s: &mut Story) {
    let looked_for = crate::model::Tuple {
        src: ip("0.0.0.0"),
        sport: 0,
        ..vip(4001)
    };
    s.record(
        ms(100),
        CLIENT_NETNS,
        0,
        Some(looked_for),
        Event::FibError {
            dst: ip(VIP),
            err: -11,
            table: 254,
        },
    );
}

/// The namespace is looked into after that.
fn read_later(s: Story, errno: Option<i32>) -> Vec<Input> {
    let mut inputs = s.told(ms(3000));
    let mut later = facts(errno);
    later.time = ms(2000);
    let last = inputs.len() - 1;
    inputs.insert(last, Input::Node(Box::new(later)));
    inputs
}

fn tried(errno: Option<i32>) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts(errno));
    lookup_fails(&mut s);
    explain(&[read_later(s, errno)])
}

#[test]
fn who_has_no_route_fails_without_a_packet() {
    let answer = tried(Some(101));
    assert_eq!(answer.verdict, Verdict::Failing, "{answer:#?}");
    let found = &answer.findings[0];
    assert_eq!(found.code, "no-route");
    assert_eq!(found.basis, Basis::Observed);
    assert_eq!(found.severity, Severity::Critical);
    assert_eq!(found.affected.clients, ["shop/client"]);
    assert_eq!(
        found.evidence.len(),
        2,
        "the attempt, and the kernel's answer"
    );
}

/// Where rules choose between tables, one without an answer is no failure.
#[test]
fn a_lookup_that_goes_on_in_another_table_is_no_finding() {
    let answer = tried(None);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

/// What was read before it was tried says nothing of then.
#[test]
fn an_answer_from_before_does_not_prove_it() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts(Some(101)));
    lookup_fails(&mut s);
    let answer = explain(&[s.told(ms(3000))]);
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn who_sends_afterwards_has_a_route() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts(Some(101)));
    lookup_fails(&mut s);
    s.served(4001, backend(), BACKEND_VETH, ms(1000));
    let answer = explain(&[read_later(s, Some(101))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}

#[test]
fn its_namespace_is_to_be_looked_into() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    lookup_fails(&mut s);
    let mut explainer = Explainer::new(Box::new(Identities::default()));
    for input in s.told(ms(3000)) {
        explainer.feed(0, &input);
    }
    let clients = explainer.clients();
    assert!(clients.namespaces.contains(&CLIENT_NETNS), "{clients:?}");
    assert!(clients.addresses.is_empty(), "{clients:?}");
}
