//! Which labs exist, so that the ones whose owner died can be removed.

use super::netns;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where states and the files of labs are.
pub const DIR: &str = "/run/netflow-lab";

/// What a lab left on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Prefix of its namespaces.
    pub prefix: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// Who takes it down; `None`: it stays until `down`.
    pub owner: Option<Owner>,
    /// Seed and shape, to draw the plan again.
    pub seed: u64,
    /// Name of the shape.
    pub shape: String,
    /// Proxy mode.
    pub proxy: String,
    /// Fault, for `status`.
    pub fault: String,
}

/// A process that can be told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pid: i32,
    /// Clock ticks after boot (field 22 of /proc/PID/stat).
    start: u64,
}

impl Owner {
    /// This process.
    pub fn me() -> Result<Owner> {
        Owner::of(std::process::id())
    }

    /// A process.
    pub fn of(pid: u32) -> Result<Owner> {
        let pid = pid.cast_signed();
        let start = start_of(pid).with_context(|| format!("reading the start time of {pid}"))?;
        Ok(Owner { pid, start })
    }

    fn lives(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }
}

fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses; the fields after it do not.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

impl State {
    fn file(&self) -> PathBuf {
        Path::new(DIR).join(format!("{}.json", self.prefix))
    }

    /// Directory for the lab's files.
    pub fn dir(&self) -> PathBuf {
        Path::new(DIR).join(&self.prefix)
    }

    /// Writes it down; done before the first namespace is made.
    pub fn save(&self) -> Result<()> {
        fs::create_dir_all(self.dir())
            .with_context(|| format!("making {}", self.dir().display()))?;
        fs::write(self.file(), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// All that are written down.
    pub fn all() -> Vec<State> {
        fs::read_dir(DIR)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
            .filter_map(|e| serde_json::from_slice(&fs::read(e.path()).ok()?).ok())
            .collect()
    }

    /// Ends the processes in the lab's namespaces, removes the namespaces and the files.
    pub fn remove(&self) -> Result<()> {
        let present: Vec<&String> = self
            .namespaces
            .iter()
            .filter(|n| netns::path(n).exists())
            .collect();
        end_processes(&present);
        let lines: Vec<String> = present.iter().map(|n| format!("netns del {n}")).collect();
        if !lines.is_empty() {
            netns::manage(&lines, true)?;
        }
        let _ = fs::remove_dir_all(self.dir());
        let _ = fs::remove_file(self.file());
        if State::all().is_empty() {
            let _ = fs::remove_file(netns::XTABLES_LOCK);
            // Fails where another lab is just being raised, as it should.
            let _ = fs::remove_dir(DIR);
        }
        Ok(())
    }
}

/// Removes labs whose owner is dead.
pub fn remove_leftovers() -> Result<usize> {
    let dead: Vec<State> = State::all()
        .into_iter()
        .filter(|s| s.owner.is_some_and(|o| !o.lives()))
        .collect();
    for state in &dead {
        state.remove()?;
    }
    Ok(dead.len())
}

/// Kills what runs in the namespaces (all of them made by this lab) and waits until it is gone.
fn end_processes(namespaces: &[&String]) {
    let ours: BTreeSet<u64> = namespaces
        .iter()
        .filter_map(|n| fs::metadata(netns::path(n)).ok())
        .map(|m| m.ino())
        .collect();
    for _ in 0..200 {
        let members = members_of(&ours);
        if members.is_empty() {
            return;
        }
        for pid in members {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn members_of(namespaces: &BTreeSet<u64>) -> Vec<i32> {
    let me = std::process::id().cast_signed();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| namespaces.contains(&m.ino()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_told_from_a_later_process_with_its_id() -> Result<()> {
        let me = Owner::me()?;
        assert!(me.lives());
        let later = Owner {
            start: me.start + 1,
            ..me
        };
        assert!(!later.lives());
        Ok(())
    }
}
