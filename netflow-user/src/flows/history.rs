//! What the kernel told while nobody looked, within bounds: for whoever asks later.
//!
//! Kept by connection. When it is full, healthy connections go first, the one that was heard of longest ago before the others;
//! then those that failed or were not answered. What is told is what was fed, so that a walk of then is one of now.

mod entry;
mod shelf;

use super::connection::{ct_of, sent_by_ipvs, tuples_of};
use crate::model::flow::FlowSnapshot;
use crate::model::record::{Event, Record};
use crate::model::{CtTuples, Input, Time, Tuple};
use entry::Entry;
use foldhash::quality::RandomState;
use shelf::{Id, Shelf};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// Of what is kept, one part in so many is left to healthy connections, however many fail: that something works again, or for
/// somebody, shows in them alone.
const HEALTHY_SHARE: usize = 4;

/// Records and sweeps of one connection in one piece; of one that has more the older pieces go before the newest.
const PIECE: usize = 96;

/// A SYN comes so long after other signs of its connection at most.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Times at which it is known how much was lost, so long apart at least.
const LOSSES: usize = 256;
const LOSSES_APART: Duration = Duration::from_secs(1);

/// Connections that had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// How many.
    pub connections: u64,
    /// The last of them was heard of then: what was heard of later is all there.
    pub until: Time,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Bytes that it may take.
    pub limit: usize,
    /// Bytes that it takes.
    pub bytes: usize,
    /// Connections; of long ones, pieces.
    pub connections: usize,
    /// Those that were answered, and that nothing happened to.
    pub healthy_evicted: Evicted,
    /// All others.
    pub failing_evicted: Evicted,
}

/// The store.
#[derive(Debug)]
pub struct History {
    limit: usize,
    shelf: Shelf,
    /// The newest connection of each tuple, by its canonical form.
    by_tuple: HashMap<Tuple, Id, RandomState>,
    /// Where records go that have no tuple.
    loose: Option<Id>,
    healthy_evicted: Evicted,
    failing_evicted: Evicted,
    lost: VecDeque<(Time, BTreeMap<String, u64>)>,
    /// Latest time told, and latest sweep.
    now: Time,
    swept: Time,
}

impl History {
    /// An empty one that takes `limit` bytes at most.
    pub fn new(limit: usize) -> History {
        History {
            limit,
            shelf: Shelf::default(),
            by_tuple: HashMap::default(),
            loose: None,
            healthy_evicted: Evicted::default(),
            failing_evicted: Evicted::default(),
            lost: VecDeque::new(),
            now: Time(0),
            swept: Time(0),
        }
    }

    /// Takes in what the kernel told.
    pub fn take(&mut self, input: &Input) {
        match input {
            Input::Records { records } => {
                for record in records {
                    self.now = self.now.max(record.time);
                    self.record(record);
                }
            }
            Input::Flows { time, flows } => {
                self.now = self.now.max(*time);
                self.swept = self.swept.max(*time);
                for flow in flows {
                    self.flow(*time, flow);
                }
            }
            Input::Lost { lost } => self.lose(lost),
            _ => {}
        }
        self.make_room();
    }

    /// How much is kept.
    pub fn stock(&self) -> Stock {
        Stock {
            limit: self.limit,
            bytes: self.shelf.bytes(),
            connections: self.shelf.len(),
            healthy_evicted: self.healthy_evicted,
            failing_evicted: self.failing_evicted,
        }
    }

    /// What was told of connections that were heard of at `from` or later and have an address that is `wanted`, from their
    /// beginning on; of what belongs to no connection, all. In order of time.
    pub fn since(&self, from: Time, wanted: impl Fn(IpAddr) -> bool) -> Vec<Input> {
        let mut records: Vec<Record> = Vec::new();
        let mut flows: BTreeMap<Time, Vec<FlowSnapshot>> = BTreeMap::new();
        for entry in self.shelf.iter().filter(|e| e.last >= from) {
            if !entry.touches(&wanted) {
                continue;
            }
            let is_loose = entry.is_loose();
            let of_then = |r: &&Record| !is_loose || r.time >= from;
            records.extend(entry.records.iter().filter(of_then).cloned());
            for sweep in &entry.sweeps {
                flows.entry(sweep.at).or_default().push(sweep.flow.clone());
            }
        }
        records.sort_by_key(|r| r.time);
        // That nothing changed since is told too.
        if self.swept >= from {
            flows.entry(self.swept).or_default();
        }
        let mut told = Vec::new();
        let mut rest = records.into_iter().peekable();
        for (time, flows) in flows {
            let before: Vec<Record> =
                std::iter::from_fn(|| rest.next_if(|r| r.time <= time)).collect();
            told.extend((!before.is_empty()).then_some(Input::Records { records: before }));
            told.push(Input::Flows { time, flows });
        }
        let after: Vec<Record> = rest.collect();
        told.extend((!after.is_empty()).then_some(Input::Records { records: after }));
        told
    }

    /// What was lost since then, as far as that is known to a second.
    pub fn lost_since(&self, from: Time) -> BTreeMap<String, u64> {
        let nothing = BTreeMap::new();
        let Some((_, now)) = self.lost.back() else {
            return nothing;
        };
        let earlier = self.lost.iter().rev().find(|(at, _)| *at < from);
        let before = earlier.map_or(&nothing, |(_, lost)| lost);
        let since = now.iter().map(|(kind, n)| {
            let before = before.get(kind).copied().unwrap_or(0);
            (kind.clone(), n.saturating_sub(before))
        });
        since.filter(|(_, n)| *n > 0).collect()
    }

    fn lose(&mut self, lost: &BTreeMap<String, u64>) {
        match self.lost.back_mut() {
            Some((at, known)) if self.now.since(*at) < LOSSES_APART => known.clone_from(lost),
            _ => self.lost.push_back((self.now, lost.clone())),
        }
        if self.lost.len() > LOSSES {
            self.lost.pop_front();
        }
    }

    fn record(&mut self, record: &Record) {
        let id = match &record.event {
            // No walk asks for it.
            Event::CtEnd { evicted: false, .. } => return,
            Event::CtEnd { ct, .. } => self.of_tuple(ct.orig, true),
            Event::FlowEnd { flow } => self.of_tuple(flow.key.tuple, true),
            Event::Syn(segment) => match record.tuple {
                Some(tuple) => self.opened(tuple, segment.seq, record.time),
                None => self.of_none(),
            },
            _ => match ct_of(record).copied().or_else(|| sent_by_ipvs(record)) {
                Some(ct) => self.translated(&ct),
                None => self.of_any(record),
            },
        };
        let id = self.piece_of(id);
        self.shelf.change(id, |entry| entry.record(record));
    }

    fn flow(&mut self, at: Time, flow: &FlowSnapshot) {
        let id = self.of_tuple(flow.key.tuple, flow.stats.syn_ack.is_none());
        let id = self.piece_of(id);
        self.shelf.change(id, |entry| entry.sweep(at, flow));
    }

    fn find(&self, tuple: Tuple) -> Option<Id> {
        self.by_tuple.get(&tuple.canonical()).copied()
    }

    /// The connection of a tuple, a new one if there is none; `forward`: whether its packets go to the server.
    fn of_tuple(&mut self, tuple: Tuple, forward: bool) -> Id {
        self.find(tuple)
            .unwrap_or_else(|| self.create(if forward { tuple } else { tuple.inverse() }))
    }

    fn of_any(&mut self, record: &Record) -> Id {
        let tuples = tuples_of(record);
        let mut named = tuples.into_iter().flatten();
        match named.clone().find_map(|t| self.find(t)) {
            Some(known) => known,
            None => match named.next() {
                Some(tuple) => self.of_tuple(tuple, !matches!(record.event, Event::SynAck(_))),
                None => self.of_none(),
            },
        }
    }

    fn of_none(&mut self) -> Id {
        *self
            .loose
            .get_or_insert_with(|| self.shelf.add(Entry::new(None)))
    }

    fn create(&mut self, forward: Tuple) -> Id {
        let id = self.shelf.add(Entry::new(Some(forward)));
        self.index(id, forward);
        id
    }

    fn index(&mut self, id: Id, tuple: Tuple) {
        self.by_tuple.insert(tuple.canonical(), id);
    }

    /// The connection that a SYN with this number opens: one that had its tuple before is another.
    fn opened(&mut self, tuple: Tuple, isn: u32, time: Time) -> Id {
        let known = self.find(tuple).filter(|id| {
            let entry = self.shelf.get(*id);
            entry.is_some_and(|e| match e.isn {
                Some(known) => known == isn,
                None => time.since(e.last) < TOLERANCE,
            })
        });
        let id = known.unwrap_or_else(|| self.create(tuple));
        self.shelf.change(id, |entry| {
            entry.turn_towards(tuple);
            entry.isn = Some(isn);
        });
        id
    }

    /// The connection whose packets are translated so: both forms are one.
    fn translated(&mut self, ct: &CtTuples) -> Id {
        let (orig, translated) = (ct.orig, ct.translated());
        let fits = |e: &Entry| e.translated.is_none_or(|known| known == translated);
        let known = self.find(orig);
        let id = known.filter(|id| self.shelf.get(*id).is_some_and(fits));
        let id = id.unwrap_or_else(|| self.create(orig));
        if orig.canonical() == translated.canonical() {
            return id;
        }
        let stray = self.find(translated).filter(|other| *other != id);
        self.index(id, translated);
        self.shelf.change(id, |entry| {
            entry.turn_towards(orig);
            entry.translated = Some(translated);
        });
        let alone = |e: &Entry| e.translated.is_none() && e.len() < PIECE / 2;
        if let Some(other) = stray.filter(|other| self.shelf.get(*other).is_some_and(alone))
            && let Some(other) = self.shelf.remove(other)
        {
            self.shelf.change(id, |entry| entry.absorb(other));
        }
        id
    }

    /// Where the next of a connection goes: into another piece, if it has many.
    fn piece_of(&mut self, id: Id) -> Id {
        let Some(full) = self.shelf.get(id).filter(|e| e.len() >= PIECE) else {
            return id;
        };
        let forms = full.forms();
        let mut next = Entry::new(full.forward);
        self.shelf.change(id, |entry| entry.go_on_in(&mut next));
        let next = self.shelf.add(next);
        for form in forms {
            self.index(next, form);
        }
        if self.loose == Some(id) {
            self.loose = Some(next);
        }
        next
    }

    fn make_room(&mut self) {
        while self.shelf.bytes() > self.limit {
            let spare = self.shelf.healthy_bytes() > self.limit / HEALTHY_SHARE;
            let Some((id, healthy)) = self.shelf.oldest(spare) else {
                return;
            };
            self.evict(id, healthy);
        }
    }

    fn evict(&mut self, id: Id, healthy: bool) {
        let Some(gone) = self.shelf.remove(id) else {
            return;
        };
        for form in gone.forms() {
            let form = form.canonical();
            if self.by_tuple.get(&form).is_some_and(|known| *known == id) {
                self.by_tuple.remove(&form);
            }
        }
        if self.loose == Some(id) {
            self.loose = None;
        }
        let evicted = if healthy {
            &mut self.healthy_evicted
        } else {
            &mut self.failing_evicted
        };
        evicted.connections += 1;
        evicted.until = evicted.until.max(gone.last);
    }
}

#[cfg(test)]
mod tests;
