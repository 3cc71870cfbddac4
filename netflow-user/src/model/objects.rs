//! Kubernetes objects, reduced to what explains a connection. No annotation, environment value or credential is kept.

use super::list::List;
use super::shared::{Map, Name, Shared};
use super::{Proto, Time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Labels of an object.
pub type Labels = Map<Name>;

/// All objects as one source gave them at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Objects {
    /// When they were read.
    pub time: Time,
    /// From where, for the reader (`manifests: a.yaml, b.yaml`).
    pub source: String,
    /// Services.
    pub services: List<Service>,
    /// EndpointSlices; legacy Endpoints objects are turned into slices where no slice of the Service exists.
    pub slices: List<EndpointSlice>,
    /// Pods.
    pub pods: List<Pod>,
    /// Nodes.
    pub nodes: List<Node>,
    /// Namespaces.
    pub namespaces: List<Namespace>,
    /// `NetworkPolicies`.
    pub policies: List<NetworkPolicy>,
    /// Kinds of which this source could hold none because it cannot know them (for example a missing right).
    #[serde(default)]
    pub unknown_kinds: Vec<String>,
    /// Kinds of which the source may read a part only, or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// The source does not answer any more: everything, or a kind, is as it was then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<Away>,
}

/// Of a kind not all objects may be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limit {
    /// Kind.
    pub kind: String,
    /// Namespaces that are read; empty: none.
    pub namespaces: Vec<String>,
    /// Why no more, in the API's words.
    pub why: String,
}

/// A source that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Away {
    /// The kind that it does not tell of; empty: it tells nothing.
    #[serde(default)]
    pub kind: String,
    /// Since when.
    pub since: Time,
    /// Why.
    pub why: String,
}

/// A Service.
#[expect(
    clippy::struct_excessive_bools,
    reason = "as many yes-or-no fields as the Service has in Kubernetes"
)]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    pub kind: String,
    /// Cluster addresses; empty for a headless Service or `ExternalName`.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    #[serde(default)]
    pub headless: bool,
    /// `externalIPs`.
    #[serde(default)]
    pub external_ips: Vec<IpAddr>,
    /// Load-balancer addresses whose `ipMode` is VIP (or not said).
    #[serde(default)]
    pub lb_ips: Vec<IpAddr>,
    /// What is known of its load balancer; `None` = it is of another type, or its status was not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Selector; `None` = none (endpoints are somebody else's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Labels>,
    /// `internalTrafficPolicy` is Local.
    #[serde(default)]
    pub internal_local: bool,
    /// `externalTrafficPolicy` is Local.
    #[serde(default)]
    pub external_local: bool,
    /// `publishNotReadyAddresses`.
    #[serde(default)]
    pub publish_not_ready: bool,
    /// Session affinity `ClientIP` timeout, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_secs: Option<u32>,
    /// `externalName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
}

/// The load balancer of a Service of type `LoadBalancer`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// `loadBalancerClass`; `None` = the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// An address or a name was assigned, of whatever kind.
    pub assigned: bool,
}

/// `targetPort` of a Service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// A number (also the default: the Service port itself).
    Number(u16),
    /// A name, resolved per Pod.
    Name(String),
}

impl fmt::Display for TargetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetPort::Number(number) => number.fmt(f),
            TargetPort::Name(name) => name.fmt(f),
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name, empty if none.
    #[serde(default)]
    pub name: String,
    /// Protocol.
    pub proto: Proto,
    /// Port on the VIP.
    pub port: u16,
    /// Port on the Pod.
    pub target: TargetPort,
    /// NodePort, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// Service it belongs to (label `kubernetes.io/service-name`).
    pub service: Name,
    /// The endpoint slice controller writes it (label `endpointslice.kubernetes.io/managed-by`), so that it follows Pods.
    #[serde(default)]
    pub by_controller: bool,
    /// Ports; `None` port = all.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// Name of the Service port it serves, empty if none.
    #[serde(default)]
    pub name: String,
    /// Protocol.
    pub proto: Proto,
    /// Port number on the endpoints; `None` = unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// Addresses (the first counts).
    pub addresses: Vec<IpAddr>,
    /// Condition ready (absent = true).
    pub ready: bool,
    /// Condition serving (absent = as ready).
    pub serving: bool,
    /// Condition terminating.
    pub terminating: bool,
    /// `targetRef` Pod name, same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Name>,
    /// `nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Zone hints (`hints.forZones`).
    #[serde(default)]
    pub zones: Shared<Name>,
    /// Node hints (`hints.forNodes`).
    #[serde(default)]
    pub node_hints: Shared<Name>,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// Labels.
    pub labels: Labels,
    /// Addresses (`status.podIPs`).
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Shares the node's network.
    #[serde(default)]
    pub host_network: bool,
    /// `status.phase`.
    #[serde(default)]
    pub phase: Name,
    /// Conditions: type → (status is True, reason or message).
    #[serde(default)]
    pub conditions: Map<Condition>,
    /// Being deleted.
    #[serde(default)]
    pub deleting: bool,
    /// Names of the containers that run side by side; empty if not told.
    #[serde(default)]
    pub containers: Shared<Name>,
    /// Declared container ports.
    #[serde(default)]
    pub ports: Shared<ContainerPort>,
    /// Containers that are not ready, with the waiting/terminated reason.
    #[serde(default)]
    pub unready_containers: Shared<(Name, Name)>,
    /// Kind and name of the controlling owner (`ReplicaSet/web-7d4b9`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
}

impl Pod {
    /// The Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.conditions.get("Ready").is_some_and(|c| c.status)
    }
}

/// A Pod condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Condition {
    /// Status is `True`.
    pub status: bool,
    /// Reason and message, joined.
    #[serde(default)]
    pub reason: Name,
}

/// A port that a Pod's container declares.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Container name.
    pub container: Name,
    /// Port name, empty if none.
    #[serde(default)]
    pub name: Name,
    /// Number.
    pub port: u16,
    /// Protocol.
    pub proto: Proto,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Name.
    pub name: String,
    /// `InternalIP` addresses.
    pub internal_ips: Vec<IpAddr>,
    /// Other addresses.
    #[serde(default)]
    pub other_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    #[serde(default)]
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// Condition Ready; `None` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Condition `NetworkUnavailable` is True, and why; `None` = it is not, or was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_unavailable: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Which Pods it selects.
    pub pod_selector: Selector,
    /// Ingress rules, `None` = the policy does not restrict ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<PolicyRule>>,
    /// Egress rules, `None` = the policy does not restrict egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<PolicyRule>>,
}

/// A label selector. Empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// Exact labels.
    #[serde(default)]
    pub labels: Labels,
    /// Expressions, all of which must hold.
    #[serde(default)]
    pub expressions: Vec<Requirement>,
}

/// One expression of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values.
    #[serde(default)]
    pub values: Vec<String>,
}

/// An ingress or egress rule. Empty `peers` admits every peer, empty `ports` every port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Peers.
    #[serde(default)]
    pub peers: Vec<PolicyPeer>,
    /// Ports.
    #[serde(default)]
    pub ports: Vec<PolicyPort>,
}

/// A peer of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyPeer {
    /// Pods by labels; `namespaces` `None` = the policy's own namespace.
    Pods {
        /// Pod selector; `None` = all Pods of the namespaces.
        pods: Option<Selector>,
        /// Namespace selector.
        namespaces: Option<Selector>,
    },
    /// Addresses.
    Block {
        /// Network.
        cidr: (IpAddr, u8),
        /// Exceptions.
        except: Vec<(IpAddr, u8)>,
    },
}

/// A port of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPort {
    /// Protocol.
    pub proto: Proto,
    /// Port number or container port name; `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<TargetPort>,
    /// End of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}
