//! One object of a kind that matters, and what many of them are together.

use crate::cluster::reduce;
use crate::model::list::List;
use crate::model::objects::{EndpointSlice, Namespace, NetworkPolicy, Node, Objects, Pod, Service};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// A reduced object. Those of which there are many are shared with the versions that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Service(Service),
    Slice(Arc<EndpointSlice>),
    /// Namespace and name, and the slices it stands for.
    Endpoints(String, String, Vec<EndpointSlice>),
    Pod(Arc<Pod>),
    Node(Node),
    Namespace(Namespace),
    Policy(NetworkPolicy),
}

/// Kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Service,
    Slice,
    Endpoints,
    Pod,
    Node,
    Namespace,
    Policy,
}

/// Kinds without which part of an answer is a guess.
pub(super) const WANTED: [Kind; 6] = [
    Kind::Service,
    Kind::Slice,
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::Policy,
];

impl Kind {
    /// The kind of an object, or of the objects in a list of one kind (`PodList`).
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        let kind = kind.strip_suffix("List").unwrap_or(kind);
        match (api_version, kind) {
            ("v1", "Service") => Some(Kind::Service),
            ("v1", "Endpoints") => Some(Kind::Endpoints),
            ("v1", "Pod") => Some(Kind::Pod),
            ("v1", "Node") => Some(Kind::Node),
            ("v1", "Namespace") => Some(Kind::Namespace),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::Slice),
            ("networking.k8s.io/v1", "NetworkPolicy") => Some(Kind::Policy),
            _ => None,
        }
    }

    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::Slice => "EndpointSlice",
            Kind::Endpoints => "Endpoints",
            Kind::Pod => "Pod",
            Kind::Node => "Node",
            Kind::Namespace => "Namespace",
            Kind::Policy => "NetworkPolicy",
        }
    }

    /// Reads an object of this kind and keeps what matters of it.
    pub fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        let reduced = match self {
            Kind::Service => reduce::service(Deserialize::deserialize(from)?).map(Object::Service),
            Kind::Slice => reduce::slice(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Endpoints => return endpoints(from),
            Kind::Pod => reduce::pod(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Node => reduce::node(Deserialize::deserialize(from)?).map(Object::Node),
            Kind::Namespace => {
                reduce::namespace(Deserialize::deserialize(from)?).map(Object::Namespace)
            }
            Kind::Policy => reduce::policy(Deserialize::deserialize(from)?).map(Object::Policy),
        };
        reduced.map_err(D::Error::custom)
    }
}

fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
    let object = k8s_openapi::api::core::v1::Endpoints::deserialize(from)?;
    let namespace = object.metadata.namespace.clone();
    let name = object.metadata.name.clone().unwrap_or_default();
    let slices = reduce::endpoints(object).map_err(D::Error::custom)?;
    let namespace = namespace.filter(|n| !n.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".into());
    Ok(Object::Endpoints(namespace, name, slices))
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Object {
        Object::Slice(Arc::new(slice))
    }
}

impl From<Pod> for Object {
    fn from(pod: Pod) -> Object {
        Object::Pod(Arc::new(pod))
    }
}

impl Object {
    /// The same, to keep.
    pub fn owned_key(&self) -> (Kind, String, String) {
        let (kind, namespace, name) = self.key();
        (kind, namespace.to_owned(), name.to_owned())
    }

    /// What tells it from every other object: kind, namespace, name.
    pub fn key(&self) -> (Kind, &str, &str) {
        match self {
            Object::Service(o) => (Kind::Service, &o.namespace, &o.name),
            Object::Slice(o) => (Kind::Slice, &o.namespace, &o.name),
            Object::Endpoints(namespace, name, _) => (Kind::Endpoints, namespace, name),
            Object::Pod(o) => (Kind::Pod, &o.namespace, &o.name),
            Object::Node(o) => (Kind::Node, "", &o.name),
            Object::Namespace(o) => (Kind::Namespace, "", &o.name),
            Object::Policy(o) => (Kind::Policy, &o.namespace, &o.name),
        }
    }
}

/// One version of the cluster. What is of no kind in `known` may exist all the same.
pub(super) fn version<'a>(
    all: impl Iterator<Item = &'a Object>,
    known: &BTreeSet<Kind>,
) -> Objects {
    let mut objects = Objects::default();
    let mut endpoints = Vec::new();
    for object in all.cloned() {
        match object {
            Object::Service(o) => objects.services.push(o),
            Object::Slice(o) => objects.slices.push(o),
            Object::Endpoints(_, _, slices) => endpoints.extend(slices),
            Object::Pod(o) => objects.pods.push(o),
            Object::Node(o) => objects.nodes.push(o),
            Object::Namespace(o) => objects.namespaces.push(o),
            Object::Policy(o) => objects.policies.push(o),
        }
    }
    add_endpoints(&mut objects.slices, endpoints);
    let is_known = |kind: &Kind| {
        known.contains(kind) || *kind == Kind::Slice && known.contains(&Kind::Endpoints)
    };
    objects.unknown_kinds = WANTED
        .iter()
        .filter(|k| !is_known(k))
        .map(|k| k.name().to_owned())
        .collect();
    objects
}

/// Legacy Endpoints stand for a Service only where it has no slice: the control plane mirrors them into slices.
fn add_endpoints(slices: &mut List<EndpointSlice>, endpoints: Vec<EndpointSlice>) {
    let sliced: HashSet<_> = slices
        .iter()
        .map(|s| (s.namespace.clone(), s.service.clone()))
        .collect();
    slices.extend(
        endpoints
            .into_iter()
            .filter(|e| !sliced.contains(&(e.namespace.clone(), e.service.clone()))),
    );
}
