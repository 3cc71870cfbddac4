//! Sets, maps and their elements (`enum nft_set_attributes`, `enum nft_set_elem_attributes`, v6.18).

use super::super::nl::{Attributes, Dumps, Get, NlError};
use super::super::ruleset::{Data, Element, Family, Ruleset, Set, Table};
use super::{Index, expr, rule};
use std::rc::Rc;

const TABLE: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_LEN: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LEN: u16 = 7;
const ANONYMOUS: u32 = 1;
const INTERVAL: u32 = 4;
/// `NFT_DATA_VERDICT`.
const VERDICTS: u32 = 0xffff_ff00;

/// Adds a set, without its elements.
pub fn decode(family: u8, attributes: Attributes<'_>, ruleset: &mut Ruleset, index: &mut Index) {
    let (Some(table), Some(name)) = (
        index.table(family, attributes.text(TABLE)),
        attributes.text(NAME),
    ) else {
        return;
    };
    let flags = attributes.be32(FLAGS).unwrap_or(0);
    index.sets.insert((table, name.clone()), ruleset.sets.len());
    ruleset.sets.push(Set {
        table,
        name,
        anonymous: flags & ANONYMOUS != 0,
        interval: flags & INTERVAL != 0,
        key_len: attributes.be32(KEY_LEN).unwrap_or(0) as usize,
        data_len: attributes.be32(DATA_LEN).unwrap_or(0) as usize,
        verdicts: attributes.be32(DATA_TYPE) == Some(VERDICTS),
    });
}

/// Reads the elements of one set.
pub fn elements(
    netlink: &mut dyn Dumps,
    table: &Table,
    set: &Set,
    index: &Index,
) -> Result<Rc<[Element]>, NlError> {
    const LIST_TABLE: u16 = 1;
    const LIST_SET: u16 = 2;
    let mut raw = Vec::new();
    netlink.dump(
        Get::SetElem,
        nfproto(table.family),
        &[(LIST_TABLE, &table.name), (LIST_SET, &set.name)],
        &mut |_, attributes| list(attributes, set.table, index, &mut raw),
    )?;
    Ok(if set.interval {
        intervals(raw, set.key_len)
    } else {
        raw.into_iter().map(|raw| raw.element).collect()
    })
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Arp => 3,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

/// An element as dumped: an interval stands in two of them, unless it has its end in itself.
struct Raw {
    element: Element,
    ends: bool,
}

fn list(attributes: Attributes<'_>, table: usize, index: &Index, out: &mut Vec<Raw>) {
    const LIST_ELEMENTS: u16 = 3;
    let Some(elements) = attributes.nested(LIST_ELEMENTS) else {
        return;
    };
    out.extend(
        elements
            .into_iter()
            .map(|(_, element)| one(Attributes(element), table, index)),
    );
}

fn one(attributes: Attributes<'_>, table: usize, index: &Index) -> Raw {
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const ELEM_FLAGS: u16 = 3;
    const USERDATA: u16 = 6;
    const EXPR: u16 = 7;
    const KEY_END: u16 = 10;
    const EXPRESSIONS: u16 = 11;
    const INTERVAL_END: u32 = 1;
    const DATA_VALUE: u16 = 1;
    const DATA_VERDICT: u16 = 2;

    let value = |kind| {
        attributes
            .nested(kind)
            .and_then(|data| data.get(DATA_VALUE))
            .map(Box::from)
    };
    let data = match attributes.nested(DATA) {
        None => Data::None,
        Some(data) => match data.nested(DATA_VERDICT) {
            Some(verdict) => Data::Verdict(expr::verdict(verdict, table, index)),
            None => Data::Bytes(data.get(DATA_VALUE).unwrap_or_default().into()),
        },
    };
    let packets = attributes
        .nested(EXPR)
        .and_then(expr::counter_of)
        .or_else(|| {
            attributes
                .nested(EXPRESSIONS)?
                .into_iter()
                .find_map(|(_, expression)| expr::counter_of(Attributes(expression)))
        });
    Raw {
        ends: attributes.be32(ELEM_FLAGS).unwrap_or(0) & INTERVAL_END != 0,
        element: Element {
            from: value(KEY).unwrap_or_default(),
            to: value(KEY_END),
            data,
            comment: attributes.get(USERDATA).and_then(rule::comment),
            packets,
        },
    }
}

/// Joins beginnings and ends. An end is exclusive; an interval without one reaches to the highest key.
fn intervals(mut raw: Vec<Raw>, key_len: usize) -> Rc<[Element]> {
    // An end sorts before a beginning with the same key.
    raw.sort_by(|a, b| (&a.element.from, !a.ends).cmp(&(&b.element.from, !b.ends)));
    let ends: Vec<Option<Box<[u8]>>> = (1..=raw.len())
        .map(|next| raw.get(next).map(|raw| before(&raw.element.from)))
        .collect();
    raw.into_iter()
        .zip(ends)
        .filter(|(raw, _)| !raw.ends)
        .map(|(raw, end)| {
            let mut element = raw.element;
            if element.to.is_none() && !element.from.is_empty() {
                element.to = Some(end.unwrap_or_else(|| vec![0xff; key_len].into()));
            }
            element
        })
        .collect()
}

/// The key before this one.
fn before(key: &[u8]) -> Box<[u8]> {
    let mut key: Box<[u8]> = key.into();
    for byte in key.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(key: u16, ends: bool) -> Raw {
        Raw {
            ends,
            element: Element {
                from: key.to_be_bytes().into(),
                to: None,
                data: Data::None,
                comment: None,
                packets: None,
            },
        }
    }

    #[test]
    fn intervals_from_beginnings_and_ends() {
        // { 80, 90-100, 65000-65535 } as the kernel dumps it, with nft's closing element at 0
        let dump = vec![
            raw(65000, false),
            raw(101, true),
            raw(90, false),
            raw(81, true),
            raw(80, false),
            raw(0, true),
        ];
        let found: Vec<(u16, u16)> = intervals(dump, 2)
            .iter()
            .map(|e| {
                let number = |b: &[u8]| u16::from_be_bytes([b[0], b[1]]);
                (number(&e.from), number(e.to.as_deref().unwrap_or_default()))
            })
            .collect();
        assert_eq!(found, [(80, 80), (90, 100), (65000, 65535)]);
    }

    #[test]
    fn adjacent_intervals() {
        // 1-4 and 5-9: the end of the first and the beginning of the second have the same key
        let dump = vec![raw(1, false), raw(5, false), raw(5, true), raw(10, true)];
        let found: Vec<Option<Box<[u8]>>> =
            intervals(dump, 2).iter().map(|e| e.to.clone()).collect();
        assert_eq!(found, [Some([0, 4].into()), Some([0, 9].into())]);
    }

    #[test]
    fn garbage_is_no_element_of_consequence() {
        for len in 0..64_u32 {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 251) as u8).collect();
            let mut out = Vec::new();
            list(Attributes(&bytes), 0, &Index::default(), &mut out);
            intervals(out, 4);
        }
    }
}
