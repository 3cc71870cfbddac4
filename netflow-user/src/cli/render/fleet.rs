//! How the agents of a cluster are, as text.

use super::page::{BAD, DOUBT, FAINT, GOOD, Page, STRONG};
use super::words;
use crate::cli::status::{FleetReport, NodeReport, Report};
use anstyle::Style;
use std::collections::BTreeMap;

/// Columns of what is said of each.
const STATE: usize = 12;
const VERSION: usize = 10;
const UP: usize = 12;
const LOST: usize = 10;

/// The report as text.
pub fn fleet(report: &FleetReport, width: usize) -> String {
    let mut page = Page::new(width);
    let FleetReport {
        schema: _,
        degraded: _,
        wanted,
        nodes,
    } = report;
    let answer = nodes.iter().filter(|n| n.agent.is_some()).count();
    let of = wanted.map_or(nodes.len(), |wanted| wanted.max(nodes.len()));
    let style = if answer == of { GOOD } else { BAD };
    let text = format!("{answer} of {} answer", words::count(of as u64, "agent"));
    page.paragraph(0, &text, style);
    page.gap();
    let name = nodes.iter().map(|n| n.node.chars().count()).max();
    let name = name.unwrap_or_default().max("NODE".len()) + 2;
    let head = ["NODE", "STATE", "VERSION", "UP", "LOST", "CLOCK"].map(str::to_owned);
    row(&mut page, name, head, FAINT, FAINT);
    for node in nodes {
        one(&mut page, name, node);
    }
    let troubles = troubles(nodes);
    if !troubles.is_empty() {
        page.heading("What is not seen");
    }
    for (text, nodes) in troubles {
        let text = format!("{text} ({})", nodes.join(", "));
        page.hang("  - ", Style::new(), &text, DOUBT);
    }
    page.finish()
}

fn one(page: &mut Page, name: usize, node: &NodeReport) {
    let Some(agent) = &node.agent else {
        let lead = format!("{:<name$}{:<STATE$}", node.node, "no answer");
        page.hang(&lead, BAD, node.why.as_deref().unwrap_or_default(), BAD);
        return;
    };
    let (state, style) = if agent.degraded {
        ("degraded", DOUBT)
    } else {
        ("well", GOOD)
    };
    let cells = [
        node.node.clone(),
        state.to_owned(),
        agent.version.clone(),
        format!("{} s", agent.up_seconds),
        agent.lost.values().sum::<u64>().to_string(),
        clock(node),
    ];
    row(page, name, cells, STRONG, style);
}

/// What agents are degraded for, and on which nodes: most have it in common.
fn troubles(nodes: &[NodeReport]) -> BTreeMap<String, Vec<&str>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for text in node.agent.iter().flat_map(of_one) {
            all.entry(text).or_default().push(&node.node);
        }
    }
    all
}

fn of_one(agent: &Report) -> Vec<String> {
    let tiers = agent.tiers.iter().filter(|t| !t.lost.is_empty());
    let tiers = tiers.map(|t| {
        let tier = t.tier.as_deref().unwrap_or("none");
        format!("{} through {tier}: {}", t.capability, t.lost)
    });
    let unseen = agent.unseen.iter();
    let unseen = unseen.map(|u| format!("not all at {}: {}", u.interface, u.why));
    let limits = agent.limits.iter().map(|l| format!("not read: {l}"));
    tiers.chain(unseen).chain(limits).collect()
}

fn clock(node: &NodeReport) -> String {
    match (node.clock_offset_ms, node.clock_within_ms) {
        (Some(offset), Some(within)) => format!("{offset:+.1} ms ± {within:.1}"),
        _ => String::new(),
    }
}

fn row(page: &mut Page, name: usize, cells: [String; 6], first: Style, state: Style) {
    let widths = [name, STATE, VERSION, UP, LOST, usize::MAX];
    let plain = Style::new();
    let styles = [first, state, plain, plain, plain, plain];
    let cells = cells.into_iter().zip(widths).zip(styles);
    let cells: Vec<_> = cells
        .map(|((text, width), style)| (text, width, style))
        .collect();
    page.row(&cells);
}
