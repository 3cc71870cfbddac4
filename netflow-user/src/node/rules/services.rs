//! Finds Service rules of any kind: rules that send one address and port somewhere else.

use super::ruleset::{
    Data, Dnat, Element, Elements, Field, Mode, Operand, Ruleset, SetRef, Source, Test, Verdict,
};
use crate::model::record::NfHook;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A chain: table and chain index.
pub type At = (usize, usize);

/// Which chains lead to a destination NAT.
pub struct Reach<'a> {
    ruleset: &'a Ruleset,
    known: HashMap<At, bool>,
}

impl<'a> Reach<'a> {
    /// Over the chains of `ruleset`.
    pub fn new(ruleset: &'a Ruleset) -> Self {
        Self {
            ruleset,
            known: HashMap::new(),
        }
    }

    /// Whether a packet in this chain may meet a destination NAT. A map of verdicts counts as one that leads there.
    pub fn leads_to_dnat(&mut self, at: At) -> bool {
        if let Some(known) = self.known.get(&at) {
            return *known;
        }
        // Chains cannot loop; should one seem to, this ends it.
        self.known.insert(at, false);
        let ruleset = self.ruleset;
        let rules = ruleset.tables.get(at.0).and_then(|t| t.chains.get(at.1));
        let found = rules
            .into_iter()
            .flat_map(|chain| &chain.rules)
            .filter_map(|rule| rule.verdict())
            .any(|verdict| match verdict {
                Verdict::Dnat(_) | Verdict::Redirect | Verdict::Map { .. } => true,
                Verdict::Jump(chain) | Verdict::Goto(chain) => self.leads_to_dnat((at.0, *chain)),
                _ => false,
            });
        self.known.insert(at, found);
        found
    }
}

/// What the way to a rule has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Asked {
    address: bool,
    port: bool,
}

impl Asked {
    fn both(self) -> bool {
        self.address && self.port
    }

    fn with_key(mut self, key: &[Operand]) -> Self {
        for operand in key {
            self.address |= operand.field == Field::Daddr;
            self.port |= operand.field == Field::Dport;
        }
        self
    }

    fn with(mut self, test: &Test) -> Self {
        match test {
            Test::Range {
                operand,
                not: false,
                ranges,
            } => {
                // A network is not a Service.
                let single = ranges.as_slice().all(|(from, to)| from == to);
                self.address |= operand.field == Field::Daddr && operand.is_plain() && single;
                self.port |= operand.field == Field::Dport;
                self
            }
            Test::Lookup {
                key, not: false, ..
            } => self.with_key(key),
            _ => self,
        }
    }
}

/// Number of Service rules (an address and port, sent on) in each rule system that has any.
pub fn count(ruleset: &Ruleset, elements: &dyn Elements) -> BTreeMap<Mode, u64> {
    let mut counter = Counter {
        ruleset,
        elements,
        reach: Reach::new(ruleset),
        seen: BTreeSet::new(),
        counts: BTreeMap::new(),
    };
    for (t, table) in ruleset.tables.iter().enumerate() {
        for (c, chain) in table.chains.iter().enumerate() {
            let translates = chain.base.is_some_and(|base| {
                base.nat && matches!(base.hook, Some(NfHook::Prerouting | NfHook::Output))
            });
            if translates {
                counter.chain((t, c), Asked::default());
            }
        }
    }
    counter.counts
}

struct Counter<'a> {
    ruleset: &'a Ruleset,
    elements: &'a dyn Elements,
    reach: Reach<'a>,
    seen: BTreeSet<(At, Asked)>,
    counts: BTreeMap<Mode, u64>,
}

impl Counter<'_> {
    fn chain(&mut self, at: At, asked: Asked) {
        if !self.seen.insert((at, asked)) {
            return;
        }
        let ruleset = self.ruleset;
        let Some(chain) = ruleset.tables.get(at.0).and_then(|t| t.chains.get(at.1)) else {
            return;
        };
        for rule in &chain.rules {
            let Some(verdict) = rule.verdict() else {
                continue;
            };
            let asked = rule.tests().fold(asked, Asked::with);
            match verdict {
                Verdict::Jump(to) | Verdict::Goto(to) => self.jump((at.0, *to), asked),
                Verdict::Map { key, set } => self.map(at.0, key, *set, asked),
                Verdict::Dnat(dnat) => self.dnat(at.0, dnat, asked),
                Verdict::Redirect if asked.both() => self.found(at.0, 1),
                _ => {}
            }
        }
    }

    fn jump(&mut self, to: At, asked: Asked) {
        if !asked.both() {
            self.chain(to, asked);
        } else if self.reach.leads_to_dnat(to) {
            self.found(to.0, 1);
        }
    }

    fn map(&mut self, table: usize, key: &[Operand], set: SetRef, asked: Asked) {
        // Backends chosen by chance: no address is asked for here.
        let by_chance = |operand: &Operand| matches!(operand.field, Field::Random { .. });
        if key.iter().all(by_chance) {
            return;
        }
        let asked = asked.with_key(key);
        for element in self.elements(set).iter() {
            if let Data::Verdict(Some(Verdict::Jump(to) | Verdict::Goto(to))) = &element.data {
                self.jump((table, *to), asked);
            }
        }
    }

    fn dnat(&mut self, table: usize, dnat: &Dnat, asked: Asked) {
        if asked.both() {
            return self.found(table, 1);
        }
        if let Some((Source::Map { key, set, .. }, _)) = &dnat.addr
            && asked.with_key(key).both()
        {
            let elements = self.elements(*set).len() as u64;
            self.found(table, elements);
        }
    }

    fn elements(&self, set: SetRef) -> std::rc::Rc<[Element]> {
        // What cannot be read is named where an address is looked up in it.
        self.elements.of(set).unwrap_or_default()
    }

    fn found(&mut self, table: usize, rules: u64) {
        if let Some(table) = self.ruleset.tables.get(table)
            && rules > 0
        {
            *self.counts.entry(table.mode).or_default() += rules;
        }
    }
}
