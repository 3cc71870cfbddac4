//! stdout is the answer and nothing else; everything else goes to stderr.

use super::args::Global;
use anstream::{AutoStream, ColorChoice};
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Width of a text that goes to no terminal.
const PLAIN_WIDTH: usize = 80;
/// Columns that progress takes; it must not wrap, or it could not be taken away.
const PROGRESS_WIDTH: usize = 79;
/// Narrower than this nothing can be laid out.
const MIN_WIDTH: usize = 40;

/// The two streams.
#[derive(Debug, Clone)]
pub struct Output {
    color: ColorChoice,
    verbose: u8,
    terminal: bool,
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
        }
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

    /// Text for whoever waits at the terminal; dropped where nobody does.
    pub fn aside(&self, text: &str) {
        if self.terminal {
            self.to_stderr(text);
        }
    }

    /// Whether somebody waits at a terminal.
    pub fn is_attended(&self) -> bool {
        self.terminal
    }

    /// Shows `line` in place of the one before; an empty one takes it away. Without escapes: they may be unwanted.
    pub fn progress(&self, line: &str) {
        if self.terminal {
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
