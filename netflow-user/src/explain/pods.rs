//! Why a Service has the Pods that it has: its selector, their readiness, their ports.

use super::selector::{self, LabelMiss};
use crate::model::Proto;
use crate::model::objects::{ContainerPort, Objects, Pod, Service, ServicePort, TargetPort};
use crate::model::shared::Name;
use crate::model::spelling::distance;
use std::collections::BTreeSet;

/// Pods that a Service's selector matches, finished ones left out as the endpoints controller does. A Service without
/// selector has none.
pub fn selected<'a>(objects: &'a Objects, service: &'a Service) -> Vec<&'a Pod> {
    objects
        .pods
        .iter()
        .filter(|p| service.selects(p) && !p.is_finished())
        .collect()
}

/// Pods of other namespaces that the selector would match: a Service reaches only its own.
pub fn selected_elsewhere<'a>(objects: &'a Objects, service: &'a Service) -> Vec<&'a Pod> {
    objects
        .pods
        .iter()
        .filter(|p| {
            p.namespace != service.namespace
                && service.selects_labels(&p.labels)
                && !p.is_finished()
        })
        .collect()
}

/// The Pod that comes closest to a selector which matches none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest<'a> {
    /// The Pod.
    pub pod: &'a Pod,
    /// What keeps it out: labels that differ. Never empty.
    pub misses: Vec<LabelMiss>,
}

/// The Pod of the Service's namespace that misses the selector by least. Among equals: one that has the key with
/// another value, that declares the target port, that is named like the Service, whose value is spelt alike.
pub fn nearest<'a>(objects: &'a Objects, service: &Service) -> Option<Nearest<'a>> {
    let wanted = service.selector.as_ref()?;
    objects
        .pods
        .iter()
        .filter(|p| p.namespace == service.namespace && !p.is_finished())
        .map(|pod| Nearest {
            pod,
            misses: selector::label_misses(wanted, &pod.labels),
        })
        .filter(|n| !n.misses.is_empty())
        .min_by_key(|n| {
            let absent = n.misses.iter().filter(|m| m.found.is_none()).count();
            let spelling: usize = n
                .misses
                .iter()
                .map(|m| {
                    let value = wanted.get(&m.key).map_or("", Name::as_str);
                    distance(value, m.found.as_deref().unwrap_or_default())
                })
                .sum();
            (
                n.misses.len(),
                absent,
                !serves(n.pod, service),
                !named_like(n.pod, service),
                spelling,
                &n.pod.name,
            )
        })
}

fn serves(pod: &Pod, service: &Service) -> bool {
    service.ports.iter().any(|p| match target(pod, p) {
        Ok(number) => declares(pod, number, p.proto),
        Err(_) => false,
    })
}

fn named_like(pod: &Pod, service: &Service) -> bool {
    let owner = pod.owner.as_deref().and_then(|o| o.split('/').nth(1));
    pod.name.starts_with(&service.name)
        || owner.is_some_and(|o| o.starts_with(&service.name))
        || pod.labels.values().any(|v| *v == service.name)
}

/// Why a Pod is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady<'a> {
    /// The first condition on the way to readiness that does not hold (`PodScheduled`, `Initialized`,
    /// `ContainersReady`, `Ready`), or `Deleting`.
    pub condition: &'a str,
    /// Its reason and message; empty where none is given.
    pub reason: &'a str,
    /// Containers that are not ready, with their waiting or terminated reason.
    pub containers: &'a [(Name, Name)],
}

/// Why a Pod is not ready; `None` = it is.
pub fn not_ready(pod: &Pod) -> Option<NotReady<'_>> {
    // In the order in which the kubelet sets them.
    const ON_THE_WAY: [&str; 3] = ["PodScheduled", "Initialized", "ContainersReady"];
    let why = |condition, reason| {
        Some(NotReady {
            condition,
            reason,
            containers: &pod.unready_containers,
        })
    };
    if pod.deleting {
        return why("Deleting", "");
    }
    if pod.is_ready() {
        return None;
    }
    for condition in ON_THE_WAY {
        if let Some(c) = pod.conditions.get(condition)
            && !c.status
        {
            return why(condition, &c.reason);
        }
    }
    // Everything on the way holds: a readiness gate, or no condition was reported at all.
    let reason = pod.conditions.get("Ready").map_or("", |c| &c.reason);
    why("Ready", reason)
}

/// A targetPort name that a Pod does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved<'a> {
    /// The name wanted.
    pub name: &'a str,
    /// The Pod's port of that name, which has another protocol.
    pub other_proto: Option<&'a ContainerPort>,
    /// Named ports of the Pod.
    pub named: Vec<&'a ContainerPort>,
}

/// Port on which a Service port reaches a Pod. A name means the container port with that name and protocol.
pub fn target<'a>(pod: &'a Pod, port: &'a ServicePort) -> Result<u16, Unresolved<'a>> {
    let name = match &port.target {
        TargetPort::Number(number) => return Ok(*number),
        TargetPort::Name(name) => name,
    };
    let mut same_name = pod.ports.iter().filter(|p| p.name == *name);
    if let Some(found) = same_name.clone().find(|p| p.proto == port.proto) {
        return Ok(found.port);
    }
    Err(Unresolved {
        name,
        other_proto: same_name.next(),
        named: pod.ports.iter().filter(|p| !p.name.is_empty()).collect(),
    })
}

/// Whether a container of the Pod declares the port. Declaring is documentation: an undeclared port can be served.
pub fn declares(pod: &Pod, number: u16, proto: Proto) -> bool {
    pod.ports
        .iter()
        .any(|p| p.port == number && p.proto == proto)
}

/// Ports that the Pod's containers declare for a protocol.
pub fn declared(pod: &Pod, proto: Proto) -> impl Iterator<Item = &ContainerPort> {
    pod.ports.iter().filter(move |p| p.proto == proto)
}

/// Ports of the Pod that something else leads to than a Service port: another port of the Service, or of another Service
/// that selects the Pod, unless that one has the same number or name and so means the same.
pub fn spoken_for(objects: &Objects, pod: &Pod, mine: &ServicePort) -> BTreeSet<u16> {
    let is_else = |s: &Service, p: &ServicePort| {
        let same = p.port == mine.port || (!p.name.is_empty() && p.name == mine.name);
        p.proto == mine.proto && !same && s.selects(pod)
    };
    let services = objects.services.iter();
    services
        .flat_map(|s| s.ports.iter().filter(move |p| is_else(s, p)))
        .filter_map(|p| target(pod, p).ok())
        .collect()
}

#[cfg(test)]
mod tests;
