//! EndpointSlices that do not follow their Pods.

use super::proxy::{BackendGone, with_endpoint};
use super::{At, Expect, Fault, Form};
use crate::lab::plan::{Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::World;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, PodIP, PodStatus};

pub(super) const ALL: &[&dyn Fault] = &[
    &Stale {
        name: "endpointslice-stale",
        breaks: "the Service's Pods are gone, their successors wait, and its slices were never written anew",
        fate: Fate::Gone,
    },
    &Stale {
        name: "endpointslice-stale-moved",
        breaks: "the Service's Pods came back with other addresses, and its slices list the old ones",
        fate: Fate::Moved,
    },
    &Stale {
        name: "endpointslice-stale-reused",
        breaks: "the Service's Pods are gone, and another workload's Pod has the address in its slice",
        fate: Fate::Reused,
    },
    &Stale {
        name: "near-slice-by-hand",
        breaks: "the Pods' addresses do not exist any more; the slices are somebody's own and promise nothing",
        fate: Fate::ByHand,
    },
];

/// What became of the Pods in the slices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Gone,
    Moved,
    Reused,
    /// They are gone, and no controller wrote the slices.
    ByHand,
}

struct Stale {
    name: &'static str,
    breaks: &'static str,
    fate: Fate,
}

impl Fault for Stale {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        self.breaks
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        match self.fate {
            Fate::Reused => world.objects = with_endpoint(plan, &world.objects, plan.spare.ip),
            _ => world.gone = plan.backends.iter().map(|p| p.ip).collect(),
        }
        match self.fate {
            Fate::Moved => move_pods(plan, world)?,
            Fate::ByHand => remove_pods(plan, world),
            Fate::Gone | Fate::Reused => {
                let successor = successor(plan, world)?;
                remove_pods(plan, world);
                world.objects.pods.push(successor);
            }
        }
        if self.fate == Fate::ByHand {
            for slice in &mut world.objects.slices {
                let labels = slice.metadata.labels.iter_mut();
                labels.for_each(|l| l.retain(|key, _| !key.ends_with("/managed-by")));
            }
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match (self.fate, at.form) {
            (_, Form::Idle) => Expect::not_from_here(),
            (Fate::ByHand, _) => BackendGone.expect(at),
            _ => Expect::code("endpointslice-stale", &["flow"]).and(&["k8s"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        match self.fate {
            Fate::Reused => vec![Outcome::Refused],
            _ => vec![Outcome::Timeout, Outcome::Unreachable],
        }
    }
    fn placements(&self) -> &'static [Placement] {
        match self.fate {
            // Where no object tells of the Pods, another node's silence is its own.
            Fate::ByHand => &[Placement::Same],
            _ => &Placement::ALL,
        }
    }
    fn forms(&self) -> &'static [Form] {
        match self.fate {
            Fate::ByHand => &Form::WITH_TRAFFIC,
            _ => &super::service::WITH_IDLE,
        }
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        match self.fate {
            Fate::ByHand => Vec::new(),
            _ => vec![plan.backends[0].name.clone()],
        }
    }
}

/// What a Deployment makes in place of a Pod that is gone; no node has taken it yet.
fn successor(plan: &Plan, world: &mut World) -> Result<Pod> {
    let mut pod = world.objects.pod_mut(&plan.backends[0])?.clone();
    pod.metadata.name = Some(format!("{}-next", plan.backends[0].name));
    pod.spec.as_mut().context("no spec")?.node_name = None;
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        ..PodStatus::default()
    });
    Ok(pod)
}

/// The Pods' objects go; who writes slices does not notice.
fn remove_pods(plan: &Plan, world: &mut World) {
    let is_backend = |pod: &Pod| {
        let mut backends = plan.backends.iter();
        backends.any(|b| pod.metadata.name.as_ref() == Some(&b.name))
    };
    world.objects.pods.retain(|pod| !is_backend(pod));
}

fn move_pods(plan: &Plan, world: &mut World) -> Result<()> {
    for (n, pod) in (3..).zip(&plan.backends) {
        let free = plan.nodes[pod.node].pods.nth_last(n).to_string();
        let status = world.objects.pod_mut(pod)?.status.as_mut();
        let status = status.context("no status")?;
        status.pod_ip = Some(free.clone());
        status.pod_ips = Some(vec![PodIP { ip: free }]);
    }
    Ok(())
}
