//! The join: every record and every sweep finds its connection.

use super::connection::{
    ConnEvent, Connection, GRAIN, Leg, RecordId, ShownBy, Sight, Tuples, ct_of, moment,
    sent_by_ipvs, tuples_of,
};
use crate::model::flow::FlowSnapshot;
use crate::model::record::{Event, IcmpError, Record};
use crate::model::{CtTuples, Proto, Time, Tuple};
use foldhash::quality::RandomState;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Joins tolerate any order within this time: conntrack netlink carries no kernel time and CPUs have their own
/// place in the ring.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Conntrack keeps the entry of a SYN that nobody answers for so long (`tcp_timeouts`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/netfilter/nf_conntrack_proto_tcp.c>). A SYN that begins another
/// connection gets another entry.
const SYN_SENT: Duration = Duration::from_mins(2);

/// Connections kept that used one tuple one after another.
const SAME_TUPLE: usize = 256;

/// Records kept that wait for the connection that they are of.
const WAITING: usize = 1024;

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

/// Whether packets of this tuple make a connection: of one that has ports, or of a tunnel between two nodes.
fn is_followed(tuple: &Tuple) -> bool {
    tuple.proto.has_ports() || tuple.proto.encapsulates()
}

/// Connections that used a tuple: mostly one.
type Ids = SmallVec<[usize; 2]>;

/// Connections of one node.
#[derive(Debug, Default)]
pub struct Table {
    limits: TableLimits,
    /// Boxed: what is gone leaves a hole, which shall cost little.
    connections: Vec<Option<Box<Connection>>>,
    live: usize,
    /// By canonical tuple: whoever has a tuple has its inverse.
    by_tuple: HashMap<Tuple, Ids, RandomState>,
    /// Addresses and ports that serve, to tell the client's side where neither SYN nor conntrack does.
    servers: HashSet<(IpAddr, u16)>,
    /// Addresses whose connections are the last to be evicted.
    watched: HashSet<IpAddr>,
    evicted: u64,
    /// ICMP errors about packets of connections that nothing has told of yet, by canonical tuple.
    waiting: HashMap<Tuple, Vec<(RecordId, Record)>>,
    /// Records of connections that nothing else told of, those that wait included.
    unjoined: u64,
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
        self.connections.iter().flatten().map(Box::as_ref)
    }

    /// Connections dropped for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Records of connections that nothing else told of.
    pub fn unjoined(&self) -> u64 {
        self.unjoined
    }

    /// Takes in one record.
    pub fn record(&mut self, cite: RecordId, record: &Record) {
        self.compact();
        match &record.event {
            Event::FlowEnd { flow } => self.flow(record.time, flow),
            Event::Nat { ct, by } => self.nat(cite, record, ct, *by),
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
                    self.shown(cite, record, &Arc::new(ct));
                }
                self.attach(
                    cite,
                    record,
                    &[record.tuple, drop.ct.map(|c| c.orig), drop.quoted],
                );
            }
            Event::IcmpSent { ct, .. } | Event::NeighborWait { ct, .. } => {
                if let Some(ct) = ct {
                    self.shown(cite, record, ct);
                }
                let orig = ct.as_ref().map(|c| c.orig);
                self.attach(cite, record, &[record.tuple, orig]);
            }
            Event::IcmpError(IcmpError { quoted, .. }) | Event::PmtuReceived { quoted, .. } => {
                if let Some(quoted) = quoted.filter(is_followed) {
                    self.complaint(cite, record, quoted);
                }
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
            | Event::ListenOverflow { .. } => self.attach(cite, record, &[record.tuple]),
            Event::Ipvs { .. } => match sent_by_ipvs(record) {
                Some(nat) => self.ipvs(cite, record, &nat),
                None => self.attach(cite, record, &[record.tuple]),
            },
        }
    }

    /// Takes in what a sweep of the flow map at `at` found. How far a connection got is reckoned once, when all of its
    /// entries are there: each interface alone has a part of it.
    pub fn flows(&mut self, at: Time, snapshots: &[FlowSnapshot]) {
        self.compact();
        let mut changed: Vec<usize> = snapshots
            .iter()
            .filter_map(|snapshot| self.file(at, snapshot))
            .collect();
        changed.sort_unstable();
        changed.dedup();
        for id in changed {
            if let Some(conn) = self.connections[id].as_deref_mut() {
                conn.take_stock(at);
            }
        }
    }

    /// Takes in one entry of the flow map as it stood at `at`.
    pub fn flow(&mut self, at: Time, snapshot: &FlowSnapshot) {
        self.flows(at, std::slice::from_ref(snapshot));
    }

    /// Gives an entry to its connection, and says which that is.
    fn file(&mut self, at: Time, snapshot: &FlowSnapshot) -> Option<usize> {
        let FlowSnapshot { key, stats } = snapshot;
        if !is_followed(&key.tuple) {
            return None;
        }
        let id = match (stats.syn, self.find_for_flow(snapshot)) {
            (Some(syn), _) => self.open(key.tuple, stats.isn, (syn, stats.last.max(syn))),
            (None, Some(id)) => id,
            (None, None) => self.create(oriented(key.tuple, snapshot, &self.servers), stats.first),
        };
        let conn = self.connections[id].as_deref_mut()?;
        conn.began = conn.began.min(stats.first);
        conn.last = conn.last.max(stats.last);
        if key.tuple.proto == Proto::UDP {
            match conn.leg(&key.tuple) {
                Some(Leg::Orig) => conn.datagrams_mut().sent(at, stats.last),
                Some(leg) if !leg.is_forward() => conn.datagrams_mut().got(at, stats.last),
                _ => {}
            }
        }
        conn.see(*key, stats);
        Some(id)
    }

    /// Takes in a row of the conntrack table: tells the direction and the backend of connections seen mid-flow.
    pub fn conntrack(&mut self, time: Time, ct: CtTuples) {
        let known = [ct.orig, ct.reply]
            .iter()
            .any(|t| self.using(t).next().is_some());
        if known {
            self.learn_ct(ShownBy::Table, (time, time), &Arc::new(ct), Age::Any);
        }
    }

    fn syn(&mut self, cite: RecordId, record: &Record, tuple: Tuple, isn: u32) {
        let id = self.open(tuple, isn, (record.time, record.time));
        self.push(Some(id), cite, record);
    }

    /// The connection that a SYN from `tuple` began at `time`, and that had the tuple until `by` at least: what is known by the
    /// SYN that was sent again may be told of before it.
    fn open(&mut self, tuple: Tuple, isn: u32, (time, by): (Time, Time)) -> usize {
        let forward = |c: &Connection| c.leg(&tuple).is_some_and(Leg::is_forward);
        let same = |c: &Connection| c.isn == Some(isn) && forward(c);
        let nameless = |c: &Connection| {
            let turned = c.direction_guessed && c.orig.inverse() == tuple;
            // Its first SYN passed before the interfaces were watched: this one is sent again, a second later at least.
            let unseen = c.is_only_announced() && c.place() + SYN_SENT >= time;
            let recent = c.place() + TOLERANCE >= time;
            let is_it = recent || unseen || c.acknowledges(isn);
            c.isn.is_none() && (forward(c) || turned) && is_it
        };
        let id = self
            .newest(&tuple, same)
            .or_else(|| self.find_where(&tuple, by, nameless))
            .unwrap_or_else(|| self.create((tuple, false), time));
        if let Some(conn) = self.connections[id].as_deref_mut() {
            conn.turn_towards(tuple);
            conn.isn = Some(isn);
            conn.opened = true;
            conn.opened_at(time);
        }
        self.settle(id);
        self.complete(id, time);
        id
    }

    /// A record shows the entry of its packet.
    fn shown(&mut self, cite: RecordId, record: &Record, ct: &Arc<CtTuples>) {
        let time = (record.time, record.time);
        self.learn_ct(ShownBy::Record(cite), time, ct, Age::of(ct));
    }

    fn nat(&mut self, cite: RecordId, record: &Record, ct: &Arc<CtTuples>, by: Option<Time>) {
        let time = (record.time, by.unwrap_or(record.time));
        let id = self.learn_ct(ShownBy::Record(cite), time, ct, Age::New { told: true });
        self.push(Some(id), cite, record);
    }

    /// Gives the connection of `ct.orig` its tuples, creating it if need be, and takes over what was filed under the
    /// translated form alone. What is told was so at the time, or came to be until `by`.
    fn learn_ct(
        &mut self,
        shown: ShownBy,
        (time, by): (Time, Time),
        ct: &Arc<CtTuples>,
        age: Age,
    ) -> usize {
        // Who was seen after NAT just now with another sequence number is another connection.
        let opened =
            |c: &Connection| !c.is_tracked() && c.isn.is_some() && c.place() + TOLERANCE >= time;
        let isn = age
            .is_new()
            .then(|| self.find_where(&ct.translated(), by, opened))
            .flatten()
            .and_then(|id| self.connections[id].as_deref()?.isn);
        let fits = |c: &Connection| match c.ct() {
            None => {
                let is_it =
                    c.orig == ct.orig || (c.direction_guessed && c.orig.inverse() == ct.orig);
                let same_isn = isn.is_none() || c.isn.is_none() || c.isn == isn;
                // What went on long before an entry began was not its connection.
                let in_time = !age.is_new() || c.start().is_some() || c.began + TOLERANCE >= time;
                is_it && same_isn && in_time
            }
            Some(known) => known.orig == ct.orig && known.reply == ct.reply,
        };
        let id = match self.find_where(&ct.orig, by, fits) {
            Some(id) => id,
            None => self.create((ct.orig, false), time),
        };
        let strays = self.strays(id, (time, by), ct, age);
        let mut tuples = Tuples::new();
        if let Some(conn) = self.connections[id].as_deref_mut() {
            conn.turn_towards(ct.orig);
            let told = age == Age::New { told: true };
            conn.view(Arc::clone(ct), told, age.is_new(), (time, shown));
            tuples = conn.tuples();
            self.index(id, &tuples);
        }
        // What goes on under a form in which nothing of it has passed is another's.
        if tuples.contains(&ct.reply.canonical()) {
            for stray in strays {
                self.gather(id, stray);
            }
        }
        self.settle(id);
        id
    }

    /// IPVS chose where a connection goes. It tells of old ones, too: of each that it has not told of for a while.
    fn ipvs(&mut self, cite: RecordId, record: &Record, nat: &CtTuples) {
        let time = record.time;
        // Who was seen after NAT just now with another sequence number is another connection.
        let opened =
            |c: &Connection| c.nat().is_none() && c.isn.is_some() && c.place() + TOLERANCE >= time;
        let sent = self.find_where(&nat.translated(), time, opened);
        let isn = sent.and_then(|id| self.connections[id].as_deref()?.isn);
        let fits = |c: &Connection| {
            let is_it = c.orig == nat.orig || c.direction_guessed && c.orig.inverse() == nat.orig;
            let same_isn = isn.is_none() || c.isn.is_none() || c.isn == isn;
            let elsewhere = c.is_dnat() && c.translated().destination() != nat.reply.source();
            is_it && same_isn && !elsewhere
        };
        let id = match self.find_where(&nat.orig, time, fits) {
            Some(id) => id,
            None => self.create((nat.orig, false), time),
        };
        if let Some(conn) = self.connections[id].as_deref_mut() {
            conn.turn_towards(nat.orig);
        }
        self.push(Some(id), cite, record);
        if let Some(conn) = self.connections[id].as_deref() {
            let tuples = conn.tuples();
            self.index(id, &tuples);
        }
        self.complete(id, time);
        self.settle(id);
    }

    /// Takes over what was filed under the form that IPVS alone shows.
    fn complete(&mut self, id: usize, time: Time) {
        let conn = self.connections[id].as_deref();
        let untracked = conn.filter(|c| c.is_untracked());
        let Some(nat) = untracked.and_then(Connection::nat) else {
            return;
        };
        for stray in self.strays(id, (time, time), &nat, Age::Any) {
            self.gather(id, stray);
        }
    }

    /// What was filed under a translated form of the connection `id` alone and is the same connection: conntrack's tuples
    /// are unique, so whatever used them while the entry stood does.
    fn strays(&self, id: usize, (time, by): (Time, Time), ct: &CtTuples, age: Age) -> Vec<usize> {
        let own = self.connections[id].as_deref();
        let isn = own.and_then(|o| o.isn);
        let fits = |c: &Connection| {
            let same_isn = c.isn.is_none() || isn.is_none() || c.isn == isn;
            let in_time = match age {
                // The translated form appears when the entry does.
                Age::New { .. } if c.isn.is_some() && isn.is_none() => c.place() + GRAIN >= time,
                Age::New { .. } => c.last + TOLERANCE >= time - TOLERANCE,
                Age::Any => own.is_none_or(|o| {
                    c.began <= o.last.max(time) + TOLERANCE && o.began <= c.last + QUIET
                }),
            };
            c.nat().is_none() && same_isn && in_time
        };
        let begun = |c: &Connection| c.isn.is_some() && fits(c);
        let opened = self.find_where(&ct.reply, by, begun);
        let is_stray = |c: &Connection, id| fits(c) && (c.isn.is_none() || Some(id) == opened);
        self.using(&ct.reply)
            .filter(|&other| other != id)
            .filter(|&other| {
                let conn = self.connections[other].as_deref();
                conn.is_some_and(|c| is_stray(c, other))
            })
            .collect()
    }

    /// Takes over a stray: all of it, or, where nothing but its tuple says whose it is, what came after the start.
    fn gather(&mut self, id: usize, stray: usize) {
        let whole = self.pair(id, stray, |own, other| {
            // The translated form appears when the entry does.
            let start = own.new.or(own.syn).filter(|_| other.isn.is_none());
            let Some(start) = start.filter(|start| other.began + GRAIN < *start) else {
                return true;
            };
            other.cede(own, |t| t + GRAIN >= start);
            other.is_empty()
        });
        if whole == Some(true)
            && let Some(old) = self.remove(stray)
            && let Some(conn) = self.connections[id].as_deref_mut()
        {
            conn.absorb(*old);
            let tuples = conn.tuples();
            self.index(id, &tuples);
        }
    }

    /// Now that it is known when the connection `id` began, what was told of its tuples goes to whoever had them then.
    fn settle(&mut self, id: usize) {
        let Some(own) = self.connections[id]
            .as_deref()
            .filter(|c| c.start().is_some())
        else {
            return;
        };
        let tuples = own.tuples();
        let others = tuples.iter().flat_map(|t| self.using(t));
        let mut siblings: Vec<(Time, usize)> = others
            .filter(|other| *other != id)
            .filter_map(|other| Some((self.connections[other].as_deref()?.place(), other)))
            .collect();
        siblings.sort_unstable();
        siblings.dedup();
        for (_, other) in siblings {
            let empty = self.pair(id, other, |own, other| {
                let (earlier, later) = if (other.place(), other.began) <= (own.place(), own.began) {
                    (&mut *other, own)
                } else {
                    (own, &mut *other)
                };
                if let Some(start) = later.start() {
                    earlier.part_from(later, start);
                }
                other.is_empty()
            });
            if empty == Some(true) {
                self.remove(other);
            }
        }
    }

    /// Lets two connections exchange what is theirs.
    fn pair<T>(
        &mut self,
        one: usize,
        other: usize,
        exchange: impl FnOnce(&mut Connection, &mut Connection) -> T,
    ) -> Option<T> {
        let mut a = self.connections[one].take()?;
        let Some(mut b) = self.connections[other].take() else {
            self.connections[one] = Some(a);
            return None;
        };
        let before = [a.tuples(), b.tuples()];
        let result = exchange(&mut a, &mut b);
        let after = [a.tuples(), b.tuples()];
        let orphans = [a.orphans(), b.orphans()];
        self.connections[one] = Some(a);
        self.connections[other] = Some(b);
        for ((id, before), after) in [one, other].into_iter().zip(before).zip(after) {
            let left = before.into_iter().filter(|t| !after.contains(t));
            self.unindex(id, left);
            self.index(id, &after);
        }
        for (events, sights) in orphans {
            for event in events {
                self.rejoin(event);
            }
            for Sight { key, stats } in sights {
                self.flow(stats.last, &FlowSnapshot { key, stats });
            }
        }
        Some(result)
    }

    /// Finds another connection for a record.
    fn rejoin(&mut self, event: ConnEvent) {
        let ConnEvent { cite, record, .. } = &event;
        let tuples = tuples_of(record);
        if let Event::IcmpError(_) | Event::PmtuReceived { .. } = record.event {
            if let Some(quoted) = tuples.into_iter().flatten().next() {
                self.complaint(*cite, record, quoted);
            }
            return;
        }
        let id = self.home(record, &tuples);
        if let Some(conn) = id.and_then(|id| self.connections[id].as_deref_mut()) {
            conn.push(event);
        }
    }

    /// An ICMP error goes to the connection of the packet that it quotes, as soon as there is one.
    fn complaint(&mut self, cite: RecordId, record: &Record, quoted: Tuple) {
        let id = self.find(&quoted, record.time);
        if id.is_some() {
            return self.push(id, cite, record);
        }
        self.unjoined += 1;
        let waiting: usize = self.waiting.values().map(Vec::len).sum();
        if waiting < WAITING {
            let queue = self.waiting.entry(quoted.canonical()).or_default();
            queue.push((cite, record.clone()));
        }
    }

    fn attach(&mut self, cite: RecordId, record: &Record, candidates: &[Option<Tuple>]) {
        let id = self.home(record, candidates);
        if let (Some(id), Event::FirstPacket(_)) = (id, &record.event)
            && let Some(conn) = self.connections[id].as_deref_mut()
            && conn.orig.proto != Proto::TCP
            && record.tuple == Some(conn.orig)
        {
            conn.opened = true;
        }
        self.push(id, cite, record);
    }

    /// The connection that a record is of by its tuples, made if there is none.
    fn home(&mut self, record: &Record, candidates: &[Option<Tuple>]) -> Option<usize> {
        let shown = ct_of(record).map(|ct| ct.orig);
        let is_its = |c: &Connection| shown.is_none_or(|orig| c.orig == orig);
        let known = candidates
            .iter()
            .flatten()
            .find_map(|t| self.find_where(t, record.time, is_its));
        known.or_else(|| {
            let tuple = candidates.iter().flatten().find(|t| is_followed(t))?;
            let forward = match &record.event {
                Event::SynAck(_) | Event::Rst(_) | Event::ResetSent => tuple.inverse(),
                _ => *tuple,
            };
            let guess = guess_direction(forward, &self.servers);
            Some(self.create(guess, record.time))
        })
    }

    fn push(&mut self, id: Option<usize>, cite: RecordId, record: &Record) {
        if let Some(conn) = id.and_then(|id| self.connections[id].as_deref_mut()) {
            conn.push(ConnEvent {
                cite,
                record: record.clone(),
                more: 0,
            });
        }
    }

    /// The connection that had `tuple` at `time`.
    fn find(&self, tuple: &Tuple, time: Time) -> Option<usize> {
        self.find_where(tuple, time, |_| true)
    }

    /// Of the connections that used `tuple` one after another, the latest that had begun by `time`, else the first that
    /// began soon after.
    fn find_where(
        &self,
        tuple: &Tuple,
        time: Time,
        fits: impl Fn(&Connection) -> bool,
    ) -> Option<usize> {
        let fitting = self.using(tuple).filter_map(|id| {
            let conn = self.connections[id].as_deref().filter(|c| fits(c))?;
            // Its SYN says exactly when it began.
            let early = if conn.syn.is_some() { GRAIN } else { TOLERANCE };
            Some((conn.place(), early, id))
        });
        let begun = fitting.clone().filter(|(place, ..)| *place <= time + GRAIN);
        let soon = fitting.filter(|(place, early, _)| *place <= time + *early);
        begun.max().or_else(|| soon.min()).map(|(.., id)| id)
    }

    /// Connections that used `tuple`, in either direction, in the order in which they were first seen.
    fn using(&self, tuple: &Tuple) -> impl DoubleEndedIterator<Item = usize> + Clone {
        let ids = self.by_tuple.get(&tuple.canonical());
        ids.into_iter().flatten().copied()
    }

    fn newest(&self, tuple: &Tuple, fits: impl Fn(&Connection) -> bool) -> Option<usize> {
        self.using(tuple)
            .rev()
            .find(|&id| self.connections[id].as_deref().is_some_and(&fits))
    }

    /// The connection of an entry that no SYN began.
    fn find_for_flow(&self, snapshot: &FlowSnapshot) -> Option<usize> {
        let FlowSnapshot { key, stats } = snapshot;
        // An answer is to the SYN that it acknowledges, also where only the one sent again was seen.
        let opener = stats.syn_ack.map(|_| stats.ack.wrapping_sub(1));
        let acknowledged = |c: &Connection| opener.is_some() && c.isn == opener;
        let lasting = |c: &Connection| stats.first <= c.last + QUIET;
        // What was told of these packets came before the sweep that knows when the first one was.
        let told = |c: &Connection| {
            let within = stats.first <= c.began && c.last <= stats.last + GRAIN;
            within && c.isn.is_none() && c.start().is_none() && c.sights.is_empty()
        };
        self.newest(&key.tuple, acknowledged)
            .or_else(|| self.find_where(&key.tuple, moment(stats), lasting))
            .or_else(|| self.newest(&key.tuple, told))
    }

    fn create(&mut self, (orig, guessed): (Tuple, bool), at: Time) -> usize {
        if self.live >= self.limits.connections {
            self.evict();
        }
        let mut conn = Connection::new(orig, at);
        conn.direction_guessed = guessed;
        let tuples = conn.tuples();
        let id = self.connections.len();
        self.connections.push(Some(Box::new(conn)));
        self.live += 1;
        self.index(id, &tuples);
        if let Some(ids) = self.by_tuple.get(&orig.canonical())
            && ids.len() > SAME_TUPLE
            && let Some(oldest) = ids.first().copied()
        {
            self.remove(oldest);
            self.evicted += 1;
        }
        id
    }

    fn index(&mut self, id: usize, tuples: &[Tuple]) {
        for t in tuples {
            let ids = self.by_tuple.entry(*t).or_default();
            if ids.contains(&id) {
                continue;
            }
            ids.push(id);
            if self.waiting.is_empty() {
                continue;
            }
            for (cite, record) in self.waiting.remove(t).into_iter().flatten() {
                if let Some(conn) = self.connections[id].as_deref_mut() {
                    self.unjoined -= 1;
                    conn.push(ConnEvent {
                        cite,
                        record,
                        more: 0,
                    });
                }
            }
        }
    }

    fn unindex(&mut self, id: usize, tuples: impl IntoIterator<Item = Tuple>) {
        for t in tuples {
            if let Some(ids) = self.by_tuple.get_mut(&t) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    self.by_tuple.remove(&t);
                }
            }
        }
    }

    fn remove(&mut self, id: usize) -> Option<Box<Connection>> {
        let conn = self.connections[id].take()?;
        self.live -= 1;
        self.unindex(id, conn.tuples());
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
    }

    /// Closes the holes once the table is mostly holes, so that memory stays bounded too. Ids are positions: they hold
    /// from here to the next call, for all of a record and all of a sweep.
    fn compact(&mut self) {
        if self.connections.len() <= 4 * self.limits.connections {
            return;
        }
        let kept: Vec<Box<Connection>> = self.connections.drain(..).flatten().collect();
        self.by_tuple.clear();
        for (id, conn) in kept.into_iter().enumerate() {
            let tuples = conn.tuples();
            self.connections.push(Some(conn));
            self.index(id, &tuples);
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
    /// It begins now; conntrack itself told so, or it is not confirmed yet.
    New { told: bool },
    /// It may have stood for long.
    Any,
}

impl Age {
    /// An entry is confirmed once its first packet has passed.
    fn of(ct: &CtTuples) -> Age {
        if ct.status.confirmed() {
            Age::Any
        } else {
            Age::New { told: false }
        }
    }

    fn is_new(self) -> bool {
        matches!(self, Age::New { .. })
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
