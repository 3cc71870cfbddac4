//! The ring of records.

use super::layout::layout;
use super::lost;
use super::netns::Netns;
use super::room;
use super::zero::clear;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP};
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use netflow_ebpf::map::RECORDS_BYTES;
use netflow_ebpf::{Header, Kind, Tuple, VERSION};

#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(RECORDS_BYTES, 0);

/// Where and when, for the header of a record.
pub struct Place<'a> {
    /// `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Namespace.
    pub netns: Netns,
    /// Interface, 0 = none.
    pub ifindex: u32,
    /// The packet's tuple.
    pub tuple: Option<&'a Tuple>,
}

/// Room for one record of type `R`, whose header is written. The caller writes every other field through the pointer and calls
/// [`submit`]. A record that finds no room is counted.
#[inline(always)]
pub fn reserve<R: 'static>(kind: Kind, place: &Place<'_>) -> Option<RingBufEntry<R>> {
    if !has_room(kind, place.tuple) {
        lost::record(kind);
        return None;
    }
    let Some(mut entry) = RECORDS.reserve::<R>(0) else {
        lost::record(kind);
        return None;
    };
    let header = entry.as_mut_ptr().cast::<Header>();
    // SAFETY: every record begins with a header, and the ring has just given this memory out.
    unsafe {
        (*header).time = place.time;
        (*header).netns_cookie = place.netns.cookie;
        (*header).netns_inum = place.netns.inum;
        (*header).ifindex = place.ifindex;
        match place.tuple {
            Some(tuple) => (*header).tuple = *tuple,
            None => clear(&raw mut (*header).tuple),
        }
        (*header).size = size_of::<R>() as u16;
        (*header).kind = kind as u8;
        (*header).version = VERSION;
        (*header).pad = 0;
    }
    Some(entry)
}

/// Whether the ring takes a record: above its limit only what matters most, and of the last sixth above only what touches the
/// Service asked about, which is taken as long as there is room at all.
#[inline(always)]
fn has_room(kind: Kind, tuple: Option<&Tuple>) -> bool {
    let limit = layout!(ring_limit);
    let most = if kind.is_ordinary() {
        limit
    } else {
        limit + limit / 6
    };
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) <= u64::from(most)
        || tuple.is_some_and(room::is_watched)
}

/// Hands the record over. User space polls: a wakeup per record would cost more than the record.
#[inline(always)]
pub fn submit<R>(entry: RingBufEntry<R>) {
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
