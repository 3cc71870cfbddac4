//! The agent as people install it: the objects that `netflow install` prints, in a real cluster, on both nodes.
//!
//! The image holds netflow as the lab builds it, linked statically: what is shipped takes a quarter of an hour to build.

use super::traffic::Traffic;
use super::{application, kubectl, xtask};
use crate::image;
use crate::process;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NODES: [&str; 2] = ["n1", "n2"];

/// All of it, in the cluster that is up, where `web` serves.
pub fn all() -> Result<()> {
    let netflow = build()?;
    load(&netflow)?;
    objects(&netflow, "install", "apply")?;
    ready()?;
    rights()?;
    for node in NODES {
        answers(node)?;
    }
    another_client()?;
    let traffic = Traffic::start()?;
    traffic.feel(1, true)?;
    explained()?;
    // One that is gone at once is followed by another, and nobody who dials notices.
    kubectl(&[
        "delete",
        "pods",
        "--namespace",
        "netflow",
        "--all",
        "--grace-period=0",
        "--force",
    ])?;
    ready()?;
    explained()?;
    traffic.felt_nothing()?;
    objects(&netflow, "uninstall", "delete")?;
    for node in NODES {
        gone(node)?;
    }
    traffic.felt_nothing()
}

/// The client so far may still have connections to servers that are gone since, of which netflow would tell.
fn another_client() -> Result<()> {
    kubectl(&["delete", "pod", "client", "--grace-period=1"])?;
    kubectl(&["apply", "--server-side", "-f", &application()])?;
    let ready = ["--for=condition=Ready", "pod/client", "--timeout=60s"];
    kubectl(&[&["wait"], &ready[..]].concat()).map(drop)
}

fn build() -> Result<PathBuf> {
    let args = [
        "--quiet",
        "--locked",
        "--package",
        "netflow-user",
        "--bin",
        "netflow",
        "--profile",
        "lab",
    ];
    let flags = ["-C", "target-feature=+crt-static"];
    workspace::compile("rustc", &args, &flags)?.executable("netflow")
}

/// Gives the nodes its image.
fn load(netflow: &Path) -> Result<()> {
    let archive = netflow.with_extension("oci.tar");
    fs::write(&archive, image::unshipped(netflow)?.archive)
        .with_context(|| archive.display().to_string())?;
    let loaded = process::read(xtask(&["load"])?.arg(&archive));
    fs::remove_file(&archive)?;
    loaded.map(drop)
}

/// `netflow WHAT | kubectl HOW -f -`
fn objects(netflow: &Path, what: &str, how: &str) -> Result<()> {
    let printed = process::read(Command::new(netflow).arg(what))?;
    let mut kubectl = xtask(&["kubectl", "--", how, "-f", "-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = kubectl.stdin.take().context("its stdin")?;
    stdin.write_all(printed.as_bytes())?;
    drop(stdin);
    let status = kubectl.wait()?;
    ensure!(
        status.success(),
        "kubectl {how} of netflow {what}: {status}"
    );
    Ok(())
}

fn ready() -> Result<()> {
    let agents = ["--namespace", "netflow", "daemonset/netflow-agent"];
    kubectl(&[&["rollout", "status", "--timeout=60s"], &agents[..]].concat()).map(drop)
}

/// The agent may do what docs/install.md says that it may.
fn rights() -> Result<()> {
    let agent = "--as=system:serviceaccount:netflow:netflow-agent";
    let rows = documented(include_str!("../../../../docs/install.md"));
    ensure!(!rows.is_empty(), "docs/install.md has no table of rights");
    for (verb, what, wanted) in rows {
        // It exits 1 for no, and warns of what has no namespaces.
        let mut asked = xtask(&["kubectl", "--", "auth", "can-i", verb])?;
        asked
            .args(what.split(' '))
            .args([agent, "--all-namespaces"]);
        let said = asked.stderr(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        ensure!(said.trim() == wanted, "may the agent {verb} {what}? {said}");
    }
    Ok(())
}

/// Rows of a table: verb, resource, yes or no.
fn documented(text: &str) -> Vec<(&str, &str, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
            let row = (cells.next()?, cells.next()?, cells.next()?);
            matches!(row.2, "yes" | "no").then_some(row)
        })
        .collect()
}

fn on(node: &str, args: &[&str]) -> Result<Value> {
    let mut command = xtask(&["exec", node, "--", "netflow"])?;
    let output = command.args(args).args(["-o", "json"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?} on {node}: {said}"))
}

/// The agent of a node says how it is.
fn answers(node: &str) -> Result<()> {
    let status = on(node, &["status"])?;
    ensure!(status["node"] == node, "on {node}: {status:#}");
    Ok(())
}

/// The client's node is asked, which asks its agent: without a kubeconfig nobody else knows the API server, in a Pod by its
/// Service.
fn explained() -> Result<()> {
    let api = ["get", "service", "kubernetes", "--namespace", "default"];
    let api = kubectl(&[&api[..], &["-o", "jsonpath={.spec.clusterIP}"]].concat())?;
    let node = kubectl(&["get", "pod", "client", "-o", "jsonpath={.spec.nodeName}"])?;
    let answer = on(&node, &["explain", "web"])?;
    let server = format!("https://{api}");
    let right = answer["verdict"] == "healthy" && answer["cluster"]["server"] == server;
    ensure!(right, "{answer:#}");
    println!("  healthy, says the agent that was installed on {node}");
    Ok(())
}

/// Nothing of it is left on a node but an empty directory.
fn gone(node: &str) -> Result<()> {
    let left = process::read(&mut xtask(&[
        "exec",
        node,
        "--",
        "ls",
        "-A",
        "/run/netflow",
    ])?)?;
    ensure!(left.trim().is_empty(), "left on {node}: {left}");
    Ok(())
}
