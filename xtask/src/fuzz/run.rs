//! One target, run for a time.

use crate::process;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One input may take so many seconds; a reader takes microseconds.
const LONGEST: &str = "-timeout=10";

/// Address space in KiB: memory by a length that nobody checked fails here, used or not.
const MEMORY: &str = "2097152";

/// What one target did.
pub struct Ran {
    pub target: String,
    /// Inputs given.
    pub executions: u64,
    /// Edges of the program that some input took.
    pub edges: u64,
    pub found: Option<Found>,
}

/// Input that a reader does not stand.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    program: PathBuf,
    /// The input.
    input: PathBuf,
    /// What the program said of it.
    said: String,
}

impl Found {
    /// In one word: `crash`, `timeout`, `oom`.
    pub fn what(&self) -> &str {
        let name = self.input.file_name().and_then(|name| name.to_str());
        let kind = name.and_then(|name| name.split_once('-'));
        kind.map_or("crash", |(kind, _)| kind)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, input) = (self.program.display(), self.input.display());
        write!(
            f,
            "{}: {input}\n{}\nagain: {program} {input}\nFix the reader, and make these bytes a test beside it.",
            self.what(),
            self.said
        )
    }
}

/// Runs `program` for so long, or until it finds something.
pub fn run(target: &str, program: &Path, time: Duration) -> Result<Ran> {
    let fuzzing = workspace::root().join("target").join("fuzzing");
    let corpus = directory(fuzzing.join("corpus").join(target))?;
    let found = directory(fuzzing.join("found").join(target))?;
    let seeds = workspace::root().join("tests/fuzz/seeds").join(target);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v $0 && exec \"$@\"", MEMORY])
        .arg(program)
        .args([&corpus, &seeds])
        .args([LONGEST, "-print_final_stats=1", "-use_value_profile=1"])
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .stdin(Stdio::null());
    let output = limited.output().with_context(|| process::show(&limited))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let ran = Ran {
        target: target.to_owned(),
        executions: number(&said, "stat::number_of_executed_units:").unwrap_or(0),
        edges: number(&said, " cov:").unwrap_or(0),
        found: found_in(&said, program),
    };
    if !output.status.success() && ran.found.is_none() {
        bail!("{}: {}\n{said}", process::show(&limited), output.status);
    }
    Ok(ran)
}

fn directory(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The number after the last `label`.
fn number(said: &str, label: &str) -> Option<u64> {
    let (_, after) = said.rsplit_once(label)?;
    after.split_whitespace().next()?.parse().ok()
}

/// The input that libFuzzer wrote, and what was said before it about why.
fn found_in(said: &str, program: &Path) -> Option<Found> {
    const WRITTEN: &str = "Test unit written to ";
    let (before, after) = said.split_once(WRITTEN)?;
    let begins = |line: &&str| line.contains("panicked at") || line.starts_with("==");
    let why = before.lines().skip_while(|line| !begins(line)).take(4);
    Some(Found {
        program: program.to_owned(),
        input: after.lines().next()?.into(),
        said: why.collect::<Vec<_>>().join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "\
#2\tINITED cov: 100 ft: 200 corp: 3/1Kb exec/s: 0 rss: 40Mb
#4096\tpulse  cov: 120 ft: 260 corp: 9/3Kb exec/s: 2048 rss: 50Mb
#9000\tDONE   cov: 125 ft: 270 corp: 10/3Kb exec/s: 3000 rss: 50Mb
stat::number_of_executed_units: 9000
stat::average_exec_per_sec:     3000
";

    const BROKEN: &str = "\
#2\tINITED cov: 100 ft: 200 corp: 3/1Kb exec/s: 0 rss: 40Mb

thread '<unnamed>' (7) panicked at netflow-user/src/a.rs:7:9:
attempt to subtract with overflow
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='/x/found/ring/'; Test unit written to /x/found/ring/crash-0a1b
stat::number_of_executed_units: 44
";

    #[test]
    fn what_libfuzzer_says_is_read() {
        assert_eq!(number(FINE, "stat::number_of_executed_units:"), Some(9000));
        assert_eq!(number(FINE, " cov:"), Some(125));
        assert_eq!(found_in(FINE, Path::new("ring")), None);
    }

    #[test]
    fn an_input_that_breaks_a_reader_is_named_with_the_reason() {
        let found = found_in(BROKEN, Path::new("ring"));
        assert_eq!(found.as_ref().map(Found::what), Some("crash"));
        let text = found.map(|found| found.to_string()).unwrap_or_default();
        assert!(
            text.starts_with("crash: /x/found/ring/crash-0a1b\n"),
            "{text}"
        );
        assert!(text.contains("attempt to subtract with overflow"), "{text}");
        assert!(text.contains("again: ring /x/found"), "{text}");
    }
}
