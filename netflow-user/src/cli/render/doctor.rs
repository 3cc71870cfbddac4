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
    for tier in &report.capabilities {
        let (_, style) = health(tier_health(tier));
        let name = tier.tier.as_deref().unwrap_or("none");
        let lead = format!("  {:<NAME$}", tier.capability.name());
        page.hang(&lead, STRONG, name, style);
        if !tier.lost.is_empty() {
            page.paragraph(NAME + 2, &format!("lost: {}", tier.lost), Style::new());
        }
        for reason in &tier.reasons {
            page.paragraph(NAME + 2, reason, FAINT);
        }
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

/// Percent from which a map is worth a line.
const HALF: u64 = 50;

fn health(h: Health) -> (&'static str, Style) {
    match h {
        Health::Well => ("well", GOOD),
        Health::Degraded => ("degraded", DOUBT),
        Health::Broken => ("unable to run netflow", BAD),
    }
}
