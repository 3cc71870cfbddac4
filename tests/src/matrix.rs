//! Which cases are run: all of them, or so few that every pair of proxy, placement, traffic form and fault is met.

use crate::faults::{self, Fault, Form};
use crate::lab::draw::Draw;
use crate::lab::plan::Placement;
use crate::proxy::Mode;
use std::collections::BTreeSet;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Case {
    /// What is broken.
    pub fault: &'static dyn Fault,
    /// How Services are proxied.
    pub mode: Mode,
    /// Where the backends are.
    pub placement: Placement,
    /// How traffic runs.
    pub form: Form,
    /// Seed of the lab.
    pub seed: u64,
}

impl Case {
    /// As in the table and for `--only`.
    pub fn name(&self) -> String {
        let Case {
            fault,
            mode,
            placement,
            form,
            ..
        } = self;
        format!(
            "{}/{mode}/{}/{}",
            fault.name(),
            placement.name(),
            form.name()
        )
    }

    fn pairs(&self) -> [(String, String); 6] {
        let values = [
            self.fault.name(),
            self.mode.name(),
            self.placement.name(),
            self.form.name(),
        ];
        [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
            .map(|(a, b)| (values[a].to_owned(), values[b].to_owned()))
    }
}

/// Every case that makes sense. Each has a seed of its own, drawn from `seed`.
pub fn full(seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let mut cases = Vec::new();
    for fault in faults::all() {
        for mode in Mode::ALL {
            for placement in fault.placements() {
                for form in fault.forms() {
                    let seed = draw.number() % 1_000_000;
                    cases.push(Case {
                        fault,
                        mode,
                        placement: *placement,
                        form: *form,
                        seed,
                    });
                }
            }
        }
    }
    cases
}

/// A subset in which every pair of values that occurs in `cases` occurs; chosen greedily.
pub fn pairwise(cases: &[Case]) -> Vec<Case> {
    let pairs: Vec<_> = cases.iter().map(Case::pairs).collect();
    let mut open: BTreeSet<_> = pairs.iter().flatten().cloned().collect();
    let mut chosen = BTreeSet::new();
    while !open.is_empty() {
        let gain = |i: &usize| pairs[*i].iter().filter(|p| open.contains(*p)).count();
        let Some(best) = (0..cases.len()).rev().max_by_key(gain) else {
            break;
        };
        for pair in &pairs[best] {
            open.remove(pair);
        }
        chosen.insert(best);
    }
    chosen.into_iter().map(|i| cases[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_meets_every_pair_and_is_much_smaller() {
        let all = full(1);
        let some = pairwise(&all);
        let pairs = |cases: &[Case]| cases.iter().flat_map(Case::pairs).collect::<BTreeSet<_>>();
        assert_eq!(pairs(&some), pairs(&all));
        assert!(
            some.len() * 3 < all.len(),
            "{} of {}",
            some.len(),
            all.len()
        );
    }

    #[test]
    fn one_seed_gives_one_matrix() {
        let names = |seed| {
            full(seed)
                .iter()
                .map(|c| (c.name(), c.seed))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(3), names(3));
        assert_ne!(names(3), names(4));
    }
}
