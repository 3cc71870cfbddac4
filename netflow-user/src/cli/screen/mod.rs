//! `netflow watch` on a terminal: a screen that follows what happens.
//!
//! What is shown is a [`state::State`], which knows no terminal; [`draw`] lays it out; [`terminal`] takes the terminal over
//! and gives it back; [`ui`] brings them together, beside the look, which hands it scenes.

mod connections;
mod detail;
mod draw;
mod file;
mod filter;
mod findings;
mod footer;
mod header;
mod help;
mod keys;
mod order;
mod paths;
mod state;
mod terminal;
mod theme;
mod told;
mod ui;
mod wire;
mod words;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use super::failure::Failure;
use super::output::Output;
use super::session::Observer;
use crate::explain::Explainer;
use crate::explain::scene::{Scene, Wanted};
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use ui::{Asked, Ui};

/// How often it is worked out how things stand.
const PERIOD: Duration = Duration::from_millis(500);
/// With many connections that takes long, and the thread that does it also takes in what the kernel tells: for so many times
/// as long it does nothing else afterwards.
const REST: u32 = 20;
/// Connections that can be scrolled through.
const CONNECTIONS: usize = 500;

/// Shows how things stand, until a key ends it.
pub struct Screen<'a> {
    output: &'a Output,
    asked: Asked,
    up: Option<Up>,
    shown: bool,
    next: Duration,
    failed: Option<Failure>,
}

/// The screen's thread; it ends when there is nobody to send scenes.
struct Up {
    scenes: SyncSender<Scene>,
    thread: JoinHandle<io::Result<()>>,
}

impl<'a> Screen<'a> {
    /// A screen that comes up with the first step.
    pub fn new(output: &'a Output) -> Screen<'a> {
        Screen {
            output,
            asked: Asked::default(),
            up: None,
            shown: false,
            next: Duration::ZERO,
            failed: None,
        }
    }

    /// Gives the terminal back, and lets what was said meanwhile be read. Whether the screen was ever up.
    pub fn close(&mut self) -> bool {
        if let Some(Up { scenes, thread }) = self.up.take() {
            drop(scenes);
            let ended = thread.join();
            self.failed = match ended {
                // Nobody looks any more.
                Ok(Err(e)) if is_gone(&e) => None,
                Ok(ended) => ended.err().map(|e| unusable(&e)),
                Err(_) => Some(Failure::new("screen", "the screen ended in a panic", HINT)),
            };
        }
        self.output.release();
        self.shown
    }

    /// Why it could not be shown.
    pub fn failed(self) -> Option<Failure> {
        self.failed
    }

    fn raise(&mut self) -> io::Result<()> {
        self.output.keep();
        self.shown = true;
        let (scenes, coming) = sync_channel(1);
        let (output, asked) = (self.output.clone(), self.asked.clone());
        let thread = thread::Builder::new()
            .name("screen".into())
            .spawn(move || Ui::new(output, asked)?.run(&coming))?;
        self.up = Some(Up { scenes, thread });
        Ok(())
    }
}

impl Observer for Screen<'_> {
    fn step(&mut self, explainer: &mut Explainer, elapsed: Duration) -> ControlFlow<()> {
        if self.up.is_none()
            && let Err(e) = self.raise()
        {
            self.failed = Some(unusable(&e));
            return ControlFlow::Break(());
        }
        if self.up.as_ref().is_none_or(|up| up.thread.is_finished()) {
            self.close();
            return ControlFlow::Break(());
        }
        if elapsed >= self.next
            && let Some(filter) = self.asked.filter()
        {
            let began = Instant::now();
            let scene = explainer.scene(&Wanted {
                limit: CONNECTIONS,
                kept: &|connection| filter.keeps(connection),
            });
            if let Some(up) = &self.up {
                // Where one waits to be looked at, a newer one follows soon.
                let _ = up.scenes.try_send(scene);
            }
            self.next = elapsed + PERIOD.max(began.elapsed() * REST);
        }
        ControlFlow::Continue(())
    }
}

/// What to do without a screen.
const HINT: &str = "`netflow watch … | cat` writes lines instead";

fn unusable(e: &io::Error) -> Failure {
    Failure::new("screen", format!("the terminal cannot be used: {e}"), HINT)
}

/// The terminal was closed.
fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::BrokenPipe || e.raw_os_error() == Some(libc::EIO)
}
