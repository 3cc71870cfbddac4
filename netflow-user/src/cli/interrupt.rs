//! Ctrl-C and its relatives, counted: the first asks for the answer now, the second for the door.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit status of a run that a second signal ended, as shells report a death by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Counts SIGINT, SIGTERM and SIGHUP from a thread of its own, so that none of them ends the process while programs are
/// attached.
#[derive(Clone)]
pub struct Interrupts(Arc<Shared>);

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
        let interrupts = Interrupts(Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        }));
        let counter = interrupts.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(counter.count_forever(signals)))?;
        Ok(interrupts)
    }

    /// How many signals came so far.
    pub fn count(&self) -> u32 {
        self.lock().count
    }

    /// Waits until a further signal comes, or for `limit`.
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
            let mut state = self.lock();
            state.count += 1;
            if state.count > 1 && state.detached {
                std::process::exit(EXIT_INTERRUPTED);
            }
            self.0.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
