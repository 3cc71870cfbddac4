//! netflow on the client's node, as it ships.

use anyhow::{Result, ensure};
use netflow_tests::lab::Lab;
use netflow_tests::netflow::Running;
use netflow_tests::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long netflow may take to attach, and to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run that goes on.
pub struct Netflow {
    running: Running,
    recording: PathBuf,
    /// From its start until everything was attached.
    pub attached_after: Duration,
}

impl Netflow {
    /// Starts it and waits until it is attached.
    pub fn start(lab: &Lab, world: &World) -> Result<Netflow> {
        let recording = lab.dir().join("bench.nfrec");
        let _ = std::fs::remove_file(&recording);
        let began = Instant::now();
        let mut running = Running::start(lab, 0, &world.asked, &[], 600, recording.clone())?;
        ensure!(
            running.wait_attached(PATIENCE),
            "netflow did not attach in time"
        );
        let attached_after = began.elapsed();
        // What it does once is not what is measured.
        ensure!(
            running.wait_node_read(PATIENCE),
            "netflow did not read the node in time"
        );
        Ok(Netflow {
            running,
            recording,
            attached_after,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Has it answer from what it has seen, and go.
    pub fn stop(self) -> Result<PathBuf> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        let Netflow {
            mut running,
            recording,
            ..
        } = self;
        // What was measured without it would pass for measured with it.
        ensure!(running.is_running(), "netflow ended while it was measured");
        kill(pid, Signal::SIGINT)?;
        running.finish(PATIENCE)?.answer()?;
        Ok(recording)
    }
}
