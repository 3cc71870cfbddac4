//! Routing: where a node has no way to send a packet on, may not, or does not believe where it came from.

use super::beyond::{left, sent_draft};
use super::neighbor::{forwards_for_no_pod, routes_for_no_pod};
use super::overlay::silent;
use super::service::{drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::fate::{Fate, Told};
use crate::explain::report::{Because, Report, Saying};
use crate::explain::view::View;
use crate::flows::ConnEvent;
use crate::model::answer::{Basis, Changes, Fix};
use crate::model::node::RouteLookup;
use crate::model::record::{Drop, Event, IcmpError};
use crate::model::{Time, Tuple};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A packet of an attempt that a node or a Pod on it dropped for a reason of routing.
#[derive(Clone, Copy)]
pub(super) struct Lost<'a> {
    pub part: Part<'a>,
    pub event: &'a ConnEvent,
    pub drop: &'a Drop,
    /// As it was when it was dropped.
    pub tuple: Tuple,
    /// On its way to the backend.
    pub forward: bool,
}

impl Lost<'_> {
    /// In the node's own namespace, not in a Pod's.
    pub fn is_on_node(&self) -> bool {
        self.event.record.netns == self.part.node.start.netns
    }

    /// Name of the interface at which it was dropped.
    pub fn dev(&self) -> Option<String> {
        self.is_on_node()
            .then(|| self.part.node.ifname(self.event.record.ifindex))
            .flatten()
    }

    /// Where that was, for a reader.
    pub fn place(&self, case: &Case<'_>) -> String {
        place(
            case,
            self.part.node,
            self.event.record.netns,
            self.event.record.time,
        )
    }

    /// What was dropped, for a reader.
    pub fn what(&self) -> &'static str {
        if self.forward { "packets" } else { "answers" }
    }
}

/// A node's name, or that of the Pod whose namespace it is.
pub(super) fn place(case: &Case<'_>, node: &View, netns: u32, at: Time) -> String {
    let pods = node.facts.iter().flat_map(|f| &f.pods);
    let mut of_pods = pods.filter(|p| p.netns == netns && netns != node.start.netns);
    of_pods
        .find_map(|p| p.ips.first())
        .map_or_else(|| node.name().to_owned(), |ip| case.name(*ip, at))
}

/// Nobody answered the attempt, or a router said that it cannot be.
pub(super) fn is_unserved(a: &Attempt<'_>) -> bool {
    matches!(
        a.outcome,
        Outcome::Timeout | Outcome::Unreachable | Outcome::Stalled
    )
}

/// The first drops of an unserved attempt that `fits`.
pub(super) fn lost<'a>(a: &Attempt<'a>, fits: impl Fn(&Lost<'a>) -> bool) -> Vec<Lost<'a>> {
    if !is_unserved(a) {
        return Vec::new();
    }
    let drops = a
        .drops()
        .into_iter()
        .filter_map(|(part, event, drop, leg)| {
            Some(Lost {
                part,
                event,
                drop,
                tuple: event.record.tuple?,
                forward: leg.is_forward(),
            })
        });
    drops.filter(fits).collect()
}

/// Evidence of some drops, and the key that those of one direction share, on a node or in its Pods.
pub(super) fn because(case: &Case<'_>, a: &Attempt<'_>, lost: &[Lost<'_>]) -> Option<Because> {
    let first = lost.first()?;
    let mut evidence: Vec<Draft> = lost
        .iter()
        .map(|l| drop_draft(case, l.part, l.event, l.drop))
        .collect();
    evidence.extend(case.translation(a));
    Some(Because {
        key: format!(
            "{}|{}|{}",
            first.part.view,
            first.is_on_node(),
            first.forward
        ),
        evidence,
    })
}

/// The first drop of each attempt.
pub(super) fn firsts<'a>(of: &[&Attempt<'a>], fits: impl Fn(&Lost<'a>) -> bool) -> Vec<Lost<'a>> {
    let first = |a: &&Attempt<'a>| lost(a, &fits).into_iter().next();
    of.iter().filter_map(first).collect()
}

/// Where they were dropped, for a reader.
pub(super) fn places(case: &Case<'_>, of: &[Lost<'_>]) -> String {
    let all: BTreeSet<String> = of.iter().map(|l| l.place(case)).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// What they were for, for a reader.
pub(super) fn targets(case: &Case<'_>, of: &[Lost<'_>]) -> String {
    let all: BTreeSet<IpAddr> = of.iter().map(|l| l.tuple.dst).collect();
    let at = of.first().map(|l| l.event.record.time).unwrap_or_default();
    let name = |ip: &IpAddr| match case.name(*ip, at) {
        name if name == ip.to_string() => name,
        name => format!("{name} ({ip})"),
    };
    all.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Values for commands: where it happened, and the address concerned.
pub(super) fn values(lost: &Lost<'_>, to: IpAddr) -> Vec<(&'static str, String)> {
    vec![
        ("here", lost.part.node.name().to_owned()),
        ("to", to.to_string()),
        ("dev", lost.dev().unwrap_or_default()),
    ]
}

// no-route

fn is_unroutable(l: &Lost<'_>) -> bool {
    match Fate::NoRoute.told(l.drop) {
        Told::Surely => true,
        Told::Possibly => !forwards_not(l),
        Told::Not => false,
    }
}

/// A node or Pod on the way has no route to where the packet goes, or a router in between says so of itself.
pub fn missing(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "no-route",
        Basis::Observed,
        |a| because(case, a, &lost(a, is_unroutable)),
        |of| {
            let all = firsts(of, is_unroutable);
            let Some(one) = all.first() else {
                return Saying::new("");
            };
            let lookup = asked(one, one.tuple.dst);
            let (route, now) = match lookup {
                Some(l) => (kind_of_lack(l.errno), l.errno.is_none()),
                None => ("no usable route", false),
            };
            let later = if now {
                ", although it has one by now"
            } else {
                ""
            };
            let summary = format!(
                "{} has {route} to {}{later}: it drops {} of {}",
                places(case, &all),
                targets(case, &all),
                one.what(),
                full_name(case)
            );
            let evidence = lookup.map(|l| lookup_draft(one, l)).into_iter().collect();
            Saying {
                evidence,
                values: values(one, one.tuple.dst),
                ..Saying::new(summary)
            }
        },
    );
    routes_for_no_pod(case, report);
    said_by_router(case, report);
}

/// What the kernel answers where such a packet was dropped, when asked for the way to an address.
fn asked<'a>(lost: &Lost<'a>, to: IpAddr) -> Option<&'a RouteLookup> {
    let facts = lost.part.node.facts.as_ref()?;
    let netns = lost.event.record.netns;
    facts
        .lookups
        .iter()
        .find(|l| l.netns == netns && l.dst == to)
}

/// Errnos of a lookup without a usable route: `fib_props` in
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/fib_semantics.c>.
pub(super) fn kind_of_lack(errno: Option<i32>) -> &'static str {
    match errno {
        Some(101) | None => "no route",
        Some(113) => "an \"unreachable\" route",
        Some(22) => "a \"blackhole\" route",
        Some(13) => "a \"prohibit\" route",
        Some(_) => "no usable route",
    }
}

/// Evidence: the kernel's answer for an address.
fn lookup_draft(lost: &Lost<'_>, l: &RouteLookup) -> Draft {
    answer_draft(lost.part.view, lost.part.node, l)
}

/// The same, of any node.
pub(super) fn answer_draft(index: usize, node: &View, l: &RouteLookup) -> Draft {
    let text = match (l.errno, l.via) {
        (Some(errno), _) => format!("the route lookup for {} fails with errno {errno}", l.dst),
        (None, via) => format!(
            "the route to {} leads through {}{}",
            l.dst,
            node.ifname(l.ifindex).unwrap_or_default(),
            via.map_or(String::new(), |via| format!(" via {via}"))
        ),
    };
    let mut draft = Draft::node(format!("lookup {} {}", l.netns, l.dst), text);
    draft.time = node.facts.as_ref().map(|f| f.time);
    draft.view = Some((index, node.name().to_owned()));
    draft.netns = Some(l.netns);
    draft
}

/// ICMP in which a router says of itself that it knows no way (RFC 792, RFC 1812 5.2.7.1; RFC 4443 3.1).
fn is_no_route(icmp: &IcmpError, v6: bool) -> bool {
    match (v6, icmp.icmp_type) {
        (false, 3) => matches!(icmp.code, 0 | 6 | 11),
        (true, 1) => icmp.code == 0,
        _ => false,
    }
}

fn said_by_router(case: &Case<'_>, report: &mut Report) {
    let reports = Reports::of(case, report, is_no_route);
    report.explain(
        case,
        "no-route",
        Basis::Observed,
        |a| reports.because(case, a),
        |of| {
            let (router, to) = reports
                .about(case, of[0])
                .unwrap_or((of[0].client(), of[0].orig.dst));
            let others = of.iter().any(|a| reports.is_unsaid(a));
            let others = if others {
                ", and nothing comes back from other endpoints beyond it (ICMP errors are limited in rate)"
            } else {
                ""
            };
            let summary = format!(
                "{} has no route to {}: it says so in ICMP{others}",
                case.name(router, of[0].began()),
                case.name(to, of[0].began())
            );
            Saying {
                values: vec![("here", router.to_string()), ("to", to.to_string())],
                ..Saying::new(summary)
            }
        },
    );
}

/// What routers that were not asked themselves said in ICMP, by the two ends of the attempts. A router sends only so
/// many errors per second, so what it says of one attempt holds for others between the same ends that met silence. It often
/// says nothing more as long as it is asked on and on: two limits draw on one account (`ip_error`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/route.c>; `inet_peer_xrlim_allow`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inetpeer.c>).
pub(super) struct Reports<'a> {
    said: Vec<Said<'a>>,
}

struct Said<'a> {
    ends: (IpAddr, IpAddr),
    router: IpAddr,
    to: IpAddr,
    /// It was about the network, not about one host in it.
    whole: bool,
    /// Node of the address, by the objects, and where the packet left for it.
    node: Option<&'a str>,
    out: Option<Out>,
    draft: Draft,
}

/// ICMP errors about the packets of tunnels. An attempt's own packets are inside these, and no error comes back for them: a tunnel device hears
/// only of packets that are too big (`__udp4_lib_err`, <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/udp.c>).
#[derive(Default)]
struct Outside<'a> {
    /// By recording, device and peer: many attempts share a tunnel.
    of: HashMap<(usize, u32, IpAddr), Vec<Heard<'a>>>,
}

type Heard<'a> = (Part<'a>, &'a ConnEvent, &'a IcmpError);

impl<'a> Outside<'a> {
    /// What came about the tunnel of a silent attempt since that began.
    fn about(&mut self, case: &Case<'a>, a: &Attempt<'a>) -> Vec<Heard<'a>> {
        let Some(t) = silent(case, a) else {
            return Vec::new();
        };
        let key = (t.part.view, t.link.ifindex, t.peer);
        let heard = self.of.entry(key).or_insert_with(|| {
            let events = t.events(case).into_iter();
            let errors = events.filter_map(|(part, event)| match &event.record.event {
                Event::IcmpError(icmp) => Some((part, event, icmp)),
                _ => None,
            });
            errors.collect()
        });
        let since = heard.iter().filter(|h| h.1.record.time >= a.began());
        since.copied().collect()
    }
}

/// Recording and interface.
type Out = (usize, u32);

/// Where an attempt left that met silence.
fn out_of(case: &Case<'_>, a: &Attempt<'_>) -> Option<Out> {
    let (part, sight) = left(case, a)?;
    Some((part.view, sight.key.ifindex))
}

impl<'a> Reports<'a> {
    /// Errors that `fits` names, about attempts that nothing explains yet.
    pub fn of(
        case: &Case<'a>,
        report: &Report,
        fits: impl Fn(&IcmpError, bool) -> bool,
    ) -> Reports<'a> {
        let mut said: Vec<Said<'a>> = Vec::new();
        let mut outside = Outside::default();
        let open = report.open(case).into_iter().map(|(_, a)| a);
        for a in open.filter(|a| is_unserved(a)) {
            let ends = ends(a);
            for (part, event, icmp) in a.icmp().chain(outside.about(case, a)) {
                let Some(router) = event.record.tuple.map(|t| t.src) else {
                    continue;
                };
                // An address of a node that was asked: its own drops say more. A translated source is the one dialled.
                let asked = case.views.iter().any(|v| v.is_own(router));
                let to = icmp.quoted.map_or(a.translated().dst, |q| q.dst);
                let known = asked || router == a.orig.dst || said.iter().any(|s| s.ends == ends);
                if known || !fits(icmp, to.is_ipv6()) {
                    continue;
                }
                let (kind, code) = (icmp.icmp_type, icmp.code);
                let text = format!(
                    "ICMP type {kind} code {code} came from {router} about a packet to {to}"
                );
                let kind = format!("icmp {kind}/{code} {router}");
                let draft = case.event(part, event, &kind, text);
                // Of a tunnel's packets `part` is the tunnel's: the attempt's own went into the device.
                let out =
                    out_of(case, a).or_else(|| Some((part.view, a.sent_on(part)?.key.ifindex)));
                said.push(Said {
                    ends,
                    router,
                    to,
                    whole: is_no_route(icmp, to.is_ipv6()),
                    node: case.placed_on(a.translated().dst, a.began()),
                    out,
                    draft,
                });
            }
        }
        Reports { said }
    }

    /// What was said about such an attempt.
    pub fn because(&self, case: &Case<'a>, a: &Attempt<'a>) -> Option<Because> {
        let said = self.find(case, a)?;
        let mut evidence = vec![said.draft.clone()];
        if said.ends != ends(a)
            && let Some((part, sight)) = left(case, a)
        {
            evidence.push(sent_draft(a, case, part, sight));
        }
        Some(Because {
            key: said.router.to_string(),
            evidence,
        })
    }

    /// It is another endpoint that something was said of.
    fn is_unsaid(&self, a: &Attempt<'_>) -> bool {
        self.said.iter().all(|s| s.ends != ends(a))
    }

    /// Who said so, and of which address.
    pub fn about(&self, case: &Case<'a>, a: &Attempt<'a>) -> Option<(IpAddr, IpAddr)> {
        self.find(case, a).map(|s| (s.router, s.to))
    }

    fn find(&self, case: &Case<'a>, a: &Attempt<'a>) -> Option<&Said<'a>> {
        let found = self.said.iter().find(|s| s.ends == ends(a));
        found
            .or_else(|| self.beside(case, a))
            .filter(|_| is_unserved(a))
    }

    /// What was said of the network of another endpoint on the same node, on the same way, where this one serves nobody.
    fn beside(&self, case: &Case<'a>, a: &Attempt<'a>) -> Option<&Said<'a>> {
        let to = a.translated().dst;
        let node = case.placed_on(to, a.began())?;
        let out = out_of(case, a)?;
        let serves = |o: &Attempt<'_>| o.translated().dst == to && o.outcome == Outcome::Ok;
        if case.attempts.iter().any(serves) {
            return None;
        }
        let same = |s: &&Said<'_>| s.whole && s.node == Some(node) && s.out == Some(out);
        self.said.iter().find(same)
    }
}

fn ends(a: &Attempt<'_>) -> (IpAddr, IpAddr) {
    (a.client(), a.translated().dst)
}

// forwarding-disabled

/// The setting that lets a packet which came in there be forwarded, and its value. IPv4 asks the interface
/// (`IN_DEV_FORWARD`), IPv6 the namespace (`ip6_forward`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv6/ip6_output.c>).
fn forwarding<'a>(l: &Lost<'a>) -> Option<(String, &'a str)> {
    let facts = l.part.node.facts.as_ref()?;
    let name = if l.tuple.dst.is_ipv6() {
        "net.ipv6.conf.all.forwarding".to_owned()
    } else {
        format!("net.ipv4.conf.{}.forwarding", l.dev()?)
    };
    let value = facts.sysctls.get(&name)?;
    Some((name, value))
}

fn forwards_not(l: &Lost<'_>) -> bool {
    l.is_on_node() && forwarding(l).is_some_and(|(_, value)| value == "0")
}

fn is_not_forwarded(l: &Lost<'_>) -> bool {
    l.is_on_node()
        && match Fate::NotForwarded.told(l.drop) {
            Told::Surely => true,
            Told::Possibly => forwards_not(l),
            Told::Not => false,
        }
}

/// The node does not forward what comes in through an interface.
pub fn forwarding_disabled(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "forwarding-disabled",
        Basis::Observed,
        |a| because(case, a, &lost(a, is_not_forwarded)),
        |of| {
            let Some(one) = lost(of[0], is_not_forwarded).into_iter().next() else {
                return Saying::new("");
            };
            let dev = one.dev().unwrap_or_default();
            let node = one.part.node;
            let mut saying = Saying {
                values: values(&one, one.tuple.dst),
                ..Saying::new(format!(
                    "{} does not forward what comes in through {dev}: it drops {} of {}",
                    node.name(),
                    one.what(),
                    full_name(case)
                ))
            };
            if let Some((name, value)) = forwarding(&one).filter(|(_, v)| *v == "0") {
                saying.summary = format!("{} ({name} = {value})", saying.summary);
                saying.evidence.push(setting_draft(one.part, &name, value));
                saying
                    .fixes
                    .push(forward_again(node, &name, &dev, one.tuple.dst));
            }
            saying
        },
    );
    forwards_for_no_pod(case, report);
}

/// The way out: the setting of the interface, or of the whole namespace where that is off.
pub(super) fn forward_again(node: &View, name: &str, dev: &str, to: IpAddr) -> Fix {
    let whole = "net.ipv4.ip_forward";
    let all = node.facts.iter().find_map(|f| f.sysctls.get(whole));
    let off = to.is_ipv4() && all.is_some_and(|v| v == "0");
    let name = if off { whole } else { name };
    Fix {
        text: format!(
            "On {}: let it forward, and find out what turned that off",
            node.name()
        ),
        // A dot may belong to the interface's name.
        command: format!("sysctl -w {}=1", path_of(name, dev)),
        changes: Changes::Node,
    }
}

/// A setting's name with slashes, where an interface that has a dot in its name (a VLAN) is part of it.
fn path_of(name: &str, dev: &str) -> String {
    match name.split_once(&format!(".{dev}.")) {
        Some((before, after)) if dev.contains('.') => {
            format!("{}/{dev}/{after}", before.replace('.', "/"))
        }
        _ => name.to_owned(),
    }
}

/// Evidence: the value of a sysctl.
pub(super) fn setting_draft(part: Part<'_>, name: &str, value: &str) -> Draft {
    let text = format!("{name} = {value}");
    Draft::of_node(part.view, part.node, format!("sysctl {name}"), text)
}

// asymmetric-return

/// The filter's setting for the interface: the greater of the interface's own and `all` counts
/// (`IN_DEV_RPFILTER`, <https://elixir.bootlin.com/linux/v6.18/source/include/linux/inetdevice.h>).
fn reverse_filter(l: &Lost<'_>) -> Option<(String, u8)> {
    let facts = l.part.node.facts.as_ref().filter(|_| l.is_on_node())?;
    let of = |dev: &str| {
        let name = format!("net.ipv4.conf.{dev}.rp_filter");
        let value = facts.sysctls.get(&name)?.parse::<u8>().ok()?;
        Some((name, value))
    };
    [of(&l.dev()?), of("all")]
        .into_iter()
        .flatten()
        .max_by_key(|(_, value)| *value)
}

fn came_wrong_way(l: &Lost<'_>) -> bool {
    match Fate::ReversePath.told(l.drop) {
        Told::Surely => true,
        Told::Possibly => {
            let filters = reverse_filter(l).is_some_and(|(_, value)| value > 0);
            let back = asked(l, l.tuple.src);
            let elsewhere =
                back.is_some_and(|b| b.errno.is_some() || b.ifindex != l.event.record.ifindex);
            filters && elsewhere
        }
        Told::Not => false,
    }
}

/// Packets come in through an interface which the route to their sender does not use, and the reverse path filter
/// drops them.
pub fn asymmetric_return(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "asymmetric-return",
        Basis::Observed,
        |a| because(case, a, &lost(a, came_wrong_way)),
        |of| {
            let Some(one) = lost(of[0], came_wrong_way).into_iter().next() else {
                return Saying::new("");
            };
            let what = if one.forward { "Packets" } else { "Answers" };
            let dev = one.dev().map_or(String::new(), |dev| format!(" through {dev}"));
            let from = one.tuple.src;
            let mut saying = Saying::new(format!(
                "{what} from {} come into {}{dev}, where its route to them does not lead: the reverse path filter drops them",
                case.name(from, of[0].began()),
                one.place(case)
            ));
            saying.values = values(&one, from);
            saying.evidence.extend(asked(&one, from).map(|l| lookup_draft(&one, l)));
            if let Some((name, value)) = reverse_filter(&one) {
                saying.evidence.push(setting_draft(one.part, &name, &value.to_string()));
            }
            saying
        },
    );
}
