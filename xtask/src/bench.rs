//! `cargo xtask bench`: the budgets, as ratios of one run.

use crate::build_ebpf::Output;
use crate::process;
use crate::root;
use crate::setup;
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
}

/// The command.
pub fn run(command: &Command) -> Result<ExitCode> {
    let Command::Tc { output } = command;
    let root = root::need("the benchmark", "it loads BPF programs")?;
    setup::ensure(setup::For::Building)?;
    let built = workspace::build(&["--package", "netflow-user", "--example", "bench_tc"])?;
    let mut bench = root.command(&built.executable("bench_tc")?);
    if *output == Output::Json {
        bench.args(["-o", "json"]);
    }
    let error = bench.exec();
    Err(error).with_context(|| process::show(&bench))
}
