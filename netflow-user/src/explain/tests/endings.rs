//! How attempts end, where counters alone could be read either way.

use super::codes::{assert_cause, backend, remote, reply, top, vip};
use super::story::*;
use crate::model::answer::{Answer, Basis, Verdict};
use crate::model::conntrack::CtStatus;
use crate::model::flow::{Direction, FlowStats, TcpFlags};
use crate::model::node::NodeFacts;
use crate::model::objects::Objects;
use crate::model::{CtTuples, Input, Proto, Tuple};

/// Both directions of a connection to the remote backend as one sweep of the client's node finds them.
fn both(s: &mut Story, there: impl Fn(&mut FlowStats), back: impl Fn(&mut FlowStats)) {
    let (o, r) = (vip(4001), reply(4001, remote()));
    s.flow(o, CLIENT_VETH, Direction::Ingress, ms(10), &there);
    s.flow(r.inverse(), UPLINK, Direction::Egress, ms(10), &there);
    s.flow(r, UPLINK, Direction::Ingress, ms(11), &back);
    s.flow(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11), &back);
}

/// A transfer at full speed: something is always under way, some segments were sent again now and then.
pub(super) fn bulk(opened: bool, end: u64) -> Story {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    if opened {
        s.syn(vip(4001), CLIENT_VETH, ms(10), 1, 1);
        s.nat(vip(4001), reply(4001, remote()), ms(10));
    }
    let there = |f: &mut FlowStats| {
        f.packets = 90_000;
        f.flags = TcpFlags(if opened { 18 } else { 16 });
        f.syn = opened.then(|| ms(10));
        f.isn = u32::from(opened);
        f.data = Some(ms(11));
        f.max_packet = 1500;
        f.last = ms(end - 5);
        f.seq_end = 100_000_000;
        f.retrans = 7;
        f.retrans_first = Some(ms(500));
        f.retrans_last = Some(ms(2500));
        f.retrans_max = 1500;
    };
    let back = |f: &mut FlowStats| {
        f.packets = 45_000;
        f.flags = TcpFlags(if opened { 18 } else { 16 });
        f.syn_ack = opened.then(|| ms(11));
        f.ack = 99_900_000;
        f.last = ms(end - 4);
    };
    both(&mut s, there, back);
    s
}

/// The answer to a SYN left a second ago; the SYN is sent again as soon as the client's timer runs out.
#[test]
fn an_answer_that_nobody_has_missed_yet_is_not_taken_up() {
    let outcomes = |end| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        s.served(4001, backend(), BACKEND_VETH, ms(1000));
        explain(&[s.told(ms(end))]).paths[0].outcomes
    };
    let early = outcomes(2010);
    assert_eq!((early.ok, early.pending), (0, 1));
    assert_eq!(outcomes(2600).ok, 1);
}

/// A server sends its SYN-ACK for the last time, to a client that came before we looked: has that given up, or does it go on?
#[test]
fn an_answer_again_to_a_syn_that_was_not_seen_is_no_success() {
    let outcomes = |takes_it_up: bool| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let (orig, back) = (vip(4001), reply(4001, backend()));
        s.nat(orig, back, ms(10));
        s.syn_ack(back, BACKEND_VETH, Direction::Ingress, ms(500));
        s.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, ms(500));
        if takes_it_up {
            s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(501), |f| {
                f.flags = TcpFlags(16);
                f.ack = 1;
            });
        }
        explain(&[s.told(ms(4000))]).paths[0].outcomes
    };
    let given_up = outcomes(false);
    assert_eq!((given_up.ok, given_up.pending), (0, 1), "{given_up:?}");
    assert_eq!(outcomes(true).ok, 1);
}

/// Its SYN was seen, the answer to it was not: some interfaces were watched before others. What is seen is sent again.
#[test]
fn an_answer_that_comes_a_second_late_is_no_success() {
    let outcomes = |answered: u64| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let (orig, back) = (vip(4001), reply(4001, backend()));
        s.nat(orig, back, ms(10));
        s.syn(orig, CLIENT_VETH, ms(10), 1, 1);
        s.syn_ack(back, BACKEND_VETH, Direction::Ingress, ms(answered));
        s.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, ms(answered));
        explain(&[s.told(ms(8000))]).paths[0].outcomes
    };
    let late = outcomes(4270);
    assert_eq!((late.ok, late.timeout), (0, 1), "{late:?}");
    assert_eq!(outcomes(900).ok, 1);
}

/// The Pod's interface is watched from the moment on at which the client repeats its SYN: each is answered, none is taken up.
#[test]
fn an_answer_to_a_repeated_syn_is_no_success() {
    let outcomes = |end: u64, takes_it_up: bool| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let (orig, back) = (vip(4001), reply(4001, backend()));
        s.nat(orig, back, ms(10));
        s.syn(orig, CLIENT_VETH, ms(10), 1, 2);
        s.syn_at(
            back.inverse(),
            BACKEND_VETH,
            Direction::Egress,
            ms(1020),
            1,
            1,
        );
        s.syn_ack(back, BACKEND_VETH, Direction::Ingress, ms(1021));
        s.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, ms(1021));
        if takes_it_up {
            s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(10), |f| {
                f.flags = TcpFlags(18);
                f.syn = Some(ms(10));
                f.isn = 1;
                f.syn_retrans = 1;
                f.last = ms(1022);
                f.ack = 1;
            });
        }
        explain(&[s.told(ms(end))]).paths[0].outcomes
    };
    let in_vain = outcomes(8000, false);
    assert_eq!((in_vain.ok, in_vain.timeout), (0, 1), "{in_vain:?}");
    let young = outcomes(1100, false);
    assert_eq!((young.timeout, young.pending), (0, 1), "{young:?}");
    assert_eq!(outcomes(8000, true).ok, 1);
}

/// The answer passed the client's interface before that was attached to; the client acknowledged it and says nothing yet.
#[test]
fn an_answer_that_was_not_seen_delivered_is_no_timeout() {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let (orig, back) = (vip(4001), reply(4001, remote()));
    s.nat(orig, back, ms(10));
    s.syn_ack(back, UPLINK, Direction::Ingress, ms(500));
    s.flow(orig, CLIENT_VETH, Direction::Ingress, ms(501), |f| {
        f.flags = TcpFlags(16);
        f.ack = 1;
    });
    let outcomes = explain(&[s.told(ms(4000))]).paths[0].outcomes;
    assert_eq!(outcomes.timeout, 0, "{outcomes:?}");
}

/// All that is seen of it is what the server sends.
#[test]
fn a_server_that_closes_had_a_connection() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let (orig, back) = (vip(4001), reply(4001, backend()));
    s.nat(orig, back, ms(10));
    for (tuple, ifindex, dir) in [
        (back, BACKEND_VETH, Direction::Ingress),
        (orig.inverse(), CLIENT_VETH, Direction::Egress),
    ] {
        s.flow(tuple, ifindex, dir, ms(500), |f| {
            f.packets = 2;
            f.flags = TcpFlags(19);
            f.syn_ack = Some(ms(500));
            f.fin = Some(ms(600));
            f.ack = 1;
        });
    }
    let outcomes = explain(&[s.told(ms(4000))]).paths[0].outcomes;
    assert_eq!(outcomes.ok, 1, "{outcomes:?}");
}

/// The node reads its conntrack table, which holds the connection.
pub(super) fn with_table(mut inputs: Vec<Input>, at: u64) -> Vec<Input> {
    let entry = crate::model::conntrack::CtEntry {
        tuples: CtTuples {
            orig: vip(4001),
            reply: reply(4001, remote()),
            status: CtStatus(0x1ae),
            zone: 0,
            mark: 0,
            info: 0,
        },
        id: 1,
        timeout_secs: 1000,
        tcp_state: Some(3),
    };
    let mut facts = facts_a();
    facts.time = ms(at);
    facts.conntrack.entries.push(entry);
    let last = inputs.len() - 1;
    inputs.insert(last, Input::Node(Box::new(facts)));
    inputs
}

#[test]
fn a_transfer_at_full_speed_is_no_stall() {
    let answer = explain(&[bulk(true, 5000).told(ms(5000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(answer.paths[0].outcomes.ok, 1);
}

#[test]
fn a_transfer_that_ran_before_we_looked_is_one_attempt_and_no_stall() {
    let answer = explain(&[with_table(bulk(false, 5000).told(ms(5000)), 4995)]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(answer.paths.len(), 1, "{answer:#?}");
    assert_eq!(answer.paths[0].outcomes.ok, 1);
}

#[test]
fn a_transfer_that_stops_getting_on_is_a_stall() {
    let mut inputs = bulk(false, 5000).told(ms(5000));
    let last = inputs.len() - 1;
    // Two sweeps later nothing has changed.
    for at in [5600, 6200] {
        let flows = Input::Flows {
            time: ms(at),
            flows: Vec::new(),
        };
        inputs.insert(last, flows);
    }
    let answer = explain(&[with_table(inputs, 6300)]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    assert_eq!(answer.paths[0].outcomes.stalled, 1);
}

/// A connection that ran before we looked: its data is sent again, first at `first` where the client's interface sees it and at
/// `late` where the uplink does, and nothing comes back until `now`.
fn resent_in_vain(first: u64, late: u64, now: u64) -> Answer {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    s.nat(vip(4001), reply(4001, remote()), ms(9));
    let there = reply(4001, remote()).inverse();
    let seen = [
        (vip(4001), CLIENT_VETH, Direction::Ingress, first),
        (there, UPLINK, Direction::Egress, late),
    ];
    for (tuple, ifindex, dir, again) in seen {
        s.flow(tuple, ifindex, dir, ms(10), |f| {
            f.packets = 3;
            f.flags = TcpFlags(16);
            f.data = Some(ms(10));
            f.seq_end = 2_000;
            f.ack = 700;
            f.max_packet = 1420;
            f.retrans = 2;
            f.retrans_first = Some(ms(again));
            f.retrans_last = Some(ms(late));
            f.retrans_max = 1420;
            f.last = ms(late);
        });
    }
    explain(&[s.told(ms(now))])
}

/// Not since the interface that saw it last saw it twice.
#[test]
fn data_hangs_since_the_first_interface_saw_it_again() {
    let answer = resent_in_vain(1_000, 4_000, 4_400);
    assert_eq!(answer.paths[0].outcomes.stalled, 1, "{answer:#?}");
}

#[test]
fn data_of_a_running_connection_that_was_just_sent_again_is_undecided() {
    let answer = resent_in_vain(3_900, 4_000, 4_400);
    assert_eq!(answer.paths[0].outcomes.pending, 1, "{answer:#?}");
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn a_segment_from_outside_of_any_window_is_no_stall() {
    for (beyond, verdict) in [(1_000, Verdict::Failing), (65_536 << 14, Verdict::Healthy)] {
        let mut s = bulk(true, 5000);
        s.stray(beyond);
        let mut inputs = s.told(ms(5000));
        let last = inputs.len() - 1;
        inputs.insert(
            last,
            Input::Flows {
                time: ms(7000),
                flows: Vec::new(),
            },
        );
        if let Some(Input::End { time }) = inputs.last_mut() {
            *time = ms(7000);
        }
        let answer = explain(&[inputs]);
        assert_eq!(answer.verdict, verdict, "{beyond}: {answer:#?}");
    }
}

#[test]
fn acknowledgements_between_sweeps_are_progress() {
    let sweeps = (1..=8).map(|n| {
        let mut s = bulk(true, 1000 * n);
        s.advance(u32::try_from(n).unwrap_or_default() * 1_000_000);
        s.told(ms(1000 * n))
    });
    let mut all: Vec<Input> = Vec::new();
    for inputs in sweeps {
        if all.is_empty() {
            all = inputs;
        } else {
            let flows = |i: &Input| matches!(i, Input::Flows { .. });
            all.extend(inputs.into_iter().filter(flows));
        }
    }
    let answer = explain(&[all]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}

/// A connection with both handshake halves, data and FINs of which nothing is seen leaving towards the client.
fn undelivered(objects: Objects, facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects, facts);
    let there = reply(4001, remote()).inverse();
    s.flow(there, UPLINK, Direction::Egress, ms(10), |f| {
        f.packets = 8;
        f.flags = TcpFlags(27);
        f.syn = Some(ms(10));
        f.isn = 1;
        f.data = Some(ms(12));
        f.seq_end = 500;
        f.ack = 700;
        f.fin = Some(ms(30));
    });
    s.flow(there.inverse(), UPLINK, Direction::Ingress, ms(11), |f| {
        f.packets = 8;
        f.flags = TcpFlags(27);
        f.syn_ack = Some(ms(11));
        f.isn = 7;
        f.data = Some(ms(13));
        f.seq_end = 700;
        f.ack = 500;
        f.fin = Some(ms(30));
    });
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_client_that_goes_on_after_its_syn_was_answered() {
    let mut facts = facts_a();
    facts.links.retain(|l| l.ifindex == UPLINK);
    let answer = undelivered(objects(&[REMOTE]), facts);
    assert_eq!(answer.paths[0].outcomes.ok, 1, "{answer:#?}");
}

/// Translated without conntrack (a BPF proxy) and redirected: one direction is seen in each form.
#[test]
fn directions_that_are_seen_apart_are_no_stall() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.flow(vip(4001), CLIENT_VETH, Direction::Ingress, ms(10), |f| {
        f.packets = 8;
        f.flags = TcpFlags(27);
        f.syn = Some(ms(10));
        f.isn = 1;
        f.data = Some(ms(12));
        f.seq_end = 500;
        f.ack = 700;
        f.fin = Some(ms(30));
    });
    let back = reply(4001, backend());
    s.flow(back, BACKEND_VETH, Direction::Ingress, ms(11), |f| {
        f.packets = 8;
        f.flags = TcpFlags(27);
        f.syn_ack = Some(ms(11));
        f.isn = 7;
        f.data = Some(ms(13));
        f.seq_end = 700;
        f.ack = 500;
        f.fin = Some(ms(30));
    });
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert!(
        answer.paths.iter().all(|p| p.outcomes.stalled == 0),
        "{answer:#?}"
    );
}

#[test]
fn a_server_that_closes_with_rst_after_all_was_said() {
    let rst = |acked: u32, sent: u32| {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let (o, r) = (vip(4001), reply(4001, backend()));
        s.syn(o, CLIENT_VETH, ms(10), 1, 1);
        s.nat(o, r, ms(10));
        let there = |f: &mut FlowStats| {
            f.flags = TcpFlags(26);
            f.syn = Some(ms(10));
            f.isn = 1;
            f.data = Some(ms(12));
            f.seq_end = 500;
            f.ack = acked;
            f.last = ms(40);
        };
        let back = |f: &mut FlowStats| {
            f.flags = TcpFlags(30);
            f.syn_ack = Some(ms(11));
            f.isn = 7;
            f.data = Some(ms(13));
            f.seq_end = sent;
            f.ack = 500;
            f.rst = Some(ms(41));
            f.last = ms(41);
        };
        s.flow(o, CLIENT_VETH, Direction::Ingress, ms(10), there);
        s.flow(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), there);
        s.flow(r, BACKEND_VETH, Direction::Ingress, ms(11), back);
        s.flow(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11), back);
        explain(&[s.told(ms(3000))]).paths[0].outcomes
    };
    assert_eq!(rst(9000, 9000).ok, 1);
    assert_eq!(rst(7000, 9000).reset, 1, "some of the answer was lost");
    let stray = 9000 + (65_536 << 14);
    assert_eq!(rst(9000, stray).reset, 1, "what was sent is not known");
}

fn of_proto(proto: Proto) -> Objects {
    let mut objects = objects(&[REMOTE]);
    objects.services[0].ports[0].proto = proto;
    objects.slices[0].ports[0].proto = proto;
    objects
}

fn turned(proto: Proto, t: Tuple) -> Tuple {
    Tuple { proto, ..t }
}

/// Datagrams from one port, the last at `sent`, the last answer at `answered`.
fn datagrams(proto: Proto, sent: u64, answered: Option<u64>) -> Answer {
    let mut s = Story::new("a", of_proto(proto), facts_a());
    let (o, r) = (
        turned(proto, vip(4001)),
        turned(proto, reply(4001, remote())),
    );
    s.nat(o, r, ms(100));
    let last = |at: u64| move |f: &mut FlowStats| f.last = ms(at);
    s.flow(o, CLIENT_VETH, Direction::Ingress, ms(100), last(sent));
    s.flow(r.inverse(), UPLINK, Direction::Egress, ms(100), last(sent));
    if let Some(at) = answered {
        s.flow(r, UPLINK, Direction::Ingress, ms(110), last(at));
        s.flow(
            o.inverse(),
            CLIENT_VETH,
            Direction::Egress,
            ms(110),
            last(at),
        );
    }
    explain(&[s.told(ms(30_000))])
}

#[test]
fn an_answer_long_ago_does_not_answer_what_is_sent_now() {
    let answer = datagrams(Proto::UDP, 29_000, Some(110));
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    let healthy = datagrams(Proto::UDP, 29_000, Some(29_001));
    assert_eq!(healthy.verdict, Verdict::Healthy, "{healthy:#?}");
    let ticks_apart = datagrams(Proto::UDP, 29_000, Some(28_990));
    assert_eq!(ticks_apart.verdict, Verdict::Healthy, "{ticks_apart:#?}");
}

#[test]
fn datagrams_that_nobody_ever_answers_may_be_meant_so() {
    let answer = datagrams(Proto::UDP, 2500, None);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert_eq!(top(&answer), "none");
    assert!(answer.blind.iter().any(|b| b.code == "never-answers"));
}

#[test]
fn an_answer_of_sctp_may_be_an_abort() {
    let answer = datagrams(Proto::SCTP, 101, Some(110));
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.blind.iter().any(|b| b.code == "sctp-answers"));
}

/// The client's node sends, nothing comes back.
fn sent_away(dropped: bool) -> Vec<Input> {
    let mut s = Story::new("a", objects(&[REMOTE]), facts_a());
    let (o, r) = (vip(4001), reply(4001, remote()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    if dropped {
        s.drop(
            r.inverse(),
            NETNS,
            "QDISC_DROP",
            "__dev_queue_xmit",
            Some(ct),
            ms(10),
        );
    }
    s.told(ms(4000))
}

#[test]
fn what_this_node_dropped_after_it_was_seen_leaving_is_said() {
    let answer = explain(&[sent_away(true)]);
    assert_eq!(top(&answer), "lost-beyond-node", "{answer:#?}");
    let finding = &answer.findings[0];
    assert_eq!(finding.basis, Basis::Inferred);
    assert!(
        finding.summary.contains("QDISC_DROP"),
        "{}",
        finding.summary
    );
}

#[test]
fn absence_at_a_node_that_lost_records_is_inferred() {
    let mut silent = Story::new("b", objects(&[REMOTE]), facts_b()).told(ms(4000));
    let lost = [("flow-map-full".to_owned(), 50_000)].into();
    silent.insert(3, Input::Lost { lost });
    let answer = explain(&[sent_away(false), silent]);
    assert_eq!(top(&answer), "never-arrived", "{answer:#?}");
    assert_eq!(answer.findings[0].basis, Basis::Inferred);
    assert!(
        answer
            .evidence
            .iter()
            .any(|e| e.text.contains("50000 flow-map-full")),
        "{answer:#?}"
    );
}

#[test]
fn data_that_stops_arriving_never_arrived() {
    let mut there = bulk(true, 5000).told(ms(5000));
    let last = there.len() - 1;
    there.insert(
        last,
        Input::Flows {
            time: ms(7000),
            flows: Vec::new(),
        },
    );
    let mut s = Story::new("b", objects(&[REMOTE]), facts_b());
    let t = reply(4001, remote()).inverse();
    s.syn(t, UPLINK, ms(10), 1, 1);
    s.flow(t, UPLINK, Direction::Ingress, ms(10), |f| {
        f.flags = TcpFlags(18);
        f.syn = Some(ms(10));
        f.isn = 1;
        f.data = Some(ms(11));
        f.seq_end = 99_900_000;
        f.last = ms(4900);
    });
    s.syn_ack(t.inverse(), UPLINK, Direction::Egress, ms(10));
    let mut here = s.told(ms(7000));
    // The client's node saw the segments being sent again.
    for input in &mut there {
        if let Input::Flows { flows, .. } = input {
            for flow in flows.iter_mut().filter(|f| f.stats.retrans > 0) {
                flow.stats.retrans = 9;
            }
        }
    }
    here.push(Input::End { time: ms(7000) });
    let both = explain(&[there, here]);
    assert_cause(&both, "never-arrived", Verdict::Failing);
}

/// The remote backend refuses an attempt.
fn refuses(s: &mut Story, sport: u16, at: u64) {
    let (o, r) = (vip(sport), reply(sport, remote()));
    s.syn(o, CLIENT_VETH, ms(at), 7, 1);
    s.nat(o, r, ms(at));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(at), 7, 1);
    s.rst(r, UPLINK, Direction::Ingress, ms(at + 1));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(at + 1));
}

/// Twice it was refused; what came then, step by step.
fn passing(steps: usize) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    refuses(&mut s, 4001, 10);
    refuses(&mut s, 4002, 300);
    s.served(4003, backend(), BACKEND_VETH, ms(600));
    if steps > 0 {
        s.served(4004, remote(), UPLINK, ms(900));
    }
    if steps > 1 {
        refuses(&mut s, 4005, 1200);
    }
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_fault_that_is_over_says_when_it_was_seen_last() {
    let over = |answer: &Answer| {
        assert_cause(answer, "listener-missing", Verdict::Degraded);
        assert_eq!(answer.findings[0].from, Some(ms(10)));
        answer.findings[0].until
    };
    assert_eq!(over(&passing(0)), None, "another backend serves");
    assert_eq!(over(&passing(1)), Some(ms(301)));
    assert_eq!(over(&passing(2)), None, "it came back");
}
