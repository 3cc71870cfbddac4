//! One file per thing that crosses the border.

mod flow;
mod hook;
mod key;
mod layout;
mod lost;
pub mod map;
mod module;
mod noise;
mod plain;
mod probe;
mod record;

pub use flow::{FLOW_END_WITHIN, FlowValue};
pub use hook::{HOOKS, Hook, HookInfo, TC_PROGRAMS, TcProgram};
pub use key::{Addr, DIR_EGRESS, DIR_INGRESS, FlowKey, Tuple};
pub use layout::{ABSENT, ARGS, Args, FIELDS, Field, Layout, Need};
pub use lost::Lost;
pub use map::{CtSeen, DropKey, DropTail, IFACE_EMIT_EGRESS, IFACE_EMIT_INGRESS};
pub use module::{MODULE_FIELDS, ModuleField, ModuleLayout};
pub use noise::{NOISE, Noise, NoisePlace, NoiseRule, REASON_ABSENT, RULE_RST_ONLY};
pub use plain::Plain;
pub use probe::{PROBES, Probe};
pub use record::{
    CT_CLASHED, CT_EVICTED, Ct, CtFullRecord, CtRecord, DROP_HAS_DST, DROP_HAS_SK, DropRecord,
    FibRecord, FlowEndRecord, FragmentedRecord, Header, IPVS_DIRECT, IPVS_LOCAL, IPVS_NAT,
    IPVS_NONE, IPVS_TUNNEL, IcmpErrorRecord, IcmpSentRecord, IpvsRecord, Kind,
    ListenOverflowRecord, NAME, NatRecord, NeighborRecord, NeighborWaitRecord, PmtuLearnedRecord,
    PmtuReceivedRecord, REJECT_NONE, REJECT_RESET, REJECT_UNREACHABLE, RULES_NFT, RULES_NONE,
    RULES_XT, SegmentRecord, SocketRecord, Verdict,
};

/// Version of everything in this module; each record carries it.
pub const VERSION: u8 = 2;
