//! The expressions of a rule: a small program over registers, followed symbolically.
//!
//! Registers hold not values but what would be in them ([`Loaded`]); a comparison then becomes a [`Test`] on a field.
//! Attribute numbers: `include/uapi/linux/netfilter/nf_tables.h`, v6.18. Expression types that are not known here become
//! [`Test::Unknown`], because they may end the rule.

use super::super::nl::Attributes;
use super::super::ruleset::{
    Dnat, Effect, Family, Field, Operand, Ranges, Set, SetRef, Source, Step, Test, Value, Verdict,
    number, ones,
};
use super::super::xt;
use super::Index;
use std::rc::Rc;

/// What a rule's expressions say.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Packets of the rule's counter.
    pub packets: Option<u64>,
    /// Comment that stands in an expression.
    pub comment: Option<Box<str>>,
    /// Some expression is an `x_tables` match or target.
    pub compat: bool,
}

/// Names that expressions refer to.
pub struct Names<'a> {
    /// Tables, chains, sets.
    pub index: &'a Index,
    /// The rule's table.
    pub table: usize,
    /// All sets.
    pub sets: &'a [Set],
}

/// Decodes the expressions of a rule.
pub fn decode(family: Family, expressions: Attributes<'_>, names: &Names<'_>) -> Decoded {
    let mut machine = Machine {
        names,
        v6: match family {
            Family::Ip => Some(false),
            Family::Ip6 => Some(true),
            _ => None,
        },
        registers: Default::default(),
        out: Decoded::default(),
    };
    for (_, expression) in expressions {
        machine.expression(Attributes(expression));
    }
    machine.out
}

/// `enum nft_expr_attributes`.
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// `NFT_REG_VERDICT`.
const REG_VERDICT: u32 = 0;
/// 32-bit registers (`NFT_REG32_COUNT` is 20 since v6.18; more are never written).
const WORDS: usize = 20;

/// What a register would hold.
#[derive(Debug, Clone)]
enum Loaded {
    /// A field.
    Field(Operand),
    /// Several fields packed without padding.
    Packed(Rc<[Operand]>),
    /// A constant of the rule.
    Const(Rc<[u8]>),
    /// Data of a map element.
    Map { key: Rc<[Operand]>, set: SetRef },
}

struct Machine<'a> {
    names: &'a Names<'a>,
    /// IP version that the rule is about, as far as known by now.
    v6: Option<bool>,
    /// What each 32-bit register holds, and which word of it.
    registers: [Option<(Loaded, u8)>; WORDS],
    out: Decoded,
}

/// Number of the first 32-bit register: 1 to 4 name 128 bits each, 8 and above 32 bits each.
fn word(register: u32) -> Option<usize> {
    let word = match register {
        1..=4 => (register - 1) * 4,
        8.. => register - 8,
        _ => return None,
    };
    usize::try_from(word).ok().filter(|word| *word < WORDS)
}

impl Machine<'_> {
    fn expression(&mut self, expression: Attributes<'_>) {
        let name = expression.text(EXPR_NAME).unwrap_or_default();
        let data = expression.nested(EXPR_DATA).unwrap_or_default();
        if self.known(&name, data).is_none() {
            self.test(Test::Unknown(name.into()));
        }
    }

    /// `None`: not understood.
    fn known(&mut self, name: &str, data: Attributes<'_>) -> Option<()> {
        match name {
            "payload" => self.payload(data)?,
            "meta" => self.meta(data)?,
            "ct" => self.ct(data)?,
            "cmp" => self.cmp(data)?,
            "range" => self.range(data)?,
            "bitwise" => self.bitwise(data)?,
            "byteorder" => self.byteorder(data)?,
            "lookup" => self.lookup(data)?,
            "immediate" => self.immediate(data)?,
            "numgen" => self.random(data, 1, 2, 4)?,
            "hash" => self.random(data, 2, 4, 6)?,
            "fib" => self.fib(data)?,
            "nat" => self.nat(data)?,
            "redir" => self.verdict(Verdict::Redirect),
            "masq" => self.verdict(Verdict::Snat),
            "reject" => self.verdict(Verdict::Reject),
            "queue" => self.verdict(Verdict::Queue),
            "notrack" => self.out.steps.push(Step::Effect(Effect::Notrack)),
            "counter" => self.out.packets = data.be64(2),
            "objref" => self.object(data)?,
            "match" => self.xt_match(data)?,
            "target" => self.xt_target(data)?,
            // They let some packets through and not others.
            "limit" | "quota" | "connlimit" => self.test(Test::Free(name.into())),
            "dynset" => self.dynset(data),
            // They change nothing that a later test could see.
            "log" | "last" | "dup" | "flow_offload" => {}
            // Loads of things that are neither address nor port.
            "rt" => self.load(data.be32(1)?, Operand::whole(Field::Other("rt"), 4))?,
            "socket" => self.load(data.be32(2)?, Operand::whole(Field::Other("socket"), 4))?,
            "osf" => self.load(data.be32(1)?, Operand::whole(Field::Other("osf"), 16))?,
            "xfrm" => self.load(data.be32(1)?, Operand::whole(Field::Other("ipsec"), 16))?,
            "exthdr" => self.load(data.be32(1)?, Operand::whole(Field::Other("exthdr"), 16))?,
            _ => return None,
        }
        Some(())
    }

    fn test(&mut self, test: Test) {
        self.out.steps.push(Step::Test(test));
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.out.steps.push(Step::Verdict(verdict));
    }

    fn store(&mut self, register: u32, loaded: &Loaded, bytes: usize) -> Option<()> {
        let first = word(register)?;
        for at in 0..bytes.div_ceil(4).max(1) {
            *self.registers.get_mut(first + at)? = Some((loaded.clone(), at as u8));
        }
        Some(())
    }

    fn load(&mut self, register: u32, operand: Operand) -> Option<()> {
        self.store(register, &Loaded::Field(operand), operand.width.into())
    }

    fn at(&self, register: u32) -> Option<&Loaded> {
        match self.registers.get(word(register)?)? {
            Some((loaded, 0)) => Some(loaded),
            _ => None,
        }
    }

    /// The fields that stand, each padded to 32 bits, in `length` bytes from `register` on.
    fn key(&self, register: u32, length: usize) -> Option<Vec<Operand>> {
        let mut at = word(register)?;
        let end = at + length.div_ceil(4);
        let mut key = Vec::new();
        while at < end {
            match self.registers.get(at)? {
                Some((Loaded::Field(operand), 0)) => {
                    key.push(*operand);
                    at += usize::from(operand.width).div_ceil(4).max(1);
                }
                _ => return None,
            }
        }
        Some(key)
    }

    fn payload(&mut self, data: Attributes<'_>) -> Option<()> {
        const SREG: u16 = 5;
        if data.get(SREG).is_some() {
            // writes into the packet
            return None;
        }
        let (register, base, offset, length) =
            (data.be32(1)?, data.be32(2)?, data.be32(3)?, data.be32(4)?);
        let operands = header_fields(self.v6, base, offset, u8::try_from(length).ok()?);
        // Wider than any number that a rule compares.
        if operands.iter().any(|operand| operand.width > 16) {
            return None;
        }
        match operands.as_slice() {
            [operand] => self.load(register, *operand),
            // Fields of whole words are read one by one later, others only together.
            many if many.iter().all(|operand| operand.width % 4 == 0) => {
                let mut at = u32::try_from(word(register)?).ok()? + 8;
                for operand in many {
                    self.load(at, *operand)?;
                    at += u32::from(operand.width) / 4;
                }
                Some(())
            }
            many => self.store(register, &Loaded::Packed(many.into()), length as usize),
        }
    }

    fn meta(&mut self, data: Attributes<'_>) -> Option<()> {
        const MARK: u32 = 3;
        let key = data.be32(2)?;
        if let Some(from) = data.be32(3) {
            if key == MARK {
                let effect = self.mark_of(from);
                self.out.steps.push(Step::Effect(effect));
            }
            return Some(());
        }
        let (field, width) = match key {
            1 => (Field::EtherType, 2),
            MARK => (Field::Mark, 4),
            6 => (Field::IifName, 16),
            7 => (Field::OifName, 16),
            15 => (Field::NfProto, 1),
            16 => (Field::Proto, 1),
            key => (Field::Meta(key), 4),
        };
        self.load(data.be32(1)?, Operand::whole(field, width))
    }

    /// The change that writing this register into the mark makes.
    fn mark_of(&self, register: u32) -> Effect {
        match self.at(register) {
            Some(Loaded::Field(operand)) if operand.field == Field::Mark && operand.host => {
                Effect::Mark {
                    keep: operand.mask as u32,
                    xor: operand.xor as u32,
                }
            }
            Some(Loaded::Const(bytes)) => match bytes.first_chunk() {
                Some(bytes) => Effect::Mark {
                    keep: 0,
                    xor: u32::from_ne_bytes(*bytes),
                },
                None => Effect::MarkUnknown,
            },
            _ => Effect::MarkUnknown,
        }
    }

    fn ct(&mut self, data: Attributes<'_>) -> Option<()> {
        const SREG: u16 = 4;
        const ORIGINAL: u8 = 0;
        if data.get(SREG).is_some() {
            return Some(());
        }
        let key = data.be32(2)?;
        let direction = data.get(3).and_then(|d| d.first().copied());
        let original = direction == Some(ORIGINAL);
        let (field, width) = match key {
            0 => (Field::CtState, 4),
            2 => (Field::CtStatus, 4),
            3 => (Field::CtMark, 4),
            7 => (Field::NfProto, 1),
            8 if original => (Field::CtOrigSaddr, xt::width(self.v6?)),
            9 if original => (Field::CtOrigDaddr, xt::width(self.v6?)),
            10 => (Field::CtProto, 1),
            11 if original => (Field::CtOrigSport, 2),
            12 if original => (Field::CtOrigDport, 2),
            19 if original => (Field::CtOrigSaddr, 4),
            20 if original => (Field::CtOrigDaddr, 4),
            21 if original => (Field::CtOrigSaddr, 16),
            22 if original => (Field::CtOrigDaddr, 16),
            key => (Field::Ct(key), 4),
        };
        self.load(data.be32(1)?, Operand::whole(field, width))
    }

    fn fib(&mut self, data: Attributes<'_>) -> Option<()> {
        const ADDRTYPE: u32 = 3;
        const SADDR: u32 = 1;
        const DADDR: u32 = 1 << 1;
        const PRESENT: u32 = 1 << 5;
        let (result, flags) = (data.be32(2)?, data.be32(3)?);
        let address = flags & (SADDR | DADDR);
        let field = match (result, address) {
            (ADDRTYPE, SADDR) if flags & PRESENT == 0 => Field::SrcType,
            (ADDRTYPE, DADDR) if flags & PRESENT == 0 => Field::DstType,
            _ => Field::Other("fib"),
        };
        self.load(data.be32(1)?, Operand::whole(field, 4))
    }

    fn random(&mut self, data: Attributes<'_>, dreg: u16, modulus: u16, offset: u16) -> Option<()> {
        let field = Field::Random {
            modulus: data.be32(modulus)?,
            offset: data.be32(offset).unwrap_or(0),
        };
        self.load(data.be32(dreg)?, Operand::whole(field, 4))
    }

    fn cmp(&mut self, data: Attributes<'_>) -> Option<()> {
        const VALUE: u16 = 1;
        let (register, op) = (data.be32(1)?, data.be32(2)?);
        let bytes = data.nested(3)?.get(VALUE)?;
        match self.at(register)?.clone() {
            Loaded::Field(operand) => {
                let operand = fit(operand, bytes.len())?;
                let value = operand.number(bytes);
                let max = ones(operand.width);
                let (ranges, not) = match op {
                    0 => (Ranges::only(value), false),
                    1 => (Ranges::only(value), true),
                    2 => (below(value), false),
                    3 => (Ranges::One(0, value), false),
                    4 => (above(value, max), false),
                    5 => (Ranges::One(value, max), false),
                    _ => return None,
                };
                self.compare(operand, ranges, not);
                Some(())
            }
            // One comparison over several fields is all of them at once.
            Loaded::Packed(operands) if op == 0 => {
                let mut rest = bytes;
                for operand in operands.iter() {
                    let (value, tail) = rest.split_at_checked(operand.width.into())?;
                    self.compare(*operand, Ranges::only(operand.number(value)), false);
                    rest = tail;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn range(&mut self, data: Attributes<'_>) -> Option<()> {
        const VALUE: u16 = 1;
        let (register, op) = (data.be32(1)?, data.be32(2)?);
        let (from, to) = (data.nested(3)?.get(VALUE)?, data.nested(4)?.get(VALUE)?);
        let Loaded::Field(operand) = *self.at(register)? else {
            return None;
        };
        let operand = fit(operand, from.len()).filter(|_| to.len() == from.len())?;
        let ranges = Ranges::One(operand.number(from), operand.number(to));
        self.compare(operand, ranges, op == 1);
        Some(())
    }

    fn compare(&mut self, operand: Operand, ranges: Ranges, not: bool) {
        if let (false, Ranges::One(from, to)) = (not, &ranges)
            && from == to
        {
            match (operand.field, *from) {
                (Field::NfProto, 2) | (Field::EtherType, 0x0800) => self.v6 = Some(false),
                (Field::NfProto, 10) | (Field::EtherType, 0x86dd) => self.v6 = Some(true),
                _ => {}
            }
        }
        let test = simplify(operand, ranges, not);
        // nft writes a range as two comparisons.
        if let Some(Step::Test(last)) = self.out.steps.last_mut()
            && let Some(both) = intersection(last, &test)
        {
            *last = both;
            return;
        }
        self.test(test);
    }

    fn bitwise(&mut self, data: Attributes<'_>) -> Option<()> {
        const VALUE: u16 = 1;
        const OP: u16 = 6;
        const MASK_XOR: u32 = 0;
        if data.be32(OP).unwrap_or(MASK_XOR) != MASK_XOR {
            return None;
        }
        let (from, to) = (data.be32(1)?, data.be32(2)?);
        let mask = data.nested(4)?.get(VALUE)?;
        let xor = data.nested(5)?.get(VALUE)?;
        let Loaded::Field(operand) = *self.at(from)? else {
            return None;
        };
        let operand = fit(operand, mask.len()).filter(|_| xor.len() == mask.len())?;
        let (mask, xor) = (operand.number(mask), operand.number(xor));
        self.load(
            to,
            Operand {
                mask: operand.mask & mask,
                xor: (operand.xor & mask) ^ xor,
                ..operand
            },
        )
    }

    fn byteorder(&mut self, data: Attributes<'_>) -> Option<()> {
        const NTOH: u32 = 0;
        let (from, to, op) = (data.be32(1)?, data.be32(2)?, data.be32(3)?);
        let Loaded::Field(operand) = *self.at(from)? else {
            return None;
        };
        self.load(
            to,
            Operand {
                host: op == NTOH,
                ..operand
            },
        )
    }

    fn lookup(&mut self, data: Attributes<'_>) -> Option<()> {
        const INVERT: u32 = 1;
        let set = self.names.index.set(self.names.table, data.text(1)?)?;
        let Set {
            key_len, data_len, ..
        } = *self.names.sets.get(set)?;
        let key = self.key(data.be32(2)?, key_len)?;
        match data.be32(3) {
            None => {
                let not = data.be32(5).unwrap_or(0) & INVERT != 0;
                self.test(Test::Lookup {
                    key: key.into(),
                    set,
                    not,
                });
            }
            Some(REG_VERDICT) => self.verdict(Verdict::Map {
                key: key.into(),
                set,
            }),
            Some(register) => {
                let loaded = Loaded::Map {
                    key: key.into(),
                    set,
                };
                self.store(register, &loaded, data_len)?;
            }
        }
        Some(())
    }

    fn immediate(&mut self, data: Attributes<'_>) -> Option<()> {
        const VALUE: u16 = 1;
        const VERDICT: u16 = 2;
        let (register, value) = (data.be32(1)?, data.nested(2)?);
        if register == REG_VERDICT {
            // NFT_CONTINUE says nothing
            let verdict = verdict(value.nested(VERDICT)?, self.names.table, self.names.index);
            self.out.steps.extend(verdict.map(Step::Verdict));
            return Some(());
        }
        let bytes = value.get(VALUE)?;
        self.store(register, &Loaded::Const(bytes.into()), bytes.len())
    }

    fn nat(&mut self, data: Attributes<'_>) -> Option<()> {
        const DNAT: u32 = 1;
        const IPV6: u32 = 10;
        const NETMAP: u32 = 1 << 6;
        if data.be32(1)? != DNAT {
            self.verdict(Verdict::Snat);
            return Some(());
        }
        if data.be32(7).unwrap_or(0) & NETMAP != 0 {
            self.verdict(Verdict::Unknown("dnat prefix".into()));
            return Some(());
        }
        let v6 = data.be32(2)? == IPV6;
        let pair = |min: u16, max: u16, length: usize| {
            let min = data.be32(min)?;
            let max = data.be32(max).unwrap_or(min);
            Some((self.source(min, length), self.source(max, length)))
        };
        let dnat = Dnat {
            v6,
            addr: pair(3, 4, xt::width(v6).into()),
            port: pair(5, 6, 2),
        };
        self.verdict(Verdict::Dnat(Box::new(dnat)));
        Some(())
    }

    /// Where the value of a NAT in this register comes from.
    fn source(&self, register: u32, length: usize) -> Source {
        let found = word(register).and_then(|at| self.registers.get(at)?.as_ref());
        match found {
            Some((Loaded::Const(bytes), index)) => {
                let at = usize::from(*index) * 4;
                match bytes.get(at..at + length) {
                    Some(bytes) => Source::Const(number(bytes, false)),
                    None => Source::Unknown,
                }
            }
            Some((Loaded::Map { key, set }, index)) => Source::Map {
                key: key.iter().copied().collect(),
                set: *set,
                offset: usize::from(*index) * 4,
            },
            _ => Source::Unknown,
        }
    }

    fn object(&mut self, data: Attributes<'_>) -> Option<()> {
        const COUNTER: u32 = 1;
        const QUOTA: u32 = 2;
        const LIMIT: u32 = 4;
        const CONNLIMIT: u32 = 5;
        match data.be32(1) {
            Some(COUNTER) => {
                let name = data.text(2)?;
                self.out.packets = self.names.index.counter(self.names.table, name);
            }
            Some(QUOTA | LIMIT | CONNLIMIT) => self.test(Test::Free("limit".into())),
            _ => {}
        }
        Some(())
    }

    fn dynset(&mut self, data: Attributes<'_>) {
        const EXPR: u16 = 7;
        const EXPRESSIONS: u16 = 10;
        // With an expression (a rate, a number of connections) it can end the rule.
        if data.get(EXPR).or(data.get(EXPRESSIONS)).is_some() {
            self.test(Test::Free("meter".into()));
        }
    }

    fn xt_match(&mut self, data: Attributes<'_>) -> Option<()> {
        self.out.compat = true;
        let name = data.text(1)?;
        // A match whose revision does not fit 8 bits does not exist.
        let revision = u8::try_from(data.be32(2).unwrap_or(0)).unwrap_or(u8::MAX);
        let decoded = xt::decode_match(self.v6?, &name, revision, data.get(3).unwrap_or_default());
        self.out
            .steps
            .extend(decoded.tests.into_iter().map(Step::Test));
        self.out.comment = self.out.comment.take().or(decoded.comment);
        Some(())
    }

    fn xt_target(&mut self, data: Attributes<'_>) -> Option<()> {
        self.out.compat = true;
        let name = data.text(1)?;
        let revision = u8::try_from(data.be32(2).unwrap_or(0)).unwrap_or(u8::MAX);
        self.out.steps.extend(xt::decode_target(
            self.v6?,
            &name,
            revision,
            data.get(3).unwrap_or_default(),
        ));
        Some(())
    }
}

/// The values below `value`.
fn below(value: Value) -> Ranges {
    match value.checked_sub(1) {
        Some(last) => Ranges::One(0, last),
        None => Ranges::Many([].into()),
    }
}

/// The values above `value`.
fn above(value: Value, max: Value) -> Ranges {
    if value < max {
        Ranges::One(value + 1, max)
    } else {
        Ranges::Many([].into())
    }
}

/// The operand as a constant of `length` bytes is compared with it: the first bytes of the register.
fn fit(operand: Operand, length: usize) -> Option<Operand> {
    let length = u8::try_from(length).ok()?;
    if length == operand.width {
        return Some(operand);
    }
    match operand.field {
        Field::Meta(_) | Field::Ct(_) | Field::Other(_) => {
            Some(Operand::whole(operand.field, length))
        }
        _ if (1..operand.width).contains(&length) && !operand.host => {
            let cut = 8 * (operand.width - length);
            Some(Operand {
                shift: operand.shift + cut,
                width: length,
                mask: operand.mask >> cut,
                xor: operand.xor >> cut,
                ..operand
            })
        }
        _ => None,
    }
}

/// One test for two ranges of the same operand.
fn intersection(one: &Test, other: &Test) -> Option<Test> {
    match (one, other) {
        (
            Test::Range {
                operand,
                not: false,
                ranges: Ranges::One(from, to),
            },
            Test::Range {
                operand: same,
                not: false,
                ranges: Ranges::One(low, high),
            },
        ) if operand == same && from.max(low) <= to.min(high) => Some(Test::Range {
            operand: *operand,
            not: false,
            ranges: Ranges::One(*from.max(low), *to.min(high)),
        }),
        _ => None,
    }
}

/// The first bytes of an address, or a mask of leading ones, become a range over the whole address.
fn simplify(operand: Operand, ranges: Ranges, not: bool) -> Test {
    let width = match operand.field {
        Field::Saddr | Field::Daddr | Field::CtOrigSaddr | Field::CtOrigDaddr => {
            match u32::from(operand.shift) + 8 * u32::from(operand.width) {
                32 => 4,
                128 => 16,
                _ => 0,
            }
        }
        Field::IifName | Field::OifName => 16,
        _ => 0,
    };
    let top = u32::from(operand.shift) + 8 * u32::from(operand.width) == 8 * u32::from(width);
    let hole = ones(operand.width) & !operand.mask;
    let leading = hole & hole.wrapping_add(1) == 0;
    match ranges {
        Ranges::One(from, to)
            if width > 0 && top && leading && operand.xor == 0 && (hole == 0 || from == to) =>
        {
            let low = ones(operand.shift / 8);
            Test::Range {
                operand: Operand::whole(operand.field, width),
                not,
                ranges: Ranges::One(
                    from << operand.shift.min(127),
                    (to | hole) << operand.shift.min(127) | low,
                ),
            }
        }
        ranges => Test::Range {
            operand,
            not,
            ranges,
        },
    }
}

/// The fields that stand in `length` bytes of a header. Bytes that are no field known here stay bytes.
pub fn header_fields(v6: Option<bool>, base: u32, offset: u32, length: u8) -> Vec<Operand> {
    const LINK: u32 = 0;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    let fields: &[(Field, u32, u8)] = match (base, v6) {
        (LINK, _) => &[(Field::EtherType, 12, 2)],
        (NETWORK, Some(false)) => &[
            (Field::Proto, 9, 1),
            (Field::Saddr, 12, 4),
            (Field::Daddr, 16, 4),
        ],
        (NETWORK, Some(true)) => &[
            (Field::Proto, 6, 1),
            (Field::Saddr, 8, 16),
            (Field::Daddr, 24, 16),
        ],
        (TRANSPORT, _) if (offset, length) == (0, 1) => &[(Field::IcmpType, 0, 1)],
        (TRANSPORT, _) => &[
            (Field::Sport, 0, 2),
            (Field::Dport, 2, 2),
            (Field::TcpFlags, 13, 1),
        ],
        _ => &[],
    };
    let bytes = Operand::whole(Field::Header { base, offset }, length);
    let mut found = Vec::new();
    let (mut at, end) = (offset, offset.saturating_add(length.into()));
    while at < end {
        let Some((field, begin, width)) = fields
            .iter()
            .find(|(_, begin, width)| *begin <= at && at < begin + u32::from(*width))
        else {
            return vec![bytes];
        };
        let last = end.min(begin + u32::from(*width));
        let part = (last - at) as u8;
        found.push(Operand {
            shift: 8 * (begin + u32::from(*width) - last) as u8,
            ..Operand::whole(*field, part)
        });
        at = last;
    }
    found
}

/// A verdict with its chain (`enum nft_verdict_attributes`). `None` goes on.
pub fn verdict(attributes: Attributes<'_>, table: usize, index: &Index) -> Option<Verdict> {
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let to = || {
        attributes
            .text(CHAIN)
            .and_then(|name| index.chain(table, name))
    };
    Some(match attributes.be32(CODE)?.cast_signed() {
        -1 | -2 => return None,
        -3 => to().map_or_else(|| Verdict::Unknown("jump".into()), Verdict::Jump),
        -4 => to().map_or_else(|| Verdict::Unknown("goto".into()), Verdict::Goto),
        -5 => Verdict::Return,
        code => match code & 0xff {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            3 => Verdict::Queue,
            _ => Verdict::Unknown(format!("verdict {code}").into()),
        },
    })
}

/// Packets of a counter expression.
pub fn counter_of(expression: Attributes<'_>) -> Option<u64> {
    (expression.text(EXPR_NAME).as_deref() == Some("counter"))
        .then(|| expression.nested(EXPR_DATA)?.be64(2))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(0);
        out.extend(length.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn expression(out: &mut Vec<u8>, name: &str, attributes: &[(u16, Vec<u8>)]) {
        let mut data = Vec::new();
        for (kind, value) in attributes {
            attribute(&mut data, *kind, value);
        }
        let mut both = Vec::new();
        attribute(&mut both, EXPR_NAME, format!("{name}\0").as_bytes());
        attribute(&mut both, EXPR_DATA, &data);
        attribute(out, 1, &both);
    }

    fn be(value: u32) -> Vec<u8> {
        value.to_be_bytes().to_vec()
    }

    fn value(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        attribute(&mut out, 1, bytes);
        out
    }

    fn decoded(family: Family, expressions: &[u8]) -> Decoded {
        let names = Names {
            index: &Index::default(),
            table: 0,
            sets: &[],
        };
        decode(family, Attributes(expressions), &names)
    }

    #[test]
    fn a_prefix_loaded_in_part_is_a_network() {
        // ip daddr 10.96.0.0/16, as nft writes it: two bytes of the address
        let mut rule = Vec::new();
        let load = [(1, be(1)), (2, be(1)), (3, be(16)), (4, be(2))];
        expression(&mut rule, "payload", &load);
        let compare = [(1, be(1)), (2, be(0)), (3, value(&[10, 96]))];
        expression(&mut rule, "cmp", &compare);
        let range = Ranges::One(0x0a60_0000, 0x0a60_ffff);
        let wanted = xt::within(Field::Daddr, 4, range, false);
        assert_eq!(
            decoded(Family::Ip, &rule).steps,
            [Step::Test(wanted.clone())]
        );
        // the same bytes mean something else where the IP version is not known
        assert_ne!(decoded(Family::Inet, &rule).steps, [Step::Test(wanted)]);
    }

    #[test]
    fn ports_compared_in_one_go_are_two_tests() {
        let mut rule = Vec::new();
        let load = [(1, be(1)), (2, be(2)), (3, be(0)), (4, be(4))];
        expression(&mut rule, "payload", &load);
        let compare = [(1, be(1)), (2, be(0)), (3, value(&[0, 53, 0, 80]))];
        expression(&mut rule, "cmp", &compare);
        let steps = decoded(Family::Ip, &rule).steps;
        assert_eq!(
            steps,
            [
                Step::Test(xt::within(Field::Sport, 2, Ranges::only(53), false)),
                Step::Test(xt::within(Field::Dport, 2, Ranges::only(80), false)),
            ]
        );
    }

    #[test]
    fn constants_of_two_lengths_are_not_understood() {
        let unknown = |name: &str| Step::Test(Test::Unknown(name.into()));
        let (short, long) = (value(&[10, 0, 0, 0]), value(&[10, 0, 0, 0, 0, 9]));
        let load = [(1, be(1)), (2, be(1)), (3, be(12)), (4, be(4))];
        let range = [
            (1, be(1)),
            (2, be(0)),
            (3, short.clone()),
            (4, long.clone()),
        ];
        let bitwise = [(1, be(1)), (2, be(1)), (3, be(4)), (4, short), (5, long)];
        for (name, attributes) in [("range", &range[..]), ("bitwise", &bitwise)] {
            let mut rule = Vec::new();
            expression(&mut rule, "payload", &load);
            expression(&mut rule, name, attributes);
            assert_eq!(decoded(Family::Ip, &rule).steps, [unknown(name)]);
        }
    }

    #[test]
    fn an_expression_of_an_unknown_kind_is_an_unknown_test() {
        let mut rule = Vec::new();
        expression(&mut rule, "newer", &[]);
        let steps = decoded(Family::Ip, &rule).steps;
        assert_eq!(steps, [Step::Test(Test::Unknown("newer".into()))]);
    }

    #[test]
    fn no_attribute_makes_it_panic() {
        const NAMES: [&str; 24] = [
            "payload",
            "meta",
            "ct",
            "cmp",
            "range",
            "bitwise",
            "byteorder",
            "lookup",
            "immediate",
            "numgen",
            "hash",
            "fib",
            "nat",
            "redir",
            "counter",
            "objref",
            "match",
            "target",
            "dynset",
            "rt",
            "socket",
            "exthdr",
            "reject",
            "limit",
        ];
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..20_000 {
            let mut rule = Vec::new();
            for _ in 0..=next(5) {
                let mut attributes = Vec::new();
                for kind in 1..9 {
                    let bytes = match next(5) {
                        0 => continue,
                        1 => be(next(40) as u32),
                        2 => be(next(1 << 32) as u32),
                        3 => value(&vec![next(256) as u8; next(20) as usize]),
                        _ => vec![next(256) as u8; next(40) as usize],
                    };
                    attributes.push((kind, bytes));
                }
                expression(&mut rule, NAMES[next(24) as usize], &attributes);
            }
            for family in [Family::Ip, Family::Ip6, Family::Inet] {
                decoded(family, &rule);
            }
            rule.truncate(next(rule.len() as u64 + 1) as usize);
            decoded(Family::Ip, &rule);
        }
    }
}
