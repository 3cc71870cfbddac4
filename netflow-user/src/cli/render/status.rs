//! How an agent is, as text.

use super::doctor::tier;
use super::page::{BAD, DOUBT, GOOD, Page, STRONG};
use crate::cli::size;
use crate::cli::status::{HistoryReport, Report};
use anstyle::Style;

/// Columns of the name.
const NAME: usize = 22;

/// The report as text.
pub fn status(report: &Report, width: usize) -> String {
    let mut page = Page::new(width);
    let (word, style) = if report.degraded {
        ("degraded", DOUBT)
    } else {
        ("well", GOOD)
    };
    let lead = format!("the agent of {} is ", report.node);
    page.hang(&lead, Style::new(), word, style);
    let Report {
        version,
        commit,
        kernel,
        since,
        up_seconds,
        objects,
        pods,
        flows,
        looks,
        ..
    } = report;
    let mut line = |name: &str, text: &str| {
        page.hang(
            &format!("  {name:<NAME$}"),
            Style::new(),
            text,
            Style::new(),
        );
    };
    line("netflow", &format!("{version} ({commit}), Linux {kernel}"));
    line("up", &format!("{up_seconds} s, since {since}"));
    line("names", objects);
    line("Pods", &format!("{pods} addresses on this node"));
    line("flows", &format!("{flows} in the map"));
    line("looks", &looks.to_string());
    for text in history(report.history.as_ref()) {
        line("history", &text);
    }
    for limit in &report.limits {
        page.hang(&format!("  {:<NAME$}", "not read"), STRONG, limit, DOUBT);
    }
    for (kind, count) in &report.lost {
        let text = format!("{count} {kind}");
        page.hang(&format!("  {:<NAME$}", "lost"), STRONG, &text, BAD);
    }
    for unseen in &report.unseen {
        let lead = format!("  {:<NAME$}", format!("not all at {}", unseen.interface));
        page.hang(&lead, STRONG, &unseen.why, BAD);
    }
    page.heading("What can be seen");
    for t in &report.tiers {
        let style = if t.lost.is_empty() { GOOD } else { DOUBT };
        let name = t.capability.as_str();
        tier(
            &mut page,
            (name, t.tier.as_deref()),
            style,
            &t.lost,
            &t.reasons,
        );
    }
    page.finish()
}

/// What is kept for those who ask later.
fn history(history: Option<&HistoryReport>) -> Vec<String> {
    let Some(history) = history else {
        return vec!["none is kept".to_owned()];
    };
    let HistoryReport {
        limit_bytes,
        bytes,
        connections,
        failing_from,
        failing_evicted,
        healthy_from,
        healthy_evicted,
    } = history;
    let (held, limit) = (size::words(*bytes), size::words(*limit_bytes));
    let held = format!("{connections} connections, {held} of {limit}");
    let from = |whose: &str, from: &str, evicted: u64| {
        let gone = match evicted {
            0 => String::new(),
            n => format!(", {n} of before had to go"),
        };
        format!("{whose} since {from}{gone}")
    };
    if failing_from == healthy_from && *failing_evicted == 0 && *healthy_evicted == 0 {
        return vec![held, from("all", failing_from, 0)];
    }
    vec![
        held,
        from("those that failed", failing_from, *failing_evicted),
        from("healthy ones", healthy_from, *healthy_evicted),
    ]
}
