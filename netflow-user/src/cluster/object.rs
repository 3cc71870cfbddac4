//! One object of a kind that matters, and what many of them are together.

use crate::cluster::reduce;
use crate::model::list::List;
use crate::model::objects::{EndpointSlice, Namespace, NetworkPolicy, Node, Objects, Pod, Service};
use crate::model::shared::Name;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// A reduced object, shared with the versions that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Endpoints(Arc<Endpoints>),
    Pod(Arc<Pod>),
    Node(Arc<Node>),
    Namespace(Arc<Namespace>),
    Policy(Arc<NetworkPolicy>),
}

/// Namespace and name of an Endpoints object, and the slices it stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoints(Name, Name, List<EndpointSlice>);

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
            Kind::Service => reduce::service(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Slice => reduce::slice(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Endpoints => return endpoints(from),
            Kind::Pod => reduce::pod(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Node => reduce::node(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Namespace => reduce::namespace(Deserialize::deserialize(from)?).map(Object::from),
            Kind::Policy => reduce::policy(Deserialize::deserialize(from)?).map(Object::from),
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
    let endpoints = Endpoints(namespace.into(), name.into(), slices.into());
    Ok(Object::Endpoints(Arc::new(endpoints)))
}

impl From<Service> for Object {
    fn from(object: Service) -> Object {
        Object::Service(Arc::new(object))
    }
}

impl From<EndpointSlice> for Object {
    fn from(object: EndpointSlice) -> Object {
        Object::Slice(Arc::new(object))
    }
}

impl From<Pod> for Object {
    fn from(object: Pod) -> Object {
        Object::Pod(Arc::new(object))
    }
}

impl From<Node> for Object {
    fn from(object: Node) -> Object {
        Object::Node(Arc::new(object))
    }
}

impl From<Namespace> for Object {
    fn from(object: Namespace) -> Object {
        Object::Namespace(Arc::new(object))
    }
}

impl From<NetworkPolicy> for Object {
    fn from(object: NetworkPolicy) -> Object {
        Object::Policy(Arc::new(object))
    }
}

impl Object {
    /// The same, to keep.
    pub fn owned_key(&self) -> (Kind, Name, Name) {
        match self {
            Object::Slice(o) => (Kind::Slice, o.namespace.clone(), o.name.clone()),
            Object::Pod(o) => (Kind::Pod, o.namespace.clone(), o.name.clone()),
            _ => {
                let (kind, namespace, name) = self.key();
                (kind, namespace.into(), name.into())
            }
        }
    }

    /// What tells it from every other object: kind, namespace, name.
    pub fn key(&self) -> (Kind, &str, &str) {
        match self {
            Object::Service(o) => (Kind::Service, &o.namespace, &o.name),
            Object::Slice(o) => (Kind::Slice, &o.namespace, &o.name),
            Object::Endpoints(o) => (Kind::Endpoints, &o.0, &o.1),
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
    let mut endpoints = List::default();
    for object in all.cloned() {
        match object {
            Object::Service(o) => objects.services.push(o),
            Object::Slice(o) => objects.slices.push(o),
            Object::Endpoints(o) => endpoints.extend(o.2.clone()),
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
fn add_endpoints(slices: &mut List<EndpointSlice>, endpoints: List<EndpointSlice>) {
    if endpoints.is_empty() {
        return;
    }
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
