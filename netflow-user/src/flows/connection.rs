//! One connection as one node saw it.

use super::datagrams::Datagrams;
use super::progress::{Hanging, Progress};
use crate::model::flow::{FlowKey, FlowStats};
use crate::model::record::{Event, IcmpError, IpvsMethod, Record};
use crate::model::{CtTuples, Proto, Time, Tuple};
use smallvec::SmallVec;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

/// Where a record stands in the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Ordinal of the input, from 0.
    pub input: u32,
    /// Index in its list.
    pub item: u32,
}

/// Which input a fact came from, so that an answer can name (and a test can remove) exactly what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cite {
    /// A record.
    Record(RecordId),
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
    pub cite: RecordId,
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
    pub(super) ct: Option<Arc<CtTuples>>,
    /// Conntrack said NEW while we watched, so today's rules chose the backend.
    pub ct_new: bool,
    /// Initial sequence number of the client's SYN.
    pub isn: Option<u32>,
    /// When its SYN was sent.
    pub(super) syn: Option<Time>,
    /// When conntrack called it new.
    pub(super) new: Option<Time>,
    /// What conntrack showed of it, and when.
    pub(super) views: Views,
    /// What IPVS makes of its packets, once it was seen to.
    ipvs: Option<Box<CtTuples>>,
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
    /// What the client sent and got, once that was seen, where there is no TCP that tells attempts apart.
    datagrams: Option<Box<Datagrams>>,
    /// TCP: how far data is acknowledged, backend's and client's, once some was sent.
    pub(super) progress: Option<Box<[Progress; 2]>>,
}

/// Conntrack's entry as some record or dump showed it, the first and the latest time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CtView {
    ct: Arc<CtTuples>,
    /// Conntrack announced it as new.
    told: bool,
    /// It did not stand before.
    begins: bool,
    first: (Time, ShownBy),
    last: (Time, ShownBy),
}

/// Mostly one.
type Views = SmallVec<[CtView; 1]>;

/// What showed an entry of conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShownBy {
    /// A record.
    Record(RecordId),
    /// The table, when it was read.
    Table,
}

/// Whether all views are of one entry.
fn alike(some: &[CtView], others: &[CtView]) -> bool {
    let mut entries = some.iter().chain(others).map(|v| (v.ct.orig, v.ct.reply));
    entries
        .next()
        .is_none_or(|one| entries.all(|other| other == one))
}

/// Different views kept of one entry: its status has few bits that change.
const MAX_VIEWS: usize = 16;

/// What the node does with a first packet before an interface shows it, and the grain of the kernel's ticks: within it,
/// what comes before a connection's start is still its own.
pub(super) const GRAIN: Duration = Duration::from_millis(10);

/// The forms of one connection's packets, canonical.
pub(super) type Tuples = SmallVec<[Tuple; 4]>;

/// Events of an ordinary connection: its SYN, its translation, the SYN-ACK. Room for them is taken at once, since growing leaves holes.
const ORDINARY_EVENTS: usize = 3;

/// Events kept that are alike in all but time: a storm of one kind leaves room for the others.
const MAX_ALIKE: usize = 4;
/// Events kept of one kind.
const MAX_OF_KIND: usize = 16;

impl Connection {
    pub(super) fn new(orig: Tuple, at: Time) -> Connection {
        Connection {
            orig,
            ct: None,
            ct_new: false,
            isn: None,
            syn: None,
            new: None,
            views: Views::new(),
            ipvs: None,
            began: at,
            last: at,
            opened: false,
            direction_guessed: false,
            sights: Vec::new(),
            events: Vec::new(),
            events_skipped: 0,
            datagrams: None,
            progress: None,
        }
    }

    /// What becomes of its packets: conntrack's tuples or, where those show no other destination, IPVS's. IPVS rewrites packets by
    /// itself and hides them from conntrack, unless `net.ipv4.vs.conntrack` is set (`ip_vs_nat_send_or_cont`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/net/netfilter/ipvs/ip_vs_xmit.c>).
    pub fn nat(&self) -> Option<CtTuples> {
        let ct = self.ct();
        let tracked = ct.filter(CtTuples::is_dnat);
        tracked.or(self.ipvs.as_deref().copied()).or(ct)
    }

    /// Conntrack's tuples, once known.
    pub fn ct(&self) -> Option<CtTuples> {
        self.ct.as_deref().copied()
    }

    /// Conntrack has an entry of it.
    pub(super) fn is_tracked(&self) -> bool {
        self.ct.is_some()
    }

    /// What showed [`Connection::ct`]; `None` while that is.
    pub fn ct_cite(&self) -> Option<Cite> {
        let view = self.views.first()?;
        Some(match view.first.1 {
            ShownBy::Record(id) => Cite::Record(id),
            ShownBy::Table => Cite::Conntrack(view.ct.orig),
        })
    }

    /// What the client sent and got, where there is no TCP that tells attempts apart.
    pub fn datagrams(&self) -> &Datagrams {
        self.datagrams.as_deref().unwrap_or(&Datagrams::NONE)
    }

    pub(super) fn datagrams_mut(&mut self) -> &mut Datagrams {
        self.datagrams.get_or_insert_default()
    }

    /// How far the data from client to backend (`true`) or back (`false`) is acknowledged.
    pub(super) fn progress(&self, forward: bool) -> &Progress {
        match &self.progress {
            Some(both) => &both[usize::from(forward)],
            None => &Progress::NONE,
        }
    }

    /// Only IPVS shows where it goes, conntrack does not know.
    pub fn is_untracked(&self) -> bool {
        self.ipvs.is_some() && !self.ct.as_ref().is_some_and(|ct| ct.is_dnat())
    }

    /// Tuple of the packets that the backend gets: after NAT where one was seen.
    pub fn translated(&self) -> Tuple {
        self.nat().map_or(self.orig, |nat| nat.translated())
    }

    /// Whether it goes to another destination than the one dialled.
    pub fn is_dnat(&self) -> bool {
        self.nat().is_some_and(|nat| nat.is_dnat())
    }

    /// Which form a packet's tuple is, `None` if it is not of this connection.
    pub fn leg(&self, tuple: &Tuple) -> Option<Leg> {
        if *tuple == self.orig {
            Some(Leg::Orig)
        } else if *tuple == self.orig.inverse() {
            Some(Leg::Unnat)
        } else if let Some(ct) = self.nat() {
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

    /// All tuples in which its packets can appear, canonical.
    pub(super) fn tuples(&self) -> Tuples {
        let mut all = Tuples::new();
        all.push(self.orig.canonical());
        if let Some(ct) = self.nat() {
            let whole = self.has_passed().then_some(ct.reply);
            for t in [ct.orig, half_translated(&ct)].into_iter().chain(whole) {
                let t = t.canonical();
                if !all.contains(&t) {
                    all.push(t);
                }
            }
        }
        all
    }

    /// A packet of it has left with its source translated, or will: its entry is confirmed, or the translation is none of
    /// conntrack's. Entries that are not confirmed may be after a source port that another one has, and are dropped for that
    /// (`__nf_conntrack_confirm`, <https://elixir.bootlin.com/linux/v6.18/source/net/netfilter/nf_conntrack_core.c>).
    fn has_passed(&self) -> bool {
        self.ct.as_ref().is_none_or(|ct| ct.status.confirmed())
    }

    pub(super) fn push(&mut self, event: ConnEvent) {
        self.last = self.last.max(event.record.time);
        self.began = self.began.min(event.record.time);
        if let Some(nat) = sent_by_ipvs(&event.record) {
            self.ipvs = Some(Box::new(nat));
        }
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
                let more = self.events[i].more + 1 + event.more;
                self.events[i] = ConnEvent { more, ..event };
            }
            _ if of_kind >= MAX_OF_KIND => self.events_skipped += 1,
            _ => {
                if self.events.capacity() == 0 {
                    self.events.reserve_exact(ORDINARY_EVENTS);
                }
                push_tight(&mut self.events, event);
            }
        }
    }

    /// Takes in that an entry changed, as a sweep at `at` found it.
    pub(super) fn take_stock(&mut self, at: Time) {
        if self.orig.proto != Proto::TCP {
            return;
        }
        for forward in [true, false] {
            if let Some(progress) = Progress::take_stock(self, forward, at) {
                self.progress.get_or_insert_default()[usize::from(forward)] = progress;
            }
        }
    }

    /// Data from client to backend (`true`) or back (`false`) that is not acknowledged.
    pub fn hanging(&self, forward: bool) -> Option<Hanging> {
        self.progress(forward).hanging
    }

    /// What was sent in a direction went outside of any window: how much of it is acknowledged is not known.
    pub fn is_astray(&self, forward: bool) -> bool {
        self.progress(forward).astray
    }

    /// Data of a direction was acknowledged after this time.
    pub fn acked_after(&self, forward: bool) -> Option<Time> {
        self.progress(forward).acked_after
    }

    /// Takes over what was filed under another form of this connection.
    pub(super) fn absorb(&mut self, old: Connection) {
        let turned = self.leg(&old.orig).is_some_and(|leg| !leg.is_forward());
        if let Some(mut progress) = old.progress {
            if turned {
                progress.reverse();
            }
            let own = self.progress.get_or_insert_default();
            for (own, other) in own.iter_mut().zip(*progress) {
                if own.hanging.is_none() && other != Progress::NONE {
                    *own = other;
                }
            }
        }
        if let Some(datagrams) = old.datagrams {
            self.datagrams_mut().absorb(&datagrams);
        }
        self.began = self.began.min(old.began);
        self.last = self.last.max(old.last);
        self.opened |= old.opened;
        self.isn = self.isn.or(old.isn);
        self.syn = earliest(self.syn, old.syn);
        for view in old.views {
            self.add_view(view);
        }
        self.retell();
        for Sight { key, stats } in old.sights {
            self.see(key, &stats);
        }
        self.events_skipped += old.events_skipped;
        for event in old.events {
            self.push(event);
        }
    }

    /// Takes in an entry of the flow map. What comes late does not undo what is newer.
    pub(super) fn see(&mut self, key: FlowKey, stats: &FlowStats) {
        match self.sights.iter_mut().find(|s| s.key == key) {
            Some(known) if known.stats.last > stats.last => {}
            Some(known) => known.stats = stats.clone(),
            None => {
                let stats = stats.clone();
                push_tight(&mut self.sights, Sight { key, stats });
            }
        }
    }

    /// When its first SYN was sent, of those that were seen.
    pub fn syn(&self) -> Option<Time> {
        self.syn
    }

    /// When it began, where that is known: what came before is of whoever had its tuples then.
    pub(super) fn start(&self) -> Option<Time> {
        self.syn.or(self.new)
    }

    /// Conntrack told of it, and none of its packets was seen at an interface.
    pub(super) fn is_only_announced(&self) -> bool {
        self.new.is_some() && self.sights.is_empty()
    }

    /// An answer in it acknowledges a SYN with this number (RFC 9293, 3.5).
    pub(super) fn acknowledges(&self, isn: u32) -> bool {
        let next = isn.wrapping_add(1);
        let seen = |s: &Sight| s.stats.syn_ack.is_some() && s.stats.ack == next;
        let told = |e: &ConnEvent| matches!(&e.record.event, Event::SynAck(s) if s.ack == next);
        self.sights.iter().any(seen) || self.events.iter().any(told)
    }

    /// Where it stands among the connections that used its tuples one after another.
    pub(super) fn place(&self) -> Time {
        self.start().unwrap_or(self.began)
    }

    /// Notes when its SYN was sent.
    pub(super) fn opened_at(&mut self, time: Time) {
        self.syn = earliest(self.syn, Some(time));
        self.began = self.began.min(time);
    }

    /// Notes which way it goes, where that was a guess.
    pub(super) fn turn_towards(&mut self, forward: Tuple) {
        if self.direction_guessed && self.orig.inverse() == forward {
            self.orig = forward;
            if let Some(progress) = &mut self.progress {
                progress.reverse();
            }
        }
        self.direction_guessed = false;
    }

    /// Takes in how conntrack showed its entry.
    /// `told`: conntrack announced it as new; `begins`: it did not stand before.
    pub(super) fn view(
        &mut self,
        ct: Arc<CtTuples>,
        told: bool,
        begins: bool,
        at: (Time, ShownBy),
    ) {
        let view = CtView {
            ct,
            told,
            begins,
            first: at,
            last: at,
        };
        self.add_view(view);
        self.retell();
    }

    fn add_view(&mut self, view: CtView) {
        let room = self.views.len() < MAX_VIEWS;
        let same =
            |v: &&mut CtView| (&v.ct, v.told, v.begins) == (&view.ct, view.told, view.begins);
        match self.views.iter_mut().find(same) {
            Some(known) => {
                known.first = known.first.min(view.first);
                known.last = known.last.max(view.last);
            }
            None if room => self.views.push(view),
            None => {}
        }
    }

    /// What all views together say. A later view of the same entry knows more: confirmed, reply seen.
    fn retell(&mut self) {
        let mut latest = self.events.iter().rev();
        self.ipvs = latest.find_map(|e| sent_by_ipvs(&e.record)).map(Box::new);
        self.views.sort_by_key(|v| v.first);
        self.ct = None;
        for CtView { ct, .. } in &self.views {
            let known = self.ct.as_ref().map_or(0, |known| known.status.0);
            if known & ct.status.0 == known {
                self.ct = Some(Arc::clone(ct));
            }
        }
        self.ct_new = self.views.iter().any(|v| v.told);
        let begun = self.views.iter().filter(|v| v.begins);
        self.new = begun.map(|v| v.first.0).min();
        self.began = self.new.map_or(self.began, |new| new.min(self.began));
        match &self.ct {
            Some(ct) => {
                self.orig = ct.orig;
                self.direction_guessed = false;
            }
            None if !self.is_told_of(&self.orig) => {
                let opening = |s: &&Sight| s.stats.syn.is_some();
                let sight = self.sights.iter().find(opening).or(self.sights.first());
                let event = || self.events.iter().find_map(|e| e.record.tuple);
                self.orig = sight
                    .map(|s| s.key.tuple)
                    .or_else(event)
                    .unwrap_or(self.orig);
            }
            None => {}
        }
    }

    fn is_told_of(&self, tuple: &Tuple) -> bool {
        let is_it = |t: &Tuple| t == tuple || *t == tuple.inverse();
        self.sights.iter().any(|s| is_it(&s.key.tuple))
            || self
                .events
                .iter()
                .any(|e| tuples_of(&e.record).iter().flatten().any(is_it))
    }

    /// Two connections that used one tuple, this one first: once it is known when the `later` one began, each gets what
    /// was told in its time.
    pub(super) fn part_from(&mut self, later: &mut Connection, start: Time) {
        let from = self.place();
        let is_later = |t: Time| t + GRAIN >= start;
        let is_earlier = |t: Time| t + GRAIN < start && t + GRAIN >= from;
        let leaves = |v: &CtView| later.claims(&v.ct) && is_later(v.first.0);
        let (left, kept): (Views, Views) = self.views.iter().cloned().partition(leaves);
        let comes = |v: &CtView| self.claims(&v.ct) && is_earlier(v.last.0);
        let (came, stayed): (Views, Views) = later.views.iter().cloned().partition(comes);
        // One connection has one entry: what would be a second one stays where it is.
        if alike(&kept, &came) && alike(&stayed, &left) {
            self.views = kept.into_iter().chain(came).collect();
            later.views = stayed.into_iter().chain(left).collect();
            self.share(later, is_later);
        }
        self.retell();
        later.retell();
        self.cede(later, is_later);
        later.cede(self, is_earlier);
    }

    /// A view that was told before and after the later connection began is of both.
    fn share(&mut self, later: &mut Connection, is_later: impl Fn(Time) -> bool) {
        for view in &mut self.views {
            let (first, last) = (view.first, view.last);
            if is_later(last.0) && !is_later(first.0) && later.claims(&view.ct) {
                view.last = first;
                later.add_view(CtView {
                    first: last,
                    last,
                    ..view.clone()
                });
            }
        }
    }

    /// Whether an entry of conntrack can be its own.
    fn claims(&self, ct: &CtTuples) -> bool {
        ct.orig == self.orig || (self.ct.is_none() && ct.translated() == self.orig)
    }

    /// Moves what was told of it by tuples of `other`, at a time that `is_theirs`, over to that connection.
    pub(super) fn cede(&mut self, other: &mut Connection, is_theirs: impl Fn(Time) -> bool) {
        let concerns = |t: &Tuple| other.leg(t).is_some();
        // A sequence number, or conntrack, can say that it is not theirs.
        let same_isn = |isn: Option<u32>| isn.is_none() || other.isn.is_none() || isn == other.isn;
        let same_ct = |ct: Option<&CtTuples>| match (ct, &other.ct) {
            (Some(ct), Some(own)) => (ct.orig, ct.reply) == (own.orig, own.reply),
            _ => true,
        };
        let is_moved = |ConnEvent { record, .. }: &ConnEvent| {
            is_theirs(record.time)
                && tuples_of(record).iter().flatten().any(concerns)
                && same_isn(isn_of(record))
                && same_ct(ct_of(record))
        };
        let (events, kept): (Vec<ConnEvent>, _) = self.events.drain(..).partition(is_moved);
        self.events = kept;
        let is_moved = |s: &Sight| {
            let isn = s.stats.syn.map(|_| s.stats.isn);
            is_theirs(moment(&s.stats)) && concerns(&s.key.tuple) && same_isn(isn)
        };
        let (sights, kept): (Vec<Sight>, _) = self.sights.drain(..).partition(is_moved);
        self.sights = kept;
        if events.is_empty() && sights.is_empty() {
            return;
        }
        // A view goes with the record that showed it.
        let is_moved = |v: &CtView| events.iter().any(|e| ShownBy::Record(e.cite) == v.first.1);
        let (views, kept): (Views, Views) = self.views.drain(..).partition(is_moved);
        self.views = kept;
        for view in views {
            if alike(&other.views, std::slice::from_ref(&view)) {
                other.add_view(view);
            }
        }
        other.retell();
        for Sight { key, stats } in sights {
            other.began = other.began.min(stats.first);
            other.last = other.last.max(stats.last);
            other.see(key, &stats);
        }
        for event in events {
            other.push(event);
        }
        for conn in [&mut *self, other] {
            conn.progress = None;
            conn.take_stock(conn.last);
        }
        self.recount();
        self.retell();
    }

    /// Takes out what came by tuples that turned out not to be its own.
    pub(super) fn orphans(&mut self) -> (Vec<ConnEvent>, Vec<Sight>) {
        let is_own = |t: &Tuple| self.leg(t).is_some();
        let is_orphan = |e: &&ConnEvent| !tuples_of(&e.record).iter().flatten().any(is_own);
        let events: Vec<ConnEvent> = self.events.iter().filter(is_orphan).cloned().collect();
        let is_orphan = |s: &&Sight| !is_own(&s.key.tuple);
        let sights: Vec<Sight> = self.sights.iter().filter(is_orphan).cloned().collect();
        if !events.is_empty() || !sights.is_empty() {
            self.events.retain(|e| !events.contains(e));
            self.sights.retain(|s| !sights.contains(s));
            self.recount();
        }
        (events, sights)
    }

    /// Whether all that was told of it has turned out to be of others.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.sights.is_empty() && self.views.is_empty()
    }

    /// First and latest sign of what is left.
    fn recount(&mut self) {
        let events = self.events.iter().map(|e| (e.record.time, e.record.time));
        let sights = self.sights.iter().map(|s| (s.stats.first, s.stats.last));
        let start = self.start().map(|t| (t, t));
        let signs = events.chain(sights).chain(start);
        if let Some((first, last)) = signs.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
            self.began = first;
            self.last = last;
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

/// Many connections have one or two of these: no room for four is taken at once.
fn push_tight<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().max(1));
    }
    list.push(item);
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    [a, b].into_iter().flatten().min()
}

/// A moment at which an entry of the flow map was its connection's. One that no handshake began goes on when the tuple is
/// used again: it is the latest's.
pub(super) fn moment(stats: &FlowStats) -> Time {
    stats.syn.or(stats.syn_ack).unwrap_or(stats.last)
}

/// Tuples by which a record finds its connection: the packet's own, that of its conntrack entry, that of the packet it
/// complains about.
pub(super) fn tuples_of(record: &Record) -> [Option<Tuple>; 3] {
    let ct = ct_of(record);
    match &record.event {
        Event::Drop(drop) => [record.tuple, ct.map(|ct| ct.orig), drop.quoted],
        // Its own tuple is that of the error.
        Event::IcmpError(IcmpError { quoted, .. }) | Event::PmtuReceived { quoted, .. } => {
            [None, None, *quoted]
        }
        Event::CtInsertFailed { ct, .. } | Event::CtClash { ct } => {
            [record.tuple, Some(ct.orig), Some(ct.translated())]
        }
        _ => [record.tuple, ct.map(|ct| ct.orig), None],
    }
}

pub(super) fn ct_of(record: &Record) -> Option<&CtTuples> {
    match &record.event {
        Event::Drop(drop) => drop.ct.as_ref(),
        Event::IcmpSent { ct, .. } | Event::NeighborWait { ct, .. } => ct.as_deref(),
        Event::Nat { ct, by: _ } => Some(ct),
        _ => None,
    }
}

/// What IPVS makes of the packets of a connection, written as conntrack would. Only by NAT it rewrites them.
pub(super) fn sent_by_ipvs(record: &Record) -> Option<CtTuples> {
    let Event::Ipvs {
        method: IpvsMethod::Nat,
        to: Some(to),
    } = record.event
    else {
        return None;
    };
    Some(CtTuples::sent_to(record.tuple?, to))
}

fn isn_of(record: &Record) -> Option<u32> {
    match &record.event {
        Event::Syn(segment) => Some(segment.seq),
        _ => None,
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
        (Event::Nat { ct: a, by: _ }, Event::Nat { ct: b, by: _ }) => a == b,
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
