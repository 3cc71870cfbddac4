//! netflow leaves nothing behind, removes nothing that is not its own, and hides no packet from others.

use crate::attached::{filters, has_clsact, tcx};
use crate::foreign::{Foreign, Place};
use crate::netflow::{Files, Running, command, explain, finish};
use crate::netns::{Lab, TO_HOST, TO_POD, eventually};
use anyhow::{Result, ensure};
use aya::sys::{Stats, enable_stats};
use nix::sys::signal::Signal;

#[test]
fn a_killed_run_leaves_nothing_on_tcx() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let netflow = Running::on_tcx(&lab, explain(&files, &["--tc", "tcx", "--for", "60s"]))?;
    netflow.signal(Signal::SIGKILL)?;
    netflow.output()?;
    for device in [TO_POD, TO_HOST, "lo"] {
        eventually("nothing attached", || {
            Ok(tcx(&lab, device)?.is_empty().then_some(()))
        })?;
        ensure!(!has_clsact(&lab, device)?, "a qdisc on {device}");
    }
    Ok(())
}

#[test]
fn a_terminated_run_leaves_nothing() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let netflow =
            Running::on_clsact(&lab, explain(&files, &["--tc", "clsact", "--for", "60s"]))?;
        netflow.signal(signal)?;
        netflow.output()?;
        for device in [TO_POD, TO_HOST, "lo"] {
            assert_eq!(filters(&lab, device)?, Vec::<String>::new(), "{signal}");
            ensure!(!has_clsact(&lab, device)?, "{signal}: a qdisc on {device}");
        }
    }
    Ok(())
}

#[test]
fn clsact_leftovers_are_removed_by_cleanup_and_by_the_next_start() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let next: [fn(&Files) -> std::process::Command; 2] = [
        |_| command(&["cleanup"]),
        |files| explain(files, &["--tc", "clsact", "--for", "1s"]),
    ];
    for next in next {
        let netflow =
            Running::on_clsact(&lab, explain(&files, &["--tc", "clsact", "--for", "60s"]))?;
        netflow.signal(Signal::SIGKILL)?;
        netflow.output()?;
        ensure!(
            filters(&lab, TO_POD)?.len() == 2,
            "the kernel keeps filters of a killed process"
        );
        finish(&lab, next(&files))?;
        for device in [TO_POD, TO_HOST, "lo"] {
            assert_eq!(filters(&lab, device)?, Vec::<String>::new(), "{device}");
            ensure!(!has_clsact(&lab, device)?, "a qdisc on {device}");
        }
    }
    Ok(())
}

#[test]
fn cleanup_spares_a_run_that_lives() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let netflow = Running::on_clsact(&lab, explain(&files, &["--tc", "clsact", "--for", "60s"]))?;
    let before = filters(&lab, TO_POD)?;
    let cleanup = finish(&lab, command(&["cleanup"]))?;
    ensure!(cleanup.status.success(), "{cleanup:?}");
    assert_eq!(filters(&lab, TO_POD)?, before);
    netflow.signal(Signal::SIGTERM)?;
    netflow.output()?;
    Ok(())
}

#[test]
fn foreign_tcx_programs_before_and_after_ours_see_every_packet() -> Result<()> {
    let _counting = enable_stats(Stats::RunTime)?;
    let (lab, files) = (Lab::up()?, Files::new()?);
    let earlier = Foreign::attach(&lab, TO_POD, Place::First)?;
    let netflow = Running::on_tcx(&lab, explain(&files, &["--tc", "tcx", "--for", "60s"]))?;
    let first = Foreign::attach(&lab, TO_POD, Place::First)?;
    let last = Foreign::attach(&lab, TO_POD, Place::Last)?;
    let foreign = [&earlier, &first, &last];

    for _ in ["beside netflow", "after it was killed"] {
        let before = foreign.map(Foreign::packets);
        lab.ping(50)?;
        for (program, before) in foreign.into_iter().zip(before) {
            let seen = program.packets()? - before?;
            ensure!(seen >= 50, "of 50 packets {seen} were seen");
        }
        netflow.signal(Signal::SIGKILL)?;
        eventually("only the foreign ones", || {
            Ok((tcx(&lab, TO_POD)?.len() == 3).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_foreign_clsact_filter_survives_start_stop_and_cleanup() -> Result<()> {
    let _counting = enable_stats(Stats::RunTime)?;
    let (lab, files) = (Lab::up()?, Files::new()?);
    let foreign = Foreign::attach(&lab, TO_POD, Place::Clsact)?;
    let alone = filters(&lab, TO_POD)?;
    assert_eq!(alone.len(), 1);
    for (tier, end) in [
        ("clsact", Signal::SIGTERM),
        ("clsact", Signal::SIGKILL),
        ("tcx", Signal::SIGTERM),
    ] {
        let run = explain(&files, &["--tc", tier, "--for", "60s"]);
        let netflow = if tier == "tcx" {
            Running::on_tcx(&lab, run)?
        } else {
            Running::on_clsact(&lab, run)?
        };
        let before = foreign.packets()?;
        lab.ping(50)?;
        let seen = foreign.packets()? - before;
        ensure!(seen >= 50, "{tier}: of 50 packets {seen} were seen");
        netflow.signal(end)?;
        netflow.output()?;
        let cleanup = finish(&lab, command(&["cleanup"]))?;
        ensure!(cleanup.status.success(), "{cleanup:?}");
        assert_eq!(filters(&lab, TO_POD)?, alone, "{tier}, {end}");
    }
    Ok(())
}
