//! What is renewed while agents run and a client dials: the agents themselves, and the API server.

use super::traffic::Traffic;
use super::{component, installed, kubectl, xtask};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A node may be without an agent that sees for so long.
const GAP: Duration = Duration::from_secs(5);

/// How long something may take to be noticed.
const LIMIT: Duration = Duration::from_secs(30);

/// An update rolls: each node is without an agent for a moment, and nobody who dials notices.
pub fn agents(traffic: &Traffic, nodes: &[&str]) -> Result<()> {
    let ends: Vec<_> = nodes
        .iter()
        .map(|node| ended(node))
        .collect::<Result<_>>()?;
    kubectl(&[
        "rollout",
        "restart",
        "--namespace=netflow",
        "daemonset/netflow-agent",
    ])?;
    installed::ready()?;
    for (node, end) in nodes.iter().zip(ends) {
        let Ok(end) = end.join() else {
            bail!("nobody waited for the agent of {node} to end");
        };
        let since = installed::on(node, &["status"])?["since"].to_string();
        let since = seconds(since.trim_matches('"'))?;
        let gap = since.saturating_sub(end?);
        ensure!(gap <= GAP, "{node} was without an agent for {gap:?}");
        println!("  {node} was without an agent for {gap:.1?}");
    }
    traffic.felt_nothing()
}

/// Waits beside for the agent of a node to end: when that was, since the Unix epoch.
fn ended(node: &str) -> Result<thread::JoinHandle<Result<Duration>>> {
    let pid = super::fleet::agent_of(node)?;
    let mut tail = Command::new("tail");
    tail.arg(format!("--pid={pid}"))
        .args(["--sleep-interval=0.02", "-f", "/dev/null"]);
    Ok(thread::spawn(move || {
        process::run(&mut tail)?;
        Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
    }))
}

/// RFC 3339 → since the Unix epoch.
fn seconds(time: &str) -> Result<Duration> {
    let said = process::read(Command::new("date").args(["--utc", "+%s.%N", "--date", time]))?;
    Ok(Duration::from_secs_f64(said.trim().parse()?))
}

/// The API server ends and is started anew, and runs as long as what is returned is there: agents say that it is away, and no
/// more once it is back, also of kinds of which nothing changes.
pub fn server(nodes: &[&str]) -> Result<Server> {
    let pid = component("kube-apiserver", None)?;
    let line = fs::read(format!("/proc/{pid}/cmdline"))?;
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let line = String::from_utf8(line).context("the command line of the API server")?;
    let args: Vec<&str> = line.split_terminator('\0').skip(1).collect();
    kill(pid, Signal::SIGTERM)?;
    for node in nodes {
        told(node, "that the API server is away", |limits| {
            !limits.is_empty()
        })?;
    }
    let mut again = xtask(&["exec", "cp", "--"])?;
    again.arg(&program).args(&args);
    let server = Server(again.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    for node in nodes {
        told(node, "that the API server is back", <[Value]>::is_empty)?;
    }
    println!("  the API server was away, and all is read again");
    Ok(server)
}

/// A server that was started by hand, as long as this is.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the agent of a node says so of what it cannot read.
fn told(node: &str, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let status = installed::on(node, &["status"])?;
        let limits = status["limits"].as_array().context("limits")?;
        if is_so(limits) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the agent of {node} does not say {what} within {LIMIT:?}: {limits:?}"
        );
    }
}
