//! The join holds in any order of arrival, and never joins what is not one connection.

mod histories;

use super::{Connection, Leg, RecordId, Table, TableLimits};
use crate::model::conntrack::CtStatus;
use crate::model::flow::{Direction, FlowKey, FlowSnapshot, FlowStats, TcpFlags};
use crate::model::record::{Drop, Event, IpvsMethod, Record, Segment};
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::sync::Arc;
use std::time::Duration;

fn tuple(text: &str) -> Tuple {
    let mut ends = text.split('>').map(str::parse::<std::net::SocketAddr>);
    match (ends.next(), ends.next()) {
        (Some(Ok(s)), Some(Ok(d))) => Tuple {
            proto: Proto::TCP,
            src: s.ip(),
            sport: s.port(),
            dst: d.ip(),
            dport: d.port(),
        },
        _ => panic!("{text}"),
    }
}

fn at(ms: u64) -> Time {
    Time(1_800_000_000_000_000_000 + ms * 1_000_000)
}

#[derive(Clone)]
enum Fact {
    Record(Record),
    Flow(FlowSnapshot),
}

fn syn(t: Tuple, isn: u32, ms: u64) -> Fact {
    let segment = Segment {
        dir: Direction::Ingress,
        flags: TcpFlags(2),
        seq: isn,
        ack: 0,
        mss: 0,
        len: 60,
        ttl: 64,
    };
    Fact::Record(Record {
        time: at(ms),
        netns: 1,
        ifindex: 3,
        tuple: Some(t),
        event: Event::Syn(segment),
    })
}

fn nat(orig: Tuple, reply: Tuple, ms: u64) -> Fact {
    let ct = CtTuples {
        orig,
        reply,
        status: CtStatus(0x1a8),
        zone: 0,
        mark: 0,
        info: 2,
    };
    Fact::Record(Record {
        time: at(ms),
        netns: 1,
        ifindex: 0,
        tuple: None,
        event: Event::Nat {
            ct: Arc::new(ct),
            by: None,
        },
    })
}

fn flow(t: Tuple, ifindex: u32, isn: Option<u32>, ms: u64) -> Fact {
    let key = FlowKey {
        tuple: t,
        ifindex,
        dir: Direction::Egress,
        vlan: 0,
        depth: 0,
    };
    let stats = FlowStats {
        packets: 1,
        first: at(ms),
        last: at(ms),
        syn: isn.map(|_| at(ms)),
        isn: isn.unwrap_or(0),
        ..FlowStats::default()
    };
    Fact::Flow(FlowSnapshot { key, stats })
}

fn join(facts: &[Fact]) -> Table {
    let mut table = Table::new(TableLimits::default());
    table.watch([("10.96.0.1".parse().unwrap_or_else(|_| panic!()), 80)]);
    for (i, fact) in facts.iter().enumerate() {
        match fact {
            Fact::Record(r) => table.record(
                RecordId {
                    input: 0,
                    item: i as u32,
                },
                r,
            ),
            Fact::Flow(f) => table.flow(f.stats.last, f),
        }
    }
    table
}

fn only(table: &Table) -> &Connection {
    let all: Vec<&Connection> = table.connections().collect();
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0]
}

/// One connection through a VIP with masquerade, as a node tells it.
fn story() -> Vec<Fact> {
    let orig = tuple("10.1.0.5:4000>10.96.0.1:80");
    let reply = tuple("10.2.0.7:8080>192.0.2.1:61000");
    vec![
        syn(orig, 7, 0),
        nat(orig, reply, 0),
        flow(orig, 3, Some(7), 0),
        flow(reply.inverse(), 2, Some(7), 0),
        flow(reply, 2, None, 1),
        flow(orig.inverse(), 3, None, 1),
    ]
}

/// All orders of up to six facts.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(n - 1) {
        for i in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(i, n - 1);
            all.push(order);
        }
    }
    all
}

#[test]
fn any_order_of_arrival_gives_one_connection() {
    in_orders(&story());
}

#[test]
fn an_announcement_of_the_reading_before_gives_one_connection() {
    let mut facts = story();
    announce(&mut facts[1], 100, 50);
    in_orders(&facts);
}

/// As conntrack netlink tells of an entry: it was not there so many milliseconds before, and was so many after.
fn announce(fact: &mut Fact, before: u64, after: u64) {
    if let Fact::Record(Record {
        time,
        event: Event::Nat { by, .. },
        ..
    }) = fact
    {
        *by = Some(*time + Duration::from_millis(after));
        *time = Time(time.0 - before * 1_000_000);
    }
}

/// The client is on the node: it dials the virtual IP at no interface.
#[test]
fn a_port_of_the_nodes_own_is_that_of_the_entry_announced() {
    let orig = tuple("192.0.2.1:4000>10.96.0.1:80");
    let reply = tuple("10.2.0.7:8080>192.0.2.1:61000");
    let facts = [
        syn(reply.inverse(), 7, 80),
        nat(orig, reply, 80),
        flow(reply.inverse(), 2, Some(7), 80),
        flow(reply, 2, None, 81),
    ];
    let mut facts = facts;
    announce(&mut facts[1], 80, 20);
    for order in orders(facts.len()) {
        let shuffled: Vec<Fact> = order.iter().map(|i| facts[*i].clone()).collect();
        let table = join(&shuffled);
        assert_eq!(only(&table).orig, orig, "{order:?}");
    }
}

fn in_orders(facts: &[Fact]) {
    for order in orders(facts.len()) {
        let shuffled: Vec<Fact> = order.iter().map(|i| facts[*i].clone()).collect();
        let table = join(&shuffled);
        let conn = only(&table);
        assert!(conn.is_dnat() && conn.ct_new && conn.opened, "{order:?}");
        assert_eq!(conn.isn, Some(7));
        for leg in [Leg::Orig, Leg::Translated, Leg::Reply, Leg::Unnat] {
            assert_eq!(conn.sights_of(leg).count(), 1, "{leg:?} in {order:?}");
        }
    }
}

fn ipvs(orig: Tuple, to: &str, ms: u64) -> Fact {
    let to = to.parse().ok();
    Fact::Record(Record {
        time: at(ms),
        netns: 1,
        ifindex: 3,
        tuple: Some(orig),
        event: Event::Ipvs {
            method: IpvsMethod::Nat,
            to,
        },
    })
}

/// `net.ipv4.vs.conntrack=0`: nothing but IPVS's own record joins the two forms.
#[test]
fn ipvs_alone_gives_one_connection_in_any_order() {
    let orig = tuple("10.1.0.5:4000>10.96.0.1:80");
    let reply = tuple("10.2.0.7:8080>10.1.0.5:4000");
    let facts = [
        syn(orig, 7, 0),
        ipvs(orig, "10.2.0.7:8080", 0),
        flow(orig, 3, Some(7), 0),
        flow(reply.inverse(), 2, Some(7), 0),
        flow(reply, 2, None, 1),
        flow(orig.inverse(), 3, None, 1),
    ];
    for order in orders(facts.len()) {
        let shuffled: Vec<Fact> = order.iter().map(|i| facts[*i].clone()).collect();
        let table = join(&shuffled);
        let conn = only(&table);
        assert!(
            conn.is_dnat() && conn.is_untracked() && conn.opened,
            "{order:?}"
        );
        assert_eq!(
            (conn.ct(), conn.isn, conn.orig),
            (None, Some(7), orig),
            "{order:?}"
        );
        for leg in [Leg::Orig, Leg::Translated, Leg::Reply, Leg::Unnat] {
            assert_eq!(conn.sights_of(leg).count(), 1, "{leg:?} in {order:?}");
        }
    }
}

/// With conntrack both tell of it, and only conntrack of the masquerade.
#[test]
fn what_conntrack_shows_goes_before_what_ipvs_does() {
    let mut facts = story();
    facts.insert(
        1,
        ipvs(tuple("10.1.0.5:4000>10.96.0.1:80"), "10.2.0.7:8080", 0),
    );
    facts.truncate(6);
    for order in orders(facts.len()) {
        let shuffled: Vec<Fact> = order.iter().map(|i| facts[*i].clone()).collect();
        let table = join(&shuffled);
        let conn = only(&table);
        assert!(!conn.is_untracked() && conn.ct_new, "{order:?}");
        assert_eq!(conn.translated(), tuple("192.0.2.1:61000>10.2.0.7:8080"));
    }
}

#[test]
fn a_port_that_is_used_again_goes_where_ipvs_sends_it_then() {
    let orig = tuple("10.1.0.5:4000>10.96.0.1:80");
    let talk = |isn: u32, to: &str, ms: u64| {
        let sent = tuple(&format!("10.1.0.5:4000>{to}"));
        [
            syn(orig, isn, ms),
            ipvs(orig, to, ms),
            flow(sent, 2, Some(isn), ms),
        ]
    };
    for again in ["10.2.0.8:8080", "10.2.0.7:8080"] {
        for order in orders(3) {
            let mut facts = talk(7, "10.2.0.7:8080", 0).to_vec();
            let second = talk(99, again, 5000);
            facts.extend(order.iter().map(|i| second[*i].clone()));
            let table = join(&facts);
            let mut ways: Vec<_> = table
                .connections()
                .map(|c| (c.isn, c.translated().destination(), c.sights.len()))
                .collect();
            ways.sort();
            let to = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text}"));
            let wanted = [(Some(7), to("10.2.0.7:8080"), 1), (Some(99), to(again), 1)];
            assert_eq!(ways, wanted, "{order:?}");
        }
    }
}

#[test]
fn duplicated_facts_change_nothing() {
    let facts: Vec<Fact> = story().into_iter().flat_map(|f| [f.clone(), f]).collect();
    let table = join(&facts);
    assert_eq!(only(&table).sights.len(), 4);
}

#[test]
fn lost_facts_never_join_strangers() {
    let other: Vec<Fact> = vec![
        syn(tuple("10.1.0.6:4000>10.96.0.1:80"), 9, 0),
        nat(
            tuple("10.1.0.6:4000>10.96.0.1:80"),
            tuple("10.2.0.7:8080>192.0.2.1:61001"),
            0,
        ),
        flow(tuple("192.0.2.1:61001>10.2.0.7:8080"), 2, Some(9), 0),
    ];
    let facts: Vec<Fact> = story().into_iter().chain(other).collect();
    for mask in 0..1_u32 << facts.len() {
        let kept: Vec<Fact> = facts
            .iter()
            .enumerate()
            .filter(|(i, _)| mask >> i & 1 == 1)
            .map(|(_, f)| f.clone())
            .collect();
        for conn in join(&kept).connections() {
            let first = conn
                .sights
                .iter()
                .any(|s| [s.key.tuple.sport, s.key.tuple.dport].contains(&61_000));
            let second = conn
                .sights
                .iter()
                .any(|s| [s.key.tuple.sport, s.key.tuple.dport].contains(&61_001));
            assert!(!(first && second), "{mask:b}: {conn:#?}");
        }
    }
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    let orig = tuple("10.1.0.5:4000>10.96.0.1:80");
    let table = join(&[
        syn(orig, 7, 0),
        nat(orig, tuple("10.2.0.7:8080>10.1.0.5:4000"), 0),
        flow(orig, 3, Some(7), 0),
        syn(orig, 99, 5000),
        nat(orig, tuple("10.2.0.8:8080>10.1.0.5:4000"), 5000),
        flow(orig, 3, Some(99), 5000),
    ]);
    let backends: Vec<String> = table
        .connections()
        .map(|c| c.translated().dst.to_string())
        .collect();
    assert_eq!(backends, ["10.2.0.7", "10.2.0.8"]);
    assert!(table.connections().all(|c| c.sights.len() == 1));
}

/// A SYN is dropped with its entry.
fn drop(ct: CtTuples, ms: u64) -> Fact {
    let drop = Drop {
        reason: "NETFILTER_DROP".into(),
        place: "nf_hook_slow".into(),
        hook: None,
        flags: TcpFlags(2),
        seq: 7,
        len: 60,
        ct: Some(ct),
        quoted: None,
        count: 1,
        verdict: None,
    };
    Fact::Record(Record {
        time: at(ms),
        netns: 1,
        ifindex: 3,
        tuple: Some(ct.translated()),
        event: Event::Drop(Box::new(drop)),
    })
}

/// The drop of the SYN that was sent again may be told before the entry of the flow map, which knows when the first one was.
#[test]
fn a_syn_that_is_dropped_when_it_is_sent_again_is_of_the_first() {
    let orig = tuple("10.9.1.5:4001>10.9.2.7:8080");
    let ct = CtTuples {
        orig,
        reply: orig.inverse(),
        status: CtStatus(0x100),
        zone: 0,
        mark: 0,
        info: 2,
    };
    let mut seen = flow(orig, 3, Some(7), 0);
    if let Fact::Flow(f) = &mut seen {
        f.stats.packets = 2;
        f.stats.last = at(1004);
    }
    let dropped = drop(ct, 1004);
    for facts in [[dropped.clone(), seen.clone()], [seen, dropped]] {
        let table = join(&facts);
        let conn = only(&table);
        assert_eq!((conn.began, conn.events.len()), (at(0), 1), "{conn:#?}");
    }
}

/// A SYN whose entry wants a source port that another connection has is dropped for that.
#[test]
fn a_source_port_is_its_holders_though_another_wants_it() {
    let held = tuple("10.9.2.7:8080>192.0.2.1:61000");
    let wanted = CtTuples {
        orig: tuple("10.9.1.5:4001>10.96.0.1:80"),
        reply: held,
        status: CtStatus(0x1b0),
        zone: 0,
        mark: 0,
        info: 2,
    };
    let runs = |ms| flow(held.inverse(), 2, None, ms);
    for facts in [
        [drop(wanted, 10), runs(20)],
        [runs(20), drop(wanted, 10)],
        [drop(wanted, 40), runs(20)],
        [runs(20), drop(wanted, 40)],
    ] {
        let table = join(&facts);
        let all: Vec<&Connection> = table.connections().collect();
        assert_eq!(all.len(), 2, "{all:#?}");
        for conn in all {
            let dropped = conn.orig == wanted.orig;
            assert_eq!(conn.events.len(), usize::from(dropped), "{conn:#?}");
            assert_eq!(conn.sights.is_empty(), dropped, "{conn:#?}");
        }
    }
}

#[test]
fn a_syn_that_is_sent_again_is_of_the_entry_that_stands() {
    let orig = tuple("10.1.0.5:4000>10.96.0.1:80");
    let table = join(&[
        nat(orig, tuple("10.2.0.7:8080>10.1.0.5:4000"), 0),
        syn(orig, 7, 1024),
        flow(orig, 3, Some(7), 1024),
    ]);
    let conn = only(&table);
    assert!(conn.is_dnat() && conn.ct_new);
    assert_eq!((conn.isn, conn.began), (Some(7), at(0)));
}

/// Answer to a SYN with this number, sent once at 0 and once at `last`.
fn answer(orig: Tuple, acknowledged: u32, last: u64) -> Fact {
    let mut answer = flow(orig.inverse(), 3, None, 0);
    if let Fact::Flow(f) = &mut answer {
        f.key.dir = Direction::Ingress;
        f.stats.last = at(last);
        f.stats.flags = TcpFlags(0x12);
        (f.stats.syn_ack, f.stats.isn) = (Some(at(0)), 70);
        f.stats.ack = acknowledged + 1;
    }
    answer
}

/// The drop of an answer that is sent again is told at once, its entry in the flow map by the next sweep.
#[test]
fn an_answer_that_is_dropped_when_it_is_sent_again_is_of_the_first() {
    let orig = tuple("10.9.1.5:4001>10.9.2.7:8080");
    let ct = CtTuples {
        orig,
        reply: orig.inverse(),
        status: CtStatus(0x10a),
        zone: 0,
        mark: 0,
        info: 1,
    };
    let dropped = |ms| {
        let mut dropped = drop(ct, ms);
        if let Fact::Record(r) = &mut dropped {
            r.tuple = Some(orig.inverse());
        }
        dropped
    };
    let seen = answer(orig, 7, 2016);
    for facts in [[dropped(2016), seen.clone()], [seen.clone(), dropped(2016)]] {
        let table = join(&facts);
        let conn = only(&table);
        assert_eq!((conn.began, conn.events.len()), (at(0), 1), "{conn:#?}");
    }
    // What was told long after the last of them is of others.
    let table = join(&[dropped(9000), seen]);
    assert_eq!(table.connections().count(), 2);
}

/// Interfaces are attached one after the other: of a handshake that began in between, only the answer is seen at first.
#[test]
fn a_syn_that_is_sent_again_is_of_the_answer_that_acknowledges_it() {
    let orig = tuple("10.9.1.5:4001>10.9.2.7:8080");
    let answer = |acknowledged: u32| answer(orig, acknowledged, 0);
    let again = syn(orig, 7, 1024);
    for facts in [[answer(7), again.clone()], [again.clone(), answer(7)]] {
        let table = join(&facts);
        let conn = only(&table);
        assert_eq!((conn.isn, conn.began), (Some(7), at(0)), "{conn:#?}");
    }
    // The port was used by another before.
    assert_eq!(join(&[answer(8), again]).connections().count(), 2);
}

#[test]
fn a_connection_seen_mid_flow_is_turned_by_the_server_it_talks_to() {
    let table = join(&[flow(tuple("10.96.0.1:80>10.1.0.5:4000"), 3, None, 0)]);
    assert_eq!(only(&table).orig, tuple("10.1.0.5:4000>10.96.0.1:80"));
    assert!(!only(&table).opened);
}

#[test]
fn a_datagram_after_a_second_of_silence_is_an_attempt() {
    let udp = Tuple {
        proto: Proto::UDP,
        ..tuple("10.1.0.5:4000>10.96.0.1:80")
    };
    let seen = |last: u64| match flow(udp, 3, None, 0) {
        Fact::Flow(mut f) => {
            f.stats.last = at(last);
            Fact::Flow(f)
        }
        other @ Fact::Record(_) => other,
    };
    let table = join(&[seen(0), seen(400), seen(2000), seen(2100)]);
    assert_eq!(only(&table).datagrams().attempts, 2);
}

#[test]
fn memory_is_bounded_and_watched_connections_stay() {
    let mut table = Table::new(TableLimits { connections: 100 });
    table.watch([("10.96.0.1".parse().unwrap_or_else(|_| panic!()), 80)]);
    let mut feed = |t: Tuple, n: u64| {
        if let Fact::Record(r) = syn(t, 1, n) {
            table.record(RecordId { input: 0, item: 0 }, &r);
        }
    };
    feed(tuple("10.1.0.5:4000>10.96.0.1:80"), 0);
    for n in 0..5000_u16 {
        feed(
            tuple(&format!("10.8.0.1:{}>10.8.0.2:9", 1000 + n)),
            u64::from(n),
        );
    }
    assert!(table.connections().count() <= 100);
    assert_eq!(table.evicted() + table.connections().count() as u64, 5001);
    assert!(
        table.connections().any(|c| c.orig.dport == 80),
        "the watched one is the last to go"
    );
}

#[test]
fn a_sweep_of_more_connections_than_there_is_room_for() {
    let mut table = Table::new(TableLimits { connections: 100 });
    let sweep: Vec<FlowSnapshot> = (0..5000_u16)
        .filter_map(|n| {
            let t = tuple(&format!("10.8.0.1:{}>10.8.0.2:9", 1000 + n));
            match flow(t, 3, Some(1), u64::from(n)) {
                Fact::Flow(mut snapshot) => {
                    snapshot.stats.data = Some(snapshot.stats.last);
                    snapshot.stats.seq_end = 100;
                    Some(snapshot)
                }
                Fact::Record(_) => None,
            }
        })
        .collect();
    table.flows(at(10_000), &sweep);
    let kept: Vec<&Connection> = table.connections().collect();
    assert!((1..=100).contains(&kept.len()));
    assert_eq!(table.evicted() + kept.len() as u64, 5000);
    assert!(
        kept.iter().all(|c| c.hanging(true).is_some()),
        "each that stayed was reckoned with"
    );
    table.flows(at(20_000), &sweep);
    assert!(table.connections().count() <= 100);
}
