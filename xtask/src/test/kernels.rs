//! The lab's scenarios on other kernels than this machine's.

use crate::lab;
use crate::table::{self, Align};
use crate::tally::{self, Tally};
use crate::timing::Took;
use crate::vm::{self, Ended, Image, LINES, Line, Outcome};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::iter;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Guests side by side, and labs side by side in each of two and in one alone: much of a scenario is waiting.
const GUESTS: usize = 2;
const JOBS_OF_TWO: &str = "2";
const JOBS_ALONE: &str = "3";

/// How many times as long everything may take in a guest: an emulated CPU is about ten times slower, two
/// take turns, and each has a few labs to serve. What must be said is not loosened.
const PACE: &str = "6";

/// How long one kernel may take beside another.
const LIMIT: Duration = Duration::from_hours(1);

/// What one guest said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// Scenario → whether it was right.
    scenarios: BTreeMap<String, bool>,
    /// The tiers that capabilities ran on.
    tiers: Vec<String>,
    /// Its closing line.
    closing: Option<Tally>,
}

impl Heard {
    /// Takes one line of what the lab prints.
    fn hear(&mut self, line: &str) {
        if let Some(tiers) = line.strip_prefix("tiers ") {
            self.tiers.push(tiers.to_owned());
        } else if let Some((scenario, right)) = scenario(line) {
            self.scenarios.insert(scenario, right);
        }
        self.closing = tally::of_closing_line(line).or(self.closing);
    }
}

/// A row of the lab's table: FAULT PROXY WHERE TRAFFIC FAMILY NETWORK TIER …, and whether it was right.
fn scenario(line: &str) -> Option<(String, bool)> {
    let right = line.ends_with(" ok");
    if !right && !line.contains(" FAIL (seed ") {
        return None;
    }
    let name: Vec<&str> = line.split_whitespace().take(7).collect();
    Some((name.join("/"), right))
}

/// Which scenarios.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// So few that every test run has time for them.
    Few,
    /// One of each fault that proves a kernel, and what tunnels and IPVS do.
    All,
    /// Those whose name contains this.
    Named(String),
}

/// Runs the same scenarios on each of `lines`, or on all; prints scenario × kernel.
pub fn run(lines: &[&'static Line], seed: Option<u64>, which: &Which) -> Result<Tally> {
    let lines: Vec<&'static Line> = match lines {
        [] => LINES.iter().collect(),
        some => some.to_vec(),
    };
    let program = lab::build_optimized()?;
    let init = vm::init()?;
    // one after another, before the first guest runs
    let images = lines.iter().map(|line| Image::get(line));
    let images: Vec<Image> = images.collect::<Result<_>>()?;
    let jobs = match images.len() {
        1 => JOBS_ALONE,
        _ => JOBS_OF_TWO,
    };
    let args = args(&program, seed.unwrap_or_else(fresh_seed), jobs, which);
    let mut total = Tally::default();
    let mut good = BTreeMap::new();
    let all = in_turn(&images, |image| one(image, &init, &args));
    for (image, heard) in images.iter().zip(all) {
        match heard {
            Ok(one) => {
                total = total + one.closing.unwrap_or(Tally::FAILED);
                good.insert(image.line, one);
            }
            Err(error) => {
                eprintln!("error: kernel {}: {error:#}", image.line);
                total = total + Tally::FAILED;
            }
        }
    }
    println!("\n{}", summary(&images, &good));
    Ok(total)
}

/// Where netflow is killed at random moments: the newest of these has everything that can be left behind, the other attaches by
/// filters, which outlive their process.
const KILLED_ON: [&str; 2] = ["6.1", "6.12"];

/// How long that may take: 50 runs of ten seconds and more.
const KILLS_LIMIT: Duration = Duration::from_mins(20);

/// Kills netflow at random moments on those of `lines` that are meant for it, or on all that are.
pub fn kill(lines: &[&'static Line]) -> Result<Tally> {
    let asked = |line: &Line| lines.is_empty() || lines.iter().any(|l| l.name == line.name);
    let chosen: Vec<_> = LINES
        .iter()
        .filter(|line| KILLED_ON.contains(&line.name) && asked(line))
        .collect();
    if chosen.is_empty() {
        println!("only on {}", KILLED_ON.join(" and "));
        return Ok(Tally::default());
    }
    let netflow = lab::build_optimized()?.with_file_name("netflow");
    let tests = lab::build_live_tests()?;
    let netflow = [OsStr::new("NETFLOW_BIN="), netflow.as_os_str()].join(OsStr::new(""));
    let args = ["env".into(), netflow, tests.into(), "killed::".into()];
    let init = vm::init()?;
    let images = chosen.into_iter().map(Image::get);
    let images: Vec<Image> = images.collect::<Result<_>>()?;
    let mut total = Tally::default();
    let all = in_turn(&images, |image| kill_on(image, &init, &args));
    for (image, passed) in images.iter().zip(all) {
        let passed = passed.unwrap_or_else(|error| {
            eprintln!("error: kernel {}: {error:#}", image.line);
            false
        });
        total = total + if passed { Tally::PASSED } else { Tally::FAILED };
    }
    Ok(total)
}

/// Whether the one test ran and passed: a harness that ran none is content, too.
fn kill_on(image: &Image, init: &[u8], args: &[OsString]) -> Result<bool> {
    let mut ran = None;
    let out = Lines {
        line: image.line,
        hear: &mut |line| ran = tally::of_harness(line).or(ran),
        rest: Vec::new(),
    };
    let code = exit_code(vm::capture(image, init, args.to_vec(), KILLS_LIMIT, out)?)?;
    Ok(code == 0 && ran == Some(Tally::PASSED))
}

/// Runs something on each kernel, on a few at a time: a guest keeps one of two CPUs busy. Where one has ended, the next begins.
fn in_turn<T: Send>(images: &[Image], run: impl Fn(&Image) -> Result<T> + Sync) -> Vec<Result<T>> {
    let timed = |image: &Image| {
        let began = Instant::now();
        let said = run(image)?;
        println!("{:>5} | in {}", image.line, Took(began.elapsed()));
        Ok(said)
    };
    let waiting = Mutex::new(images.iter().enumerate());
    // The lock is for taking one, not for running it.
    let take = || waiting.lock().ok()?.next();
    let serve = || {
        let served = iter::from_fn(take).map(|(i, image)| (i, timed(image)));
        served.collect::<Vec<_>>()
    };
    let lost = |_| Err(anyhow!("the thread of its guest panicked"));
    let mut all: Vec<Result<T>> = images.iter().map(lost).collect();
    thread::scope(|scope| {
        // All of them start before any is waited for.
        let serving: Vec<_> = (0..GUESTS).map(|_| scope.spawn(serve)).collect();
        let ended = serving.into_iter().map(thread::ScopedJoinHandle::join);
        for (i, said) in ended.flatten().flatten() {
            all[i] = said;
        }
    });
    all
}

/// The lab's command line in the guest.
fn args(program: &Path, seed: u64, jobs: &str, which: &Which) -> Vec<OsString> {
    let seed = seed.to_string();
    let mut args: Vec<OsString> = vec![program.into()];
    args.extend(["scenarios", "--pace", PACE, "--jobs", jobs, "--seed", &seed].map(Into::into));
    match which {
        Which::Few => args.push("--few".into()),
        Which::All => args.push("--kernel".into()),
        Which::Named(only) => args.extend(["--only", only].map(Into::into)),
    }
    args
}

/// All kernels get the same scenarios, so that they can be compared.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_micros()))
}

/// One kernel.
fn one(image: &Image, init: &[u8], args: &[OsString]) -> Result<Heard> {
    let mut heard = Heard::default();
    let out = Lines {
        line: image.line,
        hear: &mut |line| heard.hear(line),
        rest: Vec::new(),
    };
    exit_code(vm::capture(image, init, args.to_vec(), LIMIT, out)?)?;
    heard.closing.context("no closing line")?;
    Ok(heard)
}

/// The exit code of what came to its own end.
fn exit_code(ended: Ended) -> Result<u8> {
    let Ended {
        outcome,
        console,
        boot: _,
    } = ended;
    match outcome {
        Outcome::Exited(code) => Ok(code),
        Outcome::Killed(signal) => anyhow::bail!("signal {signal} ended it"),
        Outcome::TooLong => anyhow::bail!("it did not end in time; its console:\n{console}"),
        Outcome::Lost(loss) => anyhow::bail!("{loss}; the end of its console:\n{console}"),
    }
}

/// Passes lines on, each with the kernel before it, and listens.
struct Lines<'a> {
    line: &'static str,
    hear: &'a mut (dyn FnMut(&str) + Send),
    rest: Vec<u8>,
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            (self.hear)(line);
            println!("{:>5} | {line}", self.line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

/// Scenario × kernel, then kernel × tier.
fn summary(images: &[Image], heard: &BTreeMap<&str, Heard>) -> String {
    let mut scenarios: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (line, one) in heard {
        for (scenario, right) in &one.scenarios {
            let kernels = scenarios.entry(scenario).or_default();
            if *right {
                kernels.push(line);
            }
        }
    }
    let all = heard.len();
    let rows: Vec<_> = scenarios
        .into_iter()
        .map(|(scenario, kernels)| {
            let right = if kernels.len() == all {
                "right on all".to_owned()
            } else {
                format!("right on: {}", kernels.join(", "))
            };
            [scenario.to_owned(), right]
        })
        .collect();
    let heads = [("scenario", Align::Left), ("kernels", Align::Left)];
    let mut text = table::render(heads, &rows);
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            let tiers = heard.get(image.line).map(|one| one.tiers.join("; "));
            [
                image.line.to_owned(),
                image.release.clone(),
                tiers.unwrap_or_default(),
            ]
        })
        .collect();
    text.push('\n');
    let heads = ["kernel", "release", "tiers"].map(|head| (head, Align::Left));
    text.push_str(&table::render(heads, &rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_told_from_other_lines() {
        let right =
            "backend-gone    nftables  same  fresh  ipv4  bridge  best  backend-gone  3.1  ok";
        let wrong =
            "backend-gone  nftables  same  fresh  ipv4  bridge  best  -  0.0  FAIL (seed 4) no";
        let name = "backend-gone/nftables/same/fresh/ipv4/bridge/best".to_owned();
        assert_eq!(scenario(right), Some((name.clone(), true)));
        assert_eq!(scenario(wrong), Some((name, false)));
        for other in ["seed 4, 24 scenarios", "24 passed, 0 failed", "failed:", ""] {
            assert_eq!(scenario(other), None, "{other}");
        }
    }

    #[test]
    fn lines_are_heard_whole_however_they_come() -> std::io::Result<()> {
        let mut heard = Heard::default();
        let mut lines = Lines {
            line: "6.12",
            hear: &mut |line| heard.hear(line),
            rest: Vec::new(),
        };
        for part in [
            "a b c d e f g h 1.0 o",
            "k\ntiers flow=tcx\n1 pas",
            "sed, 0 failed\n",
        ] {
            lines.write_all(part.as_bytes())?;
        }
        assert_eq!(heard.scenarios, [("a/b/c/d/e/f/g".to_owned(), true)].into());
        assert_eq!(heard.tiers, ["flow=tcx"]);
        assert_eq!(heard.closing, Some(Tally::PASSED));
        Ok(())
    }
}
