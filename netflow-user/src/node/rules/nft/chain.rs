//! Chains (`enum nft_chain_attributes`, v6.18).

use super::super::nl::Attributes;
use super::super::ruleset::{Base, Chain, Family, Ruleset};
use super::Index;
use crate::model::record::NfHook;

const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const TYPE: u16 = 7;
const COUNTERS: u16 = 8;
const HOOK_NUM: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const NF_DROP: u32 = 0;

/// Adds a chain.
pub fn decode(
    nfproto: u8,
    attributes: Attributes<'_>,
    ruleset: &mut Ruleset,
    index: &mut Index,
    dormant: &[usize],
) {
    let Some(at) = index.table(nfproto, attributes.text(TABLE)) else {
        return;
    };
    let (Some(table), Some(name)) = (ruleset.tables.get_mut(at), attributes.text(NAME)) else {
        return;
    };
    let base = attributes
        .nested(HOOK)
        .filter(|_| !dormant.contains(&at))
        .and_then(|hook| base(table.family, hook, attributes));
    index.chains.insert((at, name.clone()), table.chains.len());
    table.chains.push(Chain {
        name,
        base,
        rules: Vec::new(),
    });
}

fn base(family: Family, hook: Attributes<'_>, chain: Attributes<'_>) -> Option<Base> {
    let number = hook.be32(HOOK_NUM)?;
    Some(Base {
        hook: match (family, number) {
            (Family::Netdev, _) => None,
            (_, 0) => Some(NfHook::Prerouting),
            (_, 1) => Some(NfHook::Input),
            (_, 2) => Some(NfHook::Forward),
            (_, 3) => Some(NfHook::Output),
            (_, 4) => Some(NfHook::Postrouting),
            // NF_INET_INGRESS
            _ => None,
        },
        priority: hook.be32(HOOK_PRIORITY)?.cast_signed(),
        policy_drop: chain.be32(POLICY) == Some(NF_DROP),
        nat: chain.text(TYPE).as_deref() == Some("nat"),
        packets: chain
            .nested(COUNTERS)
            .and_then(|counters| counters.be64(COUNTER_PACKETS)),
    })
}
