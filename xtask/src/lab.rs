//! `cargo xtask lab`: a lab that stays.

use crate::process;
use crate::root::{self, Root};
use crate::setup;
use crate::workspace;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// A lab that stays, to try netflow by hand.
///
/// Two nodes, a router between them, Pods, and a client outside the cluster, all in network namespaces of their
/// own: the machine's own network is not touched.
#[derive(clap::Subcommand)]
#[command(after_help = "\
An afternoon with it:
  cargo xtask lab up                              raise it; prints what is in it
  cargo xtask lab exec NODE -- netflow explain …  any command in a node or a Pod
  cargo xtask lab down                            take it down; nothing remains

Options after the command go to the lab itself: cargo xtask lab up --help")]
pub enum Command {
    /// Raise the lab
    #[command(disable_help_flag = true)]
    Up(Rest),
    /// Take it down
    #[command(disable_help_flag = true)]
    Down(Rest),
    /// Say what is up
    #[command(disable_help_flag = true)]
    Status(Rest),
    /// Run a command in a node or a Pod: exec NODE-OR-POD -- CMD
    #[command(disable_help_flag = true)]
    Exec(Rest),
}

/// What is handed on as it is.
#[derive(clap::Args)]
pub struct Rest {
    /// Arguments of the lab
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The command.
pub fn run(command: &Command) -> Result<ExitCode> {
    let (name, Rest { args }) = match command {
        Command::Up(rest) => ("up", rest),
        Command::Down(rest) => ("down", rest),
        Command::Status(rest) => ("status", rest),
        Command::Exec(rest) => ("exec", rest),
    };
    let mut all = vec![OsString::from(name)];
    all.extend(args.iter().cloned());
    become_lab(need()?, &all)
}

/// Sets up, builds, and becomes the lab's program, so that signals reach it.
pub fn become_lab(root: Root, args: &[OsString]) -> Result<ExitCode> {
    setup::ensure(setup::For::Lab)?;
    let mut lab = build(root)?;
    lab.args(args);
    let error = lab.exec();
    Err(error).with_context(|| process::show(&lab))
}

/// Root for the lab, announced.
pub fn need() -> Result<Root> {
    root::need(
        "the lab",
        "it makes network namespaces and loads BPF programs",
    )
}

/// netflow, the lab and its traffic; the lab finds the other two beside itself.
const PROGRAMS: [&str; 5] = [
    "--package",
    "netflow-user",
    "--package",
    "netflow-tests",
    "--bins",
];

/// Builds the lab and what it runs.
pub fn build(root: Root) -> Result<std::process::Command> {
    let built = workspace::build(&PROGRAMS)?;
    Ok(root.command(&built.executable("netflow-lab")?))
}

/// What a guest finds by its name.
const NAMES: [&str; 3] = ["netflow", "netflow-lab", "netflow-traffic"];

/// Whether a command calls one of the programs by its bare name, itself or in a shell's line.
pub fn is_named(command: &[OsString]) -> bool {
    command.iter().any(|word| {
        let word = word.to_string_lossy();
        word.split_whitespace().any(|part| NAMES.contains(&part))
    })
}

/// Builds the same as it is shipped, and says where `name` of it is.
pub fn build_released(name: &str) -> Result<PathBuf> {
    let mut args = PROGRAMS.to_vec();
    args.push("--release");
    workspace::build(&args)?.executable(name)
}

/// Builds the same, optimized: for many labs side by side, and for guests, whose CPUs are slow enough.
pub fn build_optimized() -> Result<PathBuf> {
    let mut args = PROGRAMS.to_vec();
    args.extend(["--profile", "lab"]);
    workspace::build(&args)?.executable("netflow-lab")
}

/// Builds the tests that run netflow in namespaces of their own.
pub fn build_live_tests() -> Result<PathBuf> {
    workspace::build(&["--package", "netflow-user", "--test", "live"])?.executable("live")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_programs_are_known_by_their_bare_names() {
        let named = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            is_named(&words)
        };
        assert!(named(&["netflow", "doctor"]));
        assert!(named(&["sh", "-c", "ip netns list; netflow doctor"]));
        assert!(!named(&["target/debug/netflow", "doctor"]));
        assert!(!named(&["uname", "-a"]));
    }
}
