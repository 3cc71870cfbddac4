//! Cgroups of a cluster: what its kubelets put Pods into, and how its processes are found again. What a process starts is in
//! its cgroup, too, and no process gets there by being given an id that was once another's.

use super::plan::PREFIX;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The group of a place's own processes beside those of its Pods: in version 2 a group has processes or children that share
/// controllers, not both.
const OWN: &str = "system";

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    at: PathBuf,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Version 2.
    Unified,
    /// Version 1 with cpuset, which takes no process before it is told CPUs and memory.
    Cpuset,
    /// Version 1.
    Other,
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let found = parse(&mounts);
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted");
    }
    Ok(found)
}

/// The hierarchies among the mounts (`proc_pid_mountinfo(5)`).
fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((mount, source)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(at), Some(system)) = (mount.split(' ').nth(4), source.split(' ').next()) else {
            continue;
        };
        let has = |option: &str| {
            source
                .rsplit(' ')
                .next()
                .is_some_and(|options| options.split(',').any(|it| it == option))
        };
        let kind = match system {
            "cgroup2" => Kind::Unified,
            "cgroup" if has("cpuset") => Kind::Cpuset,
            "cgroup" => Kind::Other,
            _ => continue,
        };
        let at = PathBuf::from(at);
        if found.iter().all(|it| it.at != at) {
            found.push(Hierarchy { at, kind });
        }
    }
    found
}

/// Makes a node's cgroup in every hierarchy, for its kubelet to put Pods into.
pub fn make(place: &str) -> Result<()> {
    let all = hierarchies()?;
    let alone = all.len() == 1;
    for Hierarchy { at, kind } in all {
        let group = at.join(place);
        fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        match kind {
            Kind::Cpuset => {
                for name in ["cpuset.cpus", "cpuset.mems"] {
                    let all = fs::read(at.join(name)).with_context(|| name.to_owned())?;
                    fs::write(group.join(name), all).with_context(|| name.to_owned())?;
                }
            }
            // beside version 1 it has no controllers to hand on
            Kind::Unified if alone => hand_on(&at)?,
            Kind::Unified | Kind::Other => {}
        }
    }
    Ok(())
}

/// Lets the children of a version 2 group have its controllers.
fn hand_on(group: &Path) -> Result<()> {
    let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
    let all = controllers.split_whitespace().map(|it| format!("+{it}"));
    let all = all.collect::<Vec<_>>().join(" ");
    fs::write(group.join("cgroup.subtree_control"), all)
        .with_context(|| format!("{}: {controllers}", group.display()))
}

/// Moves this process to a place's own group; whatever it starts is there, too.
pub fn join(place: &str) -> Result<()> {
    let all = hierarchies()?;
    let unified = all.iter().find(|it| it.kind == Kind::Unified);
    let other = || all.iter().find(|it| it.kind == Kind::Other);
    let Hierarchy { at, .. } = unified.or_else(other).context("no cgroup to join")?;
    let group = at.join(place).join(OWN);
    fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
    let procs = group.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| procs.display().to_string())
}

/// Every group of a cluster, children before their parents.
pub fn groups() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for Hierarchy { at, .. } in hierarchies()? {
        for child in children(&at) {
            let name = child.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| name.starts_with(PREFIX)) {
                gather(child, &mut found);
            }
        }
    }
    Ok(found)
}

fn gather(group: PathBuf, found: &mut Vec<PathBuf>) {
    for child in children(&group) {
        gather(child, found);
    }
    found.push(group);
}

/// Directories in a directory; none where it is gone meanwhile.
fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The processes of a cluster.
pub fn members() -> Result<BTreeSet<i32>> {
    let members = |group: PathBuf| {
        let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        procs
            .lines()
            .filter_map(|pid| pid.parse().ok())
            .collect::<Vec<i32>>()
    };
    Ok(groups()?.into_iter().flat_map(members).collect())
}

/// Milliseconds that a process may take to end once it is killed.
const LIMIT: u16 = 20_000;

/// Kills what `members` finds until it finds nothing: what is being killed may have started something meanwhile.
pub fn kill_all(members: impl Fn() -> Result<BTreeSet<i32>>) -> Result<()> {
    loop {
        let alive: Vec<OwnedFd> = members()?.into_iter().filter_map(open).collect();
        if alive.is_empty() {
            return Ok(());
        }
        for process in &alive {
            // it may have ended by itself
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        for process in &alive {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ended, LIMIT)? == 0 {
                bail!("these processes do not end: {:?}", members()?);
            }
        }
    }
}

/// A process, whatever its id is given to later; `None` where it has ended. What is read from it afterwards is that it ends
/// (`pidfd_open(2)`).
fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Removes the groups, whose processes have ended: a process leaves its group before anybody is told of its end (`do_exit`,
/// <https://elixir.bootlin.com/linux/v6.18/source/kernel/exit.c>).
pub fn remove() -> Result<()> {
    for group in groups()? {
        match fs::remove_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| group.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_side_by_side() {
        let mounts = "\
23 21 0:22 / /sys rw,relatime - sysfs sysfs rw
24 23 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:24 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:25 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset
27 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
28 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let at = |name: &str, kind| Hierarchy {
            at: Path::new("/sys/fs/cgroup").join(name),
            kind,
        };
        assert_eq!(
            parse(mounts),
            [
                at("cpu", Kind::Other),
                at("cpuset", Kind::Cpuset),
                at("unified", Kind::Unified)
            ]
        );
        assert!(parse("no mount").is_empty());
    }
}
