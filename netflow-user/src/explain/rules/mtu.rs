//! Size: packets that fit pass, big ones do not, or somebody said so.

use super::route::place;
use super::service::drop_draft;
use crate::explain::attempt::{Attempt, Outcome, Part, Stall, is_taken_up};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::explain::tunnel::Tunnelled;
use crate::explain::view::View;
use crate::flows::{ConnEvent, Connection, Leg, Sight};
use crate::model::answer::{Basis, Plane, Severity};
use crate::model::flow::Direction;
use crate::model::node::Link;
use crate::model::record::{Event, IcmpError};
use crate::model::{Time, Tuple};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// Every path carries this much (RFC 791: 576 bytes for IPv4; RFC 8200: 1280 for IPv6). What is lost at or below it is
/// not lost for its size.
fn always_fits(v6: bool) -> u16 {
    if v6 { 1280 } else { 576 }
}

/// Handshakes and small packets pass, full-size segments are sent again and again, and nobody told the sender why.
pub fn blackhole(case: &Case<'_>, report: &mut Report) {
    let small = Small::of(case);
    let proved: HashSet<Way> = case
        .attempts
        .iter()
        .filter(|a| vanishes(case, a, &small).is_some())
        .filter_map(|a| Some(way(case, a, a.stall()?.forward)))
        .collect();
    report.explain(
        case,
        "mtu-blackhole",
        Basis::Observed,
        |a| {
            let stall = (a.outcome == Outcome::Stalled).then(|| a.stall()).flatten()?;
            let evidence = vanishes(case, a, &small).or_else(|| {
                // Of another that hangs the same way, only what is small may have been sent again so far.
                let big = stall.sight.stats.max_packet > always_fits(a.orig.dst.is_ipv6());
                let same = big
                    && !arrived(case, a, &stall)
                    && proved.contains(&way(case, a, stall.forward));
                (same && told(a, &stall).is_empty()).then(|| vec![stall_draft(case, &stall)])
            })?;
            Some(Because { key: if stall.forward { "requests" } else { "replies" }.to_owned(), evidence })
        },
        |of| {
            let Some(stall) = of[0].stall() else { return Saying::new("") };
            let size = stall.size();
            let (what, to) = if stall.forward {
                ("to", of[0].translated().dst)
            } else {
                ("from", of[0].translated().dst)
            };
            let summary = format!(
                "Packets of {size} bytes {what} {} vanish on the way while small ones pass, and no fragmentation-needed message reaches the sender",
                case.name(to, of[0].began())
            );
            let payload = u32::from(size).saturating_sub(100 + 28).to_string();
            let values = vec![("payload", payload), ("pod_ip", receiver(of[0], &stall).to_string())];
            Saying { values, ..Saying::new(summary) }
        },
    );
}

/// Whom the sender would ping.
fn receiver(a: &Attempt<'_>, stall: &Stall<'_>) -> IpAddr {
    if stall.forward {
        a.translated().dst
    } else {
        a.client()
    }
}

/// Evidence: full-size segments are sent again and again while small packets pass.
fn vanishes(case: &Case<'_>, a: &Attempt<'_>, small: &Small) -> Option<Vec<Draft>> {
    let stall = (a.outcome == Outcome::Stalled)
        .then(|| a.stall())
        .flatten()?;
    let size = stall.size();
    let bigger_passed = size < stall.sight.stats.max_packet && !stall.passed_nothing();
    let big = size > always_fits(a.orig.dst.is_ipv6()) && !bigger_passed;
    if !big || arrived(case, a, &stall) || !told(a, &stall).is_empty() {
        return None;
    }
    let mut evidence = vec![stall_draft(case, &stall), small.passes(case, a, &stall)?];
    evidence.extend(too_big_drops(case, a));
    Some(evidence)
}

/// It was seen on the receiver's node, which is not the sender's: it did not vanish between them. That it is not acknowledged
/// shows no more than that something before it never came.
fn arrived(case: &Case<'_>, a: &Attempt<'_>, stall: &Stall<'_>) -> bool {
    let ends = (a.client(), a.translated().dst);
    let (from, to) = if stall.forward {
        ends
    } else {
        (ends.1, ends.0)
    };
    let node = stall.part.node;
    case.is_local(node, to) && !case.is_local(node, from)
}

/// Client, backend's node (or the backend, where that is not known), and whether requests go that way.
type Way = (IpAddr, String, bool);

fn way(case: &Case<'_>, a: &Attempt<'_>, forward: bool) -> Way {
    let backend = a.translated().dst;
    let node = case.node_of(backend, a.began());
    (
        a.client(),
        node.unwrap_or_else(|| backend.to_string()),
        forward,
    )
}

/// A too-big message for a direction of an attempt that reached the sender's side.
#[derive(Clone, Copy)]
struct TooBig<'a> {
    part: Part<'a>,
    event: &'a ConnEvent,
    icmp: &'a IcmpError,
}

/// Too-big messages for this direction that reached the sender: seen where they are delivered to it, or seen on its node and
/// then inside its own namespace, taken in or dropped.
fn told<'a>(a: &Attempt<'a>, stall: &Stall<'_>) -> Vec<TooBig<'a>> {
    let v6 = a.orig.dst.is_ipv6();
    let arrived = !quotes_inside(a, stall).is_empty();
    let all = a.icmp().filter(|(p, e, icmp)| {
        let known = is_about(stall, *p, icmp.quoted) && icmp.is_too_big(v6);
        known && (arrived || is_delivered(a, stall, *p, e, icmp))
    });
    all.map(|(part, event, icmp)| TooBig { part, event, icmp })
        .collect()
}

fn is_about(stall: &Stall<'_>, part: Part<'_>, quoted: Option<Tuple>) -> bool {
    quoted
        .and_then(|q| part.conn.leg(&q))
        .is_some_and(|l| l.is_forward() == stall.forward)
}

fn is_delivered(
    a: &Attempt<'_>,
    stall: &Stall<'_>,
    part: Part<'_>,
    event: &ConnEvent,
    icmp: &IcmpError,
) -> bool {
    let sender = stall.sight.key.tuple.src;
    let to = event.record.tuple.map(|t| t.dst);
    (to == Some(sender) || to == Some(a.orig.src)) && delivered(part.node.is_own(sender), icmp)
}

/// What those messages quote that were taken in or dropped in the namespace of the sender's Pod.
fn quotes_inside(a: &Attempt<'_>, stall: &Stall<'_>) -> Vec<Tuple> {
    // As `Record::tuple` spells type and code.
    let too_big = if a.orig.dst.is_ipv6() {
        2 << 8
    } else {
        3 << 8 | 4
    };
    let sender = if stall.forward {
        a.client()
    } else {
        a.translated().dst
    };
    a.events()
        .filter(|(p, e)| {
            p.node
                .pod(sender)
                .is_some_and(|pod| pod.netns == e.record.netns)
        })
        .filter_map(|(p, e)| {
            let quoted = match &e.record.event {
                Event::Drop(drop) if e.record.tuple?.dport == too_big => drop.quoted,
                Event::PmtuReceived { quoted, .. } => *quoted,
                _ => None,
            };
            quoted.filter(|_| is_about(stall, p, quoted))
        })
        .collect()
}

fn delivered(own: bool, icmp: &IcmpError) -> bool {
    icmp.dir
        == if own {
            Direction::Ingress
        } else {
            Direction::Egress
        }
}

/// The sender was told how big packets may be and sends big ones all the same.
pub fn ignored(case: &Case<'_>, report: &mut Report) {
    // A router says so only so often: what it said of one attempt holds for others on the same way.
    let mut known: BTreeMap<Way, u32> = BTreeMap::new();
    for a in &case.attempts {
        if let Some((stall, told)) = ignores(a) {
            known
                .entry(way(case, a, stall.forward))
                .or_insert(told.icmp.mtu);
        }
    }
    report.explain(
        case,
        "pmtu-ignored",
        Basis::Observed,
        |a| {
            let stall = (a.outcome == Outcome::Stalled)
                .then(|| a.stall())
                .flatten()?;
            let key = if stall.forward { "requests" } else { "replies" }.to_owned();
            if let Some((_, TooBig { part, event, icmp })) = ignores(a) {
                let mut evidence = vec![
                    too_big_draft(case, a, part, event, icmp),
                    stall_draft(case, &stall),
                ];
                evidence.extend(too_big_drops(case, a));
                evidence.extend(socket_draft(&stall, icmp.mtu));
                return Some(Because { key, evidence });
            }
            let mtu = known.get(&way(case, a, stall.forward));
            if mtu.is_some_and(|mtu| u32::from(stall.size()) > *mtu) {
                let evidence = vec![stall_draft(case, &stall)];
                return Some(Because { key, evidence });
            }
            let Learned {
                tunnel, evidence, ..
            } = learned_by_node(case, a, &stall)?;
            let key = format!("{}|{}", tunnel.part.view, tunnel.peer);
            Some(Because { key, evidence })
        },
        |of| {
            let told = of.iter().find_map(|a| Some((*a, ignores(a)?)));
            if let Some((a, (stall, told))) = told {
                return heedless_saying(case, a, &stall, &told);
            }
            let learned = of[0]
                .stall()
                .and_then(|s| Some((s, learned_by_node(case, of[0], &s)?)));
            learned.map_or_else(
                || Saying::new(""),
                |(stall, l)| l.saying(case, &stall, of[0].began()),
            )
        },
    );
}

/// It stalls with packets that are bigger than its sender was told.
fn ignores<'a>(a: &Attempt<'a>) -> Option<(Stall<'a>, TooBig<'a>)> {
    let stall = (a.outcome == Outcome::Stalled)
        .then(|| a.stall())
        .flatten()?;
    let told = heedless(a, &stall)?;
    Some((stall, told))
}

fn heedless_saying(
    case: &Case<'_>,
    a: &Attempt<'_>,
    stall: &Stall<'_>,
    told: &TooBig<'_>,
) -> Saying {
    let TooBig { part, event, icmp } = *told;
    let at = a.began();
    let router = event.record.tuple.map_or(a.orig.dst, |t| t.src);
    let sender = case.name(stall.sight.key.tuple.src, at);
    // A message about packets as they are after translation means nothing to who sent them before it.
    let mut quotes = quotes_inside(a, stall);
    if is_delivered(a, stall, part, event, icmp) {
        quotes.extend(icmp.quoted);
    }
    let is_foreign = |q: &Tuple| {
        stall.forward && part.conn.is_dnat() && part.conn.leg(q) == Some(Leg::Translated)
    };
    let foreign = quotes.iter().all(is_foreign).then(|| quotes.first());
    let why = foreign.flatten().map_or(String::new(), |q| {
        format!(
            ": the message is about {}, which it never dialled",
            q.destination()
        )
    });
    let summary = format!(
        "{} told {sender} that packets may have {} bytes, and it goes on sending {}{why}",
        case.name(router, at),
        icmp.mtu,
        stall.size()
    );
    let payload = icmp.mtu.saturating_sub(28).to_string();
    let to = receiver(a, stall).to_string();
    Saying {
        values: vec![("payload", payload), ("pod_ip", to)],
        ..Saying::new(summary)
    }
}

/// What a node learnt of the path of its tunnel, and the Pod behind it was not told.
struct Learned<'a> {
    tunnel: Tunnelled<'a>,
    mtu: u32,
    evidence: Vec<Draft>,
}

impl Learned<'_> {
    fn saying(&self, case: &Case<'_>, stall: &Stall<'_>, at: Time) -> Saying {
        let Tunnelled {
            part, link, peer, ..
        } = self.tunnel;
        let node = part.node.name();
        let sender = case.name(stall.sight.key.tuple.src, at);
        let summary = format!(
            "{node} knows that packets of its tunnel {} to {} may have {} bytes; {sender} is not told and goes on sending {}, which is more with the {} bytes that the tunnel adds",
            link.name,
            case.name(peer, at),
            self.mtu,
            stall.size(),
            self.tunnel.overhead()
        );
        let payload = self.tunnel.fits(self.mtu).saturating_sub(28).to_string();
        Saying {
            values: vec![("payload", payload)],
            ..Saying::new(summary)
        }
    }
}

/// A path MTU below `size` that the node keeps for the tunnel's peer, learned before we looked.
fn kept_by_node(tunnel: Tunnelled<'_>, size: u32) -> Option<(u32, Draft)> {
    let Part { view, node, .. } = tunnel.part;
    let facts = node.facts.as_ref()?;
    let mut ways = facts.lookups.iter();
    let way = ways.find(|l| l.netns == facts.netns && l.dst == tunnel.peer)?;
    let mtu = way.learned_mtu().filter(|mtu| *mtu < size)?;
    let text = format!(
        "the route to {} has a learned path MTU of {mtu} bytes",
        way.dst
    );
    let kind = format!("learned {} {mtu}", way.dst);
    Some((mtu, Draft::of_node(view, node, kind, text)))
}

/// The node at whose tunnel the packets end was told, or has learnt, that the way to its peer is narrower than they are.
fn learned_by_node<'a>(case: &Case<'a>, a: &Attempt<'a>, stall: &Stall<'_>) -> Option<Learned<'a>> {
    let tunnel = Tunnelled::of(case, a, stall.forward)?;
    // What was learned from other packets holds nothing up that may be cut.
    if tunnel.tunnel.cut && tunnel.peer.is_ipv4() {
        return None;
    }
    let own = tunnel.part.node;
    let size = u32::from(stall.size()) + tunnel.overhead();
    let mut found: Option<(u32, Draft)> = None;
    for (part, event) in tunnel.events(case) {
        let Event::IcmpError(icmp) = &event.record.event else {
            continue;
        };
        let about = icmp.quoted.is_some_and(|q| q.dst == tunnel.peer);
        let narrow = icmp.is_too_big(tunnel.peer.is_ipv6()) && (1..size).contains(&icmp.mtu);
        if part.view == tunnel.part.view && about && narrow && icmp.dir == Direction::Ingress {
            let draft = too_big_draft(case, a, part, event, icmp);
            found.get_or_insert((icmp.mtu, draft));
        }
    }
    for (cite, record) in &own.loose {
        if let Event::PmtuLearned { dst, mtu, .. } = record.event
            && (dst, record.netns) == (tunnel.peer, own.start.netns)
            && mtu < size
        {
            let text = format!(
                "{} learns that packets to {dst} may have {mtu} bytes",
                own.name()
            );
            let mut draft = Draft::node(format!("learned {dst} {mtu}"), text);
            draft.plane = Plane::Mtu;
            draft.time = Some(record.time);
            draft.view = Some((tunnel.part.view, own.name().to_owned()));
            draft.netns = Some(record.netns);
            draft.tuple = record.tuple;
            draft.cites = vec![*cite];
            found.get_or_insert((mtu, draft));
        }
    }
    let (mtu, draft) = found.or_else(|| kept_by_node(tunnel, size))?;
    Some(Learned {
        tunnel,
        mtu,
        evidence: vec![draft, stall_draft(case, stall)],
    })
}

/// A tunnel device takes packets that are too big, with its headers, for the interface by which they leave.
struct Mismatch<'a> {
    tunnel: Tunnelled<'a>,
    out: &'a Link,
}

impl<'a> Mismatch<'a> {
    fn of(case: &Case<'_>, a: &Attempt<'a>, forward: bool) -> Option<Mismatch<'a>> {
        let tunnel = Tunnelled::of(case, a, forward)?;
        let out = tunnel.seen(Direction::Egress);
        let (part, sight) = out.last()?;
        let out = part.node.link(sight.key.ifindex)?;
        let need = tunnel.link.mtu.saturating_add(tunnel.overhead());
        (need > out.mtu).then_some(Mismatch { tunnel, out })
    }

    /// Packets that are too big went in.
    fn is_met(&self) -> bool {
        let biggest = u32::from(self.tunnel.inner.stats.max_packet);
        biggest + self.tunnel.overhead() > self.out.mtu
    }

    fn draft(&self) -> Draft {
        let Tunnelled { part, link, .. } = self.tunnel;
        let text = format!(
            "{} takes {} bytes and adds {}, {} carries {}",
            link.name,
            link.mtu,
            self.tunnel.overhead(),
            self.out.name,
            self.out.mtu
        );
        let kind = format!("mismatch {}", link.name);
        Draft::of_node(part.view, part.node, kind, text)
    }

    fn saying(&self) -> Saying {
        let Tunnelled {
            part, link, peer, ..
        } = self.tunnel;
        let summary = format!(
            "The MTU of tunnel {} on {} ({}) and its headers ({}) are more than {} carries ({})",
            link.name,
            part.node.name(),
            link.mtu,
            self.tunnel.overhead(),
            self.out.name,
            self.out.mtu
        );
        Saying {
            evidence: vec![self.draft()],
            values: vec![
                ("here", part.node.name().to_owned()),
                ("dev", link.name.clone()),
                ("to", peer.to_string()),
            ],
            ..Saying::new(summary)
        }
    }
}

/// Full-size packets stall in a tunnel whose MTU does not fit; where none does, it is a warning.
pub fn mismatch(case: &Case<'_>, report: &mut Report) {
    let found = report.found.len();
    report.explain(
        case,
        "mtu-mismatch",
        Basis::Observed,
        |a| {
            let stall = (a.outcome == Outcome::Stalled)
                .then(|| a.stall())
                .flatten()?;
            let mismatch = Mismatch::of(case, a, stall.forward)?;
            let size = u32::from(stall.size()) + mismatch.tunnel.overhead();
            (size > mismatch.out.mtu).then(|| Because {
                key: format!(
                    "{}|{}",
                    mismatch.tunnel.part.view, mismatch.tunnel.link.name
                ),
                evidence: vec![stall_draft(case, &stall)],
            })
        },
        |of| {
            let mismatch = of[0]
                .stall()
                .and_then(|s| Mismatch::of(case, of[0], s.forward));
            mismatch.map_or_else(|| Saying::new(""), |m| m.saying())
        },
    );
    let idle = || {
        let mut attempts = case.attempts.iter();
        // Some devices take whatever comes (those of OVS say 65000): only what goes in can be too much.
        let seen = |a, forward| Mismatch::of(case, a, forward).filter(Mismatch::is_met);
        attempts.find_map(|a| seen(a, true).or_else(|| seen(a, false)))
    };
    if report.found.len() == found
        && let Some(mismatch) = idle()
    {
        let saying = mismatch.saying();
        report.state(
            case,
            "mtu-mismatch",
            Basis::Inferred,
            Severity::Warning,
            saying,
        );
    }
}

/// The message after which the sender sent again what it says is too big.
fn heedless<'a>(a: &Attempt<'a>, stall: &Stall<'_>) -> Option<TooBig<'a>> {
    let told = told(a, stall);
    let last = told.iter().map(|t| t.event.record.time).max()?;
    let first = told.into_iter().min_by_key(|t| t.event.record.time)?;
    let at = first.event.record.time;
    let since = stall.sight.stats.retrans_first;
    let sent_after = since.is_some_and(|t| t > at) || last.since(at) >= ROUND_TRIP;
    let too_big = first.icmp.mtu > 0 && u32::from(stall.size()) > first.icmp.mtu;
    (too_big && sent_after).then_some(first)
}

/// What is on its way when a message is sent has arrived after so long (`TCP_RTO_MIN`).
const ROUND_TRIP: Duration = Duration::from_millis(200);

fn too_big_draft(
    case: &Case<'_>,
    a: &Attempt<'_>,
    part: Part<'_>,
    event: &ConnEvent,
    icmp: &IcmpError,
) -> Draft {
    let who = event
        .record
        .tuple
        .map_or(String::new(), |t| case.name(t.src, event.record.time));
    let to = icmp.quoted.map_or(a.orig.dst, |q| q.dst);
    let text = format!("{who} says: packets to {to} may have {} bytes", icmp.mtu);
    let kind = format!("too big {who} {} {to}", icmp.mtu);
    case.event(part, event, &kind, text)
}

/// Evidence: the sender's socket still reckons with a bigger path MTU.
fn socket_draft(stall: &Stall<'_>, mtu: u32) -> Option<Draft> {
    let sender = stall.sight.key.tuple.source();
    let facts = stall.part.node.facts.as_ref()?;
    let of_pods = facts
        .pods
        .iter()
        .flat_map(|p| p.sockets.iter().map(move |s| (p.netns, s)));
    let mut all = of_pods.chain(facts.sockets.iter().map(|s| (facts.netns, s)));
    let (netns, socket) = all.find(|(_, s)| s.local == sender && s.pmtu > mtu)?;
    let text = format!(
        "the socket of {sender} uses a path MTU of {} bytes, segments of {}",
        socket.pmtu, socket.snd_mss
    );
    let mut draft = Draft::node(format!("socket pmtu {}", socket.pmtu), text);
    draft.view = Some((stall.part.view, stall.part.node.name().to_owned()));
    draft.netns = Some(netns);
    draft.time = Some(facts.time);
    Some(draft)
}

/// Packets are split on their way: those that come apart are lost as a whole with any of their parts.
pub fn fragmentation(case: &Case<'_>, report: &mut Report) {
    let mut drafts = Vec::new();
    let mut said = None;
    // Few nodes have any, and each has all of its connections.
    let portless: Vec<Vec<&Connection>> = case.views.iter().map(portless).collect();
    for a in &case.attempts {
        for part in a.parts.iter().copied() {
            if let Some((sight, from_outside)) = fragments(a, part, &portless[part.view]) {
                let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
                let (how, node) = if from_outside {
                    ("come in", part.node.name())
                } else {
                    ("leave", part.node.name())
                };
                let tuple = sight.key.tuple;
                let text = format!(
                    "{} later fragments from {} to {} {how} at {dev} of {node}",
                    sight.stats.packets, tuple.src, tuple.dst
                );
                drafts.push(case.sight(part, sight, "fragments", text));
                let place = if from_outside {
                    format!("before they reach {dev} of {node}")
                } else {
                    format!("by {node} on the way out through {dev}")
                };
                said.get_or_insert((tuple, place, a.began()));
            }
        }
    }
    for a in &case.attempts {
        for (part, event) in a.events() {
            let Event::Fragmented { len, link_mtu } = event.record.event else {
                continue;
            };
            let Some(tuple) = event.record.tuple else {
                continue;
            };
            let node = place(case, part.node, event.record.netns, event.record.time);
            let text = format!("{node} cuts a packet of {len} bytes to fit {link_mtu}");
            drafts.push(case.event(part, event, &format!("cut {link_mtu}"), text));
            said.get_or_insert((tuple, format!("by {node}"), a.began()));
        }
    }
    if let Some((tuple, place, at)) = said {
        let summary = format!(
            "Packets from {} to {} are split into fragments {place}: each is lost with any of its parts, and filters see ports in the first alone",
            case.name(tuple.src, at),
            case.name(tuple.dst, at)
        );
        let saying = Saying {
            evidence: drafts,
            ..Saying::new(summary)
        };
        report.state(
            case,
            "fragmentation",
            Basis::Observed,
            Severity::Warning,
            saying,
        );
    }
}

/// What a node saw without ports: later fragments, of whatever connection.
fn portless(node: &View) -> Vec<&Connection> {
    let connections = node.connections();
    connections
        .filter(|c| (c.orig.sport, c.orig.dport) == (0, 0))
        .collect()
}

/// Where later fragments of an attempt's packets were first seen on a node, and whether they came in so. Such fragments
/// carry no ports: they are the attempt's if its own packets, of which the first fragment is one, were as big there.
fn fragments<'a>(
    a: &Attempt<'a>,
    part: Part<'a>,
    portless: &[&'a Connection],
) -> Option<(&'a Sight, bool)> {
    let own = &part.conn.sights;
    let belongs = |f: &Sight| {
        own.iter().any(|s| {
            (s.key.ifindex, s.key.dir) == (f.key.ifindex, f.key.dir)
                && (s.key.tuple.src, s.key.tuple.dst) == (f.key.tuple.src, f.key.tuple.dst)
                && s.stats.max_packet >= f.stats.max_packet
        })
    };
    let all = portless.iter().filter(|c| c.orig.proto == a.orig.proto);
    let sights = all.flat_map(|c| &c.sights).filter(|f| belongs(f));
    // What came in split says so at its first interface; what a node splits shows only where it leaves.
    let first = sights.min_by_key(|f| (f.key.dir != Direction::Ingress, f.stats.first, f.key))?;
    Some((first, first.key.dir == Direction::Ingress))
}

/// What got through on a way while big packets did not: whoever answers it lives, and the way to it is open.
struct Small {
    /// By client, backend and whether requests stall.
    between: HashMap<(IpAddr, IpAddr, bool), Draft>,
    /// The same by the backend's node: Pods of one node are reached the same way.
    toward: HashMap<(IpAddr, String, bool), Draft>,
}

impl Small {
    fn of(case: &Case<'_>) -> Small {
        let mut between: BTreeMap<_, Vec<&Attempt<'_>>> = BTreeMap::new();
        let stalled = |a: &Attempt<'_>| a.outcome == Outcome::Stalled;
        if case.attempts.iter().any(stalled) {
            for a in &case.attempts {
                let ends = (a.client(), a.translated().dst);
                between.entry(ends).or_default().push(a);
            }
        }
        let mut small = Small {
            between: HashMap::new(),
            toward: HashMap::new(),
        };
        for ((client, backend), mut attempts) in between {
            attempts.sort_by_cached_key(|a| Reverse(handshake(a).map(|(_, s)| s.stats.syn_ack)));
            for forward in [true, false] {
                let Some(draft) = passed_after(case, &attempts, forward) else {
                    continue;
                };
                if let Some(node) = case.node_of(backend, attempts[0].began()) {
                    small
                        .toward
                        .entry((client, node, forward))
                        .and_modify(|d| {
                            // Any will do, but always the same one.
                            if draft.time < d.time {
                                *d = draft.clone();
                            }
                        })
                        .or_insert_with(|| draft.clone());
                }
                small.between.insert((client, backend, forward), draft);
            }
        }
        small
    }

    /// Evidence: after big packets began to vanish that way, something small passed both ways.
    fn passes(&self, case: &Case<'_>, a: &Attempt<'_>, stall: &Stall<'_>) -> Option<Draft> {
        let (client, backend) = (a.client(), a.translated().dst);
        let between = self.between.get(&(client, backend, stall.forward));
        let toward = || {
            let node = case.node_of(backend, a.began())?;
            self.toward.get(&(client, node, stall.forward))
        };
        between.or_else(toward).cloned()
    }
}

/// Evidence that something small passed after the first of these attempts had stalled in that direction.
fn passed_after(case: &Case<'_>, attempts: &[&Attempt<'_>], forward: bool) -> Option<Draft> {
    let stalls = attempts
        .iter()
        .filter(|a| a.outcome == Outcome::Stalled)
        .filter_map(|a| a.stall())
        .filter(|s| s.forward == forward);
    let first = stalls.min_by_key(|s| (s.since(), s.sight.key))?;
    handshake_after(case, attempts, &first).or_else(|| small_data_after(case, attempts, &first))
}

/// A SYN reached the backend, and its SYN-ACK came so far that the client took it up.
fn handshake_after(case: &Case<'_>, others: &[&Attempt<'_>], stall: &Stall<'_>) -> Option<Draft> {
    let (part, sight) = others.first().and_then(|o| handshake(o))?;
    if sight.stats.syn_ack? <= stall.since() {
        return None;
    }
    let from = sight.key.tuple.source();
    let text = format!("the handshake with {from} passes");
    let mut draft = case.sight(part, sight, "handshake", text);
    draft.time = sight.stats.syn_ack;
    Some(draft)
}

/// A connection that sends the same way, and nothing as big, has its data acknowledged.
fn small_data_after(case: &Case<'_>, others: &[&Attempt<'_>], stall: &Stall<'_>) -> Option<Draft> {
    let forward = stall.forward;
    let parts = others.iter().flat_map(|o| o.parts.iter());
    let (part, sight) = parts
        .filter(|p| p.conn.acked_after(forward) > Some(stall.since()))
        .find_map(|p| {
            let mut sights = p.conn.sights_towards(forward);
            let biggest = sights.clone().map(|s| s.stats.max_packet).max()?;
            (biggest < stall.size()).then_some((*p, sights.find(|s| s.stats.data.is_some())?))
        })?;
    let text = format!(
        "segments of up to {} bytes to {} are acknowledged",
        sight.stats.max_packet,
        sight.key.tuple.destination()
    );
    Some(case.sight(part, sight, "small data", text))
}

/// Where the SYN-ACK of an attempt was seen, if the client took it up.
fn handshake<'a>(a: &Attempt<'a>) -> Option<(Part<'a>, &'a Sight)> {
    a.parts.iter().find_map(|p| {
        let passed = p
            .conn
            .sights_towards(false)
            .filter(|s| s.stats.syn_ack.is_some());
        let sight = passed.min_by_key(|s| (s.stats.syn_ack, s.key))?;
        is_taken_up(*p, sight).then_some((*p, sight))
    })
}

fn stall_draft(case: &Case<'_>, stall: &Stall<'_>) -> Draft {
    let s = &stall.sight.stats;
    let since = stall.since();
    let secs = s.retrans_last.unwrap_or(since).since(since).as_millis() / 100;
    let again = if stall.resent() > 0 {
        format!(
            "sent again {} times over {}.{} s",
            stall.resent(),
            secs / 10,
            secs % 10
        )
    } else {
        "sent".to_owned()
    };
    let text = format!(
        "segments of up to {} bytes {again} without acknowledgement",
        stall.size()
    );
    let mut draft = case.sight(stall.part, stall.sight, "stall", text);
    draft.time = Some(since);
    draft
}

/// Evidence: this node itself found packets too big, or dropped the message that would have said so.
fn too_big_drops(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (part, event) in a.events() {
        let Event::Drop(drop) = &event.record.event else {
            continue;
        };
        if drop.reason == "PKT_TOO_BIG" {
            drafts.push(drop_draft(case, part, event, drop));
        } else if drop.quoted.is_some() {
            let from = event
                .record
                .tuple
                .map_or(String::new(), |t| format!(" from {}", t.src));
            let text = format!(
                "ICMP error{from} about it dropped: {} in {}()",
                drop.reason, drop.place
            );
            drafts.push(case.event(
                part,
                event,
                &format!("icmp dropped|{}|{}", drop.reason, drop.place),
                text,
            ));
        }
    }
    drafts
}

/// Somebody said how big packets may be, and the sender took it.
pub fn pmtu_learned(case: &Case<'_>, report: &mut Report) {
    let mut drafts = Vec::new();
    let mut said = None;
    for a in case.attempts.iter().filter(|a| a.outcome == Outcome::Ok) {
        let v6 = a.orig.dst.is_ipv6();
        for (part, event, icmp) in a.icmp().filter(|(_, _, i)| i.is_too_big(v6) && i.mtu > 0) {
            let who = event
                .record
                .tuple
                .map_or(String::new(), |t| case.name(t.src, event.record.time));
            let to = icmp.quoted.map_or(a.orig.dst, |q| q.dst);
            drafts.push(too_big_draft(case, a, part, event, icmp));
            let old = part
                .conn
                .sights
                .iter()
                .map(|s| u32::from(s.stats.max_packet))
                .max()
                .unwrap_or(0);
            let from = format!(
                "packets of {} bytes became {}, told by {who}",
                old.max(icmp.mtu),
                icmp.mtu
            );
            said.get_or_insert((to, from));
        }
    }
    for (i, view) in case.views.iter().enumerate() {
        for (to, mtu, draft) in remembered(case, i, view) {
            drafts.push(draft);
            said.get_or_insert((to, format!("packets may have {mtu} bytes")));
        }
    }
    if let Some((to, how)) = said {
        let at = drafts.first().and_then(|d| d.time).unwrap_or_default();
        let summary = format!("Path MTU to {} learned: {how}", case.name(to, at));
        let saying = Saying {
            evidence: drafts,
            ..Saying::new(summary)
        };
        report.state(
            case,
            "pmtu-learned",
            Basis::Observed,
            Severity::Info,
            saying,
        );
    }
}

/// Path MTUs that the node or one of its Pods keeps for an address of an attempt: learned, maybe before we looked.
fn remembered(case: &Case<'_>, index: usize, view: &View) -> Vec<(IpAddr, u32, Draft)> {
    let lookups = view
        .facts
        .iter()
        .flat_map(|f| f.lookups.iter().map(move |l| (f.time, l)));
    let concerned = |to: IpAddr| {
        let mut ok = case.attempts.iter().filter(|a| a.outcome == Outcome::Ok);
        ok.any(|a| [a.orig.src, a.orig.dst, a.translated().dst].contains(&to))
    };
    lookups
        .filter_map(|(time, l)| {
            let mtu = l.learned_mtu().filter(|_| concerned(l.dst))?;
            let text = format!(
                "the route to {} has a learned path MTU of {mtu} bytes",
                l.dst
            );
            let mut draft = Draft::node(format!("learned {} {mtu}", l.dst), text);
            draft.plane = Plane::Mtu;
            draft.time = Some(time);
            draft.view = Some((index, view.name().to_owned()));
            draft.netns = Some(l.netns);
            Some((l.dst, mtu, draft))
        })
        .collect()
}
