//! The path: who goes where, and how each hop stands on which node.

use super::state::State;
use super::theme::Theme;
use crate::cli::render;
use crate::model::answer::{self, HopState, Path, Via};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::cmp::Reverse;

/// Columns before the hops.
const INDENT: usize = 2;

/// Paths, those that fail most first.
pub fn lines(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut paths: Vec<&Path> = state.scene().iter().flat_map(|s| &s.answer.paths).collect();
    paths.sort_by_key(|p| Reverse((p.outcomes.failed(), p.via != Via::Pod)));
    paths
        .into_iter()
        .flat_map(|p| path(p, width, theme))
        .collect()
}

fn path(path: &Path, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let style = if path.outcomes.failed() > 0 {
        theme.bad()
    } else {
        Style::new()
    };
    let text = format!(
        "{} :{} {}, {}",
        render::via(path.via),
        path.port,
        render::path_ends(path),
        render::outcomes(&path.outcomes)
    );
    let mut lines = vec![Line::styled(render::cut(&text, width.into()), style)];
    lines.extend(wrapped(hops(&path.hops, theme), width.into()));
    lines
}

/// `worker-1: client ✓ vip ✓`, node by node.
fn hops(hops: &[HopState], theme: Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut at: Option<&str> = None;
    for hop in hops {
        if let Some(node) = hop.node.as_deref()
            && at != Some(node)
        {
            at = Some(node);
            spans.push(Span::styled(format!("{node}:"), theme.strong()));
        }
        let text = format!("{} {}", hop.hop.name(), mark(hop.state));
        spans.push(Span::styled(text, theme.hop(hop.state)));
    }
    spans
}

fn mark(state: answer::State) -> &'static str {
    match state {
        answer::State::Ok => "✓",
        answer::State::Broken => "✗",
        answer::State::Degraded => "~",
        answer::State::Unseen => "·",
    }
}

/// Spans with a space between, in lines that are not wider.
fn wrapped(spans: Vec<Span<'static>>, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut used = 0;
    for span in spans {
        let wide = span.width() + 1;
        match lines.last_mut() {
            Some(line) if used + wide <= width => {
                line.push_span(Span::raw(" "));
                line.push_span(span);
                used += wide;
            }
            _ => {
                used = INDENT + span.width();
                lines.push(Line::from(vec![Span::raw(" ".repeat(INDENT)), span]));
            }
        }
    }
    lines
}
