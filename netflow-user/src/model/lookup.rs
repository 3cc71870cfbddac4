//! Finding one object among all.

use super::objects::{EndpointSlice, Labels, Node, Objects, Pod, Service};
use std::net::IpAddr;

/// Label that the API server gives every Namespace, with its name as value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Objects {
    /// A Service by name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services
            .iter()
            .find(|s| s.namespace == namespace && s.name == name)
    }

    /// The Service that has a cluster, external or load-balancer address.
    pub fn service_at(&self, ip: IpAddr) -> Option<&Service> {
        self.services
            .iter()
            .find(|s| s.addresses().any(|a| a == ip))
    }

    /// A Pod by name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods
            .iter()
            .find(|p| p.namespace == namespace && p.name == name)
    }

    /// The Pod that holds an address of its own: neither one on the node's network, nor a finished one.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Pod> {
        let holders = self.pods.iter().filter(|p| p.holds(ip));
        holders.reduce(|best, p| if p.claim() > best.claim() { p } else { best })
    }

    /// A Node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// The Node that has an address.
    pub fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        self.nodes
            .iter()
            .find(|n| n.internal_ips.contains(&ip) || n.other_ips.contains(&ip))
    }

    /// Slices of a Service.
    pub fn slices_of(&self, service: &Service) -> impl Iterator<Item = &EndpointSlice> {
        self.slices
            .iter()
            .filter(|s| s.namespace == service.namespace && s.service == service.name)
    }

    /// Labels of a Namespace. One without an object still has its name as a label.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self
            .namespaces
            .iter()
            .find(|n| n.name == name)
            .map(|n| n.labels.clone())
            .unwrap_or_default();
        if labels.get(NAMESPACE_NAME_LABEL).is_none() {
            labels.insert(NAMESPACE_NAME_LABEL.into(), name.into());
        }
        labels
    }

    /// Whether the source could not tell which objects of this kind there are.
    pub fn is_unknown(&self, kind: &str) -> bool {
        self.unknown_kinds.iter().any(|k| k == kind)
    }
}

impl Service {
    /// Whether its selector matches a Pod of its namespace. An empty selector selects nothing here.
    pub fn selects(&self, pod: &Pod) -> bool {
        pod.namespace == self.namespace && self.selects_labels(&pod.labels)
    }

    /// Whether its selector matches labels.
    pub fn selects_labels(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|s| {
            !s.is_empty() && s.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    }

    /// Its cluster, external and load-balancer addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [&self.cluster_ips, &self.external_ips, &self.lb_ips]
            .into_iter()
            .flatten()
            .copied()
    }
}

impl Pod {
    /// It ran to its end; its status keeps an address that it gave back.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Which of two Pods that show the same address has it: the greater. One on a lost node stays in the API for a while.
    pub fn claim(&self) -> (bool, bool, bool) {
        (!self.host_network, !self.deleting, self.is_ready())
    }

    /// Belongs to a Deployment of its namespace.
    pub fn is_of_deployment(&self, name: &str) -> bool {
        self.owner
            .as_deref()
            .is_some_and(|o| is_of_deployment(o, name))
    }

    /// Has `ip` for itself.
    pub fn holds(&self, ip: IpAddr) -> bool {
        !self.host_network && !self.is_finished() && self.ips.contains(&ip)
    }
}

/// Whether the owner of a Pod (`ReplicaSet/web-7d4b9`) belongs to a Deployment: its `ReplicaSet` is named after it, with
/// a hash of the Pod template behind a dash.
pub fn is_of_deployment(owner: &str, deployment: &str) -> bool {
    let set = owner.strip_prefix("ReplicaSet/");
    set.and_then(|s| s.rsplit_once('-')).map(|(name, _)| name) == Some(deployment)
}
