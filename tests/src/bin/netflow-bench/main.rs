//! What netflow costs a node: `cargo xtask bench live`.
//!
//! A lab of two nodes, a client on the one and backends on the other, and the real netflow on the client's node. Connections and packets
//! are this program's own, from inside the client's namespace, so that no start of a process is measured. Figures are of the whole
//! machine: run it where nothing else runs.

mod budget;
mod connections;
mod footprint;
mod netflow;
mod programs;
mod throughput;

use anyhow::Result;
use budget::{Figure, Figures, Ratios};
use clap::Parser;
use netflow::Netflow;
use netflow_tests::lab::plan::{Family, Network, Placement, Plan, Shape};
use netflow_tests::lab::{self, Lab, Life};
use netflow_tests::proxy::Mode;
use netflow_tests::world::World;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Rounds without netflow, with it, and with it recording, in turn.
const ROUNDS: usize = 7;

/// Measures what netflow costs a node; exit 1 if a budget is missed. Needs root, and a machine on which nothing else runs.
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
    let Args { output } = Args::parse();
    lab::need_root()?;
    let shape = Shape {
        placement: Placement::Cross,
        family: Family::Ipv4,
        network: Network::Bridge,
    };
    let plan = Plan::draw(1, shape);
    let world = World::healthy(&plan, Mode::Nftables);
    let mut lab = Lab::up(plan, Mode::Nftables, Life::Owned)?;
    lab.apply(&world)?;
    let measured = measure(&lab, &world);
    lab.down()?;
    let figures = measured?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
        Output::Text => print!("{figures}"),
    }
    Ok(ExitCode::from(u8::from(figures.missed > 0)))
}

fn measure(lab: &Lab, world: &World) -> Result<Figures> {
    connections::open_ports(lab)?;
    progress("records per connection");
    let mut figures = vec![connections::records(lab, world)?];
    let mut without = Vec::new();
    let mut with = Vec::new();
    let mut recording = Vec::new();
    for round in 1..=ROUNDS {
        progress(&format!("round {round} of {ROUNDS}"));
        without.push(load(lab, world, None)?);
        let netflow = Netflow::start(lab, world)?;
        with.push(load(lab, world, Some(&netflow))?);
        if round == ROUNDS {
            figures.extend(footprint::of(&netflow)?);
        }
        netflow.stop()?;
        let (netflow, _) = Netflow::recording(lab, world)?;
        recording.push(connections::cost(lab, world, Some(&netflow))?);
        netflow.stop()?;
    }
    figures.extend(compare(&without, &with));
    figures.extend(compare_recording(&without, &recording));
    progress("start beside 100 veths");
    figures.push(footprint::start(lab, world)?);
    progress("programs");
    figures.extend(programs::spent(lab, world)?);
    progress("");
    Ok(Figures::new(figures))
}

/// What one round measures.
struct Load {
    connections: connections::Cost,
    bulk: f64,
    segments: f64,
    datagrams: f64,
}

fn load(lab: &Lab, world: &World, netflow: Option<&Netflow>) -> Result<Load> {
    Ok(Load {
        connections: connections::cost(lab, world, netflow)?,
        bulk: throughput::bulk(lab, world)?,
        segments: throughput::segments(lab, world)?,
        datagrams: throughput::datagrams(lab)?,
    })
}

/// Each round with netflow beside the round without it before.
fn compare(without: &[Load], with: &[Load]) -> Vec<Figure> {
    let ratios = |of: fn(&Load) -> f64| Ratios::new(without.iter().map(of), with.iter().map(of));
    let cpu = ratios(|l| l.connections.cpu);
    let rate = ratios(|l| l.connections.rate);
    let bulk = ratios(|l| l.bulk);
    let segments = ratios(|l| l.segments);
    let datagrams = ratios(|l| l.datagrams);
    let mut figures = Vec::from(cpu.figures("CPU of a VIP connection", "µs"));
    figures.push(cpu.ratio("CPU of a VIP connection").at_most(1.08));
    let own = ratios(|l| l.connections.own);
    figures.push(own.with("CPU of a VIP connection, netflow's process", "µs"));
    figures.extend(rate.figures("VIP connections, one after the other", "/s"));
    figures.push(rate.ratio("VIP connections"));
    figures.extend(bulk.figures("bulk through the VIP", "MB/s"));
    figures.push(bulk.ratio("bulk through the VIP").at_least(0.98));
    figures.extend(segments.figures("bulk without TSO", "MB/s"));
    figures.push(segments.ratio("bulk without TSO").at_least(0.95));
    figures.extend(datagrams.figures("UDP in frames of 64 bytes", "/s"));
    figures.push(datagrams.ratio("UDP in frames of 64 bytes").at_least(0.88));
    figures
}

/// Each round with a recording, too, beside the round without netflow before.
fn compare_recording(without: &[Load], recording: &[connections::Cost]) -> [Figure; 2] {
    let without = without.iter().map(|l| l.connections.cpu);
    let cpu = Ratios::new(without, recording.iter().map(|c| c.cpu));
    let what = "CPU of a VIP connection, netflow recording";
    [cpu.with(what, "µs"), cpu.ratio(what)]
}

/// It takes minutes: somebody who waits is told what for.
fn progress(what: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    } else if !what.is_empty() {
        eprintln!("{what}");
    }
}
