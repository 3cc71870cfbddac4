//! Tunnels between nodes that carry nothing back, or whose packets a filter drops.

use super::beyond::{answer_left, left, sent_draft};
use super::filter::is_filtered;
use super::service::{drop_draft, full_name};
use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::explain::tunnel::Tunnelled;
use crate::model::Time;
use crate::model::answer::Basis;
use crate::model::flow::Direction;
use crate::model::record::Event;
use std::collections::HashMap;
use std::net::IpAddr;

/// A silent attempt whose packets or answers left through a tunnel.
pub(super) fn silent<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<Tunnelled<'a>> {
    if left(case, a).is_some() {
        Tunnelled::of(case, a, true)
    } else if answer_left(case, a).is_some() {
        Tunnelled::of(case, a, false)
    } else {
        None
    }
}

/// Evidence: a filter dropped packets of the tunnel, on either side.
fn blocked<'a>(case: &Case<'a>, t: Tunnelled<'a>) -> Vec<Draft> {
    let events = t.events(case);
    events
        .into_iter()
        .filter_map(|(part, event)| match &event.record.event {
            Event::Drop(drop) if is_filtered(drop) => Some(drop_draft(case, part, event, drop)),
            _ => None,
        })
        .collect()
}

/// A filter between the nodes drops the tunnel's packets.
pub fn port_blocked(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "tunnel-port-blocked",
        Basis::Observed,
        |a| {
            let t = silent(case, a)?;
            let drops = blocked(case, t);
            if drops.is_empty() {
                return None;
            }
            let mut evidence = vec![sent_draft(a, case, t.part, t.inner)];
            evidence.extend(drops);
            Some(Because {
                key: t.link.name.clone(),
                evidence,
            })
        },
        |of| {
            let Some(t) = silent(case, of[0]) else {
                return Saying::new("");
            };
            let at = blocked(case, t)
                .first()
                .and_then(|d| d.view.as_ref().map(|(_, node)| node.clone()))
                .unwrap_or_default();
            let summary = format!(
                "A filter on {at} drops the packets of tunnel {} ({}) between {} and {}",
                t.link.name,
                kind_text(&t),
                t.part.node.name(),
                t.peer
            );
            Saying {
                values: values(&t, &at),
                ..Saying::new(summary)
            }
        },
    );
}

fn kind_text(t: &Tunnelled<'_>) -> String {
    format!("{}, {}", t.link.kind, t.packets())
}

fn values(t: &Tunnelled<'_>, here: &str) -> Vec<(&'static str, String)> {
    vec![
        ("here", here.to_owned()),
        ("to", t.peer.to_string()),
        ("dev", t.link.name.clone()),
        ("tunnel_packets", t.packets()),
    ]
}

/// Whether another node that was asked shows that the tunnel carried this attempt: what goes in here came out there. Of answers it
/// would have to carry as well, none went in there: they were lost before.
fn came_out(a: &Attempt<'_>, t: &Tunnelled<'_>) -> bool {
    let forward = a.is_to_backend(t.part, &t.inner.key.tuple);
    let mut others = a.parts.iter().filter(|p| p.view != t.part.view);
    others.any(|there| {
        let arrived = there.conn.sights_towards(forward).next().is_some();
        arrived && (!forward || a.answered_on(*there).is_none())
    })
}

/// Packets go into the tunnel and on to the other node, and the tunnel brings nothing at all back from there.
pub fn peer_lost(case: &Case<'_>, report: &mut Report) {
    // Whatever came from the peer since the first attempt that met silence shows that the tunnel works.
    let mut since: HashMap<IpAddr, Time> = HashMap::new();
    for a in &case.attempts {
        if let Some(t) = silent(case, a) {
            let first = since.entry(t.peer).or_insert(a.began());
            *first = a.began().min(*first);
        }
    }
    report.explain(
        case,
        "overlay-peer-lost",
        Basis::Observed,
        |a| {
            let t = silent(case, a).filter(|t| !came_out(a, t))?;
            let began = *since.get(&t.peer)?;
            let sent = t.seen(Direction::Egress);
            let (part, out) = sent
                .into_iter()
                .rfind(|(_, s)| s.stats.last >= began || t.awaits_key(s.stats.last, began))?;
            let heard = t.seen(Direction::Ingress);
            let since = out.stats.last.min(began);
            if heard.iter().any(|(_, s)| s.stats.last >= since) {
                return None;
            }
            let text = format!(
                "{} packets of {} ({}) left for {} through {}, none came from there",
                out.stats.packets,
                t.link.name,
                t.packets(),
                t.peer,
                part.node.ifname(out.key.ifindex).unwrap_or_default()
            );
            let mut evidence = vec![sent_draft(a, case, t.part, t.inner)];
            evidence.push(case.sight(part, out, "outer", text));
            evidence.extend(t.handshake());
            evidence.extend(case.translation(a));
            Some(Because {
                key: format!("{}|{}", t.part.view, t.peer),
                evidence,
            })
        },
        |of| {
            let Some(t) = silent(case, of[0]) else {
                return Saying::new("");
            };
            let here = t.part.node.name();
            let summary = format!(
                "{here} sends packets of {} through tunnel {} ({}) to {}, and the tunnel brings nothing back from there",
                full_name(case),
                t.link.name,
                kind_text(&t),
                case.name(t.peer, of[0].began())
            );
            Saying {
                values: values(&t, here),
                ..Saying::new(summary)
            }
        },
    );
}
