//! The first lines: how it stands, what is asked about, how much comes, which nodes answer, what was lost.

use super::state::State;
use super::theme::Theme;
use super::words;
use crate::explain::scene::Scene;
use crate::model::answer::{Answer, NodeState};
use crate::model::query::{Query, Target};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// One line, or two where there is room.
pub fn lines(state: &State, theme: Theme, roomy: bool) -> Vec<Line<'static>> {
    let Some(scene) = state.scene() else {
        return vec![Line::raw("netflow watch: looking …")];
    };
    let mut lines = vec![first(scene, state, theme)];
    if roomy {
        lines.push(nodes(&scene.answer, theme));
    }
    lines
}

/// What matters most stands first: the right end may be cut off.
fn first(scene: &Scene, state: &State, theme: Theme) -> Line<'static> {
    let answer = &scene.answer;
    let verdict = answer.verdict;
    let name = verdict.name().to_uppercase().replace('-', " ");
    let mut spans = vec![Span::styled(name, theme.verdict(verdict))];
    let mut add = |text: String, style: Style| {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(text, style));
    };
    if state.is_paused() {
        add("PAUSED".into(), theme.doubt());
    }
    let lost: u64 = answer.nodes.iter().map(|n| n.lost.records).sum();
    if lost > 0 {
        add(format!("lost {lost}"), theme.doubt());
    }
    add(service(answer, &scene.query), theme.strong());
    add(rates(scene), Style::new());
    let watched = answer.window.to.since(answer.window.from);
    add(words::age(watched), theme.faint());
    Line::from(spans)
}

fn service(answer: &Answer, query: &Query) -> String {
    match (&answer.service, &query.target) {
        (Some(s), _) => format!("{}/{}", s.namespace, s.name),
        (None, Target::Name(name)) => format!("{}/{name}", query.namespace),
        (None, Target::Address(ip)) => ip.to_string(),
    }
}

fn rates(scene: &Scene) -> String {
    let rates = scene.rates;
    let (new, failed) = (
        rates.per_second(rates.attempts),
        rates.per_second(rates.failed),
    );
    format!("{new:.1} new/s, {failed:.1} failed/s")
}

/// Which nodes answer, and what each lost.
fn nodes(answer: &Answer, theme: Theme) -> Line<'static> {
    let answering = answer.nodes.iter().filter(|n| n.state == "answered");
    let (answering, all) = (answering.count(), answer.nodes.len());
    let lead = match all {
        1 => "node ".to_owned(),
        _ => format!("{answering} of {all} nodes answer: "),
    };
    let mut spans = vec![Span::styled(lead, theme.faint())];
    for (n, node) in answer.nodes.iter().enumerate() {
        let comma = if n > 0 { ", " } else { "" };
        let fine = node.state == "answered" && node.lost.records == 0;
        let style = if fine { Style::new() } else { theme.doubt() };
        spans.push(Span::raw(comma));
        spans.push(Span::styled(node_text(node), style));
    }
    Line::from(spans)
}

fn node_text(node: &NodeState) -> String {
    let mut parts = vec![node.name.clone()];
    if node.state != "answered" {
        parts.push(format!("({})", node.state));
    }
    if node.lost.records > 0 {
        parts.push(format!("(lost {} records)", node.lost.records));
    }
    parts.join(" ")
}
