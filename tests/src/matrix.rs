//! Which cases are run: all of them, or so few that every pair of fault, proxy, placement, traffic form, address
//! family, network and tier is met.

use crate::faults::{self, Fault, Form};
use crate::lab::draw::Draw;
use crate::lab::plan::{Family, Network, Placement, Shape};
use crate::proxy::Mode;
use std::collections::{BTreeSet, BinaryHeap, HashSet};

/// With which of its means netflow looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The best that the kernel has.
    Best,
    /// The same, of an agent that was there before.
    Agent,
    /// Those that older kernels have: clsact filters, raw tracepoints, conntrack's events.
    Lower,
}

impl Tier {
    /// All.
    pub const ALL: [Tier; 3] = [Tier::Best, Tier::Agent, Tier::Lower];

    /// As in the table and for `--only`.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Best => "best",
            Tier::Agent => "agent",
            Tier::Lower => "lower",
        }
    }

    /// What a netflow that looks itself is told.
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Tier::Best | Tier::Agent => &[],
            Tier::Lower => &[
                "--tc=clsact",
                "--without=kprobe",
                "--without=tp-btf",
                "--without=nat-tracepoint",
            ],
        }
    }
}

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
    /// Which addresses there are.
    pub family: Family,
    /// How Pods are connected.
    pub network: Network,
    /// With what netflow looks.
    pub tier: Tier,
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
            family,
            network,
            tier,
            seed: _,
        } = self;
        format!(
            "{}/{mode}/{}/{}/{}/{}/{}",
            fault.name(),
            placement.name(),
            form.name(),
            family.name(),
            network.name(),
            tier.name()
        )
    }

    /// The shape of its lab.
    pub fn shape(&self) -> Shape {
        Shape {
            placement: self.placement,
            family: self.family,
            network: self.network,
        }
    }

    fn pairs(&self) -> Vec<(&'static str, &'static str)> {
        let values = [
            self.tier.name(),
            self.fault.name(),
            self.mode.name(),
            self.placement.name(),
            self.form.name(),
            self.family.name(),
            self.network.name(),
        ];
        let later = |i: usize| values[i + 1..].iter().map(move |b| (values[i], *b));
        (0..values.len()).flat_map(later).collect()
    }
}

/// Every case that makes sense. Each has a seed of its own, drawn from `seed`.
pub fn full(seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let mut cases = Vec::new();
    for fault in faults::all() {
        for mode in Mode::EVERYWHERE {
            for form in fault.forms() {
                for shape in fault.shapes() {
                    let Shape {
                        placement,
                        family,
                        network,
                    } = shape;
                    let seed = draw.number() % 1_000_000;
                    cases.extend(Tier::ALL.map(|tier| Case {
                        fault,
                        mode,
                        placement,
                        form: *form,
                        family,
                        network,
                        tier,
                        seed,
                    }));
                }
            }
        }
    }
    cases
}

/// Every case with IPVS. Their seeds are drawn apart: a kernel that has IPVS gets the other cases as all kernels do.
pub fn ipvs(seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let mut cases = Vec::new();
    for fault in faults::BY_IPVS.into_iter().filter_map(faults::find) {
        for mode in Mode::IPVS {
            for form in fault.forms() {
                for shape in fault.shapes() {
                    let seed = draw.number() % 1_000_000;
                    let tiers = Tier::ALL.into_iter();
                    // Where conntrack does not follow, IPVS's own functions alone show where it sends.
                    let seeing = tiers.filter(|t| mode == Mode::Ipvs || *t == Tier::Best);
                    cases.extend(seeing.map(|tier| Case {
                        fault,
                        mode,
                        placement: shape.placement,
                        form: *form,
                        family: shape.family,
                        network: shape.network,
                        tier,
                        seed,
                    }));
                }
            }
        }
    }
    cases
}

/// A subset in which every pair of values that occurs in `cases` occurs; chosen greedily, and among equals by `seed`.
pub fn pairwise(cases: &[Case], seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let pairs: Vec<_> = cases.iter().map(Case::pairs).collect();
    let mut open: HashSet<_> = pairs.iter().flatten().copied().collect();
    let mut left: Vec<usize> = (0..cases.len()).collect();
    let order: Vec<usize> = cases.iter().map(|_| draw.take(&mut left)).collect();
    // What a case adds never grows: one that still adds what it was thought to add is the best.
    let thought = order.iter().enumerate();
    let mut heap: BinaryHeap<_> = thought
        .map(|(rank, i)| (pairs[*i].len(), rank, *i))
        .collect();
    let mut chosen = BTreeSet::new();
    while let Some((thought, rank, i)) = heap.pop() {
        let gain = pairs[i].iter().filter(|p| open.contains(*p)).count();
        if gain == thought {
            for pair in &pairs[i] {
                open.remove(pair);
            }
            chosen.insert(i);
        } else if gain > 0 {
            heap.push((gain, rank, i));
        }
    }
    chosen.into_iter().map(|i| cases[i]).collect()
}

/// One case of each fault whose evidence is another from kernel to kernel, drawn by `seed`, in plain labs.
pub fn of_a_kernel(cases: &[Case], seed: u64) -> Vec<Case> {
    one_of_each(cases, &of_every_kernel(), seed)
}

/// Faults that prove a kernel.
fn of_every_kernel() -> Vec<&'static str> {
    faults::BY_TIER
        .into_iter()
        .chain(faults::ON_A_KERNEL)
        .collect()
}

/// One case of each of the faults that prove a kernel's IPVS.
pub fn of_a_kernels_ipvs(cases: &[Case], seed: u64) -> Vec<Case> {
    one_of_each(cases, &faults::IPVS_BY_KERNEL, seed)
}

/// So few that every test run has time for them on every kernel: each fault that other means show, on one node where it can be, and
/// one of each of `others`.
pub fn few_of_a_kernel(cases: &[Case], others: &[Vec<Case>], seed: u64) -> Vec<Case> {
    // Another node takes another netflow, which is most of what a scenario costs an emulated machine.
    let plain: Vec<Case> = cases.iter().filter(|c| is_plain(c)).copied().collect();
    let is_on_one = |c: &Case| c.placement == Placement::Same;
    let can_be = |fault: &str| {
        plain
            .iter()
            .any(|c| is_on_one(c) && c.fault.name() == fault)
    };
    let cheap: Vec<Case> = plain
        .iter()
        .filter(|c| is_on_one(c) || !can_be(c.fault.name()))
        .copied()
        .collect();
    let mut few = one_of_each(&cheap, &faults::BY_TIER, seed);
    let mut draw = Draw::new(seed);
    for others in others.iter().filter(|others| !others.is_empty()) {
        let mut left: Vec<&Case> = others.iter().collect();
        few.push(*draw.take(&mut left));
    }
    few
}

/// Other kernels are there to show what their own means see.
fn is_plain(c: &Case) -> bool {
    c.family == Family::Ipv4
        && c.network == Network::Bridge
        && c.tier == Tier::Best
        && c.form != Form::Idle
}

fn one_of_each(cases: &[Case], of: &[&str], seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let cases: Vec<&Case> = cases.iter().filter(|c| is_plain(c)).collect();
    of.iter()
        .filter_map(|name| {
            let of = |c: &&&Case| c.fault.name() == *name;
            let mut of_fault: Vec<&Case> = cases.iter().filter(of).copied().collect();
            (!of_fault.is_empty()).then(|| *draw.take(&mut of_fault))
        })
        .collect()
}

/// What tunnels between nodes do to a Service, and what is shown of them: faults that any tunnel can have.
const THROUGH_TUNNELS: [&str; 3] = ["healthy", "overlay-peer-lost", "tunnel-port-blocked"];

/// Each of these through each kind of tunnel that needs a module of its own.
pub fn through_tunnels(cases: &[Case], seed: u64) -> Vec<Case> {
    let mut draw = Draw::new(seed);
    let mut chosen = Vec::new();
    for network in Network::BY_MODULE {
        for fault in THROUGH_TUNNELS {
            let plain = |c: &&Case| {
                c.fault.name() == fault
                    && c.placement == Placement::Cross
                    && c.family == Family::Ipv4
                    && c.network == Network::Vxlan
                    && c.tier == Tier::Best
                    && c.form == Form::Fresh
            };
            let mut of_fault: Vec<&Case> = cases.iter().filter(plain).collect();
            if !of_fault.is_empty() {
                let case = *draw.take(&mut of_fault);
                chosen.push(Case { network, ..case });
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_meets_every_pair_and_is_much_smaller() {
        let all = full(1);
        let some = pairwise(&all, 1);
        let pairs = |cases: &[Case]| cases.iter().flat_map(Case::pairs).collect::<BTreeSet<_>>();
        let of = |fault: &str| some.iter().filter(|c| c.fault.name() == fault).count();
        assert!(all.iter().all(|c| of(c.fault.name()) >= 2));
        assert_eq!(pairs(&some), pairs(&all));
        assert!(
            some.len() * 3 < all.len(),
            "{} of {}",
            some.len(),
            all.len()
        );
    }

    #[test]
    fn a_kernel_is_proved_by_one_case_of_each_of_its_faults() {
        let names = |seed| {
            let some = of_a_kernel(&full(seed), seed);
            some.iter().map(Case::name).collect::<Vec<_>>()
        };
        for seed in 0..3 {
            let some = of_a_kernel(&full(seed), seed);
            let faults: Vec<_> = some.iter().map(|c| c.fault.name()).collect();
            assert_eq!(faults, of_every_kernel());
        }
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }

    #[test]
    fn every_test_run_proves_a_kernel_by_a_few() {
        for seed in 0..3 {
            let all = full(seed);
            let tunnels = through_tunnels(&all, seed);
            let services = of_a_kernels_ipvs(&ipvs(seed), seed);
            let few = few_of_a_kernel(&all, &[tunnels, services, Vec::new()], seed);
            let (by_tier, others) = few.split_at(faults::BY_TIER.len());
            let names: Vec<_> = by_tier.iter().map(|c| c.fault.name()).collect();
            assert_eq!(names, faults::BY_TIER);
            let on_one = |fault: &str| {
                let is_it = |c: &&Case| is_plain(c) && c.fault.name() == fault;
                let mut of_fault = all.iter().filter(is_it);
                of_fault.any(|c| c.placement == Placement::Same)
            };
            for case in by_tier {
                let cheap = case.placement == Placement::Same;
                assert_eq!(cheap, on_one(case.fault.name()), "{}", case.name());
            }
            assert_eq!(others.len(), 2);
            assert!(Network::BY_MODULE.contains(&others[0].network));
            assert!(others[1].mode.is_ipvs());
        }
    }

    #[test]
    fn ipvs_is_proved_by_cases_of_its_own() {
        let all = ipvs(3);
        assert!(all.iter().all(|c| c.mode.is_ipvs()));
        assert!(full(3).iter().all(|c| !c.mode.is_ipvs()));
        let faults: BTreeSet<_> = all.iter().map(|c| c.fault.name()).collect();
        assert_eq!(faults, BTreeSet::from(faults::BY_IPVS));
        let some = of_a_kernels_ipvs(&all, 3);
        let faults: Vec<_> = some.iter().map(|c| c.fault.name()).collect();
        assert_eq!(faults, faults::IPVS_BY_KERNEL);
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
