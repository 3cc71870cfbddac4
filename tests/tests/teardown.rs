//! Nothing of a lab outlives its owner: neither a killed one nor one that is told to end. Needs root.

use anyhow::{Context, Result, ensure};
use netflow_tests::lab::plan::{Family, Network, Placement, Plan, Shape};
use netflow_tests::lab::state::{self, Owner, State};
use netflow_tests::lab::{Lab, Life, need_root, netns};
use netflow_tests::proxy::Mode;
use netflow_tests::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Tests of one process share what counts as left over.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        ensure!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_lab_goes_when_its_owner_is_dead_and_not_before() -> Result<()> {
    need_root()?;
    let _guard = ONE_AT_A_TIME.lock();
    let mut owner = Command::new("sleep").arg("600").spawn()?;
    let shape = Shape {
        placement: Placement::Cross,
        family: Family::Dual,
        network: Network::Vxlan,
    };
    let plan = Plan::draw(77, shape);
    let world = World::healthy(&plan, Mode::Nftables);
    let mut lab = Lab::up(plan, Mode::Nftables, Life::Owned)?;
    lab.apply(&world)?;
    let (node, dir) = (netns::path(&lab.node(0)), lab.dir());
    lab.hand_over(Owner::of(owner.id())?)?;
    state::remove_leftovers()?;
    ensure!(node.exists(), "the lab of a living owner was removed");
    let states = State::all();
    let state = states.iter().find(|s| s.dir() == dir);
    drop(Lab::reopen(state.context("its state")?)?);
    ensure!(node.exists(), "who looked at it took it down");
    owner.kill()?;
    owner.wait()?;
    state::remove_leftovers()?;
    ensure!(
        !node.exists() && !dir.exists(),
        "the lab of a dead owner is still there"
    );
    Ok(())
}

/// Namespaces of the labs of a process.
fn namespaces_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("nfl{pid:x}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect()
}

/// A netflow that never answers.
fn mute_netflow() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("netflow-mute-{}", std::process::id()));
    fs::write(&path, "#!/bin/sh\nexec sleep 60\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn start_scenario(netflow: &PathBuf) -> Result<Child> {
    Command::new(env!("CARGO_BIN_EXE_netflow-lab"))
        .args([
            "scenarios",
            "--only",
            "healthy/nftables/same/fresh/ipv4/bridge",
        ])
        .env("NETFLOW_BIN", netflow)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("netflow-lab")
}

#[test]
fn sigterm_takes_the_lab_down() -> Result<()> {
    need_root()?;
    let _guard = ONE_AT_A_TIME.lock();
    let netflow = mute_netflow()?;
    let mut lab = start_scenario(&netflow)?;
    eventually("the lab comes up", || namespaces_of(lab.id()).len() >= 8)?;
    kill(Pid::from_raw(lab.id().cast_signed()), Signal::SIGTERM)?;
    let status = lab.wait()?;
    let left = namespaces_of(lab.id());
    fs::remove_file(netflow)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}
