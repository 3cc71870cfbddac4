//! The project's own commands. `cargo xtask --help` lists them.
//!
//! This crate depends on no other member but the guest's first process: those need the tools that `setup` installs.
//! It calls cargo and the programs that cargo built.

mod bench;
mod build_ebpf;
mod cache;
mod cluster;
mod demo;
mod dependencies;
mod fuzz;
mod image;
mod lab;
mod object;
mod process;
mod root;
mod setup;
mod table;
mod tally;
mod test;
mod timing;
mod vm;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// Builds, shows and tests netflow.
///
/// A fresh clone needs rustup and a C linker (Debian: build-essential), nothing else: every command installs what
/// it misses before it starts, and says so.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Start here:
  cargo xtask demo              break a Service in the lab and see netflow explain it (root)
  cargo xtask test              every check there is (root)
  cargo xtask test unit         the checks without the lab's scenarios
  cargo xtask fuzz              broken input for every reader of outside bytes
  cargo xtask lab up            a lab that stays, to try netflow by hand (root)
  cargo xtask cluster up        a real Kubernetes with two nodes, to try netflow in (root)
  cargo xtask vm run 6.12 -- CMD  any command on another kernel
  cargo xtask image             netflow as it is shipped, as an image of one static binary"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Demo(demo::Args),
    #[command(subcommand)]
    Lab(lab::Command),
    #[command(subcommand)]
    Cluster(cluster::Command),
    Test(test::Args),
    #[command(subcommand)]
    Bench(bench::Command),
    Fuzz(fuzz::Args),
    Image(image::Args),
    #[command(subcommand)]
    Vm(vm::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Lab(command) => lab::run(&command),
        Command::Cluster(command) => cluster::run(&command),
        Command::Test(args) => test::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Vm(command) => vm::run(&command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
