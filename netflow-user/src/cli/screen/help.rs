//! What keys, marks and columns mean.

use super::keys::KEYS;
use super::theme::Theme;
use crate::cli::render;
use ratatui::text::{Line, Span};

/// Columns before what a key does, where there is room for them.
const INDENT: usize = 24;
/// Narrower than this, what a key does stands under it.
const NARROW: u16 = 60;

const MARKS: [&str; 3] = [
    "✓ every attempt passed · ✗ attempts stop here · ~ some do · · nothing was seen here",
    "SYN-ACK: how long the handshake took, seen at the interface closest to the client, so that is the way from there to the backend and back; - where it was not seen whole",
    "AGAIN: segments sent again, both ways. DROPS: packets that a kernel dropped. lost: records that the kernel had and netflow did not get, so counts are too low",
];

/// All lines of it.
pub fn lines(width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (key, what) in KEYS {
        if width < NARROW {
            lines.push(Line::styled(key, theme.strong()));
            let text = render::wrap(what, usize::from(width).saturating_sub(2));
            lines.extend(text.into_iter().map(|t| Line::raw(format!("  {t}"))));
        } else {
            let text = render::wrap(what, usize::from(width) - INDENT);
            for (n, line) in text.into_iter().enumerate() {
                let key = if n == 0 { key } else { "" };
                lines.push(Line::from(vec![
                    Span::styled(format!("{key:INDENT$}"), theme.strong()),
                    Span::raw(line),
                ]));
            }
        }
    }
    for text in MARKS {
        lines.push(Line::default());
        lines.extend(render::wrap(text, width.into()).into_iter().map(Line::raw));
    }
    lines
}
