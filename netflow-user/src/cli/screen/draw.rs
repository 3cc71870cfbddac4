//! The whole screen: header, what is looked at, footer, as much as there is room for.

use super::state::{State, View};
use super::theme::Theme;
use super::{connections, detail, findings, footer, header, help, paths};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph};

/// From so many lines on the parts have headings of their own.
const ROOMY: u16 = 10;

/// Lines of two headings, or of one and the names of columns.
const TITLES: u16 = 2;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let head = header::lines(state, theme, area.height >= ROOMY);
    let [top, body, bottom] = Layout::vertical([
        Constraint::Length(head.len() as u16),
        Constraint::Fill(1),
        Constraint::Length(u16::from(area.height > 1)),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(footer::line(state, theme), bottom);
    match state.view() {
        View::List if body.height >= ROOMY => roomy(frame, body, state, theme),
        View::List => narrow(frame, body, state, theme),
        View::Detail(connection) => {
            let lines = detail::lines(connection, state, body.width, theme);
            scrolled(frame, body, lines, state.scroll());
        }
        View::Help => scrolled(frame, body, help::lines(body.width, theme), state.scroll()),
    }
}

/// All parts, each under its heading.
fn roomy(frame: &mut Frame<'_>, body: Rect, state: &State, theme: Theme) {
    let paths = paths::lines(state, body.width, theme);
    let findings = findings::lines(state, body.width, theme);
    // Half of it is the connections', where there are so many.
    let wanted = state.rows().len() as u16 + TITLES;
    let above = body.height - wanted.clamp(TITLES + 1, body.height / 2) - TITLES;
    let for_paths = (above / 2).max(above.saturating_sub(findings.len() as u16));
    let paths = clipped(paths, for_paths, theme);
    let findings = clipped(findings, above - paths.len() as u16, theme);
    let room = |lines: &[Line<'_>]| match lines.len() {
        0 => Constraint::Length(0),
        n => Constraint::Length(n as u16 + 1),
    };
    let [path_area, finding_area, rest] =
        Layout::vertical([room(&paths), room(&findings), Constraint::Fill(1)]).areas(body);
    part(frame, path_area, "Path", paths, theme);
    part(frame, finding_area, "Findings", findings, theme);
    let inner = heading(frame, rest, &connections::heading(state), theme);
    connections::draw(frame, inner, state, theme);
}

/// The cause and the connections.
fn narrow(frame: &mut Frame<'_>, body: Rect, state: &State, theme: Theme) {
    let cause: Vec<Line<'_>> = findings::lines(state, body.width, theme)
        .into_iter()
        .take(usize::from(body.height > 1))
        .collect();
    let room = Constraint::Length(cause.len() as u16);
    let [top, rest] = Layout::vertical([room, Constraint::Fill(1)]).areas(body);
    frame.render_widget(Paragraph::new(cause), top);
    connections::draw(frame, rest, state, theme);
}

fn part(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, theme: Theme) {
    if !lines.is_empty() {
        let inner = heading(frame, area, title, theme);
        frame.render_widget(Paragraph::new(lines), inner);
    }
}

/// Draws a heading and leaves the room under it.
fn heading(frame: &mut Frame<'_>, area: Rect, title: &str, theme: Theme) -> Rect {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.faint())
        .title(format!(" {title} "))
        .title_style(theme.strong());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// As many lines as fit; the last says how many do not.
fn clipped(mut lines: Vec<Line<'static>>, room: u16, theme: Theme) -> Vec<Line<'static>> {
    let room = usize::from(room);
    if lines.len() > room {
        let kept = room.saturating_sub(1);
        let more = lines.len() - kept;
        lines.truncate(kept);
        lines.push(Line::styled(
            format!("  … {more} lines more"),
            theme.faint(),
        ));
    }
    lines
}

/// From the line scrolled to on; never past the last one.
fn scrolled(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>, scroll: usize) {
    let most = lines.len().saturating_sub(usize::from(area.height));
    let shown: Vec<Line<'_>> = lines.into_iter().skip(scroll.min(most)).collect();
    frame.render_widget(Paragraph::new(shown), area);
}
