//! `cargo xtask test`: every check there is.

mod cluster;
mod kernels;

use crate::bench;
use crate::dependencies;
use crate::lab;
use crate::process;
use crate::root::{self, Root};
use crate::setup;
use crate::table::{self, Align};
use crate::tally::{self, Tally};
use crate::timing::Took;
use crate::vm::{LINES, Line};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Run the checks; the last line is `N passed, N failed`.
///
/// A part that fails does not keep the others from running; the exit code is 1 if any failed.
#[derive(clap::Args)]
#[command(after_help = "\
Parts, in order: format, clippy, clippy of the BPF crate, dependencies (licences,
duplicate versions), what the verifier spends on each program (docs/bench.md), unit and
integration tests; then the lab's scenarios: real packets, real faults, and what netflow
says about them; then a few of them on each kernel of `cargo xtask vm list`, in emulated
machines: those that a kernel shows by means of its own. `--scenario` leaves these out, with
`--full` they are as many as below.

`cargo xtask test kernels [KERNEL…]` runs twice as many on each of these kernels, or on
those that are named, has them verify every program, and kills netflow at random moments
on two of them.

`cargo xtask test cluster` raises real clusters (`cargo xtask cluster`), uses them, kills `up` at
several moments, and looks for what remains. It is no part of a test without `cluster`: the first
time their programs are built, which takes about half an hour.")]
pub struct Args {
    /// Only the checks without the lab, only the lab, all there is for other kernels, or real clusters [default: checks, lab
    /// and a few on each kernel]
    #[arg(value_enum)]
    only: Option<Only>,
    /// With `kernels`: which [default: all]
    #[arg(value_name = "KERNEL")]
    kernels: Vec<&'static Line>,
    /// With `kernels`: no more on them than in every test run
    #[arg(long, conflicts_with_all = ["full", "scenario"])]
    few: bool,
    /// Every scenario and code instead of the subset that each run proves
    #[arg(long)]
    full: bool,
    /// Only scenarios whose name FAULT/PROXY/WHERE/TRAFFIC/FAMILY/NETWORK/TIER contains this
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
    /// Draw every lab from this number; each run prints the one it used [default: for the whole test one made of the commit,
    /// so that it proves the same wherever it runs; for a part another each time]
    #[arg(long)]
    seed: Option<u64>,
}

/// Part of the checks.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// Everything but the lab's scenarios
    Unit,
    /// The lab's scenarios
    Lab,
    /// Scenarios on other kernels
    Kernels,
    /// Real clusters, and what they leave
    Cluster,
}

/// One part of the test.
struct Part {
    name: &'static str,
    run: Box<dyn Fn() -> Result<Checked>>,
}

impl Part {
    fn new<C: Into<Checked>>(name: &'static str, run: impl Fn() -> Result<C> + 'static) -> Part {
        Part {
            name,
            run: Box::new(move || run().map(Into::into)),
        }
    }
}

/// What a part has found.
struct Checked {
    tally: Tally,
    /// The lines that say what failed, where the part has such.
    failed: Vec<String>,
}

impl From<Tally> for Checked {
    fn from(tally: Tally) -> Checked {
        Checked {
            tally,
            failed: Vec::new(),
        }
    }
}

/// How a part went.
struct Outcome {
    name: &'static str,
    checked: Checked,
    time: Duration,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let root = root::need(
        "the test",
        "it makes network namespaces and loads BPF programs",
    )?;
    if !args.kernels.is_empty() && args.only != Some(Only::Kernels) {
        bail!("kernels are named after `kernels`: cargo xtask test kernels 6.12");
    }
    if args.few && args.only != Some(Only::Kernels) {
        bail!("--few goes with `kernels`; without it every test run has the few");
    }
    setup::ensure(match args.only {
        Some(Only::Kernels) => setup::For::Guests,
        None if args.scenario.is_none() => setup::For::Guests,
        Some(Only::Cluster) => setup::For::Cluster,
        None | Some(Only::Unit | Only::Lab) => setup::For::Lab,
    })?;
    let outcomes: Vec<Outcome> = parts(args, root).iter().map(Part::outcome).collect();
    let total = outcomes
        .iter()
        .fold(Tally::default(), |sum, outcome| sum + outcome.checked.tally);
    println!("\n{}", summary(&outcomes));
    // Once more at the end: of a long log often only that is kept.
    for line in outcomes.iter().flat_map(|o| &o.checked.failed) {
        println!("{line}");
    }
    println!("in {}", Took(began.elapsed()));
    println!("{total}");
    Ok(ExitCode::from(u8::from(total.failed > 0)))
}

/// The number from which labs are drawn; `None` = whatever the program that draws likes.
fn seed(args: &Args) -> Option<u64> {
    let whole = || args.only.is_none().then(workspace::commit).flatten();
    args.seed.or_else(|| number_of(&whole()?))
}

/// A number made of a commit, as short as those that are drawn.
fn number_of(commit: &str) -> Option<u64> {
    let digits = commit.get(..12)?;
    Some(u64::from_str_radix(digits, 16).ok()? % 1_000_000)
}

fn parts(args: &Args, root: Root) -> Vec<Part> {
    let mut parts = Vec::new();
    if args.only == Some(Only::Cluster) {
        parts.push(Part::new("cluster", cluster::run));
        return parts;
    }
    if args.only == Some(Only::Kernels) {
        let (lines, seed, only) = (args.kernels.clone(), seed(args), args.scenario.clone());
        if args.few {
            parts.push(Part::new("kernels", move || {
                kernels::run(&lines, seed, &kernels::Which::Few)
            }));
            return parts;
        }
        let verified = if lines.is_empty() {
            LINES.iter().collect()
        } else {
            lines.clone()
        };
        parts.push(Part::new("verified instructions", move || {
            bench::check_programs(root, &verified)
        }));
        let killed = lines.clone();
        let whole = only.is_none();
        parts.push(Part::new("kernels", move || {
            let which = only
                .clone()
                .map_or(kernels::Which::All, kernels::Which::Named);
            kernels::run(&lines, seed, &which)
        }));
        if whole {
            parts.push(Part::new("killed at random moments", move || {
                kernels::kill(&killed)
            }));
        }
        return parts;
    }
    if args.only != Some(Only::Lab) {
        parts.push(Part::new("format", format));
        parts.push(Part::new("clippy", clippy));
        parts.push(Part::new("clippy of the BPF crate", clippy_ebpf));
        parts.push(Part::new("dependencies", dependencies::check));
        parts.push(Part::new("verified instructions", move || {
            bench::check_programs(root, &[])
        }));
        parts.push(Part::new("unit and integration", move || cargo_test(root)));
    }
    if args.only != Some(Only::Unit) {
        let wanted = wanted(args);
        parts.push(Part::new("lab scenarios", move || scenarios(root, &wanted)));
    }
    // What is named runs where it is quick to see.
    if args.only.is_none() && args.scenario.is_none() {
        let seed = seed(args);
        let which = if args.full {
            kernels::Which::All
        } else {
            kernels::Which::Few
        };
        parts.push(Part::new("scenarios on other kernels", move || {
            kernels::run(&[], seed, &which)
        }));
    }
    parts
}

impl Part {
    fn outcome(&self) -> Outcome {
        let Part { name, run } = self;
        println!("\n── {name}");
        let began = Instant::now();
        let checked = run().unwrap_or_else(|error| {
            let line = format!("error: {name}: {error:#}");
            eprintln!("{line}");
            Checked {
                tally: Tally::FAILED,
                failed: vec![line],
            }
        });
        Outcome {
            name,
            checked,
            time: began.elapsed(),
        }
    }
}

fn summary(outcomes: &[Outcome]) -> String {
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let Outcome {
                name,
                checked: Checked { tally, failed: _ },
                time,
            } = outcome;
            [
                (*name).to_owned(),
                tally.passed.to_string(),
                tally.failed.to_string(),
                Took(*time).to_string(),
            ]
        })
        .collect();
    table::render(
        [
            ("part", Align::Left),
            ("passed", Align::Right),
            ("failed", Align::Right),
            ("time", Align::Right),
        ],
        &rows,
    )
}

fn format() -> Result<Tally> {
    one(workspace::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<Tally> {
    one(workspace::cargo().args([
        "clippy",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The BPF crate is linted for the target that it is built for. Its own target directory, because `RUSTC_BOOTSTRAP`
/// makes the build scripts of shared dependencies run again.
fn clippy_ebpf() -> Result<Tally> {
    one(workspace::cargo()
        .current_dir(workspace::root().join("netflow-ebpf"))
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["clippy", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--locked"])
        .arg("--target-dir")
        .arg(workspace::root().join("target").join("clippy-ebpf"))
        .args(["--", "-D", "warnings"]))
}

/// A check that is one thing: its exit status is the result.
fn one(command: &mut Command) -> Result<Tally> {
    process::run(command)?;
    Ok(Tally::PASSED)
}

fn cargo_test(root: Root) -> Result<Checked> {
    let mut members = tests(root, &["test", "--locked", "--no-fail-fast"])?;
    // not a default member: its program is for the kernel, its library (the ABI) is tested here
    let abi = tests(
        root,
        &[
            "test",
            "--locked",
            "--no-fail-fast",
            "--package",
            "netflow-ebpf",
            "--lib",
        ],
    )?;
    members.tally = members.tally + abi.tally;
    members.failed.extend(abi.failed);
    Ok(members)
}

/// Runs `cargo test` and adds up what the harnesses say.
fn tests(root: Root, args: &[&str]) -> Result<Checked> {
    let mut cargo = workspace::cargo();
    cargo.args(args);
    root.runner(&mut cargo);
    let mut total = Tally::default();
    let mut failed = Vec::new();
    let status = process::tee(&mut cargo, |line| {
        if let Some(tally) = tally::of_harness(line) {
            total = total + tally;
        }
        if line.starts_with("test ") && line.ends_with("FAILED") {
            failed.push(line.to_owned());
        }
    })?;
    if !status.success() && total.failed == 0 {
        bail!("{}: {status}", process::show(&cargo));
    }
    Ok(Checked {
        tally: total,
        failed,
    })
}

/// Which scenarios, as the lab's program takes it.
fn wanted(args: &Args) -> Vec<String> {
    let Args {
        only: _,
        kernels: _,
        few: _,
        full,
        scenario,
        seed: _,
    } = args;
    let mut words = Vec::new();
    words.extend(full.then(|| "--full".to_owned()));
    if let Some(scenario) = scenario {
        words.extend(["--only".to_owned(), scenario.clone()]);
    }
    if let Some(seed) = seed(args) {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    words
}

fn scenarios(root: Root, wanted: &[String]) -> Result<Checked> {
    let mut lab = root.command(&lab::build_optimized()?);
    lab.arg("scenarios").args(wanted);
    let mut closing = None;
    // From its headline on, the lab repeats what failed; before, it may be late and right when it is alone.
    let mut repeats = false;
    let mut failed = Vec::new();
    let status = process::tee(&mut lab, |line| {
        closing = tally::of_closing_line(line).or(closing);
        repeats |= line == "failed:";
        if repeats && line.contains("FAIL ") {
            failed.push(line.to_owned());
        }
    })?;
    let tally =
        closing.with_context(|| format!("{}: no closing line: {status}", process::show(&lab)))?;
    if !status.success() && tally.failed == 0 {
        bail!("{}: {status}", process::show(&lab));
    }
    Ok(Checked { tally, failed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn seed_of(words: &[&str]) -> Option<u64> {
        seed(&Cli::parse_from([&["test"], words].concat()).args)
    }

    #[test]
    fn the_whole_test_of_a_commit_always_draws_the_same() {
        let made = workspace::commit().and_then(|commit| number_of(&commit));
        assert_eq!(seed_of(&[]), made);
        assert_eq!(seed_of(&["--seed", "7"]), Some(7));
        assert_eq!(seed_of(&["lab"]), None);
        assert_eq!(seed_of(&["kernels", "--seed", "8"]), Some(8));
        let number = number_of("0c3bc0c5a6100000000000000000000000000000");
        assert_eq!(number, Some(0x0c3b_c0c5_a610 % 1_000_000));
        assert_eq!(number_of("no commit"), None);
    }
}
