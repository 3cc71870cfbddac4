//! Proxy rules and what they point at.

use super::{At, Expect, Fault, Vantage, beyond, leaked};
use crate::lab::plan::{Placement, Plan};
use crate::manifests::{Objects, family};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Programmed, World};
use anyhow::Result;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &VipNotTranslated,
    &VipNotTranslatedOne,
    &ProxyRulesStale,
    &ProxyRulesStaleReused,
    &BackendGone,
];

struct VipNotTranslated;

impl Fault for VipNotTranslated {
    fn name(&self) -> &'static str {
        "vip-not-translated"
    }
    fn breaks(&self) -> &'static str {
        "kube-proxy never wrote a rule on the client's node"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.programmed[0] = Programmed::Nothing;
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("vip-not-translated", &["flow", "drop"]))
    }
    fn client_sees(&self, plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        leaked(plan)
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}

struct VipNotTranslatedOne;

impl Fault for VipNotTranslatedOne {
    fn name(&self) -> &'static str {
        "vip-not-translated-one-service"
    }
    fn breaks(&self) -> &'static str {
        "the rules of the client's node know every Service but this one"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let mut old = world.objects.clone();
        old.services
            .retain(|s| s.metadata.name.as_ref() != Some(&plan.service.name));
        old.reconcile();
        world.programmed[0] = Programmed::Old(Box::new(old));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("vip-not-translated", &["flow", "drop"]))
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        match mode {
            // Addresses of the service network that no Service has are dropped.
            Mode::Nftables => vec![Outcome::Timeout],
            Mode::IptablesLegacy | Mode::IptablesNft | Mode::Ipvs | Mode::IpvsUntracked => {
                leaked(plan)
            }
        }
    }
}

/// Objects of a moment when the Service had the single endpoint `ip`.
pub(super) fn with_endpoint(plan: &Plan, objects: &Objects, ip: IpAddr) -> Objects {
    let mut old = objects.clone();
    let own = |slice: &EndpointSlice| {
        let name = slice.metadata.name.as_ref();
        slice.address_type == family(ip) && name.is_some_and(|n| n.starts_with(&plan.service.name))
    };
    for slice in old.slices.iter_mut().filter(|s| own(s)) {
        slice.endpoints.truncate(1);
        for endpoint in &mut slice.endpoints {
            endpoint.addresses = vec![ip.to_string()];
        }
    }
    old
}

struct ProxyRulesStale;

impl Fault for ProxyRulesStale {
    fn name(&self) -> &'static str {
        "proxy-rules-stale"
    }
    fn breaks(&self) -> &'static str {
        "the client's node still sends to an endpoint that left the slice and is gone"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let pods = plan.nodes[plan.backend_node()].pods;
        let free = pods.nth_last(3);
        world.programmed[0] = Programmed::Old(Box::new(with_endpoint(plan, &world.objects, free)));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("proxy-rules-stale", &["ct", "drop"]))
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout, Outcome::Unreachable]
    }
}

struct ProxyRulesStaleReused;

impl Fault for ProxyRulesStaleReused {
    fn name(&self) -> &'static str {
        "proxy-rules-stale-reused"
    }
    fn breaks(&self) -> &'static str {
        "the client's node still sends to an address that another workload's Pod has by now"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.programmed[0] =
            Programmed::Old(Box::new(with_endpoint(plan, &world.objects, plan.spare.ip)));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("proxy-rules-stale", &["ct", "drop"]))
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Refused]
    }
}

pub(super) struct BackendGone;

impl Fault for BackendGone {
    fn name(&self) -> &'static str {
        "backend-gone"
    }
    fn breaks(&self) -> &'static str {
        "the Pods' addresses do not exist any more, slice and rules still name them"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.gone = plan.backends.iter().map(|p| p.ip).collect();
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let expect = Expect::code("backend-gone", &["flow", "drop"]);
        match (at.vantage, at.placement) {
            // "Host unreachable" comes back only after three seconds of unanswered neighbour requests.
            (Vantage::Client, Placement::Cross) => beyond().or("backend-gone"),
            _ => expect,
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout, Outcome::Unreachable]
    }
}
