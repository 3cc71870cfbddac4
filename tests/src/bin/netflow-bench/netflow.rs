//! netflow on the client's node, as it ships.

use anyhow::{Context, Result, ensure};
use netflow_tests::lab::Lab;
use netflow_tests::netflow::{Means, Running, has_node};
use netflow_tests::world::World;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, mkfifo};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// How long netflow may take to attach, and to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run that goes on.
pub struct Netflow {
    running: Running,
    recording: Option<PathBuf>,
}

impl Netflow {
    /// Starts it without a recording, and waits until it has attached and read the node. What shows that is a recording all the same:
    /// it goes into a pipe, which is closed then, so that netflow gives it up with the next piece.
    pub fn start(lab: &Lab, world: &World) -> Result<Netflow> {
        let pipe = lab.dir().join("bench.fifo");
        let _ = std::fs::remove_file(&pipe);
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).context("no pipe for the recording")?;
        let running = Running::start(
            lab,
            0,
            &world.asked,
            Means::Own(&[]),
            &[],
            600,
            pipe.clone(),
        )?;
        let closed = Inotify::init(InitFlags::IN_CLOEXEC)?;
        closed.add_watch(&pipe, AddWatchFlags::IN_CLOSE_WRITE)?;
        let (told, hear) = channel();
        // Nothing comes where netflow does not start.
        thread::spawn(move || told.send(has_node(&pipe)));
        let read = hear.recv_timeout(PATIENCE).unwrap_or(false);
        ensure!(read, "netflow did not read the node in time");
        let mut closed = [PollFd::new(closed.as_fd(), PollFlags::POLLIN)];
        let events = poll(&mut closed, PollTimeout::try_from(PATIENCE)?)?;
        ensure!(events > 0, "netflow goes on recording");
        Ok(Netflow {
            running,
            recording: None,
        })
    }

    /// Starts it with a recording, and waits until it has attached and read the node. Says how long it took to attach.
    pub fn recording(lab: &Lab, world: &World) -> Result<(Netflow, Duration)> {
        let recording = lab.dir().join("bench.nfrec");
        let _ = std::fs::remove_file(&recording);
        let began = Instant::now();
        let mut running = Running::start(
            lab,
            0,
            &world.asked,
            Means::Own(&[]),
            &[],
            600,
            recording.clone(),
        )?;
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
        let netflow = Netflow {
            running,
            recording: Some(recording),
        };
        Ok((netflow, attached_after))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.id()
    }

    /// CPU time of its process so far, microseconds, of threads that have ended, too.
    pub fn cpu(&self) -> Result<f64> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid().cast_signed()))?;
        Ok(Duration::from(clock_gettime(clock)?).as_secs_f64() * 1e6)
    }

    /// Has it answer from what it has seen, and go; gives its recording, if it wrote one.
    pub fn stop(self) -> Result<Option<PathBuf>> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        let Netflow {
            mut running,
            recording,
        } = self;
        // What was measured without it would pass for measured with it.
        ensure!(running.is_running(), "netflow ended while it was measured");
        kill(pid, Signal::SIGINT)?;
        running.finish(PATIENCE)?.answer()?;
        Ok(recording)
    }
}
