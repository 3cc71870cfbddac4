//! Pod.

use super::{Invalid, Subject, labels};
use crate::model::objects::{Condition, ContainerPort, Pod};
use crate::model::shared::{Name, Shared};
use k8s_openapi::api::core::v1;
use std::net::IpAddr;

/// Reduces a Pod.
pub fn pod(mut object: v1::Pod) -> Result<Pod, Invalid> {
    let subject = Subject::namespaced("Pod", &mut object.metadata)?;
    let meta = object.metadata;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    Ok(Pod {
        labels: labels(meta.labels),
        ips: ips(&subject, &status)?,
        node: node(&spec),
        host_network: spec.host_network.unwrap_or(false),
        deleting: meta.deletion_timestamp.is_some(),
        containers: running(&spec).map(|c| c.name.as_str().into()).collect(),
        ports: ports(&subject, &spec)?,
        unready_containers: unready(&status),
        phase: status.phase.unwrap_or_default().into(),
        conditions: status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|c| (c.type_.clone(), condition(c)))
            .collect(),
        owner: meta
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|o| o.controller == Some(true))
            .map(|o| format!("{}/{}", o.kind, o.name).into()),
        namespace: subject.namespace.into(),
        name: subject.name.into(),
    })
}

fn node(spec: &v1::PodSpec) -> Option<Name> {
    let name = spec.node_name.as_deref();
    name.filter(|n| !n.is_empty()).map(Into::into)
}

fn ips(subject: &Subject, status: &v1::PodStatus) -> Result<Vec<IpAddr>, Invalid> {
    match &status.pod_ips {
        Some(ips) if !ips.is_empty() => subject.ips("status.podIPs", ips.iter().map(|i| &i.ip)),
        _ => subject.ips("status.podIP", &status.pod_ip),
    }
}

/// Containers, and init containers that keep running beside them.
fn running(spec: &v1::PodSpec) -> impl Iterator<Item = &v1::Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

fn ports(subject: &Subject, spec: &v1::PodSpec) -> Result<Shared<ContainerPort>, Invalid> {
    let mut ports = Vec::new();
    for container in running(spec) {
        for port in container.ports.iter().flatten() {
            ports.push(ContainerPort {
                container: container.name.as_str().into(),
                name: port.name.as_deref().unwrap_or_default().into(),
                port: subject.port("spec.containers.ports.containerPort", port.container_port)?,
                proto: subject.proto("spec.containers.ports.protocol", port.protocol.as_deref())?,
            });
        }
    }
    Ok(ports.into())
}

fn condition(condition: v1::PodCondition) -> Condition {
    let parts = [condition.reason, condition.message];
    let parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .filter(|p| !p.is_empty())
        .collect();
    Condition {
        status: condition.status == "True",
        reason: parts.join(": ").into(),
    }
}

/// Containers that are not ready and why; init containers that did their work are done, not unready.
fn unready(status: &v1::PodStatus) -> Shared<(Name, Name)> {
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    init.filter(|c| !completed(c))
        .chain(main)
        .filter(|c| !c.ready)
        .map(|c| (c.name.as_str().into(), reason(c).into()))
        .collect()
}

fn completed(container: &v1::ContainerStatus) -> bool {
    let terminated = container.state.as_ref().and_then(|s| s.terminated.as_ref());
    terminated.is_some_and(|t| t.exit_code == 0)
}

fn reason(container: &v1::ContainerStatus) -> String {
    let state = container.state.clone().unwrap_or_default();
    let given = match (state.waiting, state.terminated) {
        (Some(waiting), _) => waiting.reason,
        (None, Some(terminated)) => terminated.reason,
        (None, None) => None,
    };
    match (given, state.running) {
        (Some(reason), _) => reason,
        (None, Some(_)) => "running, readiness probe not passed".into(),
        (None, None) => "not started".into(),
    }
}
