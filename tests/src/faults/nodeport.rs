//! A client outside the cluster that dials a NodePort of the client's node.

use super::{At, Expect, Fault, Form, Vantage, find};
use crate::lab::plan::{Network, Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::{Party, World};
use anyhow::{Context, Result};
use std::net::SocketAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &NodePort {
        name: "healthy-nodeport",
        of: "healthy",
        policy: Policy::Cluster,
    },
    &NodePort {
        name: "near-nodeport-local",
        of: "healthy",
        policy: Policy::Local,
    },
    &NodePort {
        name: "listener-missing-nodeport",
        of: "listener-missing",
        policy: Policy::Cluster,
    },
    &NodePort {
        name: "no-endpoints-selector-nodeport",
        of: "no-endpoints-selector",
        policy: Policy::Cluster,
    },
    &EtpLocalNoEndpoint,
];

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Local,
}

/// Opens node ports and puts the client outside. Its node port is dialled where the client's node is.
fn from_outside(plan: &Plan, world: &mut World, policy: Policy) -> Result<()> {
    let service = world.objects.service_mut(&plan.service)?;
    let spec = service.spec.as_mut().context("no spec")?;
    spec.type_ = Some("NodePort".to_owned());
    spec.external_traffic_policy = Some(
        match policy {
            Policy::Cluster => "Cluster",
            Policy::Local => "Local",
        }
        .to_owned(),
    );
    for (port, planned) in spec.ports.iter_mut().flatten().zip(&plan.service.ports) {
        port.node_port = Some(planned.node_port.into());
    }
    world.client = Party::Outside;
    let to = SocketAddr::new(plan.nodes[0].ip, plan.port().node_port);
    for dial in &mut world.via_vip {
        *dial = Dial { to, ..dial.clone() };
    }
    world.via_pod.clear();
    Ok(())
}

struct NodePort {
    name: &'static str,
    of: &'static str,
    policy: Policy,
}

impl NodePort {
    fn plain(&self) -> &'static dyn Fault {
        find(self.of).unwrap_or_else(|| unreachable!("{} is in the catalogue", self.of))
    }
}

impl Fault for NodePort {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        match (self.of, self.policy) {
            ("healthy", Policy::Cluster) => "nothing: a client outside dials a node port",
            ("healthy", Policy::Local) => {
                "nothing: a client outside dials a node port of a node that has endpoints itself"
            }
            _ => "as without -nodeport, dialled from outside through a node port",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        self.plain().inflict(plan, world)?;
        from_outside(plan, world, self.policy)
    }
    fn expect(&self, at: At) -> Expect {
        self.plain().expect(at)
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        self.plain().client_sees(plan, mode)
    }
    fn placements(&self) -> &'static [Placement] {
        match self.policy {
            Policy::Cluster => self.plain().placements(),
            Policy::Local => &[Placement::Same],
        }
    }
    fn forms(&self) -> &'static [Form] {
        FORMS
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        self.plain().must_name(plan)
    }
    fn networks(&self) -> &'static [Network] {
        self.plain().networks()
    }
}

/// Nobody dials Pods.
const FORMS: &[Form] = &[Form::Retrying, Form::VipOnly];

struct EtpLocalNoEndpoint;

impl Fault for EtpLocalNoEndpoint {
    fn name(&self) -> &'static str {
        "etp-local-no-endpoint"
    }
    fn breaks(&self) -> &'static str {
        "a client outside dials a node port of a node without endpoints, under externalTrafficPolicy: Local"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        from_outside(plan, world, Policy::Local)
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Client | Vantage::Together => {
                Expect::code("etp-local-no-endpoint", &["drop"]).and(&["k8s"])
            }
            Vantage::Backend => Expect::not_from_here(),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Cross]
    }
    fn forms(&self) -> &'static [Form] {
        FORMS
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.nodes[0].name.clone(), plan.nodes[1].name.clone()]
    }
}
