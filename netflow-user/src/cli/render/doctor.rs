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
    page.finish()
}

fn health(h: Health) -> (&'static str, Style) {
    match h {
        Health::Well => ("well", GOOD),
        Health::Degraded => ("degraded", DOUBT),
        Health::Broken => ("unable to run netflow", BAD),
    }
}
