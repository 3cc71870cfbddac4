//! Which endpoints a Service port has, as kube-proxy chooses among them.
//!
//! The order of preference is that of `CategorizeEndpoints` in kube-proxy (kubernetes/pkg/proxy/topology.go): ready
//! ones; where there are none, those that still serve while terminating; only the node's own under a Local policy.

use crate::model::objects::{Endpoint, EndpointSlice, Objects, Service, ServicePort};
use crate::model::shared::{Name, Shared};
use std::collections::HashSet;
use std::net::SocketAddr;

/// Label of a Node with its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One endpoint of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend<'a> {
    /// Address and port after DNAT.
    pub address: SocketAddr,
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// The slice that lists it.
    pub slice: &'a EndpointSlice,
}

impl Backend<'_> {
    fn is_on(&self, node: &str) -> bool {
        self.endpoint.node.as_deref() == Some(node)
    }

    /// Still answers, while being shut down.
    pub fn drains(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }
}

/// How a client reached the Service; each way has its own traffic policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Through the cluster IP.
    Internal,
    /// From outside the cluster through a NodePort, an external IP or a load balancer.
    External,
    /// From a Pod or a node through such an address: kube-proxy takes the short way and asks for no policy.
    ExternalFromInside,
}

impl Entry {
    /// Only endpoints of the node itself may be used.
    fn is_local(self, service: &Service) -> bool {
        match self {
            Entry::Internal => service.internal_local,
            Entry::External => service.external_local,
            Entry::ExternalFromInside => false,
        }
    }
}

/// Which endpoints kube-proxy of one node sends connections to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Those that get connections.
    pub backends: Vec<Backend<'a>>,
    /// Why these.
    pub rule: ChoiceRule,
}

/// Why these endpoints and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChoiceRule {
    /// The ready ones.
    Ready,
    /// The ready ones hinted for the client's node.
    NodeHints,
    /// The ready ones hinted for the zone of the client's node.
    ZoneHints,
    /// None is ready: those that still serve while terminating.
    Terminating,
    /// None: no endpoint can be used anywhere.
    Nothing,
    /// None: a Local policy, and those that can be used are on other nodes.
    NoneLocal,
    /// A Local policy, and it is not known which node the client is on: those that could be used on some node.
    LocalUnknown,
}

/// All endpoints of a Service port in one family, whatever their conditions, each address once.
pub fn backends<'a>(
    objects: &'a Objects,
    service: &Service,
    port: &ServicePort,
    ipv6: bool,
) -> Vec<Backend<'a>> {
    let mut seen = HashSet::new();
    let mut backends: Vec<Backend<'a>> = Vec::new();
    for slice in objects.slices_of(service) {
        // A slice port without a number stands for "unset" and is not proxied.
        let Some(number) = slice_port(slice, port) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let Some(ip) = endpoint.addresses.first() else {
                continue;
            };
            let address = SocketAddr::new(*ip, number);
            let backend = Backend {
                address,
                endpoint,
                slice,
            };
            if ip.is_ipv6() != ipv6 {
                continue;
            }
            if seen.insert(address) {
                backends.push(backend);
            } else if endpoint.ready {
                // While a Pod moves between slices, both list it for a moment.
                backends
                    .iter_mut()
                    .filter(|b| b.address == address && !b.endpoint.ready)
                    .for_each(|b| *b = backend);
            }
        }
    }
    backends.sort_by_key(|b| b.address);
    backends
}

/// Endpoints that kube-proxy on `node` may send connections to at all: ready ones, and those that still serve while
/// terminating, on the node itself where a Local policy asks for that.
pub fn usable<'a>(
    objects: &'a Objects,
    service: &Service,
    port: &ServicePort,
    ipv6: bool,
    entry: Entry,
    node: Option<&str>,
) -> Vec<Backend<'a>> {
    let mut all = backends(objects, service, port, ipv6);
    all.retain(|b| b.endpoint.ready || b.drains());
    if let Some(node) = node.filter(|_| entry.is_local(service)) {
        all.retain(|b| b.is_on(node));
    }
    all
}

/// Endpoints that kube-proxy on `node` sends connections to. `node` is where the packet meets the proxy: the client's
/// node for traffic inside the cluster, the node addressed for traffic from outside.
pub fn choose<'a>(
    objects: &'a Objects,
    service: &Service,
    port: &ServicePort,
    ipv6: bool,
    entry: Entry,
    node: Option<&str>,
) -> Choice<'a> {
    let all = backends(objects, service, port, ipv6);
    let usable = ready_else_draining(all.clone());
    if !entry.is_local(service) {
        return hinted(objects, &all, node).unwrap_or(usable);
    }
    let Some(node) = node else {
        return Choice {
            rule: match usable.rule {
                ChoiceRule::Nothing => ChoiceRule::Nothing,
                _ => ChoiceRule::LocalUnknown,
            },
            ..usable
        };
    };
    let here = ready_else_draining(all.into_iter().filter(|b| b.is_on(node)).collect());
    match (here.rule, usable.rule) {
        (ChoiceRule::Nothing, ChoiceRule::Ready | ChoiceRule::Terminating) => Choice {
            backends: Vec::new(),
            rule: ChoiceRule::NoneLocal,
        },
        _ => here,
    }
}

/// What any kube-proxy chooses from what it may use: the ready ones, else those that still serve while terminating.
pub fn ready_else_draining(backends: Vec<Backend<'_>>) -> Choice<'_> {
    let (ready, rest): (Vec<_>, Vec<_>) = backends.into_iter().partition(|b| b.endpoint.ready);
    if !ready.is_empty() {
        return Choice {
            backends: ready,
            rule: ChoiceRule::Ready,
        };
    }
    let draining: Vec<_> = rest.into_iter().filter(Backend::drains).collect();
    let rule = if draining.is_empty() {
        ChoiceRule::Nothing
    } else {
        ChoiceRule::Terminating
    };
    Choice {
        backends: draining,
        rule,
    }
}

/// What topology hints leave over. Hints count only where every ready endpoint has one and at least one is for here;
/// node hints go before zone hints.
fn hinted<'a>(objects: &Objects, all: &[Backend<'a>], node: Option<&str>) -> Option<Choice<'a>> {
    let node = node?;
    let ready: Vec<_> = all.iter().copied().filter(|b| b.endpoint.ready).collect();
    let pick = |rule, hints: fn(&Endpoint) -> &Shared<Name>, wanted: &str| {
        let complete = ready.iter().all(|b| !hints(b.endpoint).is_empty());
        let backends: Vec<_> = ready
            .iter()
            .copied()
            .filter(|b| hints(b.endpoint).iter().any(|h| h == wanted))
            .collect();
        (complete && !backends.is_empty()).then_some(Choice { backends, rule })
    };
    pick(ChoiceRule::NodeHints, |e| &e.node_hints, node).or_else(|| {
        let zone = objects.node(node)?.labels.get(ZONE_LABEL)?;
        pick(ChoiceRule::ZoneHints, |e| &e.zones, zone)
    })
}

/// Number that a slice gives to a Service port: matched by name and protocol.
pub fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    slice
        .ports
        .iter()
        .find(|p| p.name == port.name && p.proto == port.proto)
        .and_then(|p| p.port)
}

#[cfg(test)]
mod tests;
