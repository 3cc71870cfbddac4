//! Tables and the counters that they name (`enum nft_table_attributes`, `enum nft_object_attributes`, v6.18).

use super::super::nl::Attributes;
use super::super::ruleset::{Family, Mode, Ruleset, Table};
use super::Index;

const NAME: u16 = 1;
const FLAGS: u16 = 2;
const DORMANT: u32 = 1;

/// Adds a table. A dormant one keeps its chains but no hook.
pub fn decode(
    nfproto: u8,
    attributes: Attributes<'_>,
    ruleset: &mut Ruleset,
    index: &mut Index,
    dormant: &mut Vec<usize>,
) {
    // ARP has no addresses and ports that could be asked about.
    let Some(family) = Family::from_nfproto(nfproto).filter(|f| *f != Family::Arp) else {
        return;
    };
    let Some(name) = attributes.text(NAME) else {
        return;
    };
    let at = ruleset.tables.len();
    if attributes.be32(FLAGS).unwrap_or(0) & DORMANT != 0 {
        dormant.push(at);
    }
    index.tables.insert((nfproto, name.clone()), at);
    ruleset.tables.push(Table {
        mode: Mode::Nftables,
        family,
        name,
        chains: Vec::new(),
    });
}

/// Remembers the packets of a named counter.
pub fn decode_counter(family: u8, attributes: Attributes<'_>, index: &mut Index) {
    const OBJ_TABLE: u16 = 1;
    const OBJ_NAME: u16 = 2;
    const OBJ_TYPE: u16 = 3;
    const OBJ_DATA: u16 = 4;
    const TYPE_COUNTER: u32 = 1;
    const COUNTER_PACKETS: u16 = 2;
    if attributes.be32(OBJ_TYPE) != Some(TYPE_COUNTER) {
        return;
    }
    let packets = attributes
        .nested(OBJ_DATA)
        .and_then(|data| data.be64(COUNTER_PACKETS));
    let table = index.table(family, attributes.text(OBJ_TABLE));
    if let (Some(table), Some(name), Some(packets)) = (table, attributes.text(OBJ_NAME), packets) {
        index.counters.insert((table, name), packets);
    }
}

/// iptables-nft is told by its table names together with expressions or base chains that only it writes.
pub fn set_mode(table: &mut Table, compat: bool) {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let family = matches!(table.family, Family::Ip | Family::Ip6);
    let builtin = |name: &str| CHAINS.contains(&name);
    if table.mode == Mode::Nftables
        && family
        && TABLES.contains(&table.name.as_str())
        && (compat
            || table
                .chains
                .iter()
                .any(|c| c.base.is_some() && builtin(&c.name)))
    {
        table.mode = Mode::IptablesNft;
    }
}
