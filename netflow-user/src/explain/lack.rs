//! Why a Service port has no endpoint that gets traffic.

use super::endpoints::{self, ChoiceRule, Entry};
use super::pods;
use crate::model::objects::{ContainerPort, Objects, Pod, Service, ServicePort};
use std::fmt;

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The selector matches no Pod.
    Selector {
        /// The selector, as `key=value,…`.
        selector: String,
        /// The Pod that comes nearest and what differs.
        nearest: Option<String>,
    },
    /// Pods match, none is ready.
    NotReady {
        /// Each with its reason.
        pods: Vec<String>,
    },
    /// Pods are ready, and none has a port of the name that targetPort gives.
    PortName {
        /// The name.
        name: String,
        /// What each declares instead.
        pods: Vec<String>,
    },
}

impl Lack {
    /// The selector is to blame.
    pub fn is_selector(&self) -> bool {
        matches!(self, Lack::Selector { .. })
    }
    /// Readiness is to blame.
    pub fn is_not_ready(&self) -> bool {
        matches!(self, Lack::NotReady { .. })
    }
    /// The name of the target port is to blame.
    pub fn is_port_name(&self) -> bool {
        matches!(self, Lack::PortName { .. })
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Selector {
                selector,
                nearest: Some(near),
            } => {
                write!(f, "no Pod matches its selector {selector}; nearest: {near}")
            }
            Lack::Selector {
                selector,
                nearest: None,
            } => write!(f, "no Pod matches its selector {selector}"),
            Lack::NotReady { pods } => write!(f, "no Pod is ready: {}", pods.join("; ")),
            Lack::PortName { name, pods } => write!(
                f,
                "its targetPort {name} names no container port of its ready Pods: {}",
                pods.join("; ")
            ),
        }
    }
}

/// Whether an endpoint of the port, on whatever node and in whatever family, can get traffic.
fn is_served(objects: &Objects, service: &Service, port: &ServicePort) -> bool {
    [false, true].into_iter().any(|v6| {
        let choice = endpoints::choose(objects, service, port, v6, Entry::Internal, None);
        choice.rule != ChoiceRule::Nothing
    })
}

/// `None` if the port has an endpoint that can be used (a client of another node or family may still find none), or if objects cannot tell why it has none: a Service without
/// selector has its endpoints from somebody else, and Pods that were not given cannot be blamed.
pub fn lack(objects: &Objects, service: &Service, port: &ServicePort) -> Option<Lack> {
    if is_served(objects, service, port) || service.external_name.is_some() {
        return None;
    }
    let wanted = service.selector.as_ref().filter(|s| !s.is_empty())?;
    let selected = pods::selected(objects, service);
    let mut endpoints = objects.slices_of(service).flat_map(|s| &s.endpoints);
    // No proxy but DNS leads to the Pods of a headless Service: whether they are ready matters there.
    if service.headless && (!selected.is_empty() || endpoints.next().is_some()) {
        return None;
    }
    if !selected.is_empty() {
        let not_ready: Vec<String> = selected.iter().filter_map(|p| unready(p)).collect();
        if not_ready.len() == selected.len() {
            return Some(Lack::NotReady { pods: not_ready });
        }
        // A port that they have and still no endpoint: the slices are behind, which is another matter.
        return port_name(&selected, port);
    }
    let listed: Vec<String> = objects
        .slices_of(service)
        .flat_map(|s| &s.endpoints)
        .filter_map(|e| {
            let pod = e.pod.as_deref().map(str::to_owned);
            pod.or_else(|| e.addresses.first().map(ToString::to_string))
        })
        .collect();
    if !listed.is_empty() {
        return Some(Lack::NotReady {
            pods: listed
                .into_iter()
                .map(|p| format!("{p} (its Pod is not known)"))
                .collect(),
        });
    }
    if objects.unknown_kinds.iter().any(|k| k == "Pod") {
        return None;
    }
    let selector = wanted
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",");
    let nearest = pods::nearest(objects, service).map(|n| {
        let misses: Vec<String> = n.misses.iter().map(ToString::to_string).collect();
        format!(
            "{}/{}, where {}",
            n.pod.namespace,
            n.pod.name,
            misses.join(" and ")
        )
    });
    Some(Lack::Selector { selector, nearest })
}

/// Ready Pods of which none has the target port by its name. The endpoints controller leaves such a port out of the slice
/// (`getEndpointPorts`, kubernetes/staging/src/k8s.io/endpointslice/utils.go).
fn port_name(selected: &[&Pod], port: &ServicePort) -> Option<Lack> {
    let ready = selected.iter().filter(|p| pods::not_ready(p).is_none());
    let missing: Option<Vec<(&Pod, pods::Unresolved<'_>)>> = ready
        .map(|p| Some((*p, pods::target(p, port).err()?)))
        .collect();
    let missing = missing.filter(|m| !m.is_empty())?;
    Some(Lack::PortName {
        name: missing[0].1.name.to_owned(),
        pods: missing.iter().map(|(p, miss)| declares(p, miss)).collect(),
    })
}

/// What a Pod declares in place of a name that it does not have.
fn declares(pod: &Pod, miss: &pods::Unresolved<'_>) -> String {
    let number = |p: &ContainerPort| format!("{}/{}", p.port, p.proto);
    if let Some(other) = miss.other_proto {
        return format!("{} has that name for {} only", pod.name, number(other));
    }
    let named: Vec<String> = miss
        .named
        .iter()
        .map(|p| format!("{} ({})", p.name, number(p)))
        .collect();
    let nameless: Vec<String> = pod.ports.iter().map(number).collect();
    let declared = match (named.is_empty(), nameless.is_empty()) {
        (false, _) => format!("the names {}", named.join(", ")),
        (true, false) => format!("{}, without a name", nameless.join(", ")),
        (true, true) => "no port at all".to_owned(),
    };
    format!("{} declares {declared}", pod.name)
}

/// Why a Pod is not ready, in words; `None` = it is.
pub fn unready(pod: &Pod) -> Option<String> {
    let why = pods::not_ready(pod)?;
    let mut text = format!("{} ({}", pod.name, why.condition);
    if why.condition != "Deleting" {
        text.push_str(" is not True");
    }
    for detail in std::iter::once(why.reason.to_owned())
        .chain(
            why.containers
                .iter()
                .map(|(c, r)| format!("container {c}: {r}")),
        )
        .filter(|d| !d.is_empty())
    {
        text.push_str(", ");
        text.push_str(&detail);
    }
    text.push(')');
    Some(text)
}
