//! Screens of several sizes, as text.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::draw::draw;
use super::keys::Action;
use super::samples::{busy, connection, scene};
use super::state::State;
use super::theme::Theme;
use crate::cli::render::samples::{healthy, silent};
use crate::explain::attempt::Outcome;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use std::fs;
use std::path::Path;

fn terminal(state: &State, theme: Theme, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, theme)).unwrap();
    terminal
}

fn shown(state: &State, size: (u16, u16)) -> String {
    let terminal = terminal(state, Theme::new(false), size);
    let cells = terminal.backend().buffer().content();
    let rows = cells.chunks(usize::from(size.0).max(1));
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned() + "\n"
    };
    rows.map(line).collect()
}

fn state() -> State {
    let mut state = State::default();
    state.take(busy());
    state
}

/// After an intended change run once with `NETFLOW_BLESS=1` and read the difference.
#[test]
fn a_fault_at_80_by_24() {
    let mut state = state();
    state.act(Action::Down);
    let text = shown(&state, (80, 24));
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/screen/expected/fault-80x24.txt");
    if std::env::var_os("NETFLOW_BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(expected == text, "it is now\n{text}");
}

#[test]
fn twenty_columns_and_six_lines_hold_verdict_cause_and_connections() {
    let text = shown(&state(), (20, 6));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], "FAILING  lost 12  ap", "{text}");
    assert!(lines[1].starts_with("✗ target-port-mismat"), "{text}");
    assert!(
        lines[3].contains("refused") && lines[3].contains("app/clie"),
        "{text}"
    );
    assert!(lines[5].starts_with("q quit  ? help"), "{text}");
}

#[test]
fn a_big_terminal_shows_all_there_is() {
    let text = shown(&state(), (200, 50));
    for part in [
        "FAILING  lost 12  app/web-api  4.2 new/s, 2.1 failed/s  8s",
        "node worker-1 (lost 12 records)",
        "VIP :8080 app/client → app/web-api-0, 42 attempts: 42 refused",
        "worker-1: client ✓ vip ✓ dnat ✓ policy ✓ backend ✓ listener ✗ return ·",
        "✗ target-port-mismatch  7s, at listener",
        "where nothing listens; the application listens on 8080.",
        "i pmtu-learned  0s, at route",
        "Connections: 3, failed first",
        "app/other-client",
        "10.96.12.7:8080",
        "450µs",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains('…'), "nothing is cut:\n{text}");
}

#[test]
fn one_connection_alone_with_its_evidence() {
    let mut state = state();
    state.act(Action::Down);
    state.act(Action::Open);
    let text = shown(&state, (80, 24));
    for part in [
        "state      refused",
        "client     app/client, 10.244.1.2:40113",
        "dialled    VIP TCP 10.96.12.7:8080",
        "backend    app/web-api-0, 10.244.1.5:8081",
        "sent again 3; drops 0",
        "+1.0 ms worker-2 veth9c kfree_skb",
        "  dropped: NO_SOCKET in tcp_v4_rcv",
        "Esc back",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    for _ in 0..50 {
        state.act(Action::PageDown);
    }
    let end = shown(&state, (40, 6));
    assert!(
        end.contains("dropped: NO_SOCKET"),
        "the end stays in sight:\n{end}"
    );
}

#[test]
fn the_help_names_every_key_at_any_width() {
    let mut state = state();
    state.act(Action::Help);
    for size in [(80, 40), (30, 60)] {
        let text = shown(&state, size);
        for (key, _) in super::keys::KEYS {
            assert!(text.contains(key), "{key}:\n{text}");
        }
    }
}

#[test]
fn a_filter_is_seen_while_typed_and_after() {
    let mut state = state();
    state.act(Action::Filter);
    state.act(Action::Type('x'));
    let text = shown(&state, (80, 24));
    assert!(text.contains("/x▏"), "{text}");
    assert!(text.contains("none with this text"), "{text}");
    state.act(Action::Open);
    let text = shown(&state, (80, 24));
    assert!(
        text.contains("Connections: 0 of 3, failed first, with \"x\""),
        "{text}"
    );
}

#[test]
fn a_pause_is_told_and_what_was_said_too() {
    let mut state = state();
    state.act(Action::Pause);
    state.say("written to netflow-app-web-api.txt".into());
    let text = shown(&state, (80, 24));
    assert!(text.contains("FAILING  PAUSED"), "{text}");
    assert!(
        text.contains("written to netflow-app-web-api.txt"),
        "{text}"
    );
}

#[test]
fn a_finding_that_is_gone_is_said_to_be() {
    let mut state = state();
    let mut next = scene(vec![]);
    next.answer = healthy();
    state.take(next);
    let text = shown(&state, (80, 24));
    assert!(text.contains("HEALTHY"), "{text}");
    assert!(
        text.contains("- target-port-mismatch, gone since 0s"),
        "{text}"
    );
}

#[test]
fn silence_is_told() {
    let mut state = State::default();
    assert!(shown(&state, (80, 24)).contains("looking"));
    let mut nothing = scene(vec![]);
    nothing.answer = silent();
    state.take(nothing);
    let text = shown(&state, (80, 24));
    assert!(text.contains("NOT ENOUGH EVIDENCE"), "{text}");
    assert!(text.contains("no attempt to reach this Service"), "{text}");
}

#[test]
fn the_selected_row_stays_in_sight() {
    let many =
        (0..200).map(|n| connection(&format!("app/c{n}"), 40_000 + n, Outcome::Refused, n.into()));
    let mut state = State::default();
    state.take(scene(many.collect()));
    for _ in 0..12 {
        state.act(Action::PageDown);
    }
    let text = shown(&state, (80, 24));
    let marked = text
        .lines()
        .find(|l| l.starts_with('▸'))
        .unwrap_or_default();
    assert!(marked.contains("app/c89 "), "{text}");
}

/// Whatever the size, nothing is drawn outside of it.
#[test]
fn no_size_is_too_small() {
    let mut state = state();
    for view in [Action::Down, Action::Open, Action::Help] {
        state.act(view);
        for width in 0..50 {
            for height in 0..16 {
                terminal(&state, Theme::new(true), (width, height));
            }
        }
    }
}

#[test]
fn styles_are_left_out_where_colours_are_not_wanted() {
    let mut state = state();
    state.act(Action::Down);
    let plain = |colored| {
        let terminal = terminal(&state, Theme::new(colored), (80, 24));
        let cells = terminal.backend().buffer().content();
        cells
            .iter()
            .all(|c| (c.fg, c.bg, c.modifier) == (Color::Reset, Color::Reset, Modifier::empty()))
    };
    assert!(plain(false));
    assert!(!plain(true));
}
