//! The agent as people install it: the objects that `netflow install` prints, in a real cluster, on both nodes.
//!
//! The image holds netflow as the lab builds it, linked statically: what is shipped takes a quarter of an hour to build.

use super::traffic::Traffic;
use super::{application, broken, feed, fleet, kubectl, renewed, xtask};
use crate::image;
use crate::process;
use crate::workspace;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NODES: [&str; 2] = ["n1", "n2"];

/// What who may.
const DOCUMENTED: &str = include_str!("../../../../docs/install.md");

/// All of it, in the cluster that is up, where `web` serves.
pub fn all() -> Result<()> {
    let netflow = build()?;
    load(&netflow)?;
    objects(&netflow, "install", "apply")?;
    ready()?;
    rights()?;
    for node in NODES {
        answers(node)?;
        on_loopback_only(node)?;
    }
    // What runs through it, as the client's output does, ends with it.
    let _server = renewed::server(&NODES)?;
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
    renewed::agents(&traffic, &NODES)?;
    fleet::all(&netflow, &NODES)?;
    traffic.felt_nothing()?;
    broken::all(&netflow, &traffic)?;
    traffic.feel(1, true)?;
    objects(&netflow, "uninstall", "delete")?;
    forgotten()?;
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
    feed(how, &printed)
}

pub fn ready() -> Result<()> {
    let agents = ["--namespace", "netflow", "daemonset/netflow-agent"];
    kubectl(&[&["rollout", "status", "--timeout=60s"], &agents[..]].concat()).map(drop)
}

/// The agent, and whoever is bound to the Role of those who ask, may do what docs/install.md says that they may, and others
/// nothing of it.
fn rights() -> Result<()> {
    let [agent, asker] = tables(DOCUMENTED)?;
    let account = "system:serviceaccount:netflow:netflow-agent";
    may(account, "--all-namespaces", &agent)?;
    kubectl(&[
        "create",
        "rolebinding",
        "netflow-asker",
        "--namespace=netflow",
        "--role=netflow-asker",
        "--user=jane",
    ])?;
    let nothing: Vec<_> = asker.iter().map(|row| Row { may: "no", ..*row }).collect();
    may("jane", "--namespace=netflow", &asker)?;
    may("jane", "--namespace=default", &nothing)?;
    may("joe", "--namespace=netflow", &nothing)
}

/// Of a table of rights: `kubectl auth can-i VERB RESOURCE`, and what it says.
#[derive(Clone, Copy)]
struct Row<'a> {
    verb: &'a str,
    resource: &'a str,
    may: &'a str,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Option<Row<'a>> {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (verb, resource, may) = (cells.next()?, cells.next()?, cells.next()?);
        matches!(may, "yes" | "no").then_some(Row {
            verb,
            resource,
            may,
        })
    }
}

/// The agent's table, and that of those who ask it: each has a heading of its own.
fn tables(text: &str) -> Result<[Vec<Row<'_>>; 2]> {
    let all: Vec<Vec<Row>> = text
        .split("\n## ")
        .map(|section| section.lines().filter_map(Row::read).collect())
        .filter(|table: &Vec<Row>| !table.is_empty())
        .collect();
    all.try_into()
        .map_err(|all: Vec<_>| anyhow!("docs/install.md has {} tables of rights", all.len()))
}

fn may(who: &str, place: &str, rows: &[Row]) -> Result<()> {
    let who = format!("--as={who}");
    for Row {
        verb,
        resource,
        may,
    } in rows
    {
        // It exits 1 for no, and warns of what has no namespaces.
        let mut asked = xtask(&["kubectl", "--", "auth", "can-i", verb])?;
        asked.args(resource.split(' ')).args([&who, place]);
        let said = asked.stderr(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        ensure!(
            said.trim() == *may,
            "may {who} {place} {verb} {resource}? {said}"
        );
    }
    Ok(())
}

pub fn on(node: &str, args: &[&str]) -> Result<Value> {
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

/// A port-forward to the agent's Pod gets to it, and nothing else on the network does.
fn on_loopback_only(node: &str) -> Result<()> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets = process::read(xtask(&["exec", node, "--", "cat"])?.args(files))?;
    let at: Vec<_> = sockets.lines().filter_map(listening).collect();
    ensure!(at == [LOOPBACK], "the agent of {node} listens at {at:?}");
    Ok(())
}

/// 127.0.0.1:4271, as the kernel writes it.
const LOOPBACK: &str = "0100007F:10AF";

/// The address of a socket that listens at the agent's port.
fn listening(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    (state == "0A" && local.ends_with(":10AF")).then_some(local)
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

/// The namespace is gone, with the certificates in it.
fn forgotten() -> Result<()> {
    let left = [
        "get",
        "secrets,namespaces",
        "--all-namespaces",
        "--output=name",
    ];
    let left = kubectl(&left)?;
    ensure!(!left.contains("netflow"), "left in the API: {left}");
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;

    #[test]
    fn rights_are_documented_for_the_agent_and_for_who_asks_it() {
        let [agent, asker] = tables(DOCUMENTED).unwrap();
        let may = |rows: &[Row], verb, resource| {
            let row = rows
                .iter()
                .find(|row| row.verb == verb && row.resource == resource);
            row.map(|row| row.may == "yes")
        };
        assert_eq!(may(&agent, "list", "secrets"), Some(false));
        assert_eq!(may(&agent, "list", "services"), Some(true));
        assert_eq!(may(&asker, "get", "secrets/netflow-client"), Some(true));
        assert_eq!(may(&asker, "list", "secrets"), Some(false));
    }

    #[test]
    fn who_listens_at_the_port_is_told_from_who_is_connected_to_it() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000")
        };
        assert_eq!(listening(&line(LOOPBACK, "0A")), Some(LOOPBACK));
        let any = "00000000:10AF";
        assert_eq!(listening(&line(any, "0A")), Some(any));
        assert_eq!(listening(&line(LOOPBACK, "01")), None);
        assert_eq!(listening(&line("0100007F:1F90", "0A")), None);
        assert_eq!(listening("  sl  local_address rem_address   st"), None);
    }
}
