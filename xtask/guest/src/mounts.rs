//! The guest's file systems.

use anyhow::{Context, Result};
use netflow_guest::HOST;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A file system of the kernel's own: type, mount point, options.
type Own = (&'static str, &'static str, &'static str);

/// What the first process needs before there is a root.
const KERNEL: [Own; 3] = [
    ("devtmpfs", "dev", "mode=755"),
    ("proc", "proc", ""),
    ("sysfs", "sys", ""),
];

/// What a machine that has booted has.
const USUAL: [Own; 9] = [
    ("devpts", "dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "dev/shm", "mode=1777"),
    ("tmpfs", "run", "mode=755"),
    ("bpf", "sys/fs/bpf", "mode=700"),
    ("tracefs", "sys/kernel/tracing", ""),
    ("debugfs", "sys/kernel/debug", ""),
    ("securityfs", "sys/kernel/security", ""),
    ("cgroup2", "sys/fs/cgroup", ""),
    ("mqueue", "dev/mqueue", ""),
];

/// Mounts /dev, /proc and /sys under `root`.
pub fn kernel(root: &Path) -> Result<()> {
    KERNEL.iter().try_for_each(|own| mount_own(root, own))
}

/// Makes the host's file system the root: read-only, with a layer in memory above that takes what is written.
pub fn root(modules: &Path) -> Result<()> {
    for dir in ["/host", "/layer", "/root"] {
        fs::create_dir_all(dir)?;
    }
    // msize: what one virtio request of 128 pages holds; loose: nobody writes to the host's files through us
    // (Documentation/filesystems/9p.rst)
    let options = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    mount_at(HOST, Path::new("/host"), "9p", MsFlags::MS_RDONLY, options)?;
    mount_at(
        "layer",
        Path::new("/layer"),
        "tmpfs",
        MsFlags::empty(),
        "mode=755,size=75%",
    )?;
    for dir in ["/layer/upper", "/layer/work"] {
        fs::create_dir(dir)?;
    }
    let options = "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work";
    let root = Path::new("/root");
    mount_at("root", root, "overlay", MsFlags::empty(), options)?;
    enter(root)?;
    let root = Path::new("/");
    kernel(root)?;
    USUAL.iter().try_for_each(|own| mount_own(root, own))?;
    descriptors()?;
    let tree = Path::new("/lib/modules");
    fs::create_dir_all(tree)?;
    mount(
        Some(modules),
        tree,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("{} at {}", modules.display(), tree.display()))
}

/// Leaves the initrd, which cannot be unmounted and so is covered (Documentation/filesystems/
/// ramfs-rootfs-initramfs.rst).
fn enter(root: &Path) -> Result<()> {
    chdir(root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("moving the root")?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// What shells expect in /dev besides the devices.
fn descriptors() -> Result<()> {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let link = Path::new("/dev").join(name);
        if !link.is_symlink() {
            symlink(target, &link).with_context(|| link.display().to_string())?;
        }
    }
    Ok(())
}

fn mount_own(root: &Path, (kind, point, options): &Own) -> Result<()> {
    let point = root.join(point);
    fs::create_dir_all(&point).with_context(|| point.display().to_string())?;
    mount_at(kind, &point, kind, MsFlags::empty(), options)
}

fn mount_at(what: &str, point: &Path, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(what), point, Some(kind), flags, Some(options))
        .with_context(|| format!("mounting {kind} at {}", point.display()))
}
