//! What the kernel told so far, counted by the thread that owns the programs: plain numbers, which others get a copy of.

use crate::kernel::reasons::UNNAMED;
use crate::model::event_kind::EventKind;
use crate::model::record::{Drop, Event, Record};
use std::collections::BTreeMap;

/// Reason of drops whose number has no name on this kernel: such numbers are no closed set.
const OTHER: &str = "other";

/// The numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    records: [u64; EventKind::COUNT],
    dropped: BTreeMap<String, u64>,
    /// Records and flows that somebody who looked was too slow for, once for each who was.
    pub too_slow: u64,
}

impl Counts {
    /// Counts what was told.
    pub fn add(&mut self, records: &[Record]) {
        for record in records {
            self.records[record.event.kind() as usize] += 1;
            if let Event::Drop(drop) = &record.event {
                self.drop(drop);
            }
        }
    }

    fn drop(&mut self, drop: &Drop) {
        let reason = if drop.reason.starts_with(UNNAMED) {
            OTHER
        } else {
            &drop.reason
        };
        // Only the first of a reason needs a name of its own.
        match self.dropped.get_mut(reason) {
            Some(packets) => *packets += u64::from(drop.count),
            None => {
                self.dropped
                    .insert(reason.to_owned(), u64::from(drop.count));
            }
        }
    }

    /// Records of each kind.
    pub fn records(&self) -> impl Iterator<Item = (EventKind, u64)> {
        EventKind::ALL.into_iter().zip(self.records)
    }

    /// Packets dropped, for each reason that there was.
    pub fn dropped(&self) -> impl Iterator<Item = (&str, u64)> {
        self.dropped.iter().map(|(reason, n)| (reason.as_str(), *n))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Time;
    use crate::model::flow::TcpFlags;

    fn record(event: Event) -> Record {
        Record {
            time: Time(1),
            netns: 1,
            ifindex: 1,
            tuple: None,
            event,
        }
    }

    /// A drop that stands for so many packets.
    pub fn dropped(reason: &str, count: u32) -> Record {
        record(Event::Drop(Box::new(Drop {
            reason: reason.to_owned(),
            place: "nf_hook_slow".to_owned(),
            hook: None,
            flags: TcpFlags::default(),
            seq: 0,
            len: 0,
            ct: None,
            quoted: None,
            count,
            verdict: None,
        })))
    }

    #[test]
    fn records_are_counted_by_kind_and_drops_by_packets() {
        let mut counts = Counts::default();
        counts.add(&[
            record(Event::CtFull),
            dropped("NETFILTER_DROP", 1),
            dropped("NO_SOCKET", 2),
        ]);
        counts.add(&[dropped("NETFILTER_DROP", 40), record(Event::ResetSent)]);
        let records: Vec<_> = counts.records().filter(|(_, n)| *n > 0).collect();
        let kinds = [
            (EventKind::Drop, 3),
            (EventKind::CtFull, 1),
            (EventKind::ResetSent, 1),
        ];
        assert_eq!(records, kinds);
        let packets: Vec<_> = counts.dropped().collect();
        assert_eq!(packets, [("NETFILTER_DROP", 41), ("NO_SOCKET", 2)]);
    }

    #[test]
    fn reasons_are_a_closed_set() {
        let mut counts = Counts::default();
        counts.add(&[dropped("REASON_0x7", 1), dropped("REASON_0x50000", 2)]);
        assert_eq!(counts.dropped().collect::<Vec<_>>(), [(OTHER, 3)]);
    }
}
