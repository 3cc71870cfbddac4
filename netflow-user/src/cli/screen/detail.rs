//! One connection with its evidence.

use super::state::State;
use super::theme::Theme;
use super::words;
use crate::cli::render;
use crate::explain::connections::{ConnectionState, Sign};
use crate::model::Time;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Columns of a label.
const LABEL: usize = 11;

/// All lines of it.
pub fn lines(
    connection: &ConnectionState,
    state: &State,
    width: u16,
    theme: Theme,
) -> Vec<Line<'static>> {
    let width = width.into();
    let now = state
        .scene()
        .map_or(connection.last, |s| s.answer.window.to);
    let mut lines = facts(connection, now, width, theme);
    lines.push(Line::default());
    lines.push(Line::styled("What was seen of it", theme.strong()));
    for sign in &connection.evidence {
        lines.extend(evidence(sign, connection.began, width, theme));
    }
    lines
}

fn facts(c: &ConnectionState, now: Time, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let backend = match (&c.backend, c.address) {
        (Some(name), Some(address)) => format!("{name}, {address}"),
        _ => "none was chosen".into(),
    };
    let handshake = match &c.round_trip {
        Some(trip) => format!(
            "{} from SYN to SYN-ACK, at {}: from there to the backend and back",
            words::took(trip.took),
            trip.place
        ),
        None => "not seen whole".into(),
    };
    let outcome = match c.weight {
        1 => words::outcome(c.outcome).to_owned(),
        n => format!("{}, {n} attempts", words::outcome(c.outcome)),
    };
    let times = format!(
        "{}; last packet {} ago",
        c.began,
        words::age(now.since(c.last))
    );
    let fact = |label, text: &str, style| {
        let mut lines = Vec::new();
        for (n, line) in render::wrap(text, width.saturating_sub(LABEL))
            .into_iter()
            .enumerate()
        {
            let label = if n == 0 { label } else { "" };
            lines.push(Line::from(vec![
                Span::styled(format!("{label:LABEL$}"), theme.faint()),
                Span::styled(line, style),
            ]));
        }
        lines
    };
    let dialled = format!(
        "{} {} {}",
        render::via(c.via),
        c.dialled.proto,
        c.dialled.destination()
    );
    let client = format!("{}, {}", c.client, c.dialled.source());
    let lost = format!("{}; drops {}", c.retransmits, c.drops);
    [
        fact("state", &outcome, theme.outcome(c.outcome)),
        fact("client", &client, Style::new()),
        fact("dialled", &dialled, Style::new()),
        fact("backend", &backend, Style::new()),
        fact("handshake", &handshake, Style::new()),
        fact("sent again", &lost, Style::new()),
        fact("began", &times, Style::new()),
    ]
    .concat()
}

/// When and where, then what.
fn evidence(sign: &Sign, began: Time, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let at = sign.time.since(began).as_secs_f64() * 1e3;
    let place = format!("+{at:.1} ms {}", sign.place);
    let mut lines = vec![Line::styled(render::cut(&place, width), theme.faint())];
    let text = render::wrap(&sign.text, width.saturating_sub(2));
    lines.extend(text.into_iter().map(|line| Line::raw(format!("  {line}"))));
    lines
}
