//! Where the connections of the history stand: the healthy ones and the others, each in the order in which they were heard of.

use super::entry::Entry;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(u32);

/// A connection in its line.
#[derive(Debug)]
struct Stood {
    entry: Entry,
    bytes: usize,
    healthy: bool,
    older: Option<Id>,
    newer: Option<Id>,
}

/// Bytes that one takes besides its own: its line, the place of its box in a vector that has doubled, its turn among what is free.
const STANDING: usize =
    size_of::<Stood>() - size_of::<Entry>() + 4 * size_of::<usize>() + 2 * size_of::<Id>();

/// Bytes that a connection takes. Where many come and go an eighth of all memory is holes between them, as `tests/history.rs`
/// measures.
fn taken(entry: &Entry) -> usize {
    (entry.bytes() + STANDING) * 8 / 7
}

/// Connections, the oldest first.
#[derive(Debug, Default)]
struct Line {
    oldest: Option<Id>,
    newest: Option<Id>,
    bytes: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Boxed: what is gone leaves a hole, which shall cost little.
    places: Vec<Option<Box<Stood>>>,
    free: Vec<Id>,
    healthy: Line,
    failing: Line,
}

impl Shelf {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.healthy.bytes + self.failing.bytes
    }

    /// Bytes of the healthy ones.
    pub fn healthy_bytes(&self) -> usize {
        self.healthy.bytes
    }

    /// The one heard of longest ago, and whether it is healthy: among the healthy ones if they are `spare`, else among the others.
    /// Of those if there are no such.
    pub fn oldest(&self, spare: bool) -> Option<(Id, bool)> {
        let healthy = self.healthy.oldest.map(|id| (id, true));
        let failing = self.failing.oldest.map(|id| (id, false));
        if spare {
            healthy.or(failing)
        } else {
            failing.or(healthy)
        }
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().flatten().map(|stood| &stood.entry)
    }

    pub fn get(&self, id: Id) -> Option<&Entry> {
        self.at(id).map(|stood| &stood.entry)
    }

    pub fn add(&mut self, entry: Entry) -> Id {
        let stood = Box::new(Stood {
            bytes: taken(&entry),
            healthy: entry.is_healthy(),
            entry,
            older: None,
            newer: None,
        });
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            Id(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
        });
        self.places[id.0 as usize] = Some(stood);
        self.link(id);
        id
    }

    /// Changes it, as the one that was heard of just now.
    pub fn change(&mut self, id: Id, change: impl FnOnce(&mut Entry)) {
        self.unlink(id);
        if let Some(stood) = self.at_mut(id) {
            change(&mut stood.entry);
            stood.bytes = taken(&stood.entry);
            stood.healthy = stood.entry.is_healthy();
        }
        self.link(id);
    }

    pub fn remove(&mut self, id: Id) -> Option<Entry> {
        self.unlink(id);
        let stood = self.places.get_mut(id.0 as usize)?.take()?;
        self.free.push(id);
        Some(stood.entry)
    }

    fn at(&self, id: Id) -> Option<&Stood> {
        self.places.get(id.0 as usize)?.as_deref()
    }

    fn at_mut(&mut self, id: Id) -> Option<&mut Stood> {
        self.places.get_mut(id.0 as usize)?.as_deref_mut()
    }

    fn line(&mut self, healthy: bool) -> &mut Line {
        if healthy {
            &mut self.healthy
        } else {
            &mut self.failing
        }
    }

    fn link(&mut self, id: Id) {
        let Some((healthy, bytes)) = self.at(id).map(|s| (s.healthy, s.bytes)) else {
            return;
        };
        let line = self.line(healthy);
        line.bytes += bytes;
        let older = line.newest.replace(id);
        line.oldest.get_or_insert(id);
        if let Some(stood) = self.at_mut(id) {
            (stood.older, stood.newer) = (older, None);
        }
        if let Some(older) = older.and_then(|older| self.at_mut(older)) {
            older.newer = Some(id);
        }
    }

    fn unlink(&mut self, id: Id) {
        let Some(stood) = self.at(id) else {
            return;
        };
        let (healthy, bytes, older, newer) = (stood.healthy, stood.bytes, stood.older, stood.newer);
        let line = self.line(healthy);
        line.bytes -= bytes;
        if line.oldest == Some(id) {
            line.oldest = newer;
        }
        if line.newest == Some(id) {
            line.newest = older;
        }
        if let Some(older) = older.and_then(|older| self.at_mut(older)) {
            older.newer = newer;
        }
        if let Some(newer) = newer.and_then(|newer| self.at_mut(newer)) {
            newer.older = older;
        }
    }
}
