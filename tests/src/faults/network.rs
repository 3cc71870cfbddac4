//! What lies between the nodes.

use super::{At, Expect, Fault, Form, Vantage, beyond};
use crate::lab::plan::{Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::{Lost, World};
use anyhow::Result;

pub(super) const ALL: &[&dyn Fault] =
    &[&MtuBlackhole, &PmtuLearned, &LostBeyondNode, &NeverArrived];

const CROSS: &[Placement] = &[Placement::Cross];

/// Transfers that need full-size segments both ways.
fn make_big(world: &mut World) {
    for dial in world.via_vip.iter_mut().chain(&mut world.via_pod) {
        *dial = Dial {
            send: 200_000,
            receive: 200_000,
            ..dial.clone()
        };
    }
}

struct MtuBlackhole;

impl Fault for MtuBlackhole {
    fn name(&self) -> &'static str {
        "mtu-blackhole"
    }
    fn breaks(&self) -> &'static str {
        "the path between the nodes has a smaller MTU, and nobody is told"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.between.path_mtu = Some(plan.small_mtu);
        world.between.mute = true;
        make_big(world);
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect::code("mtu-blackhole", &["flow"]).or_degraded()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
}

struct PmtuLearned;

impl Fault for PmtuLearned {
    fn name(&self) -> &'static str {
        "pmtu-learned"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the path between the nodes has a smaller MTU and says so"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.between.path_mtu = Some(plan.small_mtu);
        make_big(world);
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect {
            info: Some("pmtu-learned"),
            ..Expect::healthy()
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    /// What was learned before netflow looked is no event any more.
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::VipOnly]
    }
}

struct LostBeyondNode;

impl Fault for LostBeyondNode {
    fn name(&self) -> &'static str {
        "lost-beyond-node"
    }
    fn breaks(&self) -> &'static str {
        "the network drops everything for the Pods of the other node"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.between.lost = Some(Lost::Node(1));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        lost(at)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}

/// Packets left one node and never came to the other, which is known as soon as both are asked.
fn lost(at: At) -> Expect {
    match at.vantage {
        Vantage::Client => beyond(),
        Vantage::Backend => Expect {
            codes: vec!["never-arrived"],
            ..Expect::not_from_here()
        },
        Vantage::Together => Expect::code("never-arrived", &["flow"]).inferred(),
    }
}

struct NeverArrived;

impl Fault for NeverArrived {
    fn name(&self) -> &'static str {
        "never-arrived"
    }
    fn breaks(&self) -> &'static str {
        "the network drops what is for the Service's backends"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.between.lost = Some(Lost::Pods(plan.backends.iter().map(|p| p.ip).collect()));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        lost(at)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
}
