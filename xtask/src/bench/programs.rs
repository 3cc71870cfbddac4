//! `cargo xtask bench programs`: how many instructions the verifier of each kernel goes through for each BPF program.

use super::counts::{BLOCK, Count, Counts};
use super::page::PAGE;
use crate::process;
use crate::root::Root;
use crate::vm::{self, Ended, Image, Line, Outcome};
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long a guest may take over it.
const LIMIT: Duration = Duration::from_mins(5);

/// What the program of [`build`] prints of one BPF program.
#[derive(Deserialize)]
struct Effort {
    program: String,
    instructions: Option<u32>,
    refused: Option<String>,
}

/// Has this machine's kernel verify every program, and those of `lines`.
pub fn measure(root: Root, lines: &[&'static Line]) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut command = root.command(&build(&[])?);
    counts.add(&running()?, efforts(&process::read(&mut command)?)?);
    if lines.is_empty() {
        return Ok(counts);
    }
    let program = build(&["--profile", "lab"])?;
    let init = vm::init()?;
    for line in lines {
        let image = Image::get(line)?;
        eprintln!("kernel {}: {}", image.line, image.release);
        counts.add(image.line, in_guest(&image, &init, &program)?);
    }
    Ok(counts)
}

/// The counts that are written down.
pub fn written() -> Result<Counts> {
    Counts::of_table(&BLOCK.read()?).with_context(|| format!("{PAGE} has no table of counts"))
}

fn build(profile: &[&str]) -> Result<PathBuf> {
    let mut args = vec!["--package", "netflow-tests", "--bins"];
    args.extend(profile);
    workspace::build(&args)?.executable("netflow-verifier")
}

/// `6.18` of this machine's `6.18.44`.
fn running() -> Result<String> {
    let names = nix::sys::utsname::uname()?;
    let release = names.release().to_string_lossy();
    let mut numbers = release.split('.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => bail!("{release} is no release"),
    }
}

fn in_guest(image: &Image, init: &[u8], program: &std::path::Path) -> Result<Vec<(String, Count)>> {
    let mut said = Vec::new();
    let Ended {
        outcome,
        console,
        boot: _,
    } = vm::capture(image, init, vec![program.into()], LIMIT, &mut said)?;
    match outcome {
        Outcome::Exited(0) => efforts(&String::from_utf8_lossy(&said)),
        Outcome::Exited(_) | Outcome::Killed(_) => bail!("kernel {}: it failed", image.line),
        Outcome::TooLong => bail!("kernel {}: it did not end in time", image.line),
        Outcome::Lost(loss) => {
            bail!(
                "kernel {}: {loss}; the end of its console:\n{console}",
                image.line
            )
        }
    }
}

/// Those that are netflow's own: two more stand in the object for comparison.
fn efforts(json: &str) -> Result<Vec<(String, Count)>> {
    let efforts: Vec<Effort> = serde_json::from_str(json).context("the verifier's statistics")?;
    let own = |effort: &Effort| effort.program.starts_with("netflow_");
    efforts.into_iter().filter(own).map(count).collect()
}

fn count(effort: Effort) -> Result<(String, Count)> {
    let Effort {
        program,
        instructions,
        refused,
    } = effort;
    let count = match (instructions, refused) {
        (Some(number), None) => Count::Accepted(number),
        (Some(number), Some(_)) => Count::Refused(number),
        (None, Some(_)) => Count::Absent,
        (None, None) => bail!("{program} was loaded without a word of what it took"),
    };
    Ok((program, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_said_of_each_program() -> Result<()> {
        let json = r#"[{"program":"netflow_a","instructions":12,"refused":null},
            {"program":"netflow_b","instructions":1000001,"refused":"BPF program is too large"},
            {"program":"netflow_c","instructions":null,"refused":"unknown BTF type"},
            {"program":"bench_empty","instructions":2,"refused":null}]"#;
        let expected = [
            ("netflow_a".to_owned(), Count::Accepted(12)),
            ("netflow_b".to_owned(), Count::Refused(1_000_001)),
            ("netflow_c".to_owned(), Count::Absent),
        ];
        assert_eq!(efforts(json)?, expected);
        let silent = r#"[{"program":"netflow_a","instructions":null,"refused":null}]"#;
        assert!(efforts(silent).is_err());
        Ok(())
    }
}
