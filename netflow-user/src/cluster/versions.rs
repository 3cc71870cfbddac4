//! The objects as they were: of each version the forms of what the next one changed.

use crate::model::Time;
use crate::model::list::List;
use crate::model::objects::{EndpointSlice, Node, Objects, Pod, Service};
use foldhash::quality::RandomState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ptr;
use std::sync::Arc;

/// Bytes that allocations of an earlier form take beyond their content.
const ALLOCATIONS: usize = 48;

/// Kinds whose earlier forms are kept: those that decide who had an address, and where a Service led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    Slice,
    Pod,
    Node,
}

/// An object before a version changed it.
#[derive(Debug)]
struct Was {
    kind: Kind,
    namespace: Box<str>,
    name: Box<str>,
    /// JSON, which takes a third of what the object does; `None` = it was not there.
    form: Option<Box<str>>,
}

impl Was {
    fn bytes(&self) -> usize {
        let form = self.form.as_ref().map_or(0, |form| form.len());
        size_of::<Was>() + self.namespace.len() + self.name.len() + form + ALLOCATIONS
    }
}

/// What a version changed.
#[derive(Debug)]
struct Change {
    at: Time,
    was: Vec<Was>,
    bytes: usize,
}

/// Earlier versions, within bounds. A copy costs little.
#[derive(Debug, Clone)]
pub struct Versions {
    limit: usize,
    bytes: usize,
    since: Time,
    changes: VecDeque<Arc<Change>>,
}

/// Which objects are asked for.
pub trait Wanted {
    /// This Service.
    fn service(&self, service: &Service) -> bool;
    /// This slice.
    fn slice(&self, slice: &EndpointSlice) -> bool;
    /// This Pod.
    fn pod(&self, pod: &Pod) -> bool;
    /// This Node.
    fn node(&self, node: &Node) -> bool;
}

impl Versions {
    /// From the first version, which was read at `since`, on; of what it replaces `limit` bytes are kept at most.
    pub fn new(since: Time, limit: usize) -> Versions {
        Versions {
            limit,
            bytes: 0,
            since,
            changes: VecDeque::new(),
        }
    }

    /// Since when it is known how the objects were.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Bytes that may be kept.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `before` is replaced by `after`.
    pub fn replace(&mut self, before: &Objects, after: &Objects) {
        if self.limit == 0 {
            return;
        }
        let mut was = Vec::new();
        differ(Kind::Service, &before.services, &after.services, &mut was);
        differ(Kind::Slice, &before.slices, &after.slices, &mut was);
        differ(Kind::Pod, &before.pods, &after.pods, &mut was);
        differ(Kind::Node, &before.nodes, &after.nodes, &mut was);
        if was.is_empty() {
            return;
        }
        was.shrink_to_fit();
        let bytes = was.iter().map(Was::bytes).sum::<usize>() + size_of::<Change>();
        self.bytes += bytes;
        let at = after.time;
        self.changes.push_back(Arc::new(Change { at, was, bytes }));
        while self.bytes > self.limit
            && let Some(gone) = self.changes.pop_front()
        {
            self.bytes -= gone.bytes;
            self.since = gone.at;
        }
    }

    /// The versions before `latest` that were in force at `from` or later, as far as they differ in what is wanted, which they are
    /// reduced to; the oldest first.
    pub fn before(&self, latest: &Objects, from: Time, wanted: &impl Wanted) -> Vec<Objects> {
        let mut then = Then::of(latest, wanted);
        let mut versions: Vec<Objects> = Vec::new();
        let later = self.changes.iter().rev();
        let mut changes = later.take_while(|c| c.at > from).peekable();
        while let Some(change) = changes.next() {
            let mut differs = false;
            for was in &change.was {
                differs |= then.undo(was, wanted);
            }
            // In force since the change before this one.
            let since = changes.peek().map_or(from.max(self.since), |c| c.at);
            match versions.last_mut() {
                Some(same) if !differs => same.time = since,
                _ => versions.push(then.version(latest, since)),
            }
        }
        versions.reverse();
        versions
    }
}

/// Objects of one kind, by namespace and name.
type Named<T> = BTreeMap<(Box<str>, Box<str>), T>;

/// What is wanted of a version.
struct Then {
    services: Named<Service>,
    slices: Named<EndpointSlice>,
    pods: Named<Pod>,
    nodes: Named<Node>,
}

impl Then {
    fn of(objects: &Objects, wanted: &impl Wanted) -> Then {
        Then {
            services: named(&objects.services, |s| wanted.service(s)),
            slices: named(&objects.slices, |s| wanted.slice(s)),
            pods: named(&objects.pods, |p| wanted.pod(p)),
            nodes: named(&objects.nodes, |n| wanted.node(n)),
        }
    }

    /// Goes back behind a change, and says whether that makes a difference.
    fn undo(&mut self, was: &Was, wanted: &impl Wanted) -> bool {
        match was.kind {
            Kind::Service => put_back(&mut self.services, was, |s| wanted.service(s)),
            Kind::Slice => put_back(&mut self.slices, was, |s| wanted.slice(s)),
            Kind::Pod => put_back(&mut self.pods, was, |p| wanted.pod(p)),
            Kind::Node => put_back(&mut self.nodes, was, |n| wanted.node(n)),
        }
    }

    fn version(&self, latest: &Objects, time: Time) -> Objects {
        Objects {
            time,
            source: latest.source.clone(),
            services: self.services.values().cloned().collect(),
            slices: self.slices.values().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            unknown_kinds: latest.unknown_kinds.clone(),
            ..Objects::default()
        }
    }
}

fn named<'a, T: Object + 'a>(
    all: impl IntoIterator<Item = &'a T>,
    is_wanted: impl Fn(&T) -> bool,
) -> Named<T> {
    let wanted = all.into_iter().filter(|o| is_wanted(o));
    let named = wanted.map(|o| {
        let (namespace, name) = o.key();
        ((namespace.into(), name.into()), o.clone())
    });
    named.collect()
}

fn put_back<T: Object>(all: &mut Named<T>, was: &Was, is_wanted: impl Fn(&T) -> bool) -> bool {
    let form = was.form.as_ref();
    let form: Option<T> = form.and_then(|form| serde_json::from_str(form).ok());
    let key = (was.namespace.clone(), was.name.clone());
    match form.filter(is_wanted) {
        Some(form) => all.insert(key, form.clone()) != Some(form),
        None => all.remove(&key).is_some(),
    }
}

/// What has a name.
trait Object: Clone + PartialEq + Serialize + DeserializeOwned {
    fn key(&self) -> (&str, &str);
}

impl Object for Service {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Object for EndpointSlice {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Object for Pod {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Object for Node {
    fn key(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

/// The forms in `before` of what `after` has otherwise.
fn differ<T: Object>(kind: Kind, before: &List<T>, after: &List<T>, into: &mut Vec<Was>) {
    let mut new = sorted(after, before).into_iter().peekable();
    let mut add = |object: &T, form: Option<&T>| {
        let (namespace, name) = object.key();
        into.push(Was {
            kind,
            namespace: namespace.into(),
            name: name.into(),
            form: form
                .and_then(|form| serde_json::to_string(form).ok())
                .map(Into::into),
        });
    };
    for old in sorted(before, after) {
        while let Some(came) = new.next_if(|n| n.key() < old.key()) {
            add(came, None);
        }
        match new.next_if(|n| n.key() == old.key()) {
            Some(same) if same == old => {}
            _ => add(old, Some(old)),
        }
    }
    for came in new {
        add(came, None);
    }
}

/// Without those that both versions share, which are most. To find these by name would take a look at every object.
fn sorted<'a, T: Object>(all: &'a List<T>, other: &List<T>) -> Vec<&'a T> {
    let shared: HashSet<*const T, RandomState> = other.iter().map(ptr::from_ref).collect();
    let own = all.iter().filter(|o| !shared.contains(&ptr::from_ref(*o)));
    let mut own: Vec<&T> = own.collect();
    own.sort_by(|a, b| a.key().cmp(&b.key()));
    own
}

#[cfg(test)]
mod tests;
