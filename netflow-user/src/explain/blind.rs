//! What could not be seen and so might change the answer.

mod clocks;
mod flowtable;
mod past;
mod rewriting;
mod sockets;

use super::attempt::{Attempt, Outcome};
use super::case::Case;
use super::view::View;
use crate::model::Proto;
use crate::model::answer::{Blind, Via};
use crate::model::capability::{Capability, TierStatus};
use crate::model::feed::{Silence, Silent};
use crate::model::objects::{Away, Limit, Objects};
use std::collections::BTreeMap;

/// What the answer rests on.
pub struct Told<'a> {
    /// What each node told.
    pub views: &'a [View],
    /// Nodes that told nothing, or nothing more.
    pub silent: &'a BTreeMap<String, Silent>,
    /// Kubernetes objects.
    pub objects: &'a Objects,
}

/// Blind spots of the nodes, and of this case where a Service was found. Where the cause is `proved` on packets, a better
/// tier would not change it, so the tiers are left to `doctor`.
pub fn spots(told: &Told<'_>, case: Option<&Case<'_>>, proved: bool) -> Vec<Blind> {
    let Told {
        views,
        silent,
        objects,
    } = told;
    let mut all: Vec<Blind> = silent.values().map(of_silent).collect();
    all.extend(clocks::apart(views));
    all.extend(views.iter().flat_map(past::on_node));
    all.extend(views.iter().flat_map(of_node));
    if !proved {
        all.extend(views.iter().flat_map(of_tiers));
    }
    if let Some(case) = case {
        for (index, view) in case.views.iter().enumerate() {
            all.extend(flowtable::on_node(case, index, view, proved));
            all.extend(rewriting::on_node(case, index, view));
            all.extend(sockets::on_node(case, index, view));
        }
        all.extend(of_case(case, silent));
    }
    all.extend(objects_unknown(objects));
    all
}

fn of_silent(silent: &Silent) -> Blind {
    let Silent { node, kind, why } = silent;
    let code = match kind {
        Silence::Absent => "node-without-agent",
        Silence::Timeout => "node-silent",
    };
    Blind {
        code: code.to_owned(),
        node: node.clone(),
        capability: "flow".to_owned(),
        text: format!("{why}: what it did not tell is not known"),
    }
}

fn of_node(view: &View) -> Vec<Blind> {
    let blind = |code: String, capability: String, text: String| Blind {
        code,
        node: view.name().to_owned(),
        capability,
        text,
    };
    let lost = view.lost.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| {
        blind(
            "records-lost".to_owned(),
            kind.clone(),
            format!("{n} records of kind {kind} were lost"),
        )
    });
    let unread = view.facts.iter().flat_map(|f| &f.unread).map(|u| {
        blind(
            "unread".to_owned(),
            u.what.clone(),
            format!("{} could not be read: {}", u.what, u.why),
        )
    });
    let evicted = (view.table.evicted() > 0).then(|| {
        let n = view.table.evicted();
        blind(
            "connections-evicted".to_owned(),
            "flow".to_owned(),
            format!("{n} connections were dropped for want of room"),
        )
    });
    let skipped: u64 = view.connections().map(|c| c.events_skipped).sum();
    let skipped = (skipped > 0).then(|| {
        blind(
            "records-skipped".to_owned(),
            "flow".to_owned(),
            format!(
                "{skipped} records of connections that had many of the same kind were not kept"
            ),
        )
    });
    let unjoined = (view.table.unjoined() > 0).then(|| {
        let n = view.table.unjoined();
        blind(
            "records-unjoined".to_owned(),
            "flow".to_owned(),
            format!("{n} ICMP errors quote packets of connections that nothing else told of"),
        )
    });
    lost.chain(unread)
        .chain(evicted)
        .chain(skipped)
        .chain(unjoined)
        .collect()
}

/// What a lower tier loses. IPVS concerns only a node that runs it.
fn of_tiers(view: &View) -> Vec<Blind> {
    let ipvs = view
        .facts
        .iter()
        .any(|f| f.proxy.modes.iter().any(|m| m == "ipvs"));
    let concerns = |t: &&TierStatus| {
        !t.best && !t.lost.is_empty() && (ipvs || t.capability != Capability::Ipvs)
    };
    view.start
        .tiers
        .iter()
        .filter(concerns)
        .map(|t| {
            let name = t.capability.name();
            let code = t.tier.as_ref().map_or_else(
                || format!("no-{name}"),
                |tier| format!("{name}-by-{}", tier.replace(['_', ':'], "-")),
            );
            Blind {
                code,
                node: view.name().to_owned(),
                capability: name.to_owned(),
                text: t.lost.clone(),
            }
        })
        .collect()
}

fn of_case(case: &Case<'_>, silent: &BTreeMap<String, Silent>) -> Vec<Blind> {
    let mut all = Vec::new();
    let blind = |code: &str, capability: &str, text: String| Blind {
        code: code.to_owned(),
        node: String::new(),
        capability: capability.to_owned(),
        text,
    };
    if !case.attempts.iter().any(|a| a.via == Via::Pod) {
        let text = "No traffic went to a Pod's own address, so the VIP path could not be compared with the direct one";
        all.push(blind("no-pod-ip-traffic", "flow", text.to_owned()));
    }
    for port in &case.one_way {
        let text = format!(
            "UDP port {port} never answered anybody, and no error was seen: whether it should answer is not known (syslog and statsd never do)"
        );
        all.push(blind("never-answers", "flow", text));
    }
    if case.attempts.iter().any(|a| a.orig.proto == Proto::SCTP) {
        let text = "SCTP chunks are not read: whether an answer accepts or aborts is not known";
        all.push(blind("sctp-answers", "flow", text.to_owned()));
    }
    let mut missing: Vec<String> = case
        .attempts
        .iter()
        .filter(|a| a.outcome.is_failure())
        .filter_map(Attempt::backend)
        .filter(|b| !case.views.iter().any(|v| case.is_local(v, b.ip())))
        .map(|b| {
            case.pod(b.ip())
                .and_then(|p| p.node.as_deref())
                .map_or_else(|| b.ip().to_string(), str::to_owned)
        })
        .collect();
    missing.retain(|node| !silent.contains_key(node));
    missing.sort();
    missing.dedup();
    let refused = case.attempts.iter().any(|a| a.outcome == Outcome::Refused);
    for node in missing {
        let mut text = format!(
            "{node} was not asked: what happened there, and the sockets of its Pods, are not known"
        );
        if refused {
            text.push_str(
                "; a rule there that rejects looks from here like a port on which nothing listens",
            );
        }
        all.push(blind("node-not-asked", "flow", text));
    }
    all
}

/// What the source of the objects could not tell, and since when it tells nothing.
fn objects_unknown(objects: &Objects) -> Vec<Blind> {
    let of_kind = |code: &str, kind: &str, text: String| Blind {
        code: code.to_owned(),
        node: String::new(),
        capability: kind.to_owned(),
        text,
    };
    let limit = |kind: &str| objects.limits.iter().find(|l| l.kind == kind);
    let mut all = Vec::new();
    for kind in &objects.unknown_kinds {
        let text = match limit(kind) {
            Some(l) => format!("Objects of kind {kind} may not be read: {}", l.why),
            None => format!("No object of kind {kind} was given: none can be told from unknown"),
        };
        all.push(of_kind("objects-unknown", kind, text));
    }
    for Limit {
        kind,
        namespaces,
        why,
    } in &objects.limits
    {
        if !namespaces.is_empty() {
            let text = format!(
                "Objects of kind {kind} may be read in {} alone: {why}",
                namespaces.join(", ")
            );
            all.push(of_kind("objects-limited", kind, text));
        }
    }
    for Away { kind, since, why } in &objects.away {
        let text = if kind.is_empty() {
            format!(
                "The API server has not answered since {since}: names and endpoints are as they were then ({why})"
            )
        } else {
            format!("Objects of kind {kind} are as they were at {since}: {why}")
        };
        all.push(of_kind("objects-old", kind, text));
    }
    all
}
