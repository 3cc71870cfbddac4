//! The tc budgets, measured: `cargo xtask bench tc`.
//!
//! The kernel runs the programs on prepared packets (`BPF_PROG_TEST_RUN`); nothing is attached and nothing is sent.
//! Nanoseconds differ between machines, so a budget is a ratio between two programs of the same run.

mod measure;
mod packet;
mod programs;
mod report;

use anyhow::{Result, bail};
use clap::Parser;
use measure::Cost;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::{Pid, Uid};
use packet::Family;
use programs::Programs;
use report::{Report, Row};
use std::fs;
use std::process::ExitCode;

/// Measures the tc programs against their budgets; exit 1 if one is missed. Needs root: it loads BPF programs.
#[derive(Parser)]
struct Args {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print the result.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if !Uid::effective().is_root() {
        bail!("needs root: it loads BPF programs");
    }
    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.trim() != "0") {
        bail!("kernel.bpf_stats_enabled is on and would be measured too; turn it off first");
    }
    stay_on_one_cpu()?;

    let mut programs = Programs::load()?;
    let mut rows = Vec::new();
    for program in ["netflow_in", "netflow_out"] {
        rows.extend(known(&programs, program)?);
        programs.drain()?;
        rows.push(new(&programs, program)?);
    }
    let report = Report::new(rows);
    match args.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::from(u8::from(report.missed > 0)))
}

/// A thread that moves finds its caches cold.
fn stay_on_one_cpu() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &here)?;
    Ok(())
}

/// Packets of a flow that is in the map.
fn known(programs: &Programs, program: &str) -> Result<Vec<Row>> {
    let [v4, v6] = Family::BOTH.map(|family| packet::ack(family, 0));
    for packet in [&v4, &v6] {
        programs.run(program, packet, 1)?;
    }
    let cases = [
        (program, &v4),
        (program, &v6),
        ("bench_empty", &v4),
        ("bench_reference", &v4),
        ("bench_reference", &v6),
    ];
    let [own_v4, own_v6, empty, reference_v4, reference_v6] = measure::alternate(
        &cases.map(|(program, packet)| move || measure::repeated(programs, program, packet)),
    )?;
    let name = |what: &str| format!("{program}, known flow, {what}");
    Ok(vec![
        Row::new(name("IPv4 : empty program"), &own_v4, &empty, 4.0),
        Row::new(
            name("IPv4 : reference program"),
            &own_v4,
            &reference_v4,
            1.25,
        ),
        Row::new(
            name("IPv6 : reference program"),
            &own_v6,
            &reference_v6,
            1.25,
        ),
        Row::new(name("IPv6 : IPv4"), &own_v6, &own_v4, 1.25),
    ])
}

/// First packets of flows, each run alone, against a known flow's packet run alone.
fn new(programs: &Programs, program: &str) -> Result<Row> {
    let known = packet::ack(Family::V4, 0);
    let before = programs.flows()?;
    let (mut first, mut later) = (Cost::default(), Cost::default());
    for number in 0..measure::NEW_FLOWS {
        let new = packet::syn(Family::V4, number + 1);
        first.push(programs.run(program, &new, 1)?);
        later.push(programs.run(program, &known, 1)?);
    }
    let added = programs.flows()? - before;
    if added != measure::NEW_FLOWS as usize {
        bail!(
            "{program}: {added} of {} new flows are in the map",
            measure::NEW_FLOWS
        );
    }
    Ok(Row::of_medians(
        format!("{program}, new flow : known flow"),
        &first,
        &later,
        2.0,
    ))
}
