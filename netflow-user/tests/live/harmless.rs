//! The binary leaves nothing behind, however it ends. What its kernel part does beside foreign programs and filters is
//! tested in `kernel.rs`.

use crate::attached::{filters, has_clsact, tcx};
use crate::netflow::{Files, Running, command, explain, finish};
use crate::netns::{Lab, TO_HOST, TO_POD};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

/// The node's interfaces.
const DEVICES: [&str; 3] = ["lo", TO_POD, TO_HOST];

fn nothing_is_attached(lab: &Lab) -> Result<()> {
    for device in DEVICES {
        assert_eq!(tcx(lab, device)?, Vec::<String>::new(), "{device}");
        assert_eq!(filters(lab, device)?, Vec::<String>::new(), "{device}");
        ensure!(!has_clsact(lab, device)?, "a qdisc on {device}");
    }
    Ok(())
}

#[test]
fn a_run_that_is_told_to_end_detaches_everything() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let run = explain(&files, &["--tc", "clsact", "--for", "60s"]);
        let netflow = Running::on_clsact(&lab, run)?;
        netflow.signal(signal)?;
        netflow.output()?;
        nothing_is_attached(&lab)?;
    }
    Ok(())
}

#[test]
fn a_killed_run_is_cleaned_up_after() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let netflow = Running::on_tcx(&lab, explain(&files, &["--tc", "tcx", "--for", "60s"]))?;
    netflow.signal(Signal::SIGKILL)?;
    netflow.output()?;
    nothing_is_attached(&lab)?;

    let run = explain(&files, &["--tc", "clsact", "--for", "60s"]);
    let netflow = Running::on_clsact(&lab, run)?;
    let attached = filters(&lab, TO_POD)?;
    let living = finish(&lab, command(&["cleanup"]))?;
    ensure!(living.status.success(), "{living:?}");
    assert_eq!(filters(&lab, TO_POD)?, attached, "the run lives");
    netflow.signal(Signal::SIGKILL)?;
    netflow.output()?;
    assert_eq!(filters(&lab, TO_POD)?, attached, "the kernel keeps them");
    let dead = finish(&lab, command(&["cleanup"]))?;
    ensure!(dead.status.success(), "{dead:?}");
    nothing_is_attached(&lab)
}
