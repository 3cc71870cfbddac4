//! A page of text: wrapped paragraphs, commands that stay copyable, columns.

use anstyle::{AnsiColor, Style};
use std::fmt::Write;

/// Headings and labels.
pub const STRONG: Style = Style::new().bold();
/// What is beside the point.
pub const FAINT: Style = Style::new().dimmed();
/// What works.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is broken.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What may be broken.
pub const DOUBT: Style = AnsiColor::Yellow.on_default();
/// What can be typed.
pub const COMMAND: Style = AnsiColor::Cyan.on_default();

/// Text in the making.
#[derive(Debug)]
pub struct Page {
    text: String,
    width: usize,
}

impl Page {
    /// An empty page.
    pub fn new(width: usize) -> Page {
        Page {
            text: String::new(),
            width,
        }
    }

    /// Its columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A heading, after an empty line.
    pub fn heading(&mut self, text: &str) {
        let _ = write!(self.text, "\n{STRONG}{text}{STRONG:#}\n");
    }

    /// Text that hangs behind a lead: the lead stands once, all lines of the text begin in the same column.
    pub fn hang(&mut self, lead: &str, lead_style: Style, text: &str, style: Style) {
        let indent = lead.chars().count();
        let lines = wrap(text, self.width.saturating_sub(indent));
        for (n, line) in lines.iter().enumerate() {
            if n == 0 {
                let _ = write!(self.text, "{lead_style}{lead}{lead_style:#}");
            } else {
                let _ = write!(self.text, "{:indent$}", "");
            }
            let _ = writeln!(self.text, "{style}{line}{style:#}");
        }
    }

    /// A paragraph.
    pub fn paragraph(&mut self, indent: usize, text: &str, style: Style) {
        self.hang(&" ".repeat(indent), Style::new(), text, style);
    }

    /// A command: broken only where a shell takes ` \` for a space.
    pub fn command(&mut self, indent: usize, command: &str) {
        let room = self.width.saturating_sub(indent);
        for (n, line) in wrap_command(command, room).iter().enumerate() {
            let indent = if n == 0 { indent } else { indent + 4 };
            let _ = writeln!(self.text, "{:indent$}{COMMAND}{line}{COMMAND:#}", "");
        }
    }

    /// One line of cells, each cut and padded to its width; the last is not padded.
    pub fn row(&mut self, cells: &[(String, usize, Style)]) {
        for (n, (text, width, style)) in cells.iter().enumerate() {
            let text = cut(text, *width);
            let pad = if n + 1 == cells.len() {
                0
            } else {
                width.saturating_sub(text.chars().count())
            };
            let _ = write!(self.text, "{style}{text}{style:#}{:pad$}", "");
        }
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
    }
}

/// Breaks at spaces; a word longer than the line stands alone. Never empty.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += len;
        }
    }
    lines
}

/// Cuts what does not fit and says so with `…`.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Continuation lines are indented by four, and each line but the last ends in ` \`.
fn wrap_command(command: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in shell_words(command) {
        let limit = if lines.is_empty() {
            width
        } else {
            width.saturating_sub(4)
        };
        // A word may be the last and need no ` \`, but that is not known yet.
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() + 2 > limit {
            lines.push(line + " \\");
            line = String::new();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Splits at spaces outside quotes, keeping the quotes. An option keeps its value, and a comment at the end is one word: it
/// cannot be continued.
fn shell_words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut start = 0;
    for (at, c) in command.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, '#') if command[..at].ends_with(' ') => break,
            (None, ' ') if !is_option(&command[start..at]) || command[at..].starts_with(" -") => {
                if at > start {
                    words.push(&command[start..at]);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < command.len() {
        words.push(&command[start..]);
    }
    words
}

/// An option whose value has not come yet.
fn is_option(word: &str) -> bool {
    word.starts_with('-') && !word.contains([' ', '='])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_keeps_long_words() {
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("abcdefgh i", 4), ["abcdefgh", "i"]);
        assert_eq!(wrap("→→ →→", 5), ["→→ →→"]);
    }

    #[test]
    fn commands_break_only_outside_quotes() {
        let lines = wrap_command("kubectl get svc -o jsonpath='{.a} {.b}' -n app", 24);
        assert_eq!(
            lines,
            ["kubectl get svc \\", "-o jsonpath='{.a} {.b}' \\", "-n app"]
        );
        assert_eq!(wrap_command("a b  # why not", 9), ["a b \\", "# why not"]);
        let command = "iptables-save -t nat | grep -F 'x y'; nft list";
        let joined = wrap_command(command, 20).join(" ").replace(" \\ ", " ");
        assert_eq!(joined, command);
    }

    #[test]
    fn cuts_with_a_mark() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
