//! Namespaces of one test, gone when it ends.

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A Pod, a node it is connected to, and a host behind the node.
pub struct Lab {
    prefix: String,
    names: Vec<String>,
}

/// The Pod's address.
pub const POD: &str = "10.77.1.2";
/// The host's address.
pub const HOST: &str = "10.77.2.2";
/// The node's interface to the Pod.
pub const TO_POD: &str = "pod0";
/// The node's interface to the host.
pub const TO_HOST: &str = "up0";

impl Lab {
    /// `pod` — `node` — `host`, routed, neighbours filled in so that only what a test sends passes.
    pub fn up() -> Result<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Lab {
            prefix: format!("nflive-{}-{number}", std::process::id()),
            names: Vec::new(),
        };
        for name in ["pod", "node", "host"] {
            lab.add(name)?;
        }
        lab.cable(
            ("node", TO_POD, "10.77.1.1/24"),
            ("pod", "eth0", "10.77.1.2/24"),
        )?;
        lab.cable(
            ("node", TO_HOST, "10.77.2.1/24"),
            ("host", "eth0", "10.77.2.2/24"),
        )?;
        lab.ip("pod", "route add default via 10.77.1.1")?;
        lab.ip("host", "route add default via 10.77.2.1")?;
        lab.inside("node", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            Ok(())
        })?;
        Ok(lab)
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let full = self.full(name);
        ip(&format!("netns add {full}"))?;
        self.names.push(full);
        // no router solicitations, duplicate address detection or multicast reports of its own
        self.inside(name, || {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            Ok(())
        })?;
        self.ip(name, "link set lo up")
    }

    fn cable(&self, a: (&str, &str, &str), b: (&str, &str, &str)) -> Result<()> {
        let peer = self.full(b.0);
        let link = format!("link add {} type veth peer name {} netns {peer}", a.1, b.1);
        self.ip(a.0, &link)?;
        for (at, device, address) in [a, b] {
            self.ip(at, &format!("addr add {address} dev {device}"))?;
            self.ip(at, &format!("link set {device} up"))?;
        }
        Ok(())
    }

    /// Name of a namespace on the machine.
    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// `ip` in a namespace.
    pub fn ip(&self, name: &str, args: &str) -> Result<()> {
        ip(&format!("-n {} {args}", self.full(name)))
    }

    /// Does something on a thread in a namespace; sockets and processes that it makes stay there.
    pub fn inside<T: Send>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let file = File::open(format!("/run/netns/{}", self.full(name)))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            match thread.join() {
                Ok(done) => done,
                Err(_) => bail!("the thread in {name} panicked"),
            }
        })
    }

    /// Pings once a time, from the Pod through the node; all must be answered.
    pub fn ping(&self, count: u32) -> Result<()> {
        self.inside("pod", || {
            let mut ping = Command::new("ping");
            ping.args([
                "-q",
                "-i",
                "0.01",
                "-W",
                "5",
                "-c",
                &count.to_string(),
                HOST,
            ]);
            finish(&mut ping)
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _gone = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(args: &str) -> Result<()> {
    finish(Command::new("ip").args(args.split_whitespace()))
}

/// Runs a command to its end; its stderr is part of the error.
pub fn finish(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?}: {}: {} (these tests need root)",
            output.status,
            why.trim()
        );
    }
    Ok(())
}

/// Asks again and again, for ten seconds at most, until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("after ten seconds still not: {what}");
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}
