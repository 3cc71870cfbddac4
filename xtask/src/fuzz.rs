//! `cargo xtask fuzz`: broken input for every reader of bytes that others write.
//!
//! The targets are laid out as cargo-fuzz has them (`tests/fuzz`), but it is not needed: what it asks of the compiler are
//! flags that the pinned stable one takes (`tests/fuzz/rustc.sh`).

mod run;

use crate::setup;
use crate::table::{self, Align};
use crate::workspace::{self, Built};
use anyhow::{Context, Result, bail};
use run::Ran;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Give every reader of outside bytes input that grows ever more broken; exit 1 if one panics, hangs or takes memory
/// without bound.
///
/// Needs no root. Begins with the seeds in tests/fuzz/seeds and with what earlier runs found to reach more code
/// (target/fuzzing/corpus).
#[derive(clap::Args)]
#[command(after_help = "\
What is found stands in target/fuzzing/found: fix the reader, and make the bytes a test beside it.

Examples:
  cargo xtask fuzz                        every target, 30 s each
  cargo xtask fuzz nftables --secs 600")]
pub struct Args {
    /// Which readers [default: all]; the files of `tests/fuzz/fuzz_targets`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    secs: u32,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let targets = chosen(&args.targets, &known()?)?;
    setup::ensure(setup::For::Fuzzing)?;
    let built = build(&targets)?;
    let time = Duration::from_secs(args.secs.into());
    let mut all = Vec::new();
    for target in targets {
        eprintln!("{target}: {} s", args.secs);
        let ran = run::run(&target, &built.executable(&target)?, time)?;
        if let Some(found) = &ran.found {
            eprintln!("{found}");
        }
        all.push(ran);
    }
    print!("{}", summary(&all));
    Ok(ExitCode::from(u8::from(
        all.iter().any(|ran| ran.found.is_some()),
    )))
}

/// Names of the targets there are.
fn known() -> Result<Vec<String>> {
    let directory = workspace::root().join("tests/fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let path: PathBuf = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        names.extend(stem.map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

fn chosen(asked: &[String], known: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|name| !known.contains(name)) {
        bail!("no target {unknown}; there are {}", known.join(", "));
    }
    Ok(if asked.is_empty() { known } else { asked }.to_vec())
}

fn build(targets: &[String]) -> Result<Built> {
    let mut cargo = workspace::cargo();
    cargo
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            workspace::root().join("tests/fuzz/rustc.sh"),
        )
        // Each build is whole: hundreds of small units are slow to instrument.
        .env("CARGO_INCREMENTAL", "0")
        .args(["build", "--locked", "--package", "netflow-fuzz"]);
    for target in targets {
        cargo.args(["--bin", target]);
    }
    workspace::built(cargo.arg(workspace::MESSAGES))
}

fn summary(all: &[Ran]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|ran| {
            [
                ran.target.clone(),
                ran.executions.to_string(),
                ran.edges.to_string(),
                ran.found.as_ref().map_or("ok", |found| found.what()).into(),
            ]
        })
        .collect();
    table::render(
        [
            ("target", Align::Left),
            ("executions", Align::Right),
            ("edges", Align::Right),
            ("result", Align::Left),
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_targets_or_those_named() -> Result<()> {
        let known = names(&["btf", "ring"]);
        assert_eq!(chosen(&[], &known)?, known);
        assert_eq!(chosen(&names(&["ring"]), &known)?, names(&["ring"]));
        let Err(error) = chosen(&names(&["rings"]), &known) else {
            bail!("rings is no target");
        };
        assert_eq!(error.to_string(), "no target rings; there are btf, ring");
        Ok(())
    }

    #[test]
    fn every_target_has_seeds_and_every_seed_a_target() -> Result<()> {
        let mut seeds = Vec::new();
        for entry in fs::read_dir(workspace::root().join("tests/fuzz/seeds"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                seeds.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        seeds.sort_unstable();
        assert_eq!(seeds, known()?);
        Ok(())
    }
}
