//! Each fault, in each proxy mode and placement, looks to the client as the kernel makes it look; and undoing it gives
//! a working Service again. Needs root.

use anyhow::{Context, Result, ensure};
use netflow_tests::faults::{self, Fault};
use netflow_tests::lab::plan::{Plan, Shape};
use netflow_tests::lab::{Lab, Life};
use netflow_tests::parallel;
use netflow_tests::proxy::Mode;
use netflow_tests::traffic::{App, Dial, Line, Outcome, Tally};
use netflow_tests::world::World;
use std::time::Duration;

fn outcomes(tally: &Tally) -> Vec<Outcome> {
    let Tally {
        ok,
        refused,
        reset,
        timeout,
        unreachable,
        stalled,
        other,
        ..
    } = *tally;
    [
        (ok, Outcome::Ok),
        (refused, Outcome::Refused),
        (reset, Outcome::Reset),
        (timeout, Outcome::Timeout),
        (unreachable, Outcome::Unreachable),
        (stalled, Outcome::Stalled),
        (other, Outcome::Other),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(_, o)| o)
    .collect()
}

/// A few attempts; `meanwhile` happens once all have begun.
fn dial(lab: &mut Lab, world: &World, meanwhile: Option<&World>) -> Result<Tally> {
    let dial = &world.via_vip[0];
    let few = Dial {
        count: dial.count.min(12),
        interval: 25,
        // Only those that never stop sending by themselves last so long.
        seconds: dial.hold.map_or(dial.seconds, |_| 4),
        ..dial.clone()
    };
    let client = App::dial(lab, &lab.party(world.client), &few)?;
    if let Some(later) = meanwhile {
        let begun = |lines: &[Line]| {
            let begun = lines.iter().filter(|l| matches!(l, Line::Start { .. }));
            begun.count() >= few.count as usize
        };
        client.wait(Duration::from_secs(5), begun);
        lab.apply(later)?;
    }
    Ok(client.finish(Duration::from_secs(20)))
}

fn check(fault: &dyn Fault, mode: Mode, shape: Shape, seed: u64) -> Result<()> {
    let plan = Plan::draw(seed, shape);
    let healthy = World::healthy(&plan, mode);
    let mut world = healthy.clone();
    fault.inflict(&plan, &mut world)?;
    let allowed = fault.client_sees(&plan, mode);
    let mut lab = Lab::up(plan, mode, Life::Owned)?;
    lab.apply(&world)?;
    let before = world.clone();
    let changes =
        fault.beforehand(&lab.plan, &mut world)? || fault.meanwhile(&lab.plan, &mut world);
    let tally = dial(&mut lab, &before, changes.then_some(&world))?;
    let seen = outcomes(&tally);
    ensure!(
        !seen.is_empty() && seen.iter().all(|o| allowed.contains(o)),
        "the client saw {tally:?}, expected {allowed:?}"
    );
    lab.apply(&healthy)?;
    let tally = dial(&mut lab, &healthy, None)?;
    ensure!(
        outcomes(&tally) == [Outcome::Ok],
        "after undoing it: {tally:?}"
    );
    lab.down()
}

#[test]
fn the_client_sees_what_the_fault_does() -> Result<()> {
    netflow_tests::lab::need_root()?;
    let mut cases = Vec::new();
    for (i, fault) in faults::all().into_iter().enumerate() {
        for (m, mode) in Mode::EVERYWHERE.into_iter().enumerate() {
            // Each fault meets every mode and shapes that differ, not every pair of them.
            let shapes = fault.shapes();
            let shape = shapes[(5 * i + 7 * m) % shapes.len()];
            cases.push((fault, mode, shape, 500 + i as u64));
        }
    }
    let results = parallel::map(&cases, 8, |(fault, mode, shape, seed)| {
        check(*fault, *mode, *shape, *seed)
            .with_context(|| format!("{} {mode} {} seed {seed}", fault.name(), shape.name()))
    });
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(Result::err)
        .map(|e| format!("{e:#}"))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
    Ok(())
}
