//! EndpointSlices that do not follow their Pods.

use super::beyond::{left, sent_draft};
use super::proxy::waiting;
use super::service::{dialled, drop_draft, full_name};
use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::model::Time;
use crate::model::answer::{Basis, Severity};
use crate::model::objects::{Endpoint, EndpointSlice, Limit, Objects};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Longer than slices lag behind Pods where all is well: the controller writes them as soon as a Pod changes, tries again a
/// second after a failure (`defaultSyncBackOff` in `pkg/controller/endpointslice/endpointslice_controller.go` of Kubernetes),
/// and the watches of Pods and slices are not in step. Not longer than a cause has to stand on top: what is met at the address
/// would be taken for it.
const BEHIND: Duration = Duration::from_secs(2);

/// What has become of the Pod of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Drift {
    /// There is none of that name.
    Gone,
    /// It has other addresses.
    Moved(Vec<IpAddr>),
}

/// An address that slices list and the Pod named there does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stale {
    slice: String,
    pod: String,
    drift: Drift,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.drift {
            Drift::Gone => write!(f, "Pod {}, which is gone", self.pod),
            Drift::Moved(to) => {
                let to: Vec<String> = to.iter().map(ToString::to_string).collect();
                write!(f, "Pod {}, which has {} now", self.pod, to.join(", "))
            }
        }
    }
}

/// Connections go to an address that the slices still list and no Pod of theirs has any more.
pub fn stale(case: &Case<'_>, report: &mut Report) {
    let stale = addresses(case);
    let code = "endpointslice-stale";
    report.explain(
        case,
        code,
        Basis::Observed,
        |a| {
            stale.get(&a.backend()?.ip())?;
            Some(flow_to(case, a))
                .filter(|evidence| !evidence.is_empty())
                .map(|evidence| Because {
                    key: String::new(),
                    evidence,
                })
        },
        |of| {
            let to: BTreeSet<IpAddr> = of.iter().filter_map(|a| Some(a.backend()?.ip())).collect();
            let hit = stale.iter().filter(|(ip, _)| to.contains(ip)).collect();
            saying(case, &hit, "; connections still go there")
        },
    );
    if stale.is_empty() || report.found.iter().any(|f| f.code.code == code) {
        return;
    }
    let saying = saying(case, &stale.iter().collect(), "");
    report.state(case, code, Basis::Objects, Severity::Warning, saying);
}

fn saying(case: &Case<'_>, stale: &BTreeMap<&IpAddr, &Stale>, tail: &str) -> Saying {
    let each: Vec<String> = stale.iter().map(|(ip, s)| format!("{ip} of {s}")).collect();
    let each = each.join("; ");
    let service = full_name(case);
    let text = |(ip, s): (&&IpAddr, &&Stale)| {
        let since = if is_from_files(case.objects) {
            "as the objects given have it".to_owned()
        } else {
            format!("unchanged for {} s and more", BEHIND.as_secs())
        };
        let text = format!("EndpointSlice {} lists {ip} of {s}, {since}", s.slice);
        Draft::objects(format!("stale {ip}"), text)
    };
    let first = stale.values().next();
    Saying {
        evidence: stale.iter().map(text).collect(),
        values: first
            .map(|s| ("slice", s.slice.clone()))
            .into_iter()
            .collect(),
        ..Saying::new(format!(
            "EndpointSlices of {service} are behind its Pods and still list {each}{tail}"
        ))
    }
}

/// Evidence: the packet, where it was sent, and what became of it on the way. One that waits for whoever should have the
/// address has not come anywhere.
fn flow_to(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    let dropped = |(part, event, drop, _)| drop_draft(case, part, event, drop);
    let sent = left(case, a).map(|(part, sight)| sent_draft(a, case, part, sight));
    let mut evidence: Vec<Draft> = dialled(case, a).into_iter().collect();
    evidence.extend(case.translation(a));
    evidence.extend(a.drops().into_iter().map(dropped));
    evidence.extend(sent);
    evidence.extend(a.backend().and_then(|b| waiting(case, a, b.ip())));
    evidence
}

/// Addresses that have been out of date for longer than slices take to follow.
fn addresses(case: &Case<'_>) -> BTreeMap<IpAddr, Stale> {
    if !is_known(case) {
        return BTreeMap::new();
    }
    let now = case.views.iter().map(|v| v.now).max().unwrap_or_default();
    let versions = case.past.since(Time::default());
    let all = case.slice_addresses().into_iter();
    all.filter(|ip| !is_held(case, *ip))
        .filter_map(|ip| {
            let behind = |o: &&Objects| stale_in(o, ip).is_some();
            let since = versions.iter().rev().take_while(behind).last()?.time;
            let stale = stale_in(versions.last()?, ip)?;
            (now.since(since) >= BEHIND).then_some((ip, stale))
        })
        .collect()
}

/// Slices and the Pods of the namespace are known as they are now.
fn is_known(case: &Case<'_>) -> bool {
    let objects = case.objects;
    let namespace = &case.service.namespace;
    let limited = |l: &Limit| l.kind == "Pod" && !l.namespaces.contains(namespace);
    let old = |kind: &str| matches!(kind, "" | "Pod" | "EndpointSlice");
    case.service.selector.is_some()
        && (!is_from_files(objects) || has_own_pods(case))
        && objects.pods.iter().any(|p| p.namespace == *namespace)
        && !objects.limits.iter().any(limited)
        && !objects.away.iter().any(|a| old(&a.kind))
}

/// Files may hold some Pods of a namespace and not others.
fn is_from_files(objects: &Objects) -> bool {
    objects.source.starts_with("manifests")
}

/// Of the Service's own Pods one is among the objects at least: whoever chose them had these in mind.
fn has_own_pods(case: &Case<'_>) -> bool {
    let objects = case.objects;
    let listed = objects
        .slices_of(case.service)
        .flat_map(|s| s.endpoints.iter().map(|e| (&s.namespace, e)))
        .find_map(|(namespace, e)| objects.pod(namespace, e.pod.as_deref()?));
    listed.is_some() || objects.pods.iter().any(|p| case.service.selects(p))
}

/// A node has the address in a Pod that no object stands for: it is the objects that are not complete.
fn is_held(case: &Case<'_>, ip: IpAddr) -> bool {
    case.pod(ip).is_none() && case.views.iter().any(|v| v.pod(ip).is_some())
}

/// What is wrong with an address in one version of the objects, where no endpoint is right to list it.
fn stale_in(objects: &Objects, ip: IpAddr) -> Option<Stale> {
    let listed = objects.slices.iter().flat_map(|s| {
        let of_slice = s.endpoints.iter().filter(|e| e.addresses.contains(&ip));
        of_slice.map(move |e| (s, e))
    });
    let all: Option<Vec<Stale>> = listed.map(|(s, e)| drifted(objects, s, e, ip)).collect();
    all?.into_iter().next()
}

/// Only the controller's own slices promise to follow Pods.
fn drifted(
    objects: &Objects,
    slice: &EndpointSlice,
    endpoint: &Endpoint,
    ip: IpAddr,
) -> Option<Stale> {
    let name = endpoint.pod.as_ref().filter(|_| slice.by_controller)?;
    let drift = match objects.pod(&slice.namespace, name) {
        None => Drift::Gone,
        // One that has no address yet may be one whose status was not given.
        Some(pod) if !pod.ips.is_empty() && !pod.ips.contains(&ip) => Drift::Moved(pod.ips.clone()),
        Some(_) => return None,
    };
    Some(Stale {
        slice: slice.name.to_string(),
        pod: name.to_string(),
        drift,
    })
}
