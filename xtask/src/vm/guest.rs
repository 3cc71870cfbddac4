//! One run: a guest from power on to its end.

use super::image::Image;
use super::initrd;
use super::qemu::Qemu;
use super::watch::{Heard, Limits, Outcome, Watch};
use anyhow::Result;
use netflow_guest::Request;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What a guest is made of.
pub struct Guest<'a> {
    /// Its kernel.
    pub image: &'a Image,
    /// Its first process.
    pub init: &'a [u8],
    /// What it runs.
    pub request: Request,
    /// Its memory in MiB.
    pub memory: u32,
    /// How long it may take.
    pub limits: Limits,
}

/// How a run went.
pub struct Ended {
    /// What ended it.
    pub outcome: Outcome,
    /// The end of the guest's console.
    pub console: String,
    /// From power on to the command's start.
    pub boot: Option<Duration>,
}

impl Guest<'_> {
    /// Runs the command; what it prints goes to `stdout` and `stderr` as it comes.
    pub fn run(self, stdout: impl Write + Send, stderr: impl Write + Send) -> Result<Ended> {
        let Guest {
            image,
            init,
            request,
            memory,
            limits,
        } = self;
        let archive = initrd::pack(init, image, &request)?;
        let began = Instant::now();
        let mut qemu = Qemu::start(image, &archive, memory)?;
        drop(archive);
        let mut watch = Watch::new(limits, began);
        let streams = [
            qemu.console.try_clone()?,
            qemu.report.try_clone()?,
            qemu.stdout.try_clone()?,
            qemu.stderr.try_clone()?,
        ];
        let outcome = thread::scope(|scope| {
            let [console, report, out, err] = streams;
            let (heard, hear) = channel();
            let reports = heard.clone();
            scope.spawn(move || {
                lines(console, &heard, |line| {
                    Some(Heard::Console(line.to_owned()))
                });
            });
            scope.spawn(move || {
                lines(report, &reports, |line| {
                    line.parse().ok().map(Heard::Report)
                });
            });
            scope.spawn(move || copy(out, stdout));
            scope.spawn(move || copy(err, stderr));
            loop {
                let patience = watch.patience(Instant::now());
                let ended = match hear.recv_timeout(patience) {
                    Ok(heard) => {
                        qemu.forget_files();
                        watch.hear(heard, Instant::now())
                    }
                    Err(RecvTimeoutError::Timeout) => watch.over(Instant::now()),
                    // both streams ended: so did the emulator
                    Err(RecvTimeoutError::Disconnected) => {
                        watch.hear(Heard::Emulator(qemu.stop()), Instant::now())
                    }
                };
                if let Some(outcome) = ended {
                    // the streams end with it, and so do the threads
                    qemu.stop();
                    break outcome;
                }
            }
        });
        Ok(Ended {
            outcome,
            console: watch.console().end(),
            boot: watch.boot(),
        })
    }
}

/// Hands on the lines of a stream until it ends.
fn lines(stream: impl Read, to: &Sender<Heard>, what: impl Fn(&str) -> Option<Heard>) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        if let Some(heard) = what(&String::from_utf8_lossy(&line))
            && to.send(heard).is_err()
        {
            return;
        }
    }
}

/// Copies a stream as it comes. What cannot be written is read all the same: the guest must not wait for it.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 {
            return;
        }
        let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
    }
}
