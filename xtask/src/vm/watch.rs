//! When a run is over: pure, time is handed in.

use super::console::{Console, Trouble};
use netflow_guest::Report;
use std::fmt;
use std::time::{Duration, Instant};

/// How long things may take. A host whose CPUs are busy elsewhere makes an emulated guest slow, so what catches a
/// dead guest is generous.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From power on until the command starts.
    pub boot: Duration,
    /// Between two signs of life of the guest's user space.
    pub silence: Duration,
    /// From the command's start to its end.
    pub command: Duration,
}

/// How long we go on listening to a kernel that has said its last words: what follows them tells why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Something heard of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A line on the console.
    Console(String),
    /// A report of our first process.
    Report(Report),
    /// The emulator ended, with what it said.
    Emulator(String),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this code.
    Exited(u8),
    /// A signal ended the command.
    Killed(u8),
    /// The command did not end in its time.
    TooLong,
    /// The guest did not serve: what, and the end of its console.
    Lost(Loss),
}

/// How a guest was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Its kernel panicked.
    Panic,
    /// Its kernel stalled.
    Stall,
    /// It did not come up in time.
    NoBoot,
    /// It gave no sign of life any more.
    Silent,
    /// Its first process gave up.
    Init(String),
    /// The emulator ended.
    Emulator(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Panic => f.write_str("the guest's kernel panicked"),
            Loss::Stall => f.write_str("the guest's kernel stalled"),
            Loss::NoBoot => f.write_str("the guest did not come up in time"),
            Loss::Silent => f.write_str("the guest gave no sign of life any more"),
            Loss::Init(why) => write!(f, "the guest could not start: {why}"),
            Loss::Emulator(said) if said.is_empty() => f.write_str("the emulator ended"),
            Loss::Emulator(said) => write!(f, "the emulator ended: {said}"),
        }
    }
}

/// Follows one guest.
pub struct Watch {
    limits: Limits,
    began: Instant,
    /// When the command started.
    started: Option<Instant>,
    /// When the guest's user space was last heard.
    alive: Instant,
    /// The kernel's last words, and when they fell.
    trouble: Option<(Trouble, Instant)>,
    console: Console,
}

impl Watch {
    /// The guest was switched on `now`.
    pub fn new(limits: Limits, now: Instant) -> Watch {
        Watch {
            limits,
            began: now,
            started: None,
            alive: now,
            trouble: None,
            console: Console::default(),
        }
    }

    /// Takes what was heard; says how the run ended if it did.
    pub fn hear(&mut self, heard: Heard, now: Instant) -> Option<Outcome> {
        match heard {
            Heard::Console(line) => {
                if let Some(trouble) = self.console.hear(&line) {
                    self.trouble.get_or_insert((trouble, now));
                }
                None
            }
            Heard::Report(report) => {
                self.alive = now;
                match report {
                    Report::Ready => {
                        self.started = Some(now);
                        None
                    }
                    Report::Alive => None,
                    Report::Exited(code) => Some(Outcome::Exited(code)),
                    Report::Killed(signal) => Some(Outcome::Killed(signal)),
                    Report::Failed(why) => Some(Outcome::Lost(Loss::Init(why))),
                }
            }
            Heard::Emulator(said) => Some(Outcome::Lost(match self.trouble {
                Some((trouble, _)) => loss(trouble),
                None => Loss::Emulator(said),
            })),
        }
    }

    /// The next moment at which a limit is reached, and what that means.
    fn next(&self) -> (Instant, Outcome) {
        if let Some((trouble, at)) = self.trouble {
            return (at + LAST_WORDS, Outcome::Lost(loss(trouble)));
        }
        let Some(started) = self.started else {
            return (self.began + self.limits.boot, Outcome::Lost(Loss::NoBoot));
        };
        let silent = self.alive + self.limits.silence;
        let late = started + self.limits.command;
        if silent < late {
            (silent, Outcome::Lost(Loss::Silent))
        } else {
            (late, Outcome::TooLong)
        }
    }

    /// How long to listen before asking [`Watch::over`].
    pub fn patience(&self, now: Instant) -> Duration {
        self.next().0.saturating_duration_since(now)
    }

    /// How the run ended, if a limit is reached.
    pub fn over(&self, now: Instant) -> Option<Outcome> {
        let (at, outcome) = self.next();
        (now >= at).then_some(outcome)
    }

    /// The end of the console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// How long the guest took to run the command.
    pub fn boot(&self) -> Option<Duration> {
        Some(self.started?.duration_since(self.began))
    }
}

fn loss(trouble: Trouble) -> Loss {
    match trouble {
        Trouble::Panic => Loss::Panic,
        Trouble::Stall => Loss::Stall,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        boot: Duration::from_secs(100),
        silence: Duration::from_secs(30),
        command: Duration::from_mins(1),
    };

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn the_commands_own_end_is_the_outcome() {
        let began = Instant::now();
        for (report, expected) in [
            (Report::Exited(3), Some(Outcome::Exited(3))),
            (Report::Killed(9), Some(Outcome::Killed(9))),
            (Report::Alive, None),
            (
                Report::Failed("no 9p".to_owned()),
                Some(Outcome::Lost(Loss::Init("no 9p".to_owned()))),
            ),
        ] {
            let mut watch = Watch::new(LIMITS, began);
            assert_eq!(watch.hear(Heard::Report(Report::Ready), began), None);
            assert_eq!(watch.hear(Heard::Report(report), began), expected);
        }
    }

    #[test]
    fn a_panic_is_reported_once_its_trace_was_heard() {
        let began = Instant::now();
        let mut watch = Watch::new(LIMITS, began);
        let words = Heard::Console("[ 1.0] Kernel panic - not syncing: x".to_owned());
        assert_eq!(watch.hear(words, after(began, 10)), None);
        assert_eq!(watch.over(after(began, 11)), None);
        assert_eq!(
            watch.hear(Heard::Console("[ 1.0] Call Trace:".to_owned()), began),
            None
        );
        assert_eq!(
            watch.over(after(began, 12)),
            Some(Outcome::Lost(Loss::Panic))
        );
        assert!(watch.console().end().ends_with("Call Trace:"));
        let ended = watch.hear(Heard::Emulator(String::new()), after(began, 11));
        assert_eq!(ended, Some(Outcome::Lost(Loss::Panic)), "not the emulator");
    }

    #[test]
    fn a_stall_is_lost_though_user_space_lives() {
        let began = Instant::now();
        let mut watch = Watch::new(LIMITS, began);
        watch.hear(Heard::Report(Report::Ready), began);
        let words = "watchdog: BUG: soft lockup - CPU#1 stuck for 26s!".to_owned();
        watch.hear(Heard::Console(words), after(began, 10));
        watch.hear(Heard::Report(Report::Alive), after(began, 12));
        assert_eq!(
            watch.over(after(began, 12)),
            Some(Outcome::Lost(Loss::Stall))
        );
    }

    #[test]
    fn silence_is_told_from_a_command_that_takes_too_long() {
        let began = Instant::now();
        let mut silent = Watch::new(LIMITS, began);
        silent.hear(Heard::Report(Report::Ready), after(began, 5));
        assert_eq!(silent.over(after(began, 34)), None);
        assert_eq!(
            silent.over(after(began, 35)),
            Some(Outcome::Lost(Loss::Silent))
        );

        let mut long = Watch::new(LIMITS, began);
        long.hear(Heard::Report(Report::Ready), after(began, 5));
        for second in 6..65 {
            long.hear(Heard::Report(Report::Alive), after(began, second));
            assert_eq!(long.over(after(began, second)), None);
        }
        assert_eq!(long.over(after(began, 65)), Some(Outcome::TooLong));
    }

    #[test]
    fn a_guest_that_never_starts_the_command_is_lost() {
        let began = Instant::now();
        let mut watch = Watch::new(LIMITS, began);
        watch.hear(Heard::Console("Linux version".to_owned()), after(began, 99));
        assert_eq!(watch.over(after(began, 99)), None);
        assert_eq!(watch.patience(after(began, 99)), Duration::from_secs(1));
        assert_eq!(
            watch.over(after(began, 100)),
            Some(Outcome::Lost(Loss::NoBoot))
        );
        assert_eq!(watch.boot(), None);
    }
}
