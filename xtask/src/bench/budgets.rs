//! `cargo xtask bench budgets`: every budget of docs/architecture.md in one run.

use super::page::Block;
use super::{join, live, tc};
use crate::process;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::process::{Command, ExitCode};

/// Where what was printed stands in the page.
const BLOCK: Block = Block {
    begin: "<!-- budgets: cargo xtask bench budgets --write -->",
    end: "<!-- end of budgets -->",
};

/// Measures everything, and with `write` puts it into the page.
pub fn run(write: bool) -> Result<ExitCode> {
    // All is built before the first is measured.
    let benches = [("tc", tc()?), ("join", join()?), ("live", live()?)];
    let mut text = format!("{}\n", machine()?);
    let mut missed = false;
    print!("{text}");
    for (name, mut bench) in benches {
        let head = format!("\ncargo xtask bench {name}\n");
        print!("{head}");
        text.push_str(&head);
        let status = process::tee(&mut bench, |line| {
            text.push_str(line.trim_end());
            text.push('\n');
        })?;
        // 1: measured, and a budget missed.
        match status.code() {
            Some(0) => {}
            Some(1) => missed = true,
            _ => anyhow::bail!("{}: {status}", process::show(&bench)),
        }
    }
    if write {
        BLOCK.write(&format!("```text\n{text}```\n"))?;
    }
    Ok(ExitCode::from(u8::from(missed)))
}

/// What it was measured on.
fn machine() -> Result<String> {
    let names = nix::sys::utsname::uname()?;
    let cpus = std::thread::available_parallelism()?;
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let mut text = format!("Linux {}, {cpus} CPUs", names.release().to_string_lossy());
    if let Some((_, model)) = model {
        write!(text, " ({model})")?;
    }
    let commit = process::read(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    let commit = commit.context("which commit this is")?;
    write!(text, ", commit {}", commit.trim())?;
    Ok(text)
}
