//! Drains the ring, and what the drop map holds back.

use super::bytemap::{ByteMap, ByteMapError};
use super::clock::Clock;
use super::decode::{self, Names};
use super::kallsyms::Kallsyms;
use super::reasons::DropReasons;
use super::sys;
use crate::model::record::Record;
use aya::maps::{MapData, RingBuf};
use netflow_ebpf::{Ct, DropKey, DropRecord, DropTail, Header, Kind, Plain, VERSION};
use std::collections::HashMap;

/// Records taken in one go, so that a flood neither keeps the reader from ever returning nor takes memory: decoded they are
/// several times as big as in the ring.
const MAX_BATCH: usize = 1 << 14;

/// The programs record the same drop at most this often; what is pending longer is fetched.
const DROP_INTERVAL: u64 = 1_000_000_000;

/// A drop record is remembered this long, for the packets that follow it.
const REMEMBERED: u64 = 10 * DROP_INTERVAL;

/// As many as the programs can count for; more could not be asked for.
const MAX_REMEMBERED: usize = netflow_ebpf::map::DROPS_ENTRIES as usize;

/// Sizes of the drop map's key and value.
const DROP_KEY: usize = size_of::<DropKey>();
const DROP_TAIL: usize = size_of::<DropTail>();

/// The ring and what decoding needs.
pub struct Reader {
    ring: RingBuf<MapData>,
    drops: ByteMap<DROP_KEY, DROP_TAIL>,
    /// Latest record of each drop that may still be counting.
    remembered: HashMap<[u8; DROP_KEY], DropRecord>,
    flushed: u64,
    symbols: Kallsyms,
    reasons: DropReasons,
    clock: Clock,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What one drain gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Decoded records, in the order of the ring.
    pub records: Vec<Record>,
    /// Records that could not be decoded.
    pub garbled: u64,
}

impl Reader {
    /// Over the programs' maps.
    pub fn new(
        ring: RingBuf<MapData>,
        drops: ByteMap<DROP_KEY, DROP_TAIL>,
        reasons: DropReasons,
        clock: Clock,
    ) -> Self {
        Reader {
            ring,
            drops,
            remembered: HashMap::new(),
            flushed: 0,
            symbols: Kallsyms::new(),
            reasons,
            clock,
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Everything that waits, without blocking.
    pub fn drain(&mut self) -> Result<Drained, ByteMapError> {
        self.bytes.clear();
        self.ends.clear();
        while self.ends.len() < MAX_BATCH
            && let Some(item) = self.ring.next()
        {
            self.bytes.extend_from_slice(&item);
            self.ends.push(self.bytes.len());
        }
        let now = sys::monotonic_ns();
        self.remember(now);
        if now.saturating_sub(self.flushed) >= DROP_INTERVAL {
            self.flushed = now;
            self.fetch_pending_drops(now)?;
        }
        Ok(self.decode())
    }

    /// The records taken, one by one.
    fn taken(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(&start, &end)| &self.bytes[start..end])
    }

    fn decode(&mut self) -> Drained {
        let addresses: Vec<u64> = self.taken().flat_map(decode::addresses).collect();
        self.symbols.learn(addresses);
        let names = Names {
            clock: self.clock,
            reasons: &self.reasons,
            symbols: &self.symbols,
        };
        let mut drained = Drained {
            records: Vec::with_capacity(self.ends.len()),
            ..Drained::default()
        };
        for bytes in self.taken() {
            match decode::record(bytes, names) {
                Ok(record) => drained.records.push(record),
                Err(_) => drained.garbled += 1,
            }
        }
        drained
    }

    fn remember(&mut self, now: u64) {
        let drops: Vec<DropRecord> = self
            .taken()
            .filter(|bytes| Header::read(bytes).is_some_and(|h| h.kind == Kind::Drop as u8))
            .filter_map(DropRecord::read)
            .collect();
        for record in drops {
            let room = self.remembered.len() < MAX_REMEMBERED;
            if let Ok(key) = key_of(&record).bytes().try_into()
                && (room || self.remembered.contains_key(&key))
            {
                self.remembered.insert(key, record);
            }
        }
        self.remembered
            .retain(|_, record| now.saturating_sub(record.header.time) < REMEMBERED);
    }

    /// Drops that were only counted, and that no later one has reported within a second.
    fn fetch_pending_drops(&mut self, now: u64) -> Result<(), ByteMapError> {
        let mut pending: Vec<([u8; DROP_KEY], DropTail)> = Vec::new();
        self.drops.for_each(|key, tail| {
            if let (Ok(key), Some(tail)) = (key.try_into(), DropTail::read(tail))
                && tail.pending > 0
                && now.saturating_sub(tail.emitted) > DROP_INTERVAL
            {
                pending.push((key, tail));
            }
        })?;
        for (key, tail) in pending {
            self.drops.remove(&key)?;
            let Some(parts) = DropKey::read(&key) else {
                continue;
            };
            let record = tail_record(&parts, &tail, self.remembered.get(&key));
            self.bytes.extend_from_slice(record.bytes());
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }
}

fn key_of(record: &DropRecord) -> DropKey {
    DropKey {
        netns_cookie: record.header.netns_cookie,
        place: record.place,
        netns_inum: record.header.netns_inum,
        ifindex: record.header.ifindex,
        reason: record.reason,
        pad: 0,
        tuple: record.header.tuple,
    }
}

/// The record of drops that were only counted: like the one before them, if that is still known.
fn tail_record(key: &DropKey, tail: &DropTail, before: Option<&DropRecord>) -> DropRecord {
    let unknown = DropRecord {
        header: Header {
            time: 0,
            netns_cookie: key.netns_cookie,
            netns_inum: key.netns_inum,
            ifindex: key.ifindex,
            tuple: key.tuple,
            size: size_of::<DropRecord>() as u16,
            kind: Kind::Drop as u8,
            version: VERSION,
            pad: 0,
        },
        place: key.place,
        reason: key.reason,
        ct: Ct::default(),
        ..DropRecord::zero()
    };
    let mut record = before.copied().unwrap_or(unknown);
    record.header.time = tail.last;
    record.count = tail.pending;
    record.seq = tail.seq;
    record.len = tail.len;
    record.tcp_flags = tail.tcp_flags;
    record
}

#[cfg(test)]
mod tests {
    use super::super::decode::tests::sample_tuple;
    use super::*;

    #[test]
    fn what_is_left_of_a_drop_looks_like_the_drop() {
        let key = DropKey {
            netns_cookie: 1,
            place: 2,
            netns_inum: 3,
            ifindex: 4,
            reason: 5,
            pad: 0,
            tuple: sample_tuple(),
        };
        let tail = DropTail {
            emitted: 10,
            last: 20,
            pending: 7,
            seq: 8,
            len: 9,
            tcp_flags: 2,
            pad: [0; 3],
        };
        let record = tail_record(&key, &tail, None);
        assert_eq!(key_of(&record), key);
        assert_eq!((record.header.time, record.count), (20, 7));
        assert_eq!(record.ct, Ct::default());
        let before = DropRecord {
            count: 1,
            iif: 6,
            ct: Ct {
                status: 0x120,
                ..Ct::default()
            },
            ..record
        };
        let record = tail_record(&key, &tail, Some(&before));
        assert_eq!((record.count, record.iif, record.ct.status), (7, 6, 0x120));
        assert_eq!((record.seq, record.len, record.tcp_flags), (8, 9, 2));
    }
}
