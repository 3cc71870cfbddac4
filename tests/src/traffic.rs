//! Applications of a lab: what is dialled, what listens, and how attempts ended.

use crate::lab::Lab;
use crate::pace::paced;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How an attempt ended, as the client sees it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Connected, and everything was transferred.
    Ok,
    /// ECONNREFUSED.
    Refused,
    /// Reset after the handshake.
    Reset,
    /// No answer in time.
    Timeout,
    /// Host or network unreachable.
    Unreachable,
    /// Connected, then no progress.
    Stalled,
    /// Anything else.
    #[default]
    Other,
}

/// One attempt. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// From 0.
    pub number: u32,
    /// When it began.
    pub start: u64,
    /// When it was decided.
    pub end: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes given to the kernel.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
}

/// A line of `netflow-traffic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The server waits for clients.
    Listening,
    /// An attempt began.
    Start {
        /// From 0.
        number: u32,
        /// When.
        start: u64,
    },
    /// An attempt ended.
    Attempt(Attempt),
    /// All of them.
    Total(Tally),
}

/// Attempts by outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// All.
    pub attempts: u32,
    /// Succeeded.
    pub ok: u32,
    /// Refused.
    pub refused: u32,
    /// Reset.
    pub reset: u32,
    /// Timed out.
    pub timeout: u32,
    /// Unreachable.
    pub unreachable: u32,
    /// Stalled.
    pub stalled: u32,
    /// Anything else.
    pub other: u32,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// When the first attempt that failed began.
    pub first_failing: Option<u64>,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        self.sent += attempt.sent;
        self.received += attempt.received;
        *match attempt.outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Refused => &mut self.refused,
            Outcome::Reset => &mut self.reset,
            Outcome::Timeout => &mut self.timeout,
            Outcome::Unreachable => &mut self.unreachable,
            Outcome::Stalled => &mut self.stalled,
            Outcome::Other => &mut self.other,
        } += 1;
        if attempt.outcome != Outcome::Ok {
            let first = self.first_failing.get_or_insert(attempt.start);
            *first = (*first).min(attempt.start);
        }
    }
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Where to.
    pub to: SocketAddr,
    /// Attempts.
    pub count: u32,
    /// Milliseconds between their starts.
    pub interval: u64,
    /// Bytes each way.
    pub send: usize,
    /// Bytes asked for.
    pub receive: u32,
    /// Keep open and send again after so many milliseconds.
    pub hold: Option<u64>,
    /// Milliseconds to wait for the connection.
    pub connect_timeout: u64,
    /// Seconds after which the client ends.
    pub seconds: u64,
    /// Dials so many ports one after the other, from the one given on.
    pub sweep: u16,
    /// UDP: each datagram is sent twice at the same moment, from two processors.
    pub twice: bool,
    /// Payload.
    pub canary: String,
}

impl Dial {
    /// So many attempts are meant to go on while netflow looks.
    pub const THROUGHOUT: u32 = 100;

    /// A steady stream of small TCP connections.
    pub fn tcp(to: SocketAddr) -> Dial {
        Dial {
            proto: "tcp",
            to,
            count: Dial::THROUGHOUT,
            interval: 300,
            send: 200,
            receive: 600,
            hold: None,
            connect_timeout: 1600,
            seconds: 30,
            sweep: 1,
            twice: false,
            canary: "x".to_owned(),
        }
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec!["dial".to_owned()];
        let mut add = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        add("proto", self.proto.to_owned());
        add("to", self.to.to_string());
        add("count", self.count.to_string());
        add("interval", self.interval.to_string());
        add("send", self.send.to_string());
        add("receive", self.receive.to_string());
        add("connect-timeout", self.connect_timeout.to_string());
        add("for", self.seconds.to_string());
        add("sweep", self.sweep.to_string());
        add("canary", self.canary.clone());
        if let Some(pause) = self.hold {
            add("hold", pause.to_string());
        }
        if self.twice {
            args.push("--twice".to_owned());
        }
        args
    }
}

/// A socket that an application of a Pod opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// `tcp`, `udp`, `reset` or `stray`.
    pub kind: &'static str,
    /// Which addresses it is bound to.
    pub on: Bound,
    /// Port.
    pub port: u16,
    /// Clients whose connections it resets once they speak.
    pub shuns: Vec<IpAddr>,
}

/// What a listener is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Every address.
    Any,
    /// The loopback address.
    Loopback,
}

impl Listen {
    /// On all addresses.
    pub fn any(kind: &'static str, port: u16) -> Listen {
        Listen {
            kind,
            on: Bound::Any,
            port,
            shuns: Vec::new(),
        }
    }

    /// On the loopback address.
    pub fn loopback(kind: &'static str, port: u16) -> Listen {
        Listen {
            on: Bound::Loopback,
            ..Listen::any(kind, port)
        }
    }
}

#[derive(Default)]
struct Seen {
    lines: Vec<Line>,
    closed: bool,
}

/// A running `netflow-traffic`. It is killed when dropped.
pub struct App {
    child: Option<Child>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl App {
    /// Starts a server in a namespace and waits until it listens.
    pub fn serve(lab: &Lab, netns: &str, listens: &[Listen]) -> Result<App> {
        let mut args = vec!["serve".to_owned()];
        for listen in listens {
            args.extend([
                "--listen".to_owned(),
                format!(
                    "{}:{}",
                    listen.kind,
                    SocketAddr::new(lab.plan.bind(listen.on), listen.port)
                ),
            ]);
            for client in &listen.shuns {
                args.extend(["--shun".to_owned(), client.to_string()]);
            }
        }
        let app = App::start(lab, netns, &args)?;
        let up = app.wait(paced(Duration::from_secs(5)), |lines| {
            lines.contains(&Line::Listening)
        });
        if !up {
            bail!("the server in {netns} does not listen on {listens:?}");
        }
        Ok(app)
    }

    /// Starts a client in a namespace.
    pub fn dial(lab: &Lab, netns: &str, dial: &Dial) -> Result<App> {
        App::start(lab, netns, &dial.args())
    }

    fn start(lab: &Lab, netns: &str, args: &[String]) -> Result<App> {
        let mut command = Command::new(binary("netflow-traffic")?);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if lab.stays() {
            // It outlives whoever reads what is said here, and would keep a pipe open.
            command.stderr(Stdio::null());
        }
        let mut child = lab.spawn(netns, command)?;
        let stdout = child.stdout.take().context("no stdout")?;
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    lock(&shared.0).lines.push(line);
                    shared.1.notify_all();
                }
            }
            lock(&shared.0).closed = true;
            shared.1.notify_all();
        });
        Ok(App {
            child: Some(child),
            seen,
        })
    }

    /// Waits until the lines so far satisfy `enough`; false when they do not in time.
    pub fn wait(&self, limit: Duration, enough: impl Fn(&[Line]) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut seen = lock(&self.seen.0);
        loop {
            if enough(&seen.lines) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if seen.closed || left.is_zero() {
                return false;
            }
            seen = self
                .seen
                .1
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Attempts that ended so far.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for line in &lock(&self.seen.0).lines {
            if let Line::Attempt(attempt) = line {
                tally.add(attempt);
            }
        }
        tally
    }

    /// Lets it run on after this process ended.
    pub fn leave(mut self) {
        self.child = None;
    }

    /// When the first attempt began that failed after `since`, or that was still undecided a second later, at `now`. What
    /// was refused before nobody can have seen who looked from `since` on.
    pub fn first_failing(&self, since: u64, now: u64) -> Option<u64> {
        let seen = lock(&self.seen.0);
        let failed: BTreeSet<u32> = seen
            .lines
            .iter()
            .filter_map(|l| match l {
                Line::Attempt(a) if a.outcome != Outcome::Ok && a.end >= since => Some(a.number),
                _ => None,
            })
            .collect();
        let over: BTreeSet<u32> = seen
            .lines
            .iter()
            .filter_map(|l| match l {
                Line::Attempt(a) => Some(a.number),
                _ => None,
            })
            .collect();
        let started = seen.lines.iter().filter_map(|l| match l {
            Line::Start { number, start } => Some((*number, *start)),
            _ => None,
        });
        started
            .filter(|(n, start)| {
                failed.contains(n) || !over.contains(n) && start + 1_000_000_000 <= now
            })
            .map(|(_, start)| start)
            .min()
    }

    /// Waits for the client's end.
    pub fn finish(self, limit: Duration) -> Tally {
        self.wait(limit, |lines| {
            lines.iter().any(|l| matches!(l, Line::Total(_)))
        });
        self.tally()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have ended by itself.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program of this workspace: beside the running one, or one directory up (tests run in `deps`).
pub fn binary(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not built: `cargo build -p netflow-user -p netflow-tests` builds it")
        })
}
