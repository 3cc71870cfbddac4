//! What things look like, with and without colours.

use crate::explain::attempt::Outcome;
use crate::model::answer::{Severity, State, Verdict};
use ratatui::style::{Color, Modifier, Style};

/// Styles; all are plain where nothing is to be coloured.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colored: bool,
}

impl Theme {
    /// With colours or without.
    pub fn new(colored: bool) -> Theme {
        Theme { colored }
    }

    fn style(self, style: Style) -> Style {
        if self.colored { style } else { Style::new() }
    }

    /// What works.
    pub fn good(self) -> Style {
        self.style(Style::new().fg(Color::Green))
    }

    /// What is broken.
    pub fn bad(self) -> Style {
        self.style(Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
    }

    /// What may be broken.
    pub fn doubt(self) -> Style {
        self.style(Style::new().fg(Color::Yellow))
    }

    /// What is beside the point.
    pub fn faint(self) -> Style {
        self.style(Style::new().add_modifier(Modifier::DIM))
    }

    /// Headings.
    pub fn strong(self) -> Style {
        self.style(Style::new().add_modifier(Modifier::BOLD))
    }

    /// What is selected; it has a mark besides.
    pub fn selected(self) -> Style {
        self.style(Style::new().add_modifier(Modifier::REVERSED))
    }

    /// Of a verdict.
    pub fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Healthy => self.good(),
            Verdict::Failing | Verdict::Degraded => self.bad(),
            Verdict::Suspected | Verdict::NotEnoughEvidence => self.doubt(),
        }
    }

    /// Of a finding.
    pub fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Critical => self.bad(),
            Severity::Warning => self.doubt(),
            Severity::Info => Style::new(),
        }
    }

    /// Of a hop.
    pub fn hop(self, state: State) -> Style {
        match state {
            State::Ok => self.good(),
            State::Broken => self.bad(),
            State::Degraded => self.doubt(),
            State::Unseen => self.faint(),
        }
    }

    /// Of an attempt.
    pub fn outcome(self, outcome: Outcome) -> Style {
        match outcome {
            Outcome::Ok => self.good(),
            Outcome::Pending => self.faint(),
            _ => self.bad(),
        }
    }
}
