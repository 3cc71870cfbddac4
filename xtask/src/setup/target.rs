//! The Rust standard library for musl, with which the shipped binary is linked.

use super::{Need, State, toolchain};
use anyhow::Result;
use std::process::Command;

/// The target of this machine's architecture whose programs are static.
pub fn name() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The standard library of that target.
pub struct Target;

impl Need for Target {
    fn name(&self) -> String {
        format!("rust-std for {}", name())
    }

    fn check(&self) -> Result<State> {
        let there = toolchain::installed()?
            .is_some_and(|(_, sysroot)| sysroot.join("lib/rustlib").join(name()).is_dir());
        Ok(if there {
            State::Present
        } else {
            State::Missing(name())
        })
    }

    fn install(&self) -> Result<()> {
        toolchain::run(rustup(), &self.name())
    }

    fn command(&self) -> String {
        toolchain::show(rustup())
    }
}

fn rustup() -> Result<Command> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", &name()])
        .args(["--toolchain", toolchain::channel()?]);
    Ok(rustup)
}
