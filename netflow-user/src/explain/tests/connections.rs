//! Attempts one by one, as a watcher gets them.

use super::story::*;
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::explain::attempt::Outcome;
use crate::explain::connections::ConnectionState;
use crate::explain::scene::{Scene, Wanted};
use crate::model::flow::Direction;
use crate::model::{Proto, Tuple};
use std::net::SocketAddr;
use std::time::Duration;

fn vip(port: u16) -> Tuple {
    tuple(Proto::TCP, CLIENT, port, VIP, 80)
}

fn reply(port: u16) -> Tuple {
    tuple(Proto::TCP, BACKEND, 8080, CLIENT, port)
}

/// One attempt is answered after 3 ms, the one after it is dropped and sent again, the last one is answered.
fn scene(limit: usize, kept: &dyn Fn(&ConnectionState) -> bool) -> Scene {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 1, 1);
    s.nat(vip(4001), reply(4001), ms(10));
    s.syn_ack(reply(4001), BACKEND_VETH, Direction::Ingress, ms(12));
    s.syn_ack(vip(4001).inverse(), CLIENT_VETH, Direction::Egress, ms(13));
    s.syn(vip(4002), CLIENT_VETH, ms(20), 2, 1);
    s.flow(vip(4002), CLIENT_VETH, Direction::Ingress, ms(20), |f| {
        f.packets = 3;
        f.syn = Some(ms(20));
        f.isn = 2;
        f.syn_retrans = 2;
    });
    let ct = s.nat(vip(4002), reply(4002), ms(20));
    s.drop(
        ct.translated(),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(ct),
        ms(20),
    );
    let backend = SocketAddr::new(ip(BACKEND), 8080);
    s.served(4003, backend, BACKEND_VETH, ms(30));
    let mut explainer = Explainer::new(Box::new(Identities::default()));
    for input in s.told(ms(8000)) {
        explainer.feed(0, &input);
    }
    let scene = explainer.scene(&Wanted { limit, kept });
    assert_eq!(scene.answer, explainer.answer());
    scene
}

#[test]
fn those_that_failed_stand_first_and_the_newest_before_others() {
    let scene = scene(10, &|_| true);
    let ports: Vec<u16> = scene.connections.iter().map(|c| c.dialled.sport).collect();
    assert_eq!((ports, scene.all), (vec![4002, 4003, 4001], 3));
    let failed = &scene.connections[0];
    assert_eq!(failed.outcome, Outcome::Timeout);
    assert_eq!(failed.client, "shop/client");
    assert_eq!(failed.backend.as_deref(), Some("shop/cart"));
    assert_eq!((failed.drops, failed.retransmits), (1, 2));
}

#[test]
fn a_handshake_is_timed_where_it_was_seen_whole() {
    let scene = scene(10, &|c| c.dialled.sport != 4003);
    let [failed, answered] = &scene.connections[..] else {
        panic!("{:?}", scene.connections);
    };
    assert_eq!(failed.round_trip, None);
    let trip = answered.round_trip.as_ref().map(|r| (r.took, &*r.place));
    assert_eq!(trip, Some((Duration::from_millis(3), "a v-client")));
}

#[test]
fn evidence_tells_in_order_what_was_seen_and_where() {
    let scene = scene(1, &|_| true);
    let [failed] = &scene.connections[..] else {
        panic!("{:?}", scene.connections);
    };
    assert_eq!(scene.all, 3, "what is not shown is counted");
    let told: Vec<String> = failed
        .evidence
        .iter()
        .map(|s| format!("{} | {}", s.place, s.text))
        .collect();
    for part in [
        "a v-client tc/ingress | 10.9.1.5:4002 → 172.30.4.4:80: 3 packets",
        "SYN, 2 sent again",
        "conntrack: 172.30.4.4:80 becomes 10.9.1.7:8080",
        "kfree_skb | dropped: NETFILTER_DROP in nf_hook_slow",
    ] {
        assert!(told.iter().any(|t| t.contains(part)), "{part}: {told:#?}");
    }
    assert!(failed.evidence.is_sorted_by_key(|s| s.time));
}

#[test]
fn rates_count_what_began_of_late() {
    let rates = scene(0, &|_| true).rates;
    assert_eq!((rates.attempts, rates.failed), (3, 1));
    assert!((rates.per_second(rates.attempts) - 3.0 / 8.0).abs() < 1e-9);
}
