//! The `netflow` binary: parse, dispatch, exit code.

use anyhow::Context;
use clap::Parser;
use netflow_user::cli::failure::Failure;
use netflow_user::cli::output::Output;
use netflow_user::cli::{self, Cli};
use std::process::ExitCode;

/// Bad usage, or it could not run.
const EXIT_FAILURE: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(e) => usage(&e, &words),
    }
}

fn run(cli: &Cli) -> ExitCode {
    let output = Output::new(&cli.global);
    match cli::run(cli, &output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output.notice(&failure);
            if !failure.hint.is_empty() {
                output.notice(format_args!("hint: {}", failure.hint));
            }
            report(&failure, cli.global.output.is_json(), &output)
        }
    }
}

/// `--help` and `--version` are answers; the rest is bad usage.
fn usage(e: &clap::Error, words: &[String]) -> ExitCode {
    // Nothing can be said about streams that are closed.
    drop(e.print().context("printing help"));
    if !e.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let text = e.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    let message = line.strip_prefix("error: ").unwrap_or(line);
    let failure = Failure::new("usage", message, "see `netflow --help`");
    let output = Output::new(&cli::args::Global::default());
    report(&failure, cli::wants_json(words), &output)
}

/// Whoever asked for JSON gets the failure as JSON too.
fn report(failure: &Failure, json: bool, output: &Output) -> ExitCode {
    if json {
        drop(output.answer(&(failure.json() + "\n")));
    }
    ExitCode::from(EXIT_FAILURE)
}
