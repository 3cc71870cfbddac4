//! Node.

use super::{Invalid, Subject, labels};
use crate::model::cidr;
use crate::model::objects::Node;
use k8s_openapi::api::core::v1;

/// Reduces a Node.
pub fn node(mut object: v1::Node) -> Result<Node, Invalid> {
    let subject = Subject::cluster("Node", &mut object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let internal = addresses.iter().filter(|a| a.type_ == "InternalIP");
    let external = addresses.iter().filter(|a| a.type_ == "ExternalIP");
    let pod_cidrs = match spec.pod_cidrs {
        Some(cidrs) if !cidrs.is_empty() => cidrs,
        _ => spec
            .pod_cidr
            .into_iter()
            .filter(|c| !c.is_empty())
            .collect(),
    };
    Ok(Node {
        internal_ips: subject.ips("status.addresses", internal.map(|a| &a.address))?,
        other_ips: subject.ips("status.addresses", external.map(|a| &a.address))?,
        pod_cidrs: pod_cidrs
            .iter()
            .map(|c| {
                cidr::parse(c).ok_or_else(|| {
                    subject.invalid("spec.podCIDRs", format!("{c:?} is not a network"))
                })
            })
            .collect::<Result<_, _>>()?,
        ready: conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .map(|c| c.status == "True"),
        network_unavailable: conditions
            .into_iter()
            .find(|c| c.type_ == "NetworkUnavailable" && c.status == "True")
            .map(|c| c.reason.unwrap_or_default()),
        labels: labels(object.metadata.labels),
        name: subject.name,
    })
}
