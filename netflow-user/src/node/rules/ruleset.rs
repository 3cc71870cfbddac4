//! The one form into which every rule system is decoded: tables, chains, rules as steps, sets.
//!
//! An iptables rule is tests and one target; an nftables rule is a small program over registers. Both become a list of
//! [`Step`]s. What a decoder does not understand stays in the list as such, so that nobody downstream mistakes a
//! half-read rule for one that matches more.

use crate::model::node::Flowtable;
use crate::model::record::NfHook;
use std::fmt;
use std::rc::Rc;

/// A number as compared by a rule: big-endian bytes of at most 16, so an IPv6 address fits.
pub type Value = u128;

/// The rule system that holds a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// `x_tables` through `setsockopt`.
    IptablesLegacy,
    /// nftables tables that iptables-nft wrote.
    IptablesNft,
    /// nftables.
    Nftables,
}

impl Mode {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Mode::IptablesLegacy => "iptables-legacy",
            Mode::IptablesNft => "iptables-nft",
            Mode::Nftables => "nftables",
        }
    }
}

/// Address family of a table (`NFPROTO_*`, `include/uapi/linux/netfilter.h`, v6.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Both IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// One device.
    Netdev,
    /// Bridged frames.
    Bridge,
    /// IPv6.
    Ip6,
}

impl Family {
    /// From `NFPROTO_*`.
    pub fn from_nfproto(nfproto: u8) -> Option<Self> {
        Some(match nfproto {
            1 => Family::Inet,
            2 => Family::Ip,
            3 => Family::Arp,
            5 => Family::Netdev,
            7 => Family::Bridge,
            10 => Family::Ip6,
            _ => return None,
        })
    }

    /// As nft spells it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Arp => "arp",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
        }
    }

    /// Whether routed packets of this IP version go through the table's chains.
    pub fn routes(self, v6: bool) -> bool {
        match self {
            Family::Inet => true,
            Family::Ip => !v6,
            Family::Ip6 => v6,
            Family::Arp | Family::Netdev | Family::Bridge => false,
        }
    }
}

/// Everything read from one network namespace.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// Tables of all rule systems.
    pub tables: Vec<Table>,
    /// Sets and maps of all nftables tables; a [`SetRef`] is an index here.
    pub sets: Vec<Set>,
    /// Flowtables of all nftables tables.
    pub flowtables: Vec<Flowtable>,
}

/// Index into [`Ruleset::sets`].
pub type SetRef = usize;

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Who wrote it.
    pub mode: Mode,
    /// Family.
    pub family: Family,
    /// Name.
    pub name: String,
    /// Chains; jumps are indices here.
    pub chains: Vec<Chain>,
}

impl Table {
    /// For the reader: iptables' IPv4 tables by name alone, everything else with the family.
    pub fn title(&self) -> String {
        match (self.mode, self.family) {
            (Mode::IptablesLegacy | Mode::IptablesNft, Family::Ip) => self.name.clone(),
            _ => format!("{} {}", self.family.name(), self.name),
        }
    }
}

/// A chain.
#[derive(Debug, Default)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Where it is hooked in, for a base chain.
    pub base: Option<Base>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// How a base chain is hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Where; `None` for ingress and egress of a device.
    pub hook: Option<NfHook>,
    /// Order at the hook.
    pub priority: i32,
    /// Whether the policy is drop.
    pub policy_drop: bool,
    /// A NAT chain: seen by the first packet of a connection only.
    pub nat: bool,
    /// Packets that met the policy, where counted.
    pub packets: Option<u64>,
}

/// A rule.
#[derive(Debug, Default)]
pub struct Rule {
    /// Position in the chain from 1 (iptables-legacy) or handle.
    pub handle: u64,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// Packets counted.
    pub packets: Option<u64>,
    /// What it does, in order; a test that fails ends the rule.
    pub steps: Box<[Step]>,
}

impl Rule {
    /// The verdict, which is always the last step that matters.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.steps.iter().find_map(|step| match step {
            Step::Verdict(verdict) => Some(verdict),
            Step::Test(_) | Step::Effect(_) => None,
        })
    }

    /// The tests.
    pub fn tests(&self) -> impl Iterator<Item = &Test> + Clone {
        self.steps.iter().filter_map(|step| match step {
            Step::Test(test) => Some(test),
            Step::Effect(_) | Step::Verdict(_) => None,
        })
    }
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Goes on only if it holds.
    Test(Test),
    /// Changes something that later tests look at.
    Effect(Effect),
    /// Decides.
    Verdict(Verdict),
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The operand lies (`not`: does not lie) in one of the ranges, both ends included.
    Range {
        /// What is compared.
        operand: Operand,
        /// Turned round.
        not: bool,
        /// Values.
        ranges: Ranges,
    },
    /// The operands, concatenated, are (`not`: are not) an element of the set.
    Lookup {
        /// What is looked up.
        key: Box<[Operand]>,
        /// Where.
        set: SetRef,
        /// Turned round.
        not: bool,
    },
    /// Understood, but it depends on neither address nor port: a rate, a random choice, an owner.
    Free(Box<str>),
    /// Not understood.
    Unknown(Box<str>),
}

/// Ranges of values; nearly always one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// One.
    One(Value, Value),
    /// Several.
    Many(Box<[(Value, Value)]>),
}

impl Ranges {
    /// A single value.
    pub fn only(value: Value) -> Self {
        Ranges::One(value, value)
    }

    /// All ranges.
    pub fn as_slice(&self) -> RangesIter<'_> {
        match self {
            Ranges::One(from, to) => RangesIter {
                first: Some((*from, *to)),
                rest: [].iter(),
            },
            Ranges::Many(all) => RangesIter {
                first: None,
                rest: all.iter(),
            },
        }
    }

    /// Whether `value` lies in one of them.
    pub fn contains(&self, value: Value) -> bool {
        self.as_slice()
            .any(|(from, to)| from <= value && value <= to)
    }
}

/// Iterator of [`Ranges`].
pub struct RangesIter<'a> {
    first: Option<(Value, Value)>,
    rest: std::slice::Iter<'a, (Value, Value)>,
}

impl Iterator for RangesIter<'_> {
    type Item = (Value, Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.first.take().or_else(|| self.rest.next().copied())
    }
}

/// A field of the packet or its context, cut and masked: `(((field >> shift) cut to width) & mask) ^ xor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// The field.
    pub field: Field,
    /// Bits cut off below.
    pub shift: u8,
    /// Bytes left.
    pub width: u8,
    /// Mask.
    pub mask: Value,
    /// Flipped bits.
    pub xor: Value,
    /// Its bytes stand in the machine's order (marks, states), not in the network's.
    pub host: bool,
}

impl Operand {
    /// A whole field of `width` bytes.
    pub fn whole(field: Field, width: u8) -> Self {
        Operand {
            field,
            shift: 0,
            width,
            mask: ones(width),
            xor: 0,
            host: field.is_host_order(),
        }
    }

    /// What the rule compares when the field is `value`.
    pub fn of(&self, value: Value) -> Value {
        (((value >> self.shift.min(127)) & ones(self.width)) & self.mask) ^ self.xor
    }

    /// Whether it is the field itself, nothing cut or flipped.
    pub fn is_plain(&self) -> bool {
        self.shift == 0 && self.mask == ones(self.width) && self.xor == 0
    }

    /// The bytes of a rule's constant as the number that this operand is compared with.
    pub fn number(&self, bytes: &[u8]) -> Value {
        number(bytes, self.host)
    }
}

/// All bits of a value `width` bytes long.
pub fn ones(width: u8) -> Value {
    match width {
        0 => 0,
        1..16 => (1 << (8 * u32::from(width))) - 1,
        _ => Value::MAX,
    }
}

/// Bytes as a number; of more than 16 the first 16.
pub fn number(bytes: &[u8], host: bool) -> Value {
    let fold = |acc: Value, byte: &u8| acc << 8 | Value::from(*byte);
    let bytes = bytes.get(..16).unwrap_or(bytes);
    if host && cfg!(target_endian = "little") {
        bytes.iter().rev().fold(0, fold)
    } else {
        bytes.iter().fold(0, fold)
    }
}

/// What a rule can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// IP source address.
    Saddr,
    /// IP destination address.
    Daddr,
    /// Transport protocol.
    Proto,
    /// Source port.
    Sport,
    /// Destination port.
    Dport,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    NfProto,
    /// Ethertype.
    EtherType,
    /// Packet mark.
    Mark,
    /// Connection mark.
    CtMark,
    /// [`ct_state`] bit.
    CtState,
    /// `IPS_*` bits.
    CtStatus,
    /// Source address of the connection's first packet.
    CtOrigSaddr,
    /// Destination address of the connection's first packet.
    CtOrigDaddr,
    /// Protocol of the connection.
    CtProto,
    /// Source port of the connection's first packet.
    CtOrigSport,
    /// Destination port of the connection's first packet.
    CtOrigDport,
    /// Name of the interface it came in by.
    IifName,
    /// Name of the interface it goes out by.
    OifName,
    /// `RTN_*` of the destination address.
    DstType,
    /// `RTN_*` of the source address.
    SrcType,
    /// A number from `offset` to `offset + modulus - 1`, random, in turn or by hash.
    Random {
        /// How many values.
        modulus: u32,
        /// The smallest.
        offset: u32,
    },
    /// ICMP or `ICMPv6` type.
    IcmpType,
    /// TCP flags.
    TcpFlags,
    /// `NFT_META_*` key without a name here.
    Meta(u32),
    /// `NFT_CT_*` key without a name here.
    Ct(u32),
    /// Some other bytes of a header.
    Header {
        /// `NFT_PAYLOAD_*_HEADER`.
        base: u32,
        /// Offset.
        offset: u32,
    },
    /// Something else, by name.
    Other(&'static str),
}

impl Field {
    fn is_host_order(self) -> bool {
        matches!(
            self,
            Field::Mark
                | Field::CtMark
                | Field::CtState
                | Field::CtStatus
                | Field::DstType
                | Field::SrcType
                | Field::Random { .. }
                | Field::Meta(_)
                | Field::Ct(_)
        )
    }
}

/// Bits of a connection's state, the same in `xt_conntrack` and nftables (`NF_CT_STATE_BIT`,
/// `include/uapi/linux/netfilter/nf_conntrack_common.h`, v6.18).
pub mod ct_state {
    /// Cannot belong to a connection.
    pub const INVALID: u32 = 1;
    /// Packets were seen both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Belongs to another connection (an ICMP error).
    pub const RELATED: u32 = 4;
    /// The first packet.
    pub const NEW: u32 = 8;
    /// Not tracked.
    pub const UNTRACKED: u32 = 64;
    /// Names in bit order.
    pub const NAMES: [(u32, &str); 5] = [
        (INVALID, "invalid"),
        (ESTABLISHED, "established"),
        (RELATED, "related"),
        (NEW, "new"),
        (UNTRACKED, "untracked"),
    ];
}

/// `RTN_LOCAL`.
pub const RTN_LOCAL: Value = 2;

/// A change that later rules can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// `mark = (mark & keep) ^ xor`.
    Mark {
        /// Bits kept.
        keep: u32,
        /// Bits flipped then.
        xor: u32,
    },
    /// The mark becomes something that the rule alone does not tell.
    MarkUnknown,
    /// The packet is not tracked: no NAT.
    Notrack,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the next base chain.
    Accept,
    /// Gone.
    Drop,
    /// Gone, with an answer.
    Reject,
    /// Back to the caller.
    Return,
    /// Into a chain, and back.
    Jump(usize),
    /// Into a chain, and back to where this one was jumped to from.
    Goto(usize),
    /// A map of verdicts.
    Map {
        /// What is looked up.
        key: Box<[Operand]>,
        /// Where.
        set: SetRef,
    },
    /// Destination NAT.
    Dnat(Box<Dnat>),
    /// Destination NAT to an address of this machine.
    Redirect,
    /// Source NAT or masquerading.
    Snat,
    /// To a program.
    Queue,
    /// Not understood; may or may not end the walk.
    Unknown(Box<str>),
}

/// Destination NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnat {
    /// To an IPv6 address.
    pub v6: bool,
    /// First and last address; `None` leaves the address.
    pub addr: Option<(Source, Source)>,
    /// First and last port; `None` leaves the port.
    pub port: Option<(Source, Source)>,
}

/// Where a value of a NAT comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The rule itself.
    Const(Value),
    /// The data of a map element.
    Map {
        /// What is looked up.
        key: Box<[Operand]>,
        /// Where.
        set: SetRef,
        /// First byte in the data.
        offset: usize,
    },
    /// Somewhere that was not understood.
    Unknown,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Index of its table.
    pub table: usize,
    /// Name (`__set3` for an anonymous one).
    pub name: String,
    /// Written in braces inside a rule.
    pub anonymous: bool,
    /// Holds intervals.
    pub interval: bool,
    /// Length of a key in bytes.
    pub key_len: usize,
    /// Length of what a key maps to in bytes.
    pub data_len: usize,
    /// Elements carry verdicts.
    pub verdicts: bool,
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// First key; empty matches everything that no other element matches.
    pub from: Box<[u8]>,
    /// Last key, where it is a range.
    pub to: Option<Box<[u8]>>,
    /// What it maps to.
    pub data: Data,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// Packets counted.
    pub packets: Option<u64>,
}

impl Element {
    /// The condition that a lookup of `key` finds this element.
    pub fn tests(&self, key: &[Operand]) -> Vec<Test> {
        if self.from.is_empty() {
            return vec![Test::Free("(no other element)".into())];
        }
        let mut at = 0;
        let mut tests = Vec::with_capacity(key.len());
        for operand in key {
            let width = usize::from(operand.width);
            let part = |bytes: &[u8]| bytes.get(at..at + width).map(|b| operand.number(b));
            let low = part(&self.from).unwrap_or(0);
            let high = self.to.as_deref().and_then(part).unwrap_or(low);
            tests.push(Test::Range {
                operand: *operand,
                not: false,
                ranges: Ranges::One(low, high),
            });
            at += width.next_multiple_of(4);
        }
        tests
    }
}

/// What an element maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: an element of a plain set.
    None,
    /// A verdict; `None` goes on with the next rule.
    Verdict(Option<Verdict>),
    /// Bytes.
    Bytes(Box<[u8]>),
}

/// Elements of sets, fetched when they are first asked for: a Service proxy has tens of thousands of them.
pub trait Elements {
    /// The elements of `set`, or why they cannot be had.
    fn of(&self, set: SetRef) -> Fetched;
}

/// Elements, or why they cannot be had.
pub type Fetched = Result<Rc<[Element]>, Rc<str>>;

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
