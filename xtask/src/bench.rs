//! `cargo xtask bench`: the budgets, as ratios of one run.

mod counts;
mod programs;

use crate::build_ebpf::Output;
use crate::process;
use crate::root::{self, Root};
use crate::setup;
use crate::tally::Tally;
use crate::vm::Line;
use crate::workspace;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// Measure against the budgets of docs/architecture.md.
///
/// Nanoseconds differ from machine to machine; a budget is a ratio between two programs of the same run.
#[derive(clap::Subcommand)]
pub enum Command {
    /// The tc programs, run by the kernel on prepared packets: known and new flows against an empty and a reference
    /// program (root)
    Tc {
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
        Command::Tc { output } => tc(*output),
        Command::Programs { kernels, write } => {
            let root = need()?;
            setup::ensure(if kernels.is_empty() {
                setup::For::Building
            } else {
                setup::For::Guests
            })?;
            let counts = programs::measure(root, kernels)?;
            print!("{counts}");
            let before = programs::written()?;
            if *write {
                let counts = counts.over(before);
                programs::write(&counts)?;
                return Ok(told(&counts.complaints(&counts)));
            }
            Ok(told(&counts.complaints(&before)))
        }
    }
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

fn tc(output: Output) -> Result<ExitCode> {
    let root = need()?;
    setup::ensure(setup::For::Building)?;
    let built = workspace::build(&["--package", "netflow-user", "--example", "bench_tc"])?;
    let mut bench = root.command(&built.executable("bench_tc")?);
    if output == Output::Json {
        bench.args(["-o", "json"]);
    }
    let error = bench.exec();
    Err(error).with_context(|| process::show(&bench))
}
