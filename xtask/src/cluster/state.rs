//! What is up, written down before it is made, so that whoever comes later can take it down.

use super::plan::{self, Settings};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// A cluster, or as much of it as there is.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// What was asked for.
    pub settings: Settings,
    /// Whether all of it came up.
    pub complete: bool,
    /// Its processes, in the order in which they started.
    pub components: Vec<Component>,
    /// Directories that the machine did not have, for the nodes to mount their own upon.
    pub directories: Vec<PathBuf>,
}

/// A process of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Component {
    /// The program.
    pub name: String,
    /// The node it runs on; `None`: the control plane.
    pub node: Option<String>,
    /// The process.
    #[serde(flatten)]
    pub process: Process,
}

/// A process that can be told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Clock ticks after boot (field 22 of /proc/PID/stat).
    pub start: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Result<Process> {
        let pid = pid.cast_signed();
        let (_, start) = stat(pid).with_context(|| format!("the start time of {pid}"))?;
        Ok(Process { pid, start })
    }

    /// Whether it runs. One that ended and that nobody waited for does not.
    pub fn lives(self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| state != "Z" && start == self.start)
    }
}

/// State and start time of a process.
fn stat(pid: i32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the command name may hold spaces and parentheses; the fields after it do not
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.to_owned();
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

impl State {
    /// Nothing yet.
    pub fn new(settings: Settings) -> State {
        State {
            settings,
            complete: false,
            components: Vec::new(),
            directories: Vec::new(),
        }
    }

    /// What is written down; `None` when nothing is up.
    pub fn read() -> Option<State> {
        serde_json::from_slice(&fs::read(file()).ok()?).ok()
    }

    /// Writes it down, whole at any moment.
    pub fn save(&self) -> Result<()> {
        let (file, new) = (file(), plan::dir().join("state.new"));
        fs::create_dir_all(plan::dir()).with_context(|| plan::DIR.to_owned())?;
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&new, &file))
            .with_context(|| file.display().to_string())
    }

    /// Whether all came up and still runs.
    pub fn stands(&self) -> bool {
        self.complete && self.components.iter().all(|it| it.process.lives())
    }

    /// The process that a node's mounts and hostname live in.
    pub fn holder(&self, node: plan::Node) -> Option<Process> {
        self.components
            .iter()
            .find(|it| it.name == super::hold::NAME && it.node == Some(node.name()))
            .map(|it| it.process)
    }
}

fn file() -> PathBuf {
    plan::dir().join("state.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_id() -> Result<()> {
        let me = Process::of(std::process::id())?;
        assert!(me.lives());
        let later = Process {
            start: me.start + 1,
            ..me
        };
        assert!(!later.lives());
        Ok(())
    }

    #[test]
    fn one_that_ended_does_not_run_though_nobody_waited() -> Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let process = Process::of(child.id())?;
        assert!(process.lives());
        child.kill()?;
        while process.lives() {
            std::thread::yield_now();
        }
        child.wait()?;
        assert!(!process.lives());
        Ok(())
    }
}
