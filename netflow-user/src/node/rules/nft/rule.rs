//! Rules (`enum nft_rule_attributes`, v6.18).

use super::super::nl::Attributes;
use super::super::ruleset::{Rule, Ruleset};
use super::{Index, expr};
use crate::node::netlink::text;

const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
const USERDATA: u16 = 7;

/// Appends a rule to its chain: the kernel dumps them in order.
pub fn decode(
    nfproto: u8,
    attributes: Attributes<'_>,
    ruleset: &mut Ruleset,
    index: &Index,
    compat: &mut [bool],
) {
    let Some(table) = index.table(nfproto, attributes.text(TABLE)) else {
        return;
    };
    let chain = attributes
        .text(CHAIN)
        .and_then(|name| index.chain(table, name));
    let Some(chain) = chain else { return };
    let Some(family) = ruleset.tables.get(table).map(|t| t.family) else {
        return;
    };
    let decoded = expr::decode(
        family,
        attributes.nested(EXPRESSIONS).unwrap_or_default(),
        &expr::Names {
            index,
            table,
            sets: &ruleset.sets,
        },
    );
    if let Some(compat) = compat.get_mut(table) {
        *compat |= decoded.compat;
    }
    let rule = Rule {
        handle: attributes.be64(HANDLE).unwrap_or(0),
        comment: attributes
            .get(USERDATA)
            .and_then(comment)
            .or(decoded.comment),
        packets: decoded.packets,
        steps: decoded.steps.into(),
    };
    if let Some(chain) = ruleset
        .tables
        .get_mut(table)
        .and_then(|t| t.chains.get_mut(chain))
    {
        chain.rules.push(rule);
    }
}

/// The comment in user data, which nft writes as type, length, value; type 0 is the comment for rules and elements.
pub fn comment(mut data: &[u8]) -> Option<Box<str>> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value).into());
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_in_user_data() {
        assert_eq!(comment(&[0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment(&[7, 1, 9, 0, 2, b'x', 0]).as_deref(), Some("x"));
        assert_eq!(comment(&[0, 9, b'a']), None);
        assert_eq!(comment(&[]), None);
    }
}
