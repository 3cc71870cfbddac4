//! Ctrl-C and its relatives, counted: the first asks for the answer now, the second for the door.

use nix::sys::signal::SigSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that ask for the end.
const SIGNALS: [nix::sys::signal::Signal; 3] = [
    nix::sys::signal::Signal::SIGINT,
    nix::sys::signal::Signal::SIGTERM,
    nix::sys::signal::Signal::SIGHUP,
];

/// Exit status of a run that a second signal ended, as shells report a death by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Counts how often the end was asked for: by SIGINT, SIGTERM and SIGHUP, which a thread of its own takes, so that none of
/// them ends the process while programs are attached; or by whoever asked an agent.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    count: u32,
    /// Nothing is attached any more: a signal may end the process at once.
    detached: bool,
}

impl Interrupts {
    /// Takes the signals over.
    pub fn listen() -> io::Result<Interrupts> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let signals = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        let interrupts = Interrupts::default();
        let counter = interrupts.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                // Whoever started this may have blocked them, and what is blocked is inherited. The kernel knows these signals.
                let _ = SIGNALS.into_iter().collect::<SigSet>().thread_unblock();
                runtime.block_on(counter.count_forever(signals));
            })?;
        Ok(interrupts)
    }

    /// Asks for the end, once more.
    pub fn raise(&self) {
        self.lock().count += 1;
        self.0.changed.notify_all();
    }

    /// How often so far.
    pub fn count(&self) -> u32 {
        self.lock().count
    }

    /// Whether they are the same ones.
    pub fn is(&self, other: &Interrupts) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until it is asked for once more, or for `limit`.
    pub fn wait(&self, limit: Duration) {
        let state = self.lock();
        let before = state.count;
        // A poisoned lock holds a plain counter: still good.
        drop(
            self.0
                .changed
                .wait_timeout_while(state, limit, |s| s.count == before)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Says that nothing is attached any more.
    pub fn detached(&self) {
        self.lock().detached = true;
    }

    async fn count_forever(self, (mut int, mut term, mut hup): (Signal, Signal, Signal)) {
        loop {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            self.raise();
            let state = self.lock();
            if state.count > 1 && state.detached {
                std::process::exit(EXIT_INTERRUPTED);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
