//! The real `netflow agent` on a node.

use crate::lab::Lab;
use crate::netflow::binary;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// An agent that runs. Dropping it kills it.
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

/// `netflow agent` on a node, answering at `socket`.
pub fn command(lab: &Lab, node: usize, socket: &Path) -> Result<Command> {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &lab.node(node)])
        .arg(binary()?)
        .args(["agent", "--manifests"])
        .arg(lab.manifests())
        .arg("--socket")
        .arg(socket);
    Ok(command)
}

impl Agent {
    /// Starts one, and waits until it answers.
    pub fn start(lab: &Lab, node: usize, limit: Duration) -> Result<Agent> {
        let socket = lab.dir().join(format!("node-{node}.sock"));
        let log = lab.dir().join(format!("node-{node}.log"));
        let mut command = command(lab, node, &socket)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting an agent")?;
        let mut agent = Agent { child, socket, log };
        agent.wait_answering(limit)?;
        Ok(agent)
    }

    fn wait_answering(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}: {}", self.said());
            }
            ensure!(
                Instant::now() < end,
                "no agent within {limit:?}: {}",
                self.said()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < end,
                "the agent did not end within {limit:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, as a node that runs out of memory does.
    pub fn kill(mut self) -> Result<PathBuf> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.socket.clone())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Where it has ended, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
