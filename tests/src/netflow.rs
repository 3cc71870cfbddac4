//! Runs of the real `netflow explain`.

use crate::answer::Answer;
use crate::lab::Lab;
use anyhow::{Context, Result, bail};
use netflow_user::model::Input;
use netflow_user::model::recording::Reader;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of a recording that holds nothing yet.
const HEADER: u64 = 12;

/// The binary: `NETFLOW_BIN`, else beside this program.
pub fn binary() -> Result<PathBuf> {
    match std::env::var_os("NETFLOW_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => crate::traffic::binary("netflow"),
    }
}

/// How netflow is to look.
#[derive(Debug, Clone, Copy)]
pub enum Means<'a> {
    /// Itself, told so.
    Own(&'a [&'a str]),
    /// Through the agent at this socket.
    Agent(&'a Path),
}

/// `netflow explain` on a node, as a user types it there.
pub fn command(
    lab: &Lab,
    node: usize,
    asked: &(String, String),
    means: Means<'_>,
    seconds: u64,
    record: &Path,
) -> Result<Command> {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &lab.node(node)])
        .arg(binary()?)
        .arg("explain");
    match means {
        Means::Own(tier) => command
            .args(["--standalone", "--manifests"])
            .arg(lab.manifests())
            .args(tier),
        Means::Agent(socket) => command
            .arg("--server")
            .arg(format!("unix://{}", socket.display())),
    };
    command
        .args(["--svc", &format!("{}/{}", asked.0, asked.1)])
        .args(["--for", &format!("{seconds}s"), "--record"])
        .arg(record);
    Ok(command)
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code; `None`: a signal.
    pub code: Option<i32>,
    /// stdout.
    pub stdout: Vec<u8>,
    /// stderr.
    pub stderr: String,
    /// When it was started, nanoseconds since the epoch.
    pub started: u64,
    /// When the answer began to appear.
    pub answered: u64,
}

impl Ended {
    /// The answer on stdout.
    pub fn answer(&self) -> Result<Answer> {
        serde_json::from_slice(&self.stdout).with_context(|| {
            let stderr = self.stderr.trim();
            format!(
                "exit code {:?}, no answer on stdout; stderr: {stderr}",
                self.code
            )
        })
    }
}

/// A run that goes on.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Read>,
    stderr: JoinHandle<Read>,
    started: u64,
    record: PathBuf,
}

impl Running {
    /// Starts `netflow explain -o json` on a node, with `more` options.
    pub fn start(
        lab: &Lab,
        node: usize,
        asked: &(String, String),
        means: Means<'_>,
        more: &[&str],
        seconds: u64,
        record: PathBuf,
    ) -> Result<Running> {
        let mut command = command(lab, node, asked, means, seconds, &record)?;
        command.args(more).args(["-o", "json"]);
        Running::spawn(command, record)
    }

    fn spawn(mut command: Command, record: PathBuf) -> Result<Running> {
        let started = now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let stdout = drain(child.stdout.take().context("no stdout")?);
        let stderr = drain(child.stderr.take().context("no stderr")?);
        Ok(Running {
            child,
            stdout,
            stderr,
            started,
            record,
        })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until something is recorded, which begins once everything is attached; false when that does not come.
    pub fn wait_attached(&mut self, limit: Duration) -> bool {
        wait_attached(&mut self.child, &self.record, limit)
    }

    /// Waits until the node was read and that is recorded; false when that does not come.
    pub fn wait_node_read(&mut self, limit: Duration) -> bool {
        wait_record(&mut self.child, &self.record, limit, has_node)
    }

    /// Waits for the end; what takes longer than `limit` is killed and an error.
    pub fn finish(mut self, limit: Duration) -> Result<Ended> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                self.child.kill()?;
                self.child.wait()?;
                bail!("netflow did not end within {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let join = |t: JoinHandle<Read>| t.join().unwrap_or_default();
        let (stdout, stderr) = (join(self.stdout), join(self.stderr));
        Ok(Ended {
            code: status.code(),
            stdout: stdout.bytes,
            stderr: String::from_utf8_lossy(&stderr.bytes).into_owned(),
            started: self.started,
            answered: stdout.first.unwrap_or_else(now),
        })
    }
}

/// Waits until `netflow` records something, which begins once everything is attached; false when that does not come.
pub fn wait_attached(netflow: &mut Child, recording: &Path, limit: Duration) -> bool {
    let holds = |path: &Path| fs::metadata(path).is_ok_and(|m| m.len() > HEADER);
    wait_record(netflow, recording, limit, holds)
}

fn wait_record(
    netflow: &mut Child,
    recording: &Path,
    limit: Duration,
    holds: impl Fn(&Path) -> bool,
) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if holds(recording) {
            return true;
        }
        if netflow.try_wait().is_ok_and(|s| s.is_some()) {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Whether a recording says that the node was read.
pub fn has_node(recording: &Path) -> bool {
    Reader::open(recording).is_ok_and(|mut inputs| inputs.any(|i| matches!(i, Input::Node(_))))
}

/// All that came through a pipe, and when it began.
#[derive(Default)]
struct Read {
    bytes: Vec<u8>,
    first: Option<u64>,
}

fn drain(mut from: impl std::io::Read + Send + 'static) -> JoinHandle<Read> {
    thread::spawn(move || {
        let mut all = Read::default();
        let mut buffer = [0; 8192];
        // What was read until a failure is what there is.
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            all.first.get_or_insert_with(now);
            all.bytes.extend_from_slice(&buffer[..n]);
        }
        all
    })
}

/// Replays recordings as nobody. The binary is handed over as an open file: where it was built, nobody may not look.
pub fn replay(recordings: &[&Path]) -> Result<Ended> {
    let path = binary()?;
    let binary = File::open(&path).with_context(|| path.display().to_string())?;
    for recording in recordings {
        fs::set_permissions(recording, fs::Permissions::from_mode(0o644))?;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--no-new-privs", "--inh-caps=-all"])
        .args(["/proc/self/fd/0", "explain", "-o", "json", "--replay"])
        .args(recordings)
        .current_dir("/");
    let started = now();
    let output = command
        .stdin(Stdio::from(binary))
        .output()
        .context("setpriv")?;
    Ok(Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        started,
        answered: now(),
    })
}

/// Nanoseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}
