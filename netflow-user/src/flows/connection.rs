//! One connection as one node saw it.

use super::datagrams::Datagrams;
use super::progress::{Hanging, Progress};
use crate::model::flow::{FlowKey, FlowStats};
use crate::model::record::{Event, Record};
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::mem::discriminant;

/// Which input a fact came from, so that an answer can name (and a test can remove) exactly what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cite {
    /// Record `item` of the `input`-th input of the recording.
    Record {
        /// Ordinal of the input, from 0.
        input: u32,
        /// Index in its list.
        item: u32,
    },
    /// Every snapshot of one entry of the flow map.
    Flow(FlowKey),
    /// Row of the conntrack table with this original tuple, in every set of node facts.
    Conntrack(Tuple),
    /// Other facts of the node.
    Node,
    /// Kubernetes objects.
    Objects,
}

/// The four forms in which a connection's packets appear. Without NAT only `Orig` and `Unnat` are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leg {
    /// As the client sent it: client → VIP.
    Orig,
    /// After DNAT/SNAT: client (or SNAT address) → backend.
    Translated,
    /// As the backend answers: backend → client (or SNAT address).
    Reply,
    /// Translated back: VIP → client.
    Unnat,
}

impl Leg {
    /// Whether packets of this form go from client to backend.
    pub fn is_forward(self) -> bool {
        matches!(self, Leg::Orig | Leg::Translated)
    }
}

/// An entry of the flow map that belongs to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Interface, direction and tuple.
    pub key: FlowKey,
    /// Counters as the latest sweep found them.
    pub stats: FlowStats,
}

/// A record that belongs to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnEvent {
    /// Where it stands in the recording.
    pub cite: Cite,
    /// The record; of many that are alike, the first ones and the latest.
    pub record: Record,
    /// How many more like it came before it and are not kept.
    pub more: u32,
}

/// One connection (or one UDP exchange) as one node saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Tuple as the client sent it.
    pub orig: Tuple,
    /// Conntrack's tuples, once known.
    pub ct: Option<CtTuples>,
    /// What showed `ct`; `None` while `ct` is.
    pub ct_cite: Option<Cite>,
    /// Conntrack said NEW while we watched, so today's rules chose the backend.
    pub ct_new: bool,
    /// Initial sequence number of the client's SYN.
    pub isn: Option<u32>,
    /// First sign of it.
    pub began: Time,
    /// Latest sign of it.
    pub last: Time,
    /// Its first packet was seen: it began while we watched, or its SYN was sent again.
    pub opened: bool,
    /// Which side is the client was not shown by a SYN or by conntrack but guessed from the ports.
    pub direction_guessed: bool,
    /// Where its packets were seen.
    pub sights: Vec<Sight>,
    /// What happened to it, in the order in which it was told.
    pub events: Vec<ConnEvent>,
    /// Events not kept because there were too many of their kind that differ.
    pub events_skipped: u64,
    /// What the client sent and got, where there is no TCP that tells attempts apart.
    pub datagrams: Datagrams,
    /// TCP: how far data is acknowledged, backend's and client's.
    pub(super) progress: [Progress; 2],
}

/// Events kept that are alike in all but time: a storm of one kind leaves room for the others.
const MAX_ALIKE: usize = 4;
/// Events kept of one kind.
const MAX_OF_KIND: usize = 16;

impl Connection {
    pub(super) fn new(orig: Tuple, at: Time) -> Connection {
        Connection {
            orig,
            ct: None,
            ct_cite: None,
            ct_new: false,
            isn: None,
            began: at,
            last: at,
            opened: false,
            direction_guessed: false,
            sights: Vec::new(),
            events: Vec::new(),
            events_skipped: 0,
            datagrams: Datagrams::default(),
            progress: Default::default(),
        }
    }

    /// Tuple of the packets that the backend gets: after NAT where conntrack shows one.
    pub fn translated(&self) -> Tuple {
        self.ct.map_or(self.orig, |ct| ct.translated())
    }

    /// Whether conntrack shows another destination than the one dialled.
    pub fn is_dnat(&self) -> bool {
        self.ct.is_some_and(|ct| ct.is_dnat())
    }

    /// Which form a packet's tuple is, `None` if it is not of this connection.
    pub fn leg(&self, tuple: &Tuple) -> Option<Leg> {
        if *tuple == self.orig {
            Some(Leg::Orig)
        } else if *tuple == self.orig.inverse() {
            Some(Leg::Unnat)
        } else if let Some(ct) = self.ct {
            if *tuple == ct.translated() {
                Some(Leg::Translated)
            } else if *tuple == ct.reply {
                Some(Leg::Reply)
            } else if *tuple == ct.orig {
                Some(Leg::Orig)
            } else if *tuple == ct.orig.inverse() {
                Some(Leg::Unnat)
            } else {
                Self::partly_translated(&ct, tuple)
            }
        } else {
            None
        }
    }

    /// Between DNAT (PREROUTING) and SNAT (POSTROUTING) the packet has the client's source and the backend's
    /// destination; its drop shows this form. The reply has the mirrored one.
    fn partly_translated(ct: &CtTuples, tuple: &Tuple) -> Option<Leg> {
        let half = half_translated(ct);
        if *tuple == half {
            Some(Leg::Translated)
        } else if *tuple == half.inverse() {
            Some(Leg::Reply)
        } else {
            None
        }
    }

    /// All tuples in which its packets can appear.
    pub(super) fn tuples(&self) -> Vec<Tuple> {
        let mut all = vec![self.orig, self.orig.inverse()];
        if let Some(ct) = self.ct {
            let half = half_translated(&ct);
            for t in [
                ct.orig,
                ct.orig.inverse(),
                ct.translated(),
                ct.reply,
                half,
                half.inverse(),
            ] {
                if !all.contains(&t) {
                    all.push(t);
                }
            }
        }
        all
    }

    pub(super) fn push(&mut self, event: ConnEvent) {
        self.last = self.last.max(event.record.time);
        self.began = self.began.min(event.record.time);
        let kind = discriminant(&event.record.event);
        let (mut alike, mut of_kind, mut latest) = (0, 0, None);
        for (i, known) in self.events.iter().enumerate() {
            if discriminant(&known.record.event) == kind {
                of_kind += 1;
                if is_alike(&known.record, &event.record) {
                    alike += 1;
                    latest = Some(i);
                }
            }
        }
        match latest {
            Some(i) if alike >= MAX_ALIKE => {
                let more = self.events[i].more + 1;
                self.events[i] = ConnEvent { more, ..event };
            }
            _ if of_kind >= MAX_OF_KIND => self.events_skipped += 1,
            _ => self.events.push(event),
        }
    }

    /// Takes in that an entry changed, as a sweep at `at` found it.
    pub(super) fn take_stock(&mut self, at: Time) {
        if self.orig.proto != Proto::TCP {
            return;
        }
        for forward in [true, false] {
            if let Some(progress) = Progress::take_stock(self, forward, at) {
                self.progress[usize::from(forward)] = progress;
            }
        }
    }

    /// Data from client to backend (`true`) or back (`false`) that is not acknowledged.
    pub fn hanging(&self, forward: bool) -> Option<Hanging> {
        self.progress[usize::from(forward)].hanging
    }

    /// Data of a direction was acknowledged after this time.
    pub fn acked_after(&self, forward: bool) -> Option<Time> {
        self.progress[usize::from(forward)].acked_after
    }

    /// Takes over what was filed under another form of this connection.
    pub(super) fn absorb(&mut self, mut old: Connection) {
        let turned = self.leg(&old.orig).is_some_and(|leg| !leg.is_forward());
        if turned {
            old.progress.reverse();
        }
        for (own, other) in self.progress.iter_mut().zip(old.progress) {
            if own.hanging.is_none() {
                *own = other;
            }
        }
        self.datagrams.absorb(&old.datagrams);
        self.began = self.began.min(old.began);
        self.last = self.last.max(old.last);
        self.opened |= old.opened;
        self.isn = self.isn.or(old.isn);
        for sight in old.sights {
            if !self.sights.iter().any(|s| s.key == sight.key) {
                self.sights.push(sight);
            }
        }
        self.events_skipped += old.events_skipped;
        for event in old.events {
            self.push(event);
        }
    }

    /// Sights in one form.
    pub fn sights_of(&self, leg: Leg) -> impl Iterator<Item = &Sight> {
        self.sights
            .iter()
            .filter(move |s| self.leg(&s.key.tuple) == Some(leg))
    }

    /// Sights from client to backend (`true`) or back (`false`), before and after NAT.
    pub fn sights_towards(&self, forward: bool) -> impl Iterator<Item = &Sight> + Clone {
        self.sights.iter().filter(move |s| {
            self.leg(&s.key.tuple)
                .is_some_and(|l| l.is_forward() == forward)
        })
    }

    /// Drop records of its packets, in either direction (not of ICMP errors about them).
    pub fn drops(&self) -> impl Iterator<Item = &ConnEvent> {
        self.events.iter().filter(|e| {
            matches!(e.record.event, Event::Drop(_))
                && e.record.tuple.is_some_and(|t| self.leg(&t).is_some())
        })
    }
}

/// Whether two records of one kind differ in time only, as far as anyone asks.
fn is_alike(a: &Record, b: &Record) -> bool {
    let same = (a.netns, a.ifindex, a.tuple) == (b.netns, b.ifindex, b.tuple);
    same && match (&a.event, &b.event) {
        (Event::Drop(a), Event::Drop(b)) => {
            (&a.reason, &a.place, a.hook, &a.verdict) == (&b.reason, &b.place, b.hook, &b.verdict)
        }
        (Event::IcmpError(a), Event::IcmpError(b)) => a == b,
        (
            Event::IcmpSent {
                icmp_type: a,
                code: c,
                ..
            },
            Event::IcmpSent {
                icmp_type: b,
                code: d,
                ..
            },
        ) => (a, c) == (b, d),
        (Event::PmtuReceived { .. }, Event::PmtuReceived { .. })
        | (Event::Fragmented { .. }, Event::Fragmented { .. })
        | (Event::Ipvs { .. }, Event::Ipvs { .. }) => a.event == b.event,
        (Event::Nat { ct: a }, Event::Nat { ct: b }) => a == b,
        (Event::NeighborWait { ip: a, .. }, Event::NeighborWait { ip: b, .. }) => a == b,
        _ => true,
    }
}

/// Destination already rewritten, source not yet.
fn half_translated(ct: &CtTuples) -> Tuple {
    let t = ct.translated();
    Tuple {
        src: ct.orig.src,
        sport: ct.orig.sport,
        ..t
    }
}
