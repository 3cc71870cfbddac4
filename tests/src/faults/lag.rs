//! A kube-proxy that follows the slices late.

use super::service::often;
use super::{At, Expect, Fault, Vantage};
use crate::lab::plan::Plan;
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Programmed, World};
use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

pub(super) const ALL: &[&dyn Fault] = &[
    &Lag {
        name: "proxy-sync-lag",
        breaks: "a Pod of the Service leaves the slice while netflow looks and ends 3 s later, and the client's node still sends to it",
        ends: true,
    },
    &Lag {
        name: "near-proxy-sync-lag",
        breaks: "nothing yet: a Pod of the Service leaves the slice while netflow looks, the client's node still sends to it, and it serves on",
        ends: false,
    },
];

struct Lag {
    name: &'static str,
    breaks: &'static str,
    /// The Pod no longer takes connections when the proxy should long have followed.
    ends: bool,
}

impl Fault for Lag {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        self.breaks
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.programmed[0] = Programmed::Old(Box::new(world.objects.clone()));
        // Nobody dials a Pod's own address while it shuts down.
        world.via_pod.remove(0);
        often(world);
        Ok(())
    }
    fn meanwhile(&self, plan: &Plan, world: &mut World) -> bool {
        let leaves = &plan.backends[0];
        let is_it = |p: &Pod| {
            let meta = &p.metadata;
            (meta.namespace.as_ref(), meta.name.as_ref())
                == (Some(&leaves.namespace), Some(&leaves.name))
        };
        world.objects.pods.retain(|p| !is_it(p));
        world.objects.reconcile();
        true
    }
    fn afterwards(&self, plan: &Plan, world: &mut World) -> Option<Duration> {
        self.ends.then(|| {
            world.listen(&plan.backends[0], Vec::new());
            Duration::from_secs(3)
        })
    }
    fn takes(&self) -> u64 {
        6
    }
    fn expect(&self, at: At) -> Expect {
        match (at.vantage, self.ends) {
            (Vantage::Backend, _) => Expect::unharmed(),
            (_, true) => Expect::code("proxy-sync-lag", &["ct", "drop"])
                .and(&["k8s"])
                .degraded(),
            (_, false) => Expect {
                info: Some("proxy-sync-lag"),
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok, Outcome::Refused]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        if self.ends {
            vec![plan.backends[0].name.clone(), plan.nodes[0].name.clone()]
        } else {
            Vec::new()
        }
    }
}
