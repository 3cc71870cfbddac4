//! bpf-linker, which links the BPF object.

use super::{Need, State};
use crate::process;
use crate::workspace;
use anyhow::Result;
use std::process::Command;

/// 0.10 loads the pinned toolchain's own libLLVM; from 0.11 on it wants an LLVM of the system.
const VERSION: &str = "0.10.4";

/// The pinned bpf-linker.
pub struct Linker;

impl Need for Linker {
    fn name(&self) -> String {
        format!("bpf-linker {VERSION}")
    }

    fn check(&self) -> Result<State> {
        if process::find("bpf-linker").is_none() {
            return Ok(State::Missing(
                "not in PATH (cargo puts it into ~/.cargo/bin)".to_owned(),
            ));
        }
        let said = process::read(Command::new("bpf-linker").arg("--version"))?;
        let version = version(&said);
        Ok(if version == VERSION {
            State::Present
        } else {
            State::Missing(format!("bpf-linker here is {version}"))
        })
    }

    fn install(&self) -> Result<()> {
        process::run(&mut cargo_install())
    }

    fn command(&self) -> String {
        format!("cargo install bpf-linker --version {VERSION} --locked")
    }
}

fn cargo_install() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["install", "bpf-linker", "--version", VERSION, "--locked"]);
    cargo
}

/// The version in `bpf-linker 0.10.4`.
fn version(said: &str) -> &str {
    said.split_whitespace()
        .nth(1)
        .unwrap_or("of no known version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word() {
        assert_eq!(version("bpf-linker 0.10.4\n"), "0.10.4");
        assert_eq!(version(""), "of no known version");
    }

    #[test]
    fn what_is_shown_is_what_runs() {
        let shown = Linker.command();
        let run = process::show(&cargo_install());
        assert!(run.ends_with(shown.trim_start_matches("cargo ")), "{run}");
    }
}
