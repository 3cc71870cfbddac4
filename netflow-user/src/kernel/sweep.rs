//! Sweeps the flow map: what changed goes out, what is over is deleted.

use super::bytemap::{ByteMap, ByteMapError};
use super::clock::Clock;
use super::decode;
use super::sys;
use crate::model::flow::FlowSnapshot;
use aya::maps::{Array, MapData};
use netflow_ebpf::{FlowKey, FlowValue, Plain, Tuple};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

const KEY: usize = size_of::<FlowKey>();
const VALUE: usize = size_of::<FlowValue>();
const SECOND: u64 = 1_000_000_000;

/// `FlowValue::last` may be a kernel tick old when it is written (10 ms at 100 Hz), and a program may be interrupted
/// between taking the time and writing it.
const SLACK: u64 = 25_000_000;

/// Idle time after which an entry is deleted: closed connections, TCP that may still speak, everything else.
const CLOSED: u64 = 30 * SECOND;
const OPEN_TCP: u64 = 600 * SECOND;
const OTHER: u64 = 120 * SECOND;

/// Entries deleted in one sweep at most: about 10 ms of system calls.
const MAX_DELETED: usize = 8192;

/// The same when the map is all but full: what is watched needs room at once.
const MAX_DELETED_FULL: usize = 4 * MAX_DELETED;

/// Entries kept in mind for that, of which the first to go are picked when there are so many.
const MAX_CANDIDATES: usize = MAX_DELETED_FULL / 2 * 3;

/// Flows told in one sweep at most, those that are watched apart: it bounds memory and time in a storm. What is not told is
/// counted.
const MAX_TOLD: usize = 32_768;

const TCP: u8 = 6;
const FIN: u8 = 1;
const RST: u8 = 4;

/// The flow map and when it was last looked at.
pub struct Sweeper {
    map: ByteMap<KEY, VALUE>,
    /// Where the programs read how many entries there are.
    taken: Array<MapData, u64>,
    capacity: usize,
    clock: Clock,
    watched: HashSet<IpAddr>,
    since: u64,
    /// Entries at the sweep before.
    entries: usize,
}

/// What one sweep gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that changed since the sweep before.
    pub flows: Vec<FlowSnapshot>,
    /// Entries deleted although they were not over, because the map was nearly full.
    pub evicted: u64,
    /// Entries that changed and are not told, because too many did.
    pub untold: u64,
    /// Entries that make no sense.
    pub garbled: u64,
}

/// An entry that may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    key: [u8; KEY],
    watched: bool,
    last: u64,
}

impl Sweeper {
    /// Over the programs' map with room for `capacity` entries.
    pub fn new(
        map: ByteMap<KEY, VALUE>,
        taken: Array<MapData, u64>,
        capacity: u32,
        clock: Clock,
    ) -> Self {
        Sweeper {
            map,
            taken,
            capacity: capacity as usize,
            clock,
            watched: HashSet::new(),
            since: 0,
            entries: 0,
        }
    }

    /// Flows that touch one of these addresses are the last to be evicted.
    pub fn watch(&mut self, addresses: &[IpAddr]) {
        self.watched = addresses.iter().copied().collect();
    }

    /// Entries at the latest sweep.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Reads the whole map.
    pub fn sweep(&mut self) -> Result<Swept, ByteMapError> {
        let now = sys::monotonic_ns();
        let since = self.since.saturating_sub(SLACK);
        let full = self.entries > self.capacity / 4 * 3;
        let Sweeper {
            map,
            clock,
            watched,
            ..
        } = self;
        // Room for as many as there were: growing by copies would take twice as much.
        let mut swept = Swept {
            flows: Vec::with_capacity(self.entries.min(MAX_TOLD)),
            ..Swept::default()
        };
        let (mut over, mut candidates) = (Vec::new(), Vec::new());
        let mut entries = 0;
        map.for_each(|key_bytes, value_bytes| {
            entries += 1;
            let (Some(key), Some(value), Ok(bytes)) = (
                FlowKey::read(key_bytes),
                FlowValue::read(value_bytes),
                key_bytes.try_into(),
            ) else {
                swept.garbled += 1;
                return;
            };
            let last = clock.last(&value);
            let told = swept.flows.len() < MAX_TOLD || touches(&key.tuple, watched);
            if last >= since && !told {
                swept.untold += 1;
            } else if last >= since {
                match decode::snapshot(&key, &value, *clock) {
                    Ok(flow) => swept.flows.push(flow),
                    Err(_) => swept.garbled += 1,
                }
            }
            if is_over(&key.tuple, &value, now.saturating_sub(last)) {
                over.push(bytes);
            } else if full {
                candidates.push(Candidate {
                    key: bytes,
                    watched: touches(&key.tuple, watched),
                    last,
                });
                if candidates.len() == MAX_CANDIDATES {
                    pick(&mut candidates, MAX_DELETED_FULL);
                }
            }
        })?;
        let most = if entries > self.capacity / 10 * 9 {
            MAX_DELETED_FULL
        } else {
            MAX_DELETED
        };
        over.truncate(most);
        let left = entries - over.len();
        let excess = left.saturating_sub(self.capacity / 10 * 7);
        pick(&mut candidates, excess.min(most - over.len()));
        swept.evicted = candidates.len() as u64;
        for key in over.iter().chain(candidates.iter().map(|c| &c.key)) {
            self.map.remove(key)?;
        }
        // What was added while the map was read is not in this number; the next sweep finds it.
        self.taken.set(0, (left - candidates.len()) as u64, 0)?;
        self.since = now;
        self.entries = entries;
        Ok(swept)
    }
}

/// Whether a flow is over. The value was read before this is asked: an entry that a packet touches in between is
/// deleted all the same, and that packet's flow starts anew.
fn is_over(tuple: &Tuple, value: &FlowValue, idle: u64) -> bool {
    let limit = if tuple.proto != TCP {
        OTHER
    } else if value.flags & (FIN | RST) != 0 {
        CLOSED
    } else {
        OPEN_TCP
    };
    idle > limit
}

fn touches(tuple: &Tuple, addresses: &HashSet<IpAddr>) -> bool {
    [tuple.saddr, tuple.daddr]
        .into_iter()
        .any(|a| addresses.contains(&Ipv6Addr::from(a.octets()).to_canonical()))
}

/// Keeps the `count` entries that are missed least: not watched before watched, the longest idle first.
fn pick(candidates: &mut Vec<Candidate>, count: usize) {
    if count > 0 && count < candidates.len() {
        candidates.select_nth_unstable_by_key(count - 1, |c| (c.watched, c.last));
    }
    candidates.truncate(count);
}

#[cfg(test)]
mod tests {
    use super::super::decode::tests::sample_tuple;
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn when_a_flow_is_over() {
        let tcp = sample_tuple();
        let udp = Tuple { proto: 17, ..tcp };
        let value = |flags| FlowValue {
            flags,
            ..FlowValue::zero()
        };
        let after = |seconds: u64| seconds * SECOND;
        assert!(!is_over(&tcp, &value(FIN), after(30)));
        assert!(is_over(&tcp, &value(FIN), after(31)));
        assert!(is_over(&tcp, &value(RST), after(31)));
        assert!(!is_over(&tcp, &value(0), after(600)));
        assert!(is_over(&tcp, &value(0), after(601)));
        assert!(!is_over(&udp, &value(0), after(120)));
        assert!(is_over(&udp, &value(0), after(121)));
        assert!(!is_over(&udp, &value(0), 0));
    }

    #[test]
    fn watched_flows_go_last() {
        let candidate = |last, watched| Candidate {
            key: [0; KEY],
            watched,
            last,
        };
        let all = vec![
            candidate(1, true),
            candidate(9, false),
            candidate(5, false),
            candidate(2, true),
            candidate(7, false),
        ];
        let picked = |count| {
            let mut kept = all.clone();
            pick(&mut kept, count);
            let mut lasts: Vec<_> = kept.iter().map(|c| c.last).collect();
            lasts.sort_unstable();
            lasts
        };
        assert_eq!(picked(0), Vec::<u64>::new());
        assert_eq!(picked(1), [5]);
        assert_eq!(picked(3), [5, 7, 9]);
        assert_eq!(picked(4), [1, 5, 7, 9]);
        assert_eq!(picked(99).len(), 5);
    }

    #[test]
    fn which_flows_are_watched() {
        let watched = HashSet::from([IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7))]);
        assert!(touches(&sample_tuple(), &watched));
        let mut elsewhere = sample_tuple();
        elsewhere.daddr = elsewhere.saddr;
        assert!(!touches(&elsewhere, &watched));
    }
}
