//! Scenes made by hand, for tests.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use crate::cli::render::samples::mismatch;
use crate::explain::attempt::Outcome;
use crate::explain::connections::{ConnectionState, RoundTrip, Sign};
use crate::explain::scene::{Rates, Scene};
use crate::model::answer::Via;
use crate::model::query::{Query, Target};
use crate::model::{Proto, Tuple};
use std::time::Duration;

/// A connection to the Service, begun so many milliseconds after the look.
pub(crate) fn connection(client: &str, port: u16, outcome: Outcome, began: u64) -> ConnectionState {
    let began = mismatch().window.from + Duration::from_millis(began);
    let sign = |millis, place: &str, text: &str| Sign {
        time: began + Duration::from_millis(millis),
        place: place.into(),
        text: text.into(),
    };
    ConnectionState {
        via: Via::Vip,
        dialled: Tuple {
            proto: Proto::TCP,
            src: "10.244.1.2".parse().unwrap(),
            sport: port,
            dst: "10.96.12.7".parse().unwrap(),
            dport: 8080,
        },
        client: client.into(),
        backend: Some("app/web-api-0".into()),
        address: Some("10.244.1.5:8081".parse().unwrap()),
        outcome,
        weight: 1,
        began,
        last: began + Duration::from_millis(2),
        round_trip: None,
        retransmits: 0,
        drops: 0,
        evidence: vec![
            sign(
                0,
                "worker-1 veth3a tc/ingress",
                "10.244.1.2:40112 → 10.96.12.7:8080: 1 packets, 60 bytes, SYN",
            ),
            sign(
                1,
                "worker-2 veth9c kfree_skb",
                "dropped: NO_SOCKET in tcp_v4_rcv",
            ),
        ],
    }
}

/// A scene with these connections.
pub(crate) fn scene(connections: Vec<ConnectionState>) -> Scene {
    Scene {
        query: Query {
            namespace: "app".into(),
            target: Target::Name("web-api".into()),
            ..Query::default()
        },
        answer: mismatch(),
        all: connections.len(),
        connections,
        rates: Rates {
            attempts: 42,
            failed: 21,
            over: Duration::from_secs(10),
        },
    }
}

/// Two clients, one of them refused twice.
pub(crate) fn busy() -> Scene {
    let mut first = connection("app/client", 40_112, Outcome::Refused, 1_000);
    first.drops = 1;
    let mut second = connection("app/client", 40_113, Outcome::Refused, 2_000);
    second.retransmits = 3;
    let mut third = connection("app/other-client", 40_114, Outcome::Ok, 3_000);
    third.backend = Some("app/web-api-1".into());
    third.address = Some("10.244.2.6:8081".parse().unwrap());
    third.round_trip = Some(RoundTrip {
        took: Duration::from_micros(450),
        place: "worker-1 veth3a".into(),
    });
    scene(vec![first, second, third])
}
