//! Counters of what was lost, as results show them.

use crate::model::Input;
use aya::maps::{MapData, MapError, PerCpuArray};
use netflow_ebpf::Lost;
use std::collections::BTreeMap;

/// A record or a flow that was not as the ABI has it.
pub const GARBLED: &str = "garbled";
/// The kernel had more conntrack events than the socket took; how many is not known.
pub const CTNETLINK: &str = "ctnetlink";
/// A flow that had to make room in the map.
pub const FLOW_EVICTED: &str = "flow-evicted";
/// A flow that changed, in a sweep that had more to tell than is told.
pub const FLOW_UNTOLD: &str = "flow-untold";

/// Every kind there is.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let programs = Lost::ALL.into_iter().map(Lost::name);
    programs.chain([GARBLED, CTNETLINK, FLOW_EVICTED, FLOW_UNTOLD])
}

/// Sums the per-CPU counters of the programs and holds those of user space.
pub struct LostCounters {
    programs: PerCpuArray<MapData, u64>,
    ours: BTreeMap<&'static str, u64>,
    reported: BTreeMap<String, u64>,
}

impl LostCounters {
    /// Over the programs' map.
    pub fn new(programs: PerCpuArray<MapData, u64>) -> Self {
        LostCounters {
            programs,
            ours: BTreeMap::new(),
            reported: BTreeMap::new(),
        }
    }

    /// Counts something that user space lost.
    pub fn add(&mut self, kind: &'static str, count: u64) {
        *self.ours.entry(kind).or_default() += count;
    }

    /// All counters that are not zero, if any changed since the call before.
    pub fn changed(&mut self) -> Result<Option<Input>, MapError> {
        let mut now: BTreeMap<String, u64> = self
            .ours
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect();
        for lost in Lost::ALL {
            let per_cpu = self.programs.get(&(lost as u32), 0)?;
            let sum = per_cpu.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
            if sum > 0 {
                now.insert(lost.name().to_owned(), sum);
            }
        }
        if now == self.reported {
            return Ok(None);
        }
        self.reported.clone_from(&now);
        Ok(Some(Input::Lost { lost: now }))
    }
}
