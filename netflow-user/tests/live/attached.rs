//! What is attached to an interface, by whatever means.

use crate::netns::Lab;
use anyhow::{Context, Result};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use std::process::Command;

/// Directions of an interface.
const SIDES: [(TcAttachType, &str); 2] = [
    (TcAttachType::Ingress, "ingress"),
    (TcAttachType::Egress, "egress"),
];

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
