//! The answer of `explain`: verdict, path, evidence, what to do, and what could not be seen.

use super::Layout;
use super::code::changes;
use super::evidence::evidence;
use super::page::{DOUBT, FAINT, Page, STRONG};
use super::paths::paths;
use super::words;
use crate::model::answer::{Answer, Blind, Evidence, Finding, Severity, Verdict, Via};
use anstyle::Style;

/// An answer as text. `namespace` is the one that was asked about.
pub fn explain(answer: &Answer, namespace: &str, layout: Layout) -> String {
    let mut page = Page::new(layout.width);
    source(&mut page, answer, namespace);
    page.gap();
    verdict(&mut page, answer);
    service(&mut page, answer);
    paths(&mut page, answer, layout);
    cited(&mut page, answer, layout);
    also(&mut page, answer);
    steps(&mut page, answer, namespace);
    blind(&mut page, answer);
    lost(&mut page, answer);
    if layout.wide {
        tiers(&mut page, answer);
        clocks(&mut page, answer);
    }
    page.finish()
}

/// What objects and rules alone show, while packets are still being waited for. Empty if that is nothing.
pub fn preview(answer: &Answer, width: usize) -> String {
    let mut page = Page::new(width);
    for f in answer
        .findings
        .iter()
        .filter(|f| f.severity != Severity::Info)
    {
        let text = format!("{} ({})", f.summary, f.code);
        page.hang("so far: ", DOUBT, &text, Style::new());
    }
    page.finish()
}

/// First line: where names come from, namespace, nodes asked. Then the window.
fn source(page: &mut Page, answer: &Answer, namespace: &str) {
    let cluster = &answer.cluster;
    let mut parts = Vec::new();
    let named: Vec<&str> = [&*cluster.context, &*cluster.server]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect();
    parts.push(if named.is_empty() {
        "no cluster".to_owned()
    } else {
        named.join(" ")
    });
    parts.push(format!("namespace {namespace}"));
    let nodes: Vec<String> = answer
        .nodes
        .iter()
        .map(|n| match n.state.as_str() {
            "answered" => n.name.clone(),
            other => format!("{} ({other})", n.name),
        })
        .collect();
    if !nodes.is_empty() {
        let word = if nodes.len() == 1 { "node" } else { "nodes" };
        parts.push(format!("{word} {}", nodes.join(", ")));
    }
    page.paragraph(0, &parts.join(" · "), FAINT);
    let (from, length) = (
        answer.window.from,
        answer.window.to.since(answer.window.from),
    );
    let text = format!("{} from {from}", words::seconds(length));
    page.paragraph(0, &text, FAINT);
}

fn verdict(page: &mut Page, answer: &Answer) {
    let (word, style) = words::verdict(answer.verdict);
    let lead = format!("{word}  ");
    let Some(cause) = cause(answer) else {
        page.hang(&lead, style, &no_cause(answer), STRONG);
        return;
    };
    page.hang(&lead, style, &cause.summary, STRONG);
    page.paragraph(lead.chars().count(), &facts(answer, cause), FAINT);
}

/// The finding that the verdict rests on. One that is not critical breaks nothing.
fn cause(answer: &Answer) -> Option<&Finding> {
    match answer.verdict {
        Verdict::Healthy | Verdict::NotEnoughEvidence => None,
        Verdict::Failing | Verdict::Degraded | Verdict::Suspected => {
            let first = answer.findings.first();
            first.filter(|f| f.severity == Severity::Critical)
        }
    }
}

/// The finding whose evidence and steps are shown: the cause; without one, the first of those that are only told beside.
fn shown(answer: &Answer) -> Option<&Finding> {
    cause(answer).or_else(|| {
        let fails = matches!(answer.verdict, Verdict::Failing | Verdict::Degraded);
        answer.findings.first().filter(|_| !fails)
    })
}

/// Code, basis, hop, extent and end of a finding.
fn facts(answer: &Answer, f: &Finding) -> String {
    let mut parts = vec![
        f.code.to_owned(),
        words::basis(f.basis).to_owned(),
        format!("at {}", f.hop.name()),
    ];
    if f.affected.of > 0 {
        let (hit, of) = (f.affected.attempts, words::count(f.affected.of, "attempt"));
        parts.push(format!("{hit} of {of}"));
    }
    if let Some(until) = f.until {
        let last = words::offset(answer.window.from, until);
        parts.push(format!("last seen {last}"));
    }
    parts.join(" · ")
}

/// The sentence of a verdict that names no cause.
fn no_cause(answer: &Answer) -> String {
    let sum = |pod: bool| -> (u64, u64) {
        let of_kind = answer.paths.iter().filter(|p| (p.via == Via::Pod) == pod);
        of_kind.fold((0, 0), |(ok, all), p| {
            (ok + p.outcomes.ok, all + p.outcomes.attempts)
        })
    };
    let ((ok, all), (pod_ok, pod_all)) = (sum(false), sum(true));
    match answer.verdict {
        Verdict::Failing | Verdict::Degraded => {
            let failed: u64 = answer.paths.iter().map(|p| p.outcomes.failed()).sum();
            format!(
                "{failed} of {} failed, and nothing that was seen says why.",
                words::count(all + pod_all, "attempt")
            )
        }
        Verdict::NotEnoughEvidence if all + pod_all == 0 => {
            "No attempt to reach this Service was seen on the nodes asked, so nothing is proved either way.".into()
        }
        Verdict::NotEnoughEvidence => format!(
            "What was seen ({}) does not decide whether the Service works.",
            words::count(all + pod_all, "attempt")
        ),
        _ if pod_all > 0 => format!(
            "The Service answers: {ok} of {} through it, {pod_ok} of {pod_all} to its Pods' own addresses got through.",
            words::count(all, "attempt")
        ),
        _ => format!(
            "The Service answers: {ok} of {} got through.",
            words::count(all, "attempt")
        ),
    }
}

fn service(page: &mut Page, answer: &Answer) {
    let Some(s) = &answer.service else {
        return;
    };
    let ips: Vec<String> = s.cluster_ips.iter().map(ToString::to_string).collect();
    let ips = if ips.is_empty() {
        "without cluster IP".to_owned()
    } else {
        ips.join(", ")
    };
    let ports: Vec<String> = s
        .ports
        .iter()
        .map(|p| {
            let name = if p.name.is_empty() {
                String::new()
            } else {
                format!("{} ", p.name)
            };
            format!("{name}{}/{} → {}", p.port, p.protocol, p.target_port)
        })
        .collect();
    page.gap();
    let lead = format!("{}/{}  ", s.namespace, s.name);
    let mut text = format!("{} {ips}", s.kind);
    // One that is only an alias has none.
    if !ports.is_empty() {
        text = format!("{text}; {}", ports.join(", "));
    }
    page.hang(&lead, STRONG, &text, Style::new());
}

/// Evidence of the cause; all of it where there is room.
fn cited(page: &mut Page, answer: &Answer, layout: Layout) {
    let ids = shown(answer).map_or(&[][..], |f| &f.evidence);
    let shown: Vec<_> = answer
        .evidence
        .iter()
        .filter(|e| layout.wide || ids.contains(&e.id))
        .collect();
    if !shown.is_empty() {
        page.heading("Evidence");
    }
    for (e, alike) in folded(&shown, layout.wide) {
        evidence(page, e, &alike, answer.window, layout.wide);
    }
    let more = answer.evidence.len() - shown.len();
    if more > 0 && !shown.is_empty() {
        page.paragraph(6, &format!("{more} more with -o wide"), FAINT);
    }
}

/// Each attempt leaves the same evidence: told once, with the ids of its like, except where all of it is wanted.
fn folded<'a>(shown: &[&'a Evidence], wide: bool) -> Vec<(&'a Evidence, Vec<&'a str>)> {
    let mut told: Vec<(&Evidence, Vec<&str>)> = Vec::new();
    for e in shown {
        let like = |t: &Evidence| {
            (t.plane, &t.node, &t.ifname, &t.hook, &t.text)
                == (e.plane, &e.node, &e.ifname, &e.hook, &e.text)
        };
        match told.iter_mut().find(|(t, _)| !wide && like(t)) {
            Some((_, alike)) => alike.push(&e.id),
            None => told.push((e, Vec::new())),
        }
    }
    told
}

/// The other findings.
fn also(page: &mut Page, answer: &Answer) {
    // A verdict without a cause has shown none of them yet.
    let told = usize::from(cause(answer).is_some());
    let others = answer.findings.get(told..).unwrap_or_default();
    if !others.is_empty() {
        page.heading("Also");
    }
    for f in others {
        page.hang("  ", Style::new(), &f.summary, Style::new());
        let text = format!("{} · {}", words::severity(f.severity), facts(answer, f));
        page.paragraph(4, &text, FAINT);
    }
}

fn steps(page: &mut Page, answer: &Answer, namespace: &str) {
    if let Some(cause) = shown(answer) {
        if !cause.check.is_empty() {
            page.heading("Check by hand");
        }
        for (n, check) in cause.check.iter().enumerate() {
            step(page, n, &check.text, &check.command);
        }
        if !cause.fix.is_empty() {
            page.heading("What to do");
        }
        for (n, fix) in cause.fix.iter().enumerate() {
            let text = format!("{} ({})", fix.text, changes(fix.changes));
            step(page, n, &text, &fix.command);
        }
        if !cause.confusable.is_empty() {
            page.gap();
            let text = format!(
                "Looks alike: {}; `netflow codes CODE` tells them apart.",
                cause.confusable.join(", ")
            );
            page.paragraph(0, &text, FAINT);
        }
    }
    if cause(answer).is_none() && answer.verdict != Verdict::Healthy {
        page.heading("What to do");
        for (n, (text, command)) in ask_again(answer, namespace).iter().enumerate() {
            step(page, n, text, command);
        }
    }
}

/// More of the nodes, or the same once more, by where the objects came from.
fn ask_again(answer: &Answer, namespace: &str) -> Vec<(&'static str, String)> {
    let target = answer.service.as_ref().map_or_else(
        || format!("{namespace}/<svc>"),
        |s| format!("{}/{}", s.namespace, s.name),
    );
    let all = "Ask all nodes' agents while a client tries";
    let here = "Ask again while a client tries, on the client's node or on the backend's";
    let command = |how: &str| format!("netflow explain {how} --for 60s");
    let of_files = !answer.cluster.server.starts_with("http");
    match answer.nodes.as_slice() {
        [_] | [] if of_files => {
            let files = format!("--svc {target} --manifests <files>");
            vec![(here, command(&files))]
        }
        [_] | [] => vec![
            (here, command(&format!("--svc {target}"))),
            (all, command(&format!("--svc {target} --cluster"))),
        ],
        _ => vec![(all, command(&format!("--svc {target} --cluster")))],
    }
}

fn step(page: &mut Page, n: usize, text: &str, command: &str) {
    page.hang(&format!("  {}. ", n + 1), Style::new(), text, Style::new());
    if !command.is_empty() {
        page.command(5, command);
    }
}

fn blind(page: &mut Page, answer: &Answer) {
    if !answer.blind.is_empty() {
        page.heading("What could not be seen");
    }
    let alike = |a: &Blind, b: &Blind| a.capability == b.capability && a.text == b.text;
    for (n, b) in answer.blind.iter().enumerate() {
        // Most nodes of a cluster are blind to the same.
        if answer.blind[..n].iter().any(|told| alike(told, b)) {
            continue;
        }
        let all = answer.blind[n..].iter().filter(|other| alike(other, b));
        let nodes: Vec<&str> = all.map(|b| &*b.node).filter(|n| !n.is_empty()).collect();
        let place = if nodes.is_empty() {
            String::new()
        } else {
            format!(" ({}, {})", b.capability, nodes.join(", "))
        };
        page.hang("  - ", Style::new(), &format!("{}{place}", b.text), DOUBT);
    }
}

fn lost(page: &mut Page, answer: &Answer) {
    for node in answer.nodes.iter().filter(|n| n.lost.records > 0) {
        let kinds: Vec<String> = node
            .lost
            .kinds
            .iter()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        page.gap();
        let text = format!(
            "{} lost {} ({}): counts are too low and something may be missing.",
            node.name,
            words::count(node.lost.records, "record"),
            kinds.join(", ")
        );
        page.paragraph(0, &text, DOUBT);
    }
}

fn tiers(page: &mut Page, answer: &Answer) {
    for node in &answer.nodes {
        let tiers: Vec<String> = node
            .tiers
            .iter()
            .map(|(capability, tier)| format!("{} {tier}", capability.name()))
            .collect();
        if !tiers.is_empty() {
            page.gap();
            page.hang(
                &format!("Seen through, on {}: ", node.name),
                FAINT,
                &tiers.join(", "),
                FAINT,
            );
        }
    }
}

/// Those that were compared to ours.
fn clocks(page: &mut Page, answer: &Answer) {
    let offsets: Vec<String> = answer
        .nodes
        .iter()
        .filter_map(|n| {
            let (offset, within) = (n.clock_offset_ms?, n.clock_within_ms?);
            Some(format!("{} {offset:+.1} ms ± {within:.1}", n.name))
        })
        .collect();
    if !offsets.is_empty() {
        page.gap();
        page.hang("Clocks, ahead of ours: ", FAINT, &offsets.join(", "), FAINT);
    }
}
