//! Killed at any moment of its start, run and stop.

use crate::attached::{Attached, kernel_has_tcx};
use crate::foreign::{self, says_ok};
use crate::netflow::{Files, command, explain, finish};
use crate::netns::{Lab, TO_POD};
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
    let before = Attached::of(&lab)?;
    ensure!(
        format!("{before:?}").contains("cni_ingress"),
        "the program of others does not show in {before:?}"
    );
    let methods: &[&str] = if kernel_has_tcx() {
        &["tcx", "clsact"]
    } else {
        &["clsact"]
    };
    let whole = how_long(&lab, &files)?;
    for kill in 0..KILLS {
        let tc = methods[draw.below(methods.len() as u64) as usize];
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
        check(&lab, tc, &before)
            .with_context(|| format!("kill {kill} after {moment:?}, NETFLOW_SEED={seed}"))?;
    }
    // A fresh start works, and after it nothing of the killed ones is left either.
    let fresh = finish(&lab, explain(&files, &["--tc", "clsact", "--for", "1s"]))?;
    ensure!(fresh.status.code() != Some(2), "{fresh:?}");
    assert_eq!(Attached::of(&lab)?, before, "NETFLOW_SEED={seed}");
    Ok(())
}

/// A run from start to end.
fn how_long(lab: &Lab, files: &Files) -> Result<Duration> {
    let began = std::time::Instant::now();
    let output = finish(lab, explain(files, &["--tc", "clsact", "--for", "300ms"]))?;
    ensure!(output.status.code() != Some(2), "{output:?}");
    Ok(began.elapsed())
}

/// What has only links stands no more, the program of others does; filters go with the next cleanup, not before.
fn check(lab: &Lab, tc: &str, before: &Attached) -> Result<()> {
    let now = Attached::of(lab)?;
    assert_eq!(
        (now.tcx, now.kprobes),
        (before.tcx.clone(), before.kprobes.clone())
    );
    if tc == "clsact" {
        let cleanup = finish(lab, command(&["cleanup"]))?;
        ensure!(cleanup.status.success(), "{cleanup:?}");
    }
    assert_eq!(&Attached::of(lab)?, before);
    lab.ping(1)
}
