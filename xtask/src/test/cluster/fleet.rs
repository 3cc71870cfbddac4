//! The agents that were installed, asked all at once by somebody who has a kubeconfig and no way to the nodes.

use super::explained::File;
use super::stopped::Stopped;
use super::{kubectl, xtask};
use crate::cluster;
use crate::process;
use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bound to the Role that `netflow install` makes, and not.
const ASKER: &str = "asker";
const STRANGER: &str = "stranger";

/// All of it, while agents run on both nodes and a client dials `web`.
pub fn all(netflow: &Path, nodes: &[&str]) -> Result<()> {
    let asker = Who::with_rights(netflow, ASKER)?;
    let stranger = Who::new(netflow, STRANGER)?;
    asker.is_answered_by(nodes)?;
    stranger.is_refused()?;
    for node in nodes {
        asker.misses(node)?;
    }
    for who in [ASKER, STRANGER] {
        kubectl(&["delete", "serviceaccount", who])?;
    }
    asker.is_told_of_the_right_that_went()
}

/// Somebody who asks from the control plane's network, from which nobody gets to what the agents listen at.
pub struct Who {
    netflow: PathBuf,
    kubeconfig: File,
}

impl Who {
    /// Bound to the Role that `netflow install` makes.
    pub fn with_rights(netflow: &Path, name: &str) -> Result<Who> {
        let who = Who::new(netflow, name)?;
        let account = format!("--serviceaccount=default:{name}");
        let role = ["--namespace=netflow", "--role=netflow-asker", &account];
        kubectl(&[&["create", "rolebinding", name], &role[..]].concat())?;
        Ok(who)
    }

    fn new(netflow: &Path, name: &str) -> Result<Who> {
        kubectl(&["create", "serviceaccount", name])?;
        let place = std::env::temp_dir().join(format!("{name}-{}.kubeconfig", std::process::id()));
        Ok(Who {
            netflow: netflow.to_path_buf(),
            kubeconfig: File::kubeconfig(place, name)?,
        })
    }

    /// The exit status, what was answered, and what was said beside it.
    pub fn asks(&self, args: &[&str]) -> Result<(Option<i32>, Value, String)> {
        let mut command = xtask(&["exec", "cp", "--"])?;
        command.arg(&self.netflow).args(args);
        command.arg("--kubeconfig").arg(self.kubeconfig.path());
        let output = command
            .args(["--cluster", "-o", "json"])
            .output()
            .with_context(|| process::show(&command))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok((output.status.code(), answer, said))
    }

    /// One answer, from what all nodes have seen.
    fn is_answered_by(&self, nodes: &[&str]) -> Result<()> {
        let (exit, answer, said) = self.asks(&["explain", "web"])?;
        let right = exit == Some(0) && answer["verdict"] == "healthy";
        ensure!(right, "{answer:#} {said}");
        let wanted: BTreeSet<&str> = nodes.iter().copied().collect();
        let seen = texts(&answer["evidence"], "node");
        ensure!(
            seen == wanted,
            "only {seen:?} have shown anything: {answer:#}"
        );
        for node in nodes {
            let state = of_node(&answer, "name", node)?;
            let right = state["state"] == "answered" && state["clockWithinMs"].is_number();
            ensure!(right, "{state:#}");
        }
        let (_, status, said) = self.asks(&["status", "--wait", "30s"])?;
        let listed = texts(&status["nodes"], "node");
        ensure!(listed == wanted, "{status:#} {said}");
        for node in nodes {
            let told = &of_node(&status, "node", node)?["agent"]["node"];
            ensure!(told == node, "{status:#}");
        }
        println!(
            "  healthy, say the agents of {} through the API",
            nodes.join(" and ")
        );
        Ok(())
    }

    /// One agent answers no more: the others do, and its node is named.
    fn misses(&self, node: &str) -> Result<()> {
        let _stopped = Stopped::process(agent_of(node)?)?;
        let (_, answer, said) = self.asks(&["explain", "web", "--for", "6s"])?;
        let state = of_node(&answer, "name", node)?;
        ensure!(state["state"] == "timeout", "{answer:#} {said}");
        let blind = texts(&answer["blind"], "code");
        ensure!(blind.contains("node-silent"), "{answer:#}");
        let (exit, status, said) = self.asks(&["status"])?;
        let why = of_node(&status, "node", node)?["why"]
            .as_str()
            .unwrap_or_default();
        let right = exit == Some(1) && why.contains("no answer within");
        ensure!(right, "{status:#} {said}");
        println!("  the agent of {node} is missed");
        Ok(())
    }

    /// What is wanted, and what grants it.
    fn is_refused(&self) -> Result<()> {
        let (exit, failure, said) = self.asks(&["explain", "web"])?;
        let told = ["list Pods", "netflow-asker"].map(|it| said.contains(it));
        let right = exit == Some(2) && failure["code"] == "agents-not-allowed";
        ensure!(right && told == [true; 2], "exit {exit:?}: {said}");
        Ok(())
    }

    /// Whom the API server does not know any more is refused by it, not by the agents.
    fn is_told_of_the_right_that_went(&self) -> Result<()> {
        let (exit, failure, said) = self.asks(&["status"])?;
        let right = exit == Some(2) && failure["code"] == "source-unreadable";
        ensure!(right, "exit {exit:?}: {said}");
        Ok(())
    }
}

/// The agent of a node.
pub fn agent_of(node: &str) -> Result<Pid> {
    let network = cluster::on_node(node, || fs::read_link("/proc/thread-self/ns/net"))??;
    let is_agent = |pid: &i32| {
        let place = Path::new("/proc").join(pid.to_string());
        let command = fs::read(place.join("cmdline")).unwrap_or_default();
        command.starts_with(b"/netflow\0agent\0")
            && fs::read_link(place.join("ns/net")).is_ok_and(|it| it == network)
    };
    let mut pids = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.find(is_agent).context("no agent runs there")?;
    Ok(Pid::from_raw(pid))
}

fn of_node<'a>(answer: &'a Value, key: &str, node: &str) -> Result<&'a Value> {
    let mut nodes = answer["nodes"].as_array().into_iter().flatten();
    let found = nodes.find(|n| n[key] == node);
    found.with_context(|| format!("{node} is not among the nodes: {answer:#}"))
}

fn texts<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|it| it[key].as_str()).collect()
}
