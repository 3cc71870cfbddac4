//! Who dropped it: a rule, a program, or netfilter for a reason of its own.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Basis, Verdict};
use crate::model::node::{FirewallRule, NodeFacts};
use crate::model::{Input, Time};

/// The translated packet is dropped on node A; the node's facts are read again afterwards.
fn dropped(reason: &str, before: NodeFacts, after: Option<NodeFacts>) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), before);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(vip(4001), reply(4001, backend()), ms(10));
    let sent = reply(4001, backend()).inverse();
    s.drop(sent, NETNS, reason, "nf_hook_slow", Some(ct), ms(10));
    s.inputs.extend(after.map(|f| Input::Node(Box::new(f))));
    explain(&[s.told(ms(3000))])
}

fn with(rules: Vec<FirewallRule>, at: Time) -> NodeFacts {
    NodeFacts {
        time: at,
        firewall: rules,
        ..facts_a()
    }
}

fn legacy(position: u64, text: &str, packets: u64) -> FirewallRule {
    FirewallRule {
        mode: "iptables-legacy".into(),
        table: "filter".into(),
        chain: "FORWARD".into(),
        handle: position,
        text: text.into(),
        ..dropping(Some(packets))
    }
}

#[test]
fn a_rule_that_counted_the_packets_is_named() {
    let before = with(vec![dropping(Some(4))], ms(1));
    let answer = dropped(
        "NETFILTER_DROP",
        before,
        Some(with(vec![dropping(Some(7))], ms(2000))),
    );
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("inet site forward"));
}

#[test]
fn without_a_rule_that_could_none_is_asserted() {
    let silent = with(vec![dropping(Some(4))], ms(2000));
    for after in [with(Vec::new(), ms(2000)), silent.clone()] {
        let answer = dropped("NETFILTER_DROP", silent.clone(), Some(after));
        let finding = &answer.findings[0];
        assert_eq!(
            (finding.code, finding.basis),
            ("firewall-drop", Basis::Inferred)
        );
        assert!(
            finding.summary.contains("could not be told"),
            "{}",
            finding.summary
        );
    }
}

#[test]
fn a_full_conntrack_table_is_said() {
    let mut facts = facts_a();
    (facts.conntrack.count, facts.conntrack.max) = (65_536, 65_536);
    let facts = ruled(facts, rules_to(&[backend()]));
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        vip(4001),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    let answer = explain(&[s.told(ms(3000))]);
    let finding = &answer.findings[0];
    assert_eq!(
        (finding.code, finding.basis),
        ("firewall-drop", Basis::Inferred)
    );
    assert!(
        finding.summary.contains("65536 of 65536"),
        "{}",
        finding.summary
    );
}

#[test]
fn programs_on_interfaces_are_filters_too() {
    for reason in ["TC_INGRESS", "TC_EGRESS", "XDP"] {
        let answer = dropped(reason, facts_a(), None);
        assert_cause(&answer, "firewall-drop", Verdict::Failing);
        assert!(
            answer.findings[0].summary.contains("v-client"),
            "{}",
            answer.findings[0].summary
        );
    }
}

#[test]
fn a_rule_that_only_moved_counted_nothing() {
    let before = with(vec![legacy(1, "old", 3), legacy(2, "kept", 90)], ms(1));
    let after = with(vec![legacy(1, "kept", 90), legacy(2, "new", 5)], ms(2000));
    let answer = dropped("NETFILTER_DROP", before, Some(after));
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    assert!(
        answer.findings[0].summary.contains("(new drop)"),
        "{}",
        answer.findings[0].summary
    );
}

#[test]
fn counters_of_a_namespace_that_was_not_read_before_have_not_risen() {
    let mut before = facts_a();
    before.pods.remove(1);
    let mut after = facts_a();
    after.pods[1].firewall = vec![dropping(Some(90))];
    let mut s = Story::new("a", objects(&[BACKEND]), before);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), reply(4001, backend()), ms(10));
    let sent = reply(4001, backend()).inverse();
    s.drop(
        sent,
        BACKEND_NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    s.inputs.push(Input::Node(Box::new(after)));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(
        summary.contains("does not count") || summary.contains(" can"),
        "{summary}"
    );
}
