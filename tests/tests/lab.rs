//! The lab itself: a healthy Service works in every proxy mode, and nothing is left behind. Needs root.

use anyhow::Result;
use netflow_tests::lab::plan::{Plan, Shape};
use netflow_tests::lab::{Lab, Life, netns};
use netflow_tests::proxy::Mode;
use netflow_tests::traffic::{App, Dial};
use netflow_tests::world::World;
use std::time::{Duration, Instant};

fn small(dial: &Dial) -> Dial {
    Dial {
        count: 6,
        interval: 20,
        ..dial.clone()
    }
}

#[test]
fn a_healthy_service_works_in_every_mode_and_shape() -> Result<()> {
    for (seed, mode) in (100..).zip(Mode::EVERYWHERE) {
        for shape in Shape::all() {
            let started = Instant::now();
            let plan = Plan::draw(seed, shape);
            let world = World::healthy(&plan, mode);
            let mut lab = Lab::up(plan, mode, Life::Owned)?;
            lab.apply(&world)?;
            let up = started.elapsed();
            let client = lab.pod(&lab.plan.client);
            for dial in world.via_vip.iter().chain(&world.via_pod) {
                let tally = App::dial(&lab, &client, &small(dial))?.finish(Duration::from_secs(10));
                assert_eq!(
                    (tally.ok, tally.attempts),
                    (6, 6),
                    "{mode} {shape:?} {dial:?}: {tally:?}"
                );
            }
            let names = [lab.node(0), lab.router(), client];
            lab.down()?;
            assert!(
                names.iter().all(|n| !netns::path(n).exists()),
                "{names:?} are still there"
            );
            eprintln!("{mode} {shape:?}: up in {up:?}");
        }
    }
    Ok(())
}
