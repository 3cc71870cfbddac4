//! Entry to the readers of rules for [`crate::fuzz`]: what they read is then followed, as it is for an answer.

use super::nl::{Attributes, Dumps, Get, NlError};
use super::ruleset::{Elements, Ruleset};
use super::{
    NoElements, firewall, ipvs, legacy, nft, nl, services, to_address, to_node_port, walk,
};
use crate::model::Proto;
use crate::node::netlink::Parts;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel once answered to the dumps of all that there is.
struct Told<'a>(&'a [u8]);

impl Dumps for Told<'_> {
    fn dump(
        &mut self,
        get: Get,
        _: u8,
        names: &[(u16, &str)],
        each: &mut dyn FnMut(u8, Attributes<'_>),
    ) -> Result<(), NlError> {
        for part in Parts(self.0).filter(|part| part.message.kind == nl::answer(get)) {
            if let Some((family, attributes)) = nl::split(part.message)
                && names
                    .iter()
                    .all(|(kind, name)| attributes.text(*kind).as_deref() == Some(name))
            {
                each(family, attributes);
            }
        }
        Ok(())
    }
}

/// Datagrams with what nftables holds.
pub fn nftables(data: &[u8]) {
    let mut told = Told(data);
    let mut ruleset = Ruleset::default();
    if let Ok(index) = nft::read(&mut told, &mut ruleset) {
        follow(&ruleset, &nft::Live::new(&mut told, &ruleset, &index));
    }
}

/// One byte (1: the table nat, 2: IPv6), then `struct ipt_getinfo` and the entries of a table.
pub fn iptables(data: &[u8]) {
    let Some(([flags, info @ ..], entries)) = data.split_first_chunk::<{ 1 + legacy::INFO }>()
    else {
        return;
    };
    let name = if flags & 1 == 0 { "filter" } else { "nat" };
    if let Ok(table) = legacy::decode(flags & 2 != 0, name, info, entries) {
        let ruleset = Ruleset {
            tables: vec![table],
            sets: Vec::new(),
            flowtables: Vec::new(),
        };
        follow(&ruleset, &NoElements);
    }
}

/// `/proc/net/ip_vs`.
pub fn ipvs(text: &str) {
    ipvs::parse(text);
}

fn follow(ruleset: &Ruleset, elements: &dyn Elements) {
    let vips: [IpAddr; 2] = [
        Ipv4Addr::new(10, 96, 0, 1).into(),
        Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1).into(),
    ];
    let own = [Ipv4Addr::new(192, 0, 2, 1).into()];
    services::count(ruleset, elements);
    firewall::list(ruleset, elements, &mut Vec::new());
    for vip in vips {
        let packet = to_address(vip, 80, Proto::TCP, &own);
        walk::walk(ruleset, elements, &packet);
    }
    let packet = to_node_port(false, 30_080, Proto::UDP, &own);
    walk::walk(ruleset, elements, &packet);
}
