//! Attempts of a client that speaks without connections: a datagram after a second of silence begins one.

use crate::model::Time;
use std::time::Duration;

/// A datagram after this much silence is a new attempt (design: attempt).
pub const SILENCE: Duration = Duration::from_secs(1);

/// Times are those of kernel ticks (10 ms at 100 Hz), each counted from its own entry's first packet.
const TICKS: Duration = Duration::from_millis(50);

/// What one tuple's client sent and got, by the sweeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagrams {
    /// Attempts, the first one included.
    pub attempts: u32,
    /// Of those before the latest one, how many were answered.
    pub answered: u32,
    /// Latest datagram of the client.
    sent: Option<Time>,
    /// Latest answer: now, and as the sweep before `swept` found it.
    answer: Option<Time>,
    answer_before: Option<Time>,
    swept: Time,
    /// The latest attempt began after this.
    began: Time,
    /// It had begun by then.
    begun: Time,
}

impl Default for Datagrams {
    fn default() -> Self {
        Datagrams::NONE
    }
}

impl Datagrams {
    /// Nothing was seen of the first attempt yet.
    pub(super) const NONE: Datagrams = Datagrams {
        attempts: 1,
        answered: 0,
        sent: None,
        answer: None,
        answer_before: None,
        swept: Time(0),
        began: Time(0),
        begun: Time(0),
    };

    /// The client's latest datagram, as a sweep at `at` found it.
    pub(super) fn sent(&mut self, at: Time, last: Time) {
        self.sweep(at);
        if let Some(sent) = self.sent
            && last.since(sent) > SILENCE
        {
            self.attempts += 1;
            self.answered += u32::from(self.answer_before.is_some_and(|a| a + TICKS >= self.began));
            self.began = sent + SILENCE;
            self.begun = last;
        }
        self.sent = self.sent.max(Some(last));
    }

    /// The server's latest datagram, as a sweep at `at` found it.
    pub(super) fn got(&mut self, at: Time, last: Time) {
        self.sweep(at);
        self.answer = self.answer.max(Some(last));
    }

    fn sweep(&mut self, at: Time) {
        if at > self.swept {
            self.swept = at;
            self.answer_before = self.answer;
        }
    }

    /// Takes over what was filed under another form of the same tuple.
    pub(super) fn absorb(&mut self, other: &Datagrams) {
        if other.attempts > self.attempts {
            self.attempts = other.attempts;
            self.answered = other.answered;
            self.began = other.began;
            self.begun = other.begun;
        }
        self.sent = self.sent.max(other.sent);
        self.answer = self.answer.max(other.answer);
        self.answer_before = self.answer_before.max(other.answer_before);
    }

    /// Since when the client has been waiting, where `answer` was the latest that it got; `None`: it is not.
    pub fn waiting_since(&self, answer: Time) -> Option<Time> {
        let sent = self.sent.filter(|sent| *sent > answer + TICKS)?;
        Some(sent.min((answer + SILENCE).max(self.begun)))
    }
}
