//! The thread that owns the programs: what the kernel tells goes to everybody who looks at the moment.

use super::counts::Counts;
use super::past::{Ask, Then};
use super::seat::{Inputs, Seat};
use crate::cli::live::{Surroundings, keep_pods};
use crate::cli::output::Output;
use crate::cluster::ask::{pods_of, this_node};
use crate::cluster::versions::Versions;
use crate::flows::{History, Stock};
use crate::kernel::{Held, Kernel};
use crate::model::Input;
use crate::model::capability::TierStatus;
use crate::model::feed::TOO_SLOW;
use crate::model::objects::Objects;
use crate::model::source::{ObjectSource, RecordSource, SourceError};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often records are fetched.
const PERIOD: Duration = Duration::from_millis(60);
/// How often it is looked for Pods whose namespace was not there yet.
const MISSING_PERIOD: Duration = Duration::from_secs(1);
/// How often, though all were there: a namespace may be made anew with the same address.
const PODS_PERIOD: Duration = Duration::from_secs(30);
/// Inputs that may wait for one who looks, and records and flows in them. Whoever is slower loses records, and is told.
const WAITING: usize = 4096;
const MOST: usize = 1 << 16;
/// Of the history one part in so many is for the objects as they were.
const OBJECTS_SHARE: usize = 8;

/// What those who look, and those who ask how things are, want of this thread.
pub enum Order {
    /// A seat, please.
    Join(Sender<Seat>),
    /// These addresses are looked at from that seat.
    Watch(u64, Vec<IpAddr>),
    /// What is there around the programs?
    Surroundings(Sender<Surroundings>),
    /// All that the kernel has told, counters included; answered once it is in everybody's hands.
    Finish(Sender<()>),
    /// The seat is free again.
    Leave(u64),
    /// How are the programs?
    Health(Sender<Health>),
    /// What happened? `None` = nothing is kept.
    Past(Ask, Sender<Option<Then>>),
}

/// How the programs are.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// On which tier each capability runs.
    pub tiers: Vec<TierStatus>,
    /// Records lost so far, by kind.
    pub lost: BTreeMap<String, u64>,
    /// Interfaces whose packets are not all seen, and why.
    pub unseen: Vec<(String, String)>,
    /// Addresses of Pods placed on this node.
    pub pods: usize,
    /// Entries of the flow map.
    pub flows: usize,
    /// Seats taken.
    pub looks: usize,
    /// What the kernel told so far.
    pub counts: Counts,
    /// How full the maps are.
    pub held: Vec<Held>,
    /// What is kept for those who ask later, if anything is.
    pub history: Option<Stock>,
}

/// The objects as they are now, how often they changed, and as they were.
pub struct Latest(Mutex<(u64, Arc<Objects>, Versions)>);

impl Latest {
    fn new(objects: Objects, history: usize) -> Latest {
        let versions = Versions::new(objects.time, history);
        Latest(Mutex::new((0, Arc::new(objects), versions)))
    }

    /// The newest version, with its number.
    pub fn get(&self) -> (u64, Arc<Objects>) {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.0, latest.1.clone())
    }

    /// The newest version, and those before it.
    pub fn versions(&self) -> (Arc<Objects>, Versions) {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.1.clone(), latest.2.clone())
    }

    /// With what is kept of earlier versions.
    fn counted(&self, stock: Stock) -> Stock {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Stock {
            limit: stock.limit + latest.2.limit(),
            bytes: stock.bytes + latest.2.bytes(),
            ..stock
        }
    }

    fn set(&self, objects: Objects) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut latest.1, Arc::new(objects));
        let after = latest.1.clone();
        latest.2.replace(&before, &after);
        latest.0 += 1;
    }
}

/// One who looks.
struct Taken {
    to: SyncSender<Input>,
    /// Records and flows that wait.
    waiting: Arc<AtomicUsize>,
    addresses: Vec<IpAddr>,
    lost: Since,
}

/// Losses since somebody began to look.
struct Since {
    /// What had been lost before.
    before: BTreeMap<String, u64>,
    too_slow: u64,
    /// Not told yet.
    untold: bool,
}

impl Since {
    fn of(&self, now: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let since = now.iter().map(|(kind, count)| {
            let before = self.before.get(kind).copied().unwrap_or(0);
            (kind.clone(), count.saturating_sub(before))
        });
        let too_slow = (TOO_SLOW.to_owned(), self.too_slow);
        since
            .chain([too_slow])
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Taken {
    /// Says for how many records and flows it was too slow.
    fn tell(&mut self, input: &Input, lost: &BTreeMap<String, u64>) -> u64 {
        let mut too_slow = 0;
        if let Input::Lost { .. } = input {
            self.lost.untold = true;
        } else if self.try_send(input.clone()) {
            too_slow = weight(input) as u64;
            self.lost.too_slow += too_slow;
            self.lost.untold = true;
        }
        if self.lost.untold {
            let lost = self.lost.of(lost);
            self.lost.untold = self.try_send(Input::Lost { lost });
        }
        too_slow
    }

    /// Whether there was no room for it. Who has left needs none.
    fn try_send(&self, input: Input) -> bool {
        let weight = weight(&input);
        // This thread alone adds.
        if self.waiting.load(Ordering::Relaxed) + weight > MOST {
            return true;
        }
        match self.to.try_send(input) {
            Ok(()) => {
                self.waiting.fetch_add(weight, Ordering::Relaxed);
                false
            }
            Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Records and flows in an input; one for what has none.
pub(super) fn weight(input: &Input) -> usize {
    match input {
        Input::Records { records } => records.len(),
        Input::Flows { flows, .. } => flows.len().max(1),
        _ => 1,
    }
}

/// The programs, and who looks through them.
pub struct Hub<'a> {
    kernel: Kernel,
    source: &'a mut dyn ObjectSource,
    output: &'a Output,
    latest: Arc<Latest>,
    local: Vec<IpAddr>,
    pods: Vec<IpAddr>,
    /// When their namespaces are looked for again.
    look_for_pods: Instant,
    seats: BTreeMap<u64, Taken>,
    next: u64,
    lost: BTreeMap<String, u64>,
    counts: Counts,
    history: Option<History>,
    orders: Sender<Order>,
}

impl<'a> Hub<'a> {
    /// With the objects as they are now. For those who ask later `history` bytes are kept at most.
    pub fn new(
        kernel: Kernel,
        source: &'a mut dyn ObjectSource,
        objects: Objects,
        output: &'a Output,
        history: usize,
        orders: Sender<Order>,
    ) -> Hub<'a> {
        let of_objects = history / OBJECTS_SHARE;
        let mut hub = Hub {
            kernel,
            source,
            output,
            latest: Arc::new(Latest::new(objects, of_objects)),
            local: crate::cli::host::addresses(),
            pods: Vec::new(),
            look_for_pods: Instant::now(),
            seats: BTreeMap::new(),
            next: 0,
            lost: BTreeMap::new(),
            counts: Counts::default(),
            history: (history > 0).then(|| History::new(history - of_objects)),
            orders,
        };
        hub.look_for(&hub.latest().get().1);
        hub
    }

    /// Where the objects are found.
    pub fn latest(&self) -> Arc<Latest> {
        self.latest.clone()
    }

    /// Serves for as long as `goes_on`.
    pub fn run(
        &mut self,
        orders: &Receiver<Order>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<(), SourceError> {
        let mut due = Instant::now();
        while goes_on() {
            let left = due.saturating_duration_since(Instant::now());
            // However many orders there are, the ring does not wait.
            if left.is_zero() {
                due = Instant::now() + PERIOD;
                let told = self.kernel.drain()?;
                self.tell(&told);
                self.follow();
            } else if let Ok(order) = orders.recv_timeout(left) {
                self.obey(order)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), SourceError> {
        // Whoever asked and is gone needs no answer.
        match order {
            Order::Join(to) => {
                let _ = to.send(self.join());
            }
            Order::Watch(id, addresses) => {
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.addresses = addresses;
                    self.watch();
                }
            }
            Order::Surroundings(to) => {
                let _ = to.send(Surroundings::of(&self.kernel));
            }
            Order::Finish(to) => {
                let told = self.kernel.finish()?;
                self.tell(&told);
                let _ = to.send(());
            }
            Order::Leave(id) => {
                self.seats.remove(&id);
                self.watch();
            }
            Order::Health(to) => {
                let _ = to.send(self.health());
            }
            Order::Past(ask, to) => {
                let history = self.history.as_ref();
                let _ = to.send(history.map(|h| Then::of(h, &ask, self.kernel.tiers())));
            }
        }
        Ok(())
    }

    fn join(&mut self) -> Seat {
        let id = self.next;
        self.next += 1;
        let (to, inputs) = sync_channel(WAITING);
        let lost = Since {
            before: self.lost.clone(),
            too_slow: 0,
            untold: false,
        };
        let waiting = Arc::default();
        let taken = Taken {
            to,
            waiting: Arc::clone(&waiting),
            addresses: Vec::new(),
            lost,
        };
        self.seats.insert(id, taken);
        let inputs = Inputs::new(inputs, waiting);
        Seat::new(id, inputs, self.orders.clone(), self.kernel.tiers())
    }

    fn watch(&mut self) {
        let seats = self.seats.values();
        let addresses: Vec<IpAddr> = seats.flat_map(|s| s.addresses.iter().copied()).collect();
        // For what does not fit into the map no room is kept.
        if let Err(e) = self.kernel.watch_addresses(&addresses) {
            self.output.detail(e);
        }
    }

    fn tell(&mut self, told: &[Input]) {
        for input in told {
            match input {
                Input::Lost { lost } => self.lost.clone_from(lost),
                Input::Records { records } => self.counts.add(records),
                _ => {}
            }
            if let Some(history) = &mut self.history {
                history.take(input);
            }
            for seat in self.seats.values_mut() {
                self.counts.too_slow += seat.tell(input, &self.lost);
            }
        }
    }

    fn follow(&mut self) {
        match self.source.poll() {
            Ok(Some(objects)) => self.take(objects),
            Ok(None) => {}
            Err(e) => self
                .output
                .notice(format_args!("{e}; the version before it stays in use")),
        }
        if Instant::now() >= self.look_for_pods {
            self.keep_pods();
        }
    }

    fn take(&mut self, objects: Objects) {
        self.latest.set(objects);
        self.look_for(&self.latest.get().1);
    }

    fn look_for(&mut self, objects: &Objects) {
        let node = this_node(objects, &self.local);
        let pods = node.map_or_else(Vec::new, |node| pods_of(objects, &node));
        if pods != self.pods {
            self.pods = pods;
            self.keep_pods();
        }
    }

    fn keep_pods(&mut self) {
        let kept = keep_pods(&mut self.kernel, &self.pods).unwrap_or_else(|e| {
            self.output.detail(e);
            0
        });
        let all = kept >= self.pods.len();
        self.look_for_pods = Instant::now() + if all { PODS_PERIOD } else { MISSING_PERIOD };
    }

    fn health(&self) -> Health {
        let unseen = self.kernel.unseen().into_iter();
        Health {
            tiers: self.kernel.tiers(),
            lost: self.lost.clone(),
            unseen: unseen.map(|i| (i.name, i.problem)).collect(),
            pods: self.pods.len(),
            flows: self.kernel.live_flows(),
            looks: self.seats.len(),
            counts: self.counts.clone(),
            held: self.kernel.held().to_vec(),
            history: self
                .history
                .as_ref()
                .map(|h| self.latest.counted(h.stock())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;
    use crate::model::record::{Event, Record};

    fn records(count: usize) -> Input {
        let record = Record {
            time: Time(1),
            netns: 1,
            ifindex: 1,
            tuple: None,
            event: Event::CtFull,
        };
        Input::Records {
            records: vec![record; count],
        }
    }

    fn lost(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let named = counts.iter().map(|(kind, n)| ((*kind).to_owned(), *n));
        named.collect()
    }

    fn seat(room: usize, before: &[(&str, u64)]) -> (Taken, Inputs) {
        let (to, inputs) = sync_channel(room);
        let waiting = Arc::default();
        let inputs = Inputs::new(inputs, Arc::clone(&waiting));
        let taken = Taken {
            to,
            waiting,
            addresses: Vec::new(),
            lost: Since {
                before: lost(before),
                too_slow: 0,
                untold: false,
            },
        };
        (taken, inputs)
    }

    #[test]
    fn what_was_lost_before_a_look_is_not_its_loss() {
        let (mut taken, inputs) = seat(8, &[("ring", 5)]);
        let now = lost(&[("ring", 5), ("flow-untold", 2)]);
        taken.tell(&Input::Lost { lost: now.clone() }, &now);
        let since = lost(&[("flow-untold", 2)]);
        assert_eq!(inputs.take(), [Input::Lost { lost: since }]);
    }

    #[test]
    fn whoever_is_too_slow_is_told_how_much_it_missed() {
        let (mut taken, inputs) = seat(2, &[]);
        let told = [1, 2, 3, 4].map(|n| taken.tell(&records(n), &BTreeMap::new()));
        assert_eq!(told, [0, 0, 3, 4]);
        // The first two fitted; what is told of the rest has no room yet either.
        assert_eq!(inputs.take(), [records(1), records(2)]);
        taken.tell(&records(5), &BTreeMap::new());
        let missed = lost(&[(TOO_SLOW, 7)]);
        assert_eq!(inputs.take(), [records(5), Input::Lost { lost: missed }]);
        // Once is enough.
        taken.tell(&records(6), &BTreeMap::new());
        assert_eq!(inputs.take(), [records(6)]);
    }

    #[test]
    fn what_waits_is_bounded_by_what_is_in_it() {
        let (mut taken, inputs) = seat(8, &[]);
        for _ in 0..3 {
            taken.tell(&records(MOST / 2), &BTreeMap::new());
        }
        assert_eq!(inputs.take().len(), 2);
        taken.tell(&records(1), &BTreeMap::new());
        let missed = lost(&[(TOO_SLOW, MOST as u64 / 2)]);
        assert_eq!(inputs.take(), [records(1), Input::Lost { lost: missed }]);
    }
}
