//! What goes on at the terminal, on a thread of its own: reading a node may take seconds, and a key is not to wait for that.

use super::draw::draw;
use super::file;
use super::filter::Filter;
use super::keys;
use super::state::{State, Wish};
use super::terminal::Taken;
use super::theme::Theme;
use crate::cli::output::Output;
use crate::explain::scene::Scene;
use ratatui::crossterm::event::Event;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often it is looked for something other than keys.
const PERIOD: Duration = Duration::from_millis(50);

/// What the look is to know of the screen.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<Mutex<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    filter: Filter,
    paused: bool,
}

impl Asked {
    /// Which connections are wanted; `None` while nothing new is.
    pub fn filter(&self) -> Option<Filter> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!asked.paused).then(|| asked.filter.clone())
    }

    fn set(&self, state: &State) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.paused = state.is_paused();
        asked.filter.clone_from(state.filter());
    }
}

/// The screen, from its first line to its last.
pub struct Ui {
    terminal: Taken,
    output: Output,
    theme: Theme,
    state: State,
    asked: Asked,
}

impl Ui {
    /// Takes the terminal over.
    pub fn new(output: Output, asked: Asked) -> io::Result<Ui> {
        Ok(Ui {
            terminal: Taken::take()?,
            theme: Theme::new(output.is_colored()),
            output,
            state: State::default(),
            asked,
        })
    }

    /// Shows what comes until a key ends it, or nothing can come any more.
    pub fn run(mut self, scenes: &Receiver<Scene>) -> io::Result<()> {
        let mut changed = true;
        loop {
            if changed {
                let (state, theme) = (&self.state, self.theme);
                changed = !self.terminal.draw(|frame| draw(frame, state, theme))?;
            }
            let events = self.terminal.events(PERIOD)?;
            changed |= !events.is_empty();
            if events
                .into_iter()
                .try_for_each(|e| self.take(&e))
                .is_break()
            {
                return Ok(());
            }
            if let Some(said) = self.output.kept() {
                self.state.say(said);
                changed = true;
            }
            match scenes.try_recv() {
                Ok(scene) if !self.state.is_paused() => {
                    self.state.take(scene);
                    changed = true;
                }
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn take(&mut self, event: &Event) -> ControlFlow<()> {
        let Event::Key(key) = event else {
            return ControlFlow::Continue(());
        };
        let action = keys::action(*key, self.state.is_typing());
        match action.map(|action| self.state.act(action)) {
            Some(Wish::Quit) => return ControlFlow::Break(()),
            Some(Wish::Explanation) => self.explain(),
            Some(Wish::Show) | None => {}
        }
        self.asked.set(&self.state);
        ControlFlow::Continue(())
    }

    fn explain(&mut self) {
        let Some(scene) = self.state.scene() else {
            return;
        };
        let said = match file::write(scene, Path::new(".")) {
            Ok(name) => format!("written to {name}"),
            Err(e) => format!("the explanation could not be written: {e}"),
        };
        self.state.say(said);
    }
}
