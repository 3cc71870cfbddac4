//! `cargo xtask bench`: the budgets, as ratios of one run.

mod budgets;
mod counts;
mod page;
mod programs;

use crate::build_ebpf::Output;
use crate::image;
use crate::lab;
use crate::process;
use crate::root::{self, Root};
use crate::setup;
use crate::tally::Tally;
use crate::vm::Line;
use crate::workspace;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};

/// Measure against budgets, which stand beside the figures.
///
/// Nanoseconds differ from machine to machine; a budget is a ratio between two programs of the same run.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Every budget of time, rate and memory in one run: tc, join, objects and live one after the other; exit 1 if one is missed (root; a quiet machine)
    Budgets {
        /// Write what was printed to docs/bench.md
        #[arg(long)]
        write: bool,
    },
    /// The tc programs, run by the kernel on prepared packets: known and new flows against an empty and a reference
    /// program (root)
    Tc {
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Records decoded, joined and named on one core, and the memory that connections and objects take
    Join {
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// What it costs to know a big cluster: memory, first sync, following changes and looking addresses up, on one core
    Objects {
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// A node without netflow, with it, and with it recording, in turn: records and CPU time of a connection through a
    /// VIP, and what each program takes of it and of a packet (root; a quiet machine)
    Live {
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// The instructions that the verifier goes through for each BPF program: of this machine's kernel, and of those
    /// named (see `cargo xtask vm list`); exit 1 if one is over half of what kernels accept or has grown by a fifth
    /// (root)
    Programs {
        /// Kernels besides this machine's
        #[arg(value_name = "KERNEL")]
        kernels: Vec<&'static Line>,
        /// Write the counts down in docs/bench.md
        #[arg(long)]
        write: bool,
    },
}

/// The command.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Budgets { write } => budgets::run(*write),
        Command::Tc { output } => exec(tc()?, *output),
        Command::Join { output } => exec(join()?, *output),
        Command::Objects { output } => exec(objects()?, *output),
        Command::Live { output } => exec(live()?, *output),
        Command::Programs { kernels, write } => verified(kernels, *write),
    }
}

fn verified(kernels: &[&'static Line], write: bool) -> Result<ExitCode> {
    let root = need()?;
    setup::ensure(if kernels.is_empty() {
        setup::For::Building
    } else {
        setup::For::Guests
    })?;
    let counts = programs::measure(root, kernels)?;
    print!("{counts}");
    let before = programs::written()?;
    if write {
        let counts = counts.over(before);
        counts::BLOCK.write(&counts.to_string())?;
        return Ok(told(&counts.complaints(&counts)));
    }
    Ok(told(&counts.complaints(&before)))
}

fn told(complaints: &[String]) -> ExitCode {
    for complaint in complaints {
        eprintln!("{complaint}");
    }
    ExitCode::from(u8::from(!complaints.is_empty()))
}

/// As a part of the test: none over half of what a kernel accepts, none grown by a fifth.
pub fn check_programs(root: Root, kernels: &[&'static Line]) -> Result<Tally> {
    let counts = programs::measure(root, kernels)?;
    let complaints = counts.complaints(&programs::written()?);
    told(&complaints);
    let failed = complaints.len() as u64;
    Ok(Tally {
        passed: (counts.len() as u64).saturating_sub(failed),
        failed,
    })
}

fn need() -> Result<Root> {
    root::need("the benchmark", "it loads BPF programs")
}

fn tc() -> Result<Process> {
    let root = need()?;
    setup::ensure(setup::For::Building)?;
    Ok(root.command(&example("bench_tc", &[])?))
}

fn join() -> Result<Process> {
    setup::ensure(setup::For::Building)?;
    Ok(Process::new(example("bench_join", &["--release"])?))
}

fn objects() -> Result<Process> {
    setup::ensure(setup::For::Building)?;
    Ok(Process::new(example("bench_objects", &["--release"])?))
}

fn live() -> Result<Process> {
    let root = lab::need()?;
    setup::ensure(setup::For::Lab)?;
    setup::ensure(setup::For::Shipping)?;
    let shipped = image::shipped()?;
    let mut bench = root.command(&lab::build_released("netflow-bench")?);
    bench.env("NETFLOW_SHIPPED", shipped);
    Ok(bench)
}

fn example(name: &str, profile: &[&str]) -> Result<PathBuf> {
    let mut args = vec!["--package", "netflow-user", "--example", name];
    args.extend(profile);
    workspace::build(&args)?.executable(name)
}

/// Becomes the benchmark.
fn exec(mut bench: Process, output: Output) -> Result<ExitCode> {
    if output == Output::Json {
        bench.args(["-o", "json"]);
    }
    let error = bench.exec();
    Err(error).with_context(|| process::show(&bench))
}
