//! Who dropped it: a rule, a program, or netfilter for a reason of its own.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Basis, Verdict};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{FirewallRule, NodeFacts};
use crate::model::record::{Event, IcmpError, NfHook, Rules};
use crate::model::{Input, Proto, Time};
use std::net::SocketAddr;
use std::sync::Arc;

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

/// Two attempts of which the same chain drops one packet each; the kernel tells its rules from the second drop on.
#[test]
fn the_drop_before_the_rules_were_asked_for_is_that_of_the_others() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    for (sport, at, told) in [(4001, 10, false), (4002, 30, true)] {
        let r = reply(sport, backend());
        s.syn(vip(sport), CLIENT_VETH, ms(at), 7, 1);
        let ct = s.nat(vip(sport), r, ms(at));
        let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
        s.drop(r.inverse(), NETNS, reason, place, Some(ct), ms(at));
        if told {
            let table = "filter".into();
            s.dropped_by(NfHook::Forward, Rules::Iptables { table });
        }
    }
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    let finding = &answer.findings[0];
    assert_eq!(finding.affected.attempts, 2);
    assert!(
        finding.summary.contains("iptables table filter"),
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

/// The packet to the local backend is dropped on node A, which may say so by ICMP.
fn refused(answer: Option<(u8, u8)>, rule: Option<&str>) -> Answer {
    let rules = |packets| {
        let rule = rule.map(|verdict| FirewallRule {
            verdict: verdict.into(),
            ..dropping(Some(packets))
        });
        rule.into_iter().collect()
    };
    let mut s = Story::new("a", objects(&[BACKEND]), with(rules(4), ms(1)));
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(vip(4001), reply(4001, backend()), ms(10));
    let sent = reply(4001, backend()).inverse();
    if let Some((icmp_type, code)) = answer {
        let event = Event::IcmpSent {
            icmp_type,
            code,
            mtu: 0,
            ct: Some(Arc::new(ct)),
        };
        s.record(ms(10), NETNS, CLIENT_VETH, Some(sent), event);
    }
    s.drop(
        sent,
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(ct),
        ms(10),
    );
    s.inputs
        .push(Input::Node(Box::new(with(rules(7), ms(2000)))));
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_filter_that_answers_is_told_from_one_that_is_silent() {
    for (answer, rule) in [
        (Some((3, 3)), None),
        (Some((3, 13)), None),
        (None, Some("reject")),
    ] {
        let said = refused(answer, rule);
        assert_cause(&said, "firewall-reject", Verdict::Failing);
    }
    assert_cause(
        &refused(None, Some("drop")),
        "firewall-drop",
        Verdict::Failing,
    );
    // Host unreachable tells of routes and neighbours.
    let said = refused(Some((3, 1)), Some("drop"));
    assert_cause(&said, "firewall-drop", Verdict::Failing);
}

/// Two attempts that another node refuses; it was not ready yet when it dropped the first.
#[test]
fn a_refusal_whose_drop_was_not_seen_is_that_of_the_others() {
    let mut here = Story::new("a", objects(&[REMOTE]), facts_a());
    let mut there = Story::new("b", objects(&[REMOTE]), facts_b());
    for (sport, at) in [(4001, 1010), (4002, 3010)] {
        let (o, r) = (vip(sport), reply(sport, remote()));
        here.syn(o, CLIENT_VETH, ms(at), 7, 1);
        here.nat(o, r, ms(at));
        here.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(at), 7, 1);
        let own = tuple(Proto::ICMP, NODE_B, 0, CLIENT, 3 << 8 | 3);
        let error = IcmpError {
            dir: Direction::Ingress,
            icmp_type: 3,
            code: 3,
            mtu: 0,
            quoted: Some(r.inverse()),
        };
        let told = Event::IcmpError(error);
        here.record(ms(at + 2), NETNS, UPLINK, Some(own), told);
        there.syn(r.inverse(), UPLINK, ms(at), 7, 1);
        let sent = Event::IcmpSent {
            icmp_type: 3,
            code: 3,
            mtu: 0,
            ct: None,
        };
        let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
        there.record(ms(at), NETNS + 1, UPLINK, Some(r.inverse()), sent);
        there.drop(r.inverse(), NETNS + 1, reason, place, None, ms(at));
    }
    let mut there = there.told(ms(6000));
    if let Input::Start(start) = &mut there[0] {
        start.time = ms(2000);
    }
    let both = explain(&[here.told(ms(6000)), there]);
    assert_cause(&both, "firewall-reject", Verdict::Failing);
    assert_eq!(both.findings[0].affected.attempts, 2, "{both:#?}");
}

/// ICMP comes in from `router` about the packet that left for the remote backend.
fn refused_by(router: &str, code: u8, again: bool) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let sent = reply(4001, remote()).inverse();
    let last = if again { 1020 } else { 10 };
    for (t, ifindex, dir) in [
        (vip(4001), CLIENT_VETH, Direction::Ingress),
        (sent, UPLINK, Direction::Egress),
    ] {
        s.flow(t, ifindex, dir, ms(10), |f| {
            f.flags = TcpFlags(2);
            f.syn = Some(ms(10));
            f.isn = 7;
            f.last = ms(last);
            f.packets = 1 + u64::from(again);
        });
    }
    s.nat(vip(4001), reply(4001, remote()), ms(10));
    let own = tuple(Proto::ICMP, router, 0, CLIENT, 3 << 8 | u16::from(code));
    let error = IcmpError {
        dir: Direction::Ingress,
        icmp_type: 3,
        code,
        mtu: 0,
        quoted: Some(sent),
    };
    s.record(ms(12), NETNS, UPLINK, Some(own), Event::IcmpError(error));
    explain(&[s.told(ms(3000))])
}

#[test]
fn port_unreachable_for_tcp_is_a_filters_wherever_it_comes_from() {
    for from in [NODE_B, "192.0.2.254", REMOTE] {
        let answer = refused_by(from, 3, false);
        assert_cause(&answer, "firewall-reject", Verdict::Failing);
        assert_eq!(answer.paths[0].outcomes.refused, 1);
    }
    let prohibited = refused_by("192.0.2.254", 13, false);
    let found = &prohibited.findings[0];
    assert_eq!(
        (found.code, found.basis),
        ("firewall-reject", Basis::Inferred)
    );
    // A client that sends its SYN again was not told.
    let deaf = refused_by("192.0.2.254", 13, true);
    assert_eq!(deaf.paths[0].outcomes.timeout, 1);
}

/// Another Pod on the remote backend's node.
const BESIDE: &str = "10.9.2.8";

fn beside() -> SocketAddr {
    SocketAddr::new(ip(BESIDE), 8080)
}

/// An attempt on node A that leaves for an endpoint elsewhere.
fn leaves(s: &mut Story, sport: u16, to: SocketAddr, at: Time) {
    let (o, r) = (vip(sport), reply(sport, to));
    s.syn(o, CLIENT_VETH, at, 7, 1);
    s.nat(o, r, at);
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, at, 7, 1);
}

/// Node B says of a packet to an endpoint that a filter refuses it.
fn refuses(s: &mut Story, sport: u16, to: SocketAddr, at: Time) {
    let own = tuple(Proto::ICMP, NODE_B, 0, CLIENT, 3 << 8 | 3);
    let error = IcmpError {
        dir: Direction::Ingress,
        icmp_type: 3,
        code: 3,
        mtu: 0,
        quoted: Some(reply(sport, to).inverse()),
    };
    s.record(at, NETNS, UPLINK, Some(own), Event::IcmpError(error));
}

/// Of two endpoints on node B, it refuses one; the other is placed on `node`.
fn one_is_refused_beside_one_on(node: &str) -> Story {
    let mut objects = objects(&[REMOTE, BESIDE]);
    objects.pods.push(pod("cart-beside", BESIDE, node, &[8080]));
    let mut s = Story::new("a", objects, facts_a());
    leaves(&mut s, 4001, remote(), ms(10));
    refuses(&mut s, 4001, remote(), ms(12));
    leaves(&mut s, 4002, beside(), ms(20));
    s
}

/// A node sends only so many ICMP errors to one address.
#[test]
fn silence_beside_a_refused_endpoint_is_no_loss() {
    let answer = explain(&[one_is_refused_beside_one_on("b").told(ms(3000))]);
    assert_eq!(critical(&answer), ["firewall-reject"], "{answer:#?}");
    let found = &answer.findings[0];
    assert_eq!(found.affected.attempts, 2);
    let said = "Of 10.9.2.8:8080 on the same node";
    assert!(found.summary.contains(said), "{}", found.summary);
}

#[test]
fn silence_is_loss_where_another_node_refuses_or_the_endpoint_serves() {
    let elsewhere = explain(&[one_is_refused_beside_one_on("c").told(ms(3000))]);
    let mut s = one_is_refused_beside_one_on("b");
    s.served(4003, beside(), UPLINK, ms(30));
    let serving = explain(&[s.told(ms(3000))]);
    for answer in [elsewhere, serving] {
        let both = ["firewall-reject", "lost-beyond-node"];
        assert_eq!(critical(&answer), both, "{answer:#?}");
    }
}

/// Both nodes were asked; of the one attempt only the answer was seen, of the other, to an endpoint beside it, the drop.
#[test]
fn a_refusal_by_a_node_is_that_of_its_other_endpoints() {
    let mut objects = objects(&[REMOTE, BESIDE]);
    objects.pods.push(pod("cart-beside", BESIDE, "b", &[8080]));
    let mut here = Story::new("a", objects.clone(), facts_a());
    let mut there = Story::new("b", objects, facts_b());
    for (sport, to, at) in [(4001, remote(), 1010), (4002, beside(), 3010)] {
        leaves(&mut here, sport, to, ms(at));
        refuses(&mut here, sport, to, ms(at + 2));
    }
    let sent = reply(4002, beside()).inverse();
    there.syn(sent, UPLINK, ms(3010), 7, 1);
    let told = Event::IcmpSent {
        icmp_type: 3,
        code: 3,
        mtu: 0,
        ct: None,
    };
    there.record(ms(3010), NETNS + 1, UPLINK, Some(sent), told);
    let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
    there.drop(sent, NETNS + 1, reason, place, None, ms(3010));
    let answer = explain(&[here.told(ms(6000)), there.told(ms(6000))]);
    assert_eq!(critical(&answer), ["firewall-reject"], "{answer:#?}");
    assert_eq!(answer.findings[0].affected.attempts, 2);
}

#[test]
fn a_reset_that_is_not_translated_back_leaves_the_client_waiting() {
    let rule = FirewallRule {
        verdict: "reject".into(),
        ..dropping(Some(4))
    };
    for translated in [true, false] {
        let mut s = Story::new("a", objects(&[BACKEND]), with(vec![rule.clone()], ms(1)));
        s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
        let r = reply(4001, backend());
        let ct = s.nat(vip(4001), r, ms(10));
        let why = ("NETFILTER_DROP", "nf_hook_slow");
        s.drop(r.inverse(), NETNS, why.0, why.1, Some(ct), ms(10));
        let answer = if translated { vip(4001).inverse() } else { r };
        s.rst(answer, CLIENT_VETH, Direction::Egress, ms(10));
        let after = with(
            vec![FirewallRule {
                packets: Some(7),
                ..rule.clone()
            }],
            ms(2000),
        );
        s.inputs.push(Input::Node(Box::new(after)));
        let answer = explain(&[s.told(ms(4000))]);
        assert_cause(&answer, "firewall-reject", Verdict::Failing);
        let said = answer.findings[0].summary.contains("waits");
        assert_eq!(said, !translated, "{answer:#?}");
    }
}

/// The packet sent again was translated to another backend, which refused it.
#[test]
fn a_rst_long_after_the_drop_is_not_the_filters() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 2);
    let r = reply(4001, backend());
    let ct = s.nat(vip(4001), r, ms(10));
    let why = ("NETFILTER_DROP", "nf_hook_slow");
    s.drop(r.inverse(), NETNS, why.0, why.1, Some(ct), ms(10));
    s.rst(
        vip(4001).inverse(),
        CLIENT_VETH,
        Direction::Egress,
        ms(1020),
    );
    assert_eq!(top(&explain(&[s.told(ms(3000))])), "firewall-drop");
}
