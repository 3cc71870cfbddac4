//! What the programs take of a connection and of a packet, as the kernel counts it. It keeps 15 characters of a name: programs whose
//! names begin alike are one line.

use crate::budget::Figure;
use crate::netflow::Netflow;
use crate::{connections, throughput};
use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use netflow_tests::lab::Lab;
use netflow_tests::world::World;
use std::collections::BTreeMap;

/// Run time and runs of a program.
type Spent = (u64, u64);

/// Nanoseconds that each program takes when it runs, and all of them of a VIP connection and of a packet from Pod to Pod.
pub fn spent(lab: &Lab, world: &World) -> Result<Vec<Figure>> {
    let netflow = Netflow::start(lab, world)?;
    let counting = enable_stats(Stats::RunTime).context("statistics of BPF programs")?;
    let mut figures = figures_of("VIP connection", || connections::of_a_round(lab, world))?;
    figures.extend(figures_of("packet from Pod to Pod", || {
        throughput::datagrams_of_a_round(lab)
    })?);
    drop(counting);
    netflow.stop()?;
    Ok(figures)
}

/// What a load takes that says how many of something it made.
fn figures_of(one: &str, load: impl FnOnce() -> Result<f64>) -> Result<Vec<Figure>> {
    let before = so_far();
    let count = load()?;
    let after = so_far();
    let mut by_name: BTreeMap<String, Spent> = BTreeMap::new();
    for (key, (time, runs)) in after {
        let (time_before, runs_before) = before.get(&key).copied().unwrap_or_default();
        let all = by_name.entry(key.0).or_default();
        all.0 += time.saturating_sub(time_before);
        all.1 += runs.saturating_sub(runs_before);
    }
    let total: u64 = by_name.values().map(|(time, _)| time).sum();
    let mut figures = Vec::new();
    for (name, (time, runs)) in by_name.iter().filter(|(_, (_, runs))| *runs > 0) {
        let (time, runs) = (*time as f64, *runs as f64);
        let what = format!("{name}, {:.1} calls a {one}", runs / count);
        figures.push(Figure::new(what, time / runs, "ns"));
    }
    let what = format!("all programs, of a {one}");
    figures.push(Figure::new(what, total as f64 / count, "ns"));
    Ok(figures)
}

/// What every program of netflow has spent, by name and id.
fn so_far() -> BTreeMap<(String, u32), Spent> {
    let mut spent = BTreeMap::new();
    // One that has gone since it was listed is none of ours.
    for program in loaded_programs().flatten() {
        if let Some(name) = program.name_as_str()
            && name.starts_with("netflow_")
        {
            let time = program.run_time().as_nanos() as u64;
            spent.insert((name.to_owned(), program.id()), (time, program.run_count()));
        }
    }
    spent
}
