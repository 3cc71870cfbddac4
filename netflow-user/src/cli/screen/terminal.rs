//! The terminal: taken over while the screen is up, and given back however that ends.

use super::wire::Wire;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use std::fs::File;
use std::io;
use std::iter::once;
use std::os::unix::fs::OpenOptionsExt;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// stdout, to be opened once more: with flags of its own, which whoever shares the terminal does not get.
const STDOUT: &str = "/proc/self/fd/1";
/// Keys that wait to be looked at.
const WAITING: usize = 64;
/// How often whoever reads keys looks whether the screen is still up.
const PERIOD: Duration = Duration::from_millis(100);

/// A terminal is taken over.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, given back when this is dropped.
pub struct Taken {
    terminal: Terminal<CrosstermBackend<Wire<File>>>,
    wire: Wire<File>,
    keys: Keys,
}

impl Taken {
    /// Takes it over.
    pub fn take() -> io::Result<Taken> {
        let wire = Wire::new(open()?);
        let terminal = Terminal::new(CrosstermBackend::new(wire.clone()))?;
        let keys = Keys::read()?;
        give_back_on_panic();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let mut taken = Taken {
            terminal,
            wire,
            keys,
        };
        execute!(taken.terminal.backend_mut(), EnterAlternateScreen)?;
        Ok(taken)
    }

    /// What was typed, or that the size is another: as soon as there is something, or nothing after `limit`.
    pub fn events(&self, limit: Duration) -> io::Result<Vec<Event>> {
        match self.keys.events.recv_timeout(limit) {
            Ok(first) => Ok(once(first).chain(self.keys.events.try_iter()).collect()),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            // Whoever read the keys could not go on.
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Draws, unless the terminal has not taken what was drawn before: then it says `false`.
    pub fn draw(&mut self, content: impl FnOnce(&mut Frame<'_>)) -> io::Result<bool> {
        if !self.wire.send()? {
            return Ok(false);
        }
        self.terminal.draw(content)?;
        self.wire.send()?;
        Ok(true)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn open() -> io::Result<File> {
    File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(STDOUT)
}

/// What is not sent yet is left unsent: a terminal takes a new sequence in the midst of another.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // A terminal that is gone needs nothing.
    let _ = disable_raw_mode();
    let _ = open().and_then(|mut out| execute!(out, LeaveAlternateScreen, Show));
}

/// What a panic says is to be read.
fn give_back_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back();
        before(panic);
    }));
}

/// Reads keys on a thread of its own: half of a sequence is waited for, and of a terminal that is gone there is no end.
struct Keys {
    events: Receiver<Event>,
    over: Arc<AtomicBool>,
}

impl Keys {
    fn read() -> io::Result<Keys> {
        let (to, events) = sync_channel(WAITING);
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        thread::Builder::new().name("keys".into()).spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let read = match event::poll(PERIOD) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(e) => Err(e),
                };
                if read.is_ok_and(|event| to.send(event).is_ok()) {
                    continue;
                }
                return;
            }
        })?;
        Ok(Keys { events, over })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
