//! `cargo xtask bench budgets`: every budget of time, rate and memory in one run.

use super::page::Block;
use super::{join, live, objects, tc};
use crate::process;
use crate::workspace;
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
    let benches = [
        ("tc", tc()?),
        ("join", join()?),
        ("objects", objects()?),
        ("live", live()?),
    ];
    let mut text = format!("{}\n", machine()?);
    let mut missed = false;
    print!("{text}");
    for (name, mut bench) in benches {
        let head = format!("\ncargo xtask bench {name}\n");
        print!("{head}");
        text.push_str(&head);
        let headed = text.len();
        let status = process::tee(&mut bench, |line| {
            text.push_str(line.trim_end());
            text.push('\n');
        })?;
        // Figures are printed once all are there: 1 with figures says that a budget is missed, without them that it failed.
        match status.code() {
            Some(0) => {}
            Some(1) if text.len() > headed => missed = true,
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
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(workspace::root());
    let commit = process::read(&mut git);
    let commit = commit.context("which commit this is")?;
    write!(text, ", commit {}", commit.trim())?;
    Ok(text)
}
