//! Taking a cluster down: all of it, whatever state it is in, and nothing else. It is found by its names, not by what was
//! written down, so that one whose `up` was killed is found as well.

use super::cgroup;
use super::inside;
use super::network;
use super::plan;
use super::state::State;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// An `up` that was killed a moment ago may have started something that is only now becoming a part of the cluster.
const TRIES: u8 = 5;

/// Removes it; whether there was one.
pub fn down() -> Result<bool> {
    let found = !leftovers()?.is_empty();
    for _ in 0..TRIES {
        remove()?;
        if leftovers()?.is_empty() {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("these remain: {}", leftovers()?.join(", "));
}

fn remove() -> Result<()> {
    cgroup::kill_all(members)?;
    network::remove()?;
    cgroup::remove()?;
    if let Some(state) = State::read() {
        for dir in state.directories.iter().rev() {
            // someone else may have put something there
            let _ = fs::remove_dir(dir);
        }
    }
    match fs::remove_dir_all(plan::dir()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(plan::DIR),
        _ => Ok(()),
    }
}

/// Processes in the cluster's cgroups, and those that somebody started in its network namespaces.
fn members() -> Result<BTreeSet<i32>> {
    let mut members = cgroup::members()?;
    members.extend(on_networks());
    Ok(members)
}

fn on_networks() -> BTreeSet<i32> {
    let inode = |path: PathBuf| fs::metadata(path).map(|it| it.ino()).ok();
    let ours: BTreeSet<u64> = network::present()
        .iter()
        .filter_map(|name| inode(inside::network(name)))
        .collect();
    let me = std::process::id().cast_signed();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter(|pid| {
            inode(PathBuf::from(format!("/proc/{pid}/ns/net"))).is_some_and(|it| ours.contains(&it))
        })
        .collect()
}

/// What there is of a cluster on this machine, for people: processes, namespaces, cgroups, mounts, files.
pub fn leftovers() -> Result<Vec<String>> {
    let mut left: Vec<String> = members()?
        .into_iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    left.extend(
        network::present()
            .into_iter()
            .map(|name| format!("network namespace {name}")),
    );
    left.extend(
        cgroup::groups()?
            .into_iter()
            .map(|group| format!("cgroup {}", group.display())),
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let ours = mounts.lines().filter(|line| line.contains(plan::DIR));
    left.extend(ours.map(|line| format!("mount {line}")));
    if plan::dir().exists() {
        left.push(plan::DIR.to_owned());
    }
    Ok(left)
}
