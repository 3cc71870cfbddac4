//! nftables (and iptables-nft): the ruleset by netlink dumps.

pub mod chain;
pub mod expr;
pub mod flowtable;
pub mod rule;
pub mod set;
pub mod table;

use super::nl::{Dumps, Get, NlError};
use super::ruleset::{Elements, Fetched, Ruleset, Set, SetRef};
use std::cell::RefCell;
use std::collections::HashMap;

/// Where tables, chains and sets of the dump went in the [`Ruleset`].
#[derive(Debug, Default)]
pub struct Index {
    tables: HashMap<(u8, String), usize>,
    chains: HashMap<(usize, String), usize>,
    sets: HashMap<(usize, String), SetRef>,
    /// Packets of named counters.
    counters: HashMap<(usize, String), u64>,
}

impl Index {
    /// The table of a family and name.
    pub fn table(&self, family: u8, name: Option<String>) -> Option<usize> {
        self.tables.get(&(family, name?)).copied()
    }

    /// A chain of the table.
    pub fn chain(&self, table: usize, name: String) -> Option<usize> {
        self.chains.get(&(table, name)).copied()
    }

    /// A set of the table.
    pub fn set(&self, table: usize, name: String) -> Option<SetRef> {
        self.sets.get(&(table, name)).copied()
    }

    /// Packets of a named counter.
    pub fn counter(&self, table: usize, name: String) -> Option<u64> {
        self.counters.get(&(table, name)).copied()
    }
}

/// Adds all nftables tables that `netlink` dumps to `ruleset`.
pub fn read(netlink: &mut dyn Dumps, ruleset: &mut Ruleset) -> Result<Index, NlError> {
    let mut index = Index::default();
    let mut dormant = Vec::new();
    netlink.dump(Get::Table, 0, &[], &mut |family, attributes| {
        table::decode(family, attributes, ruleset, &mut index, &mut dormant);
    })?;
    netlink.dump(Get::Chain, 0, &[], &mut |family, attributes| {
        chain::decode(family, attributes, ruleset, &mut index, &dormant);
    })?;
    netlink.dump(Get::Set, 0, &[], &mut |family, attributes| {
        set::decode(family, attributes, ruleset, &mut index);
    })?;
    netlink.dump(Get::Flowtable, 0, &[], &mut |family, attributes| {
        flowtable::decode(family, attributes, ruleset, &index);
    })?;
    netlink.dump(Get::Obj, 0, &[], &mut |family, attributes| {
        table::decode_counter(family, attributes, &mut index);
    })?;
    let mut compat = vec![false; ruleset.tables.len()];
    netlink.dump(Get::Rule, 0, &[], &mut |family, attributes| {
        rule::decode(family, attributes, ruleset, &index, &mut compat);
    })?;
    for (table, compat) in ruleset.tables.iter_mut().zip(compat) {
        table::set_mode(table, compat);
    }
    Ok(index)
}

/// Elements read from the kernel when first asked for, then kept.
pub struct Live<'a> {
    netlink: RefCell<&'a mut dyn Dumps>,
    ruleset: &'a Ruleset,
    index: &'a Index,
    known: RefCell<HashMap<SetRef, Fetched>>,
}

impl<'a> Live<'a> {
    /// Over the sets of `ruleset`.
    pub fn new(netlink: &'a mut dyn Dumps, ruleset: &'a Ruleset, index: &'a Index) -> Self {
        Self {
            netlink: RefCell::new(netlink),
            ruleset,
            index,
            known: RefCell::default(),
        }
    }

    fn fetch(&self, set: &Set) -> Fetched {
        let table = self
            .ruleset
            .tables
            .get(set.table)
            .ok_or("set without table")?;
        set::elements(&mut **self.netlink.borrow_mut(), table, set, self.index)
            .map_err(|e| format!("elements of {} {}: {e}", table.title(), set.name).into())
    }
}

impl Elements for Live<'_> {
    fn of(&self, set: SetRef) -> Fetched {
        if let Some(known) = self.known.borrow().get(&set) {
            return known.clone();
        }
        let elements = match self.ruleset.sets.get(set) {
            Some(set) => self.fetch(set),
            None => Err("no such set".into()),
        };
        self.known.borrow_mut().insert(set, elements.clone());
        elements
    }
}
