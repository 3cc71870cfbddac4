//! Each fault, in each proxy mode and placement, looks to the client as the kernel makes it look; and undoing it gives
//! a working Service again. Needs root.

use anyhow::{Context, Result, ensure};
use netflow_tests::faults::{self, Fault};
use netflow_tests::lab::plan::{Placement, Plan};
use netflow_tests::lab::{Lab, Life};
use netflow_tests::parallel;
use netflow_tests::proxy::Mode;
use netflow_tests::traffic::{App, Dial, Outcome, Tally};
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

fn dial(lab: &Lab, world: &World) -> Result<Tally> {
    let few = Dial {
        count: 12,
        interval: 25,
        ..world.via_vip[0].clone()
    };
    Ok(App::dial(lab, &lab.party(world.client), &few)?.finish(Duration::from_secs(20)))
}

fn check(fault: &dyn Fault, mode: Mode, placement: Placement, seed: u64) -> Result<()> {
    let plan = Plan::draw(seed, placement);
    let healthy = World::healthy(&plan, mode);
    let mut world = healthy.clone();
    fault.inflict(&plan, &mut world)?;
    let allowed = fault.client_sees(&plan, mode);
    let mut lab = Lab::up(plan, mode, Life::Owned)?;
    lab.apply(&world)?;
    let tally = dial(&lab, &world)?;
    let seen = outcomes(&tally);
    ensure!(
        !seen.is_empty() && seen.iter().all(|o| allowed.contains(o)),
        "the client saw {tally:?}, expected {allowed:?}"
    );
    lab.apply(&healthy)?;
    let tally = dial(&lab, &healthy)?;
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
        for (m, mode) in Mode::ALL.into_iter().enumerate() {
            // Each fault meets every mode and every placement, not every pair of them.
            let placement = fault.placements()[(i + m) % fault.placements().len()];
            cases.push((fault, mode, placement, 500 + i as u64));
        }
    }
    let results = parallel::map(&cases, 8, |(fault, mode, placement, seed)| {
        check(*fault, *mode, *placement, *seed)
            .with_context(|| format!("{} {mode} {} seed {seed}", fault.name(), placement.name()))
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
