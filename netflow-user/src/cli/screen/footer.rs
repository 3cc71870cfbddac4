//! The last line: the filter being typed, what was last said, or what the keys do.

use super::state::{State, View};
use super::theme::Theme;
use ratatui::text::{Line, Span};

/// Draws it.
pub fn line(state: &State, theme: Theme) -> Line<'static> {
    if state.is_typing() {
        let text = format!("/{}", state.filter().text());
        return Line::from(vec![Span::styled(text, theme.strong()), Span::raw("▏")]);
    }
    if let Some(said) = state.said() {
        return Line::styled(said.to_owned(), theme.doubt());
    }
    let keys = match state.view() {
        View::List => {
            "q quit  ? help  ↑↓ select  Enter detail  p pause  s sort  / filter  e explanation"
        }
        View::Detail(_) => "Esc back  ↑↓ scroll  e explanation  p pause  q quit  ? help",
        View::Help => "Esc back  ↑↓ scroll  q quit",
    };
    Line::styled(keys, theme.faint())
}
