//! Service.

use super::{Invalid, Subject, labels};
use crate::model::objects::{LoadBalancer, Service, ServicePort, TargetPort};
use k8s_openapi::api::core::v1;
use std::net::IpAddr;

/// Seconds of `ClientIP` affinity where none are given.
const AFFINITY_SECS: u32 = 10_800;

/// Reduces a Service.
pub fn service(mut object: v1::Service) -> Result<Service, Invalid> {
    let subject = Subject::namespaced("Service", &mut object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let kind = spec.type_.clone().unwrap_or_else(|| "ClusterIP".into());
    let cluster_ips = cluster_ips(&spec);
    let headless = cluster_ips.iter().any(|ip| *ip == "None");
    let status = object.status.filter(|_| kind == "LoadBalancer");
    let load_balancer = status.as_ref().map(|s| load_balancer(&spec, s));
    let lb_ips = lb_ips(&subject, status.unwrap_or_default())?;
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    Ok(Service {
        cluster_ips: if headless || kind == "ExternalName" {
            Vec::new()
        } else {
            subject.ips("spec.clusterIPs", cluster_ips)?
        },
        headless,
        external_ips: subject.ips("spec.externalIPs", spec.external_ips.iter().flatten())?,
        lb_ips,
        load_balancer,
        internal_local: local(&spec.internal_traffic_policy),
        external_local: local(&spec.external_traffic_policy),
        affinity_secs: affinity(&spec),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        ports: spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|p| port(&subject, p))
            .collect::<Result<_, _>>()?,
        // No controller looks for the endpoints of an ExternalName.
        selector: spec
            .selector
            .filter(|s| !s.is_empty() && kind != "ExternalName")
            .map(|s| s.into_iter().collect()),
        external_name: spec.external_name.filter(|_| kind == "ExternalName"),
        kind,
        labels: labels(object.metadata.labels),
        namespace: subject.namespace,
        name: subject.name,
    })
}

/// `clusterIPs`, or `clusterIP` where an object was written by hand.
fn cluster_ips(spec: &v1::ServiceSpec) -> Vec<&String> {
    match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.iter().collect(),
        _ => spec.cluster_ip.iter().collect(),
    }
}

/// Addresses that the node's proxy translates: with `ipMode: Proxy` the load balancer does it.
fn lb_ips(subject: &Subject, status: v1::ServiceStatus) -> Result<Vec<IpAddr>, Invalid> {
    let ingress = status.load_balancer.and_then(|lb| lb.ingress);
    ingress
        .unwrap_or_default()
        .iter()
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_deref().filter(|ip| !ip.is_empty()))
        .map(|ip| subject.ip("status.loadBalancer.ingress", ip))
        .collect()
}

fn load_balancer(spec: &v1::ServiceSpec, status: &v1::ServiceStatus) -> LoadBalancer {
    let balancer = status.load_balancer.as_ref();
    let ingress = balancer.and_then(|lb| lb.ingress.as_ref());
    LoadBalancer {
        class: spec.load_balancer_class.clone().filter(|c| !c.is_empty()),
        assigned: ingress.is_some_and(|all| !all.is_empty()),
    }
}

fn affinity(spec: &v1::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let secs = config
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds)
        .and_then(|s| u32::try_from(s).ok());
    Some(secs.unwrap_or(AFFINITY_SECS))
}

fn port(subject: &Subject, port: v1::ServicePort) -> Result<ServicePort, Invalid> {
    let number = subject.port("spec.ports.port", port.port)?;
    Ok(ServicePort {
        name: port.name.unwrap_or_default(),
        proto: subject.proto("spec.ports.protocol", port.protocol.as_deref())?,
        port: number,
        target: match port.target_port {
            Some(target) => subject.port_or_name("spec.ports.targetPort", target)?,
            None => TargetPort::Number(number),
        },
        node_port: match port.node_port {
            None | Some(0) => None,
            Some(number) => Some(subject.port("spec.ports.nodePort", number)?),
        },
    })
}
