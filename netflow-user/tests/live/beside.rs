//! Side by side with programs of others on the same interfaces: what they do with packets stays as it is, and what netflow can
//! no longer see is said.

use crate::attached::{filters, has_clsact, tcx};
use crate::foreign::{self, redirects, says_ok};
use crate::netflow::{Files, Running, command, explain, finish};
use crate::netns::{Lab, TO_HOST, TO_POD, eventually};
use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Command;

/// Pings of one look.
const PINGS: u32 = 20;

/// What `doctor` says of the programs of others on the Pod's interface: name, and whether it comes first.
fn doctor(lab: &Lab, args: &[&str]) -> Result<(Value, Vec<(String, bool)>)> {
    let output = finish(lab, command(&[&["doctor", "-o", "json"], args].concat()))?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let programs = report["programs"].as_array().context("programs")?;
    let here = programs.iter().filter(|p| p["interface"] == TO_POD);
    let found = here
        .map(|p| {
            let name = p["name"].as_str().unwrap_or_default().to_owned();
            (name, p["first"] == true)
        })
        .collect();
    Ok((report, found))
}

/// The same traffic without netflow, beside it and after it.
fn traffic_beside(lab: &Lab, files: &Files, tc: &str) -> Result<()> {
    lab.ping(PINGS).context("before")?;
    let run = explain(files, &["--tc", tc, "--for", "60s"]);
    let netflow = match tc {
        "tcx" => Running::on_tcx(lab, run)?,
        _ => Running::on_clsact(lab, run)?,
    };
    lab.ping(PINGS).context("beside")?;
    netflow.signal(Signal::SIGTERM)?;
    netflow.output()?;
    lab.ping(PINGS).context("after")
}

#[test]
fn a_program_that_says_ok_keeps_its_packets_and_is_named() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    for first in [false, true] {
        let cni = lab.inside("node", || {
            foreign::attach("cni_ingress", &says_ok(), TO_POD, first)
        })?;
        for tc in ["tcx", "clsact"] {
            traffic_beside(&lab, &files, tc).with_context(|| format!("{tc} {first}"))?;
            let (report, found) = doctor(&lab, &["--tc", tc])?;
            // By TCX netflow goes in front of whatever is there; filters come after all TCX programs.
            let is_first = tc == "clsact";
            assert_eq!(found, [("cni_ingress".to_owned(), is_first)], "{report:#}");
        }
        assert_eq!(tcx(&lab, TO_POD)?, ["cni_ingress"]);
        drop(cni);
    }
    Ok(())
}

#[test]
fn a_program_that_redirects_goes_on_to() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    // What the node would route goes straight to the host instead, addressed to the node's own link layer.
    let mac = lab.inside("node", || {
        let shown = Command::new("ip")
            .args(["-br", "link", "show", TO_POD])
            .output()?;
        let shown = String::from_utf8(shown.stdout)?;
        let mac = shown.split_whitespace().nth(2);
        Ok(mac.context("a link-layer address")?.to_owned())
    })?;
    lab.ip("host", &format!("link set eth0 address {mac}"))?;
    // The node does not get the Pod's questions for its address any more.
    let neighbor = format!("neigh replace 10.77.1.1 lladdr {mac} dev eth0 nud permanent");
    lab.ip("pod", &neighbor)?;
    lab.ping(1)?;
    let cni = lab.inside("node", || {
        let up = if_nametoindex(TO_HOST)?;
        foreign::attach("cni_redirect", &redirects(up), TO_POD, false)
    })?;
    for tc in ["tcx", "clsact"] {
        traffic_beside(&lab, &files, tc).context(tc)?;
    }
    let (report, found) = doctor(&lab, &["--tc", "clsact"])?;
    assert_eq!(found, [("cni_redirect".to_owned(), true)]);
    assert_eq!(report["health"], "degraded", "{report:#}");
    drop(cni);
    Ok(())
}

#[test]
fn a_filter_at_priority_one_stays_first() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    tc(&lab, &format!("qdisc add dev {TO_POD} clsact"))?;
    let add = format!("filter add dev {TO_POD} ingress protocol all prio 1 bpf bytecode");
    tc_last(&lab, &add, "1,6 0 0 0")?;
    let before = filters(&lab, TO_POD)?;
    ensure!(before.len() == 1, "{before:?}");
    for tc in ["tcx", "clsact"] {
        traffic_beside(&lab, &files, tc).context(tc)?;
        assert_eq!(filters(&lab, TO_POD)?, before, "{tc}");
        let (report, found) = doctor(&lab, &["--tc", tc])?;
        assert_eq!(found, [("bpf".to_owned(), tc == "clsact")], "{report:#}");
        assert_eq!(filters(&lab, TO_POD)?, before, "{tc}");
    }
    ensure!(has_clsact(&lab, TO_POD)?, "the qdisc was not ours");
    Ok(())
}

#[test]
fn an_agent_that_deletes_all_filters_is_told_of() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let run = explain(&files, &["--tc", "clsact", "--for", "60s", "-o", "json"]);
    let netflow = Running::on_clsact(&lab, run)?;
    tc(&lab, &format!("qdisc del dev {TO_POD} clsact"))?;
    lab.ping(PINGS)?;
    // Facts are read every few seconds and at the end.
    netflow.signal(Signal::SIGINT)?;
    let output = netflow.output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let blind = answer["blind"].as_array().context("blind")?;
    let said = blind.iter().any(|b| {
        let text = b["text"].as_str().unwrap_or_default();
        text.contains(TO_POD) && text.contains("removed")
    });
    ensure!(said, "{blind:#?}");
    lab.ping(PINGS)?;
    for device in [TO_POD, TO_HOST] {
        eventually("all filters gone", || {
            Ok(filters(&lab, device)?.is_empty().then_some(()))
        })?;
    }
    // Beside a TCX run it deletes nothing of ours.
    let netflow = Running::on_tcx(&lab, explain(&files, &["--tc", "tcx", "--for", "60s"]))?;
    tc(&lab, &format!("qdisc add dev {TO_POD} clsact"))?;
    tc(&lab, &format!("qdisc del dev {TO_POD} clsact"))?;
    ensure!(!tcx(&lab, TO_POD)?.is_empty(), "TCX is not a filter");
    netflow.signal(Signal::SIGTERM)?;
    netflow.output()?;
    Ok(())
}

fn tc(lab: &Lab, args: &str) -> Result<()> {
    lab.inside("node", || {
        crate::netns::finish(Command::new("tc").args(args.split(' ')))
    })
}

fn tc_last(lab: &Lab, args: &str, last: &str) -> Result<()> {
    lab.inside("node", || {
        crate::netns::finish(Command::new("tc").args(args.split(' ')).arg(last))
    })
}
