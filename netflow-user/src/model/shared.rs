//! Values that many objects have in common. A copy is a count more, so equal ones can be kept once.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

/// A name or another text that does not change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Name {
        Name(text.into())
    }
}

impl From<Name> for Arc<str> {
    fn from(name: Name) -> Arc<str> {
        name.0
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.as_str().into()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<Name> for String {
    fn eq(&self, other: &Name) -> bool {
        **self == *other.0
    }
}

impl PartialEq<Name> for &str {
    fn eq(&self, other: &Name) -> bool {
        **self == *other.0
    }
}

/// A list that does not change.
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Shared<T>(Arc<[T]>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(Arc::default())
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(things: Vec<T>) -> Shared<T> {
        Shared(things.into())
    }
}

impl<T> FromIterator<T> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Shared<T> {
        Shared(things.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a Shared<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Few values by name, in the order of the names. A `BTreeMap` keeps room for eleven.
#[derive(PartialEq, Eq, Hash)]
pub struct Map<V>(Shared<(Name, V)>);

impl<V> Map<V> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&V> {
        let place = self.0.binary_search_by(|(n, _)| n.as_str().cmp(name));
        place.ok().map(|place| &self.0[place].1)
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &V)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Each value.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V: Clone> Map<V> {
    /// Gives a name a value. The others are copied: this is for one now and then.
    pub fn insert(&mut self, name: Name, value: V) {
        let new = (name, value);
        let old = self.0.iter().cloned();
        *self = old.chain([new]).collect();
    }
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Map<V> {
        Map(self.0.clone())
    }
}

impl<V> Default for Map<V> {
    fn default() -> Map<V> {
        Map(Shared::default())
    }
}

impl<V: fmt::Debug> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Of a name that comes twice the later value counts.
impl<V, N: Into<Name>, W: Into<V>> FromIterator<(N, W)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (N, W)>>(entries: I) -> Map<V> {
        let entries = entries.into_iter().map(|(n, v)| (n.into(), v.into()));
        let sorted: BTreeMap<Name, V> = entries.collect();
        Map(sorted.into_iter().collect())
    }
}

impl<V, N: Into<Name>, W: Into<V>, const COUNT: usize> From<[(N, W); COUNT]> for Map<V> {
    fn from(entries: [(N, W); COUNT]) -> Map<V> {
        entries.into_iter().collect()
    }
}

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Map<V>, D::Error> {
        let sorted = BTreeMap::<Name, V>::deserialize(from)?;
        Ok(Map(sorted.into_iter().collect()))
    }
}

/// What several may hold.
pub trait Held {
    /// Somebody besides this one holds it.
    fn is_held(&self) -> bool;
}

impl Held for Name {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<T> Held for Shared<T> {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<V> Held for Map<V> {
    fn is_held(&self) -> bool {
        self.0.is_held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_written_and_found_in_the_order_of_names() {
        let mut map: Map<Name> = [("b", "2"), ("a", "1"), ("b", "3")].into();
        map.insert("c".into(), "4".into());
        map.insert("a".into(), "5".into());
        let text = serde_json::to_string(&map).unwrap_or_default();
        assert_eq!(text, r#"{"a":"5","b":"3","c":"4"}"#);
        let read: Result<Map<Name>, _> = serde_json::from_str(r#"{"c":"4","b":"3","a":"5"}"#);
        assert_eq!(read.ok(), Some(map.clone()));
        let values = ["a", "b", "c", "d"].map(|name| map.get(name).map(Name::as_str));
        assert_eq!(values, [Some("5"), Some("3"), Some("4"), None]);
    }
}
