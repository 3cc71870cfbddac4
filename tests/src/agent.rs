//! The real `netflow agent` on a node.

use crate::lab::Lab;
use crate::netflow::binary;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// An agent that runs. Dropping it kills it.
pub struct Agent {
    child: Child,
    socket: PathBuf,
    /// What it says on stderr, line by line; it ends with the process.
    said: Receiver<String>,
    /// What it said before it could be asked.
    first: Vec<String>,
}

/// What it says once it can be asked.
const READY: &str = "answers at";

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
        Agent::start_with(lab, node, &[], limit)
    }

    /// Starts one with more options.
    pub fn start_with(lab: &Lab, node: usize, more: &[&str], limit: Duration) -> Result<Agent> {
        let socket = lab.dir().join(format!("node-{node}.sock"));
        let mut command = command(lab, node, &socket)?;
        let mut child = command
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting an agent")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let (to, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Whoever listens no more has the agent killed.
                let _ = to.send(line);
            }
        });
        let mut agent = Agent {
            child,
            socket,
            said,
            first: Vec::new(),
        };
        agent.first = agent.wait(limit, |line| line.contains(READY))?;
        Ok(agent)
    }

    /// Waits for a line, and gives those before it.
    fn wait(&self, limit: Duration, is_it: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let end = Instant::now() + limit;
        let mut before = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if is_it(&line) => return Ok(before),
                Ok(line) => before.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the agent is not ready within {limit:?}: {before:?}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the agent ended: {before:?}"),
            }
        }
    }

    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where it tells metrics, in the network namespace of its node.
    pub fn metrics(&self) -> Result<SocketAddr> {
        let mut said = self.first.iter();
        let address = said.find_map(|line| {
            let (_, url) = line.split_once("metrics are at http://")?;
            url.strip_suffix("/metrics")
        });
        Ok(address.context("it tells no metrics")?.parse()?)
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        let end = Instant::now() + limit;
        // Its stderr closes as it ends.
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the agent did not end within {limit:?}")
                }
            }
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
