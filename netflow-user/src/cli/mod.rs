//! The command line: one file per subcommand.

mod agent;
pub mod args;
mod changes;
mod cleanup;
mod codes;
mod completions;
mod doctor;
pub mod duration;
mod explain;
pub mod failure;
mod fleet;
mod host;
mod install;
pub mod interrupt;
mod live;
mod look;
mod objects;
pub mod output;
mod remote;
pub mod render;
mod replay;
mod screen;
pub mod session;
mod since;
mod size;
mod status;
pub mod target;
mod watch;
mod whom;

use self::failure::Failure;
use self::output::Output;
use clap::{Parser, Subcommand};

/// The commit that this netflow was built from.
const COMMIT: &str = match option_env!("NETFLOW_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Says why a Kubernetes Service fails, from the packets on the node
#[derive(Debug, Parser)]
#[command(
    name = "netflow",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  netflow explain --svc app/web-api --manifests objects.yaml
      which hop broke, why, and what to do (root, on a node)
  netflow explain --replay node-1.nfr node-2.nfr
      the same from recordings, without root
  netflow codes target-port-mismatch
      what a code means
  netflow doctor
      what can be seen on this node

Exit status: 0 well, 1 a fault was found, 2 could not run, 3 not enough evidence"
)]
pub struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    pub global: args::Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at the packets to a Service and say which hop is broken, why, and what proves it
    Explain(explain::Explain),
    /// Follow a Service live: its path, findings and connections, on a screen or as lines
    Watch(watch::Watch),
    /// List the codes that findings carry, or explain one
    Codes(codes::Codes),
    /// Stay on this node, with the programs loaded, and answer whoever explains
    Agent(agent::Agent),
    /// Say how the agent of this node is
    Status(status::Status),
    /// Print the objects that run the agent on every node, for kubectl apply
    Install(install::Install),
    /// Print the same objects, for kubectl delete
    Uninstall(install::Uninstall),
    /// Say what can be seen on this node, on which tier, and what is lost
    Doctor(doctor::Doctor),
    /// Remove what a killed netflow left attached
    Cleanup(cleanup::Cleanup),
    /// Print a completion script
    Completions(completions::Completions),
}

/// Runs a command; the result is the exit code. A failure is exit code 2.
pub fn run(cli: &Cli, output: &Output) -> Result<u8, Failure> {
    let format = cli.global.output;
    match &cli.command {
        Command::Explain(args) => explain::run(args, output, format),
        Command::Watch(args) => watch::run(args, output, format),
        Command::Codes(args) => codes::run(args, output, format),
        Command::Agent(args) => agent::run(args, output, format),
        Command::Status(args) => status::run(args, output, format),
        Command::Install(args) => install::run(args, output),
        Command::Uninstall(args) => install::undo(args, output),
        Command::Doctor(args) => doctor::run(args, output, format),
        Command::Cleanup(args) => cleanup::run(args, output, format),
        Command::Completions(args) => completions::run(args, output),
    }
}

/// Whether JSON was asked for, read off the words themselves: also when they do not parse.
pub fn wants_json(words: &[String]) -> bool {
    let json = |value: &str| matches!(value, "json" | "jsonl");
    words.iter().enumerate().any(|(n, word)| {
        let next = || words.get(n + 1).is_some_and(|w| json(w));
        match word.as_str() {
            "-o" | "--output" => next(),
            word => word
                .strip_prefix("--output=")
                .or_else(|| word.strip_prefix("-o"))
                .is_some_and(|v| json(v.trim_start_matches('='))),
        }
    })
}

/// Writes a part of the answer. That nobody reads it any more is no failure.
fn print(output: &Output, text: &str) -> Result<bool, Failure> {
    output.answer(text).map_err(|e| {
        Failure::new(
            "output",
            format!("the answer could not be written: {e}"),
            "",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_do_not_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_seen_in_words_that_do_not_parse() {
        let table = [
            ("explain -o json --nonsense", true),
            ("explain --output=jsonl", true),
            ("explain -ojson", true),
            ("explain --output json", true),
            ("explain -o text", false),
            ("explain json", false),
        ];
        for (line, want) in table {
            let words: Vec<String> = line.split(' ').map(Into::into).collect();
            assert_eq!(wants_json(&words), want, "{line}");
        }
    }
}
