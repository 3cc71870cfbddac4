//! kubectl as the cluster's administrator.

use super::build;
use super::inside::Place;
use super::plan;
use crate::process;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn command(args: &[&str]) -> Result<Command> {
    let mut kubectl = Place::control().command(false, &build::path("kubectl")?)?;
    kubectl
        .arg("--kubeconfig")
        .arg(plan::kubeconfig())
        .args(args);
    Ok(kubectl)
}

/// What it prints.
pub fn read(args: &[&str]) -> Result<String> {
    process::read(&mut command(args)?)
}

/// Whether it gets an answer; for those who ask again soon.
pub fn answers(args: &[&str]) -> bool {
    read(&[&["--request-timeout=2s"], args].concat()).is_ok()
}

/// What it prints as JSON.
pub fn json(args: &[&str]) -> Result<Value> {
    let said = read(&[args, &["-o", "json"]].concat())?;
    serde_json::from_str(&said).context("kubectl's JSON")
}

/// Applies an object.
pub fn apply(object: &Value) -> Result<()> {
    let mut kubectl = command(&["apply", "-f", "-"])?;
    let mut child = kubectl
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that gives up early says why on stderr
        let _ = stdin.write_all(object.to_string().as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("kubectl apply: {}", said.trim());
    }
    Ok(())
}

/// Applies the objects of a file.
pub fn apply_file(path: &Path) -> Result<()> {
    let path = path.to_string_lossy();
    read(&["apply", "-f", &path]).map(|_| ())
}

/// Waits for a condition of objects that are there.
pub fn wait(condition: &str, objects: &[&str], limit: Duration) -> Result<()> {
    let (wanted, limit) = (
        format!("--for={condition}"),
        format!("--timeout={}s", limit.as_secs()),
    );
    read(&[&["wait", &wanted, &limit], objects].concat()).map(|_| ())
}
