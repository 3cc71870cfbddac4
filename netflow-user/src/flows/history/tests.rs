use super::*;
use crate::model::flow::{Direction, FlowKey, FlowStats, TcpFlags};
use crate::model::record::{Drop, Segment};
use crate::model::{CtStatus, Proto};
use std::sync::Arc;

const VETH: u32 = 7;

fn ms(n: u64) -> Time {
    Time(1_800_000_000_000_000_000 + n * 1_000_000)
}

fn ip(last: u8) -> IpAddr {
    [10, 1, 1, last].into()
}

fn tuple(sport: u16) -> Tuple {
    Tuple {
        proto: Proto::TCP,
        src: ip(5),
        sport,
        dst: ip(9),
        dport: 80,
    }
}

fn segment(seq: u32) -> Segment {
    Segment {
        dir: Direction::Ingress,
        flags: TcpFlags(2),
        seq,
        ack: 0,
        mss: 0,
        len: 60,
        ttl: 64,
    }
}

fn record(at: u64, tuple: Option<Tuple>, event: Event) -> Record {
    Record {
        time: ms(at),
        netns: 1,
        ifindex: VETH,
        tuple,
        event,
    }
}

fn syn(at: u64, sport: u16) -> Record {
    let seq = u32::try_from(at).unwrap_or(0);
    record(at, Some(tuple(sport)), Event::Syn(segment(seq)))
}

fn dropped(at: u64, sport: u16) -> Record {
    let drop = Drop {
        reason: "NETFILTER_DROP".into(),
        place: "nf_hook_slow".into(),
        hook: None,
        flags: TcpFlags(2),
        seq: 0,
        len: 60,
        ct: None,
        quoted: None,
        count: 1,
        verdict: None,
    };
    record(at, Some(tuple(sport)), Event::Drop(Box::new(drop)))
}

fn flow(at: u64, tuple: Tuple, change: impl FnOnce(&mut FlowStats)) -> FlowSnapshot {
    let mut stats = FlowStats {
        packets: at,
        first: ms(0),
        last: ms(at),
        ..FlowStats::default()
    };
    change(&mut stats);
    FlowSnapshot {
        key: FlowKey {
            tuple,
            ifindex: VETH,
            dir: Direction::Ingress,
            vlan: 0,
            depth: 0,
        },
        stats,
    }
}

fn records(records: Vec<Record>) -> Input {
    Input::Records { records }
}

fn sweep(at: u64, flows: Vec<FlowSnapshot>) -> Input {
    Input::Flows {
        time: ms(at),
        flows,
    }
}

/// A connection that is answered at once.
fn serve(history: &mut History, at: u64, sport: u16) {
    let t = tuple(sport);
    history.take(&records(vec![syn(at, sport)]));
    history.take(&sweep(
        at + 1,
        vec![flow(at, t, |_| {}), flow(at, t.inverse(), |_| {})],
    ));
}

fn fail(history: &mut History, at: u64, sport: u16) {
    history.take(&records(vec![syn(at, sport), dropped(at, sport)]));
}

/// Source ports of the SYNs that it tells of, in its order.
fn told(history: &History, from: u64) -> Vec<u16> {
    let of = |input: &Input| match input {
        Input::Records { records } => {
            let syns = records.iter().filter(|r| matches!(r.event, Event::Syn(_)));
            syns.filter_map(|r| Some(r.tuple?.sport)).collect()
        }
        _ => Vec::new(),
    };
    history
        .since(ms(from), |_| true)
        .iter()
        .flat_map(of)
        .collect()
}

/// Sweeps that are told of one tuple: when, and packets by then.
fn sweeps(history: &History, tuple: Tuple) -> Vec<(Time, u64)> {
    let mut all = Vec::new();
    for input in history.since(ms(0), |_| true) {
        if let Input::Flows { time, flows } = input {
            let own = flows.iter().filter(|f| f.key.tuple == tuple);
            all.extend(own.map(|f| (time, f.stats.packets)));
        }
    }
    all
}

#[test]
fn healthy_connections_go_first_and_the_oldest_before_the_others() {
    let mut history = History::new(usize::MAX);
    fail(&mut history, 1, 1);
    serve(&mut history, 10, 2);
    // Not answered yet, which is not healthy.
    history.take(&records(vec![syn(20, 3)]));
    serve(&mut history, 30, 4);
    serve(&mut history, 40, 5);
    let all = history.stock();
    assert_eq!(all.connections, 5);
    history.limit = all.bytes - 1;
    history.make_room();
    assert_eq!(told(&history, 0), [1, 3, 4, 5]);
    let healthy = Evicted {
        connections: 1,
        until: ms(10),
    };
    let stock = history.stock();
    assert_eq!(stock.healthy_evicted, healthy);
    assert_eq!(stock.failing_evicted, Evicted::default());
}

#[test]
fn what_fails_leaves_room_for_what_shows_that_it_is_over() {
    let limit = 200_000;
    let mut history = History::new(limit);
    for n in 0..2_000 {
        fail(&mut history, u64::from(n), n);
    }
    assert_eq!(history.stock().healthy_evicted.connections, 0);
    let failed = history.stock().connections;
    for n in 3_000..5_000 {
        serve(&mut history, u64::from(n), n);
    }
    let Stock {
        bytes,
        connections,
        healthy_evicted,
        failing_evicted,
        ..
    } = history.stock();
    assert!(bytes <= limit && bytes > limit - 2_000, "{bytes}");
    assert!(healthy_evicted.connections > 0 && failing_evicted.connections > 0);
    let healthy = told(&history, 0)
        .into_iter()
        .filter(|n| *n >= 3_000)
        .count();
    // A quarter, and what those who failed left.
    assert!(
        healthy * 3 < connections * 2 && failed > connections - healthy,
        "{healthy} of {connections}"
    );
    assert!(connections - healthy > 0, "what failed is not gone for it");
    // The newest of both are there.
    let told = told(&history, 0);
    assert!(told.contains(&4_999) && told.contains(&1_999), "{told:?}");
    assert_eq!(failing_evicted.until, ms(failing_evicted.connections - 1));
}

#[test]
fn what_is_told_is_in_order_and_of_whom_is_asked() {
    let mut history = History::new(1 << 20);
    serve(&mut history, 100, 1);
    let other = Tuple {
        dst: ip(77),
        ..tuple(2)
    };
    history.take(&records(vec![record(
        50,
        Some(other),
        Event::Syn(segment(1)),
    )]));
    let missing = Event::NeighborFailed { ip: ip(8) };
    history.take(&records(vec![record(150, None, missing), syn(120, 3)]));
    let of_nine = history.since(ms(0), |address| address == ip(9));
    let times: Vec<Time> = of_nine.iter().filter_map(Input::time).collect();
    assert!(times.is_sorted(), "{times:?}");
    let kinds: Vec<String> = of_nine
        .iter()
        .map(|input| match input {
            Input::Records { records } => format!("{} records", records.len()),
            Input::Flows { flows, .. } => format!("{} flows", flows.len()),
            _ => String::new(),
        })
        .collect();
    // What has no tuple may be anybody's.
    assert_eq!(kinds, ["1 records", "2 flows", "2 records"]);
    // Of what was over before then nothing is told, but that nothing changed since.
    let later = history.since(ms(101), |address| address == ip(9));
    assert!(
        matches!(&later[0], Input::Flows { flows, .. } if flows.is_empty()),
        "{later:?}"
    );
    assert_eq!(told(&history, 101), [3]);
}

#[test]
fn a_long_connection_is_told_from_its_beginning() {
    let mut history = History::new(1 << 20);
    serve(&mut history, 10, 1);
    history.take(&sweep(9_000, vec![flow(8_990, tuple(1), |_| {})]));
    assert_eq!(told(&history, 5_000), [1]);
}

#[test]
fn counters_that_say_all_are_kept_once() {
    let mut history = History::new(1 << 20);
    for n in 1..400 {
        history.take(&sweep(n * 250, vec![flow(n * 250, tuple(1), |_| {})]));
    }
    assert_eq!(sweeps(&history, tuple(1)), [(ms(99_750), 99_750)]);
    assert_eq!(history.stock().connections, 1);
}

#[test]
fn what_is_sent_again_is_kept_as_it_went_on() {
    let mut history = History::new(1 << 20);
    let resent = |at: u64, retrans: u32| flow(at, tuple(1), |s| s.retrans = retrans);
    for (at, retrans) in [
        (250, 0),
        (500, 0),
        (750, 1),
        (1_000, 2),
        (1_750, 3),
        (2_000, 3),
        (2_500, 4),
    ] {
        history.take(&sweep(at, vec![resent(at, retrans)]));
    }
    // As it stood before that, no more than one a second after it, and the latest.
    let times: Vec<Time> = sweeps(&history, tuple(1))
        .into_iter()
        .map(|(at, _)| at)
        .collect();
    assert_eq!(times, [ms(500), ms(2_000), ms(2_500)]);
}

#[test]
fn silence_between_datagrams_is_kept() {
    let mut history = History::new(1 << 20);
    let dns = Tuple {
        proto: Proto::UDP,
        ..tuple(1)
    };
    for at in [100, 300, 5_000, 5_200] {
        history.take(&sweep(at, vec![flow(at, dns, |_| {})]));
    }
    assert_eq!(sweeps(&history, dns), [(ms(300), 300), (ms(5_200), 5_200)]);
}

#[test]
fn both_forms_of_a_translated_connection_are_one() {
    for nat_first in [true, false] {
        let mut history = History::new(1 << 20);
        let orig = tuple(1);
        let translated = Tuple {
            dst: ip(33),
            ..orig
        };
        let ct = CtTuples {
            orig,
            reply: translated.inverse(),
            status: CtStatus(0),
            zone: 0,
            mark: 0,
            info: 2,
        };
        let nat = || {
            let ct = Arc::new(ct);
            records(vec![record(
                2,
                Some(translated),
                Event::Nat { ct, by: None },
            )])
        };
        history.take(&records(vec![syn(1, 1)]));
        if nat_first {
            history.take(&nat());
        }
        // Its answers were seen in one form only.
        history.take(&sweep(250, vec![flow(200, translated.inverse(), |_| {})]));
        if !nat_first {
            history.take(&nat());
        }
        assert_eq!(history.stock().connections, 1, "{nat_first}");
        history.limit = 0;
        history.make_room();
        let stock = history.stock();
        assert_eq!(stock.healthy_evicted.connections, 1, "{nat_first}");
        assert_eq!((stock.bytes, stock.connections), (0, 0));
        assert!(history.by_tuple.is_empty());
    }
}

#[test]
fn a_tuple_that_is_used_again_is_another_connection() {
    let mut history = History::new(usize::MAX);
    fail(&mut history, 10, 1);
    serve(&mut history, 60_000, 1);
    let stock = history.stock();
    assert_eq!(stock.connections, 2);
    // The SYN that is sent again is of the same.
    let again = record(61_000, Some(tuple(1)), Event::Syn(segment(60_000)));
    history.take(&records(vec![again]));
    assert_eq!(history.stock().connections, 2);
    history.limit = stock.bytes / 2;
    history.make_room();
    let left = history.stock();
    assert_eq!(left.healthy_evicted.connections, 1, "{left:?}");
    assert_eq!(told(&history, 0), [1]);
}

#[test]
fn one_connection_alone_is_bounded() {
    let limit = 100_000;
    let mut history = History::new(limit);
    for n in 0..5_000 {
        history.take(&records(vec![dropped(n, 1)]));
        assert!(history.stock().bytes <= limit);
    }
    let stock = history.stock();
    assert!(stock.failing_evicted.connections > 10, "{stock:?}");
    let kept = history.since(ms(0), |_| true);
    let newest = kept.iter().filter_map(Input::time).max();
    assert_eq!(newest, Some(ms(4_999)));
    // What belongs to no connection is as well.
    for n in 0..5_000 {
        let event = Event::NeighborFailed { ip: ip(8) };
        history.take(&records(vec![record(10_000 + n, None, event)]));
        assert!(history.stock().bytes <= limit);
    }
}

#[test]
fn pieces_of_a_connection_know_how_its_counters_stood() {
    let mut history = History::new(1 << 20);
    let lossy = |at: u64, retrans: u32| flow(at, tuple(1), |s| s.retrans = retrans);
    for n in 0..300 {
        let retrans = u32::try_from(n).unwrap_or(0);
        history.take(&sweep(n * 1_000, vec![lossy(n * 1_000, retrans)]));
    }
    let pieces = history.stock().connections;
    assert!(pieces >= 3, "{pieces}");
    // From here on all is well, and one sweep says all.
    for n in 300..2_000 {
        history.take(&sweep(n * 1_000, vec![lossy(n * 1_000, 299)]));
    }
    assert_eq!(history.stock().connections, pieces);
    assert_eq!(sweeps(&history, tuple(1)).len(), 300);
}

#[test]
fn losses_are_those_since_then() {
    let mut history = History::new(1 << 20);
    let lost = |n: u64| Input::Lost {
        lost: [("ring:drop".to_owned(), n)].into(),
    };
    for (at, n) in [(1_000, 5), (10_000, 7), (10_100, 8), (20_000, 20)] {
        history.take(&sweep(at, Vec::new()));
        history.take(&lost(n));
    }
    let since = |at| history.lost_since(ms(at)).get("ring:drop").copied();
    assert_eq!(since(500), Some(20));
    assert_eq!(since(5_000), Some(15));
    assert_eq!(since(15_000), Some(12));
    assert_eq!(since(25_000), None);
    for n in 0..2_000 {
        history.take(&sweep(30_000 + n * 2_000, Vec::new()));
        history.take(&lost(20 + n));
    }
    assert_eq!(history.lost.len(), LOSSES);
}
