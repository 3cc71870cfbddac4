//! A storm of new connections beside the Service asked about: nothing breaks, nothing is lost uncounted, and the answer is
//! the same as in calm.

use crate::netflow::{Files, Running, explain};
use crate::netns::{HOST, Lab, POD};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The Service's address: nothing translates it.
const VIP: &str = "10.96.7.7:80";

/// Kilobytes of a run beside its maps: what it takes to start (the kernel's types), 20,000 connections, one sweep and one
/// batch of records, however long the storm.
const BUDGET: u64 = 80 << 10;

/// Seconds of the long storm, with the rate that it must reach.
const LONG: (u64, u64) = (20, 50_000);

/// Traffic in the Pod's namespace for as long as it lives.
#[derive(Default)]
struct Weather {
    stop: AtomicBool,
    tuples: AtomicU64,
}

impl Weather {
    /// A datagram for each tuple that there is from one source port to the host.
    fn storm(&self, port: u16) -> Result<()> {
        for source in (port..).step_by(2) {
            let socket = UdpSocket::bind((POD, source))?;
            for destination in 1024..=u16::MAX {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // An ICMP error that came back is told by the next call: the datagram of that one is not sent.
                if socket.send_to(b"", (HOST, destination)).is_ok() {
                    self.tuples.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Attempts at the Service, ten a second.
    fn dial(&self) -> Result<()> {
        let vip: SocketAddr = VIP.parse()?;
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let _refused = TcpStream::connect_timeout(&vip, Duration::from_millis(500));
            thread::park_timeout(Duration::from_millis(100).saturating_sub(began.elapsed()));
        }
        Ok(())
    }
}

/// One look: the answer, and the most memory that it took.
fn look(lab: &Lab, files: &Files) -> Result<(Value, u64)> {
    let netflow = Running::on_tcx(lab, explain(files, &["--for", "6s", "-o", "json"]))?;
    let mut peak = 0;
    while let Some(kilobytes) = netflow.memory() {
        peak = peak.max(kilobytes);
        thread::park_timeout(Duration::from_millis(20));
    }
    let output = netflow.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(matches!(output.status.code(), Some(0 | 1 | 3)), "{said}");
    Ok((serde_json::from_slice(&output.stdout).context(said)?, peak))
}

fn cause(answer: &Value) -> &Value {
    &answer["findings"][0]["code"]
}

/// Looks in calm once and in a storm until `seconds` are over; the rate of new tuples.
fn weather(seconds: u64) -> Result<u64> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let calm = Weather::default();
    let calm_answer = thread::scope(|scope| -> Result<Value> {
        let dial = scope.spawn(|| lab.inside("pod", || calm.dial()));
        let seen = look(&lab, &files);
        calm.stop.store(true, Ordering::Relaxed);
        dial.join()
            .map_err(|_| anyhow::anyhow!("dialling panicked"))??;
        Ok(seen?.0)
    })?;
    ensure!(calm_answer["verdict"] == "failing", "{calm_answer:#}");

    let storm = Weather::default();
    let began = Instant::now();
    let looks = thread::scope(|scope| -> Result<Vec<(Value, u64)>> {
        let senders = [
            scope.spawn(|| lab.inside("pod", || storm.storm(20_000))),
            scope.spawn(|| lab.inside("pod", || storm.storm(20_001))),
            scope.spawn(|| lab.inside("pod", || storm.dial())),
        ];
        let mut looks = Vec::new();
        let mut failed = None;
        while failed.is_none() && (looks.is_empty() || began.elapsed().as_secs() < seconds) {
            match look(&lab, &files) {
                Ok(seen) => looks.push(seen),
                Err(e) => failed = Some(e),
            }
        }
        storm.stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender
                .join()
                .map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        failed.map_or(Ok(looks), Err)
    })?;
    let tuples = storm.tuples.load(Ordering::Relaxed);
    let rate = tuples * 1000 / began.elapsed().as_millis().max(1) as u64;
    let peak = looks
        .iter()
        .map(|(_, peak)| *peak)
        .max()
        .unwrap_or_default();
    println!(
        "{tuples} tuples, {rate}/s, {} looks, {peak} KiB",
        looks.len()
    );
    for (answer, _) in &looks {
        assert_eq!(answer["verdict"], calm_answer["verdict"], "{answer:#}");
        // What proves the cause may be among what was lost, and then it is told so: another cause is never named.
        let cause = cause(answer);
        assert!(
            cause.is_null() || cause == self::cause(&calm_answer),
            "{answer:#}"
        );
        let lost = answer["nodes"][0]["lost"]["records"].as_u64();
        let lost = lost.context("lost records")?;
        let blind = answer["blind"].as_array().context("blind")?;
        let said = blind.iter().any(|b| b["code"] == "records-lost");
        assert!(lost == 0 || said, "{answer:#}");
        assert!(!cause.is_null() || said, "{answer:#}");
    }
    ensure!(peak <= BUDGET, "{peak} KiB");
    Ok(rate)
}

#[test]
#[ignore = "its memory and time were measured on a loaded machine only"]
fn a_short_storm_changes_no_answer() -> Result<()> {
    weather(3)?;
    Ok(())
}

#[test]
#[ignore = "takes two cores for half a minute"]
fn a_long_storm_changes_no_answer() -> Result<()> {
    let (seconds, wanted) = LONG;
    let rate = weather(seconds)?;
    ensure!(
        rate >= wanted,
        "only {rate} new tuples/s: these cores send no storm"
    );
    Ok(())
}
