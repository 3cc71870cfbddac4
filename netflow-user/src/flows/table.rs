//! The join: every record and every sweep finds its connection.

use super::connection::{Cite, ConnEvent, Connection, Sight};
use crate::model::flow::FlowSnapshot;
use crate::model::record::{Event, Record};
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// Joins tolerate any order within this time: conntrack netlink carries no kernel time and CPUs have their own
/// place in the ring.
const TOLERANCE: Duration = Duration::from_secs(1);

/// An entry of the flow map speaks of a connection that was last heard of so long ago at most.
const QUIET: Duration = Duration::from_mins(1);

/// Bounds on memory.
#[derive(Debug, Clone, Copy)]
pub struct TableLimits {
    /// Connections kept.
    pub connections: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        TableLimits {
            connections: 20_000,
        }
    }
}

/// Connections of one node.
#[derive(Debug, Default)]
pub struct Table {
    limits: TableLimits,
    connections: Vec<Option<Connection>>,
    live: usize,
    by_tuple: HashMap<Tuple, Vec<usize>>,
    /// Addresses and ports that serve, to tell the client's side where neither SYN nor conntrack does.
    servers: HashSet<(IpAddr, u16)>,
    /// Addresses whose connections are the last to be evicted.
    watched: HashSet<IpAddr>,
    evicted: u64,
}

impl Table {
    /// An empty table.
    pub fn new(limits: TableLimits) -> Table {
        Table {
            limits,
            ..Table::default()
        }
    }

    /// Which addresses and ports serve. Their connections are oriented by it and are the last to be evicted.
    pub fn watch(&mut self, servers: impl IntoIterator<Item = (IpAddr, u16)>) {
        for (ip, port) in servers {
            self.watched.insert(ip);
            self.servers.insert((ip, port));
        }
    }

    /// Connections in the order in which they were first seen.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten()
    }

    /// Connections dropped for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes in one record.
    pub fn record(&mut self, cite: Cite, record: &Record) {
        match &record.event {
            Event::FlowEnd { flow } => self.flow(record.time, flow),
            Event::Nat { ct } => self.nat(cite, record, *ct, true),
            Event::CtEnd { .. }
            | Event::FibError { .. }
            | Event::NeighborFailed { .. }
            | Event::PmtuLearned { .. } => {}
            Event::CtInsertFailed { ct, .. } | Event::CtClash { ct } => {
                self.attach(cite, record, &[Some(ct.orig), Some(ct.translated())]);
            }
            Event::Syn(segment) => {
                if let Some(tuple) = record.tuple {
                    self.syn(cite, record, tuple, segment.seq);
                }
            }
            Event::Drop(drop) => {
                if let Some(ct) = drop.ct {
                    self.learn_ct(cite, record.time, ct, Age::of(&ct));
                }
                self.attach(
                    cite,
                    record,
                    &[record.tuple, drop.ct.map(|c| c.orig), drop.quoted],
                );
            }
            Event::IcmpSent { ct, .. } | Event::NeighborWait { ct, .. } => {
                if let Some(ct) = ct {
                    self.learn_ct(cite, record.time, *ct, Age::of(ct));
                }
                self.attach(cite, record, &[record.tuple, ct.map(|c| c.orig)]);
            }
            Event::PmtuReceived { quoted, .. } => {
                let id = quoted.and_then(|t| self.find(&t, record.time));
                self.push(id, cite, record);
            }
            Event::IcmpError(e) => {
                let id = e.quoted.and_then(|t| self.find(&t, record.time));
                self.push(id, cite, record);
            }
            Event::SynAck(_)
            | Event::Rst(_)
            | Event::FirstPacket(_)
            | Event::Retransmit(_)
            | Event::TcpRetransmit { .. }
            | Event::ResetSent
            | Event::ResetReceived
            | Event::CtFull
            | Event::Fragmented { .. }
            | Event::Ipvs { .. }
            | Event::ListenOverflow { .. } => self.attach(cite, record, &[record.tuple]),
        }
    }

    /// Takes in one entry of the flow map as a sweep at `at` found it.
    pub fn flow(&mut self, at: Time, snapshot: &FlowSnapshot) {
        let FlowSnapshot { key, stats } = snapshot;
        if !key.tuple.proto.has_ports() {
            return;
        }
        let id = match self.find_for_flow(snapshot) {
            Some(id) => id,
            None => self.create(oriented(key.tuple, snapshot, &self.servers), stats.first),
        };
        let Some(conn) = self.connections[id].as_mut() else {
            return;
        };
        if stats.syn.is_some() && conn.leg(&key.tuple).is_some_and(super::Leg::is_forward) {
            conn.opened = true;
            conn.isn.get_or_insert(stats.isn);
        }
        conn.began = conn.began.min(stats.first);
        conn.last = conn.last.max(stats.last);
        if key.tuple.proto == Proto::UDP {
            match conn.leg(&key.tuple) {
                Some(super::Leg::Orig) => conn.datagrams.sent(at, stats.last),
                Some(leg) if !leg.is_forward() => conn.datagrams.got(at, stats.last),
                _ => {}
            }
        }
        match conn.sights.iter_mut().find(|s| s.key == *key) {
            Some(sight) => sight.stats = stats.clone(),
            None => conn.sights.push(Sight {
                key: *key,
                stats: stats.clone(),
            }),
        }
        conn.take_stock(at);
    }

    /// Takes in a row of the conntrack table: tells the direction and the backend of connections seen mid-flow.
    pub fn conntrack(&mut self, time: Time, ct: CtTuples) {
        let known = [ct.orig, ct.orig.inverse(), ct.translated(), ct.reply];
        if known.iter().any(|t| self.by_tuple.contains_key(t)) {
            self.learn_ct(Cite::Conntrack(ct.orig), time, ct, Age::Any);
        }
    }

    fn syn(&mut self, cite: Cite, record: &Record, tuple: Tuple, isn: u32) {
        let same = self.find_where(&tuple, |c| {
            c.leg(&tuple).is_some_and(super::Leg::is_forward) && c.isn.is_none_or(|i| i == isn)
        });
        let id = same.unwrap_or_else(|| self.create((tuple, false), record.time));
        if let Some(conn) = self.connections[id].as_mut() {
            conn.isn = Some(isn);
            conn.opened = true;
            conn.direction_guessed = false;
        }
        self.push(Some(id), cite, record);
    }

    fn nat(&mut self, cite: Cite, record: &Record, ct: CtTuples, new: bool) {
        let id = self.learn_ct(cite, record.time, ct, Age::New);
        if let Some(conn) = self.connections[id].as_mut() {
            conn.ct_new |= new;
        }
        self.push(Some(id), cite, record);
    }

    /// Gives the connection of `ct.orig` its tuples, creating it if need be, and takes over what was filed under the
    /// translated form alone.
    fn learn_ct(&mut self, cite: Cite, time: Time, ct: CtTuples, age: Age) -> usize {
        let fits = |c: &Connection| match c.ct {
            None => c.orig == ct.orig || (c.direction_guessed && c.orig.inverse() == ct.orig),
            Some(known) => known.orig == ct.orig && known.reply == ct.reply,
        };
        let id = match self.find_where(&ct.orig, fits) {
            Some(id) => id,
            None => self.create((ct.orig, false), time),
        };
        let strays = self.strays(id, time, &ct, age);
        let absorbed: Vec<Connection> = strays.into_iter().filter_map(|o| self.remove(o)).collect();
        let Some(conn) = self.connections[id].as_mut() else {
            return id;
        };
        conn.orig = ct.orig;
        conn.direction_guessed = false;
        // A later view of the same entry knows more: confirmed, reply seen.
        if conn
            .ct
            .is_none_or(|known| known.status.0 & ct.status.0 == known.status.0)
        {
            conn.ct = Some(ct);
        }
        conn.ct_cite.get_or_insert(cite);
        for old in absorbed {
            conn.absorb(old);
        }
        let tuples = conn.tuples();
        self.index(id, &tuples);
        id
    }

    /// What was filed under a translated form of the connection `id` alone and is the same connection: conntrack's tuples
    /// are unique, so whatever used them while the entry stood does.
    fn strays(&self, id: usize, time: Time, ct: &CtTuples, age: Age) -> Vec<usize> {
        let own = self.connections[id].as_ref();
        let fits = |c: &Connection| {
            let isn = own.and_then(|o| o.isn);
            let same_isn = c.isn.is_none() || isn.is_none() || c.isn == isn;
            let in_time = match age {
                Age::New => c.began + TOLERANCE >= time - TOLERANCE,
                Age::Any => own.is_none_or(|o| {
                    c.began <= o.last.max(time) + TOLERANCE && o.began <= c.last + QUIET
                }),
            };
            c.ct.is_none() && same_isn && in_time
        };
        let mut strays = Vec::new();
        for t in [ct.translated(), ct.reply] {
            for &other in self.by_tuple.get(&t).into_iter().flatten() {
                let stray = other != id && self.connections[other].as_ref().is_some_and(fits);
                if stray && !strays.contains(&other) {
                    strays.push(other);
                }
            }
        }
        strays
    }

    fn attach(&mut self, cite: Cite, record: &Record, candidates: &[Option<Tuple>]) {
        let known = candidates
            .iter()
            .flatten()
            .find_map(|t| self.find(t, record.time));
        let id = known.or_else(|| {
            let tuple = candidates.iter().flatten().find(|t| t.proto.has_ports())?;
            let forward = match &record.event {
                Event::SynAck(_) | Event::Rst(_) | Event::ResetSent => tuple.inverse(),
                _ => *tuple,
            };
            let guess = guess_direction(forward, &self.servers);
            Some(self.create(guess, record.time))
        });
        if let (Some(id), Event::FirstPacket(_)) = (id, &record.event)
            && let Some(conn) = self.connections[id].as_mut()
            && conn.orig.proto != Proto::TCP
            && record.tuple == Some(conn.orig)
        {
            conn.opened = true;
        }
        self.push(id, cite, record);
    }

    fn push(&mut self, id: Option<usize>, cite: Cite, record: &Record) {
        if let Some(conn) = id.and_then(|id| self.connections[id].as_mut()) {
            conn.push(ConnEvent {
                cite,
                record: record.clone(),
                more: 0,
            });
        }
    }

    /// Newest connection that `tuple` can belong to at `time`.
    fn find(&self, tuple: &Tuple, time: Time) -> Option<usize> {
        self.find_where(tuple, |c| c.began <= time + TOLERANCE)
    }

    fn find_where(&self, tuple: &Tuple, fits: impl Fn(&Connection) -> bool) -> Option<usize> {
        let ids = self.by_tuple.get(tuple)?;
        ids.iter()
            .rev()
            .copied()
            .find(|&id| self.connections[id].as_ref().is_some_and(&fits))
    }

    /// A tuple can be used again: a forward entry with a SYN belongs to the connection with its sequence number.
    fn find_for_flow(&self, snapshot: &FlowSnapshot) -> Option<usize> {
        let FlowSnapshot { key, stats } = snapshot;
        self.find_where(&key.tuple, |c| {
            let forward = c.leg(&key.tuple).is_some_and(super::Leg::is_forward);
            match (forward && stats.syn.is_some(), c.isn) {
                (true, Some(isn)) => isn == stats.isn,
                _ => c.began <= stats.last + TOLERANCE && stats.first <= c.last + QUIET,
            }
        })
    }

    fn create(&mut self, (orig, guessed): (Tuple, bool), at: Time) -> usize {
        if self.live >= self.limits.connections {
            self.evict();
        }
        let mut conn = Connection::new(orig, at);
        conn.direction_guessed = guessed;
        let tuples = conn.tuples();
        let id = self.connections.len();
        self.connections.push(Some(conn));
        self.live += 1;
        self.index(id, &tuples);
        id
    }

    fn index(&mut self, id: usize, tuples: &[Tuple]) {
        for t in tuples {
            let ids = self.by_tuple.entry(*t).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    fn remove(&mut self, id: usize) -> Option<Connection> {
        let conn = self.connections[id].take()?;
        self.live -= 1;
        for t in conn.tuples() {
            if let Some(ids) = self.by_tuple.get_mut(&t) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    self.by_tuple.remove(&t);
                }
            }
        }
        Some(conn)
    }

    /// Makes room: a tenth of the table, oldest first, watched addresses last.
    fn evict(&mut self) {
        let mut order: Vec<(bool, Time, usize)> = self
            .connections
            .iter()
            .enumerate()
            .filter_map(|(id, c)| c.as_ref().map(|c| (self.is_watched(c), c.last, id)))
            .collect();
        order.sort_unstable();
        for (_, _, id) in order.into_iter().take(self.limits.connections / 10 + 1) {
            self.remove(id);
            self.evicted += 1;
        }
        // Ids are positions; compact once the table is mostly holes, so that memory stays bounded too.
        if self.connections.len() > 4 * self.limits.connections {
            let kept: Vec<Connection> = self.connections.drain(..).flatten().collect();
            self.by_tuple.clear();
            for (id, conn) in kept.into_iter().enumerate() {
                let tuples = conn.tuples();
                self.connections.push(Some(conn));
                self.index(id, &tuples);
            }
        }
    }

    fn is_watched(&self, conn: &Connection) -> bool {
        let t = conn.translated();
        [conn.orig.src, conn.orig.dst, t.src, t.dst]
            .iter()
            .any(|ip| self.watched.contains(ip))
    }
}

/// How old a conntrack entry is when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// It begins now.
    New,
    /// It may have stood for long.
    Any,
}

impl Age {
    /// An entry is confirmed once its first packet has passed.
    fn of(ct: &CtTuples) -> Age {
        if ct.status.confirmed() {
            Age::Any
        } else {
            Age::New
        }
    }
}

/// Tuple from client to server, and whether that had to be guessed.
fn oriented(
    tuple: Tuple,
    snapshot: &FlowSnapshot,
    servers: &HashSet<(IpAddr, u16)>,
) -> (Tuple, bool) {
    let stats = &snapshot.stats;
    if stats.syn.is_some() {
        (tuple, false)
    } else if stats.syn_ack.is_some() {
        (tuple.inverse(), false)
    } else {
        guess_direction(tuple, servers)
    }
}

/// A known server is the server; else the lower port is, and that is a guess.
fn guess_direction(tuple: Tuple, servers: &HashSet<(IpAddr, u16)>) -> (Tuple, bool) {
    if servers.contains(&(tuple.dst, tuple.dport)) {
        (tuple, false)
    } else if servers.contains(&(tuple.src, tuple.sport)) {
        (tuple.inverse(), false)
    } else if tuple.sport < tuple.dport {
        (tuple.inverse(), true)
    } else {
        (tuple, true)
    }
}
