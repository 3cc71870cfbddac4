//! How far the data of one direction is acknowledged, from sweep to sweep.
//!
//! At every moment of a transfer something is under way, so one look at the counters never shows a stall. What shows it is
//! the age of the oldest byte that nobody has acknowledged.

use super::connection::{Connection, Sight};
use crate::model::Time;
use std::time::Duration;

/// Interfaces that saw the connection's latest packets: one that it left long ago has numbers of then.
const PRESENT: Duration = Duration::from_secs(1);

/// No more than this can be under way: a window of 65,535 shifted by 14 (RFC 7323, 2.3). A segment from further out is none of
/// the stream.
const WIDEST_WINDOW: u32 = 65_535 << 14;

/// Data that was sent and not acknowledged, all at the same acknowledgement number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hanging {
    /// It was under way at this time at the latest.
    pub since: Time,
    /// Segments that were sent again meanwhile.
    pub resent: u32,
    mark: Mark,
    resent_before: u32,
}

impl Hanging {
    /// Whether an acknowledgement was seen of what came before it.
    pub fn is_acked(&self) -> bool {
        matches!(self.mark, Mark::Acked(_))
    }

    /// Whether data that ends at a sequence number is part of it.
    pub fn is_beyond(&self, seq_end: u32) -> bool {
        match self.mark {
            Mark::Acked(ack) => is_after(seq_end, ack),
            Mark::Sent(_) => true,
        }
    }
}

/// Where it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// This number was acknowledged.
    Acked(u32),
    /// No acknowledgement was seen; the data ended here.
    Sent(u32),
}

/// One direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Latest sweep that told something, and retransmissions known before it.
    swept: Time,
    resent_before: u32,
    resent: u32,
    /// Acknowledgement number, and the latest sweep that found it.
    ack: Option<(u32, Time)>,
    /// Something was acknowledged after this time.
    pub(super) acked_after: Option<Time>,
    pub(super) hanging: Option<Hanging>,
    /// Its latest segment lies outside of any window: what of its data is acknowledged is not known.
    pub(super) astray: bool,
}

/// The counters of one direction as they stand.
struct Stock {
    ack: Option<u32>,
    seq_end: u32,
    resent: u32,
    /// What is not acknowledged was under way at this time.
    since: Time,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::NONE
    }
}

impl Progress {
    /// Nothing was sent yet.
    pub(super) const NONE: Progress = Progress {
        swept: Time(0),
        resent_before: 0,
        resent: 0,
        ack: None,
        acked_after: None,
        hanging: None,
        astray: false,
    };

    /// Takes in the counters after a sweep.
    pub(super) fn take_stock(conn: &Connection, forward: bool, at: Time) -> Option<Progress> {
        let stock = Stock::of(conn, forward)?;
        let mut progress = conn.progress(forward).clone();
        progress.update(at, &stock);
        Some(progress)
    }

    fn update(&mut self, at: Time, stock: &Stock) {
        if at > self.swept {
            self.swept = at;
            self.resent_before = self.resent;
        }
        self.resent = stock.resent;
        if let Some(ack) = stock.ack {
            match self.ack {
                Some((known, seen)) if known != ack => self.acked_after = Some(seen),
                _ => {}
            }
            self.ack = Some((ack, at));
        }
        self.astray = stock.is_astray();
        let mark = stock.ack.map_or(Mark::Sent(stock.seq_end), Mark::Acked);
        self.hanging = stock.is_outstanding().then(|| {
            let same = self.hanging.filter(|h| h.mark == mark);
            let resent_before = same.map_or(self.resent_before, |h| h.resent_before);
            Hanging {
                since: same.map_or(stock.since, |h| h.since.min(stock.since)),
                resent: stock.resent.saturating_sub(resent_before),
                mark,
                resent_before,
            }
        });
    }
}

impl Stock {
    /// `None`: the direction has sent no data.
    fn of(conn: &Connection, forward: bool) -> Option<Stock> {
        let out = || {
            let sent = conn.sights_towards(forward);
            sent.filter(|s| s.stats.data.is_some())
        };
        let back = || {
            let sent = conn.sights_towards(!forward);
            sent.filter(|s| s.stats.flags.ack())
        };
        let seq_end = furthest(out(), |s| s.stats.seq_end)?;
        let ack = furthest(back(), |s| s.stats.ack);
        let heard = back().map(|s| s.stats.last).max();
        // Nothing came back after a segment was sent again: all of it hangs since then. An interface that missed the first
        // sending (one was attached earlier, or a bridge saw it late) takes a later one for it.
        let resent = out().filter_map(|s| s.stats.retrans_first);
        let in_vain = resent.filter(|t| heard.is_none_or(|h| h < *t)).min();
        // The handshake itself acknowledges one number more than the initial one: nothing after it has been.
        let opened = |s: &&Sight| {
            let is_first = s.stats.syn.is_some() || s.stats.syn_ack.is_some();
            is_first && ack == Some(s.stats.isn.wrapping_add(1))
        };
        let from_start = out().filter(opened).filter_map(|s| s.stats.data).max();
        let sent = out().map(|s| s.stats.last).max();
        Some(Stock {
            ack,
            seq_end,
            resent: out().map(|s| s.stats.retrans).max().unwrap_or(0),
            since: [in_vain, from_start, sent].into_iter().flatten().min()?,
        })
    }

    fn is_outstanding(&self) -> bool {
        self.ack.is_none_or(|ack| is_after(self.seq_end, ack)) && !self.is_astray()
    }

    fn is_astray(&self) -> bool {
        let beyond = |ack| self.seq_end.wrapping_sub(ack) > WIDEST_WINDOW;
        self.ack
            .is_some_and(|ack| is_after(self.seq_end, ack) && beyond(ack))
    }
}

/// Sequence numbers wrap: one is after another if the distance is below 2^31.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

fn furthest<'a>(
    sights: impl Iterator<Item = &'a Sight> + Clone,
    number: fn(&Sight) -> u32,
) -> Option<u32> {
    let latest = sights.clone().map(|s| s.stats.last).max()?;
    sights
        .filter(|s| s.stats.last + PRESENT >= latest)
        .map(number)
        .reduce(|a, b| if is_after(b, a) { b } else { a })
}
