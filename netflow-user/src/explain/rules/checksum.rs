//! Packets that arrive corrupt.

use super::route::{Lost, because, firsts, lost, places, values};
use super::service::full_name;
use crate::explain::case::Case;
use crate::explain::fate::{Fate, Told};
use crate::explain::report::{Report, Saying};
use crate::explain::view::View;
use crate::model::answer::Basis;
use crate::model::node::NodeFacts;

/// Kinds of links that put packets into others: sums over what is inside are computed by cards that must know how.
const TUNNELS: [&str; 9] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "ipip",
    "sit",
    "ip6tnl",
    "ip6gre",
    "wireguard",
];

fn is_corrupt(l: &Lost<'_>) -> bool {
    match Fate::BadChecksum.told(l.drop) {
        Told::Surely => true,
        Told::Possibly => errors_rose(l),
        Told::Not => false,
    }
}

/// Where it was dropped, more packets with a wrong checksum were counted than before we looked.
fn errors_rose(l: &Lost<'_>) -> bool {
    let netns = l.event.record.netns;
    let count = |facts: &NodeFacts| {
        let of_pod = || {
            facts
                .pods
                .iter()
                .find(|p| p.netns == netns)
                .map(|p| &p.counters)
        };
        let counters = (netns == facts.netns).then_some(&facts.counters);
        counters.or_else(of_pod)?.get("InCsumErrors").copied()
    };
    let View { before, facts, .. } = l.part.node;
    let rose = |before, now| before < now;
    let (before, now) = (
        before.as_ref().and_then(count),
        facts.as_ref().and_then(count),
    );
    before
        .zip(now)
        .is_some_and(|(before, now)| rose(before, now))
}

/// The kernel found a checksum wrong, again and again.
pub fn bad(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "bad-checksum",
        Basis::Observed,
        |a| because(case, a, &lost(a, is_corrupt)),
        |of| {
            let all = firsts(of, is_corrupt);
            let Some(one) = all.first() else {
                return Saying::new("");
            };
            let links = one.part.node.facts.iter().flat_map(|f| &f.links);
            let tunnel = links.map(|l| l.kind.as_str()).find(|k| TUNNELS.contains(k));
            let through = tunnel.map_or(String::new(), |kind| {
                format!(
                    "; this node has a {kind} tunnel, whose checksums a card may compute wrongly"
                )
            });
            let summary = format!(
                "{} of {} arrive corrupt at {}: their checksum is wrong{through}",
                if one.forward { "Packets" } else { "Answers" },
                full_name(case),
                places(case, &all)
            );
            Saying {
                values: values(one, one.tuple.dst),
                ..Saying::new(summary)
            }
        },
    );
}
