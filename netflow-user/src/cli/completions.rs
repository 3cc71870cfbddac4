//! `netflow completions`.

use super::failure::Failure;
use super::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script
#[derive(Debug, Args)]
#[command(after_help = "Example:
  netflow completions bash > /etc/bash_completion.d/netflow")]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

/// Runs it.
pub fn run(args: &Completions, output: &Output) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "netflow",
        &mut script,
    );
    super::print(output, &String::from_utf8_lossy(&script))?;
    Ok(0)
}
