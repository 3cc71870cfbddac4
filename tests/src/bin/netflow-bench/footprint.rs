//! Memory, size, and how long a start takes.

use crate::budget::Figure;
use crate::netflow::Netflow;
use anyhow::{Context, Result};
use netflow_tests::lab::{Lab, netns};
use netflow_tests::world::World;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

const MIB: f64 = 1024.0 * 1024.0;
/// Pairs of veths: each has two ends.
const PAIRS: usize = 50;

/// Of a run that has looked at a round.
pub fn of(netflow: &Netflow) -> Result<Vec<Figure>> {
    let proc = Path::new("/proc").join(netflow.pid().to_string());
    Ok(vec![
        Figure::new("anonymous memory", anonymous(&proc)?, "MiB").at_most(60.0),
        Figure::new("BPF maps", maps(&proc)?, "MiB").at_most(32.0),
        Figure::new("binary", shipped()?, "MiB").at_most(25.0),
    ])
}

/// Size of the binary that is shipped. What is measured here is built more quickly, and is bigger.
fn shipped() -> Result<f64> {
    let name = "NETFLOW_SHIPPED";
    let path = env::var_os(name)
        .with_context(|| format!("no {name}: `cargo xtask bench live` sets it"))?;
    Ok(fs::metadata(path)?.len() as f64 / MIB)
}

fn anonymous(proc: &Path) -> Result<f64> {
    let status = fs::read_to_string(proc.join("status"))?;
    let kib = field(&status, "RssAnon:").context("no RssAnon")?;
    Ok(kib * 1024.0 / MIB)
}

/// Memory of all maps that the process holds open, each once.
fn maps(proc: &Path) -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(proc.join("fdinfo"))? {
        let info = fs::read_to_string(entry?.path())?;
        if let (Some(id), Some(bytes)) = (field(&info, "map_id:"), field(&info, "memlock:")) {
            maps.insert(id.to_bits(), bytes);
        }
    }
    Ok(maps.values().sum::<f64>() / MIB)
}

/// The number behind a name.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// From the start of the process until all is attached, on a node with 100 more veths.
pub fn start(lab: &Lab, world: &World) -> Result<Figure> {
    let node = lab.node(0);
    let all = |line: &dyn Fn(usize) -> String| (0..PAIRS).map(line).collect::<Vec<_>>();
    netns::batch(
        &node,
        &all(&|n| format!("link add bench{n} up type veth peer name bench{n}p")),
    )?;
    let netflow = Netflow::recording(lab, world);
    netns::batch(&node, &all(&|n| format!("link del bench{n}")))?;
    let (netflow, attached_after) = netflow?;
    netflow.stop()?;
    let took = attached_after.as_secs_f64();
    Ok(Figure::new("start until attached, 100 more veths", took, "s").at_most(1.0))
}
