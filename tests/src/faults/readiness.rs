//! Endpoints that get connections while they are not ready for them.

use super::service::others;
use super::{At, Expect, Fault, Vantage};
use crate::lab::plan::Plan;
use crate::manifests::{delete, make_unready};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::World;
use anyhow::Result;

pub(super) const ALL: &[&dyn Fault] = &[
    &Unfit {
        name: "terminating-backend",
        breaks: "all Pods of the Service shut down and no longer take connections, though they still count as serving",
        state: State::Leaving,
        listens: false,
    },
    &Unfit {
        name: "near-terminating-serves",
        breaks: "nothing: all Pods of the Service shut down and still serve",
        state: State::Leaving,
        listens: true,
    },
    &Unfit {
        name: "publish-not-ready",
        breaks: "the Service publishes its Pods before they are ready, and they do not listen yet",
        state: State::Starting,
        listens: false,
    },
    &Unfit {
        name: "near-publish-not-ready",
        breaks: "nothing: the Service publishes Pods that are not ready, and they serve",
        state: State::Starting,
        listens: true,
    },
];

/// What the Pods are at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Leaving,
}

struct Unfit {
    name: &'static str,
    breaks: &'static str,
    state: State,
    /// They take connections all the same.
    listens: bool,
}

impl Fault for Unfit {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        self.breaks
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            let object = world.objects.pod_mut(pod)?;
            match self.state {
                State::Leaving => delete(object)?,
                State::Starting => make_unready(object, "ContainersNotReady", "not started"),
            }
            if !self.listens {
                world.listen(pod, others(plan));
            }
        }
        if self.state == State::Starting {
            let spec = world.objects.spec_mut(&plan.service)?;
            spec.publish_not_ready_addresses = Some(true);
        }
        world.objects.reconcile();
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match (self.listens, at.vantage) {
            (true, Vantage::Backend) => Expect::unharmed(),
            (true, _) => Expect::healthy(),
            (false, _) => Expect::code(self.name, &["flow", "drop"]).and(&["k8s"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![if self.listens {
            Outcome::Ok
        } else {
            Outcome::Refused
        }]
    }
    fn names_all_met(&self) -> bool {
        !self.listens
    }
}
