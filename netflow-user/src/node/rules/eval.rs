//! Whether a test holds for a packet of which not everything is known.

use super::nft::expr::header_fields;
use super::ruleset::{Element, Elements, Field, Operand, RTN_LOCAL, Test, Value, ct_state, number};
use crate::model::Proto;
use std::rc::Rc;

/// Answer of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It depends on what is free in the packet: the source, the interface, chance.
    Maybe,
    /// It was not understood; the text says what.
    Unknown(Rc<str>),
}

impl Truth {
    fn of(holds: bool) -> Self {
        if holds { Truth::Yes } else { Truth::No }
    }

    fn negate(self, not: bool) -> Self {
        match self {
            Truth::Yes if not => Truth::No,
            Truth::No if not => Truth::Yes,
            other => other,
        }
    }
}

/// The first packet of a connection to a Service address, from anywhere.
#[derive(Debug, Clone)]
pub struct Packet {
    /// IPv6.
    pub v6: bool,
    /// What its destination may be: the VIP, or for a NodePort every address of this machine.
    pub daddr: Vec<Value>,
    /// The destination is an address of this machine.
    pub local: bool,
    /// Destination port.
    pub dport: u16,
    /// Protocol.
    pub proto: Proto,
    /// Asked for as a NodePort.
    pub node_port: bool,
}

/// What earlier rules did to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct State {
    /// Mark.
    pub mark: u32,
    /// Bits of the mark that are not known.
    pub hidden: u32,
    /// A rule for this very destination set the mark.
    pub marked_for_it: bool,
    /// Conntrack does not look at it: no NAT.
    pub untracked: bool,
}

/// What a field of the packet may be.
enum Sight {
    /// One of these.
    Known(Vec<Value>),
    /// Anything.
    Free,
}

/// The packet at one point of its way.
pub struct View<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// What happened to it before.
    pub state: State,
    /// Where elements of sets come from.
    pub elements: &'a dyn Elements,
}

impl View<'_> {
    /// Whether the test holds.
    pub fn test(&self, test: &Test) -> Truth {
        match test {
            Test::Range {
                operand,
                not,
                ranges,
            } => self
                .operand(operand, &|value| ranges.contains(value))
                .negate(*not),
            Test::Lookup { key, set, not } => match self.elements.of(*set) {
                Ok(elements) => self.lookup(key, &elements).truth().negate(*not),
                Err(why) => Truth::Unknown(why),
            },
            Test::Free(_) => Truth::Maybe,
            Test::Unknown(what) => Truth::Unknown(format!("match «{what}»").into()),
        }
    }

    fn operand(&self, operand: &Operand, holds: &dyn Fn(Value) -> bool) -> Truth {
        let values = match self.sight(operand) {
            Sight::Known(values) => values,
            Sight::Free => return Truth::Maybe,
        };
        let hits = values.iter().filter(|v| holds(**v)).count();
        match hits {
            0 => Truth::No,
            all if all == values.len() => Truth::Yes,
            _ => Truth::Maybe,
        }
    }

    /// Values the operand may have, in the number that rules compare with.
    fn sight(&self, operand: &Operand) -> Sight {
        let field = match operand.field {
            // Bytes of the network header in a table for both IP versions.
            Field::Header { base: 1, offset } => {
                let found = header_fields(Some(self.packet.v6), 1, offset, operand.width);
                match found.as_slice() {
                    [part] => {
                        return match self.field(part.field) {
                            Sight::Known(values) => Sight::Known(
                                values.into_iter().map(|v| operand.of(part.of(v))).collect(),
                            ),
                            Sight::Free => Sight::Free,
                        };
                    }
                    _ => return Sight::Free,
                }
            }
            Field::Mark => {
                return if self.state.hidden & operand.mask as u32 == 0 {
                    Sight::Known(vec![operand.of(self.state.mark.into())])
                } else {
                    Sight::Free
                };
            }
            field => field,
        };
        match self.field(field) {
            Sight::Known(values) => {
                Sight::Known(values.into_iter().map(|v| operand.of(v)).collect())
            }
            Sight::Free => Sight::Free,
        }
    }

    fn field(&self, field: Field) -> Sight {
        /// `IPS_CONFIRMED` and the like: none of them is set for a first packet that was not translated.
        const NEW_STATUS: Value = 0;
        const CT_DIRECTION: u32 = 1;
        const ORIGINAL: Value = 0;
        let packet = self.packet;
        let one = |value: Value| Sight::Known(vec![value]);
        match field {
            Field::Daddr | Field::CtOrigDaddr => Sight::Known(packet.daddr.clone()),
            Field::Proto | Field::CtProto => one(packet.proto.0.into()),
            Field::Dport | Field::CtOrigDport => one(packet.dport.into()),
            Field::NfProto => one(if packet.v6 { 10 } else { 2 }),
            Field::EtherType => one(if packet.v6 { 0x86dd } else { 0x0800 }),
            Field::CtState if self.state.untracked => one(ct_state::UNTRACKED.into()),
            Field::CtState => one(ct_state::NEW.into()),
            Field::CtStatus => one(NEW_STATUS),
            Field::Ct(CT_DIRECTION) => one(ORIGINAL),
            Field::DstType if packet.local => one(RTN_LOCAL),
            // Unicast, unreachable, …: what the routes say; rules ask for «local».
            Field::DstType => Sight::Known(vec![1]),
            Field::Random { modulus: 1, offset } => one(offset.into()),
            // Client ports, its address and interface are free, and so is what has no value here.
            _ => Sight::Free,
        }
    }

    /// Looks the key up.
    pub fn lookup<'e>(&self, key: &[Operand], elements: &'e [Element]) -> Lookup<'e> {
        let mut found = Lookup {
            sure: None,
            possible: Vec::new(),
        };
        let mut rest = None;
        for element in elements {
            if element.from.is_empty() {
                rest = Some(element);
                continue;
            }
            match self.element(key, element) {
                Truth::Yes => {
                    found.sure = Some(element);
                    return found;
                }
                Truth::No => {}
                Truth::Maybe | Truth::Unknown(_) => found.possible.push(element),
            }
        }
        if rest.is_some() && found.possible.is_empty() {
            found.sure = rest;
        } else {
            found.possible.extend(rest);
        }
        found
    }

    fn element(&self, key: &[Operand], element: &Element) -> Truth {
        let mut at = 0;
        let mut truth = Truth::Yes;
        for operand in key {
            let width = usize::from(operand.width);
            let part = |bytes: &[u8]| bytes.get(at..at + width).map(|b| number(b, operand.host));
            let Some(from) = part(&element.from) else {
                return Truth::No;
            };
            let to = match &element.to {
                Some(to) => part(to).unwrap_or(from),
                None => from,
            };
            match self.operand(operand, &|value| from <= value && value <= to) {
                Truth::Yes => {}
                Truth::No => return Truth::No,
                other => truth = other,
            }
            at += width.next_multiple_of(4);
        }
        truth
    }
}

/// What a lookup may find.
pub struct Lookup<'a> {
    /// The element that it finds in any case.
    pub sure: Option<&'a Element>,
    /// Elements that it may find.
    pub possible: Vec<&'a Element>,
}

impl Lookup<'_> {
    fn truth(&self) -> Truth {
        match (self.sure, self.possible.is_empty()) {
            (Some(_), _) => Truth::Yes,
            (None, true) => Truth::of(false),
            (None, false) => Truth::Maybe,
        }
    }

    /// Whether it finds one for every value that a random key can have.
    pub fn is_exhaustive(&self, key: &[Operand]) -> bool {
        if self.sure.is_some() {
            return true;
        }
        let [operand] = key else { return false };
        let Field::Random { modulus, offset } = operand.field else {
            return false;
        };
        let covered: u64 = self
            .possible
            .iter()
            .map(|element| {
                let from = number(&element.from, operand.host);
                let to = element
                    .to
                    .as_ref()
                    .map_or(from, |to| number(to, operand.host));
                let first = from.max(offset.into());
                let last = to.min((Value::from(offset) + Value::from(modulus)).saturating_sub(1));
                (last + 1).saturating_sub(first) as u64
            })
            .sum();
        covered >= u64::from(modulus)
    }
}
