//! Service, endpoints, ports, listeners.

use super::{At, Expect, Fault, Form, Vantage, leaked, rejected};
use crate::lab::plan::Plan;
use crate::manifests::make_unready;
use crate::proxy::Mode;
use crate::traffic::{Dial, Listen, Outcome};
use crate::world::World;
use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netflow_user::model::answer::Verdict;
use std::net::SocketAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &ServiceNotFound,
    &NamespaceNotFound,
    &NoEndpointsSelector,
    &NoEndpointsNotReady,
    &NamedPortUnresolved,
    &TargetPortMismatch,
    &ListenerMissing,
    &ListenerLoopbackOnly,
    &ServicePortUndefined,
    &ProtocolMismatch,
    &OneBadEndpoint,
    &OneDeafEndpoint,
];

/// Objects suffice, with or without traffic.
pub(super) const WITH_IDLE: [Form; 4] = [Form::Fresh, Form::Retrying, Form::VipOnly, Form::Idle];

/// What objects alone may say of a fault that has `code`.
pub(super) fn idle(code: &'static str) -> Expect {
    Expect {
        codes: vec![code],
        verdicts: vec![Verdict::Suspected],
        planes: vec![&["k8s"]],
        info: None,
        observed: false,
        firm: true,
        also: Vec::new(),
        over: None,
    }
}

fn unknown_name() -> Expect {
    idle("service-not-found")
}

struct ServiceNotFound;

impl Fault for ServiceNotFound {
    fn name(&self) -> &'static str {
        "service-not-found"
    }
    fn breaks(&self) -> &'static str {
        "asks for a Service whose name is typed wrong"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        let name = &mut world.asked.1;
        let last = name.pop();
        name.push_str(if last == Some('x') { "xy" } else { "x" });
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        unknown_name()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &[Form::VipOnly, Form::Idle]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.service.name.clone()]
    }
}

struct NamespaceNotFound;

impl Fault for NamespaceNotFound {
    fn name(&self) -> &'static str {
        "service-not-found-namespace"
    }
    fn breaks(&self) -> &'static str {
        "asks for the Service in a namespace that does not exist"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.asked.0.push_str("-eu");
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        unknown_name()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &[Form::VipOnly, Form::Idle]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.service.namespace.clone()]
    }
}

struct NoEndpointsSelector;

impl Fault for NoEndpointsSelector {
    fn name(&self) -> &'static str {
        "no-endpoints-selector"
    }
    fn breaks(&self) -> &'static str {
        "the Service's selector matches no Pod"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let spec = world
            .objects
            .service_mut(&plan.service)?
            .spec
            .as_mut()
            .context("no spec")?;
        for value in spec.selector.iter_mut().flat_map(|s| s.values_mut()) {
            value.push_str("-v2");
        }
        world.objects.reconcile();
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        without_endpoints(at, "no-endpoints-selector")
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        rejected()
    }
    fn forms(&self) -> &'static [Form] {
        &WITH_IDLE
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.backends[0].label.0.clone()]
    }
}

fn without_endpoints(at: At, code: &'static str) -> Expect {
    if at.form == Form::Idle || at.vantage == Vantage::Backend {
        return idle(code);
    }
    Expect::code(code, &["drop", "ct"]).and(&["k8s"])
}

struct NoEndpointsNotReady;

impl Fault for NoEndpointsNotReady {
    fn name(&self) -> &'static str {
        "no-endpoints-not-ready"
    }
    fn breaks(&self) -> &'static str {
        "the Service's Pods exist, none is Ready"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            let message = format!("containers with unready status: [{}]", pod.label.1);
            make_unready(world.objects.pod_mut(pod)?, "ContainersNotReady", &message);
        }
        world.objects.reconcile();
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        without_endpoints(at, "no-endpoints-not-ready")
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        rejected()
    }
    fn forms(&self) -> &'static [Form] {
        &WITH_IDLE
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.backends[0].name.clone()]
    }
}

struct NamedPortUnresolved;

/// The name that targetPort gives.
const WANTED: &str = "http-api";
/// The name that the Pods have for it.
pub(super) const DECLARED: &str = "serve-http";

impl Fault for NamedPortUnresolved {
    fn name(&self) -> &'static str {
        "named-port-unresolved"
    }
    fn breaks(&self) -> &'static str {
        "the Service's targetPort is a name that no container port of its Pods has"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        by_name(plan, world, WANTED)
    }
    fn expect(&self, at: At) -> Expect {
        without_endpoints(at, "named-port-unresolved")
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        rejected()
    }
    fn forms(&self) -> &'static [Form] {
        &WITH_IDLE
    }
    fn must_name(&self, _plan: &Plan) -> Vec<String> {
        vec![WANTED.to_owned(), DECLARED.to_owned()]
    }
}

/// Lets the Service's first port lead to a name; the Pods call it [`DECLARED`].
pub(super) fn by_name(plan: &Plan, world: &mut World, target: &str) -> Result<()> {
    for pod in &plan.backends {
        let spec = world.objects.pod_mut(pod)?.spec.as_mut();
        let containers = spec.into_iter().flat_map(|s| &mut s.containers);
        let declared = containers.flat_map(|c| c.ports.iter_mut().flatten());
        for port in declared.filter(|p| p.container_port == i32::from(plan.port().target)) {
            port.name = Some(DECLARED.to_owned());
        }
    }
    let spec = world.objects.spec_mut(&plan.service)?;
    for port in spec.ports.iter_mut().flatten().take(1) {
        port.target_port = Some(IntOrString::String(target.to_owned()));
    }
    world.objects.reconcile();
    Ok(())
}

struct TargetPortMismatch;

impl Fault for TargetPortMismatch {
    fn name(&self) -> &'static str {
        "target-port-mismatch"
    }
    fn breaks(&self) -> &'static str {
        "the Service's targetPort is not the port that the Pods declare and listen on"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let wrong = i32::from(plan.port().target) + 101;
        let spec = world
            .objects
            .service_mut(&plan.service)?
            .spec
            .as_mut()
            .context("no spec")?;
        let port = spec
            .ports
            .as_mut()
            .and_then(|p| p.first_mut())
            .context("no port")?;
        port.target_port = Some(IntOrString::Int(wrong));
        world.objects.reconcile();
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        if at.form == Form::Idle {
            return Expect {
                codes: vec!["target-port-mismatch"],
                ..Expect::not_from_here()
            };
        }
        Expect::code("target-port-mismatch", &["flow"])
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Refused]
    }
    fn forms(&self) -> &'static [Form] {
        &WITH_IDLE
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.port().target.to_string()]
    }
}

/// Listeners of the other ports of the Service.
pub(super) fn others(plan: &Plan) -> Vec<Listen> {
    plan.service.ports[1..]
        .iter()
        .map(|p| Listen::any("tcp", p.target))
        .collect()
}

struct ListenerMissing;

impl Fault for ListenerMissing {
    fn name(&self) -> &'static str {
        "listener-missing"
    }
    fn breaks(&self) -> &'static str {
        "the port is right and the Pods say Ready, but nothing listens"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            world.listen(pod, others(plan));
        }
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect::code("listener-missing", &["flow", "drop"])
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Refused]
    }
}

struct ListenerLoopbackOnly;

impl Fault for ListenerLoopbackOnly {
    fn name(&self) -> &'static str {
        "listener-loopback-only"
    }
    fn breaks(&self) -> &'static str {
        "the application is bound to 127.0.0.1"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        for pod in &plan.backends {
            let mut listens = others(plan);
            listens.push(Listen::loopback("tcp", plan.port().target));
            world.listen(pod, listens);
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let expect = Expect::code("listener-loopback-only", &["flow", "drop"]);
        match (at.vantage, at.placement) {
            // A RST from another node says that nothing took the packet, not what is bound where.
            (Vantage::Client, crate::lab::plan::Placement::Cross) => expect.or("listener-missing"),
            _ => expect.and(&["node"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Refused]
    }
}

/// A port that neither Service has.
pub(super) fn undefined_port(plan: &Plan) -> u16 {
    let used = |port: u16| {
        plan.service
            .ports
            .iter()
            .chain(&plan.second.ports)
            .any(|p| p.port == port)
    };
    (plan.port().port + 7..u16::MAX)
        .find(|p| !used(*p))
        .unwrap_or(9)
}

pub(super) fn to_vip(plan: &Plan, port: u16) -> Dial {
    Dial::tcp(SocketAddr::new(plan.service.vip, port))
}

/// The nftables and IPVS proxies reject ports that a cluster IP does not have; with iptables the packet goes on untouched.
pub(super) fn unhandled(plan: &Plan, mode: Mode) -> Vec<Outcome> {
    match mode {
        Mode::Nftables | Mode::Ipvs | Mode::IpvsUntracked => rejected(),
        Mode::IptablesLegacy | Mode::IptablesNft => leaked(plan),
    }
}

struct ServicePortUndefined;

impl Fault for ServicePortUndefined {
    fn name(&self) -> &'static str {
        "service-port-undefined"
    }
    fn breaks(&self) -> &'static str {
        "the client dials a port that the Service does not have"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.via_vip = vec![to_vip(plan, undefined_port(plan))];
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("service-port-undefined", &["flow"]))
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        unhandled(plan, mode)
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![undefined_port(plan).to_string()]
    }
}

struct ProtocolMismatch;

impl Fault for ProtocolMismatch {
    fn name(&self) -> &'static str {
        "protocol-mismatch"
    }
    fn breaks(&self) -> &'static str {
        "the client speaks UDP to a TCP port of the Service"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.via_vip = vec![Dial {
            proto: "udp",
            ..to_vip(plan, plan.port().port)
        }];
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("protocol-mismatch", &["flow"]))
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        unhandled(plan, mode)
    }
    fn must_name(&self, _plan: &Plan) -> Vec<String> {
        vec!["UDP".to_owned()]
    }
}

/// So many attempts that chance leads some of them to either kind of endpoint.
pub(super) fn often(world: &mut World) {
    for dial in &mut world.via_vip {
        dial.interval = 70;
        dial.count = 1000;
    }
}

struct OneBadEndpoint;

impl Fault for OneBadEndpoint {
    fn name(&self) -> &'static str {
        "one-bad-endpoint"
    }
    fn breaks(&self) -> &'static str {
        "one of the endpoints accepts connections and resets them"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let mut listens = others(plan);
        listens.push(Listen::any("reset", plan.port().target));
        world.listen(&plan.backends[1], listens);
        often(world);
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect::code("one-bad-endpoint", &["flow"]).degraded()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok, Outcome::Reset]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.backends[1].name.clone()]
    }
}

struct OneDeafEndpoint;

impl Fault for OneDeafEndpoint {
    fn name(&self) -> &'static str {
        "one-bad-endpoint-deaf"
    }
    fn breaks(&self) -> &'static str {
        "nothing listens on one of the endpoints, the others serve"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.listen(&plan.backends[0], others(plan));
        often(world);
        Ok(())
    }
    /// The group of failing attempts has a cause of its own, so the cause may come first as well as the scope.
    fn expect(&self, _at: At) -> Expect {
        Expect::code("one-bad-endpoint", &["flow"])
            .or("listener-missing")
            .degraded()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok, Outcome::Refused]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.backends[0].name.clone()]
    }
}
