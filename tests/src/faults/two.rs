//! Two faults at once: the first broken hop is on top, the other follows.

use super::service::{others, to_vip, undefined_port, unhandled};
use super::{At, Expect, Fault, Vantage, beyond};
use crate::lab::plan::{Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::{Deed, Filter, Hook, Spot, World};
use anyhow::Result;

pub(super) const ALL: &[&dyn Fault] = &[&DroppedAndDeaf, &UndefinedAndDeaf];

/// So many attempts that each backend is met early.
fn often(dial: &Dial) -> Dial {
    Dial {
        interval: 60,
        count: 200,
        ..dial.clone()
    }
}

struct DroppedAndDeaf;

impl Fault for DroppedAndDeaf {
    fn name(&self) -> &'static str {
        "two-firewall-drop-and-listener-missing"
    }
    fn breaks(&self) -> &'static str {
        "a firewall rule drops what is for one backend, and nothing listens on the others"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let (dropped, deaf) = (&plan.backends[0], &plan.backends[1..]);
        world.filters.push(Filter {
            spot: Spot::Node(plan.backend_node()),
            hook: Hook::Forward,
            proto: "tcp",
            dst: dropped.ip,
            dport: plan.port().target,
            deed: Deed::Drop,
        });
        for pod in deaf {
            world.listen(pod, others(plan));
        }
        for dial in &mut world.via_vip {
            *dial = often(dial);
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let first = match (at.vantage, at.placement) {
            (Vantage::Client, Placement::Cross) => beyond(),
            _ => Expect::code("firewall-drop", &["drop"]),
        };
        first.also("listener-missing")
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout, Outcome::Refused]
    }
}

struct UndefinedAndDeaf;

impl Fault for UndefinedAndDeaf {
    fn name(&self) -> &'static str {
        "two-port-undefined-and-listener-missing"
    }
    fn breaks(&self) -> &'static str {
        "some clients dial a port that the Service does not have, and on the right one nothing listens"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            world.listen(pod, others(plan));
        }
        let undefined = to_vip(plan, undefined_port(plan));
        world.via_vip.insert(0, often(&undefined));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Client | Vantage::Together => {
                Expect::code("service-port-undefined", &["flow"]).also("listener-missing")
            }
            Vantage::Backend => Expect::code("listener-missing", &["flow", "drop"]),
        }
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        unhandled(plan, mode)
    }
}
