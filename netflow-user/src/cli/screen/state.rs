//! What is shown, and what keys make of it: everything but the terminal.

use super::filter::Filter;
use super::keys::Action;
use super::order::Order;
use super::told::{self, Told};
use crate::explain::connections::ConnectionState;
use crate::explain::scene::Scene;
use crate::model::{Time, Tuple};

/// Lines of a page.
const PAGE: usize = 10;

/// What stands under the header.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum View {
    /// Path, findings and connections.
    #[default]
    List,
    /// One connection, as it was last seen.
    Detail(Box<ConnectionState>),
    /// What the keys do.
    Help,
}

/// What whoever shows this is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Show it.
    Show,
    /// End the look.
    Quit,
    /// Write the explanation to a file.
    Explanation,
}

/// What tells connections apart.
type Id = (Tuple, Time);

/// What is shown; at first nothing is known.
#[derive(Debug, Default)]
pub struct State {
    scene: Option<Scene>,
    told: Vec<Told>,
    view: View,
    order: Order,
    filter: Filter,
    typing: bool,
    paused: bool,
    /// The connection, and in which row it last was.
    selected: Option<(Id, usize)>,
    scroll: usize,
    said: Option<String>,
}

impl State {
    /// Takes in how things stand now.
    pub fn take(&mut self, scene: Scene) {
        self.told = told::update(&self.told, &scene.answer);
        if let View::Detail(shown) = &mut self.view
            && let Some(now) = scene.connections.iter().find(|c| id(c) == id(shown))
        {
            **shown = now.clone();
        }
        self.scene = Some(scene);
    }

    /// Says something, until the next key.
    pub fn say(&mut self, text: String) {
        self.said = Some(text);
    }

    /// Does what a key asks for.
    pub fn act(&mut self, action: Action) -> Wish {
        self.said = None;
        match action {
            Action::Quit => return Wish::Quit,
            Action::Explain => return Wish::Explanation,
            Action::Up => self.step(-1),
            Action::Down => self.step(1),
            Action::PageUp => self.step(-PAGE.cast_signed()),
            Action::PageDown => self.step(PAGE.cast_signed()),
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Pause => self.paused = !self.paused,
            Action::Sort => self.order = self.order.next(),
            Action::Filter => {
                self.view = View::List;
                self.typing = true;
            }
            Action::Type(c) => self.filter.push(c),
            Action::Erase => self.filter.erase(),
            Action::Help => {
                self.scroll = 0;
                self.view = match self.view {
                    View::Help => View::List,
                    View::List | View::Detail(_) => View::Help,
                };
            }
        }
        Wish::Show
    }

    fn step(&mut self, by: isize) {
        if self.view != View::List {
            self.scroll = self.scroll.saturating_add_signed(by);
            return;
        }
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let row = match self.selected_row() {
            Some(row) => row.saturating_add_signed(by).min(last),
            None if by < 0 => last,
            None => 0,
        };
        self.selected = Some((id(rows[row]), row));
    }

    fn open(&mut self) {
        if std::mem::take(&mut self.typing) || self.view != View::List {
            return;
        }
        let row = self.selected_row();
        if let Some(connection) = row.and_then(|row| self.rows().get(row).copied()) {
            self.view = View::Detail(Box::new(connection.clone()));
            self.scroll = 0;
        } else {
            self.say("select a connection first: ↑ ↓".into());
        }
    }

    fn back(&mut self) {
        if self.view == View::List {
            self.filter.clear();
            if !std::mem::take(&mut self.typing) {
                self.selected = None;
            }
        }
        self.view = View::List;
    }

    /// Connections to show, in their order.
    pub fn rows(&self) -> Vec<&ConnectionState> {
        let all = self.scene.iter().flat_map(|s| &s.connections);
        let mut rows: Vec<&ConnectionState> = all.filter(|c| self.filter.keeps(c)).collect();
        self.order.sort(&mut rows);
        rows
    }

    /// Row of the selected connection; where it is no longer shown, the one that took its place.
    pub fn selected_row(&self) -> Option<usize> {
        let (selected, row) = self.selected?;
        let rows = self.rows();
        let now = rows.iter().position(|c| id(c) == selected);
        now.or(rows.len().checked_sub(1).map(|last| row.min(last)))
    }

    /// How things stand.
    pub fn scene(&self) -> Option<&Scene> {
        self.scene.as_ref()
    }

    /// Findings with their age.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// What stands under the header.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Order of the connections.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Which connections are shown.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The filter is being typed.
    pub fn is_typing(&self) -> bool {
        self.typing
    }

    /// Everything is held as it is.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Lines that are scrolled past.
    pub fn scroll(&self) -> usize {
        self.scroll
    }

    /// What was last said.
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }
}

fn id(connection: &ConnectionState) -> Id {
    (connection.dialled, connection.began)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::samples::{busy, connection, scene};
    use crate::explain::attempt::Outcome;

    fn state() -> State {
        let mut state = State::default();
        state.take(busy());
        state
    }

    fn type_in(state: &mut State, text: &str) {
        state.act(Action::Filter);
        for c in text.chars() {
            state.act(Action::Type(c));
        }
    }

    fn clients(state: &State) -> Vec<&str> {
        state.rows().iter().map(|c| &*c.client).collect()
    }

    #[test]
    fn a_selection_follows_its_connection() {
        let mut state = state();
        state.act(Action::Down);
        state.act(Action::Down);
        let selected = state.rows()[1].clone();
        let mut next = busy();
        let fresh = connection("app/new", 50_000, Outcome::Refused, 9_000);
        next.connections.insert(0, fresh);
        state.take(next);
        assert_eq!(state.selected_row(), Some(2));
        assert_eq!(*state.rows()[2], selected);
        state.take(scene(vec![]));
        assert_eq!(state.selected_row(), None);
    }

    #[test]
    fn selecting_ends_at_the_last_row() {
        let mut state = state();
        for _ in 0..3 {
            state.act(Action::PageDown);
        }
        assert_eq!(state.selected_row(), Some(state.rows().len() - 1));
        state.act(Action::PageUp);
        state.act(Action::PageUp);
        assert_eq!(state.selected_row(), Some(0));
        let mut empty = State::default();
        assert_eq!(empty.act(Action::Down), Wish::Show);
        assert_eq!(empty.selected_row(), None);
    }

    #[test]
    fn enter_shows_one_connection_and_escape_the_list() {
        let mut state = state();
        state.act(Action::Open);
        assert_eq!(*state.view(), View::List);
        assert!(state.said().is_some_and(|s| s.contains("select")));
        state.act(Action::Down);
        state.act(Action::Open);
        let View::Detail(shown) = state.view() else {
            panic!("{:?}", state.view());
        };
        assert_eq!(shown.client, state.rows()[0].client);
        state.act(Action::Back);
        assert_eq!(*state.view(), View::List);
        assert_eq!(state.selected_row(), Some(0));
    }

    #[test]
    fn a_connection_alone_is_kept_up_to_date_and_outlives_the_list() {
        let mut state = state();
        state.act(Action::Down);
        state.act(Action::Open);
        let mut next = busy();
        for connection in &mut next.connections {
            connection.drops = 77;
        }
        state.take(next);
        state.take(scene(vec![]));
        let View::Detail(shown) = state.view() else {
            panic!("{:?}", state.view());
        };
        assert_eq!(shown.drops, 77);
    }

    #[test]
    fn a_filter_is_looked_for_in_names_and_addresses() {
        let mut state = state();
        for (text, found) in [
            ("OTHER", 1),
            ("10.96.12.7:8080", 3),
            ("web-api-1", 1),
            (":40113", 1),
            ("10.244.1.5:8081", 2),
            ("nothing", 0),
        ] {
            type_in(&mut state, text);
            state.act(Action::Open);
            assert!(!state.is_typing());
            assert_eq!(state.rows().len(), found, "{text}");
            state.act(Action::Back);
            assert_eq!(state.filter().text(), "");
        }
    }

    #[test]
    fn a_filter_can_be_corrected_and_given_up() {
        let mut state = state();
        type_in(&mut state, "othx");
        state.act(Action::Erase);
        assert_eq!((state.filter().text(), state.rows().len()), ("oth", 1));
        state.act(Action::Back);
        assert!(!state.is_typing() && state.filter().text().is_empty());
    }

    #[test]
    fn orders_come_round() {
        let mut state = state();
        let first = clients(&state).join(" ");
        let mut seen = vec![first.clone()];
        loop {
            state.act(Action::Sort);
            if state.order() == Order::Failed {
                break;
            }
            seen.push(clients(&state).join(" "));
        }
        assert_eq!(clients(&state).join(" "), first);
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn keys_that_others_must_serve_are_passed_on() {
        let mut state = state();
        assert_eq!(state.act(Action::Quit), Wish::Quit);
        assert_eq!(state.act(Action::Explain), Wish::Explanation);
        state.say("written".into());
        assert_eq!(state.act(Action::Pause), Wish::Show);
        assert!(state.is_paused() && state.said().is_none());
        state.act(Action::Help);
        assert_eq!(*state.view(), View::Help);
        state.act(Action::Help);
        assert_eq!(*state.view(), View::List);
    }
}
