//! Follows the first packet of a connection to a Service address through the base chains it would meet.
//!
//! What the packet's source, interface or chance decide is free: both ways are followed, and the answer is what *can*
//! happen. So it depends neither on chain names nor on a certain proxy: a DNAT found on the way is a backend. A drop
//! or reject counts only where a rule on the way asked for this very destination; everything else is a firewall's.
//!
//! After a DNAT the walk ends: from there on the packet is the backend's.

use super::eval::{Packet, State, Truth, View};
use super::ruleset::{
    Data, Dnat, Effect, Elements, Field, Mode, Operand, Ruleset, Source, Step, Test, Value,
    Verdict, number, ones,
};
use super::services::{At, Reach};
use super::xt::width;
use crate::model::record::NfHook;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Rules looked at for one address; a rule set built to exceed it is reported.
const LARGEST_WALK: u64 = 20_000_000;
/// Jumps within jumps (nftables allows 16, `x_tables` as many as there are chains).
const DEEPEST: usize = 64;
/// Different marks followed at once; beyond it the mark counts as unknown.
const MOST_STATES: usize = 32;
/// Addresses of one DNAT range that are listed.
const LARGEST_RANGE: Value = 256;

/// What a rule system does with the packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// DNAT targets.
    pub backends: BTreeSet<SocketAddr>,
    /// It may be rejected.
    pub reject: bool,
    /// It may be dropped.
    pub drop: bool,
    /// Where the backends stand, else the drop or reject.
    pub place: String,
}

impl Fate {
    /// Adds what another walk found.
    pub fn merge(&mut self, other: Fate) {
        if self.place.is_empty() || (self.backends.is_empty() && !other.backends.is_empty()) {
            self.place = other.place;
        }
        self.backends.extend(other.backends);
        self.reject |= other.reject;
        self.drop |= other.drop;
    }
}

/// Result of a walk.
#[derive(Debug, Default)]
pub struct Walked {
    /// By rule system.
    pub fates: BTreeMap<Mode, Fate>,
    /// What was not understood on the way and might change the answer.
    pub doubts: BTreeSet<String>,
}

/// Walks the packet as it comes from a Pod or from outside, and as it comes from the machine itself.
pub fn walk(ruleset: &Ruleset, elements: &dyn Elements, packet: &Packet) -> Walked {
    let mut walker = Walker {
        ruleset,
        elements,
        packet,
        walked: Walked::default(),
        looked: 0,
        reach: Reach::new(ruleset),
    };
    let onward = if packet.local {
        NfHook::Input
    } else {
        NfHook::Forward
    };
    for hooks in [[NfHook::Prerouting, onward].as_slice(), &[NfHook::Output]] {
        let mut states = BTreeSet::from([State::default()]);
        for hook in hooks {
            states = walker.hook(*hook, states);
        }
    }
    if walker.looked > LARGEST_WALK {
        walker.doubt("more rules than are followed");
    }
    walker.walked
}

/// What is known about the way to a rule.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// A rule on it asked for this destination.
    for_it: bool,
    /// The chain in which that rule stands.
    asked: Option<At>,
    /// The chain that it led to: the one of the Service.
    place: Option<At>,
    depth: usize,
    nat: bool,
}

impl Way {
    /// After a rule of this chain that asked for the destination.
    fn asking(self, at: At) -> Self {
        Way {
            for_it: true,
            asked: self.asked.or(Some(at)),
            ..self
        }
    }

    /// Into another chain.
    fn into(self, to: At) -> Self {
        Way {
            place: self.place.or(self.for_it.then_some(to)),
            depth: self.depth + 1,
            ..self
        }
    }
}

/// How packets leave a chain.
#[derive(Default)]
struct Left {
    /// They go on in the caller, or meet the policy.
    fell: BTreeSet<State>,
    /// They are done with the base chain.
    accepted: BTreeSet<State>,
}

struct Walker<'a> {
    ruleset: &'a Ruleset,
    elements: &'a dyn Elements,
    packet: &'a Packet,
    walked: Walked,
    looked: u64,
    reach: Reach<'a>,
}

impl Walker<'_> {
    /// All base chains at a hook, in the order of their priorities.
    fn hook(&mut self, hook: NfHook, mut states: BTreeSet<State>) -> BTreeSet<State> {
        let ruleset = self.ruleset;
        let mut bases: Vec<(i32, bool, At)> = Vec::new();
        for (t, table) in ruleset.tables.iter().enumerate() {
            if !table.family.routes(self.packet.v6) {
                continue;
            }
            for (c, chain) in table.chains.iter().enumerate() {
                if let Some(base) = chain.base.filter(|base| base.hook == Some(hook)) {
                    bases.push((base.priority, base.nat, (t, c)));
                }
            }
        }
        bases.sort_unstable();
        // Which of two NAT chains of the same priority comes first cannot be read: each is tried first.
        let mut before = (i32::MIN, BTreeSet::new());
        for (priority, nat, at) in bases {
            if before.0 != priority {
                before = (priority, states.clone());
            }
            // Source NAT happens there, which this is not about.
            if nat && matches!(hook, NfHook::Input | NfHook::Postrouting) {
                continue;
            }
            let (tracked, untracked): (BTreeSet<State>, BTreeSet<State>) = states
                .iter()
                .copied()
                .partition(|state| !nat || !state.untracked);
            let entering = if nat {
                before
                    .1
                    .iter()
                    .copied()
                    .filter(|state| !state.untracked)
                    .collect()
            } else {
                tracked.clone()
            };
            let way = Way {
                for_it: false,
                asked: None,
                place: None,
                depth: 0,
                nat,
            };
            let left = self.chain(at, entering, way);
            let mut next = left.accepted;
            let dropped = ruleset.tables[at.0].chains[at.1]
                .base
                .is_some_and(|base| base.policy_drop);
            if !dropped {
                next.extend(left.fell);
            }
            if nat {
                // Nothing is left for the next hook where an earlier chain of this priority translates everything.
                next.retain(|_| !tracked.is_empty());
            }
            next.extend(untracked);
            states = next;
        }
        states
    }

    fn chain(&mut self, at: At, states: BTreeSet<State>, way: Way) -> Left {
        let mut left = Left::default();
        if states.is_empty() {
            return left;
        }
        if way.depth > DEEPEST {
            self.doubt("jumps deeper than are followed");
            left.fell = states;
            return left;
        }
        let ruleset = self.ruleset;
        let Some(chain) = ruleset.tables.get(at.0).and_then(|t| t.chains.get(at.1)) else {
            left.fell = states;
            return left;
        };
        let mut here = states;
        for rule in &chain.rules {
            if here.is_empty() || self.looked > LARGEST_WALK {
                break;
            }
            self.looked += 1;
            let mut next = BTreeSet::new();
            self.rule(at, &rule.steps, here, way, &mut next, &mut left);
            here = bounded(next);
        }
        left.fell.extend(here);
        left.fell = bounded(std::mem::take(&mut left.fell));
        left.accepted = bounded(std::mem::take(&mut left.accepted));
        left
    }

    /// One rule: `next` receives those that go on with the next rule.
    fn rule(
        &mut self,
        at: At,
        steps: &[Step],
        states: BTreeSet<State>,
        mut way: Way,
        next: &mut BTreeSet<State>,
        left: &mut Left,
    ) {
        let mut here = states;
        let mut unknown = None;
        for step in steps {
            match step {
                Step::Test(test) => {
                    let mut passed = BTreeSet::new();
                    for state in here {
                        let view = View {
                            packet: self.packet,
                            state,
                            elements: self.elements,
                        };
                        match view.test(test) {
                            Truth::Yes => {
                                passed.insert(state);
                            }
                            Truth::No => {
                                next.insert(state);
                            }
                            Truth::Maybe => {
                                passed.insert(state);
                                next.insert(state);
                            }
                            Truth::Unknown(what) => {
                                unknown = Some(what);
                                passed.insert(state);
                                next.insert(state);
                            }
                        }
                    }
                    here = passed;
                    if here.is_empty() {
                        return;
                    }
                    if asks_for(test, self.packet, &here) {
                        way = way.asking(at);
                    }
                }
                Step::Effect(effect) => {
                    here = here
                        .into_iter()
                        .map(|state| changed(state, *effect, way.for_it))
                        .collect();
                }
                Step::Verdict(verdict) => {
                    if let Some(what) = unknown.take()
                        && self.matters(at.0, verdict, way)
                    {
                        self.doubt_at(at, &what);
                    }
                    self.verdict(at, verdict, here, way, next, left);
                    return;
                }
            }
        }
        next.extend(here);
    }

    fn verdict(
        &mut self,
        at: At,
        verdict: &Verdict,
        here: BTreeSet<State>,
        way: Way,
        next: &mut BTreeSet<State>,
        left: &mut Left,
    ) {
        match verdict {
            Verdict::Accept | Verdict::Snat => left.accepted.extend(here),
            Verdict::Return => left.fell.extend(here),
            Verdict::Drop => self.gone(at, way, |fate| fate.drop = true),
            Verdict::Reject => self.gone(at, way, |fate| fate.reject = true),
            Verdict::Jump(chain) => {
                let inner = self.chain((at.0, *chain), here, way.into((at.0, *chain)));
                left.accepted.extend(inner.accepted);
                next.extend(inner.fell);
            }
            Verdict::Goto(chain) => {
                let inner = self.chain((at.0, *chain), here, way.into((at.0, *chain)));
                left.accepted.extend(inner.accepted);
                left.fell.extend(inner.fell);
            }
            Verdict::Map { key, set } => self.map(at, key, *set, here, way, next, left),
            Verdict::Dnat(dnat) => {
                if !self.dnat(at, dnat, way) {
                    next.extend(here);
                }
            }
            Verdict::Redirect => self.doubt_at(at, "redirect to an address of this machine"),
            Verdict::Queue => {
                if way.nat || way.for_it {
                    self.doubt_at(at, "a program decides (queue)");
                }
                left.accepted.extend(here);
            }
            Verdict::Unknown(what) => {
                if way.nat || way.for_it {
                    self.doubt_at(at, &format!("target «{what}»"));
                }
                left.accepted.extend(here.iter().copied());
                next.extend(here);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a verdict's context and its key")]
    fn map(
        &mut self,
        at: At,
        key: &[Operand],
        set: usize,
        here: BTreeSet<State>,
        mut way: Way,
        next: &mut BTreeSet<State>,
        left: &mut Left,
    ) {
        let elements = match self.elements.of(set) {
            Ok(elements) => elements,
            Err(why) => {
                if way.nat || way.for_it {
                    self.doubt(&why);
                }
                next.extend(here);
                return;
            }
        };
        if key
            .iter()
            .any(|operand| is_destination(operand, self.packet))
        {
            way = way.asking(at);
        }
        for state in here {
            let view = View {
                packet: self.packet,
                state,
                elements: self.elements,
            };
            let found = view.lookup(key, &elements);
            let alone = BTreeSet::from([state]);
            if !found.is_exhaustive(key) {
                next.insert(state);
            }
            for element in found.sure.into_iter().chain(found.possible) {
                match &element.data {
                    Data::Verdict(Some(verdict)) => {
                        self.verdict(at, verdict, alone.clone(), way, next, left);
                    }
                    Data::Verdict(None) | Data::None | Data::Bytes(_) => next.extend(&alone),
                }
            }
        }
    }

    /// A drop or reject.
    fn gone(&mut self, at: At, way: Way, note: impl FnOnce(&mut Fate)) {
        if !way.for_it {
            return;
        }
        let place = self.place(way.asked.unwrap_or(at));
        let fate = self.fate(at);
        note(fate);
        if fate.place.is_empty() {
            fate.place = place;
        }
    }

    /// Notes the targets. False if the packet may go on untranslated, because a map has no element for it.
    fn dnat(&mut self, at: At, dnat: &Dnat, way: Way) -> bool {
        match self.targets(dnat) {
            Ok((targets, sure)) => {
                if !targets.is_empty() {
                    let place = self.place(way.place.unwrap_or(at));
                    let fate = self.fate(at);
                    if fate.backends.is_empty() {
                        fate.place = place;
                    }
                    fate.backends.extend(targets);
                }
                sure
            }
            Err(why) => {
                self.doubt_at(at, &why);
                true
            }
        }
    }

    fn fate(&mut self, at: At) -> &mut Fate {
        let mode = self.ruleset.tables[at.0].mode;
        self.walked.fates.entry(mode).or_default()
    }

    /// All targets that a DNAT can choose, and whether it has one in any case.
    fn targets(&self, dnat: &Dnat) -> Result<(Vec<SocketAddr>, bool), String> {
        let mut sure = true;
        let addresses = match &dnat.addr {
            None => self.packet.daddr.iter().map(|a| (*a, *a)).collect(),
            Some(pair) => self.choices(pair, width(dnat.v6).into(), &mut sure)?,
        };
        let ports = match &dnat.port {
            None => vec![(self.packet.dport.into(), self.packet.dport.into())],
            Some(pair) => self.choices(pair, 2, &mut sure)?,
        };
        // Address and port of the same map element belong together.
        let paired = match (&dnat.addr, &dnat.port) {
            (
                Some((Source::Map { key, set, .. }, _)),
                Some((
                    Source::Map {
                        key: port_key,
                        set: port_set,
                        ..
                    },
                    _,
                )),
            ) => (key, set) == (port_key, port_set) && addresses.len() == ports.len(),
            _ => false,
        };
        let mut targets = Vec::new();
        for (i, (first, last)) in addresses.iter().enumerate() {
            if last.saturating_sub(*first) >= LARGEST_RANGE {
                return Err("dnat to a large range of addresses".into());
            }
            let ports = if paired { &ports[i..=i] } else { &ports[..] };
            for (low, high) in ports {
                if high.saturating_sub(*low) >= LARGEST_RANGE {
                    return Err("dnat to a large range of ports".into());
                }
                for address in *first..=*last {
                    let ip = ip(address, dnat.v6);
                    targets.extend((*low..=*high).map(|port| SocketAddr::new(ip, port as u16)));
                }
            }
        }
        Ok((targets, sure))
    }

    /// Ranges that a pair of sources can yield; clears `sure` where it may yield none.
    fn choices(
        &self,
        pair: &(Source, Source),
        length: usize,
        sure: &mut bool,
    ) -> Result<Vec<(Value, Value)>, String> {
        match pair {
            (Source::Const(from), Source::Const(to)) => Ok(vec![(*from, *to)]),
            (
                Source::Map { key, set, offset },
                Source::Map {
                    offset: offset_to, ..
                },
            ) => {
                let elements = self.elements.of(*set).map_err(|why| why.to_string())?;
                let view = View {
                    packet: self.packet,
                    state: State::default(),
                    elements: self.elements,
                };
                let found = view.lookup(key, &elements);
                *sure &= found.is_exhaustive(key);
                let at = |bytes: &[u8], offset: usize| {
                    bytes.get(offset..offset + length).map(|b| number(b, false))
                };
                found
                    .sure
                    .into_iter()
                    .chain(found.possible)
                    .map(|element| match &element.data {
                        Data::Bytes(bytes) => at(bytes, *offset).zip(at(bytes, *offset_to)),
                        Data::None | Data::Verdict(_) => None,
                    })
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| "dnat to a map whose data is too short".to_owned())
            }
            _ => Err("dnat to a target that is not read".to_owned()),
        }
    }

    /// Whether a rule that was understood in part could change the answer.
    fn matters(&mut self, table: usize, verdict: &Verdict, way: Way) -> bool {
        match verdict {
            _ if way.for_it => true,
            Verdict::Jump(chain) | Verdict::Goto(chain) if way.nat => {
                self.reach.leads_to_dnat((table, *chain))
            }
            _ => way.nat,
        }
    }

    fn place(&self, at: At) -> String {
        let table = &self.ruleset.tables[at.0];
        format!("{}/{}", table.title(), table.chains[at.1].name)
    }

    fn doubt_at(&mut self, at: At, what: &str) {
        let place = self.place(at);
        let mode = self.ruleset.tables[at.0].mode;
        self.doubt(&format!("{mode} {place}: {what}"));
    }

    fn doubt(&mut self, what: &str) {
        const MOST: usize = 16;
        if self.walked.doubts.len() < MOST {
            self.walked.doubts.insert(what.to_owned());
        }
    }
}

/// Whether this operand is what makes a rule one for the destination asked about.
fn is_destination(operand: &Operand, packet: &Packet) -> bool {
    match operand.field {
        Field::Daddr | Field::CtOrigDaddr => !packet.node_port,
        Field::Dport | Field::CtOrigDport => packet.node_port,
        Field::Header { base: 1, offset } => {
            super::nft::expr::header_fields(Some(packet.v6), 1, offset, operand.width)
                .iter()
                .any(|part| part.field == Field::Daddr)
                && !packet.node_port
        }
        _ => false,
    }
}

/// Whether a test that was passed asked for the destination.
fn asks_for(test: &Test, packet: &Packet, passed: &BTreeSet<State>) -> bool {
    match test {
        Test::Range {
            operand,
            not: false,
            ranges,
        } if operand.field == Field::Mark => {
            // A mark that a rule for this destination set carries the question on.
            operand.mask != 0
                && !ranges.contains(operand.of(0))
                && passed.iter().all(|state| state.marked_for_it)
        }
        Test::Range {
            operand,
            not: false,
            ranges,
        } => {
            let everything = ranges
                .as_slice()
                .any(|(from, to)| from == 0 && to >= ones(operand.width));
            is_destination(operand, packet) && !everything
        }
        Test::Lookup {
            key, not: false, ..
        } => key.iter().any(|operand| is_destination(operand, packet)),
        _ => false,
    }
}

fn changed(state: State, effect: Effect, for_it: bool) -> State {
    match effect {
        Effect::Mark { keep, xor } => State {
            mark: (state.mark & keep) ^ xor,
            hidden: state.hidden & keep,
            marked_for_it: state.marked_for_it || for_it,
            ..state
        },
        Effect::MarkUnknown => State {
            mark: 0,
            hidden: u32::MAX,
            ..state
        },
        Effect::Notrack => State {
            untracked: true,
            ..state
        },
    }
}

/// Too many different marks become an unknown one.
fn bounded(states: BTreeSet<State>) -> BTreeSet<State> {
    if states.len() <= MOST_STATES {
        return states;
    }
    states
        .into_iter()
        .map(|state| State {
            mark: 0,
            hidden: u32::MAX,
            ..state
        })
        .collect()
}

/// An address from its number.
pub fn ip(value: Value, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(value))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(value as u32))
    }
}
