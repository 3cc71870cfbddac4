//! What kinds of events there are.

use super::record::Event;

/// What happened, without the particulars. The variants are those of [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the one of `Event`")]
pub enum EventKind {
    Syn,
    SynAck,
    Rst,
    FirstPacket,
    Retransmit,
    FlowEnd,
    IcmpError,
    Drop,
    Nat,
    CtEnd,
    CtInsertFailed,
    CtClash,
    CtFull,
    IcmpSent,
    TcpRetransmit,
    ResetSent,
    ResetReceived,
    FibError,
    NeighborWait,
    NeighborFailed,
    PmtuReceived,
    PmtuLearned,
    Fragmented,
    Ipvs,
    ListenOverflow,
}

impl EventKind {
    /// Number of kinds.
    pub const COUNT: usize = Self::ALL.len();

    /// All, in order.
    pub const ALL: [EventKind; 25] = [
        EventKind::Syn,
        EventKind::SynAck,
        EventKind::Rst,
        EventKind::FirstPacket,
        EventKind::Retransmit,
        EventKind::FlowEnd,
        EventKind::IcmpError,
        EventKind::Drop,
        EventKind::Nat,
        EventKind::CtEnd,
        EventKind::CtInsertFailed,
        EventKind::CtClash,
        EventKind::CtFull,
        EventKind::IcmpSent,
        EventKind::TcpRetransmit,
        EventKind::ResetSent,
        EventKind::ResetReceived,
        EventKind::FibError,
        EventKind::NeighborWait,
        EventKind::NeighborFailed,
        EventKind::PmtuReceived,
        EventKind::PmtuLearned,
        EventKind::Fragmented,
        EventKind::Ipvs,
        EventKind::ListenOverflow,
    ];

    /// As in recordings.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Syn => "syn",
            EventKind::SynAck => "syn-ack",
            EventKind::Rst => "rst",
            EventKind::FirstPacket => "first-packet",
            EventKind::Retransmit => "retransmit",
            EventKind::FlowEnd => "flow-end",
            EventKind::IcmpError => "icmp-error",
            EventKind::Drop => "drop",
            EventKind::Nat => "nat",
            EventKind::CtEnd => "ct-end",
            EventKind::CtInsertFailed => "ct-insert-failed",
            EventKind::CtClash => "ct-clash",
            EventKind::CtFull => "ct-full",
            EventKind::IcmpSent => "icmp-sent",
            EventKind::TcpRetransmit => "tcp-retransmit",
            EventKind::ResetSent => "reset-sent",
            EventKind::ResetReceived => "reset-received",
            EventKind::FibError => "fib-error",
            EventKind::NeighborWait => "neighbor-wait",
            EventKind::NeighborFailed => "neighbor-failed",
            EventKind::PmtuReceived => "pmtu-received",
            EventKind::PmtuLearned => "pmtu-learned",
            EventKind::Fragmented => "fragmented",
            EventKind::Ipvs => "ipvs",
            EventKind::ListenOverflow => "listen-overflow",
        }
    }
}

impl Event {
    /// Of which kind it is.
    pub fn kind(&self) -> EventKind {
        match self {
            Event::Syn(_) => EventKind::Syn,
            Event::SynAck(_) => EventKind::SynAck,
            Event::Rst(_) => EventKind::Rst,
            Event::FirstPacket(_) => EventKind::FirstPacket,
            Event::Retransmit(_) => EventKind::Retransmit,
            Event::FlowEnd { .. } => EventKind::FlowEnd,
            Event::IcmpError(_) => EventKind::IcmpError,
            Event::Drop(_) => EventKind::Drop,
            Event::Nat { .. } => EventKind::Nat,
            Event::CtEnd { .. } => EventKind::CtEnd,
            Event::CtInsertFailed { .. } => EventKind::CtInsertFailed,
            Event::CtClash { .. } => EventKind::CtClash,
            Event::CtFull => EventKind::CtFull,
            Event::IcmpSent { .. } => EventKind::IcmpSent,
            Event::TcpRetransmit { .. } => EventKind::TcpRetransmit,
            Event::ResetSent => EventKind::ResetSent,
            Event::ResetReceived => EventKind::ResetReceived,
            Event::FibError { .. } => EventKind::FibError,
            Event::NeighborWait { .. } => EventKind::NeighborWait,
            Event::NeighborFailed { .. } => EventKind::NeighborFailed,
            Event::PmtuReceived { .. } => EventKind::PmtuReceived,
            Event::PmtuLearned { .. } => EventKind::PmtuLearned,
            Event::Fragmented { .. } => EventKind::Fragmented,
            Event::Ipvs { .. } => EventKind::Ipvs,
            Event::ListenOverflow { .. } => EventKind::ListenOverflow,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_own_place() {
        for (place, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        assert_eq!(Event::CtFull.kind(), EventKind::CtFull);
    }

    #[test]
    fn they_are_named_as_in_recordings() {
        // What is none has all of them listed.
        let bad = serde_json::from_str::<Event>(r#"{"kind":"no-such"}"#);
        let said = bad.unwrap_err().to_string();
        let (_, listed) = said.split_once("expected one of ").unwrap();
        let names: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
        assert_eq!(names, EventKind::ALL.map(EventKind::name));
    }
}
