//! What `doctor` found, as a table.

use super::page::{BAD, DOUBT, FAINT, GOOD, Page, STRONG};
use crate::cli::doctor::{Health, Report, tier_health};
use anstyle::Style;

/// Columns of the name.
const NAME: usize = 22;

/// The report as text.
pub fn doctor(report: &Report, width: usize) -> String {
    let mut page = Page::new(width);
    let (word, style) = health(report.health);
    page.hang("this node is ", Style::new(), word, style);
    page.heading("Host");
    for f in &report.host {
        let (_, style) = health(f.health);
        page.hang(
            &format!("  {:<NAME$}", f.name),
            Style::new(),
            &f.value,
            style,
        );
        if !f.text.is_empty() {
            page.paragraph(NAME + 2, &f.text, FAINT);
        }
    }
    if !report.capabilities.is_empty() {
        page.heading("What can be seen");
    }
    for t in &report.capabilities {
        let (_, style) = health(tier_health(t));
        let name = t.capability.name();
        tier(
            &mut page,
            (name, t.tier.as_deref()),
            style,
            &t.lost,
            &t.reasons,
        );
    }
    if !report.programs.is_empty() {
        page.heading("Programs of others on these interfaces");
    }
    for p in &report.programs {
        let order = if p.first { "before" } else { "after" };
        let lead = format!("  {:<NAME$}", format!("{} {}", p.interface, p.side));
        let text = format!("{} ({}), {order} netflow", p.name, p.how);
        let style = if p.first { DOUBT } else { Style::new() };
        page.hang(&lead, Style::new(), &text, style);
    }
    let shown: Vec<_> = report
        .maps
        .iter()
        .filter(|m| m.percent() >= Some(HALF))
        .collect();
    if !shown.is_empty() {
        page.heading("BPF maps that are half full or more");
    }
    for map in shown {
        let style = if map.is_nearly_full() {
            DOUBT
        } else {
            Style::new()
        };
        let text = format!(
            "{} of {} entries, {} % ({}, map {})",
            map.entries.unwrap_or_default(),
            map.max,
            map.percent().unwrap_or_default(),
            map.kind,
            map.id
        );
        page.hang(
            &format!("  {:<NAME$}", map.name),
            Style::new(),
            &text,
            style,
        );
    }
    page.finish()
}

/// The tier of a capability: which, what is lost by it, and why no better one.
pub(super) fn tier(
    page: &mut Page,
    (capability, tier): (&str, Option<&str>),
    style: Style,
    lost: &str,
    reasons: &[String],
) {
    let lead = format!("  {capability:<NAME$}");
    page.hang(&lead, STRONG, tier.unwrap_or("none"), style);
    if !lost.is_empty() {
        page.paragraph(NAME + 2, &format!("lost: {lost}"), Style::new());
    }
    for reason in reasons {
        page.paragraph(NAME + 2, reason, FAINT);
    }
}

/// Percent from which a map is worth a line.
const HALF: u64 = 50;

fn health(h: Health) -> (&'static str, Style) {
    match h {
        Health::Well => ("well", GOOD),
        Health::Degraded => ("degraded", DOUBT),
        Health::Broken => ("unable to run netflow", BAD),
    }
}
