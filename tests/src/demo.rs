//! One broken Service, explained on the terminal by the real netflow.

use crate::faults::{self, At, Fault, Form, Vantage};
use crate::lab::plan::{Family, Network, Placement, Plan, Shape};
use crate::lab::{Lab, Life};
use crate::netflow::{self, Means, Running};
use crate::proxy::Mode;
use crate::traffic::App;
use crate::world::World;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Seconds that netflow may look.
const WINDOW: u64 = 8;

/// What to say of a fault that does not exist.
pub fn unknown(name: &str) -> String {
    format!("no fault {name}; `netflow-lab list` lists them")
}

/// Runs the demo; says whether netflow found what was broken.
pub fn run(name: &str, mode: Mode, family: Family, seed: u64) -> Result<bool> {
    let fault = faults::find(name).with_context(|| unknown(name))?;
    netflow::binary()?;
    ensure!(
        fault.turns().is_empty(),
        "{name} passes while netflow looks, which the demo does not show: cargo xtask test lab --scenario {name}"
    );
    let shape = shape_for(fault, family)
        .with_context(|| format!("{name} cannot be shown with {}", family.name()))?;
    let Shape {
        placement, network, ..
    } = shape;
    let plan = Plan::draw(seed, shape);
    let mut world = World::healthy(&plan, mode);
    fault.inflict(&plan, &mut world)?;
    step(&format!(
        "raising a lab: 2 nodes, a router, {} Pods, {mode} rules (seed {seed})",
        plan.pods().count()
    ));
    let mut lab = Lab::up(plan, mode, Life::Owned)?;
    step(&format!("breaking it: {}", fault.breaks()));
    lab.apply(&world)?;
    let at = |vantage| At {
        vantage,
        placement,
        mode,
        form: Form::Fresh,
        family,
        network,
    };
    let both = placement == Placement::Cross
        && fault.expect(at(Vantage::Client)).codes != fault.expect(at(Vantage::Together)).codes;
    let _clients = traffic(&lab, &world)?;
    let answer = if both {
        on_both_nodes(&lab, &world)?
    } else {
        on_one_node(&lab, &world)?
    };
    let vantage = if both {
        Vantage::Together
    } else {
        Vantage::Client
    };
    let right = is_right(fault, at(vantage), &answer)?;
    step("taking everything down");
    lab.down()?;
    Ok(right)
}

/// The plainest lab in which the fault makes sense.
fn shape_for(fault: &dyn Fault, family: Family) -> Option<Shape> {
    let mut shapes: Vec<Shape> = fault.shapes();
    shapes.retain(|s| s.family == family);
    let bridged = |s: &&Shape| s.network == Network::Bridge;
    shapes.iter().find(bridged).or(shapes.first()).copied()
}

fn step(text: &str) {
    eprintln!("▸ {text}");
}

fn traffic(lab: &Lab, world: &World) -> Result<Vec<App>> {
    let client = lab.party(world.client);
    for dial in world.via_vip.iter().chain(&world.via_pod) {
        step(&format!(
            "{} dials {} ({})",
            lab.plan.client.name, dial.to, dial.proto
        ));
    }
    world
        .via_vip
        .iter()
        .chain(&world.via_pod)
        .map(|d| App::dial(lab, &client, d))
        .collect()
}

/// Explains on the client's node, straight to the terminal; gives the recording.
fn on_one_node(lab: &Lab, world: &World) -> Result<Vec<PathBuf>> {
    let recording = lab.dir().join("demo.nfrec");
    let (ns, name) = &world.asked;
    step(&format!(
        "on {}: netflow explain --svc {ns}/{name}",
        lab.plan.nodes[0].name
    ));
    eprintln!();
    netflow::command(lab, 0, &world.asked, Means::Own(&[]), WINDOW, &recording)?
        .status()
        .context("netflow")?;
    eprintln!();
    Ok(vec![recording])
}

/// Explains from both nodes' recordings, since one node alone does not see the cause.
fn on_both_nodes(lab: &Lab, world: &World) -> Result<Vec<PathBuf>> {
    let (ns, name) = &world.asked;
    let mut runs = Vec::new();
    for (n, node) in lab.plan.nodes.iter().enumerate() {
        step(&format!(
            "on {}: netflow explain --svc {ns}/{name} --record",
            node.name
        ));
        let recording = lab.dir().join(format!("demo-{n}.nfrec"));
        runs.push((
            Running::start(
                lab,
                n,
                &world.asked,
                Means::Own(&[]),
                &[],
                WINDOW,
                recording.clone(),
            )?,
            recording,
        ));
    }
    let mut recordings = Vec::new();
    for (run, recording) in runs {
        run.finish(Duration::from_secs(WINDOW + 6))?;
        recordings.push(recording);
    }
    step("both recordings together: netflow explain --replay A B");
    eprintln!();
    std::process::Command::new(netflow::binary()?)
        .args(["explain", "--replay"])
        .args(&recordings)
        .stdin(Stdio::null())
        .status()
        .context("netflow")?;
    eprintln!();
    Ok(recordings)
}

/// Compares what the recordings say with what was broken.
fn is_right(fault: &dyn Fault, at: At, recordings: &[PathBuf]) -> Result<bool> {
    let paths: Vec<&Path> = recordings.iter().map(PathBuf::as_path).collect();
    let answer = netflow::replay(&paths)?.answer()?;
    let expect = fault.expect(at);
    let code_is_right = match answer.findings.first() {
        Some(top) => expect.codes.is_empty() || expect.codes.contains(&top.code.as_str()),
        None => expect.codes.is_empty(),
    };
    let right = code_is_right && expect.verdicts.contains(&answer.verdict);
    if right {
        step(&format!("netflow found it: {}", answer.headline()));
    } else {
        step(&format!(
            "netflow says {}, but it should be {}",
            answer.headline(),
            expect.codes.first().unwrap_or(&"healthy")
        ));
    }
    Ok(right)
}
