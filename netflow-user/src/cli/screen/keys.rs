//! What a key asks for.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// End the look.
    Quit,
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// Show the selected connection alone; while a filter is typed: it is complete.
    Open,
    /// Back to where one came from; while a filter is typed: without it.
    Back,
    /// Hold everything as it is, or go on.
    Pause,
    /// Another order.
    Sort,
    /// Type a filter.
    Filter,
    /// A letter of it.
    Type(char),
    /// Take the last letter back.
    Erase,
    /// Write the explanation to a file.
    Explain,
    /// Show what the keys do, or no longer.
    Help,
}

/// Keys and what they do, for the help.
pub const KEYS: [(&str, &str); 9] = [
    (
        "q, Ctrl-C",
        "end; what was loaded for this look is unloaded",
    ),
    ("↑ ↓, j k, PgUp PgDn", "select a connection, or scroll"),
    (
        "Enter",
        "one connection alone, with what was seen of it, and where",
    ),
    ("Esc", "back; in the list: without filter and selection"),
    (
        "p, Space",
        "hold everything as it is, or go on; netflow keeps looking",
    ),
    (
        "s",
        "other order: failed first, newest, slowest handshake, sent again, client",
    ),
    (
        "/",
        "only connections with this text in a name or an address",
    ),
    (
        "e",
        "write the explanation to a file in the current directory",
    ),
    ("?", "this help, or back"),
];

/// What a key asks for; `typing`: a filter is being typed.
pub fn action(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => Some(Action::Quit),
        KeyCode::Char(_) if control => None,
        KeyCode::Char(c) if typing => Some(Action::Type(c)),
        KeyCode::Backspace if typing => Some(Action::Erase),
        KeyCode::Enter => Some(Action::Open),
        KeyCode::Esc => Some(Action::Back),
        KeyCode::Up => Some(Action::Up),
        KeyCode::Down => Some(Action::Down),
        KeyCode::PageUp => Some(Action::PageUp),
        KeyCode::PageDown => Some(Action::PageDown),
        KeyCode::Char(c) => letter(c),
        _ => None,
    }
}

fn letter(c: char) -> Option<Action> {
    Some(match c {
        'q' => Action::Quit,
        'k' => Action::Up,
        'j' => Action::Down,
        'p' | ' ' => Action::Pause,
        's' => Action::Sort,
        '/' => Action::Filter,
        'e' => Action::Explain,
        '?' => Action::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(code: KeyCode, typing: bool) -> Option<Action> {
        action(KeyEvent::new(code, KeyModifiers::NONE), typing)
    }

    #[test]
    fn letters_are_text_while_a_filter_is_typed() {
        assert_eq!(pressed(KeyCode::Char('q'), false), Some(Action::Quit));
        assert_eq!(pressed(KeyCode::Char('q'), true), Some(Action::Type('q')));
        assert_eq!(pressed(KeyCode::Backspace, false), None);
        assert_eq!(pressed(KeyCode::Backspace, true), Some(Action::Erase));
    }

    #[test]
    fn control_c_ends_whatever_is_typed() {
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(key, true), Some(Action::Quit));
        assert_eq!(action(key, false), Some(Action::Quit));
        let other = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::CONTROL);
        assert_eq!(action(other, false), None);
    }

    #[test]
    fn a_key_that_is_let_go_asks_for_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(action(key, false), None);
    }
}
