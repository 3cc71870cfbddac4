//! The command, and what it prints.

use crate::ports::Ports;
use anyhow::{Context, Result};
use netflow_guest::{Report, Request};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, wait};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How long output may still come after the command has ended, from what it left running.
const LINGER: Duration = Duration::from_secs(2);

/// The shell's codes for a command that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Brings `lo` up, with the host's own tool.
pub fn loopback(request: &Request) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.env_clear().envs(request.env.iter().cloned());
    ip.args(["link", "set", "lo", "up"]);
    let status = ip.status().context("ip link set lo up")?;
    anyhow::ensure!(status.success(), "ip link set lo up: {status}");
    Ok(())
}

/// Runs it to its end.
pub fn run(request: &Request, ports: &Ports) -> Result<Report> {
    let Request {
        args,
        env,
        cwd,
        modules: _,
    } = request;
    let (program, args) = args.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env.iter().cloned())
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            writeln!(&ports.stderr, "{}: {error}", program.display())?;
            return Ok(Report::Exited(match error.kind() {
                std::io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_RUN,
            }));
        }
    };
    let relays = [
        child.stdout.take().map(|pipe| relay(pipe, &ports.stdout)),
        child.stderr.take().map(|pipe| relay(pipe, &ports.stderr)),
    ];
    let report = reap(child.id())?;
    for relay in relays.into_iter().flatten() {
        relay?.linger();
    }
    Ok(report)
}

/// Waits for every process whose parent is gone, as the first process must, until the command ends.
fn reap(command: u32) -> Result<Report> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().cast_unsigned() == command => {
                return Ok(Report::Exited(low_byte(code)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw().cast_unsigned() == command => {
                return Ok(Report::Killed(low_byte(signal as i32)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

/// An exit code and a signal's number both fit into one (waitpid(2)).
fn low_byte(number: i32) -> u8 {
    number.to_le_bytes()[0]
}

/// Copies one stream of the command to its port.
struct Relay(Receiver<()>);

/// A pipe between the two, because a port can be opened once only, and commands open /dev/stdout.
fn relay(mut pipe: impl Read + Send + 'static, port: &File) -> Result<Relay> {
    let mut port = port.try_clone()?;
    let (copied, hear) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length) = pipe.read(&mut buffer) {
            if length == 0 || port.write_all(&buffer[..length]).is_err() {
                break;
            }
            if copied.send(()).is_err() {
                break;
            }
        }
    });
    Ok(Relay(hear))
}

impl Relay {
    /// Returns at the stream's end, or when nothing came for a while.
    fn linger(self) {
        while self.0.recv_timeout(LINGER).is_ok() {}
    }
}
