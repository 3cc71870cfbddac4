//! Clients that cannot resolve names.

use super::{At, Expect, Fault, Form, Vantage, rejected};
use crate::lab::plan::{Plan, PodPlan};
use crate::manifests::{family, make_unready};
use crate::proxy::Mode;
use crate::traffic::{Dial, Listen, Outcome};
use crate::world::{Deed, Filter, Hook, Party, Spot, World};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub(super) const ALL: &[&dyn Fault] = &[
    &NoEndpoints { resolved: false },
    &NoEndpoints { resolved: true },
    &Timeout,
    &Answered,
];

const DOMAIN: u16 = 53;

/// Not among the addresses that a plan gives its Services.
fn vip(plan: &Plan) -> IpAddr {
    plan.service_cidr.nth(10)
}

/// The cluster has a Service for DNS queries that leads to `pod`.
fn add_resolver(plan: &Plan, world: &mut World, pod: &PodPlan) -> Result<()> {
    let vip = vip(plan);
    let mut service = world.objects.service_mut(&plan.second)?.clone();
    service.metadata.name = Some("resolver".to_owned());
    service.metadata.namespace = Some(pod.namespace.clone());
    let spec = service.spec.as_mut().context("no spec")?;
    spec.cluster_ip = Some(vip.to_string());
    spec.cluster_ips = Some(vec![vip.to_string()]);
    spec.ip_families = Some(vec![family(vip).to_owned()]);
    spec.ip_family_policy = Some("SingleStack".to_owned());
    spec.selector = Some(BTreeMap::from([pod.label.clone()]));
    spec.ports = Some(vec![ServicePort {
        name: Some("dns".to_owned()),
        port: DOMAIN.into(),
        protocol: Some("UDP".to_owned()),
        target_port: Some(IntOrString::Int(DOMAIN.into())),
        ..ServicePort::default()
    }]);
    world.objects.services.push(service);
    world.objects.reconcile();
    Ok(())
}

fn query(plan: &Plan) -> Dial {
    Dial {
        proto: "udp",
        ..Dial::tcp(SocketAddr::new(vip(plan), DOMAIN))
    }
}

/// The resolver's Pod answers.
fn answer(plan: &Plan, world: &mut World) {
    world.listen(&plan.spare, vec![Listen::any("udp", DOMAIN)]);
}

fn asked_for(plan: &Plan) -> String {
    let client = &plan.client;
    format!("pod/{}/{}", client.namespace, client.name)
}

/// The client, which was asked for, queries in vain and dials nothing else.
fn cut_off(plan: &Plan, world: &mut World) {
    world.from = Some(asked_for(plan));
    world.via_vip = vec![query(plan)];
    world.via_pod.clear();
}

struct NoEndpoints {
    /// The client has the Service's address all the same.
    resolved: bool,
}

impl Fault for NoEndpoints {
    fn name(&self) -> &'static str {
        if self.resolved {
            "near-dns-no-endpoints"
        } else {
            "dns-no-endpoints"
        }
    }
    fn breaks(&self) -> &'static str {
        if self.resolved {
            "nothing of the Service: the cluster's DNS has no ready Pod, and clients have its address"
        } else {
            "the cluster's DNS has no ready Pod, so the client never learns the Service's address"
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let pod = world.objects.pod_mut(&plan.spare)?;
        make_unready(pod, "ContainersNotReady", "probe failed");
        add_resolver(plan, world, &plan.spare)?;
        if self.resolved {
            world.noise.push((Party::Client, query(plan)));
        } else {
            cut_off(plan, world);
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match (self.resolved, at.vantage, at.form) {
            (true, Vantage::Backend, _) => Expect::unharmed(),
            (true, ..) => Expect {
                info: Some("dns-no-endpoints"),
                ..Expect::healthy()
            },
            (false, Vantage::Backend, _) | (false, _, Form::Idle) => Expect::not_from_here(),
            (false, ..) => Expect::code("dns-no-endpoints", &["drop", "ct"]).and(&["k8s"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        if self.resolved {
            vec![Outcome::Ok]
        } else {
            rejected()
        }
    }
    fn forms(&self) -> &'static [Form] {
        if self.resolved {
            &[Form::Fresh, Form::Retrying]
        } else {
            &[Form::Fresh, Form::Retrying, Form::Idle]
        }
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        if self.resolved {
            return Vec::new();
        }
        vec![plan.client.name.clone(), plan.spare.name.clone()]
    }
}

struct Timeout;

impl Fault for Timeout {
    fn name(&self) -> &'static str {
        "dns-timeout"
    }
    fn breaks(&self) -> &'static str {
        "the Pod of the cluster's DNS never gets the client's queries: its own firewall drops them"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        add_resolver(plan, world, &plan.spare)?;
        answer(plan, world);
        world.filters.push(Filter {
            spot: Spot::Pod(plan.spare.ip),
            hook: Hook::Input,
            proto: "udp",
            dst: plan.spare.ip,
            dport: DOMAIN,
            deed: Deed::Drop,
        });
        cut_off(plan, world);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match (at.vantage, at.form) {
            (Vantage::Backend, _) | (_, Form::Idle) => Expect::not_from_here(),
            _ => Expect::code("dns-timeout", &["flow"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::Retrying, Form::Idle]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.client.name.clone(), plan.spare.name.clone()]
    }
}

struct Answered;

impl Fault for Answered {
    fn name(&self) -> &'static str {
        "healthy-dns"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the client is answered by the cluster's DNS and dials the Service"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        add_resolver(plan, world, &plan.spare)?;
        answer(plan, world);
        world.from = Some(asked_for(plan));
        world.noise.push((Party::Client, query(plan)));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            _ => Expect::healthy(),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::Retrying]
    }
}
