//! stdout is the answer and nothing else; everything else goes to stderr.

use super::args::Global;
use anstream::{AutoStream, ColorChoice};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Width of a text that goes to no terminal.
const PLAIN_WIDTH: usize = 80;
/// Columns that progress takes; it must not wrap, or it could not be taken away.
const PROGRESS_WIDTH: usize = 79;
/// Narrower than this nothing can be laid out.
const MIN_WIDTH: usize = 40;

/// Lines that are kept while a screen is up; older ones are forgotten.
const MAX_KEPT: usize = 20;

/// The two streams.
#[derive(Debug, Clone)]
pub struct Output {
    color: ColorChoice,
    verbose: u8,
    terminal: bool,
    /// What goes to stderr once the screen on this terminal is gone; `None` without a screen.
    kept: Arc<Mutex<Option<Kept>>>,
}

/// What was said while a screen is up.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// The last of them has not been shown yet.
    fresh: bool,
}

impl Output {
    /// As the global options ask. `anstream` looks at `NO_COLOR`, `CLICOLOR`, `TERM` and whether there is a terminal.
    pub fn new(global: &Global) -> Output {
        Output {
            color: if global.no_color {
                ColorChoice::Never
            } else {
                ColorChoice::Auto
            },
            verbose: global.verbose,
            terminal: io::stderr().is_terminal(),
            kept: Arc::default(),
        }
    }

    /// Whether a screen can be shown: there is a terminal with a size at both ends, one that can move its cursor, and nothing
    /// else writes on it.
    pub fn has_screen(&self) -> bool {
        let able = std::env::var_os("TERM").is_some_and(|t| !t.is_empty() && t != "dumb");
        able && !self.is_chatty()
            && io::stdin().is_terminal()
            && terminal_size::terminal_size_of(io::stdout()).is_some()
    }

    /// Whether colours are wanted, and stdout has them.
    pub fn is_colored(&self) -> bool {
        self.color != ColorChoice::Never && AutoStream::choice(&io::stdout()) != ColorChoice::Never
    }

    /// From now on a screen is up: notices are kept, and what goes to whoever waits is left out.
    pub fn keep(&self) {
        self.lock().get_or_insert_default();
    }

    /// The latest notice that was kept, unless this said it before.
    pub fn kept(&self) -> Option<String> {
        let mut kept = self.lock();
        let kept = kept.as_mut()?;
        let is_fresh = std::mem::take(&mut kept.fresh);
        kept.lines.back().filter(|_| is_fresh).cloned()
    }

    /// The screen is gone: what was kept is said.
    pub fn release(&self) {
        let kept = self.lock().take().unwrap_or_default();
        for line in kept.lines {
            self.notice(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a part of the answer; styles are dropped where they do not belong. `false`: nobody reads any more.
    pub fn answer(&self, text: &str) -> io::Result<bool> {
        let mut out = AutoStream::new(io::stdout().lock(), self.color);
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Something the reader should know. A closed stderr is no reason to stop.
    pub fn notice(&self, text: impl fmt::Display) {
        if let Some(kept) = self.lock().as_mut() {
            kept.push(text.to_string());
            return;
        }
        self.to_stderr(&format!("netflow: {text}\n"));
    }

    /// Something the reader asked for with `-v`.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.verbose > 0 {
            self.notice(text);
        }
    }

    /// Whether the kernel part is to talk too.
    pub fn is_chatty(&self) -> bool {
        self.verbose > 1
    }

    /// Text for whoever waits at the terminal; dropped where nobody does, and where a screen is up.
    pub fn aside(&self, text: &str) {
        if self.terminal && self.lock().is_none() {
            self.to_stderr(text);
        }
    }

    /// Whether somebody waits at a terminal.
    pub fn is_attended(&self) -> bool {
        self.terminal
    }

    /// Shows `line` in place of the one before; an empty one takes it away. Without escapes: they may be unwanted.
    pub fn progress(&self, line: &str) {
        if self.terminal && self.lock().is_none() {
            let end = if line.is_empty() { "\r" } else { "" };
            self.to_stderr(&format!("\r{line:<PROGRESS_WIDTH$}{end}"));
        }
    }

    /// Width to lay text out for: the terminal's, else `COLUMNS`, else 80.
    pub fn width(&self) -> usize {
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        terminal_size::terminal_size_of(io::stdout())
            .map(|(terminal_size::Width(w), _)| usize::from(w))
            .or_else(columns)
            .unwrap_or(PLAIN_WIDTH)
            .max(MIN_WIDTH)
    }

    fn to_stderr(&self, text: &str) {
        let mut err = AutoStream::new(io::stderr().lock(), self.color);
        // Nothing can be said about a stderr that takes nothing.
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }
}

impl Kept {
    fn push(&mut self, line: String) {
        if self.lines.len() == MAX_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.fresh = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_kept_while_a_screen_is_up_and_each_is_shown_once() {
        let output = Output::new(&Global::default());
        output.notice("before");
        assert_eq!(output.kept(), None);
        output.keep();
        let other = output.clone();
        for n in 0..=MAX_KEPT {
            other.notice(n);
        }
        assert_eq!(output.kept(), Some(MAX_KEPT.to_string()));
        assert_eq!(output.kept(), None);
        let kept = output.lock().as_ref().map(|k| k.lines.len());
        assert_eq!(kept, Some(MAX_KEPT));
        output.release();
        output.notice("after");
        assert_eq!(output.kept(), None);
    }
}
