//! Kubernetes objects of a lab: the single source that proxy rules, policy rules and netflow's manifests come from.

use crate::lab::plan::{Plan, PodPlan, ServicePlan};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HostIP, Namespace, Node, NodeAddress, NodeCondition, NodeSpec,
    NodeStatus, ObjectReference, Pod, PodCondition, PodIP, PodSpec, PodStatus, Service,
    ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// All objects of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Services.
    pub services: Vec<Service>,
    /// `EndpointSlices`.
    pub slices: Vec<EndpointSlice>,
    /// `NetworkPolicies`.
    pub policies: Vec<NetworkPolicy>,
}

impl Objects {
    /// The objects of a healthy lab.
    pub fn of(plan: &Plan) -> Objects {
        let mut names: Vec<&str> = plan.pods().map(|p| p.namespace.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let backend_ports: Vec<u16> = plan.service.ports.iter().map(|p| p.target).collect();
        let second_ports: Vec<u16> = plan.second.ports.iter().map(|p| p.target).collect();
        let mut pods = vec![pod(plan, &plan.client, &[]), pod(plan, &plan.spare, &[])];
        pods.extend(plan.backends.iter().map(|p| pod(plan, p, &backend_ports)));
        pods.extend(plan.seconds.iter().map(|p| pod(plan, p, &second_ports)));
        let mut objects = Objects {
            namespaces: names.into_iter().map(namespace).collect(),
            nodes: (0..plan.nodes.len()).map(|n| node(plan, n)).collect(),
            pods,
            services: vec![
                service(plan, &plan.service, &plan.backends[0].label),
                service(plan, &plan.second, &plan.seconds[0].label),
            ],
            slices: Vec::new(),
            policies: Vec::new(),
        };
        objects.reconcile();
        objects
    }

    /// Writes the slices anew from Services and Pods, as the endpoint slice controller does.
    pub fn reconcile(&mut self) {
        self.slices = self
            .services
            .iter()
            .flat_map(|service| {
                let members: Vec<&Pod> = self
                    .pods
                    .iter()
                    .filter(|pod| selects(service, pod))
                    .collect();
                let families = service
                    .spec
                    .iter()
                    .flat_map(|s| s.ip_families.iter().flatten());
                families
                    .flat_map(|family| slices(service, family, &members))
                    .collect::<Vec<_>>()
            })
            .collect();
    }

    /// The Service of a plan.
    pub fn service_mut(&mut self, plan: &ServicePlan) -> Result<&mut Service> {
        self.services
            .iter_mut()
            .find(|s| is(&s.metadata, &plan.namespace, &plan.name))
            .with_context(|| format!("no Service {}/{}", plan.namespace, plan.name))
    }

    /// What is wanted of a plan's Service.
    pub fn spec_mut(&mut self, plan: &ServicePlan) -> Result<&mut ServiceSpec> {
        self.service_mut(plan)?.spec.as_mut().context("no spec")
    }

    /// The Pod of a plan.
    pub fn pod_mut(&mut self, plan: &PodPlan) -> Result<&mut Pod> {
        self.pods
            .iter_mut()
            .find(|p| is(&p.metadata, &plan.namespace, &plan.name))
            .with_context(|| format!("no Pod {}/{}", plan.namespace, plan.name))
    }

    /// The Node at an index, which is no longer Ready.
    pub fn node_down(&mut self, n: usize) {
        let status = self.nodes.get_mut(n).and_then(|n| n.status.as_mut());
        let conditions = status.and_then(|s| s.conditions.as_mut());
        for c in conditions.into_iter().flatten() {
            "Unknown".clone_into(&mut c.status);
            c.reason = Some("NodeStatusUnknown".to_owned());
        }
    }

    /// Every object as JSON, by kind.
    fn documents(&self) -> Result<Vec<(&'static str, Vec<Value>)>> {
        fn values<T: Serialize>(items: &[T]) -> Result<Vec<Value>> {
            items.iter().map(|i| Ok(serde_json::to_value(i)?)).collect()
        }
        Ok(vec![
            ("namespaces", values(&self.namespaces)?),
            ("nodes", values(&self.nodes)?),
            ("pods", values(&self.pods)?),
            ("services", values(&self.services)?),
            ("endpointslices", values(&self.slices)?),
            ("networkpolicies", values(&self.policies)?),
        ])
    }

    /// Writes the objects into `dir`, replacing what is there. `style` chooses among the forms that kubectl users
    /// have: several documents per file, one `List`, or one JSON file per kind.
    pub fn write(&self, dir: &Path, style: u32) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let documents = self.documents()?;
        match style {
            0 => {
                for (kind, items) in documents {
                    let parts: Vec<String> = items
                        .iter()
                        .map(serde_saphyr::to_string)
                        .collect::<Result<_, _>>()?;
                    fs::write(dir.join(format!("{kind}.yaml")), parts.join("\n---\n"))?;
                }
            }
            1 => {
                let all: Vec<Value> = documents.into_iter().flat_map(|(_, items)| items).collect();
                fs::write(
                    dir.join("cluster.yaml"),
                    serde_saphyr::to_string(&list(&all))?,
                )?;
            }
            _ => {
                for (kind, items) in documents {
                    let text = serde_json::to_string_pretty(&list(&items))?;
                    fs::write(dir.join(format!("{kind}.json")), text)?;
                }
            }
        }
        Ok(())
    }
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn is(meta: &ObjectMeta, namespace: &str, name: &str) -> bool {
    meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn namespace(name: &str) -> Namespace {
    let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([label])),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

fn node(plan: &Plan, n: usize) -> Node {
    let node = &plan.nodes[n];
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    let pods = plan.in_cluster_order(node.nets().map(|net| net.pods.to_string()));
    let own = node
        .nets()
        .map(|net| address("InternalIP", net.ip.to_string()));
    let mut addresses = plan.in_cluster_order(own);
    addresses.push(address("Hostname", node.name.clone()));
    Node {
        metadata: ObjectMeta {
            name: Some(node.name.clone()),
            labels: Some(BTreeMap::from([(
                "kubernetes.io/hostname".to_owned(),
                node.name.clone(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: pods.first().cloned(),
            pod_cidrs: Some(pods),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            addresses: Some(addresses),
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        }),
    }
}

fn pod(plan: &Plan, pod: &PodPlan, ports: &[u16]) -> Pod {
    let (kind, owner) = &pod.owner;
    let ips = plan.in_cluster_order(pod.ips().map(|ip| ip.to_string()));
    let host = plan.nodes[pod.node].nets();
    let host_ips = plan.in_cluster_order(host.map(|net| net.ip.to_string()));
    let container_ports = ports
        .iter()
        .map(|p| ContainerPort {
            container_port: i32::from(*p),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        })
        .collect();
    Pod {
        metadata: ObjectMeta {
            labels: Some(BTreeMap::from([
                pod.label.clone(),
                ("pod-template-hash".to_owned(), "7d4b9c".to_owned()),
            ])),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                controller: Some(true),
                kind: (*kind).to_owned(),
                name: owner.clone(),
                uid: format!("uid-{owner}"),
                ..OwnerReference::default()
            }]),
            ..meta(&pod.namespace, &pod.name)
        },
        spec: Some(PodSpec {
            node_name: Some(plan.nodes[pod.node].name.clone()),
            containers: vec![Container {
                name: pod.label.1.clone(),
                image: Some(format!("registry.example/{}:1", pod.label.1)),
                ports: Some(container_ports),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: ips.first().cloned(),
            pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
            host_ip: host_ips.first().cloned(),
            host_ips: Some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
            conditions: Some(
                ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
                    .map(condition)
                    .to_vec(),
            ),
            ..PodStatus::default()
        }),
    }
}

/// The Pod of a DaemonSet on the network of a node.
pub fn node_agent(plan: &Plan, n: usize, set: &str, container: &str) -> Pod {
    let node = &plan.nodes[n];
    let ips = plan.in_cluster_order(node.nets().map(|net| net.ip.to_string()));
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"];
    Pod {
        metadata: ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                controller: Some(true),
                kind: "DaemonSet".to_owned(),
                name: set.to_owned(),
                uid: format!("uid-{set}"),
                ..OwnerReference::default()
            }]),
            ..meta("kube-system", &format!("{set}-{n}"))
        },
        spec: Some(PodSpec {
            node_name: Some(node.name.clone()),
            host_network: Some(true),
            containers: vec![Container {
                name: container.to_owned(),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: ips.first().cloned(),
            pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
            conditions: Some(conditions.map(condition).to_vec()),
            ..PodStatus::default()
        }),
    }
}

fn condition(kind: &str) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        ..PodCondition::default()
    }
}

/// Makes a Pod unready for `reason`.
pub fn make_unready(pod: &mut Pod, reason: &str, message: &str) {
    let conditions = pod
        .status
        .iter_mut()
        .filter_map(|s| s.conditions.as_mut())
        .flatten();
    for c in conditions.filter(|c| matches!(c.type_.as_str(), "Ready" | "ContainersReady")) {
        "False".clone_into(&mut c.status);
        c.reason = Some(reason.to_owned());
        c.message = Some(message.to_owned());
    }
}

/// Marks a Pod as being deleted.
pub fn delete(pod: &mut Pod) -> Result<()> {
    let time = serde_json::from_value(json!("2026-03-01T08:12:44Z"))?;
    pod.metadata.deletion_timestamp = Some(time);
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .filter_map(|s| s.conditions.as_ref())
        .flatten();
    conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == "True")
}

fn service(plan: &Plan, service: &ServicePlan, label: &(String, String)) -> Service {
    let vips = plan.in_cluster_order(service.vips());
    let policy = ["SingleStack", "RequireDualStack"][vips.len() - 1];
    let ports = service
        .ports
        .iter()
        .map(|p| ServicePort {
            name: (!p.name.is_empty()).then(|| p.name.clone()),
            port: i32::from(p.port),
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::Int(i32::from(p.target))),
            ..ServicePort::default()
        })
        .collect();
    Service {
        metadata: meta(&service.namespace, &service.name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: vips.first().map(ToString::to_string),
            cluster_ips: Some(vips.iter().map(ToString::to_string).collect()),
            ip_families: Some(vips.iter().map(|ip| family(*ip).to_owned()).collect()),
            ip_family_policy: Some(policy.to_owned()),
            selector: Some(BTreeMap::from([label.clone()])),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else {
        return false;
    };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    pod.metadata.namespace == service.metadata.namespace
        && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// A port number of an object; 0, which nothing listens on, where it is out of range.
pub fn port_number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

/// Addresses of a Pod.
pub fn pod_ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

/// The family of an address, in the API's words.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A slice holds addresses of one family, and endpoints whose ports have the same numbers.
fn slices(service: &Service, family: &str, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let mut groups: Vec<(Vec<EndpointPort>, Vec<&Pod>)> = Vec::new();
    for pod in pods {
        let ports = endpoint_ports(service, pod);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, members)) => members.push(pod),
            None => groups.push((ports, vec![pod])),
        }
    }
    // A Service without endpoints has an empty slice.
    if groups.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    let groups = groups.into_iter().enumerate();
    groups
        .map(|(n, (ports, pods))| slice(service, family, n, ports, &pods))
        .collect()
}

fn slice(
    service: &Service,
    family: &str,
    n: usize,
    ports: Vec<EndpointPort>,
    pods: &[&Pod],
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let suffix = if family == "IPv4" { "x7k2p" } else { "q9w4z" };
    let suffix = if n == 0 {
        suffix.to_owned()
    } else {
        format!("{suffix}{n}")
    };
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: pods.iter().map(|p| endpoint(service, p, family)).collect(),
        metadata: ObjectMeta {
            labels: Some(BTreeMap::from([
                ("kubernetes.io/service-name".to_owned(), name.clone()),
                (
                    "endpointslice.kubernetes.io/managed-by".to_owned(),
                    "endpointslice-controller.k8s.io".to_owned(),
                ),
            ])),
            ..meta(&namespace, &format!("{name}-{suffix}"))
        },
        ports: Some(ports),
    }
}

/// Ports of a Service on a Pod: one whose name the Pod does not have is left out.
fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter_map(|p| {
            Some(EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                protocol: p.protocol.clone(),
                port: Some(target(pod, p)?),
                ..EndpointPort::default()
            })
        })
        .collect()
}

/// The port of a Pod that a Service port leads to.
fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(number)) => return Some(*number),
        None => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut declared = containers.flat_map(|c| c.ports.iter().flatten());
    declared
        .find(|c| c.name.as_ref() == Some(name) && c.protocol == port.protocol)
        .map(|c| c.container_port)
}

fn endpoint(service: &Service, pod: &Pod, of: &str) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = service.spec.as_ref();
    let published = spec.and_then(|s| s.publish_not_ready_addresses);
    let own = |ip: &IpAddr| family(*ip) == of;
    Endpoint {
        addresses: pod_ips(pod)
            .into_iter()
            .filter(own)
            .map(|ip| ip.to_string())
            .collect(),
        conditions: Some(EndpointConditions {
            ready: Some(published == Some(true) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::{Family, Network, Placement, Shape};

    fn shape(placement: Placement) -> Shape {
        Shape {
            placement,
            family: Family::Dual,
            network: Network::Veth,
        }
    }

    #[test]
    fn slices_hold_the_backends_and_their_readiness() -> Result<()> {
        let plan = Plan::draw(11, shape(Placement::Cross));
        let mut objects = Objects::of(&plan);
        make_unready(
            objects.pod_mut(&plan.backends[0])?,
            "ContainersNotReady",
            "probe failed",
        );
        objects.reconcile();
        let ready: Vec<Option<bool>> = objects.slices[0]
            .endpoints
            .iter()
            .map(|e| e.conditions.as_ref().and_then(|c| c.ready))
            .collect();
        assert_eq!(ready.len(), plan.backends.len());
        assert_eq!(ready[..2], [Some(false), Some(true)]);
        let types: Vec<&str> = objects.slices[..2]
            .iter()
            .map(|s| s.address_type.as_str())
            .collect();
        let families = plan.in_cluster_order(plan.service.vips().map(family));
        assert_eq!(types, families);
        Ok(())
    }

    #[test]
    fn yaml_says_the_same_as_the_objects() -> Result<()> {
        let objects = Objects::of(&Plan::draw(5, shape(Placement::Same)));
        for (_, items) in objects.documents()? {
            for item in items {
                let text = serde_saphyr::to_string(&item)?;
                let back: Value = serde_saphyr::from_str(&text)?;
                assert_eq!(back, item, "{text}");
            }
        }
        Ok(())
    }
}
