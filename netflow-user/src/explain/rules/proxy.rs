//! The Service proxy: whether the VIP is translated, and to whom.

use super::beyond::{left, sent_draft};
use super::service::{answer_of_node, dialled, drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::endpoints::{self, Choice, ChoiceRule, Entry};
use crate::explain::evidence::Draft;
use crate::explain::fate::{Fate, Told};
use crate::explain::report::{Because, Report, Saying};
use crate::explain::rewriting;
use crate::explain::tunnel::node_behind;
use crate::explain::view::View;
use crate::flows::{ConnEvent, Leg};
use crate::model::answer::{Basis, Changes, Fix, Severity, Via};
use crate::model::flow::Direction;
use crate::model::node::ProxyService;
use crate::model::record::{Drop, Event, IcmpError, IpvsMethod, Record};
use crate::model::{CtTuples, Proto};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Under externalTrafficPolicy: Local the node drops what comes from outside, having no endpoint of its own.
pub fn no_local_endpoint(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "etp-local-no-endpoint",
        Basis::Observed,
        |a| {
            if a.is_translated() || case.entry(a) != Entry::External {
                return None;
            }
            let choices = case.choices(a, case.port_of_attempt(a)?);
            let none_local = |c: &Choice<'_>| c.rule == ChoiceRule::NoneLocal;
            let mut evidence = died_here(case, a);
            if choices.is_empty() || !choices.iter().all(none_local) || evidence.is_empty() {
                return None;
            }
            evidence.extend(dialled(case, a));
            let key = format!("{}|{}", a.parts[0].node.name(), a.orig.destination());
            Some(Because { key, evidence })
        },
        |of| {
            let a = of[0];
            let (node, service) = (a.parts[0].node.name(), full_name(case));
            let nodes: BTreeSet<&str> = endpoint_nodes(case, a).collect();
            let nodes = nodes.into_iter().collect::<Vec<_>>().join(", ");
            let summary = format!(
                "{node} drops what comes from outside to {}: {service} has externalTrafficPolicy: Local and no endpoint on this node; its endpoints are on {nodes}",
                a.orig.destination()
            );
            let text = format!(
                "{service}: externalTrafficPolicy Local, ready endpoints on {nodes}, none on {node}"
            );
            let placement = Draft::objects("placement", text);
            Saying {
                evidence: std::iter::once(placement).chain(rules_draft(a)).collect(),
                ..Saying::new(summary)
            }
        },
    );
}

/// Nodes with endpoints that could be used if the policy were not Local.
fn endpoint_nodes<'a>(case: &Case<'a>, a: &Attempt<'_>) -> impl Iterator<Item = &'a str> {
    let port = case.port_of_attempt(a);
    let ipv6 = a.orig.dst.is_ipv6();
    let (objects, service) = case.then(a.began());
    let all = port.map(|port| endpoints::backends(objects, service, port, ipv6));
    let usable = all
        .into_iter()
        .flatten()
        .filter(|b| b.endpoint.ready || b.drains());
    usable.map(|b| b.endpoint.node.as_deref().unwrap_or("an unknown node"))
}

/// Packets to the Service pass the node as they came, or die there with no rule that translates them, though there are
/// endpoints for such a client.
pub fn vip_not_translated(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "vip-not-translated",
        Basis::Observed,
        |a| {
            let port = case.port_of_attempt(a)?;
            if !case.has_choice(a, port) {
                return None;
            }
            let evidence = untranslated(case, a, is_ruled_out)?;
            Some(Because {
                key: a.orig.destination().to_string(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let node = a.parts[0].node.name();
            let to = a.orig.destination();
            let what = if left_untranslated(case, a).is_some() {
                format!("{node} sends packets to {to} on untranslated")
            } else {
                format!("Packets to {to} end on {node} untranslated")
            };
            let why = match rules_for(a) {
                RulesFor::Nothing => ": no Service proxy rule takes them",
                RulesFor::Unknown => "; its rules could not all be read",
                RulesFor::TurnAway => ": rules turn them away as if the Service had no endpoint",
                RulesFor::NotTakenIn => {
                    ": IPVS serves the address, but the node does not have it, and IPVS sees only what the node takes in"
                }
                RulesFor::Backends => ", although Service proxy rules translate them by now",
            };
            Saying {
                evidence: rules_draft(a).into_iter().collect(),
                values: vec![("client_node", node.to_owned())],
                ..Saying::new(what + why)
            }
        },
    );
}

/// Evidence: a packet to a Service address that passed the node as it came, or died there where no rule translates it, which
/// `ruled_out` tells.
pub(super) fn untranslated(
    case: &Case<'_>,
    a: &Attempt<'_>,
    ruled_out: impl Fn(&Attempt<'_>) -> bool,
) -> Option<Vec<Draft>> {
    if a.is_translated() || a.is_direct() || is_sent_as_it_is(a) {
        return None;
    }
    // What a program behind the last place makes of it is not known.
    if !rewriting::suspects(a).is_empty() {
        return None;
    }
    let mut evidence: Vec<Draft> = left_untranslated(case, a).into_iter().collect();
    if evidence.is_empty() && ruled_out(a) {
        evidence = died_here(case, a);
    }
    if evidence.is_empty() {
        return None;
    }
    evidence.extend(dialled(case, a));
    Some(evidence)
}

/// Whether the rules, as they were read last, translate nothing for what it dialled.
pub(super) fn is_ruled_out(a: &Attempt<'_>) -> bool {
    matches!(rules_for(a), RulesFor::Nothing | RulesFor::TurnAway)
}

/// IPVS chose where it goes, by a way on which nothing is translated.
fn is_sent_as_it_is(a: &Attempt<'_>) -> bool {
    let as_it_is = |e: &Event| {
        matches!(
            e,
            Event::Ipvs {
                method: IpvsMethod::Direct | IpvsMethod::Tunnel | IpvsMethod::Local,
                ..
            }
        )
    };
    a.events().any(|(_, e)| as_it_is(&e.record.event))
}

/// Evidence: a packet to a Service address that leaves an interface with its destination unchanged. Its source may be
/// another: a node masquerades what goes to no Pod of the cluster.
fn left_untranslated(case: &Case<'_>, a: &Attempt<'_>) -> Option<Draft> {
    // To a node's port it may have to go through others first.
    if a.via == Via::NodePort {
        return None;
    }
    let part = a.parts.iter().find(|p| !p.conn.is_dnat())?;
    let sight = part
        .conn
        .sights_towards(true)
        .filter(|s| {
            let to = s.key.tuple.destination();
            s.key.dir == Direction::Egress && to == a.orig.destination()
        })
        .max_by_key(|s| (s.stats.first, s.key))?;
    let dev = part.node.ifname(sight.key.ifindex).unwrap_or_default();
    let text = format!(
        "the packet to {} leaves {} through {dev} with its destination unchanged",
        a.orig.destination(),
        part.node.name()
    );
    Some(case.sight(*part, sight, "untranslated", text))
}

/// Evidence: the node's own namespace dropped or refused the packet as it was dialled.
fn died_here(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    let mut drafts = answer_of_node(case, a);
    drafts.retain(|d| {
        let view = d.view.as_ref().and_then(|(i, _)| case.views.get(*i));
        view.is_some_and(|v| d.netns == Some(v.start.netns))
    });
    // A port of the node itself that no socket has is answered by the node.
    let own_rst = |part: &Part<'_>| {
        let sight = part.conn.sights_of(Leg::Unnat).find(|s| {
            s.key.dir == Direction::Egress
                && s.stats.rst.is_some()
                && part.node.is_own(s.key.tuple.src)
        })?;
        let text = format!("{} itself answers with RST", part.node.name());
        Some(case.sight(*part, sight, "own rst", text))
    };
    drafts.extend(a.parts.iter().filter_map(own_rst));
    drafts
}

/// What the proxy rules of the nodes that an attempt crossed do with what it dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RulesFor {
    /// They lead to backends.
    Backends,
    /// IPVS would, but none of the nodes takes the packet in: its hook is where packets for the node itself come
    /// (`ip_vs_ops4`, <https://elixir.bootlin.com/linux/v6.18/source/net/netfilter/ipvs/ip_vs_core.c>).
    NotTakenIn,
    /// They only turn it away.
    TurnAway,
    /// There are none.
    Nothing,
    /// Not all rules could be read, so there may be some.
    Unknown,
}

fn rules_for(a: &Attempt<'_>) -> RulesFor {
    let d = a.orig;
    let parts = a.parts.iter();
    let rows: Vec<&ProxyService> = parts
        .flat_map(|p| p.node.proxy(d.dst, d.dport, d.proto))
        .collect();
    let mut leading = rows.iter().filter(|r| !r.backends.is_empty()).peekable();
    if leading.peek().is_some() {
        let taken_in = a.parts.iter().any(|p| p.node.is_own(d.dst));
        if leading.all(|r| r.mode == "ipvs" && !taken_in) {
            RulesFor::NotTakenIn
        } else {
            RulesFor::Backends
        }
    } else if !rows.is_empty() {
        RulesFor::TurnAway
    } else if a.parts.iter().all(|p| are_rules_read(p.node)) {
        RulesFor::Nothing
    } else {
        RulesFor::Unknown
    }
}

/// Which rule system translates what the Service's clients dial: told once for all nodes where it is the same.
pub fn mode(case: &Case<'_>, report: &mut Report) {
    let mut alike: BTreeMap<String, (Vec<&str>, Vec<Draft>)> = BTreeMap::new();
    for (i, view) in case.views.iter().enumerate() {
        let here = |a: &&Attempt<'_>| {
            let dialled = !a.is_direct();
            dialled && a.parts.first().is_some_and(|p| p.view == i)
        };
        let Some(a) = case.attempts.iter().find(here) else {
            continue;
        };
        if let Some(what) = translates(view, a) {
            let (nodes, evidence) = alike.entry(what).or_default();
            nodes.push(view.name());
            evidence.extend(rules_draft(a));
        }
    }
    for (what, (nodes, evidence)) in alike {
        let saying = Saying {
            evidence,
            ..Saying::new(format!("{}: {what}", nodes.join(", ")))
        };
        report.state(case, "proxy-mode", Basis::Observed, Severity::Info, saying);
    }
}

/// How a node translates what an attempt dialled, `None` where that is not known.
fn translates(view: &View, a: &Attempt<'_>) -> Option<String> {
    let rules = view.facts.as_ref()?.proxy.rules;
    let rows = view.proxy(a.orig.dst, a.orig.dport, a.orig.proto);
    let modes: BTreeSet<&str> = rows.iter().map(|r| r.mode.as_str()).collect();
    let all: Vec<&str> = modes.into_iter().collect();
    let cost = match all.as_slice() {
        [] => return None,
        ["iptables-legacy" | "iptables-nft"] if rules > 0 => format!(
            ", which walks its rules one by one for the first packet of each connection ({rules} for Services)"
        ),
        ["nftables"] => ", which finds a Service by one look-up for each new connection".to_owned(),
        ["ipvs"] => {
            ", which finds a Service by one look-up, and whose addresses are all local to the node"
                .to_owned()
        }
        [_] => String::new(),
        _ => {
            let all = all.join(" and ");
            return Some(format!(
                "there are rules for this Service in {all}: the first that matches decides"
            ));
        }
    };
    Some(format!("Services are translated by {}{cost}", all[0]))
}

/// Whether every rule system of the node could be read and its rules for Services followed to their end.
pub(super) fn are_rules_read(view: &View) -> bool {
    let of_rules = |what: &str| {
        [
            "nftables",
            "iptables-legacy",
            "ipvs",
            "proxy rules",
            "local addresses",
        ]
        .iter()
        .any(|part| what.starts_with(part))
    };
    view.facts
        .as_ref()
        .is_some_and(|f| !f.unread.iter().any(|u| of_rules(&u.what)))
}

/// Evidence: what the proxy rules of the client's node say of the address.
pub(super) fn rules_draft(a: &Attempt<'_>) -> Option<Draft> {
    let part = a.parts.first()?;
    let facts = part.node.facts.as_ref()?;
    let d = a.orig;
    let rows = part.node.proxy(d.dst, d.dport, d.proto);
    let text = if rows.is_empty() {
        let modes = if facts.proxy.modes.is_empty() {
            "no Service proxy rules at all".to_owned()
        } else {
            format!(
                "Service proxy rules ({}), none for {}",
                facts.proxy.modes.join(", "),
                d.destination()
            )
        };
        format!("{} has {modes}", part.node.name())
    } else {
        let row = |s: &&ProxyService| {
            let to: Vec<String> = s.backends.iter().map(ToString::to_string).collect();
            let verdict = if s.reject {
                "reject".to_owned()
            } else if s.drop {
                "drop".to_owned()
            } else {
                to.join(", ")
            };
            format!("{} {} → {verdict}", s.mode, s.place)
        };
        format!(
            "rules for {}: {}",
            d.destination(),
            rows.iter().map(row).collect::<Vec<_>>().join("; ")
        )
    };
    let mut draft = Draft::node(format!("rules {}", d.destination()), text);
    draft.time = Some(facts.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(facts.netns);
    Some(draft)
}

/// The rules do not follow the slices: a new connection was translated to what is no endpoint of the Service port.
pub fn rules_stale(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "proxy-rules-stale",
        Basis::Observed,
        |a| {
            case.slices().next()?;
            let mut evidence = former_endpoint(case, a)?;
            evidence.extend(dialled(case, a));
            Some(Because {
                key: String::new(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let node = a.parts[0].node.name();
            let dialled = a.orig.destination();
            let to: BTreeSet<SocketAddr> =
                of.iter().map(|a| a.translated().destination()).collect();
            let to = list(&to);
            let service = full_name(case);
            let summary = format!(
                "{node} still sends new connections for {dialled} to {to}, no endpoint of {service} any more"
            );
            let known = case
                .port_of_attempt(a)
                .map(|p| case.slice_targets(p))
                .unwrap_or_default();
            let text = format!("EndpointSlices of {service} hold {}", list(&known));
            let slices = Draft::objects("slices", text);
            let evidence = std::iter::once(slices).chain(rules_draft(a)).collect();
            Saying {
                evidence,
                values: vec![("client_node", node.to_owned())],
                ..Saying::new(summary)
            }
        },
    );
}

/// Evidence: today's rules sent it to an address and port that no version of the slices had for a while.
fn former_endpoint(case: &Case<'_>, a: &Attempt<'_>) -> Option<Vec<Draft>> {
    if a.via == Via::Pod {
        return None;
    }
    let port = case.port_of_attempt(a)?;
    let ct = a.nat().filter(CtTuples::is_dnat)?;
    let to = ct.translated().destination();
    if case.usable(a, port).contains(&to) || !(is_new(a, &ct) || is_ruled(a, to)) {
        return None;
    }
    Some(sent_to(case, a))
}

/// Evidence: the backend that was chosen.
pub(super) fn sent_to(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    let mut evidence: Vec<Draft> = case.translation(a).into_iter().collect();
    // A drop carries the conntrack entry as well: it proves the same.
    for (part, event, drop, _) in a.drops() {
        evidence.push(drop_draft(case, part, event, drop));
    }
    evidence
}

/// Today's rules made the entry: it never got into the table, or was announced as new or came up while we looked, and was not
/// there when we began. (One-way UDP stays new for conntrack, however old its entry.) What IPVS remembers by itself is not
/// listed: there a SYN must show that the connection is new.
pub(super) fn is_new(a: &Attempt<'_>, ct: &CtTuples) -> bool {
    let untracked = a.parts.iter().any(|p| p.conn.is_untracked());
    let began_here = |p: &Part<'_>| {
        let stood = p.node.before.iter().flat_map(|f| &f.conntrack.entries);
        let begun = p.conn.opened && p.conn.began >= p.node.start.time;
        (p.conn.ct_new || begun)
            && (!untracked || ct.orig.proto == Proto::TCP)
            && !stood
                .map(|e| e.tuples)
                .any(|t| (t.orig, t.reply) == (ct.orig, ct.reply))
    };
    (!untracked && !ct.status.confirmed()) || a.parts.iter().any(began_here)
}

/// Whether the rules of a node that saw the attempt would choose this target today, too.
pub(super) fn is_ruled(a: &Attempt<'_>, to: SocketAddr) -> bool {
    let dialled = a.orig;
    a.parts.iter().any(|p| {
        let rows = p.node.proxy(dialled.dst, dialled.dport, dialled.proto);
        rows.iter().any(|r| r.backends.contains(&to))
    })
}

/// The chosen endpoint does not exist: nobody answers for its address, and no Pod holds it.
pub fn backend_gone(case: &Case<'_>, report: &mut Report) {
    let said = Unreachable::of(case);
    report.explain(
        case,
        "backend-gone",
        Basis::Observed,
        |a| {
            let backend = a.backend()?.ip();
            let mut evidence = said.proof(case, a);
            if evidence.is_empty() {
                evidence.extend(said.awaited(case, a));
            }
            if evidence.is_empty() {
                return None;
            }
            evidence.extend(case.translation(a));
            let key = if case.was_asked(backend, a.began()) { "asked" } else { "" };
            Some(Because {
                key: key.to_owned(),
                evidence,
            })
        },
        |of| {
            let (proved, silent): (Vec<&Attempt<'_>>, Vec<_>) =
                of.iter().partition(|a| !said.proof(case, a).is_empty());
            let (gone, silent) = (backends(&proved), backends(&silent));
            let evidence = gone.iter().map(|ip| objects_draft(case, *ip)).collect();
            let asked = gone.iter().all(|ip| case.was_asked(*ip, of[0].began()));
            let what = if asked {
                "which no Pod holds any more"
            } else {
                "for which nobody answers on its own network: no Pod holds it any more, or its node is down"
            };
            let others = if silent.is_empty() {
                String::new()
            } else {
                format!("; {} on the same node met silence, too", list(&silent))
            };
            let summary = format!(
                "Connections of {} go to {}, {what}{others}",
                full_name(case),
                list(&gone)
            );
            let fixes = if asked {
                gone.iter().filter_map(|ip| remove_pod(case, *ip)).collect()
            } else {
                Vec::new()
            };
            Saying {
                evidence,
                fixes,
                ..Saying::new(summary)
            }
        },
    );
}

/// What was said in ICMP of backends. A router sends only so many errors to one address
/// (`icmp_ratelimit`, <https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/ip-sysctl.rst>): what it says
/// of one attempt holds for the others, and what it has not said yet of other endpoints on the same node may come.
struct Unreachable<'a> {
    said: HashMap<IpAddr, Vec<Draft>>,
    /// Nodes of those backends.
    nodes: BTreeSet<&'a str>,
    /// Backends that served somebody.
    alive: BTreeSet<IpAddr>,
}

impl<'a> Unreachable<'a> {
    fn of(case: &Case<'a>) -> Unreachable<'a> {
        let mut all = Unreachable {
            said: HashMap::new(),
            nodes: BTreeSet::new(),
            alive: BTreeSet::new(),
        };
        for a in &case.attempts {
            let Some(backend) = a.backend().map(|b| b.ip()) else {
                continue;
            };
            if a.outcome == Outcome::Ok {
                all.alive.insert(backend);
            }
            if held(case, backend) || all.said.contains_key(&backend) {
                continue;
            }
            let drafts = said_unreachable(case, a, backend);
            if !drafts.is_empty() {
                all.nodes.extend(case.placed_on(backend, a.began()));
                all.said.insert(backend, drafts);
            }
        }
        all
    }

    /// Evidence that nobody holds the address of the backend chosen.
    fn proof(&self, case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
        let Some(backend) = a.backend().map(|b| b.ip()).filter(|b| !held(case, *b)) else {
            return Vec::new();
        };
        let mut evidence: Vec<Draft> = Vec::new();
        for (part, event, drop, leg) in a.drops() {
            if leg.is_forward()
                && (is_neighbor_failure(drop) && is_on_link(a, part, event.record.netns, backend)
                    || is_route_failure(drop) && belongs_to(case, a, part, backend))
            {
                evidence.push(drop_draft(case, part, event, drop));
            }
        }
        evidence.extend(sent_away(case, a, backend));
        let said = self.said.get(&backend).filter(|_| is_unserved(a));
        evidence.extend(said.into_iter().flatten().cloned());
        evidence.extend(waiting(case, a, backend));
        evidence.extend(silent_neighbors(a));
        evidence
    }

    /// Evidence: the attempt left for another endpoint of such a node, which that node does not say anything of.
    fn awaited(&self, case: &Case<'_>, a: &Attempt<'_>) -> Option<Draft> {
        let backend = a.backend()?.ip();
        let told = self.said.contains_key(&backend) || self.alive.contains(&backend);
        let node = case.placed_on(backend, a.began())?;
        if told || !self.nodes.contains(node) || case.was_asked(backend, a.began()) {
            return None;
        }
        let (part, sight) = left(case, a)?;
        Some(sent_draft(a, case, part, sight))
    }
}

fn backends(of: &[&Attempt<'_>]) -> BTreeSet<IpAddr> {
    of.iter()
        .filter_map(|a| a.backend().map(|b| b.ip()))
        .collect()
}

fn is_unserved(a: &Attempt<'_>) -> bool {
    matches!(a.outcome, Outcome::Unreachable | Outcome::Timeout)
}

/// The way out where the Pod's node was asked and does not have it.
fn remove_pod(case: &Case<'_>, ip: IpAddr) -> Option<Fix> {
    let pod = case.pod(ip)?;
    Some(Fix {
        text: "Remove the Pod object that stands for nothing, so that its endpoint goes".to_owned(),
        command: case.command(
            "kubectl delete pod {pod} -n {ns}",
            &[("pod", &pod.name), ("ns", &pod.namespace)],
        ),
        changes: Changes::Cluster,
    })
}

/// Evidence: the backend's own node says that it does not reach the address, or any router does where that node was asked
/// and does not have it. What other routers say may concern the way to the node.
fn said_unreachable(case: &Case<'_>, a: &Attempt<'_>, backend: IpAddr) -> Vec<Draft> {
    if !is_unserved(a) {
        return Vec::new();
    }
    let node = case.placed_on(backend, a.began());
    let asked = case.was_asked(backend, a.began());
    let is_its_node = |part: Part<'_>, from: IpAddr| {
        let sender = case
            .node_with(from)
            .or_else(|| node_behind(case, part, from));
        node.is_some() && sender == node
    };
    a.icmp()
        .filter(|(_, _, icmp)| is_host_unreachable(icmp, backend.is_ipv6()))
        .filter_map(|(part, event, icmp)| {
            let from = event.record.tuple?.src;
            let trusted = is_its_node(part, from) || asked && !is_next_hop_lost(a, part, backend);
            let (kind, code) = (icmp.icmp_type, icmp.code);
            let text = format!("ICMP type {kind} code {code} (unreachable) came from {from}");
            trusted.then(|| case.event(part, event, &format!("icmp {kind}/{code}"), text))
        })
        .collect()
}

/// Whether the part's node itself could not resolve the router on the way to the backend.
fn is_next_hop_lost(a: &Attempt<'_>, part: Part<'_>, backend: IpAddr) -> bool {
    a.drops().into_iter().any(|(p, event, drop, leg)| {
        p.view == part.view
            && leg.is_forward()
            && is_neighbor_failure(drop)
            && !is_on_link(a, p, event.record.netns, backend)
    })
}

/// Whether the neighbour that a packet to the backend waits for in this namespace is the backend itself: the kernel's
/// route to it names no router, or the kernel asked the link for this very address.
fn is_on_link(a: &Attempt<'_>, part: Part<'_>, netns: u32, backend: IpAddr) -> bool {
    let lookups = part.node.facts.iter().flat_map(|f| &f.lookups);
    let mut of_route = lookups.filter(|l| l.netns == netns && l.dst == backend);
    if let Some(route) = of_route.next() {
        return route.errno.is_none() && route.via.is_none();
    }
    let asked_link = |r: &Record| match r.event {
        Event::NeighborFailed { ip } | Event::NeighborWait { ip, .. } => {
            r.netns == netns && ip == backend
        }
        _ => false,
    };
    part.node.loose.iter().any(|(_, r)| asked_link(r))
        || a.events().any(|(_, e)| asked_link(&e.record))
        || netns == part.node.start.netns && unresolved(a, part, backend).is_some()
}

/// Evidence: what the objects still say of an address that nobody holds.
fn objects_draft(case: &Case<'_>, ip: IpAddr) -> Draft {
    let listed = if case.slice_addresses().contains(&ip) {
        "an EndpointSlice lists"
    } else {
        "no EndpointSlice lists"
    };
    let pod = case.pod(ip).map_or_else(
        || "no Pod object has it".to_owned(),
        |p| format!("Pod object {}/{} still has it", p.namespace, p.name),
    );
    Draft::objects(format!("gone {ip}"), format!("{listed} {ip}; {pod}"))
}

pub(super) fn list<T: ToString>(all: &BTreeSet<T>) -> String {
    all.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether a node that was asked has the address, itself or in a Pod. Objects do not decide it: they outlive Pods.
fn held(case: &Case<'_>, ip: IpAddr) -> bool {
    case.views
        .iter()
        .any(|v| v.pod(ip).is_some() || v.is_own(ip))
}

/// ICMP host unreachable, ICMPv6 address unreachable: the last router asked for the address and nobody answered.
fn is_host_unreachable(icmp: &IcmpError, v6: bool) -> bool {
    (icmp.icmp_type, icmp.code) == if v6 { (1, 3) } else { (3, 1) }
}

fn is_neighbor_failure(drop: &Drop) -> bool {
    Fate::NeighborFailed.told(drop) == Told::Surely
}

/// Evidence: the packet waits for the backend's link-layer address, and never left. The kernel drops it only after the last
/// unanswered request, seconds later.
pub(super) fn waiting(case: &Case<'_>, a: &Attempt<'_>, backend: IpAddr) -> Option<Draft> {
    if !a.outcome.is_failure() || a.parts.iter().any(|p| a.sent_on(*p).is_some()) {
        return None;
    }
    let is_wait =
        |e: &ConnEvent| matches!(e.record.event, Event::NeighborWait { ip, .. } if ip == backend);
    let (part, event) = a.events().find(|(_, e)| is_wait(e))?;
    let text = format!("the packet to {backend} waits for a neighbour that does not answer");
    Some(case.event(part, event, &format!("waits {backend}"), text))
}

/// No route, or one that refuses: what is left of a Pod where its CNI gave it a route of its own.
fn is_route_failure(drop: &Drop) -> bool {
    Fate::NoRoute.told(drop) > Told::Not
}

/// The objects place the endpoint on the node that saw this, or no longer know it: then the node, which holds no such
/// Pod, is the place to look for it. To another node's Pod a route is missing.
fn belongs_to(case: &Case<'_>, a: &Attempt<'_>, part: Part<'_>, ip: IpAddr) -> bool {
    let placed = case.placed_on(ip, a.began());
    placed.is_none_or(|node| node == part.node.name())
}

/// Evidence: the node on which the endpoint should be sends its packets out again, the way that everything takes for
/// which it has no route of its own.
fn sent_away(case: &Case<'_>, a: &Attempt<'_>, ip: IpAddr) -> Option<Draft> {
    let at_home =
        |p: &Part<'_>| belongs_to(case, a, *p, ip) && case.placed_on(ip, a.began()).is_some();
    let part = a.parts.iter().copied().find(at_home)?;
    let facts = part.node.facts.as_ref()?;
    let out: BTreeSet<u32> = facts
        .routes
        .iter()
        .filter(|r| r.prefix == 0 && r.dst.is_ipv4() == ip.is_ipv4())
        .flat_map(|r| r.nexthops.iter().map(|n| n.ifindex).chain([r.ifindex]))
        .collect();
    // Chosen by a default route, not by one for a network that the uplink happens to share with Pods.
    let lookup = facts
        .lookups
        .iter()
        .find(|l| l.netns == facts.netns && l.dst == ip)?;
    let gateway = facts
        .routes
        .iter()
        .any(|r| r.prefix == 0 && r.via.is_some() && r.via == lookup.via);
    let silent = a.heard_backend(part).is_none() && a.outcome != Outcome::Ok;
    if !gateway || !out.contains(&lookup.ifindex) || !silent {
        return None;
    }
    let text = format!(
        "{} should hold {ip} and sends its packets out through {}, by its default route",
        part.node.name(),
        part.node.ifname(lookup.ifindex).unwrap_or_default()
    );
    // A gateway that sends them back makes new connections of them, which then are what the packets belong to.
    let Some(sight) = a.sent_on(part) else {
        let mut draft = Draft::node(format!("sent away {ip}"), text);
        draft.time = Some(facts.time);
        draft.view = Some((part.view, part.node.name().to_owned()));
        draft.netns = Some(facts.netns);
        draft.ifname = part.node.ifname(lookup.ifindex);
        return Some(draft);
    };
    Some(case.sight(part, sight, "sent away", text))
}

/// Evidence: the neighbour entry of the backend failed.
fn silent_neighbors(a: &Attempt<'_>) -> Vec<Draft> {
    let Some(ip) = a.backend().map(|b| b.ip()) else {
        return Vec::new();
    };
    let of_part = |part: &Part<'_>| -> Vec<Draft> {
        let failed = |r: &Record| matches!(r.event, Event::NeighborFailed { ip: n } if n == ip);
        let during = part
            .node
            .loose
            .iter()
            .filter(|(_, r)| failed(r) && r.time >= a.began());
        during
            .map(|(cite, record)| {
                let text = format!("nobody answered the neighbour request for {ip}");
                let mut draft = Draft::node(format!("neighbor {ip}"), text);
                draft.time = Some(record.time);
                draft.view = Some((part.view, part.node.name().to_owned()));
                draft.netns = Some(record.netns);
                draft.ifname = part.node.ifname(record.ifindex);
                draft.hook = Some("neigh_timer_handler".to_owned());
                draft.tuple = Some(a.translated());
                draft.cites = vec![*cite];
                draft
            })
            .collect()
    };
    let mut drafts: Vec<Draft> = a.parts.iter().flat_map(of_part).collect();
    drafts.extend(a.parts.iter().filter_map(|p| unresolved(a, *p, ip)));
    drafts
}

/// Evidence: the neighbour table has no link-layer address for the backend, though packets wait for it.
fn unresolved(a: &Attempt<'_>, part: Part<'_>, ip: IpAddr) -> Option<Draft> {
    let facts = part.node.facts.as_ref()?;
    let asked = |state: &str| matches!(state, "incomplete" | "failed");
    let entry = facts
        .neighbors
        .iter()
        .find(|n| n.ip == ip && asked(&n.state))?;
    let text = format!("neighbour {ip} is {}: it does not answer", entry.state);
    let mut draft = Draft::node(format!("neighbor table {ip}"), text);
    draft.time = Some(facts.time);
    draft.view = Some((part.view, part.node.name().to_owned()));
    draft.netns = Some(facts.netns);
    draft.ifname = part.node.ifname(entry.ifindex);
    draft.tuple = Some(a.translated());
    Some(draft)
}
