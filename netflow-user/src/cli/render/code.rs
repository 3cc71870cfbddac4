//! Codes: the list, and one of them in full.

use super::page::{BAD, DOUBT, FAINT, Page, STRONG};
use super::words;
use crate::explain::codes::{Code, fill};
use crate::model::answer::{Changes, Severity};
use anstyle::Style;

/// From so many columns on the hop is listed.
const WITH_HOPS: usize = 100;

/// All codes, a line each.
pub fn codes(all: &[&Code], width: usize) -> String {
    let mut page = Page::new(width);
    let longest = all.iter().map(|c| c.code.len()).max().unwrap_or(0);
    // The hop is the first to go where columns are few.
    let hops = width >= WITH_HOPS;
    let row = |name: &str, severity: (&str, Style), hop: &str, title: &str, style: Style| {
        let mut row = vec![
            (name.to_owned(), longest + 2, style),
            (severity.0.to_owned(), 10, severity.1),
        ];
        if hops {
            row.push((hop.to_owned(), 10, style));
        }
        let left = width.saturating_sub(row.iter().map(|(_, w, _)| w).sum());
        row.push((title.to_owned(), left, style));
        row
    };
    page.row(&row("CODE", ("SEVERITY", STRONG), "HOP", "MEANS", STRONG));
    for c in all {
        let severity = (words::severity(c.severity), severity_style(c.severity));
        page.row(&row(c.code, severity, c.hop.name(), c.title, Style::new()));
    }
    page.finish()
}

/// One code in full.
pub fn code(c: &Code, width: usize) -> String {
    let text = |template: &str| fill(template, "", &[]);
    let mut page = Page::new(width);
    page.hang(&format!("{}  ", c.code), STRONG, c.title, Style::new());
    let facts = format!(
        "{} · hop {} · family {}",
        words::severity(c.severity),
        c.hop.name(),
        c.family.name()
    );
    page.paragraph(0, &facts, FAINT);
    page.heading("What it means");
    page.paragraph(2, c.meaning, Style::new());
    page.heading("What netflow looks at");
    page.paragraph(2, c.looked_at, Style::new());
    page.heading("Check by hand");
    for (n, step) in c.check.iter().enumerate() {
        page.hang(
            &format!("  {}. ", n + 1),
            Style::new(),
            &text(step.text),
            Style::new(),
        );
        page.command(5, &text(step.command));
    }
    if !c.mitigate.is_empty() {
        page.heading("What to do");
    }
    for (n, step) in c.mitigate.iter().enumerate() {
        let words = format!("{} ({})", text(step.text), changes(step.changes));
        page.hang(
            &format!("  {}. ", n + 1),
            Style::new(),
            &words,
            Style::new(),
        );
        if !step.command.is_empty() {
            page.command(5, &text(step.command));
        }
    }
    if !c.confusable.is_empty() {
        page.heading("Looks alike");
        page.paragraph(2, &c.confusable.join(", "), Style::new());
    }
    page.finish()
}

/// What a way out changes.
pub fn changes(c: Changes) -> &'static str {
    match c {
        Changes::Cluster => "changes the cluster",
        Changes::Node => "changes the node",
        Changes::Nothing => "changes nothing",
    }
}

fn severity_style(s: Severity) -> Style {
    match s {
        Severity::Critical => BAD,
        Severity::Warning => DOUBT,
        Severity::Info => FAINT,
    }
}
