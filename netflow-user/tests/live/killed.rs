//! Killed at any moment of its start, run and stop.

use crate::attached::{filters, has_clsact, tcx};
use crate::foreign::{self, says_ok};
use crate::netflow::{Files, command, explain, finish};
use crate::netns::{Lab, TO_HOST, TO_POD};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

/// Kills of one test.
const KILLS: u32 = 50;

/// xorshift64: moments that differ from run to run and can be had again.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn seed() -> Result<u64> {
    if let Ok(text) = std::env::var("NETFLOW_SEED") {
        return Ok(text.parse()?);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(now.as_nanos() as u64 | 1)
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_and_takes_nothing() -> Result<()> {
    let seed = seed()?;
    println!("NETFLOW_SEED={seed}");
    let mut draw = Draw(seed);
    let (lab, files) = (Lab::up()?, Files::new()?);
    let _cni = lab.inside("node", || {
        foreign::attach("cni_ingress", &says_ok(), TO_POD, false)
    })?;
    let whole = how_long(&lab, &files)?;
    for kill in 0..KILLS {
        let tc = if draw.below(2) == 0 { "tcx" } else { "clsact" };
        let mut run = explain(&files, &["--tc", tc, "--for", "300ms"]);
        run.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = lab.inside("node", || Ok(run.spawn()?))?;
        let moment = Duration::from_micros(draw.below(whole.as_micros() as u64));
        std::thread::park_timeout(moment);
        // It may have ended by itself; then it was its stop that this kill came after.
        child.kill()?;
        child.wait()?;
        check(&lab, tc)
            .with_context(|| format!("kill {kill} after {moment:?}, NETFLOW_SEED={seed}"))?;
    }
    // A fresh start works, and after it nothing of the killed ones is left either.
    let fresh = finish(&lab, explain(&files, &["--tc", "clsact", "--for", "1s"]))?;
    ensure!(fresh.status.code() != Some(2), "{fresh:?}");
    for device in ["lo", TO_POD, TO_HOST] {
        assert_eq!(
            filters(&lab, device)?,
            Vec::<String>::new(),
            "{device}, NETFLOW_SEED={seed}"
        );
        ensure!(
            !has_clsact(&lab, device)?,
            "a qdisc on {device}, NETFLOW_SEED={seed}"
        );
    }
    Ok(())
}

/// A run from start to end.
fn how_long(lab: &Lab, files: &Files) -> Result<Duration> {
    let began = std::time::Instant::now();
    let output = finish(lab, explain(files, &["--tc", "clsact", "--for", "300ms"]))?;
    ensure!(output.status.code() != Some(2), "{output:?}");
    Ok(began.elapsed())
}

/// Nothing of TCX stands any more, the program of others does; filters go with the next cleanup, not before.
fn check(lab: &Lab, tc: &str) -> Result<()> {
    assert_eq!(tcx(lab, TO_POD)?, ["cni_ingress"]);
    for device in ["lo", TO_HOST] {
        assert_eq!(tcx(lab, device)?, Vec::<String>::new(), "{device}");
    }
    if tc == "clsact" {
        let cleanup = finish(lab, command(&["cleanup"]))?;
        ensure!(cleanup.status.success(), "{cleanup:?}");
    }
    for device in ["lo", TO_POD, TO_HOST] {
        assert_eq!(filters(lab, device)?, Vec::<String>::new(), "{device}");
        ensure!(!has_clsact(lab, device)?, "a qdisc on {device}");
    }
    assert_eq!(tcx(lab, TO_POD)?, ["cni_ingress"]);
    lab.ping(1)
}
