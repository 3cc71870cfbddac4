//! What is attached to an interface, by whatever means.

use crate::netns::{Lab, TO_HOST, TO_POD};
use anyhow::{Context, Result};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use netflow_user::kernel::tiers::kernel_has_kprobes;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Directions of an interface.
const SIDES: [(TcAttachType, &str); 2] = [
    (TcAttachType::Ingress, "ingress"),
    (TcAttachType::Egress, "egress"),
];

/// All of that on the node's interfaces, and the functions of the kernel that programs are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// By interface; none where the kernel has no TCX.
    pub tcx: Vec<Vec<String>>,
    /// By interface.
    pub filters: Vec<Vec<String>>,
    /// By interface.
    pub clsact: Vec<bool>,
    /// Of the whole machine; none where the kernel has no kprobes, and where other tests run beside this one.
    pub kprobes: BTreeSet<String>,
}

impl Attached {
    /// As it is now.
    pub fn of(lab: &Lab) -> Result<Attached> {
        let interfaces = || ["lo", TO_POD, TO_HOST].into_iter();
        let tcx = if kernel_has_tcx() {
            interfaces().map(|i| tcx(lab, i)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Attached {
            tcx,
            filters: interfaces()
                .map(|i| filters(lab, i))
                .collect::<Result<_>>()?,
            clsact: interfaces()
                .map(|i| has_clsact(lab, i))
                .collect::<Result<_>>()?,
            kprobes: kprobes()?,
        })
    }
}

/// Whether there is TCX, which began with 6.6.
pub fn kernel_has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Functions with a probe, as debugfs lists them. They are the machine's, and tests beside this one run netflow as well: they are told only
/// to the test that is run alone.
fn kprobes() -> Result<BTreeSet<String>> {
    const LIST: &str = "/sys/kernel/debug/kprobes/list";
    let alone = std::env::args().any(|arg| arg == "killed::");
    if !alone || !kernel_has_kprobes() {
        return Ok(BTreeSet::new());
    }
    let list = fs::read_to_string(LIST).context(LIST)?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Names of the TCX programs of an interface of the node, first to last, ingress before egress.
pub fn tcx(lab: &Lab, device: &str) -> Result<Vec<String>> {
    let programs = tcx_programs(lab, device)?;
    Ok(programs
        .iter()
        .filter_map(|program| program.name_as_str().map(str::to_owned))
        .collect())
}

/// TCX programs of an interface of the node.
pub fn tcx_programs(lab: &Lab, device: &str) -> Result<Vec<ProgramInfo>> {
    lab.inside("node", || {
        let mut all = Vec::new();
        for (side, _) in SIDES {
            let (_revision, programs) = SchedClassifier::query_tcx(device, side)?;
            all.extend(programs);
        }
        Ok(all)
    })
}

/// The filters that hang in clsact or ingress on an interface of the node, a line each, as tc shows them.
pub fn filters(lab: &Lab, device: &str) -> Result<Vec<String>> {
    lab.inside("node", || {
        let mut all = Vec::new();
        for (_, side) in SIDES {
            let shown = tc(&["filter", "show", "dev", device, side])?;
            let bpf = shown
                .lines()
                .filter(|line| line.contains(" bpf ") && line.contains("handle"));
            all.extend(bpf.map(|line| format!("{side}: {}", line.trim())));
        }
        Ok(all)
    })
}

/// Whether the interface has a clsact qdisc.
pub fn has_clsact(lab: &Lab, device: &str) -> Result<bool> {
    lab.inside("node", || {
        Ok(tc(&["qdisc", "show", "dev", device])?.contains("clsact"))
    })
}

fn tc(args: &[&str]) -> Result<String> {
    let output = Command::new("tc").args(args).output().context("tc")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
