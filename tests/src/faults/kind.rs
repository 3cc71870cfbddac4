//! Services that are no plain cluster IP.

use super::service::idle;
use super::{At, Expect, Fault, Form, Vantage};
use crate::lab::plan::Plan;
use crate::manifests::make_unready;
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::World;
use anyhow::Result;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, ServiceStatus};
use netflow_user::model::answer::Verdict;
use std::net::SocketAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &ExternalName { to: To::Name },
    &ExternalName { to: To::Address },
    &LoadBalancerPending,
    &HeadlessNotReady,
    &HealthyHeadless,
];

/// Objects suffice; the Service's address of before is dialled in vain.
const WITHOUT_PODS: [Form; 2] = [Form::VipOnly, Form::Idle];

/// Nobody translates the address any more: it leaves the node, or a proxy drops what is no Service's.
const UNANSWERED: [Outcome; 2] = [Outcome::Timeout, Outcome::Unreachable];

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Name,
    Address,
}

struct ExternalName {
    to: To,
}

impl Fault for ExternalName {
    fn name(&self) -> &'static str {
        match self.to {
            To::Name => "external-name-is-dns",
            To::Address => "external-name-is-dns-address",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.to {
            To::Name => {
                "the Service has become an ExternalName, which is dialled as if it had an address"
            }
            To::Address => "the Service is an ExternalName whose name is an IPv4 address",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let spec = world.objects.spec_mut(&plan.service)?;
        spec.type_ = Some("ExternalName".to_owned());
        let name = match self.to {
            To::Name => "api.example.net",
            To::Address => "198.51.100.44",
        };
        spec.external_name = Some(name.to_owned());
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.ip_families = None;
        spec.ip_family_policy = None;
        world.objects.reconcile();
        Ok(())
    }
    /// An alias is no fault by itself, and nothing that is dialled is known to be meant for it.
    fn expect(&self, _at: At) -> Expect {
        let code = "external-name-is-dns";
        match self.to {
            To::Name => Expect {
                verdicts: vec![Verdict::NotEnoughEvidence],
                info: Some(code),
                ..Expect::healthy()
            },
            To::Address => idle(code),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        UNANSWERED.to_vec()
    }
    fn forms(&self) -> &'static [Form] {
        &WITHOUT_PODS
    }
}

struct LoadBalancerPending;

impl Fault for LoadBalancerPending {
    fn name(&self) -> &'static str {
        "load-balancer-pending"
    }
    fn breaks(&self) -> &'static str {
        "the Service asks for a load balancer of a class that nobody serves; its cluster IP works"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let service = world.objects.service_mut(&plan.service)?;
        service.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus::default()),
            ..ServiceStatus::default()
        });
        let spec = world.objects.spec_mut(&plan.service)?;
        spec.type_ = Some("LoadBalancer".to_owned());
        spec.load_balancer_class = Some("example.net/nobody".to_owned());
        for (port, planned) in spec.ports.iter_mut().flatten().zip(&plan.service.ports) {
            port.node_port = Some(planned.node_port.into());
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        Expect {
            info: Some("load-balancer-pending"),
            ..served(at)
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &super::service::WITH_IDLE
    }
}

/// Nothing critical, and healthy where the client's attempts show.
fn served(at: At) -> Expect {
    match (at.form, at.vantage) {
        (Form::Idle, _) | (_, Vantage::Backend) => Expect::unharmed(),
        _ => Expect::healthy(),
    }
}

/// Takes the Service its cluster IP.
fn behead(plan: &Plan, world: &mut World) -> Result<()> {
    let spec = world.objects.spec_mut(&plan.service)?;
    spec.cluster_ip = Some("None".to_owned());
    spec.cluster_ips = Some(vec!["None".to_owned()]);
    world.objects.reconcile();
    Ok(())
}

struct HeadlessNotReady;

impl Fault for HeadlessNotReady {
    fn name(&self) -> &'static str {
        "headless-not-ready"
    }
    fn breaks(&self) -> &'static str {
        "the Service is headless and none of its Pods is Ready: DNS has no address for it"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            make_unready(world.objects.pod_mut(pod)?, "ContainersNotReady", "");
        }
        behead(plan, world)
    }
    fn expect(&self, _at: At) -> Expect {
        idle("headless-not-ready")
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        UNANSWERED.to_vec()
    }
    fn forms(&self) -> &'static [Form] {
        &WITHOUT_PODS
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.backends[0].name.clone()]
    }
}

struct HealthyHeadless;

impl Fault for HealthyHeadless {
    fn name(&self) -> &'static str {
        "healthy-headless"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the Service is headless, and clients dial the addresses that DNS gives"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let pods = plan.backends.iter();
        let to = pods.map(|pod| SocketAddr::new(pod.ip, plan.port().target));
        world.via_vip = to.map(Dial::tcp).collect();
        world.via_pod.clear();
        behead(plan, world)
    }
    fn expect(&self, at: At) -> Expect {
        served(at)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &[Form::Retrying, Form::VipOnly]
    }
}
