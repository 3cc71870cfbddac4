//! What can be broken in a lab: one small type per fault, which says what it breaks and what netflow must find.
//!
//! A fault changes a healthy [`World`]; applying the healthy world again undoes it.

mod agents;
mod clients;
mod conntrack;
mod dns;
mod healthy;
mod kind;
mod lag;
mod network;
mod nodeport;
mod passing;
mod policy;
mod proxy;
mod readiness;
mod route;
mod service;
mod slices;
mod two;
mod variant;

use crate::lab::plan::{Family, Network, Placement, Plan, Shape};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::World;
use anyhow::Result;
use netflow_user::model::answer::Verdict;
use std::time::Duration;

/// Whose netflow answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vantage {
    /// The client's node (with backends on the same node: the only one there is to ask).
    Client,
    /// The backends' node, where it is another.
    Backend,
    /// Both recordings together.
    Together,
}

impl Vantage {
    /// As in messages.
    pub fn name(self) -> &'static str {
        match self {
            Vantage::Client => "client's node",
            Vantage::Backend => "backend's node",
            Vantage::Together => "both nodes",
        }
    }
}

/// When traffic starts and whom it dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// After netflow, to the VIP and to Pod addresses.
    Fresh,
    /// Before netflow: connections stand or are being retried when it starts.
    Retrying,
    /// To the VIP only.
    VipOnly,
    /// None at all: what objects alone say.
    Idle,
}

impl Form {
    /// All that have traffic.
    pub const WITH_TRAFFIC: [Form; 3] = [Form::Fresh, Form::Retrying, Form::VipOnly];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Form::Fresh => "fresh",
            Form::Retrying => "retrying",
            Form::VipOnly => "vip-only",
            Form::Idle => "idle",
        }
    }
}

/// What an answer must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Codes of which one must be on top; empty: no critical finding may be there.
    pub codes: Vec<&'static str>,
    /// Verdicts of which one must be given.
    pub verdicts: Vec<Verdict>,
    /// Planes of which each group must be cited by the top finding with at least one of its members.
    pub planes: Vec<&'static [&'static str]>,
    /// A finding of severity info that must be there.
    pub info: Option<&'static str>,
    /// The top finding must be observed, not inferred or concluded from objects.
    pub observed: bool,
    /// One of the codes must be there; otherwise it only may.
    pub firm: bool,
    /// Codes of the critical findings that follow the one on top.
    pub also: Vec<&'static str>,
    /// Whether the top finding must be over, or must not be; `None`: the fault does not pass.
    pub over: Option<bool>,
}

impl Expect {
    /// `code` on top, observed, by one of `planes`.
    pub fn code(code: &'static str, planes: &'static [&'static str]) -> Expect {
        Expect {
            codes: vec![code],
            verdicts: vec![Verdict::Failing],
            planes: vec![planes],
            info: None,
            observed: true,
            firm: true,
            also: Vec::new(),
            over: None,
        }
    }

    /// Nothing critical, exit code 0.
    pub fn healthy() -> Expect {
        Expect {
            codes: Vec::new(),
            verdicts: vec![Verdict::Healthy],
            planes: Vec::new(),
            info: None,
            observed: false,
            firm: false,
            also: Vec::new(),
            over: None,
        }
    }

    /// Nothing critical; whether the Service is used may not show here.
    pub fn unharmed() -> Expect {
        Expect {
            verdicts: vec![Verdict::Healthy, Verdict::NotEnoughEvidence],
            ..Expect::healthy()
        }
    }

    /// The cause does not show here: no critical finding on observation. Objects may still suspect `codes`.
    pub fn not_from_here() -> Expect {
        Expect {
            verdicts: vec![
                Verdict::NotEnoughEvidence,
                Verdict::Suspected,
                Verdict::Healthy,
            ],
            ..Expect::healthy()
        }
    }

    /// Attempts fail, and nothing that is seen here says why.
    pub fn without_cause() -> Expect {
        Expect {
            verdicts: vec![Verdict::Failing, Verdict::Degraded],
            ..Expect::healthy()
        }
    }

    /// Another code is as right.
    #[must_use]
    pub fn or(mut self, code: &'static str) -> Expect {
        self.codes.push(code);
        self
    }

    /// Some attempts get through.
    #[must_use]
    pub fn degraded(mut self) -> Expect {
        self.verdicts = vec![Verdict::Degraded];
        self
    }

    /// Some attempts may count as answered.
    #[must_use]
    pub fn or_degraded(mut self) -> Expect {
        self.verdicts.push(Verdict::Degraded);
        self
    }

    /// Another fault is found as well, after the one on top.
    #[must_use]
    pub fn also(mut self, code: &'static str) -> Expect {
        self.also.push(code);
        self
    }

    /// Also by one of `planes`.
    #[must_use]
    pub fn and(mut self, planes: &'static [&'static str]) -> Expect {
        self.planes.push(planes);
        self
    }
}

/// Where and how a scenario is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Who answers.
    pub vantage: Vantage,
    /// Where the backends are.
    pub placement: Placement,
    /// How Services are proxied.
    pub mode: Mode,
    /// How traffic runs.
    pub form: Form,
    /// Which addresses there are.
    pub family: Family,
    /// How Pods are connected.
    pub network: Network,
}

impl At {
    /// The cause shows on the client's node: what is expected there, and of both together.
    fn client_side(self, expect: Expect) -> Expect {
        match self.vantage {
            Vantage::Client | Vantage::Together => expect,
            Vantage::Backend => Expect::not_from_here(),
        }
    }

    /// The cause shows only on the backend's node; across nodes the client's node can say no more than where it went.
    fn backend_side(self, expect: Expect) -> Expect {
        match (self.vantage, self.placement) {
            (Vantage::Client, Placement::Cross) => beyond(),
            _ => expect,
        }
    }
}

/// What the client's node says of a cause on the other node that leaves no answer.
fn beyond() -> Expect {
    Expect::code("lost-beyond-node", &["flow"])
}

/// What becomes of a fault while netflow looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All is well.
    Heals,
    /// It is back.
    Returns,
}

/// One way to break a lab, or to make noise in a healthy one.
pub trait Fault: Sync {
    /// Its name; for the plain form of a code, the code itself.
    fn name(&self) -> &'static str;

    /// What it breaks, one line.
    fn breaks(&self) -> &'static str;

    /// Changes a healthy world.
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()>;

    /// What must be found.
    fn expect(&self, at: At) -> Expect;

    /// How attempts through the VIP may end, as the client sees it.
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome>;

    /// Placements in which it makes sense.
    fn placements(&self) -> &'static [Placement] {
        &Placement::ALL
    }

    /// Networks in which it makes sense.
    fn networks(&self) -> &'static [Network] {
        &Network::ALL
    }

    /// Shapes of labs in which it makes sense.
    fn shapes(&self) -> Vec<Shape> {
        let (placements, networks) = (self.placements(), self.networks());
        let fits = |s: &Shape| placements.contains(&s.placement) && networks.contains(&s.network);
        Shape::all().into_iter().filter(fits).collect()
    }

    /// Traffic forms in which it makes sense.
    fn forms(&self) -> &'static [Form] {
        &Form::WITH_TRAFFIC
    }

    /// Whether it hits everything on a node, so that no second Service can be healthy.
    fn is_node_wide(&self) -> bool {
        false
    }

    /// Words that the answer must contain.
    fn must_name(&self, _plan: &Plan) -> Vec<String> {
        Vec::new()
    }

    /// Whether the cause must name every endpoint that clients met. Which these are the proxy chooses: of three that fail alike, one
    /// in twenty-five times eight attempts meet two.
    fn names_all_met(&self) -> bool {
        false
    }

    /// Changes the lab when traffic that runs before netflow has begun, and netflow has not.
    fn beforehand(&self, _plan: &Plan, _world: &mut World) -> Result<bool> {
        Ok(false)
    }

    /// Its turns while netflow looks: each comes when a client has felt the one before.
    fn turns(&self) -> &'static [Turn] {
        &[]
    }

    /// Changes objects while netflow looks.
    fn meanwhile(&self, _plan: &Plan, _world: &mut World) -> bool {
        false
    }

    /// Changes the world once more after `meanwhile`, and how long after it.
    fn afterwards(&self, _plan: &Plan, _world: &mut World) -> Option<Duration> {
        None
    }

    /// Seconds that netflow must look longer, for all that to happen.
    fn takes(&self) -> u64 {
        0
    }
}

/// All of them: faults, then healthy labs and near misses.
pub fn all() -> Vec<&'static dyn Fault> {
    [
        service::ALL,
        clients::ALL,
        kind::ALL,
        dns::ALL,
        readiness::ALL,
        slices::ALL,
        agents::ALL,
        proxy::ALL,
        lag::ALL,
        conntrack::ALL,
        policy::ALL,
        network::ALL,
        route::ALL,
        healthy::ALL,
        nodeport::ALL,
        two::ALL,
        passing::ALL,
        variant::ALL,
    ]
    .concat()
}

/// By name.
pub fn find(name: &str) -> Option<&'static dyn Fault> {
    all().into_iter().find(|f| f.name() == name)
}

/// Faults that are shown by other means, or by more, where a kernel has more: every test run proves them on every kernel.
pub const BY_TIER: [&str; 19] = [
    "vip-not-translated",
    "firewall-drop",
    "firewall-reject",
    "policy-denied-ingress",
    "hairpin",
    "reply-bypasses-nat",
    "conntrack-stale",
    "conntrack-full",
    "conntrack-invalid",
    "conntrack-clash-resolved",
    "snat-ports-exhausted",
    "no-route",
    "forwarding-disabled",
    "neighbor-failed-pod",
    "asymmetric-return",
    "mtu-blackhole",
    "pmtu-learned",
    "pmtu-ignored",
    "fragmentation",
];

/// Faults that prove a kernel besides these: every kernel shows them by the same means.
pub const ON_A_KERNEL: [&str; 6] = [
    "healthy",
    "target-port-mismatch",
    "listener-missing",
    "no-endpoints-selector",
    "proxy-rules-stale",
    "backend-gone",
];

/// Faults that are seen where IPVS proxies Services. What filters in the FORWARD chain do is not among them: a node's own IPVS
/// sends packets on past it.
pub const BY_IPVS: [&str; 16] = [
    "healthy",
    "healthy-udp",
    "healthy-node-client",
    "healthy-own-rollout",
    "target-port-mismatch",
    "listener-missing",
    "listener-loopback-only",
    "no-endpoints-selector",
    "no-endpoints-not-ready",
    "service-port-undefined",
    "protocol-mismatch",
    "one-bad-endpoint",
    "vip-not-translated",
    "vip-not-translated-one-service",
    "proxy-rules-stale",
    "backend-gone",
];

/// Those of them that prove a kernel's IPVS.
pub const IPVS_BY_KERNEL: [&str; 6] = [
    "healthy",
    "target-port-mismatch",
    "no-endpoints-selector",
    "vip-not-translated",
    "proxy-rules-stale",
    "backend-gone",
];

/// Codes that every test run must prove.
pub const CODES: [&str; 55] = [
    "service-not-found",
    "external-name-is-dns",
    "load-balancer-pending",
    "headless-not-ready",
    "dns-no-endpoints",
    "dns-timeout",
    "terminating-backend",
    "publish-not-ready",
    "backend-node-down",
    "endpointslice-stale",
    "proxy-unhealthy",
    "cni-unhealthy",
    "no-endpoints-selector",
    "no-endpoints-not-ready",
    "named-port-unresolved",
    "target-port-mismatch",
    "listener-missing",
    "listener-loopback-only",
    "service-port-undefined",
    "protocol-mismatch",
    "one-bad-endpoint",
    "some-clients-fail",
    "vip-not-translated",
    "proxy-sync-lag",
    "proxy-rules-stale",
    "conntrack-stale",
    "conntrack-full",
    "conntrack-pressure",
    "conntrack-clash",
    "conntrack-invalid",
    "snat-ports-exhausted",
    "source-ip-masqueraded",
    "proxy-mode",
    "backend-gone",
    "hairpin",
    "reply-bypasses-nat",
    "firewall-drop",
    "firewall-reject",
    "policy-denied-ingress",
    "no-route",
    "forwarding-disabled",
    "neighbor-failed",
    "neighbor-stale",
    "asymmetric-return",
    "bad-checksum",
    "mtu-blackhole",
    "pmtu-learned",
    "pmtu-ignored",
    "mtu-mismatch",
    "fragmentation",
    "overlay-peer-lost",
    "tunnel-port-blocked",
    "lost-beyond-node",
    "never-arrived",
    "etp-local-no-endpoint",
];

/// How a packet for an address that nothing on the node handles ends: it leaves by the default route.
fn leaked(plan: &Plan) -> Vec<Outcome> {
    match plan.unknown {
        crate::lab::plan::Unknown::Swallow => vec![Outcome::Timeout],
        crate::lab::plan::Unknown::Unreachable => vec![Outcome::Unreachable, Outcome::Timeout],
    }
}

/// REJECT answers with ICMP, of which the kernel sends only so many per second
/// (`icmp_global_allow`, `inet_peer_xrlim_allow` in net/ipv4/icmp.c, v6.18).
fn rejected() -> Vec<Outcome> {
    vec![Outcome::Refused, Outcome::Timeout]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = all().iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn every_fault_changes_the_world_of_every_seed() -> Result<()> {
        for fault in all().into_iter().filter(|f| f.name() != "healthy") {
            for seed in 0..40 {
                for shape in fault.shapes() {
                    let plan = Plan::draw(seed, shape);
                    let healthy = World::healthy(&plan, Mode::Nftables);
                    let mut world = healthy.clone();
                    fault.inflict(&plan, &mut world)?;
                    assert_ne!(world, healthy, "{} seed {seed}", fault.name());
                }
            }
        }
        Ok(())
    }
}
