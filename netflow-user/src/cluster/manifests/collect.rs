//! The objects of all files → one version of the cluster.

use super::document::Contents;
use super::object::{Kind, Object};
use super::problem::Problem;
use crate::model::objects::{EndpointSlice, Objects};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// Kinds without which part of an answer is a guess.
const WANTED: [Kind; 6] = [
    Kind::Service,
    Kind::Slice,
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::Policy,
];

/// Puts the contents of files, in reading order, together. Of an object that is there twice the later one counts, with
/// a warning.
pub(super) fn collect<'a>(
    files: impl Iterator<Item = (&'a Path, &'a [Contents])>,
    warnings: &mut Vec<Problem>,
) -> Objects {
    let mut kinds = BTreeSet::new();
    let mut latest: HashMap<_, (&Path, &Object)> = HashMap::new();
    let mut order = Vec::new();
    for (path, documents) in files {
        for contents in documents {
            kinds.extend(&contents.kinds);
            for object in &contents.objects {
                let key = object.key();
                match latest.insert(key, (path, object)) {
                    None => order.push(key),
                    Some((before, _)) => warnings.push(duplicate(path, before, key)),
                }
            }
        }
    }
    let mut objects = Objects::default();
    let mut endpoints = Vec::new();
    for key in order {
        match latest.get(&key).map(|(_, object)| (*object).clone()) {
            Some(Object::Service(o)) => objects.services.push(o),
            Some(Object::Slice(o)) => objects.slices.push(o),
            Some(Object::Endpoints(_, _, slices)) => endpoints.extend(slices),
            Some(Object::Pod(o)) => objects.pods.push(o),
            Some(Object::Node(o)) => objects.nodes.push(o),
            Some(Object::Namespace(o)) => objects.namespaces.push(o),
            Some(Object::Policy(o)) => objects.policies.push(o),
            None => {}
        }
    }
    add_endpoints(&mut objects.slices, endpoints);
    if kinds.contains(&Kind::Endpoints) {
        kinds.insert(Kind::Slice);
    }
    objects.unknown_kinds = WANTED
        .iter()
        .filter(|k| !kinds.contains(k))
        .map(|k| k.name().to_owned())
        .collect();
    objects
}

/// Legacy Endpoints stand for a Service only where it has no slice: the control plane mirrors them into slices.
fn add_endpoints(slices: &mut Vec<EndpointSlice>, endpoints: Vec<EndpointSlice>) {
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

fn duplicate(path: &Path, before: &Path, (kind, namespace, name): (Kind, &str, &str)) -> Problem {
    let kind = kind.name();
    let slash = if namespace.is_empty() { "" } else { "/" };
    let before = before.display();
    Problem::whole(
        path,
        format!("{kind} {namespace}{slash}{name} was already in {before}; this one counts"),
    )
}
