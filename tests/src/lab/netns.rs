//! Commands and work inside a named network namespace.

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Labs wait for each other's iptables, not for the machine's own.
pub const XTABLES_LOCK: &str = "/run/netflow-lab/xtables.lock";

/// Where iproute2 keeps named namespaces.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Runs `work` on a thread that is in namespace `name`. What it spawns stays there; unlike with `ip netns exec`, /sys is
/// left as it is.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(path(name)).with_context(|| format!("network namespace {name}"))?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering network namespace {name}"))?;
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("work in network namespace {name} panicked"))?
    })
}

/// Feeds `input` to `program` and wants it to succeed.
pub fn feed(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .env("XTABLES_LOCKFILE", XTABLES_LOCK)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} (is it installed? `cargo xtask setup` installs it)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that gives up early says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{input}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Runs lines of `ip` in one process, in namespace `name`.
pub fn batch(name: &str, lines: &[String]) -> Result<()> {
    feed(
        "ip",
        &["-n", name, "-batch", "-"],
        &(lines.join("\n") + "\n"),
    )
}

/// Runs lines of `ip netns` in one process.
pub fn manage(lines: &[String], force: bool) -> Result<()> {
    let args: &[&str] = if force {
        &["-force", "-batch", "-"]
    } else {
        &["-batch", "-"]
    };
    feed("ip", args, &(lines.join("\n") + "\n"))
}

/// Sets sysctls in namespace `name`. As sysctl(8) takes them: dotted, or with slashes where a part has dots of its own.
pub fn sysctl<K: AsRef<str> + Sync>(name: &str, values: &[(K, &str)]) -> Result<()> {
    within(name, || {
        for (key, value) in values {
            let key = key.as_ref();
            let path = if key.contains('/') {
                key.to_owned()
            } else {
                key.replace('.', "/")
            };
            let file = format!("/proc/sys/{path}");
            std::fs::write(&file, value).with_context(|| file.clone())?;
        }
        Ok(())
    })
}
