//! Findings: how grave, since when, and in words.

use super::state::State;
use super::theme::Theme;
use super::told::Told;
use super::words;
use crate::cli::render;
use crate::model::Time;
use crate::model::answer::Severity;
use ratatui::text::{Line, Span};

/// Columns before the sentence.
const INDENT: usize = 2;

/// Findings in the answer's order; those that are gone last.
pub fn lines(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let Some(scene) = state.scene() else {
        return Vec::new();
    };
    let now = scene.answer.window.to;
    let told = state.told().iter();
    told.flat_map(|t| finding(t, now, width.into(), theme))
        .collect()
}

fn finding(told: &Told, now: Time, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let Told {
        finding,
        arose,
        gone,
    } = told;
    if let Some(gone) = gone {
        let ago = words::age(now.since(*gone));
        let text = format!("- {}, gone since {ago}", finding.code);
        return vec![Line::styled(render::cut(&text, width), theme.faint())];
    }
    let lead = format!("{} {}", mark(finding.severity), finding.code);
    let since = format!(
        "  {}, at {}",
        words::age(now.since(*arose)),
        finding.hop.name()
    );
    let mut lines = vec![Line::from(vec![
        Span::styled(lead, theme.severity(finding.severity)),
        Span::styled(since, theme.faint()),
    ])];
    let sentence = render::wrap(&finding.summary, width.saturating_sub(INDENT));
    lines.extend(
        sentence
            .into_iter()
            .map(|line| Line::raw(format!("{:INDENT$}{line}", ""))),
    );
    lines
}

fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "✗",
        Severity::Warning => "!",
        Severity::Info => "i",
    }
}
