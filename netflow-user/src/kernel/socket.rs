//! Programs that a socket's `connect()` or `sendmsg()` passes: an eBPF proxy puts a backend's address there before there is a
//! packet (`BPF_CGROUP_RUN_PROG_INET4_CONNECT` and others, `include/linux/bpf-cgroup.h`, v6.18).
//!
//! Asked for is what is in force where netflow itself runs: every program of a cgroup above it, the root's among them,
//! which is where a proxy attaches what all Pods shall pass. What hangs on the cgroup of one Pod only is not seen.

use super::sys;
use crate::model::node::SocketProgram;
use aya::programs::loaded_programs;
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Where a destination may be rewritten, by the names that bpftool and libbpf give.
const HOOKS: [(bpf_attach_type, &str); 4] = [
    (
        bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
        SocketProgram::CONNECT4,
    ),
    (
        bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
        SocketProgram::CONNECT6,
    ),
    (
        bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
        SocketProgram::SENDMSG4,
    ),
    (
        bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
        SocketProgram::SENDMSG6,
    ),
];

/// Programs in force for the cgroup of this process.
pub fn programs() -> io::Result<Vec<SocketProgram>> {
    let names = loaded();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path = own_cgroup(&own, &mounts)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cgroup2 is not mounted"))?;
    let cgroup = File::open(path)?;
    let mut found = Vec::new();
    for (hook, word) in HOOKS {
        let ids = sys::effective_programs(cgroup.as_fd(), hook)?;
        found.extend(ids.into_iter().map(|id| SocketProgram {
            id,
            name: names.get(&id).cloned().unwrap_or_default(),
            hook: word.to_owned(),
        }));
    }
    Ok(found)
}

/// Names of the loaded programs that may be of this kind. Without any there is nothing to ask for.
fn loaded() -> BTreeMap<u32, String> {
    // A program that went away meanwhile is left out.
    let all = loaded_programs().flatten();
    let fit = all.filter(|p| p.program_type() == bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR);
    fit.map(|p| (p.id(), p.name_as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Directory of the cgroup (version 2) named in `/proc/self/cgroup`, below a mount of that file system. Where a mount shows
/// another part of the tree, its root is as good as anything above this process.
fn own_cgroup(own: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(own.lines().find_map(|l| l.strip_prefix("0::"))?);
    let (root, point) = mounts.lines().find_map(mount)?;
    let below = own.strip_prefix(root).ok();
    let exact = below.map(|below| Path::new(point).join(below));
    let exact = exact.filter(|path| path.is_dir());
    Some(exact.unwrap_or_else(|| PathBuf::from(point)))
}

/// Root and mount point of a line of `mountinfo` (`proc_pid_mountinfo(5)`) that is a cgroup2.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    kind.starts_with("cgroup2 ").then_some((root, point))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                          31 24 0:27 / /proc rw shared:9 - cgroup2 none rw\n";

    #[test]
    fn the_own_cgroup_is_below_the_mount() {
        let at = |own| own_cgroup(own, MOUNTS);
        assert_eq!(at("1:cpu:/x\n0::/self\n"), Some("/proc/self".into()));
        assert_eq!(at("0::/\n"), Some("/proc/".into()));
        assert_eq!(at("0::/not/there\n"), Some("/proc".into()));
        assert_eq!(at("1:cpu:/x\n"), None);
        assert_eq!(own_cgroup("0::/\n", ""), None);
    }
}
