//! The connections: one a row, with the columns for which there is room.

use super::state::State;
use super::theme::Theme;
use super::words;
use crate::cli::render;
use crate::explain::connections::ConnectionState;
use crate::model::Time;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Span;
use ratatui::widgets::{Cell, HighlightSpacing, Paragraph, Row, Table, TableState};

/// Stands before the selected row.
const MARK: &str = "▸";

/// A column.
struct Column {
    title: &'static str,
    width: Constraint,
    text: fn(&ConnectionState, Time) -> String,
}

/// From so many columns on there is room for whole addresses.
const WIDEST: u16 = 120;
/// From so many columns on there is room for how the Service was dialled and for the measures.
const WIDE: u16 = 80;
/// From so many columns on there is room for the backend.
const MIDDLE: u16 = 36;

const STATE: Column = Column {
    title: "STATE",
    width: Constraint::Length(11),
    text: |c, _| words::outcome(c.outcome).to_owned(),
};
/// Enough for all but `unreachable`.
const NARROW_STATE: Column = Column {
    width: Constraint::Length(9),
    ..STATE
};
const CLIENT: Column = Column {
    title: "CLIENT",
    width: Constraint::Fill(1),
    text: |c, _| c.client.clone(),
};
const DIALLED: Column = Column {
    title: "DIALLED",
    width: Constraint::Fill(1),
    text: |c, _| format!("{} {}", render::via(c.via), c.dialled.destination()),
};
const NARROW_DIALLED: Column = Column {
    width: Constraint::Length(13),
    text: |c, _| format!("{} :{}", render::via(c.via), c.dialled.dport),
    ..DIALLED
};
const BACKEND: Column = Column {
    title: "BACKEND",
    width: Constraint::Fill(1),
    text: |c, _| c.backend.clone().unwrap_or_else(|| "none".into()),
};
/// The measures, and how long ago it began.
const MEASURES: [Column; 4] = [
    Column {
        title: "SYN-ACK",
        width: Constraint::Length(7),
        text: |c, _| {
            let trip = c.round_trip.as_ref();
            trip.map_or_else(|| "-".into(), |r| words::took(r.took))
        },
    },
    Column {
        title: "AGAIN",
        width: Constraint::Length(5),
        text: |c, _| c.retransmits.to_string(),
    },
    Column {
        title: "DROPS",
        width: Constraint::Length(5),
        text: |c, _| c.drops.to_string(),
    },
    Column {
        title: "AGE",
        width: Constraint::Length(4),
        text: |c, now| words::age(now.since(c.began)),
    },
];

/// What stands over them.
pub fn heading(state: &State) -> String {
    let all = state.scene().map_or(0, |s| s.all);
    let shown = state.rows().len();
    let count = if shown < all {
        format!("{shown} of {all}")
    } else {
        shown.to_string()
    };
    let filter = match state.filter().text() {
        "" => String::new(),
        text => format!(", with {text:?}"),
    };
    format!("Connections: {count}, {}{filter}", state.order().name())
}

/// The rows, with their titles where there is room.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let rows = state.rows();
    if area.is_empty() {
        return;
    }
    let (Some(scene), false) = (state.scene(), rows.is_empty()) else {
        frame.render_widget(Paragraph::new(nothing(state)).style(theme.faint()), area);
        return;
    };
    let columns = columns(area.width);
    let widths = widths(&columns, area);
    let now = scene.answer.window.to;
    let first = state.selected_row().map_or(0, |row| {
        // The rows before those that are shown need not be laid out.
        (row + 1).saturating_sub(usize::from(area.height))
    });
    let shown = rows.iter().skip(first).take(area.height.into());
    let lines = shown.map(|c| row(c, now, &columns, &widths, theme));
    let mut table = Table::new(lines, widths.iter().map(|w| Constraint::Length(*w)))
        .highlight_symbol(MARK)
        .highlight_spacing(HighlightSpacing::Always)
        .row_highlight_style(theme.selected());
    if area.height > 2 {
        let titles = columns.iter().map(|c| c.title);
        table = table.header(Row::new(titles).style(theme.faint()));
    }
    let mut selected = TableState::new().with_selected(state.selected_row().map(|row| row - first));
    frame.render_stateful_widget(table, area, &mut selected);
}

fn nothing(state: &State) -> &'static str {
    match (state.scene(), state.filter().text()) {
        (None, _) => "",
        (Some(_), "") => "no attempt to reach this Service was seen yet",
        (Some(_), _) => "none with this text; Esc shows all",
    }
}

fn columns(width: u16) -> Vec<Column> {
    let mut columns = match width {
        0..MIDDLE => return vec![NARROW_STATE, CLIENT],
        MIDDLE..WIDE => return vec![NARROW_STATE, CLIENT, BACKEND],
        WIDE..WIDEST => vec![NARROW_STATE, CLIENT, NARROW_DIALLED, BACKEND],
        WIDEST.. => vec![STATE, CLIENT, DIALLED, BACKEND],
    };
    columns.extend(MEASURES);
    columns
}

/// The table's own sharing out of the room, so that what does not fit can be cut with a mark.
fn widths(columns: &[Column], area: Rect) -> Vec<u16> {
    let room = Rect {
        width: area.width.saturating_sub(MARK.chars().count() as u16),
        ..area
    };
    let shares = Layout::horizontal(columns.iter().map(|c| c.width)).spacing(1);
    shares.split(room).iter().map(|r| r.width).collect()
}

fn row(
    connection: &ConnectionState,
    now: Time,
    columns: &[Column],
    widths: &[u16],
    theme: Theme,
) -> Row<'static> {
    let cells = columns.iter().zip(widths).enumerate().map(|(n, (c, w))| {
        let text = render::cut(&(c.text)(connection, now), (*w).into());
        let span = match n {
            0 => Span::styled(text, theme.outcome(connection.outcome)),
            _ => Span::raw(text),
        };
        Cell::from(span)
    });
    Row::new(cells)
}
