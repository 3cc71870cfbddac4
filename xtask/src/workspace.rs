//! Where the workspace is, and cargo run in it.

use crate::process;
use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, MetadataCommand};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// The commit that is checked out; `None` where git cannot tell.
pub fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["rev-parse", "HEAD"]);
    let commit = process::read(&mut git).ok()?;
    Some(commit.trim().to_owned())
}

/// Cargo of the pinned toolchain, in the workspace.
///
/// What `cargo run` set for xtask itself is taken out of the environment: build scripts that watch those variables
/// would otherwise run again each time somebody calls cargo directly.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// What `cargo metadata` knows, with the dependency graph of the platform that this runs on.
pub fn metadata() -> Result<cargo_metadata::Metadata> {
    let host = process::read(Command::new("rustc").args(["--print", "host-tuple"]))?;
    MetadataCommand::new()
        .current_dir(root())
        .other_options(vec![
            "--locked".to_owned(),
            format!("--filter-platform={}", host.trim()),
        ])
        .exec()
        .context("cargo metadata")
}

/// What a build left behind.
pub struct Built(Vec<Message>);

impl Built {
    /// The executable of target `name`.
    pub fn executable(&self, name: &str) -> Result<PathBuf> {
        self.0
            .iter()
            .find_map(|message| match message {
                Message::CompilerArtifact(artifact) if artifact.target.name == name => {
                    artifact.executable.clone()
                }
                _ => None,
            })
            .map(Into::into)
            .with_context(|| format!("cargo built no executable {name}"))
    }

    /// Directory that the build script of `package` wrote to.
    pub fn out_dir(&self, package: &str) -> Result<PathBuf> {
        self.0
            .iter()
            .find_map(|message| match message {
                Message::BuildScriptExecuted(script) if names(&script.package_id.repr, package) => {
                    Some(script.out_dir.clone().into())
                }
                _ => None,
            })
            .with_context(|| format!("the build script of {package} did not run"))
    }
}

/// Whether a package id (`path+file:///…/netflow-user#0.1.0`, `…#netflow-user@0.1.0`) is of the package.
fn names(id: &str, package: &str) -> bool {
    let Some((url, fragment)) = id.split_once('#') else {
        return false;
    };
    match fragment.split_once('@') {
        Some((name, _)) => name == package,
        None => url.rsplit('/').next() == Some(package),
    }
}

/// Has cargo say what it builds.
pub const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// `cargo build ARGS`, its progress and errors on stderr.
pub fn build(args: &[&str]) -> Result<Built> {
    compile("build", args, &[])
}

/// `cargo COMMAND ARGS -- FLAGS`, its progress and errors on stderr.
pub fn compile(command: &str, args: &[&str], flags: &[&str]) -> Result<Built> {
    let mut cargo = cargo();
    cargo.arg(command).args(args).arg(MESSAGES);
    if !flags.is_empty() {
        cargo.arg("--").args(flags);
    }
    built(&mut cargo)
}

/// Runs a cargo command with [`MESSAGES`] among its arguments, its progress and errors on stderr.
pub fn built(cargo: &mut Command) -> Result<Built> {
    let output = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| process::show(cargo))?;
    if !output.status.success() {
        bail!("{} failed", process::show(cargo));
    }
    let messages = Message::parse_stream(output.stdout.as_slice())
        .collect::<Result<_, _>>()
        .context("cargo's messages")?;
    Ok(Built(messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_of_both_forms_are_told_apart() {
        let table = [
            ("path+file:///src/netflow/netflow-user#0.1.0", true),
            ("path+file:///src/elsewhere#netflow-user@0.1.0", true),
            ("path+file:///src/netflow-user#netflow-tests@0.1.0", false),
            (
                "registry+https://github.com/rust-lang/crates.io-index#netflow-user@1.0.0",
                true,
            ),
            ("path+file:///src/netflow/my-netflow-user#0.1.0", false),
            ("netflow-user 0.1.0", false),
        ];
        for (id, expected) in table {
            assert_eq!(names(id, "netflow-user"), expected, "{id}");
        }
    }

    #[test]
    fn the_root_holds_the_toolchain_pin() {
        assert!(root().join("rust-toolchain.toml").is_file());
    }
}
