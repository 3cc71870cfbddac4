//! `EndpointSlice`, and legacy Endpoints as slices.

use super::{Invalid, Subject};
use crate::model::objects::{Endpoint, EndpointSlice, SlicePort};
use crate::model::shared::Name;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1 as discovery;

/// Label of a slice with the name of its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Label of a slice with the name of who writes it.
const WRITER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// The controller that follows the Pods which a Service selects.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Reduces an EndpointSlice. Endpoints that are names (`addressType: FQDN`) are left out: nothing proxies them.
pub fn slice(mut object: discovery::EndpointSlice) -> Result<EndpointSlice, Invalid> {
    let subject = Subject::namespaced("EndpointSlice", &mut object.metadata)?;
    let mut labels = object.metadata.labels.unwrap_or_default();
    let endpoints = if object.address_type == "FQDN" {
        Vec::new()
    } else {
        object.endpoints
    };
    Ok(EndpointSlice {
        by_controller: labels.get(WRITER_LABEL).is_some_and(|w| w == CONTROLLER),
        service: labels.remove(SERVICE_LABEL).unwrap_or_default().into(),
        ports: object
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|p| {
                Ok(SlicePort {
                    name: p.name.unwrap_or_default(),
                    proto: subject.proto("ports.protocol", p.protocol.as_deref())?,
                    port: match p.port {
                        None | Some(0) => None,
                        Some(number) => Some(subject.port("ports.port", number)?),
                    },
                })
            })
            .collect::<Result<_, _>>()?,
        endpoints: endpoints
            .into_iter()
            .map(|e| endpoint(&subject, e))
            .collect::<Result<Box<[_]>, _>>()?
            .into(),
        namespace: subject.namespace.into(),
        name: subject.name.into(),
    })
}

fn endpoint(subject: &Subject, object: discovery::Endpoint) -> Result<Endpoint, Invalid> {
    let conditions = object.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = object.hints.unwrap_or_default();
    Ok(Endpoint {
        addresses: subject.ips("endpoints.addresses", &object.addresses)?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        pod: object.target_ref.and_then(pod_name),
        node: object.node_name.map(Into::into),
        zones: hints
            .for_zones
            .into_iter()
            .flatten()
            .map(|z| z.name.into())
            .collect(),
        node_hints: hints
            .for_nodes
            .into_iter()
            .flatten()
            .map(|n| n.name.into())
            .collect(),
    })
}

/// Reduces an Endpoints object to one slice per subset, which is how it stands for the Service of its name.
pub fn endpoints(mut object: v1::Endpoints) -> Result<Vec<EndpointSlice>, Invalid> {
    let subject = Subject::namespaced("Endpoints", &mut object.metadata)?;
    object
        .subsets
        .unwrap_or_default()
        .into_iter()
        .map(|s| subset(&subject, s))
        .collect()
}

fn subset(subject: &Subject, subset: v1::EndpointSubset) -> Result<EndpointSlice, Invalid> {
    let ports = subset
        .ports
        .unwrap_or_default()
        .into_iter()
        .map(|p| {
            Ok(SlicePort {
                name: p.name.unwrap_or_default(),
                proto: subject.proto("subsets.ports.protocol", p.protocol.as_deref())?,
                port: Some(subject.port("subsets.ports.port", p.port)?),
            })
        })
        .collect::<Result<_, _>>()?;
    let ready = subset.addresses.unwrap_or_default();
    let not_ready = subset.not_ready_addresses.unwrap_or_default();
    let endpoints = ready
        .into_iter()
        .map(|a| (a, true))
        .chain(not_ready.into_iter().map(|a| (a, false)))
        .map(|(address, ready)| {
            Ok(Endpoint {
                addresses: vec![subject.ip("subsets.addresses.ip", &address.ip)?],
                ready,
                serving: ready,
                pod: address.target_ref.and_then(pod_name),
                node: address.node_name.map(Into::into),
                ..Endpoint::default()
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(EndpointSlice {
        namespace: subject.namespace.as_str().into(),
        name: subject.name.as_str().into(),
        service: subject.name.as_str().into(),
        by_controller: false,
        ports,
        endpoints,
    })
}

fn pod_name(reference: v1::ObjectReference) -> Option<Name> {
    match reference.kind.as_deref() {
        Some("Pod") => reference.name.map(Into::into),
        _ => None,
    }
}
