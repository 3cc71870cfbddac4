//! Neighbours: next hops that do not answer, and such that have moved.

use super::beyond::sent_draft;
use super::overlay;
use super::route::{
    Lost, Reports, because, firsts, forward_again, is_unserved, lost, place, places, setting_draft,
    targets, values,
};
use super::service::{drop_draft, full_name};
use crate::explain::attempt::{Attempt, Part, UNANSWERED};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::fate::{Fate, Told};
use crate::explain::report::{Because, Report, Saying};
use crate::flows::{Cite, ConnEvent};
use crate::model::Time;
use crate::model::answer::Basis;
use crate::model::cidr;
use crate::model::flow::Direction;
use crate::model::node::{Link, Neighbor, NodeFacts, Route};
use crate::model::record::{Event, IcmpError, Record};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A next hop that does not answer for its link-layer address, while a packet waits for it.
struct Silent<'a> {
    part: Part<'a>,
    event: &'a ConnEvent,
    /// It, where known.
    neighbor: Option<IpAddr>,
    to: SocketAddr,
    /// Name of the tunnel device whose own packets wait.
    tunnel: Option<&'a str>,
    evidence: Vec<Draft>,
}

impl Silent<'_> {
    /// The neighbour, where it is not the destination itself.
    fn router(&self) -> Option<IpAddr> {
        self.neighbor.filter(|ip| *ip != self.to.ip())
    }

    fn netns(&self) -> u32 {
        self.event.record.netns
    }
}

fn is_neighbor_failure(l: &Lost<'_>) -> bool {
    Fate::NeighborFailed.told(l.drop) == Told::Surely
}

fn silent<'a>(case: &Case<'a>, a: &Attempt<'a>) -> Option<Silent<'a>> {
    silent_itself(case, a).or_else(|| silent_around(case, a))
}

/// The attempt's own packets wait, or waited until they were dropped.
fn silent_itself<'a>(case: &Case<'_>, a: &Attempt<'a>) -> Option<Silent<'a>> {
    let dropped = lost(a, is_neighbor_failure);
    let first = dropped.first().map(|l| (l.part, l.event));
    let evidence = because(case, a, &dropped).map_or_else(Vec::new, |b| b.evidence);
    waited_for(case, first, &waits(a), evidence)
}

/// The packets of the tunnel that it went into do.
fn silent_around<'a>(case: &Case<'a>, a: &Attempt<'a>) -> Option<Silent<'a>> {
    let t = overlay::silent(case, a)?;
    let mut evidence = vec![sent_draft(a, case, t.part, t.inner)];
    let (mut first, mut waiting) = (None, Vec::new());
    for (part, event) in t.events(case) {
        match &event.record.event {
            Event::Drop(drop) if Fate::NeighborFailed.told(drop) == Told::Surely => {
                first = first.or(Some((part, event)));
                evidence.push(drop_draft(case, part, event, drop));
            }
            _ if is_stuck(part, &event.record) => waiting.push((part, event)),
            _ => {}
        }
    }
    let silent = waited_for(case, first, &waiting, evidence)?;
    Some(Silent {
        tunnel: Some(&t.link.name),
        ..silent
    })
}

/// What the first packet dropped, or else the first that waits, has waited for. `evidence` is of what was dropped.
fn waited_for<'a>(
    case: &Case<'_>,
    dropped: Option<(Part<'a>, &'a ConnEvent)>,
    waiting: &[(Part<'a>, &'a ConnEvent)],
    mut evidence: Vec<Draft>,
) -> Option<Silent<'a>> {
    let (part, event) = dropped.or(waiting.first().copied())?;
    let to = event.record.tuple?.destination();
    let neighbor = next_hop(part, event, waiting, to.ip());
    let waits = waiting.iter();
    evidence.extend(waits.map(|(part, event)| wait_draft(case, *part, event)));
    evidence.extend(neighbor.map_or_else(Vec::new, |ip| failures(part, &event.record, ip)));
    Some(Silent {
        part,
        event,
        neighbor,
        to,
        tunnel: None,
        evidence,
    })
}

/// Packets that have waited for longer than an answer takes and never left. The kernel drops them only after its last
/// unanswered request, seconds later (`mcast_solicit`, one second apart).
fn waits<'a>(a: &Attempt<'a>) -> Vec<(Part<'a>, &'a ConnEvent)> {
    if !is_unserved(a) {
        return Vec::new();
    }
    a.events()
        .filter(|(part, e)| is_stuck(*part, &e.record))
        .collect()
}

fn is_stuck(part: Part<'_>, r: &Record) -> bool {
    let own = r.netns == part.node.start.netns;
    let left = part.conn.sights.iter().any(|s| {
        Some(s.key.tuple) == r.tuple
            && (!own || s.key.dir == Direction::Egress && s.key.ifindex == r.ifindex)
    });
    let waits = matches!(r.event, Event::NeighborWait { .. });
    waits && !left && part.node.now.since(r.time) >= UNANSWERED
}

/// Which neighbour a packet to `to` waits for: the one that was asked for, else the route's.
fn next_hop(
    part: Part<'_>,
    event: &ConnEvent,
    waiting: &[(Part<'_>, &ConnEvent)],
    to: IpAddr,
) -> Option<IpAddr> {
    let here = |r: &Record| r.netns == event.record.netns && r.tuple == event.record.tuple;
    let asked = waiting.iter().find_map(|(_, e)| match e.record.event {
        Event::NeighborWait { ip, .. } if here(&e.record) => Some(ip),
        _ => None,
    });
    let of_conn = || {
        part.conn.events.iter().find_map(|e| match e.record.event {
            Event::NeighborWait { ip, .. } if here(&e.record) => Some(ip),
            _ => None,
        })
    };
    let of_route = || {
        let mut lookups = part.node.facts.iter().flat_map(|f| &f.lookups);
        lookups
            .find(|l| l.netns == event.record.netns && l.dst == to && l.errno.is_none())
            .map(|l| l.via.unwrap_or(to))
    };
    asked
        .or_else(of_conn)
        .or_else(|| given_up(part, &event.record))
        .or_else(of_route)
}

/// A neighbour's queue is dropped as it is given up (`neigh_timer_handler` calls `neigh_invalidate`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/core/neighbour.c>).
const AS_GIVEN_UP: Duration = Duration::from_millis(1);

/// The one neighbour of the namespace that was given up as the packet was dropped.
fn given_up(part: Part<'_>, dropped: &Record) -> Option<IpAddr> {
    let near = |t: Time| t.since(dropped.time).max(dropped.time.since(t)) < AS_GIVEN_UP;
    let failed = part.node.loose.iter().filter_map(|(_, r)| match r.event {
        Event::NeighborFailed { ip } if r.netns == dropped.netns && near(r.time) => Some(ip),
        _ => None,
    });
    let all: BTreeSet<IpAddr> = failed.collect();
    let mut all = all.into_iter();
    all.next().filter(|_| all.next().is_none())
}

fn wait_draft(case: &Case<'_>, part: Part<'_>, event: &ConnEvent) -> Draft {
    let ip = match event.record.event {
        Event::NeighborWait { ip, .. } => ip.to_string(),
        _ => String::new(),
    };
    let to = event.record.tuple.map(|t| t.destination());
    let to = to.map_or_else(String::new, |to| to.to_string());
    let text = format!("the packet to {to} waits for neighbour {ip}, which does not answer");
    // As drops are told: what goes elsewhere is another thing that waits.
    case.event(part, event, &format!("waits {ip} {to}"), text)
}

/// Evidence: requests for the neighbour went unanswered to the last, and what the table says of it.
fn failures(part: Part<'_>, near: &Record, ip: IpAddr) -> Vec<Draft> {
    let at = |text: String, kind: &str| {
        let mut draft = Draft::node(format!("{kind} {ip}"), text);
        draft.view = Some((part.view, part.node.name().to_owned()));
        draft.netns = Some(near.netns);
        draft
    };
    let failed = |r: &Record| {
        r.netns == near.netns && matches!(r.event, Event::NeighborFailed { ip: n } if n == ip)
    };
    let told = |(cite, r): &(Cite, Record)| {
        let mut draft = at(
            format!("nobody answered the neighbour requests for {ip}"),
            "unanswered",
        );
        draft.time = Some(r.time);
        draft.hook = Some("neigh_timer_handler".to_owned());
        draft.cites = vec![*cite];
        draft
    };
    let mut drafts: Vec<Draft> = part
        .node
        .loose
        .iter()
        .filter(|(_, r)| failed(r))
        .map(told)
        .collect();
    let unresolved = |n: &&Neighbor| n.ip == ip && matches!(&*n.state, "failed" | "incomplete");
    if let Some(entry) = neighbors(part, near.netns).iter().find(unresolved) {
        drafts.push(at(
            format!("neighbour {ip} is {} in the table", entry.state),
            "table",
        ));
    }
    drafts
}

/// The neighbour table of a namespace.
fn neighbors(part: Part<'_>, netns: u32) -> &[Neighbor] {
    let Some(facts) = part.node.facts.as_ref() else {
        return &[];
    };
    let of_pod = || facts.pods.iter().find(|p| p.netns == netns);
    if netns == facts.netns {
        &facts.neighbors
    } else {
        of_pod().map_or(&[], |p| &p.neighbors)
    }
}

/// The next hop does not answer ARP or neighbour solicitations: a gateway, another node, or a Pod that is there.
pub fn failed(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "neighbor-failed",
        Basis::Observed,
        |a| {
            let silent = silent(case, a).filter(|s| closed_proxy(s).is_none())?;
            let router = silent.router().map_or(String::new(), |ip| ip.to_string());
            let place = (silent.part.view, silent.netns());
            Some(Because {
                key: format!("{}|{}|{router}", place.0, place.1),
                evidence: silent.evidence,
            })
        },
        |of| {
            let all: Vec<Silent<'_>> = of.iter().filter_map(|a| silent(case, a)).collect();
            let Some(silent) = all.first() else {
                return Saying::new("");
            };
            let at = silent.event.record.time;
            let node = silent.part.node;
            let here = place(case, node, silent.netns(), at);
            let dev = (silent.netns() == node.start.netns)
                .then(|| node.ifname(silent.event.record.ifindex))
                .flatten();
            let on = dev.as_ref().map_or(String::new(), |dev| format!(" on {dev}"));
            let targets: BTreeSet<SocketAddr> = all.iter().map(|s| s.to).collect();
            let targets: Vec<String> = targets.iter().map(|to| case.named(*to, at)).collect();
            let targets = targets.join(", ");
            let (who, verb) = match (silent.neighbor, silent.router()) {
                (None, _) => (format!("The next hop to {targets}"), "does"),
                (_, Some(router)) => (format!("{router}, the next hop to {targets},"), "does"),
                (Some(_), None) => {
                    let verb = if all.iter().all(|s| s.to == silent.to) { "does" } else { "do" };
                    (targets, verb)
                }
            };
            let tunnel = silent.tunnel.map_or(String::new(), |name| format!(" in tunnel {name}"));
            let summary = format!(
                "{who} {verb} not answer {here}'s neighbour requests{on}: packets of {}{tunnel} wait and are dropped",
                full_name(case)
            );
            let neighbor = silent.neighbor.map_or(String::new(), |ip| ip.to_string());
            Saying {
                values: vec![
                    ("here", node.name().to_owned()),
                    ("to", neighbor),
                    ("dev", dev.unwrap_or_default()),
                ],
                ..Saying::new(summary)
            }
        },
    );
    said_by_router(case, report);
}

/// Why a node does not answer in the place of a routed Pod's next hop, which it would do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It does not forward what comes in from the Pod.
    Forwarding,
    /// It has no route to the next hop.
    Route,
}

/// The interface of the node behind which a routed Pod waits for its next hop, where the node would answer in that one's place
/// and does not: it does so only while it forwards what comes in there and has a route to what is asked for (`arp_process`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/arp.c>).
fn closed_proxy<'a>(silent: &Silent<'a>) -> Option<(&'a str, IpAddr, Closed)> {
    let node = silent.part.node;
    let facts = node.facts.as_ref()?;
    let pod = facts.pods.iter().find(|p| p.netns == silent.netns())?;
    let inner = pod
        .links
        .iter()
        .find(|l| l.ifindex == silent.event.record.ifindex)?;
    let ends = |l: &&Link| l.kind == "veth" && (l.ifindex, l.link) == (inner.link, inner.ifindex);
    let outer = facts.links.iter().find(ends)?;
    let is = |what: &str, value: &str| {
        let name = format!("net.ipv4.conf.{}.{what}", outer.name);
        facts.sysctls.get(&name).is_some_and(|v| v == value)
    };
    let hop = silent
        .neighbor
        .filter(|ip| ip.is_ipv4() && !node.is_own(*ip))?;
    let why = if is("forwarding", "0") {
        Closed::Forwarding
    } else if is_unrouted(facts, hop) {
        Closed::Route
    } else {
        return None;
    };
    is("proxy_arp", "1").then_some((&outer.name, hop, why))
}

/// No route of the node covers the address, and all of its routes were read.
fn is_unrouted(facts: &NodeFacts, ip: IpAddr) -> bool {
    let covers = |r: &Route| {
        cidr::contains((r.dst, r.prefix), ip) && matches!(&*r.kind, "unicast" | "local")
    };
    let routes = |what: &str| what.contains("routes");
    !facts.routes.iter().any(covers) && !facts.unread.iter().any(|u| routes(&u.what))
}

/// Attempts whose Pod waits for a next hop that the node does not answer for, for this reason.
fn waits_behind(case: &Case<'_>, a: &Attempt<'_>, why: Closed) -> Option<Because> {
    let silent = silent(case, a)?;
    closed_proxy(&silent).filter(|(.., closed)| *closed == why)?;
    Some(Because {
        key: format!("{}|pods", silent.part.view),
        evidence: silent.evidence,
    })
}

/// What all of them share: the first, the interface and the next hop.
fn shared<'a>(case: &Case<'a>, of: &[&Attempt<'a>]) -> Option<(Silent<'a>, &'a str, IpAddr)> {
    let silent = silent(case, of.first()?)?;
    let (dev, hop, _) = closed_proxy(&silent)?;
    Some((silent, dev, hop))
}

/// The node does not forward what its Pods send, and so does not answer for their next hop either.
pub(super) fn forwards_for_no_pod(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "forwarding-disabled",
        Basis::Observed,
        |a| waits_behind(case, a, Closed::Forwarding),
        |of| {
            let Some((silent, dev, hop)) = shared(case, of) else {
                return Saying::new("");
            };
            let node = silent.part.node;
            let pod = place(case, node, silent.netns(), silent.event.record.time);
            let name = format!("net.ipv4.conf.{dev}.forwarding");
            let summary = format!(
                "{} does not forward what comes in through {dev} ({name} = 0) and so does not answer for {hop}, the next hop of \
                 {pod}: packets of {} wait there and are dropped",
                node.name(),
                full_name(case)
            );
            let to = silent.to.ip();
            Saying {
                evidence: vec![setting_draft(silent.part, &name, "0")],
                fixes: vec![forward_again(node, &name, dev, to)],
                values: values_of(&silent, dev, to),
                ..Saying::new(summary)
            }
        },
    );
}

/// The node has no route to what its Pods send through, and so does not answer for it either.
pub(super) fn routes_for_no_pod(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "no-route",
        Basis::Observed,
        |a| waits_behind(case, a, Closed::Route),
        |of| {
            let Some((silent, dev, hop)) = shared(case, of) else {
                return Saying::new("");
            };
            let node = silent.part.node;
            let pod = place(case, node, silent.netns(), silent.event.record.time);
            let summary = format!(
                "{} has no route to {hop}, the next hop of {pod}, and so does not answer for it: packets of {} wait there and \
                 are dropped",
                node.name(),
                full_name(case)
            );
            let kind = format!("unrouted {hop}");
            let text = format!("no route of {} covers {hop}", node.name());
            let draft = Draft::of_node(silent.part.view, node, kind, text);
            Saying {
                evidence: vec![draft],
                values: values_of(&silent, dev, silent.to.ip()),
                ..Saying::new(summary)
            }
        },
    );
}

fn values_of(silent: &Silent<'_>, dev: &str, to: IpAddr) -> Vec<(&'static str, String)> {
    vec![
        ("here", silent.part.node.name().to_owned()),
        ("to", to.to_string()),
        ("dev", dev.to_owned()),
    ]
}

/// ICMP host unreachable, ICMPv6 address unreachable: the sender's next hop did not answer, or its route says so.
fn is_host_unreachable(icmp: &IcmpError, v6: bool) -> bool {
    match (v6, icmp.icmp_type) {
        (false, 3) => matches!(icmp.code, 1 | 7 | 12),
        (true, 1) => icmp.code == 3,
        _ => false,
    }
}

/// A router that was not asked itself says that it does not reach the address.
fn said_by_router(case: &Case<'_>, report: &mut Report) {
    let reports = Reports::of(case, report, is_host_unreachable);
    report.explain(
        case,
        "neighbor-failed",
        // A route that says "unreachable" makes a router send the same.
        Basis::Inferred,
        |a| reports.because(case, a),
        |of| {
            let (router, to) = reports.about(case, of[0]).unwrap_or((of[0].client(), of[0].orig.dst));
            let at = of[0].began();
            let summary = format!(
                "{} says in ICMP that it does not reach {}: its next hop does not answer, or its route says unreachable",
                case.name(router, at),
                case.name(to, at)
            );
            Saying {
                values: vec![("here", router.to_string()), ("to", to.to_string())],
                ..Saying::new(summary)
            }
        },
    );
}

// neighbor-stale

/// A frame that came to the right place with another station's address: in the namespace that holds the destination, or
/// on the node of a Pod that sends through it.
fn is_misaddressed(case: &Case<'_>, l: &Lost<'_>) -> bool {
    let told = Fate::OtherHost.told(l.drop);
    let (node, netns) = (l.part.node, l.event.record.netns);
    let holds = |ip| {
        let of_pod = node.pod(ip).is_some_and(|p| p.netns == netns);
        of_pod || netns == node.start.netns && node.is_own(ip)
    };
    // A bridge in promiscuous mode (tcpdump, kubenet) hands up a copy of what it sends on to the Pod.
    let sent_on = || {
        let mut sights = l.part.conn.sights.iter();
        sights.any(|s| s.key.tuple == l.tuple && s.key.dir == Direction::Egress)
    };
    let for_pod_here = l.is_on_node() && case.is_local(node, l.tuple.dst) && !sent_on();
    let from_pod_here =
        l.is_on_node() && case.is_local(node, l.tuple.src) && !case.is_local(node, l.tuple.dst);
    match told {
        Told::Surely => holds(l.tuple.dst) || for_pod_here || from_pod_here,
        Told::Possibly => holds(l.tuple.dst) && outdated(l.part, l.tuple.dst).is_some(),
        Told::Not => false,
    }
}

/// The node's neighbour entry for one of its Pods, and the Pod's interface, whose address is another.
fn outdated(part: Part<'_>, ip: IpAddr) -> Option<(&Neighbor, &Link)> {
    let facts = part.node.facts.as_ref()?;
    let pod = part.node.pod(ip).filter(|p| p.netns != facts.netns)?;
    let link = pod
        .links
        .iter()
        .find(|l| l.addrs.iter().any(|(a, _)| *a == ip))?;
    let entry = facts.neighbors.iter().find(|n| n.ip == ip)?;
    let known = entry.lladdr.as_ref()?;
    (link.lladdr.as_ref()? != known).then_some((entry, link))
}

/// Frames go to a link-layer address that the next hop no longer has.
pub fn stale(case: &Case<'_>, report: &mut Report) {
    let fits = |l: &Lost<'_>| is_misaddressed(case, l);
    report.explain(
        case,
        "neighbor-stale",
        Basis::Observed,
        |a| because(case, a, &lost(a, fits)),
        |of| {
            let all = firsts(of, fits);
            let Some(one) = all.first() else {
                return Saying::new("");
            };
            let mut saying = Saying::new(format!(
                "Frames for {} reach {} with another station's link-layer address: whoever sends them has an outdated neighbour entry",
                targets(case, &all),
                places(case, &all)
            ));
            // The entry is where the frames come from.
            let dev = outdated(one.part, one.tuple.dst).and_then(|(n, _)| one.part.node.ifname(n.ifindex));
            saying.values = values(one, one.tuple.dst);
            saying.values.retain(|(name, _)| *name != "dev");
            saying.values.extend(dev.map(|dev| ("dev", dev)));
            let addresses: BTreeSet<IpAddr> = all.iter().map(|l| l.tuple.dst).collect();
            saying.evidence = addresses
                .into_iter()
                .filter_map(|ip| outdated_draft(one.part, ip))
                .collect();
            saying
        },
    );
}

/// Evidence: entry and interface differ.
fn outdated_draft(part: Part<'_>, ip: IpAddr) -> Option<Draft> {
    let (entry, link) = outdated(part, ip)?;
    let text = format!(
        "the neighbour entry for {ip} says {}, its interface {} has {}",
        entry.lladdr.as_deref()?,
        link.name,
        link.lladdr.as_deref()?
    );
    let mut draft = Draft::node(format!("outdated {ip}"), text);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(part.node.start.netns);
    draft.time = part.node.facts.as_ref().map(|f| f.time);
    Some(draft)
}
