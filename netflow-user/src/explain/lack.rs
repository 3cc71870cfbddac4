//! Why a Service port has no endpoint that gets traffic.

use super::endpoints::{self, ChoiceRule, Entry};
use super::pods;
use crate::model::objects::{Objects, Pod, Service, ServicePort};
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
    if !selected.is_empty() {
        let not_ready: Vec<String> = selected.iter().filter_map(|p| reason(p)).collect();
        // All ready and still no endpoint: the slices are behind or the port has no number, which is another matter.
        return (not_ready.len() == selected.len()).then_some(Lack::NotReady { pods: not_ready });
    }
    let listed: Vec<String> = objects
        .slices_of(service)
        .flat_map(|s| &s.endpoints)
        .filter_map(|e| {
            e.pod
                .clone()
                .or_else(|| e.addresses.first().map(ToString::to_string))
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

fn reason(pod: &Pod) -> Option<String> {
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
