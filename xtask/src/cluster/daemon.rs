//! Components that stay: started in a session and a cgroup of their own, with a log.

use super::inside::Place;
use super::plan;
use super::state::Process;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of a log that are shown of a component that fails.
const SHOWN: usize = 15;

/// How often somebody is asked whether it is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// A component that was started here.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` in `place`; `name` is the log's.
    pub fn start<A: AsRef<OsStr>>(
        place: &Place,
        name: &str,
        program: &Path,
        args: &[A],
    ) -> Result<Daemon> {
        let mut command = place.command(true, program)?;
        command.args(args);
        Daemon::spawn(name, &mut command)
    }

    /// Starts a command that sees to its place by itself.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Daemon> {
        let log = plan::logs().join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| name.to_owned())?;
        Ok(Daemon {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process.
    pub fn process(&self) -> Result<Process> {
        Process::of(self.child.id())
    }

    /// Waits until `ready`; an error, with the end of its log, where it ends before or that takes too long.
    pub fn until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}; {}", self.name, tail(&self.log));
            }
            if began.elapsed() > limit {
                let Daemon { name, log, .. } = self;
                bail!(
                    "{name} is not ready after {} s; {}",
                    limit.as_secs(),
                    tail(log)
                );
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Adds to an error the end of the logs of those who may know why.
pub fn explained<T>(done: Result<T>, logs: &[String]) -> Result<T> {
    done.map_err(|error| {
        let mut text = format!("{error:#}");
        for name in logs {
            let log = plan::logs().join(format!("{name}.log"));
            // nothing fails to be written to a String
            let _ = write!(text, "\n{}", tail(&log));
        }
        anyhow!(text)
    })
}

/// The end of a log, for people.
fn tail(log: &Path) -> String {
    let Ok(file) = File::open(log) else {
        return format!("there is no {}", log.display());
    };
    let mut last = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(format!("\n  {}", String::from_utf8_lossy(&line)));
    }
    let lines: String = last.into_iter().collect();
    // it is removed with the cluster: no path to look it up by
    let name = log.file_name().unwrap_or_default();
    format!("the end of {}:{lines}", name.display())
}

/// Makes the directory of logs.
pub fn make_logs() -> Result<()> {
    let dir = plan::logs();
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())
}
