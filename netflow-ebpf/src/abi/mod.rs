//! One file per thing that crosses the border.

mod flow;
mod hook;
mod key;
mod layout;
mod lost;
pub mod map;
mod noise;
mod plain;
mod record;

pub use flow::{FLOW_END_WITHIN, FlowValue};
pub use hook::{HOOKS, Hook, HookInfo, TC_PROGRAMS, TcProgram};
pub use key::{Addr, DIR_EGRESS, DIR_INGRESS, FlowKey, Tuple};
pub use layout::{ABSENT, ARGS, Args, FIELDS, Field, Layout, Need};
pub use lost::Lost;
pub use map::{CtSeen, DropKey, DropTail, IFACE_EMIT_EGRESS, IFACE_EMIT_INGRESS};
pub use noise::{NOISE, Noise, NoisePlace, NoiseRule, REASON_ABSENT, RULE_RST_ONLY};
pub use plain::Plain;
pub use record::{
    Ct, DROP_HAS_DST, DROP_HAS_SK, DropRecord, FibRecord, FlowEndRecord, Header, IcmpErrorRecord,
    IcmpSentRecord, Kind, NatRecord, NeighborRecord, NeighborWaitRecord, SegmentRecord,
    SocketRecord,
};

/// Version of everything in this module; each record carries it.
pub const VERSION: u8 = 1;
