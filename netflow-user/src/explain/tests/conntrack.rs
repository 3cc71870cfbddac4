//! What conntrack did, could not do, or did from memory; and setups that only look like it.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Basis, Severity, Verdict};
use crate::model::conntrack::{CtEntry, CtStatus};
use crate::model::flow::{Direction, TcpFlags};
use crate::model::node::{FirewallRule, NodeFacts};
use crate::model::record::{Event, NfHook};
use crate::model::{CtTuples, Input, Proto, Time, Tuple};

const OLD: &str = "10.9.1.66";

pub(super) fn entry(orig: Tuple, reply: Tuple, status: u32) -> CtEntry {
    CtEntry {
        tuples: CtTuples {
            orig,
            reply,
            status: CtStatus(status),
            zone: 0,
            mark: 0,
            info: 0,
        },
        id: 1,
        timeout_secs: 100,
        tcp_state: None,
    }
}

fn has(answer: &Answer, code: &str) -> bool {
    answer.findings.iter().any(|f| f.code == code)
}

/// Facts read before and after, of a table with `count` of `max` entries and a count of drops.
fn table(count: u64, max: u64, drops: u64, at: Time) -> NodeFacts {
    let mut facts = ruled(facts_a(), rules_to(&[backend()]));
    facts.time = at;
    (facts.conntrack.count, facts.conntrack.max) = (count, max);
    facts.conntrack.stats = [("drop".to_owned(), drops)].into();
    facts
}

/// A SYN that is dropped where conntrack first sees it.
fn turned_away(before: NodeFacts, after: NodeFacts, hook: Option<NfHook>) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), before);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    let drop = crate::model::record::Drop {
        reason: "NETFILTER_DROP".into(),
        place: "nf_hook_slow".into(),
        hook,
        flags: TcpFlags(2),
        seq: 0,
        len: 60,
        ct: None,
        quoted: None,
        verdict: None,
        count: 1,
    };
    s.record(
        ms(10),
        NETNS,
        CLIENT_VETH,
        Some(vip(4001)),
        Event::Drop(Box::new(drop)),
    );
    s.inputs.push(Input::Node(Box::new(after)));
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_full_table_turns_new_connections_away() {
    for hook in [None, Some(NfHook::Prerouting)] {
        let answer = turned_away(table(90, 100, 5, ms(1)), table(100, 100, 9, ms(2000)), hook);
        assert_cause(&answer, "conntrack-full", Verdict::Failing);
        assert!(answer.findings[0].summary.contains("100 of at most 100"));
    }
    // By the time it was read again there was room.
    let answer = turned_away(table(90, 100, 5, ms(1)), table(80, 100, 9, ms(2000)), None);
    assert_cause(&answer, "conntrack-full", Verdict::Failing);
    // An entry ended as it was read, and what it turned away is not known before it is read again.
    let once = || table(99, 100, 5, ms(1));
    assert_cause(
        &turned_away(once(), once(), None),
        "conntrack-full",
        Verdict::Failing,
    );
    let answer = turned_away(once(), table(99, 100, 5, ms(2000)), None);
    assert!(!has(&answer, "conntrack-full"), "{answer:#?}");
}

#[test]
fn a_drop_without_an_entry_is_no_full_table_by_itself() {
    let roomy = || table(50, 100, 5, ms(1));
    assert!(!has(&turned_away(roomy(), roomy(), None), "conntrack-full"));
    // Trackers refuse packets for reasons of their own, too.
    let empty = turned_away(table(9, 100, 5, ms(1)), table(9, 100, 6, ms(2000)), None);
    assert!(!has(&empty, "conntrack-full"), "{empty:#?}");
    // At FORWARD conntrack has had its look: it is a rule about packets without entry.
    let full = || table(100, 100, 5, ms(1));
    let answer = turned_away(full(), full(), Some(NfHook::Forward));
    assert!(!has(&answer, "conntrack-full"), "{answer:#?}");
    // A rule that counted it dropped it.
    let with = |packets, at| NodeFacts {
        firewall: vec![FirewallRule {
            hook: Some(NfHook::Prerouting),
            ..dropping(Some(packets))
        }],
        ..table(100, 100, 5, at)
    };
    let answer = turned_away(with(1, ms(1)), with(4, ms(2000)), Some(NfHook::Prerouting));
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
}

#[test]
fn a_nearly_full_table_is_a_warning_and_leaves_the_verdict() {
    for (count, warned) in [(90, false), (91, true), (100, true)] {
        let mut s = Story::new("a", objects(&[BACKEND]), table(count, 100, 0, ms(1)));
        s.served(4001, backend(), BACKEND_VETH, ms(10));
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::Healthy);
        let found = answer
            .findings
            .iter()
            .find(|f| f.code == "conntrack-pressure");
        assert_eq!(
            found.map(|f| f.severity),
            warned.then_some(Severity::Warning)
        );
    }
}

/// An open connection's or a UDP client's packets go to `OLD`; the entry stood before, or not.
fn old_entry(proto: Proto, stood: bool, rules: &[std::net::SocketAddr]) -> Answer {
    let mut all = objects(&[BACKEND]);
    all.services[0].ports[0].proto = proto;
    all.slices[0].ports[0].proto = proto;
    let orig = tuple(proto, CLIENT, 4001, VIP, 80);
    let reply = tuple(proto, OLD, 8080, CLIENT, 4001);
    let row = crate::model::node::ProxyService {
        proto,
        ..rules_to(rules)
    };
    let mut facts = ruled(facts_a(), row);
    if stood {
        facts.conntrack.entries.push(entry(orig, reply, 0x1ae));
    }
    let mut s = Story::new("a", all, facts);
    // Another client of the Service is served.
    let other = tuple(proto, CLIENT, 4002, VIP, 80);
    let served = tuple(proto, BACKEND, 8080, CLIENT, 4002);
    s.nat(other, served, ms(20));
    s.flow(other, CLIENT_VETH, Direction::Ingress, ms(20), |f| {
        f.syn = (proto == Proto::TCP).then_some(ms(20));
        f.flags = TcpFlags(2);
        f.isn = 4002;
    });
    s.flow(
        other.inverse(),
        CLIENT_VETH,
        Direction::Egress,
        ms(21),
        |f| {
            f.syn_ack = (proto == Proto::TCP).then_some(ms(21));
            f.flags = TcpFlags(18);
            f.data = Some(ms(22));
        },
    );
    let resent = |f: &mut crate::model::flow::FlowStats| {
        f.packets = 4;
        f.last = ms(3900);
        if proto == Proto::TCP {
            f.flags = TcpFlags(24);
            f.data = Some(ms(30));
            f.seq_end = 900;
            f.retrans = 3;
            f.retrans_first = Some(ms(240));
            f.retrans_last = Some(ms(3900));
            f.retrans_max = 100;
        }
    };
    s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(30), resent);
    let ct = entry(orig, reply, 0x1ae).tuples;
    s.drop(
        ct.translated(),
        NETNS,
        "NEIGH_FAILED",
        "neigh_invalidate",
        Some(ct),
        ms(3800),
    );
    explain(&[s.told(ms(4000))])
}

#[test]
fn an_entry_from_before_that_no_rule_would_make_is_stale() {
    for proto in [Proto::UDP, Proto::TCP] {
        let answer = old_entry(proto, true, &[backend()]);
        assert_cause(&answer, "conntrack-stale", Verdict::Degraded);
        let fix = &answer.findings[0].fix[0].command;
        assert!(
            fix.contains("--orig-src 10.9.1.5 --orig-port-src 4001"),
            "{fix}"
        );
    }
}

#[test]
fn where_todays_rules_send_there_too_the_rules_are_stale() {
    let gone = std::net::SocketAddr::new(ip(OLD), 8080);
    let answer = old_entry(Proto::UDP, true, &[backend(), gone]);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Degraded);
}

/// The packet is dropped as its entry is to be inserted, with `rivals` in the table.
fn not_inserted(reply: Tuple, rivals: &[CtEntry], failed: u64) -> Answer {
    let told = |failed: u64, at| {
        let mut facts = ruled(facts_a(), rules_to(&[backend()]));
        facts.time = at;
        facts.conntrack.entries = rivals.to_vec();
        facts.conntrack.stats = [("insert_failed".to_owned(), failed)].into();
        facts
    };
    let mut s = Story::new("a", objects(&[BACKEND]), told(3, ms(1)));
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    let ct = CtTuples {
        status: CtStatus(0x1b0),
        ..entry(vip(4001), reply, 0).tuples
    };
    s.drop(
        ct.translated(),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(ct),
        ms(10),
    );
    s.inputs.push(Input::Node(Box::new(told(failed, ms(2000)))));
    explain(&[s.told(ms(3000))])
}

fn masqueraded(port: u16) -> Tuple {
    tuple(Proto::TCP, BACKEND, 8080, NODE_A, port)
}

#[test]
fn a_source_port_that_another_holds_shows_that_none_is_left() {
    let holder = |sport, port| entry(vip(sport), masqueraded(port), 0x1be);
    let rivals = vec![holder(5001, 61_000), holder(5002, 61_001)];
    let answer = not_inserted(masqueraded(61_000), &rivals, 4);
    assert_cause(&answer, "snat-ports-exhausted", Verdict::Failing);
    assert!(answer.findings[0].summary.contains(": 2 are in use"));
    // The same ports toward another backend are no rivals.
    let mut elsewhere = holder(5001, 61_000);
    elsewhere.tuples.reply.src = ip(REMOTE);
    let answer = not_inserted(masqueraded(61_000), &[elsewhere], 4);
    assert_eq!(answer.findings[0].basis, Basis::Inferred, "{answer:#?}");
}

#[test]
fn a_syn_let_in_when_it_was_sent_again_had_no_port_before() {
    let holder = entry(vip(5001), masqueraded(61_000), 0x1be);
    let later = entry(vip(4001), masqueraded(61_001), 0x1be);
    let answer = not_inserted(masqueraded(61_000), &[holder, later], 4);
    assert_cause(&answer, "snat-ports-exhausted", Verdict::Failing);
    assert!(!has(&answer, "conntrack-clash"), "{answer:#?}");
}

/// A connection that ran before, to node B, sends on at an interface.
fn runs(s: &mut Story, t: Tuple, ifindex: u32, dir: Direction, since: Time, data: bool) {
    s.flow(t, ifindex, dir, since, |f| {
        f.packets = 27;
        f.last = ms(3900);
        f.flags = TcpFlags(if data { 24 } else { 16 });
        f.data = data.then_some(since);
        f.seq_end = if data { 900 } else { 0 };
        f.ack = if data { 50 } else { 900 };
    });
}

/// It holds the source port that another attempt's SYN was dropped for, a moment before the other node looked.
#[test]
fn what_the_other_node_sees_of_a_source_port_is_its_holders() {
    let held = tuple(Proto::TCP, REMOTE, 8080, NODE_A, 61_000);
    let mut facts = ruled(facts_a(), rules_to(&[remote()]));
    facts.conntrack.entries = vec![entry(vip(4000), held, 0x1be)];
    let mut here = Story::new("a", objects(&[REMOTE]), facts);
    for (t, ifindex, dir, data) in [
        (vip(4000), CLIENT_VETH, Direction::Ingress, true),
        (held.inverse(), UPLINK, Direction::Egress, true),
        (held, UPLINK, Direction::Ingress, false),
        (vip(4000).inverse(), CLIENT_VETH, Direction::Egress, false),
    ] {
        runs(&mut here, t, ifindex, dir, ms(10), data);
    }
    here.syn(vip(4001), CLIENT_VETH, ms(900), 7, 3);
    let ct = CtTuples {
        status: CtStatus(0x1b0),
        ..entry(vip(4001), held, 0).tuples
    };
    let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
    here.drop(ct.translated(), NETNS, reason, place, Some(ct), ms(900));
    let mut there = Story::new("b", objects(&[REMOTE]), facts_b());
    for (t, dir, data) in [
        (held.inverse(), Direction::Ingress, true),
        (held, Direction::Egress, false),
    ] {
        runs(&mut there, t, UPLINK, dir, ms(1000), data);
    }
    let answer = explain(&[here.told(ms(4500)), there.told(ms(4500))]);
    assert!(!has(&answer, "never-arrived"), "{answer:#?}");
    assert_eq!(critical(&answer), ["snat-ports-exhausted"], "{answer:#?}");
}

#[test]
fn an_entry_that_could_not_be_inserted_beside_its_twin_is_a_clash() {
    let twin = entry(vip(4001), reply(4001, backend()), 0x1a8);
    let answer = not_inserted(reply(4001, backend()), &[twin], 4);
    assert_cause(&answer, "conntrack-clash", Verdict::Failing);
    // Conntrack counted no such failure: something else dropped it there.
    let answer = not_inserted(reply(4001, backend()), &[], 3);
    assert!(!has(&answer, "conntrack-clash"), "{answer:#?}");
}

#[test]
fn races_that_conntrack_resolved_are_worth_knowing_for_datagrams() {
    for (proto, told) in [(Proto::UDP, true), (Proto::TCP, false)] {
        let mut all = objects(&[BACKEND]);
        all.services[0].ports[0].proto = proto;
        all.slices[0].ports[0].proto = proto;
        let with = |n: u64, at| {
            let mut facts = facts_a();
            facts.time = at;
            facts.conntrack.stats = [("clash_resolve".to_owned(), n)].into();
            facts
        };
        let mut s = Story::new("a", all, with(1, ms(1)));
        let orig = tuple(proto, CLIENT, 4001, VIP, 80);
        s.nat(orig, tuple(proto, BACKEND, 8080, CLIENT, 4001), ms(10));
        s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
        s.inputs.push(Input::Node(Box::new(with(5, ms(2000)))));
        let answer = explain(&[s.told(ms(3000))]);
        let found = answer.findings.iter().find(|f| f.code == "conntrack-clash");
        let severity = found.map(|f| f.severity);
        assert_eq!(severity, told.then_some(Severity::Info), "{answer:#?}");
    }
}

/// An established connection in which an answer of the backend passes untranslated at `stray`, and which the backend resets
/// at `reset`.
fn cut(stray: u64, reset: u64) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.flow(r, CLIENT_VETH, Direction::Egress, ms(stray), |f| {
        f.flags = TcpFlags(24);
        f.data = Some(ms(stray));
    });
    s.rst(r.inverse(), CLIENT_VETH, Direction::Ingress, ms(stray));
    s.flow(o.inverse(), CLIENT_VETH, Direction::Egress, ms(10), |f| {
        f.flags = TcpFlags(22);
        f.syn_ack = Some(ms(10));
        f.ack = 1;
        f.rst = Some(ms(reset));
    });
    explain(&[s.told(ms(4000))])
}

#[test]
fn an_untranslated_answer_cuts_an_open_connection() {
    assert_cause(&cut(500, 900), "conntrack-invalid", Verdict::Failing);
    // After the reset nothing belongs to the connection any more.
    assert!(!has(&cut(900, 500), "conntrack-invalid"));
}

/// The backends' node sees connections that the client resets, and the backend after it; beside them one that is served.
fn given_up(client: u64, server: u64) -> Answer {
    let mut s = Story::new("b", objects(&[REMOTE, BACKEND]), facts_b());
    for (sport, to, cut) in [(4001, remote(), true), (4002, backend(), false)] {
        let r = reply(sport, to);
        s.syn(r.inverse(), UPLINK, ms(10), 7, 1);
        s.flow(r.inverse(), UPLINK, Direction::Ingress, ms(10), |f| {
            f.flags = TcpFlags(if cut { 22 } else { 18 });
            f.syn = Some(ms(10));
            f.isn = 7;
            f.rst = cut.then(|| ms(client));
        });
        s.flow(r, UPLINK, Direction::Egress, ms(11), |f| {
            f.flags = TcpFlags(if cut { 22 } else { 18 });
            f.syn_ack = Some(ms(11));
            f.rst = cut.then(|| ms(server));
        });
    }
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_connection_that_the_client_gave_up_is_no_fault_of_the_endpoint() {
    let bad = given_up(901, 900);
    assert!(has(&bad, "one-bad-endpoint"), "{bad:#?}");
    let cut = given_up(900, 901);
    assert_eq!(cut.verdict, Verdict::Degraded, "{cut:#?}");
    assert!(!has(&cut, "one-bad-endpoint"), "{cut:#?}");
}

#[test]
fn a_reset_within_what_was_open_before_is_no_refusal() {
    for (flags, code) in [
        (TcpFlags(24), None),
        (TcpFlags(2), Some("listener-missing")),
    ] {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let (o, r) = (vip(4001), reply(4001, backend()));
        s.nat(o, r, ms(0));
        for (t, ifindex, dir) in [
            (o, CLIENT_VETH, Direction::Ingress),
            (r.inverse(), BACKEND_VETH, Direction::Egress),
        ] {
            s.flow(t, ifindex, dir, ms(10), |f| {
                f.flags = flags;
                f.syn = flags.syn().then(|| ms(10));
                f.isn = 7;
            });
        }
        s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
        s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::Failing);
        let top = answer.findings.first().map(|f| f.code);
        assert_eq!(top, code, "{answer:#?}");
    }
}

/// Both nodes see two datagrams of one socket that each got a backend of their own; one backend answers.
#[test]
fn datagrams_that_raced_are_one_exchange_for_two_nodes_too() {
    let udp = |mut all: crate::model::objects::Objects| {
        all.services[0].ports[0].proto = Proto::UDP;
        all.slices[0].ports[0].proto = Proto::UDP;
        all
    };
    let orig = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
    let back = |from: &str| tuple(Proto::UDP, from, 8080, CLIENT, 4001);
    let other = "10.9.2.8";
    let mut here = Story::new("a", udp(objects(&[REMOTE, other])), facts_a());
    here.flow(orig, CLIENT_VETH, Direction::Ingress, ms(10), |f| {
        f.packets = 2;
    });
    here.nat(orig, back(REMOTE), ms(10));
    here.nat(orig, back(other), ms(10));
    let mut there = Story::new("b", udp(objects(&[REMOTE, other])), facts_b());
    for to in [REMOTE, other] {
        here.flow(
            back(to).inverse(),
            UPLINK,
            Direction::Egress,
            ms(10),
            |_| {},
        );
        there.flow(
            back(to).inverse(),
            UPLINK,
            Direction::Ingress,
            ms(10),
            |_| {},
        );
    }
    here.flow(back(REMOTE), UPLINK, Direction::Ingress, ms(11), |_| {});
    here.flow(
        orig.inverse(),
        CLIENT_VETH,
        Direction::Egress,
        ms(11),
        |_| {},
    );
    there.flow(back(REMOTE), UPLINK, Direction::Egress, ms(11), |_| {});
    let answer = explain(&[here.told(ms(3000)), there.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}

/// The second datagram comes so late to its entry that the answers lie nearer to this one than to that of the first, as on a machine
/// that is slow.
#[test]
fn an_answer_to_datagrams_that_raced_is_one_to_either() {
    let mut all = objects(&[REMOTE, "10.9.2.8"]);
    all.services[0].ports[0].proto = Proto::UDP;
    all.slices[0].ports[0].proto = Proto::UDP;
    let orig = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
    let back = |from: &str| tuple(Proto::UDP, from, 8080, CLIENT, 4001);
    let mut s = Story::new("a", all, facts_a());
    s.nat(orig, back(REMOTE), ms(11));
    s.nat(orig, back("10.9.2.8"), ms(24));
    s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(10), |f| {
        f.packets = 2;
    });
    for (to, at) in [(REMOTE, 11), ("10.9.2.8", 24)] {
        let there = back(to).inverse();
        s.flow(there, UPLINK, Direction::Egress, ms(at), |_| {});
        s.flow(back(to), UPLINK, Direction::Ingress, ms(at + 5), |_| {});
    }
    let answer = orig.inverse();
    s.flow(answer, CLIENT_VETH, Direction::Egress, ms(25), |_| {});
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}
