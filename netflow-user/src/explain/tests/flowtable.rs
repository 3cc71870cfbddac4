//! What a flowtable hides, and what it does not.

use super::codes::{assert_cause, backend};
use super::endings::{bulk, with_table};
use super::story::*;
use crate::model::answer::{Answer, Blind, Verdict};
use crate::model::conntrack::CtStatus;
use crate::model::node::{Flowtable, NodeFacts};
use crate::model::{Input, Time};

const OFFLOAD: u32 = 1 << 14;
const HW_OFFLOAD: u32 = 1 << 15;

fn said(answer: &Answer) -> Option<&Blind> {
    answer.blind.iter().find(|b| b.code == "flowtable")
}

/// A transfer of which nothing is seen from five seconds on; the conntrack entry that shows it has these bits besides.
fn falls_silent(bits: u32) -> Answer {
    let mut inputs = bulk(false, 5000).told(ms(5000));
    let last = inputs.len() - 1;
    for at in [5600, 6200] {
        let sweep = Input::Flows {
            time: ms(at),
            flows: Vec::new(),
        };
        inputs.insert(last, sweep);
    }
    let mut inputs = with_table(inputs, 6300);
    for input in &mut inputs {
        if let Input::Node(facts) = input {
            for entry in &mut facts.conntrack.entries {
                entry.tuples.status = CtStatus(entry.tuples.status.0 | bits);
            }
        }
    }
    explain(&[inputs])
}

#[test]
fn what_hardware_forwards_is_not_silent() {
    let answer = falls_silent(OFFLOAD | HW_OFFLOAD);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let said = said(&answer).map_or("", |b| b.text.as_str());
    assert!(said.contains("1 of the Service's"), "{said}");
    assert!(said.contains("hardware forwards 1"), "{said}");
}

#[test]
fn what_a_flowtable_forwards_in_software_is_seen_and_may_stall() {
    let answer = falls_silent(OFFLOAD);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    // It may be the rules' doing no more, so it is said also where the cause is proved.
    assert!(said(&answer).is_some_and(|b| !b.text.contains("hardware")));
}

/// A node with a flowtable on which one connection is served.
fn beside_a_flowtable(facts: NodeFacts, end: Time) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    explain(&[s.told(end)])
}

#[test]
fn a_flowtable_is_named_with_its_interfaces() {
    let mut facts = facts_a();
    assert_eq!(said(&beside_a_flowtable(facts.clone(), ms(3000))), None);
    facts.flowtables = vec![Flowtable {
        table: "inet filter".into(),
        name: "fast".into(),
        devices: vec!["v-client".into(), "up0".into()],
        hardware: false,
    }];
    let answer = beside_a_flowtable(facts, ms(3000));
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let said = said(&answer).map_or("", |b| b.text.as_str());
    assert!(
        said.starts_with("Flowtable inet filter/fast (v-client, up0) "),
        "{said}"
    );
    assert!(said.contains("0 of the Service's"), "{said}");
}
