//! A node's own view of the machine: its hostname, and the mounts that its daemons need for themselves. One process holds it
//! open.

use super::cgroup;
use super::inside;
use super::plan::Node;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{sethostname, setsid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The component's name.
pub const NAME: &str = "node";

/// Directories that each node has for itself, at the paths where a node's software and its agents look for them.
pub const DIRECTORIES: [&str; 7] = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/opt/cni/bin",
];

/// What a kubelet would set for the whole machine. A node sees its values there already, and the machine keeps its own.
const SYSCTLS: [(&str, &str); 6] = [
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// Hold a node's mounts and hostname.
#[derive(clap::Args)]
pub struct Args {
    /// The node
    node: String,
}

/// The command: makes them, says that they are ready by a file, and stays.
pub fn run(args: &Args) -> Result<ExitCode> {
    let node = Node::named(&args.node).context("no such node")?;
    cgroup::join(&node.place())?;
    setsid().context("a session of its own")?;
    let path = inside::network(&node.place());
    let network = File::open(&path).with_context(|| path.display().to_string())?;
    setns(network, CloneFlags::CLONE_NEWNET).context("its network namespace")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("namespaces of its own")?;
    sethostname(node.name()).context("its hostname")?;
    mounts(node)?;
    fs::write(ready(node), "")?;
    inside::turn_into(&["sleep", "infinity"].map(OsString::from), None)
}

/// The file that says so.
pub fn ready(node: Node) -> PathBuf {
    node.dir().join("ready")
}

/// Directory of what a node has at `path`.
pub fn own(node: Node, path: &str) -> PathBuf {
    node.dir().join("root").join(path.trim_start_matches('/'))
}

fn mounts(node: Node) -> Result<()> {
    // nothing of this goes out to the machine
    remount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    for path in DIRECTORIES {
        bind(&own(node, path), Path::new(path))?;
    }
    sysctls(node)?;
    run_dir()?;
    sys()?;
    // mounts of Pods reach the node and those of the node reach Pods; only now, so that what was moved moved nowhere else
    remount("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

fn sysctls(node: Node) -> Result<()> {
    for (name, value) in SYSCTLS {
        let file = own(node, "proc-sys").join(name.replace('/', "."));
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        fs::write(&file, format!("{value}\n")).with_context(|| file.display().to_string())?;
        bind(&file, &Path::new("/proc/sys").join(name))?;
    }
    Ok(())
}

/// A /run of its own, with sockets and locks where they are expected. Copies of the machine's mounts in it would keep alive
/// what is removed there.
fn run_dir() -> Result<()> {
    // it may be no mount
    let _ = umount2("/run/netns", MntFlags::MNT_DETACH);
    new("tmpfs", "/run", Some("mode=755"))?;
    for dir in ["/run/lock", "/run/netns"] {
        fs::create_dir(dir).with_context(|| dir.to_owned())?;
    }
    Ok(())
}

/// A /sys that shows this network namespace, with the machine's cgroups, and BPF objects of its own. It is put together
/// aside and then moved to its place, so that nothing has to be taken off what it covers.
fn sys() -> Result<()> {
    let aside = "/run/sys";
    fs::create_dir(aside).with_context(|| aside.to_owned())?;
    new("sysfs", aside, None)?;
    mount(
        Some("/sys/fs/cgroup"),
        "/run/sys/fs/cgroup",
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("/sys/fs/cgroup")?;
    new("bpf", "/run/sys/fs/bpf", None)?;
    new("tracefs", "/run/sys/kernel/tracing", None)?;
    mount(
        Some(aside),
        "/sys",
        None::<&str>,
        MsFlags::MS_MOVE,
        None::<&str>,
    )
    .context("/sys")?;
    fs::remove_dir(aside).with_context(|| aside.to_owned())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mounting {} on {}", from.display(), to.display()))
}

fn new(system: &str, at: &str, options: Option<&str>) -> Result<()> {
    mount(Some(system), at, Some(system), MsFlags::empty(), options)
        .with_context(|| format!("mounting {system} on {at}"))
}

fn remount(at: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("{at}: {flags:?}"))
}
