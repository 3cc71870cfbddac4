//! Many things, most of which stay as they are from one version to the next.

use serde::{Deserialize, Serialize};
use std::iter;
use std::ops::{Index, IndexMut};
use std::slice;
use std::sync::Arc;
use std::vec;

/// Things in order, each shared by all lists that hold it: a copy of the list copies no thing. A cluster has 10,000s of Pods, and
/// somebody holds the version before, somebody the next.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct List<T>(Vec<Arc<T>>);

/// By reference.
pub type Iter<'a, T> = iter::Map<slice::Iter<'a, Arc<T>>, fn(&'a Arc<T>) -> &'a T>;

/// By reference, to change.
pub type IterMut<'a, T> = iter::Map<slice::IterMut<'a, Arc<T>>, fn(&'a mut Arc<T>) -> &'a mut T>;

impl<T> List<T> {
    /// Each of them.
    pub fn iter(&self) -> Iter<'_, T> {
        self.0.iter().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first.
    pub fn first(&self) -> Option<&T> {
        self.0.first().map(Arc::as_ref)
    }

    /// One more at the end.
    pub fn push(&mut self, thing: impl Into<Arc<T>>) {
        self.0.push(thing.into());
    }

    /// One more, before what stands at `place` now.
    ///
    /// # Panics
    /// `place` is beyond the end.
    pub fn insert(&mut self, place: usize, thing: impl Into<Arc<T>>) {
        self.0.insert(place, thing.into());
    }

    /// One less.
    ///
    /// # Panics
    /// There is none at `place`.
    pub fn remove(&mut self, place: usize) -> Arc<T> {
        self.0.remove(place)
    }

    /// Only those that are `kept`.
    pub fn retain(&mut self, mut kept: impl FnMut(&T) -> bool) {
        self.0.retain(|thing| kept(thing));
    }

    /// At most so many.
    pub fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// None.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T: Clone> List<T> {
    /// Each of them, to change it here only.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        self.0.iter_mut().map(Arc::make_mut)
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> List<T> {
        List(self.0.clone())
    }
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<T> Index<usize> for List<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.0[place]
    }
}

impl<T: Clone> IndexMut<usize> for List<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        Arc::make_mut(&mut self.0[place])
    }
}

impl<T, A: Into<Arc<T>>> FromIterator<A> for List<T> {
    fn from_iter<I: IntoIterator<Item = A>>(things: I) -> List<T> {
        List(things.into_iter().map(Into::into).collect())
    }
}

impl<T, A: Into<Arc<T>>> Extend<A> for List<T> {
    fn extend<I: IntoIterator<Item = A>>(&mut self, things: I) {
        self.0.extend(things.into_iter().map(Into::into));
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(things: Vec<T>) -> List<T> {
        things.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Clone> IntoIterator for &'a mut List<T> {
    type Item = &'a mut T;
    type IntoIter = IterMut<'a, T>;

    fn into_iter(self) -> IterMut<'a, T> {
        self.iter_mut()
    }
}

impl<T> IntoIterator for List<T> {
    type Item = Arc<T>;
    type IntoIter = vec::IntoIter<Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_one_copy_and_the_rest_stays_shared() {
        let before: List<String> = vec!["a".to_owned(), "b".to_owned()].into();
        let mut after = before.clone();
        after[1].push('!');
        assert_eq!(before.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(after.iter().collect::<Vec<_>>(), ["a", "b!"]);
        let shared = |place| std::ptr::eq(&raw const before[place], &raw const after[place]);
        assert_eq!((shared(0), shared(1)), (true, false));
    }

    #[test]
    fn it_is_written_as_any_list() {
        let list: List<u16> = vec![7, 8].into();
        let text = serde_json::to_string(&list).unwrap_or_default();
        assert_eq!(text, "[7,8]");
        assert_eq!(serde_json::from_str(&text).ok(), Some(list));
    }
}
