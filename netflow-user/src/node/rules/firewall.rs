//! Every rule and policy that can drop or reject, with what leads to it.
//!
//! A rule at the end of a chain often has no condition of its own: the condition stands where the chain is jumped to.
//! So the ways from the base chains are followed, and where there is one way only, its conditions are the rule's too.

use super::ruleset::{
    Base, Data, Element, Elements, Family, Field, Mode, Operand, Ranges, Rule, Ruleset, SetRef,
    Test, Verdict, ct_state,
};
use super::services::At;
use super::text;
use crate::model::Proto;
use crate::model::cidr::{self, Cidr};
use crate::model::node::{FirewallRule, RuleMatch, Unread};
use crate::model::record::NfHook;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// More are not listed.
const MOST_RULES: usize = 20_000;
/// Different ways to one chain that are kept apart.
const MOST_WAYS: usize = 8;
/// Some proxies choose a backend by a map in each Service's chain. The kernel finds a set by walking a list, so that
/// reading ten thousand of them takes many seconds; only the first ones are searched for drops by chance.
const MOST_CHANCE_MAPS: usize = 64;

/// Lists them, in the order of tables, chains and rules.
pub fn list(
    ruleset: &Ruleset,
    elements: &dyn Elements,
    unread: &mut Vec<Unread>,
) -> Vec<FirewallRule> {
    let mut finder = Finder {
        ruleset,
        elements,
        ends: HashMap::new(),
        arrivals: BTreeMap::new(),
        chance_maps: BTreeSet::new(),
        failed: BTreeSet::new(),
    };
    for (t, table) in ruleset.tables.iter().enumerate() {
        for (c, chain) in table.chains.iter().enumerate() {
            if let Some(base) = chain.base {
                finder.follow((t, c), base.hook, &Condition::default());
            }
        }
    }
    let mut found = Vec::new();
    let arrivals = std::mem::take(&mut finder.arrivals);
    let mut left_out = 0;
    for (at, arrival) in &arrivals {
        let mut of_chain = finder.chain(*at, arrival);
        let room = MOST_RULES - found.len();
        left_out += of_chain.len().saturating_sub(room);
        of_chain.truncate(room);
        found.append(&mut of_chain);
    }
    if left_out > 0 {
        unread.push(Unread {
            what: "firewall rules".to_owned(),
            why: format!("{left_out} more than {MOST_RULES} that drop or reject"),
        });
    }
    unread.extend(finder.failed.into_iter().map(|why| Unread {
        what: "firewall rules".to_owned(),
        why,
    }));
    found
}

/// What must be so for a packet to come to a place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Condition {
    fits: RuleMatch,
    /// There are conditions that `fits` does not hold.
    partial: bool,
    /// There are conditions on address or port that were not understood.
    unknown: bool,
    text: String,
}

impl Condition {
    fn is_free(&self) -> bool {
        !self.partial && !self.unknown && self.fits == RuleMatch::default()
    }

    /// With the conditions of a rule, too.
    fn and<'a>(
        &self,
        tests: impl Iterator<Item = &'a Test> + Clone,
        ruleset: &Ruleset,
        elements: &dyn Elements,
    ) -> Self {
        let mut both = self.clone();
        for test in tests.clone() {
            both.test(test, elements);
        }
        let own = text::tests(tests, ruleset, elements);
        if !both.text.is_empty() && !own.is_empty() {
            both.text.push(' ');
        }
        both.text.push_str(&own);
        both
    }

    fn test(&mut self, test: &Test, elements: &dyn Elements) {
        match test {
            Test::Range {
                operand,
                not,
                ranges,
            } => self.range(operand, *not, ranges),
            Test::Lookup {
                key,
                set,
                not: false,
            } => match elements.of(*set) {
                // A set of one is the element.
                Ok(all) if all.len() == 1 => {
                    for test in all[0].tests(key) {
                        self.test(&test, elements);
                    }
                }
                _ => self.partial = true,
            },
            Test::Lookup { .. } | Test::Free(_) => self.partial = true,
            Test::Unknown(_) => self.unknown = true,
        }
    }

    fn range(&mut self, operand: &Operand, not: bool, ranges: &Ranges) {
        match operand.field {
            Field::CtState => {
                // What holds for the first packet of a connection is no restriction for the tuple asked about.
                let new = ranges.contains(operand.of(ct_state::NEW.into())) != not;
                self.partial |= !new;
                return;
            }
            // Said by the addresses, or added at the end.
            Field::NfProto | Field::EtherType if !not => return,
            _ => {}
        }
        let Ranges::One(from, to) = *ranges else {
            self.partial = true;
            return;
        };
        if not || !operand.is_plain() {
            self.partial = true;
            return;
        }
        let ports = (from as u16, to as u16);
        let fits = match operand.field {
            Field::Saddr | Field::Daddr => {
                let slot = if operand.field == Field::Saddr {
                    &mut self.fits.src
                } else {
                    &mut self.fits.dst
                };
                match text::network(operand, from, to) {
                    Some(network) => narrow(slot, network, |a, b| contains(*a, *b)),
                    None => false,
                }
            }
            Field::Proto if from == to => {
                narrow(&mut self.fits.proto, Proto(from as u8), |a, b| a == b)
            }
            Field::Sport => narrow(&mut self.fits.sport, ports, |a, b| wraps(*a, *b)),
            Field::Dport => narrow(&mut self.fits.dport, ports, |a, b| wraps(*a, *b)),
            _ => false,
        };
        self.partial |= !fits;
    }
}

/// Puts the narrower of two conditions into `slot`. False where neither contains the other.
fn narrow<T>(slot: &mut Option<T>, with: T, wide: impl Fn(&T, &T) -> bool) -> bool {
    match slot {
        None => *slot = Some(with),
        Some(old) if wide(old, &with) => *slot = Some(with),
        Some(old) => return wide(&with, old),
    }
    true
}

fn wraps(outer: (u16, u16), inner: (u16, u16)) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1
}

fn contains(outer: Cidr, inner: Cidr) -> bool {
    outer.1 <= inner.1 && cidr::contains(outer, inner.0)
}

/// How packets come to a chain.
#[derive(Debug, Default)]
struct Arrival {
    hooks: BTreeSet<Option<NfHook>>,
    ways: Vec<Condition>,
    /// More ways than are kept apart.
    many: bool,
}

impl Arrival {
    /// The one condition under which packets come; `None` if there are several.
    fn condition(&self) -> Option<Condition> {
        let free = self.ways.iter().any(Condition::is_free);
        match self.ways.as_slice() {
            _ if free => Some(Condition::default()),
            [one] if !self.many => Some(one.clone()),
            _ => None,
        }
    }

    fn hook(&self) -> Option<NfHook> {
        let mut hooks = self.hooks.iter();
        match (hooks.next(), hooks.next()) {
            (Some(hook), None) => *hook,
            _ => None,
        }
    }
}

struct Finder<'a> {
    ruleset: &'a Ruleset,
    elements: &'a dyn Elements,
    /// Chains in which a packet can end.
    ends: HashMap<At, bool>,
    arrivals: BTreeMap<At, Arrival>,
    chance_maps: BTreeSet<SetRef>,
    failed: BTreeSet<String>,
}

impl<'a> Finder<'a> {
    fn rules(&self, at: At) -> &'a [Rule] {
        self.ruleset
            .tables
            .get(at.0)
            .and_then(|table| table.chains.get(at.1))
            .map_or(&[], |chain| &chain.rules)
    }

    /// Elements of a map of verdicts.
    fn verdicts(&mut self, key: &[Operand], set: SetRef) -> Rc<[Element]> {
        let by_chance = |operand: &Operand| matches!(operand.field, Field::Random { .. });
        if key.iter().all(by_chance) && !self.chance_maps.contains(&set) {
            if self.chance_maps.len() == MOST_CHANCE_MAPS {
                self.failed.insert(format!(
                    "maps of verdicts chosen by chance beyond the first {MOST_CHANCE_MAPS} were not read"
                ));
                return Rc::default();
            }
            self.chance_maps.insert(set);
        }
        match self.elements.of(set) {
            Ok(elements) => elements,
            Err(why) => {
                self.failed.insert(why.to_string());
                Rc::default()
            }
        }
    }

    /// Whether a packet can be dropped or rejected in this chain or further down.
    fn ends(&mut self, at: At) -> bool {
        if let Some(known) = self.ends.get(&at) {
            return *known;
        }
        self.ends.insert(at, false);
        let found = self
            .rules(at)
            .iter()
            .filter_map(Rule::verdict)
            .any(|verdict| match verdict {
                Verdict::Drop | Verdict::Reject => true,
                Verdict::Jump(to) | Verdict::Goto(to) => self.ends((at.0, *to)),
                Verdict::Map { key, set } => self
                    .verdicts(key, *set)
                    .iter()
                    .any(|element| self.element_ends(at.0, element)),
                _ => false,
            });
        self.ends.insert(at, found);
        found
    }

    fn element_ends(&mut self, table: usize, element: &Element) -> bool {
        match &element.data {
            Data::Verdict(Some(Verdict::Drop)) => true,
            Data::Verdict(Some(Verdict::Jump(to) | Verdict::Goto(to))) => self.ends((table, *to)),
            _ => false,
        }
    }

    /// Follows packets into a chain and those that it jumps to.
    fn follow(&mut self, at: At, hook: Option<NfHook>, condition: &Condition) {
        let arrival = self.arrivals.entry(at).or_default();
        let new_hook = arrival.hooks.insert(hook);
        let mut condition = condition.clone();
        if arrival.many || arrival.ways.contains(&condition) {
            if !new_hook {
                return;
            }
        } else if arrival.ways.len() < MOST_WAYS {
            arrival.ways.push(condition.clone());
        } else {
            arrival.many = true;
        }
        if arrival.many {
            condition = Condition {
                partial: true,
                unknown: true,
                ..Condition::default()
            };
        }
        for rule in self.rules(at) {
            match rule.verdict() {
                Some(Verdict::Jump(to) | Verdict::Goto(to)) if self.ends((at.0, *to)) => {
                    let next = condition.and(rule.tests(), self.ruleset, self.elements);
                    self.follow((at.0, *to), hook, &next);
                }
                Some(Verdict::Map { key, set }) => {
                    for element in self.verdicts(key, *set).iter() {
                        let Data::Verdict(Some(Verdict::Jump(to) | Verdict::Goto(to))) =
                            &element.data
                        else {
                            continue;
                        };
                        if self.ends((at.0, *to)) {
                            let next = self.of_element(&condition, rule, key, element);
                            self.follow((at.0, *to), hook, &next);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn of_element(
        &self,
        condition: &Condition,
        rule: &Rule,
        key: &[Operand],
        element: &Element,
    ) -> Condition {
        let of_element = element.tests(key);
        let tests = rule.tests().chain(&of_element);
        condition.and(tests, self.ruleset, self.elements)
    }

    /// The policy and the rules of one chain.
    fn chain(&mut self, at: At, arrival: &Arrival) -> Vec<FirewallRule> {
        let ruleset = self.ruleset;
        let Some(chain) = ruleset.tables.get(at.0).and_then(|t| t.chains.get(at.1)) else {
            return Vec::new();
        };
        let context = arrival.condition();
        let before = context.clone().unwrap_or_default();
        let mut found = Vec::new();
        for rule in &chain.rules {
            let mut add = |verdict: &str, condition: Condition, comment, packets| {
                found.push(FirewallRule {
                    handle: rule.handle,
                    verdict: verdict.to_owned(),
                    hook: arrival.hook(),
                    text: condition.text.clone(),
                    comment,
                    packets,
                    partial: condition.partial || context.is_none(),
                    matches: context
                        .is_some()
                        .then(|| self.matches(at.0, condition))
                        .flatten(),
                    ..self.blank(at)
                });
            };
            match rule.verdict() {
                Some(verdict @ (Verdict::Drop | Verdict::Reject)) => {
                    let name = match verdict {
                        Verdict::Drop => "drop",
                        _ => "reject",
                    };
                    let condition = before.and(rule.tests(), ruleset, self.elements);
                    let comment = rule.comment.as_deref().map(str::to_owned);
                    add(name, condition, comment, rule.packets);
                }
                Some(Verdict::Map { key, set }) => {
                    let elements = self.elements.of(*set).unwrap_or_default();
                    for element in elements.iter() {
                        if element.data == Data::Verdict(Some(Verdict::Drop)) {
                            let condition = self.of_element(&before, rule, key, element);
                            let comment = element.comment.as_deref().or(rule.comment.as_deref());
                            let comment = comment.map(str::to_owned);
                            add("drop", condition, comment, element.packets);
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(
            base @ Base {
                policy_drop: true, ..
            },
        ) = chain.base
        {
            found.push(FirewallRule {
                verdict: "policy drop".to_owned(),
                hook: base.hook,
                packets: base.packets,
                matches: self.matches(at.0, Condition::default()),
                ..self.blank(at)
            });
        }
        found
    }

    fn blank(&self, at: At) -> FirewallRule {
        let table = &self.ruleset.tables[at.0];
        FirewallRule {
            mode: table.mode.name().to_owned(),
            table: match table.mode {
                Mode::Nftables => format!("{} {}", table.family.name(), table.name),
                Mode::IptablesLegacy | Mode::IptablesNft => table.title(),
            },
            chain: table.chains[at.1].name.clone(),
            handle: 0,
            verdict: String::new(),
            hook: None,
            text: String::new(),
            comment: None,
            packets: None,
            partial: false,
            matches: None,
        }
    }

    /// What can be tested. A condition of which nothing can be expressed is not «everything».
    fn matches(&self, table: usize, condition: Condition) -> Option<RuleMatch> {
        let mut fits = condition.fits;
        if condition.unknown || (condition.partial && fits == RuleMatch::default()) {
            return None;
        }
        if fits.src.is_none() && fits.dst.is_none() {
            fits.dst = match self.ruleset.tables.get(table)?.family {
                Family::Ip => Some((Ipv4Addr::UNSPECIFIED.into(), 0)),
                Family::Ip6 => Some((Ipv6Addr::UNSPECIFIED.into(), 0)),
                _ => None,
            };
        }
        Some(fits)
    }
}
