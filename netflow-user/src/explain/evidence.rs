//! The book of evidence: every sentence of an answer names the records it comes from.

use super::view::View;
use crate::flows::Cite;
use crate::model::answer::{Evidence, EvidenceFlow, Peer, Plane, TupleText};
use crate::model::identity::{Identity, Who};
use crate::model::{CtTuples, Time, Tuple};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// A piece of evidence before it has an id. Drafts with the same node, plane, hook, interface and `kind` become one
/// piece that stands for all their records.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Plane.
    pub plane: Plane,
    /// What makes two drafts the same piece, besides place.
    pub kind: String,
    /// When.
    pub time: Option<Time>,
    /// Index of the recording, and the node's name.
    pub view: Option<(usize, String)>,
    /// Network namespace.
    pub netns: Option<u32>,
    /// Interface.
    pub ifname: Option<String>,
    /// Hook.
    pub hook: Option<String>,
    /// The packet.
    pub tuple: Option<Tuple>,
    /// Its conntrack entry.
    pub ct: Option<CtTuples>,
    /// In words, for one record.
    pub text: String,
    /// Which inputs it rests on.
    pub cites: Vec<Cite>,
}

impl Draft {
    /// A draft that rests on Kubernetes objects.
    pub fn objects(kind: impl Into<String>, text: impl Into<String>) -> Draft {
        Draft::of(Plane::K8s, kind, text, Cite::Objects)
    }

    /// A draft that rests on facts of a node.
    pub fn node(kind: impl Into<String>, text: impl Into<String>) -> Draft {
        Draft::of(Plane::Node, kind, text, Cite::Node)
    }

    /// A draft that rests on what was read of this node, whose view it is.
    pub fn of_node(
        view: usize,
        node: &View,
        kind: impl Into<String>,
        text: impl Into<String>,
    ) -> Draft {
        Draft {
            time: node.facts.as_ref().map(|f| f.time),
            view: Some((view, node.name().to_owned())),
            netns: Some(node.start.netns),
            ..Draft::node(kind, text)
        }
    }

    fn of(plane: Plane, kind: impl Into<String>, text: impl Into<String>, cite: Cite) -> Draft {
        Draft {
            plane,
            kind: kind.into(),
            time: None,
            view: None,
            netns: None,
            ifname: None,
            hook: None,
            tuple: None,
            ct: None,
            text: text.into(),
            cites: vec![cite],
        }
    }
}

/// A registered piece.
#[derive(Debug, Clone)]
struct Entry {
    draft: Draft,
    count: u64,
    cites: HashSet<(usize, Cite)>,
}

/// What two drafts share that are the same piece.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    view: Option<usize>,
    plane: Plane,
    hook: Option<String>,
    ifname: Option<String>,
    netns: Option<u32>,
    kind: String,
}

impl Key {
    fn of(draft: &Draft) -> Key {
        Key {
            view: draft.view.as_ref().map(|(i, _)| *i),
            plane: draft.plane,
            hook: draft.hook.clone(),
            ifname: draft.ifname.clone(),
            netns: draft.netns,
            kind: draft.kind.clone(),
        }
    }
}

/// Handle to a piece until ids are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(usize);

/// A closed book.
#[derive(Debug)]
pub struct Finished {
    /// What was cited, in order.
    pub evidence: Vec<Evidence>,
    /// Id of each handle that was cited.
    pub ids: BTreeMap<Handle, String>,
}

/// All evidence of one answer.
#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    by_key: HashMap<Key, usize>,
}

impl Book {
    /// Registers a piece, or adds to the one that is the same.
    pub fn add(&mut self, draft: Draft) -> Handle {
        let key = Key::of(&draft);
        let view = draft.view.as_ref().map_or(0, |(i, _)| *i);
        let cites = draft.cites.iter().map(|c| (view, *c));
        if let Some(&at) = self.by_key.get(&key) {
            let entry = &mut self.entries[at];
            let known = entry.cites.len();
            entry.cites.extend(cites);
            entry.count += u64::from(entry.cites.len() > known);
            entry.draft.time = match (entry.draft.time, draft.time) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            return Handle(at);
        }
        let cites = cites.collect();
        self.entries.push(Entry {
            draft,
            count: 1,
            cites,
        });
        self.by_key.insert(key, self.entries.len() - 1);
        Handle(self.entries.len() - 1)
    }

    /// Time of the first record of a piece.
    pub fn time(&self, handle: Handle) -> Option<Time> {
        self.entries[handle.0].draft.time
    }

    /// Gives ids in the order of `cited`, drops what nobody cites, and renders. The map tells the id of each handle;
    /// the last list what each id rests on.
    pub fn finish(self, cited: &[Handle], identity: &dyn Identity) -> Finished {
        let mut ids: BTreeMap<Handle, String> = BTreeMap::new();
        let mut order = Vec::new();
        for h in cited {
            if !ids.contains_key(h) {
                ids.insert(*h, format!("e{}", ids.len() + 1));
                order.push(*h);
            }
        }
        let mut out = Vec::with_capacity(order.len());
        for h in order {
            let entry = &self.entries[h.0];
            out.push(render(entry, ids[&h].clone(), identity));
        }
        Finished { evidence: out, ids }
    }
}

fn render(entry: &Entry, id: String, identity: &dyn Identity) -> Evidence {
    let Draft {
        plane,
        kind: _,
        time,
        view,
        netns,
        ifname,
        hook,
        tuple,
        ct,
        text,
        cites: _,
    } = &entry.draft;
    let at = time.unwrap_or_default();
    let flow = tuple.map(|t| EvidenceFlow {
        proto: t.proto,
        src: peer(identity, t.src, t.sport, at),
        dst: peer(identity, t.dst, t.dport, at),
        orig: ct.map(|c| TupleText(c.orig)),
        reply: ct.map(|c| TupleText(c.reply)),
        zone: ct.map_or(0, |c| c.zone),
    });
    let text = match entry.count {
        0 | 1 => text.clone(),
        n => format!("{text} (first of {n})"),
    };
    Evidence {
        id,
        plane: *plane,
        time: *time,
        node: view.as_ref().map(|(_, n)| n.clone()),
        netns: *netns,
        ifname: ifname.clone(),
        hook: hook.clone(),
        flow,
        text,
    }
}

fn peer(identity: &dyn Identity, ip: IpAddr, port: u16, at: Time) -> Peer {
    let who = identity.who(ip, at);
    let named = |f: fn(&Who) -> bool| who.as_ref().filter(|w| f(w)).map(ToString::to_string);
    Peer {
        ip,
        port,
        pod: named(Who::is_pod),
        service: named(|w| matches!(w, Who::Service { .. })),
        node: named(|w| matches!(w, Who::Node(_))),
    }
}
