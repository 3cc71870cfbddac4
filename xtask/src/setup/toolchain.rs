//! The Rust toolchain that rust-toolchain.toml pins.

use super::{Need, State};
use crate::process;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const PIN: &str = include_str!("../../../rust-toolchain.toml");

/// The pinned toolchain with its components.
pub struct Toolchain;

impl Need for Toolchain {
    fn name(&self) -> String {
        format!("rust {}", channel().unwrap_or("toolchain"))
    }

    fn check(&self) -> Result<State> {
        let channel = channel()?;
        let Some((version, sysroot)) = installed()? else {
            return Ok(State::Missing("rustc".to_owned()));
        };
        if version != channel {
            return Ok(State::Missing(format!("rustc here is {version}")));
        }
        let absent: Vec<&str> = components()?
            .into_iter()
            .filter(|component| !has(&sysroot, component))
            .collect();
        Ok(if absent.is_empty() {
            State::Present
        } else {
            State::Missing(absent.join(", "))
        })
    }

    fn install(&self) -> Result<()> {
        let components = components()?.join(", ");
        run(rustup(), &format!("rust {} with {components}", channel()?))
    }

    fn command(&self) -> String {
        show(rustup())
    }
}

/// Runs a command of rustup; without one `what` has to come from elsewhere.
pub(super) fn run(rustup: Result<Command>, what: &str) -> Result<()> {
    if process::find("rustup").is_none() {
        bail!("there is no rustup; install it from https://rustup.rs, or {what} by other means");
    }
    process::run(&mut rustup?)
}

/// A command of rustup, for people.
pub(super) fn show(rustup: Result<Command>) -> String {
    rustup.map_or_else(|error| error.to_string(), |rustup| process::show(&rustup))
}

fn rustup() -> Result<Command> {
    let mut rustup = Command::new("rustup");
    rustup
        .args([
            "toolchain",
            "install",
            channel()?,
            "--profile",
            "minimal",
            "--no-self-update",
        ])
        .args(["--component", &components()?.join(",")]);
    Ok(rustup)
}

/// Version and sysroot of the rustc that cargo uses in the workspace; `None` without one.
pub(super) fn installed() -> Result<Option<(String, PathBuf)>> {
    if process::find("rustc").is_none() {
        return Ok(None);
    }
    let rustc = || {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(workspace::root());
        rustc
    };
    let version = process::read(rustc().arg("--version"))?;
    let sysroot = process::read(rustc().args(["--print", "sysroot"]))?;
    let version = version.split(' ').nth(1).context("rustc --version")?;
    Ok(Some((version.to_owned(), PathBuf::from(sysroot.trim()))))
}

/// Whether a component's files are there. Asking rustup would take longer, and not every rustc is rustup's.
fn has(sysroot: &Path, component: &str) -> bool {
    let file = match component {
        "rust-src" => "lib/rustlib/src/rust/library/core/Cargo.toml",
        "clippy" => "bin/cargo-clippy",
        "rustfmt" => "bin/rustfmt",
        _ => return false,
    };
    sysroot.join(file).is_file()
}

pub(super) fn channel() -> Result<&'static str> {
    quoted("channel")?
        .first()
        .copied()
        .context("rust-toolchain.toml pins no channel")
}

fn components() -> Result<Vec<&'static str>> {
    quoted("components")
}

/// The quoted words of a one-line key of rust-toolchain.toml.
fn quoted(key: &str) -> Result<Vec<&'static str>> {
    let value = PIN
        .lines()
        .filter_map(|line| line.split_once('='))
        .find_map(|(name, value)| (name.trim() == key).then_some(value))
        .with_context(|| format!("rust-toolchain.toml has no {key}"))?;
    Ok(value.split('"').skip(1).step_by(2).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_read_and_every_component_is_known() -> Result<()> {
        let pinned = channel()?;
        assert!(
            pinned.split('.').count() == 3
                && pinned.chars().all(|c| c.is_ascii_digit() || c == '.'),
            "a full version, not a floating channel: {pinned}"
        );
        let Some((_, sysroot)) = installed()? else {
            bail!("the tests run without a rustc");
        };
        assert!(!has(&sysroot, "no-such-component"));
        for component in components()? {
            assert!(has(&sysroot, component), "{component}");
        }
        Ok(())
    }

    #[test]
    fn an_absent_key_is_an_error() {
        assert!(quoted("chan").is_err());
    }
}
