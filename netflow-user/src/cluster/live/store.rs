//! What was read of the API so far: objects, and how each kind of them stands.

use super::follow::{Part, Told};
use crate::cluster::object::{self, Kind, Object, WANTED};
use crate::cluster::pool::Pool;
use crate::model::Time;
use crate::model::objects::{Away, Limit, Objects};
use crate::model::shared::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Kind, namespace (empty for objects of the cluster), name.
pub(super) type Key = (Kind, Name, Name);

/// Objects that are known, and what cannot be known.
#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Object>,
    pool: Pool,
    /// Parts that are being listed, with what has come of them.
    coming: BTreeMap<Part, BTreeMap<Key, Object>>,
    /// Parts that are to be followed, and whether they were listed whole.
    parts: BTreeMap<Part, bool>,
    /// Kinds of which not everything may be read, and why.
    refused: BTreeMap<Kind, String>,
    away: Option<Away>,
    /// Parts that could not be read when it was last tried.
    failing: BTreeMap<Part, Away>,
    /// Those that were told of.
    told: BTreeSet<Part>,
}

/// A part that cannot be read for so long is told of: most of what fails is right again at the next try.
const PATIENCE: Duration = Duration::from_secs(5);

impl Store {
    /// Empty, with everything still to come.
    pub fn new() -> Store {
        Store {
            objects: BTreeMap::new(),
            pool: Pool::default(),
            coming: BTreeMap::new(),
            parts: WANTED.iter().map(|k| ((*k, None), false)).collect(),
            refused: BTreeMap::new(),
            away: None,
            failing: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Whether everything that may be read has been listed once.
    pub fn is_complete(&self) -> bool {
        self.parts.values().all(|listed| *listed)
    }

    /// Kinds that have not been listed yet.
    pub fn missing(&self) -> BTreeSet<&'static str> {
        let missing = self.parts.iter().filter(|(_, listed)| !**listed);
        missing.map(|((kind, _), _)| kind.name()).collect()
    }

    /// Takes in what was told at `now`. Says whether the objects, or what is known of them, are others than before.
    pub fn take(&mut self, told: Told, now: Time) -> bool {
        match &told {
            Told::Listing(part)
            | Told::There(part, _)
            | Told::Listed(part)
            | Told::Answered(part) => {
                self.failing.remove(part);
            }
            _ => {}
        }
        match told {
            Told::Listing(part) => {
                self.coming.insert(part, BTreeMap::new());
                false
            }
            Told::There(part, object) => self.there(&part, *object),
            Told::Listed(part) => self.listed(part),
            Told::Gone(key) => self.objects.remove(&key).is_some(),
            Told::Refused((kind, namespace), why, instead) => {
                self.coming.remove(&(kind, namespace.clone()));
                self.parts.remove(&(kind, namespace));
                let parts = instead.into_iter().map(|n| ((kind, Some(n)), false));
                self.parts.extend(parts);
                self.refused.entry(kind).or_insert(why);
                true
            }
            Told::Failing(part, failure) => {
                let (kind, why) = (part.0.name().to_owned(), failure.why);
                self.failing.entry(part).or_insert(Away {
                    kind,
                    since: now,
                    why,
                });
                false
            }
            Told::Away(why) => {
                let new = self.away.is_none();
                self.away.get_or_insert(Away {
                    kind: String::new(),
                    since: now,
                    why,
                });
                new
            }
            // `Back` tells in time.
            Told::Answered(_) => false,
            Told::Back => {
                let back = self.away.take().is_some();
                let lasting = self.failing.iter();
                let lasting = lasting.filter(|(_, a)| now.since(a.since) >= PATIENCE);
                let lasting: BTreeSet<Part> = lasting.map(|(part, _)| part.clone()).collect();
                let other = lasting != self.told;
                self.told = lasting;
                back || other
            }
        }
    }

    fn there(&mut self, part: &Part, mut object: Object) -> bool {
        self.pool.share(&mut object);
        let key = object.owned_key();
        if let Some(coming) = self.coming.get_mut(part) {
            coming.insert(key, object);
            return false;
        }
        if self.objects.get(&key) == Some(&object) {
            return false;
        }
        self.objects.insert(key, object);
        true
    }

    /// What the list does not hold was deleted while nobody looked.
    fn listed(&mut self, part: Part) -> bool {
        let Some(coming) = self.coming.remove(&part) else {
            return false;
        };
        let (kind, namespace) = &part;
        let is_of = |key: &Key| key.0 == *kind && namespace.as_ref().is_none_or(|n| key.1 == *n);
        let before = self.objects.len();
        self.objects
            .retain(|key, _| !is_of(key) || coming.contains_key(key));
        let mut changed = self.objects.len() < before;
        for (key, object) in coming {
            // Versions share those that are as they were.
            if self.objects.get(&key) != Some(&object) {
                self.objects.insert(key, object);
                changed = true;
            }
        }
        let first = self.parts.insert(part, true) != Some(true);
        changed || first
    }

    /// Everything as it is now.
    pub fn version(&self, time: Time, source: &str) -> Objects {
        let listed = self.parts.iter().filter(|(_, listed)| **listed);
        let known: BTreeSet<Kind> = listed.map(|((kind, _), _)| *kind).collect();
        Objects {
            time,
            source: source.to_owned(),
            limits: self
                .refused
                .iter()
                .map(|(k, why)| self.limit(*k, why))
                .collect(),
            away: self.unanswered(),
            ..object::version(self.objects.values(), &known)
        }
    }

    /// The server that is away, else the kinds that cannot be read.
    fn unanswered(&self) -> Vec<Away> {
        match &self.away {
            Some(away) => vec![away.clone()],
            None => self
                .told
                .iter()
                .filter_map(|p| self.failing.get(p))
                .cloned()
                .collect(),
        }
    }

    fn limit(&self, kind: Kind, why: &str) -> Limit {
        let parts = self
            .parts
            .iter()
            .filter(|(part, listed)| part.0 == kind && **listed);
        let namespaces = parts.filter_map(|((_, namespace), _)| namespace.clone());
        Limit {
            kind: kind.name().to_owned(),
            namespaces: namespaces.collect(),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::follow::Failure;
    use super::*;
    use crate::model::objects::{Namespace, Pod};

    const PODS: Part = (Kind::Pod, None);

    fn pod(name: &str, phase: &str) -> Object {
        Object::from(Pod {
            namespace: "app".into(),
            name: name.into(),
            phase: phase.into(),
            ..Pod::default()
        })
    }

    fn list(store: &mut Store, part: &Part, objects: Vec<Object>) -> bool {
        let mut changed = store.take(Told::Listing(part.clone()), Time(1));
        for object in objects {
            changed |= store.take(Told::There(part.clone(), Box::new(object)), Time(1));
        }
        assert!(!changed, "half a list is no version");
        store.take(Told::Listed(part.clone()), Time(1))
    }

    fn names(store: &Store) -> Vec<Name> {
        let pods = store.version(Time(9), "").pods;
        pods.iter().map(|p| p.name.clone()).collect()
    }

    #[test]
    fn what_a_later_list_does_not_hold_is_gone() {
        let mut store = Store::new();
        assert!(list(&mut store, &PODS, vec![pod("a", ""), pod("b", "")]));
        let other = Object::from(Pod {
            namespace: "other".into(),
            name: "z".into(),
            ..Pod::default()
        });
        assert!(store.take(Told::There(PODS, Box::new(other)), Time(2)));
        assert_eq!(names(&store), ["a", "b", "z"]);
        assert!(!store.take(Told::There(PODS, Box::new(pod("a", ""))), Time(2)));
        assert!(store.take(Told::There(PODS, Box::new(pod("a", "Running"))), Time(2)));
        assert!(list(&mut store, &PODS, vec![pod("b", ""), pod("c", "")]));
        assert_eq!(names(&store), ["b", "c"]);
        assert!(!list(&mut store, &PODS, vec![pod("b", ""), pod("c", "")]));
        let gone = (Kind::Pod, "app".into(), "b".into());
        assert!(store.take(Told::Gone(gone), Time(3)));
        assert_eq!(names(&store), ["c"]);
    }

    #[test]
    fn a_list_of_the_same_objects_is_no_second_copy() {
        let mut store = Store::new();
        list(&mut store, &PODS, vec![pod("a", "")]);
        let before = store.version(Time(1), "").pods;
        list(&mut store, &PODS, vec![pod("a", ""), pod("b", "")]);
        let after = store.version(Time(2), "").pods;
        assert!(std::ptr::eq(&raw const before[0], &raw const after[0]));
    }

    #[test]
    fn an_old_list_stands_until_the_new_one_is_whole() {
        let mut store = Store::new();
        list(&mut store, &PODS, vec![pod("a", "")]);
        store.take(Told::Listing(PODS), Time(2));
        store.take(Told::There(PODS, Box::new(pod("b", ""))), Time(2));
        assert_eq!(names(&store), ["a"]);
        // Broken off, and begun again.
        store.take(Told::Listing(PODS), Time(3));
        store.take(Told::Listed(PODS), Time(3));
        assert!(names(&store).is_empty());
    }

    #[test]
    fn one_namespace_where_no_more_may_be_read() {
        let mut store = Store::new();
        for kind in WANTED
            .iter()
            .filter(|k| **k != Kind::Pod && **k != Kind::Node)
        {
            list(&mut store, &(*kind, None), Vec::new());
        }
        let refused =
            |kind, instead| Told::Refused((kind, None), "pods is forbidden".into(), instead);
        assert!(!store.is_complete());
        assert_eq!(store.missing(), BTreeSet::from(["Node", "Pod"]));
        assert!(store.take(refused(Kind::Node, Vec::new()), Time(1)));
        assert!(store.take(refused(Kind::Pod, vec!["app".into()]), Time(1)));
        assert_eq!(store.missing(), BTreeSet::from(["Pod"]));
        list(
            &mut store,
            &(Kind::Pod, Some("app".into())),
            vec![pod("a", "")],
        );
        assert!(store.is_complete());
        let version = store.version(Time(2), "here");
        assert_eq!(version.unknown_kinds, ["Node"]);
        let limits: Vec<_> = version
            .limits
            .iter()
            .map(|l| (&*l.kind, &l.namespaces[..]))
            .collect();
        assert_eq!(limits, [("Pod", &["app".to_owned()][..]), ("Node", &[])]);
    }

    #[test]
    fn away_and_back_is_told_once() {
        let mut store = Store::new();
        let space = Object::from(Namespace::default());
        list(&mut store, &(Kind::Namespace, None), vec![space]);
        assert!(store.take(Told::Away("refused".into()), Time(5)));
        assert!(!store.take(Told::Away("timed out".into()), Time(6)));
        let version = store.version(Time(7), "");
        let away: Vec<_> = version.away.iter().map(|a| (a.since, &*a.why)).collect();
        assert_eq!(away, [(Time(5), "refused")]);
        assert_eq!(version.namespaces.len(), 1);
        assert!(store.take(Told::Back, Time(8)));
        assert!(!store.take(Told::Back, Time(8)));
        assert!(store.version(Time(9), "").away.is_empty());
    }

    #[test]
    fn a_kind_that_cannot_be_read_is_told_of_once_it_lasts() {
        let mut store = Store::new();
        list(&mut store, &PODS, vec![pod("a", "")]);
        let fails = || {
            let failure = Failure {
                why: "too old".into(),
                lasts: false,
            };
            Told::Failing(PODS, failure)
        };
        let at = |secs: u64| Time(secs * 1_000_000_000);
        assert!(!store.take(fails(), at(10)));
        assert!(!store.take(Told::Back, at(12)));
        assert!(store.version(at(12), "").away.is_empty());
        assert!(!store.take(fails(), at(14)));
        assert!(store.take(Told::Back, at(16)));
        assert!(!store.take(Told::Back, at(18)));
        let away = store.version(at(18), "").away;
        assert_eq!((&*away[0].kind, away[0].since), ("Pod", at(10)));
        list(&mut store, &PODS, vec![pod("a", "")]);
        assert!(store.take(Told::Back, at(20)));
        assert!(store.version(at(20), "").away.is_empty());
    }

    #[test]
    fn a_kind_of_which_nothing_changes_is_read_again_all_the_same() {
        let mut store = Store::new();
        list(&mut store, &PODS, Vec::new());
        let failure = Failure {
            why: "connection refused".into(),
            lasts: true,
        };
        let at = |secs: u64| Time(secs * 1_000_000_000);
        store.take(Told::Failing(PODS, failure), at(10));
        assert!(store.take(Told::Back, at(16)));
        assert!(!store.take(Told::Answered(PODS), at(17)));
        assert!(store.take(Told::Back, at(18)));
        assert!(store.version(at(18), "").away.is_empty());
    }
}
