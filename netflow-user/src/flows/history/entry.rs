//! One connection of the history, or a piece of a long one.

use super::Duration;
use crate::flows::SILENCE;
use crate::model::flow::{FlowSnapshot, FlowStats};
use crate::model::record::{Drop, Event, Record, Rules};
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::net::IpAddr;

/// Sweeps of one entry of the flow map that show trouble are kept so far apart at least, and the latest.
const APART: Duration = Duration::from_secs(1);

/// Bytes that an allocation takes beyond its content.
const ALLOCATION: usize = 16;

/// Bytes of a place in the index by tuple, whose table is between 7/16 and 7/8 full.
const INDEXED: usize = (size_of::<Tuple>() + 8) * 16 / 7;

/// What a sweep found.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub at: Time,
    pub flow: FlowSnapshot,
}

/// What was told of it.
#[derive(Debug)]
pub struct Entry {
    /// As the client sends; `None` = what belongs to no connection.
    pub forward: Option<Tuple>,
    /// The same after NAT.
    pub translated: Option<Tuple>,
    pub isn: Option<u32>,
    pub records: Vec<Record>,
    pub sweeps: Vec<Sweep>,
    /// When it was heard of last.
    pub last: Time,
    /// Bytes that records have elsewhere.
    heap: usize,
    /// Packets to the server, and back, were seen.
    seen: [bool; 2],
    /// Something happened to it.
    trouble: bool,
}

impl Entry {
    pub fn new(forward: Option<Tuple>) -> Entry {
        Entry {
            forward,
            translated: None,
            isn: None,
            records: Vec::new(),
            sweeps: Vec::new(),
            last: Time(0),
            heap: 0,
            seen: [false; 2],
            trouble: false,
        }
    }

    /// Answered, and nothing happened to it.
    pub fn is_healthy(&self) -> bool {
        self.seen == [true; 2] && !self.trouble
    }

    /// Of no connection.
    pub fn is_loose(&self) -> bool {
        self.forward.is_none()
    }

    /// Records and sweeps.
    pub fn len(&self) -> usize {
        self.records.len() + self.sweeps.len()
    }

    /// Bytes that it takes, its places in indexes included.
    pub fn bytes(&self) -> usize {
        size_of::<Entry>()
            + 2 * ALLOCATION
            + self.forms().count() * INDEXED
            + self.records.capacity() * size_of::<Record>()
            + self.sweeps.capacity() * size_of::<Sweep>()
            + self.heap
    }

    /// Its tuples.
    pub fn forms(&self) -> impl Iterator<Item = Tuple> + use<> {
        self.forward.into_iter().chain(self.translated)
    }

    /// Whether one of its addresses is; what has none may be anybody's.
    pub fn touches(&self, wanted: impl Fn(IpAddr) -> bool) -> bool {
        self.is_loose() || self.forms().any(|t| wanted(t.src) || wanted(t.dst))
    }

    pub fn record(&mut self, record: &Record) {
        if let (Event::Syn(_) | Event::SynAck(_) | Event::FirstPacket(_), Some(tuple)) =
            (&record.event, record.tuple)
        {
            self.see(tuple);
        }
        self.trouble |= is_trouble(&record.event);
        self.last = self.last.max(record.time);
        self.heap += heap_of(&record.event);
        self.records.push(record.clone());
    }

    /// Counters tell all of what was before, except what shows by their pace alone: silence between datagrams, and
    /// what is sent again. What was before that stays.
    pub fn sweep(&mut self, at: Time, flow: &FlowSnapshot) {
        self.see(flow.key.tuple);
        self.last = self.last.max(flow.stats.last);
        let new = || Sweep {
            at,
            flow: flow.clone(),
        };
        let mut known = self
            .sweeps
            .iter_mut()
            .rev()
            .filter(|s| s.flow.key == flow.key);
        let Some(latest) = known.next() else {
            self.trouble |= is_troubled(&flow.stats, &FlowStats::default());
            return self.sweeps.push(new());
        };
        let before = known.next().map(|s| s.at);
        let troubled = is_troubled(&flow.stats, &latest.flow.stats);
        let silent = flow.key.tuple.proto != Proto::TCP
            && flow.stats.last.since(latest.flow.stats.last) > SILENCE;
        let crowded = before.is_some_and(|before| latest.at.since(before) < APART);
        if silent || troubled && !crowded {
            self.sweeps.push(new());
        } else {
            *latest = new();
        }
        self.trouble |= troubled;
    }

    /// Takes over another form of the same connection.
    pub fn absorb(&mut self, other: Entry) {
        for sweep in &other.sweeps {
            self.see(sweep.flow.key.tuple);
        }
        self.records.extend(other.records);
        self.sweeps.extend(other.sweeps);
        self.heap += other.heap;
        self.last = self.last.max(other.last);
        self.trouble |= other.trouble;
    }

    /// Leaves what comes to another piece, which has to know how its counters stood.
    pub fn go_on_in(&mut self, next: &mut Entry) {
        next.translated = self.translated;
        next.isn = self.isn;
        next.seen = self.seen;
        next.last = self.last;
        let mut older = Vec::with_capacity(self.sweeps.len());
        for sweep in self.sweeps.drain(..).rev() {
            let newest = next.sweeps.iter().all(|s| s.flow.key != sweep.flow.key);
            let place = if newest { &mut next.sweeps } else { &mut older };
            place.push(sweep);
        }
        older.reverse();
        older.shrink_to_fit();
        self.sweeps = older;
        self.records.shrink_to_fit();
    }

    /// Now that it is known which end the client is.
    pub fn turn_towards(&mut self, forward: Tuple) {
        if self.forward == Some(forward.inverse()) {
            self.seen.swap(0, 1);
        }
        self.forward = Some(forward);
    }

    fn see(&mut self, tuple: Tuple) {
        let forward = self.forms().any(|form| form == tuple);
        self.seen[usize::from(!forward)] = true;
    }
}

/// Whether the kernel tells such a thing only of what does not go well.
fn is_trouble(event: &Event) -> bool {
    match event {
        Event::Syn(_)
        | Event::SynAck(_)
        | Event::FirstPacket(_)
        | Event::Nat { .. }
        | Event::NeighborWait { .. }
        | Event::CtEnd { evicted: false, .. } => false,
        Event::Ipvs { to, .. } => to.is_none(),
        Event::FlowEnd { flow } => is_troubled(&flow.stats, &FlowStats::default()),
        Event::Rst(_)
        | Event::Retransmit(_)
        | Event::IcmpError(_)
        | Event::Drop(_)
        | Event::CtEnd { .. }
        | Event::CtInsertFailed { .. }
        | Event::CtClash { .. }
        | Event::CtFull
        | Event::IcmpSent { .. }
        | Event::TcpRetransmit { .. }
        | Event::ResetSent
        | Event::ResetReceived
        | Event::FibError { .. }
        | Event::NeighborFailed { .. }
        | Event::PmtuReceived { .. }
        | Event::PmtuLearned { .. }
        | Event::Fragmented { .. }
        | Event::ListenOverflow { .. } => true,
    }
}

/// Whether something was sent again, or reset, since its counters stood so.
fn is_troubled(now: &FlowStats, before: &FlowStats) -> bool {
    now.retrans > before.retrans
        || now.syn_retrans > before.syn_retrans
        || now.rst.is_some() && before.rst.is_none()
}

fn heap_of(event: &Event) -> usize {
    let tuples = size_of::<CtTuples>() + 2 * size_of::<usize>() + ALLOCATION;
    match event {
        Event::Nat { .. }
        | Event::CtEnd { .. }
        | Event::CtInsertFailed { .. }
        | Event::CtClash { .. }
        | Event::IcmpSent { ct: Some(_), .. }
        | Event::NeighborWait { ct: Some(_), .. } => tuples,
        Event::FlowEnd { .. } => size_of::<FlowSnapshot>() + ALLOCATION,
        Event::Drop(drop) => size_of::<Drop>() + 3 * ALLOCATION + text_of(drop),
        _ => 0,
    }
}

fn text_of(drop: &Drop) -> usize {
    let rules = drop.verdict.as_ref().and_then(|v| v.rules.as_ref());
    let rules = match rules {
        Some(Rules::Nftables { table, chain, .. }) => table.len() + chain.len() + 2 * ALLOCATION,
        Some(Rules::Iptables { table }) => table.len() + ALLOCATION,
        None => 0,
    };
    drop.reason.len() + drop.place.len() + rules
}
