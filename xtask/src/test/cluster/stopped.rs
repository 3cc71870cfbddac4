//! Processes that hang, as a machine that is overloaded or a deadlock makes them.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that is stopped as long as this is.
pub struct Stopped(Pid);

impl Stopped {
    /// Stops it.
    pub fn process(pid: Pid) -> Result<Stopped> {
        kill(pid, Signal::SIGSTOP)?;
        Ok(Stopped(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
