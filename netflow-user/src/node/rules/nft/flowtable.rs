//! Flowtables (`enum nft_flowtable_attributes`, v6.18).

use super::super::nl::Attributes;
use super::super::ruleset::Ruleset;
use super::Index;
use crate::model::node::Flowtable;
use crate::node::netlink;

const TABLE: u16 = 1;
const NAME: u16 = 2;
const HOOK: u16 = 3;
const FLAGS: u16 = 7;
const HOOK_DEVICES: u16 = 3;
const DEVICE_NAME: u16 = 1;
/// `NFT_FLOWTABLE_HW_OFFLOAD`.
const HARDWARE: u32 = 1;

/// Adds a flowtable.
pub fn decode(family: u8, attributes: Attributes<'_>, ruleset: &mut Ruleset, index: &Index) {
    let table = index.table(family, attributes.text(TABLE));
    let table = table.and_then(|at| ruleset.tables.get(at));
    let (Some(table), Some(name)) = (table, attributes.text(NAME)) else {
        return;
    };
    let devices = attributes.nested(HOOK).and_then(|h| h.nested(HOOK_DEVICES));
    let names = devices.into_iter().flatten();
    ruleset.flowtables.push(Flowtable {
        table: table.title(),
        name,
        devices: names
            .filter(|(kind, _)| *kind == DEVICE_NAME)
            .map(|(_, name)| netlink::text(name))
            .collect(),
        hardware: attributes.be32(FLAGS).unwrap_or(0) & HARDWARE != 0,
    });
}
