//! An API server that lists the objects in pages and tells of changes, in a process of its own: what it takes is not counted.

use crate::objects::Size;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Changes of a second, told in as many parts.
pub const RATE: u32 = 1_000;
const PARTS: u32 = 100;
/// A watch ends after that long, as it was asked to.
const WATCH: Duration = Duration::from_mins(1);

/// The server as a child.
pub struct Server {
    child: Child,
    pub at: SocketAddr,
}

impl Server {
    /// Starts this program once more, as a server.
    pub fn start(size: Size) -> Result<Server> {
        let Size { pods, services } = size;
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "--serve",
                "--pods",
                &pods.to_string(),
                "--services",
                &services.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().context("the server's output")?;
        BufReader::new(said).read_line(&mut line)?;
        let at = line.trim().parse().context("the server's address")?;
        Ok(Server { child, at })
    }

    /// From now on Pods change, for so many seconds.
    pub fn change(&mut self, seconds: u32) -> Result<()> {
        let to = self.child.stdin.as_mut().context("the server's input")?;
        writeln!(to, "{seconds}")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds for which Pods are to change, once that was said.
static CHANGES: (Mutex<Option<u32>>, Condvar) = (Mutex::new(None), Condvar::new());

/// Serves until its input ends.
pub fn serve(size: Size) -> Result<()> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever hangs up is served no more.
            thread::spawn(move || drop(answer(&stream, size)));
        }
    });
    for line in io::stdin().lines() {
        *CHANGES.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line?.parse()?);
        CHANGES.1.notify_all();
    }
    Ok(())
}

/// One request after the other.
fn answer(stream: &TcpStream, size: Size) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if from.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let target = head.split_whitespace().nth(1).context("a request")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let kind = path.rsplit('/').next().unwrap_or_default();
        let asked = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find_map(|(key, value)| (key == name).then_some(value))
        };
        if kind == "readyz" {
            reply(stream, "ok")?;
        } else if asked("watch").is_some_and(|watch| watch == "true") {
            watch(stream, kind, size)?;
        } else {
            let first = asked("continue").map_or(Ok(0), str::parse)?;
            let limit = asked("limit").map_or(Ok(u32::MAX), str::parse)?;
            reply(stream, &page(kind, size, first, limit).to_string())?;
        }
    }
}

fn page(kind: &str, size: Size, first: u32, limit: u32) -> Value {
    let count = size.count(kind);
    let end = count.min(first.saturating_add(limit));
    let items: Vec<Value> = (first..end).map(|n| size.object(kind, n)).collect();
    let more = if end < count {
        end.to_string()
    } else {
        String::new()
    };
    let (list, version) = match kind {
        "pods" => ("PodList", "v1"),
        "services" => ("ServiceList", "v1"),
        "nodes" => ("NodeList", "v1"),
        "namespaces" => ("NamespaceList", "v1"),
        "endpointslices" => ("EndpointSliceList", "discovery.k8s.io/v1"),
        _ => ("NetworkPolicyList", "networking.k8s.io/v1"),
    };
    json!({"kind": list, "apiVersion": version, "metadata": {"resourceVersion": "7", "continue": more}, "items": items})
}

fn reply(mut stream: &TcpStream, body: &str) -> Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// Nothing changes but Pods, and those once it was said.
fn watch(mut stream: &TcpStream, kind: &str, size: Size) -> Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let asked = CHANGES.0.lock().unwrap_or_else(PoisonError::into_inner);
    let silent = |seconds: &mut Option<u32>| kind != "pods" || seconds.is_none();
    let (mut asked, _) = CHANGES
        .1
        .wait_timeout_while(asked, WATCH, silent)
        .unwrap_or_else(PoisonError::into_inner);
    let seconds = if kind == "pods" { asked.take() } else { None };
    drop(asked);
    change(stream, size, seconds.unwrap_or(0))?;
    write!(stream, "0\r\n\r\n")?;
    Ok(())
}

fn change(mut stream: &TcpStream, size: Size, seconds: u32) -> Result<()> {
    if seconds > 0 && size.pods == 0 {
        bail!("there is no Pod to change");
    }
    let began = Instant::now();
    for part in 0..seconds * PARTS {
        let mut events = String::new();
        for number in 0..RATE / PARTS {
            // Far from each other, as those are that change at the same time.
            let pod = (part * (RATE / PARTS) + number).wrapping_mul(7_919) % size.pods;
            let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            let event = json!({"type": "MODIFIED", "object": size.pod(pod, &sent.to_string())});
            events.push_str(&event.to_string());
            events.push('\n');
        }
        write!(stream, "{:x}\r\n{events}\r\n", events.len())?;
        let due = Duration::from_secs(1) * (part + 1) / PARTS;
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(())
}
