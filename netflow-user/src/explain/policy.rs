//! `NetworkPolicy` evaluation: what Kubernetes' rules say of one connection, whoever enforces them.
//!
//! A question is always about the first packet of a connection as it is at the Pod, after DNAT and SNAT; replies of an
//! admitted connection are admitted with it. Both ends are asked on their own: egress of the client, ingress of the
//! server (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>).

use super::selector::{self, LabelMiss};
use crate::model::lookup::NAMESPACE_NAME_LABEL;
use crate::model::objects::{
    Labels, NetworkPolicy, Objects, Pod, PolicyPeer, PolicyPort, PolicyRule, Selector, TargetPort,
};
use crate::model::{Proto, Tuple, cidr};
use std::fmt;
use std::net::IpAddr;

/// Which side of the selected Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Connections to the Pod.
    Ingress,
    /// Connections from the Pod.
    Egress,
}

/// What the policies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Policies, or labels that they ask for, were not given: nothing can be said.
    Unknown,
    /// Policies do not apply.
    Exempt(Exemption),
    /// No policy isolates the Pod on this side.
    NotIsolated,
    /// A rule admits the connection.
    Allowed {
        /// Which policy.
        policy: PolicyName,
        /// Which of its rules on this side, from 0.
        rule: usize,
    },
    /// Policies isolate the Pod and no rule admits the connection.
    Denied {
        /// Every policy that isolates the Pod on this side, with why none of its rules holds. Never empty.
        policies: Vec<DeniedBy>,
    },
}

/// Why policies do not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exemption {
    /// The Pod is on its node's network, where implementations do not enforce policies.
    HostNetwork,
    /// The other end is the Pod itself, from which it cannot be isolated.
    Itself,
    /// The other end is the node that the Pod runs on (kubelet probes come from there), which is always admitted.
    OwnNode,
}

/// Namespace and name of a policy. Displays as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A policy that isolates the Pod and does not admit the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedBy {
    /// Which policy.
    pub policy: PolicyName,
    /// Each of its rules on this side, with what keeps it from admitting; empty = the policy admits nothing.
    pub rules: Vec<RuleMiss>,
}

impl DeniedBy {
    /// The rule that comes closest to admitting.
    pub fn nearest(&self) -> Option<&RuleMiss> {
        self.rules.iter().min_by_key(|r| (r.distance(), r.rule))
    }
}

/// Why a rule does not admit the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMiss {
    /// Which rule, from 0.
    pub rule: usize,
    /// Why the closest of its peers is not the other end; `None` = the peer is admitted.
    pub peer: Option<PeerMiss>,
    /// Why the port is not admitted; `None` = it is.
    pub port: Option<PortMiss>,
}

impl RuleMiss {
    fn distance(&self) -> usize {
        self.peer.as_ref().map_or(0, PeerMiss::distance) + usize::from(self.port.is_some())
    }
}

impl fmt::Display for RuleMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.peer, &self.port) {
            (Some(peer), Some(port)) => write!(f, "{peer}; {port}"),
            (Some(peer), None) => peer.fmt(f),
            (None, Some(port)) => port.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// Why a peer of a rule is not the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMiss {
    /// The peer is chosen by labels and the other end is no Pod with an address of its own.
    NotAPod {
        /// The other end.
        ip: IpAddr,
        /// The Node it is, where it is one (also for a Pod on the node's network).
        node: Option<String>,
    },
    /// Labels differ. At least one of the three says how.
    Labels {
        /// The other end, `namespace/name`.
        pod: String,
        /// On the Pod.
        on_pod: Vec<LabelMiss>,
        /// On the Pod's Namespace.
        on_namespace: Vec<LabelMiss>,
        /// The peer means Pods of the policy's own namespace, and this one is of another.
        other_namespace: Option<OtherNamespace>,
    },
    /// The address is outside the block.
    OutsideBlock {
        /// The other end.
        ip: IpAddr,
        /// The block.
        block: cidr::Cidr,
    },
    /// The address is in the block, and in one of its exceptions.
    Excepted {
        /// The other end.
        ip: IpAddr,
        /// The block.
        block: cidr::Cidr,
        /// The exception.
        except: cidr::Cidr,
    },
}

/// A peer without namespaceSelector means the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherNamespace {
    /// The policy's.
    pub wanted: String,
    /// The Pod's.
    pub found: String,
}

impl PeerMiss {
    /// How much would have to change for the peer to be admitted; only compared with each other.
    fn distance(&self) -> usize {
        match self {
            PeerMiss::Labels {
                on_pod,
                on_namespace,
                other_namespace,
                ..
            } => 2 * (on_pod.len() + on_namespace.len() + usize::from(other_namespace.is_some())),
            PeerMiss::Excepted { .. } => 3,
            PeerMiss::OutsideBlock { .. } => 9,
            PeerMiss::NotAPod { .. } => 12,
        }
    }
}

impl fmt::Display for PeerMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerMiss::NotAPod { ip, node: None } => {
                write!(f, "{ip} is no Pod, and the rule admits Pods by label")
            }
            PeerMiss::NotAPod {
                ip,
                node: Some(node),
            } => write!(f, "{ip} is node {node}, and the rule admits Pods by label"),
            PeerMiss::Labels {
                pod,
                on_pod,
                on_namespace,
                other_namespace,
            } => {
                let on_pod = on_pod.iter().map(|m| format!("Pod {pod}: {m}"));
                let namespace = pod.split('/').next().unwrap_or_default();
                let on_namespace = on_namespace
                    .iter()
                    .map(|m| format!("Namespace {namespace}: {m}"));
                let other = other_namespace.iter().map(|o| {
                    format!(
                        "Pod {pod} is in namespace {}, the rule admits Pods of {} only",
                        o.found, o.wanted
                    )
                });
                let all: Vec<_> = other.chain(on_namespace).chain(on_pod).collect();
                f.write_str(&all.join("; "))
            }
            PeerMiss::OutsideBlock { ip, block } => {
                write!(f, "{ip} is not in {}", cidr::text(*block))
            }
            PeerMiss::Excepted { ip, block, except } => write!(
                f,
                "{ip} is in {}, which is excepted from {}",
                cidr::text(*except),
                cidr::text(*block)
            ),
        }
    }
}

/// Why the port is not admitted by a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMiss {
    /// Protocol of the connection.
    pub proto: Proto,
    /// Destination port of the connection.
    pub port: u16,
    /// Ports that the rule admits.
    pub admitted: Vec<PolicyPort>,
    /// Port names of the rule that the destination Pod does not declare for their protocol.
    pub unresolved: Vec<String>,
}

impl fmt::Display for PortMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admitted: Vec<_> = self.admitted.iter().map(port_text).collect();
        write!(
            f,
            "{} {} is not among the admitted ports {}",
            self.proto,
            self.port,
            admitted.join(", ")
        )?;
        if !self.unresolved.is_empty() {
            let names = self.unresolved.join(", ");
            write!(f, " (the Pod declares no port named {names})")?;
        }
        Ok(())
    }
}

fn port_text(port: &PolicyPort) -> String {
    let proto = port.proto;
    match (&port.port, port.end_port) {
        (None, _) => format!("{proto} any"),
        (Some(TargetPort::Name(name)), _) => format!("{proto} {name}"),
        (Some(TargetPort::Number(from)), Some(to)) => format!("{proto} {from}-{to}"),
        (Some(TargetPort::Number(number)), None) => format!("{proto} {number}"),
    }
}

/// Whether the Pod at `tuple.dst` may be reached by the first packet `tuple`; `None` = no Pod has that address.
pub fn ingress(objects: &Objects, tuple: &Tuple) -> Option<Verdict> {
    let pod = objects.pod_at(tuple.dst)?;
    let (proto, port) = (tuple.proto, tuple.dport);
    Some(evaluate(
        objects,
        Side::Ingress,
        pod,
        tuple.src,
        proto,
        port,
    ))
}

/// Whether the Pod at `tuple.src` may send the first packet `tuple`; `None` = no Pod has that address.
pub fn egress(objects: &Objects, tuple: &Tuple) -> Option<Verdict> {
    let pod = objects.pod_at(tuple.src)?;
    let (proto, port) = (tuple.proto, tuple.dport);
    Some(evaluate(objects, Side::Egress, pod, tuple.dst, proto, port))
}

/// What the policies say of a connection between `pod` and the address `other`; `port` is the destination's.
pub fn evaluate(
    objects: &Objects,
    side: Side,
    pod: &Pod,
    other: IpAddr,
    proto: Proto,
    port: u16,
) -> Verdict {
    let connection = Connection::new(objects, side, pod, other.to_canonical(), proto, port);
    if let Some(exemption) = connection.exemption() {
        return Verdict::Exempt(exemption);
    }
    if are_unread(objects, pod) {
        return Verdict::Unknown;
    }
    let mut denied = Vec::new();
    for policy in &objects.policies {
        let Some(rules) = isolating_rules(policy, side, pod) else {
            continue;
        };
        let name = PolicyName {
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
        };
        let mut misses = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match connection.miss(policy, index, rule) {
                None => {
                    return Verdict::Allowed {
                        policy: name,
                        rule: index,
                    };
                }
                Some(miss) => misses.push(miss),
            }
        }
        denied.push(DeniedBy {
            policy: name,
            rules: misses,
        });
    }
    if denied.is_empty() {
        Verdict::NotIsolated
    } else if connection.rests_on_unknown_labels(side) {
        Verdict::Unknown
    } else {
        Verdict::Denied { policies: denied }
    }
}

/// Whether policies that select the Pod may be there that could not be read.
fn are_unread(objects: &Objects, pod: &Pod) -> bool {
    let mut limits = objects.limits.iter();
    let limit = limits.find(|l| l.kind == "NetworkPolicy");
    objects.policies.is_empty() && objects.is_unknown("NetworkPolicy")
        || limit.is_some_and(|l| l.namespaces.iter().all(|n| pod.namespace != *n))
}

/// The policies that isolate `pod` on a side.
pub fn isolating<'a>(
    objects: &'a Objects,
    side: Side,
    pod: &'a Pod,
) -> impl Iterator<Item = &'a NetworkPolicy> {
    objects
        .policies
        .iter()
        .filter(move |p| isolating_rules(p, side, pod).is_some())
}

/// The rules of a policy for a side, if it isolates the Pod there.
fn isolating_rules<'a>(
    policy: &'a NetworkPolicy,
    side: Side,
    pod: &Pod,
) -> Option<&'a [PolicyRule]> {
    let rules = match side {
        Side::Ingress => policy.ingress.as_deref(),
        Side::Egress => policy.egress.as_deref(),
    }?;
    let selected =
        policy.namespace == pod.namespace && selector::matches(&policy.pod_selector, &pod.labels);
    selected.then_some(rules)
}

/// One connection, with everything that rules are compared with looked up once.
struct Connection<'a> {
    objects: &'a Objects,
    pod: &'a Pod,
    other: IpAddr,
    /// The Pod that `other` is; one on the node's network is not told from its node.
    peer: Option<&'a Pod>,
    /// Labels of the peer's Namespace.
    peer_namespace: Labels,
    /// The Pod whose container ports give port names a number.
    destination: Option<&'a Pod>,
    proto: Proto,
    port: u16,
}

impl<'a> Connection<'a> {
    fn new(
        objects: &'a Objects,
        side: Side,
        pod: &'a Pod,
        other: IpAddr,
        proto: Proto,
        port: u16,
    ) -> Connection<'a> {
        let peer = objects.pod_at(other);
        Connection {
            objects,
            pod,
            other,
            peer,
            peer_namespace: peer
                .map(|p| objects.namespace_labels(&p.namespace))
                .unwrap_or_default(),
            destination: match side {
                Side::Ingress => Some(pod),
                Side::Egress => peer,
            },
            proto,
            port,
        }
    }

    fn exemption(&self) -> Option<Exemption> {
        if self.pod.host_network {
            return Some(Exemption::HostNetwork);
        }
        if self.pod.ips.contains(&self.other) {
            return Some(Exemption::Itself);
        }
        let other_node = self.other_node();
        (other_node.is_some() && other_node == self.pod.node.as_deref())
            .then_some(Exemption::OwnNode)
    }

    /// The other end may be a Pod of a namespace that could not be read.
    fn may_be_unread_pod(&self) -> bool {
        let limited = || self.objects.limits.iter().any(|l| l.kind == "Pod");
        self.peer.is_none() && self.other_node().is_none() && limited()
    }

    /// A rule asks for labels of the peer, or of its Namespace, which nobody gave.
    fn rests_on_unknown_labels(&self, side: Side) -> bool {
        let policies = self.objects.policies.iter();
        let mut rules = policies
            .filter_map(|p| isolating_rules(p, side, self.pod))
            .flatten();
        let Some(peer) = self.peer else {
            let by_labels = |p: &PolicyPeer| matches!(p, PolicyPeer::Pods { .. });
            return self.may_be_unread_pod() && rules.any(|r| r.peers.iter().any(by_labels));
        };
        let mut namespaces = self.objects.namespaces.iter();
        if namespaces.any(|n| n.name == peer.namespace) {
            return false;
        }
        let asks = |p: &PolicyPeer| match p {
            PolicyPeer::Pods {
                namespaces: Some(wanted),
                ..
            } => {
                let misses = selector::misses(wanted, &self.peer_namespace);
                !misses.is_empty() && misses.iter().all(|m| m.key != NAMESPACE_NAME_LABEL)
            }
            _ => false,
        };
        rules.any(|r| r.peers.iter().any(asks))
    }

    /// The Node that the other end is.
    fn other_node(&self) -> Option<&'a str> {
        let objects = self.objects;
        if let Some(node) = objects.node_at(self.other) {
            return Some(&node.name);
        }
        objects
            .pods
            .iter()
            .find(|p| p.host_network && !p.is_finished() && p.ips.contains(&self.other))
            .and_then(|p| p.node.as_deref())
    }

    /// Why a rule does not admit the connection; `None` = it does.
    fn miss(&self, policy: &NetworkPolicy, index: usize, rule: &PolicyRule) -> Option<RuleMiss> {
        let peer = self.peers_miss(policy, &rule.peers);
        let port = self.ports_miss(&rule.ports);
        (peer.is_some() || port.is_some()).then_some(RuleMiss {
            rule: index,
            peer,
            port,
        })
    }

    /// The smallest miss over the peers of a rule; `None` = one admits, or the rule names none and so admits all.
    fn peers_miss(&self, policy: &NetworkPolicy, peers: &[PolicyPeer]) -> Option<PeerMiss> {
        let mut nearest: Option<PeerMiss> = None;
        for peer in peers {
            let miss = match peer {
                PolicyPeer::Pods { pods, namespaces } => {
                    self.pods_miss(policy, pods.as_ref(), namespaces.as_ref())
                }
                PolicyPeer::Block { cidr, except } => self.block_miss(*cidr, except),
            }?;
            if nearest
                .as_ref()
                .is_none_or(|n| miss.distance() < n.distance())
            {
                nearest = Some(miss);
            }
        }
        nearest
    }

    fn pods_miss(
        &self,
        policy: &NetworkPolicy,
        pods: Option<&Selector>,
        namespaces: Option<&Selector>,
    ) -> Option<PeerMiss> {
        let Some(peer) = self.peer else {
            return Some(PeerMiss::NotAPod {
                ip: self.other,
                node: self.other_node().map(ToOwned::to_owned),
            });
        };
        let on_pod = pods
            .map(|s| selector::misses(s, &peer.labels))
            .unwrap_or_default();
        let on_namespace = namespaces
            .map(|s| selector::misses(s, &self.peer_namespace))
            .unwrap_or_default();
        let other_namespace =
            (namespaces.is_none() && peer.namespace != policy.namespace).then(|| OtherNamespace {
                wanted: policy.namespace.clone(),
                found: peer.namespace.to_string(),
            });
        let admitted = on_pod.is_empty() && on_namespace.is_empty() && other_namespace.is_none();
        (!admitted).then(|| PeerMiss::Labels {
            pod: format!("{}/{}", peer.namespace, peer.name),
            on_pod,
            on_namespace,
            other_namespace,
        })
    }

    fn block_miss(&self, block: cidr::Cidr, except: &[cidr::Cidr]) -> Option<PeerMiss> {
        let ip = self.other;
        if !cidr::contains(block, ip) {
            return Some(PeerMiss::OutsideBlock { ip, block });
        }
        let except = except.iter().find(|e| cidr::contains(**e, ip))?;
        Some(PeerMiss::Excepted {
            ip,
            block,
            except: *except,
        })
    }

    /// Why no port of a rule admits the connection; `None` = one does, or the rule names none and so admits all.
    fn ports_miss(&self, ports: &[PolicyPort]) -> Option<PortMiss> {
        if ports.is_empty() || ports.iter().any(|p| self.admits(p)) {
            return None;
        }
        let unresolved = ports
            .iter()
            .filter_map(|p| match &p.port {
                Some(TargetPort::Name(name)) if self.numbers(name, p.proto).next().is_none() => {
                    Some(name.clone())
                }
                _ => None,
            })
            .collect();
        Some(PortMiss {
            proto: self.proto,
            port: self.port,
            admitted: ports.to_vec(),
            unresolved,
        })
    }

    fn admits(&self, admitted: &PolicyPort) -> bool {
        admitted.proto == self.proto
            && match (&admitted.port, admitted.end_port) {
                (None, _) => true,
                (Some(TargetPort::Number(from)), Some(to)) => (*from..=to).contains(&self.port),
                (Some(TargetPort::Number(number)), None) => *number == self.port,
                (Some(TargetPort::Name(name)), _) => {
                    self.numbers(name, self.proto).any(|n| n == self.port)
                }
            }
    }

    /// Numbers that the destination Pod gives to a port name.
    fn numbers(&self, name: &str, proto: Proto) -> impl Iterator<Item = u16> {
        self.destination
            .into_iter()
            .flat_map(|p| &p.ports)
            .filter(move |p| p.name == name && p.proto == proto)
            .map(|p| p.port)
    }
}

#[cfg(test)]
mod tests;
