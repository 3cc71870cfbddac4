//! Counting what was lost or odd.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use netflow_ebpf::parse::Odd;
use netflow_ebpf::{Kind, Lost};

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Lost::COUNT, 0);

/// Counts one.
#[inline(always)]
pub fn count(lost: Lost) {
    if let Some(counter) = LOST.get_ptr_mut(lost as u32) {
        // SAFETY: valid while the program runs, and nobody else writes this CPU's value.
        unsafe { *counter += 1 };
    }
}

/// Counts a record that found no room.
#[inline(always)]
pub fn record(kind: Kind) {
    count(match kind {
        Kind::Syn | Kind::SynAck | Kind::FirstPacket | Kind::Retransmit => Lost::RingSegment,
        Kind::Rst | Kind::ResetSent | Kind::ResetReceived => Lost::RingReset,
        Kind::FlowEnd => Lost::RingFlowEnd,
        Kind::IcmpError
        | Kind::IcmpSent
        | Kind::PmtuReceived
        | Kind::PmtuLearned
        | Kind::Fragmented => Lost::RingIcmp,
        Kind::Drop => Lost::RingDrop,
        Kind::Nat => Lost::RingNat,
        Kind::TcpRetransmit
        | Kind::FibError
        | Kind::NeighborFailed
        | Kind::NeighborWait
        | Kind::CtEnd
        | Kind::CtInsertFailed
        | Kind::CtClash
        | Kind::CtFull
        | Kind::Ipvs
        | Kind::ListenOverflow => Lost::RingOther,
    });
}

/// Counts a packet that is not followed.
#[inline(always)]
pub fn odd(odd: Odd) {
    count(match odd {
        Odd::Truncated => Lost::Truncated,
        Odd::UnknownEtherType => Lost::UnknownEtherType,
        Odd::BadIpHeader => Lost::BadIpHeader,
        Odd::Arp => return,
    });
}
