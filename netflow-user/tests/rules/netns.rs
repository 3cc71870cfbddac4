//! A network namespace of the test's own, gone when dropped.

use std::io::{Error, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub struct Netns {
    name: String,
}

impl Netns {
    /// A namespace with `lo` up and addresses on it that are not loopback.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "nfrules-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let status = Command::new("ip").args(["netns", "add", &name]).status()?;
        assert!(status.success(), "these tests need root");
        let netns = Netns { name };
        for command in [
            "ip link set lo up",
            "ip addr add 192.0.2.1/32 dev lo",
            "ip addr add 2001:db8::1/128 dev lo nodad",
        ] {
            netns.run(command, "")?;
        }
        Ok(netns)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command there with this input; its output.
    pub fn run(&self, command: &str, input: &str) -> Result<String> {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .args(command.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .ok_or("no stdin")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("{command}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `work` on a thread of that namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = std::fs::File::open(self.path())?;
        let done = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                        .map_err(Error::from)?;
                    Ok::<T, Error>(work())
                })
                .join()
        });
        Ok(done.map_err(|_| "the thread panicked")??)
    }

    /// Names of all tables of all rule systems.
    pub fn tables(&self) -> Result<Vec<String>> {
        let read = |family: &str| {
            let list = format!("cat /proc/net/{family}_tables_names");
            self.run(&list, "")
        };
        let nft = self.run("nft list tables", "")?;
        let mut all: Vec<String> = [read("ip")?, read("ip6")?, nft]
            .iter()
            .flat_map(|text| text.lines())
            .map(str::to_owned)
            .collect();
        all.sort();
        Ok(all)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
