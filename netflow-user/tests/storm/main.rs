//! A storm of new connections beside the Service asked about: nothing breaks, nothing is lost uncounted, and the answer is
//! the same as in calm.
//!
//! A program of its own: it takes all cores there are, and what other tests measure would suffer.

#[path = "../live/attached.rs"]
#[expect(dead_code, reason = "shared with the tests that run side by side")]
mod attached;
#[path = "../live/netflow.rs"]
#[expect(dead_code, reason = "shared with the tests that run side by side")]
mod netflow;
#[path = "../live/netns.rs"]
#[expect(dead_code, reason = "shared with the tests that run side by side")]
mod netns;
mod sender;

use anyhow::{Context, Result, anyhow, ensure};
use netflow::{Files, Running, explain};
use netns::{Lab, POD};
use sender::Sender;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The Service's address: nothing translates it.
const VIP: &str = "10.96.7.7:80";

/// Kilobytes of a run beside its maps, however long the storm.
const BUDGET: u64 = 60 << 10;

/// How long the storm lasts with each ring.
const STORM: Duration = Duration::from_secs(20);

/// New tuples in a second that make it a storm.
const RATE: u64 = 50_000;

/// Whom the storm goes to: not the Service's endpoint, whose own storm would be its story.
const STRANGER: &str = "10.77.2.3";

/// The smallest ring that there is.
const TINY_RING: &[&str] = &["--ring", "4096"];

/// Attempts at the Service, ten a second, until `stop`.
fn dial(stop: &AtomicBool) -> Result<()> {
    let vip: SocketAddr = VIP.parse()?;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let _refused = TcpStream::connect_timeout(&vip, Duration::from_millis(500));
        thread::park_timeout(Duration::from_millis(100).saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// Kilobytes of a process's own memory, maps apart; `None` once it has ended.
fn own_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What goes on in the Pod until it is told to stop.
type Weather<'a> = &'a (dyn Fn(&AtomicBool) -> Result<()> + Sync);

/// One look.
struct Look {
    answer: Value,
    /// Kilobytes at most.
    memory: u64,
}

impl Look {
    fn take(lab: &Lab, files: &Files, ring: &[&str]) -> Result<Look> {
        let mut command = explain(files, &["--for", "6s", "-o", "json"]);
        command.args(ring);
        let netflow = Running::on_tcx(lab, command)?;
        let mut memory = 0;
        while let Some(kilobytes) = own_memory(netflow.0.id()) {
            memory = memory.max(kilobytes);
            thread::park_timeout(Duration::from_millis(20));
        }
        let output = netflow.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(matches!(output.status.code(), Some(0 | 1 | 3)), "{said}");
        let answer = serde_json::from_slice(&output.stdout).context(said)?;
        Ok(Look { answer, memory })
    }

    fn cause(&self) -> &Value {
        &self.answer["findings"][0]["code"]
    }

    fn lost(&self) -> Result<u64> {
        let lost = &self.answer["nodes"][0]["lost"]["records"];
        lost.as_u64().context("lost records")
    }

    /// Whether the answer tells its reader that records were lost.
    fn says_lost(&self) -> bool {
        let blind = self.answer["blind"].as_array();
        blind.is_some_and(|blind| blind.iter().any(|spot| spot["code"] == "records-lost"))
    }
}

/// Looks while `weather` is made, at least once, and until `time` is over. Whatever happens, the weather ends.
fn during(
    lab: &Lab,
    files: &Files,
    ring: &[&str],
    time: Duration,
    weather: &[Weather<'_>],
) -> Result<Vec<Look>> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let made: Vec<_> = weather
            .iter()
            .map(|make| scope.spawn(move || lab.inside("pod", || make(stop))))
            .collect();
        let began = Instant::now();
        let mut looks = Vec::new();
        let mut failed = None;
        while failed.is_none() && (looks.is_empty() || began.elapsed() < time) {
            match Look::take(lab, files, ring) {
                Ok(look) => looks.push(look),
                Err(e) => failed = Some(e),
            }
        }
        stop.store(true, Ordering::Relaxed);
        for thread in made {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        failed.map_or(Ok(looks), Err)
    })
}

#[test]
fn a_storm_changes_no_answer() -> Result<()> {
    for ring in [&[][..], TINY_RING] {
        let (lab, files) = (Lab::up()?, Files::new()?);
        let calm = during(&lab, &files, ring, Duration::ZERO, &[&dial])?;
        let [calm] = &calm[..] else {
            panic!("one look")
        };
        ensure!(calm.answer["verdict"] == "failing", "{:#}", calm.answer);
        println!("{ring:?}: calm, {} KiB", calm.memory);

        lab.ip("host", &format!("addr add {STRANGER}/24 dev eth0"))?;
        let sender = Sender::new(POD.parse()?, STRANGER.parse()?);
        let began = Instant::now();
        let storm = |stop: &AtomicBool| sender.send(stop);
        let looks = during(&lab, &files, ring, STORM, &[&storm, &dial])?;
        let tuples = sender.sent();
        let per_second = |time: Duration| tuples * 1000 / time.as_millis().max(1) as u64;
        let rate = per_second(began.elapsed());
        // Others may use the machine too: what the sender cannot do is measured in its own time.
        let able = per_second(sender.time());
        let memory = looks.iter().map(|look| look.memory).max();
        let memory = memory.unwrap_or_default();
        let lost = looks.iter().map(Look::lost).sum::<Result<u64>>()?;
        println!(
            "{ring:?}: {tuples} new tuples, {rate}/s ({able}/s of its core), {} looks, {memory} KiB, {lost} records lost",
            looks.len()
        );
        for look in &looks {
            assert_eq!(look.answer["verdict"], "failing", "{:#}", look.answer);
            // A ring of few records may lose what proves the cause: then none is named, never another.
            let unproved = !ring.is_empty() && look.cause().is_null();
            assert!(
                unproved || look.cause() == calm.cause(),
                "{:#}",
                look.answer
            );
            assert!(look.lost()? > 0, "nothing was full: {:#}", look.answer);
            assert!(look.says_lost(), "{:#}", look.answer);
        }
        ensure!(memory <= BUDGET, "{memory} KiB");
        ensure!(able >= RATE, "only {able} new tuples/s");
    }
    Ok(())
}
