//! One broken Service, explained on the terminal by the real netflow.

use crate::faults::{self, At, Fault, Form, Vantage};
use crate::lab::plan::{Family, Network, Placement, Plan, Shape};
use crate::lab::{Lab, Life};
use crate::netflow::{self, Means, Running};
use crate::proxy::Mode;
use crate::traffic::App;
use crate::world::{Party, World};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Seconds that netflow may look.
const WINDOW: u64 = 8;

/// So long netflow may take until it looks.
const ATTACHED: Duration = Duration::from_secs(20);

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
        on_both_nodes(&mut lab, &mut world, fault)?
    } else {
        on_one_node(&mut lab, &mut world, fault)?
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
    let own = world.via_vip.iter().chain(&world.via_pod);
    let others = world.noise.iter().map(|(party, dial)| (*party, dial));
    own.map(|dial| (world.client, dial))
        .chain(others)
        .map(|(party, dial)| {
            let who = name(&lab.plan, party);
            step(&format!("{who} dials {} ({})", dial.to, dial.proto));
            App::dial(lab, &lab.party(party), dial)
        })
        .collect()
}

fn name(plan: &Plan, party: Party) -> &str {
    match party {
        Party::Client => &plan.client.name,
        Party::Backend(n) => &plan.backends[n].name,
        Party::Second(n) => &plan.seconds[n].name,
        Party::Node(n) => &plan.nodes[n].name,
        Party::Outside => "the host outside",
    }
}

/// What changes while netflow looks, in its time.
fn change(lab: &mut Lab, world: &mut World, fault: &dyn Fault) -> Result<()> {
    if fault.meanwhile(&lab.plan, world) {
        lab.apply(world)?;
    }
    if let Some(after) = fault.afterwards(&lab.plan, world) {
        // It is the time itself that makes the fault.
        thread::sleep(after);
        lab.apply(world)?;
    }
    Ok(())
}

/// Explains on the client's node, straight to the terminal; gives the recording.
fn on_one_node(lab: &mut Lab, world: &mut World, fault: &dyn Fault) -> Result<Vec<PathBuf>> {
    let recording = lab.dir().join("demo.nfrec");
    let (ns, name) = &world.asked;
    step(&format!(
        "on {}: netflow explain --svc {ns}/{name}",
        lab.plan.nodes[0].name
    ));
    eprintln!();
    let seconds = WINDOW + fault.takes();
    let mut netflow = netflow::command(lab, 0, &world.asked, Means::Own(&[]), seconds, &recording)?
        .spawn()
        .context("netflow")?;
    netflow::wait_attached(&mut netflow, &recording, ATTACHED);
    change(lab, world, fault)?;
    netflow.wait().context("netflow")?;
    eprintln!();
    Ok(vec![recording])
}

/// Explains from both nodes' recordings, since one node alone does not see the cause.
fn on_both_nodes(lab: &mut Lab, world: &mut World, fault: &dyn Fault) -> Result<Vec<PathBuf>> {
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
                WINDOW + fault.takes(),
                recording.clone(),
            )?,
            recording,
        ));
    }
    for (run, _) in &mut runs {
        run.wait_attached(ATTACHED);
    }
    change(lab, world, fault)?;
    let mut recordings = Vec::new();
    for (run, recording) in runs {
        run.finish(Duration::from_secs(WINDOW + fault.takes() + 6))?;
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
