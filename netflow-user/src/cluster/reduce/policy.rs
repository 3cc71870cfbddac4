//! `NetworkPolicy`.

use super::{Invalid, Subject, labels};
use crate::model::cidr::{self, Cidr};
use crate::model::objects::{
    NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, Requirement, Selector,
};
use k8s_openapi::api::networking::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Reduces a NetworkPolicy. What it does not restrict is `None`: `policyTypes` decides, and where it is absent a policy
/// restricts ingress, and egress if it has rules for it.
pub fn policy(mut object: v1::NetworkPolicy) -> Result<NetworkPolicy, Invalid> {
    let subject = Subject::namespaced("NetworkPolicy", &mut object.metadata)?;
    let spec = object.spec.unwrap_or_default();
    let ingress = spec.ingress.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    let types = match spec.policy_types {
        Some(types) if !types.is_empty() => types,
        _ if egress.is_empty() => vec!["Ingress".into()],
        _ => vec!["Ingress".into(), "Egress".into()],
    };
    let restricts = |side: &str| types.iter().any(|t| t == side);
    Ok(NetworkPolicy {
        pod_selector: selector(spec.pod_selector.unwrap_or_default()),
        ingress: restricts("Ingress")
            .then(|| {
                let rules = ingress.into_iter();
                rules.map(|r| rule(&subject, r.from, r.ports)).collect()
            })
            .transpose()?,
        egress: restricts("Egress")
            .then(|| {
                let rules = egress.into_iter();
                rules.map(|r| rule(&subject, r.to, r.ports)).collect()
            })
            .transpose()?,
        namespace: subject.namespace,
        name: subject.name,
    })
}

fn rule(
    subject: &Subject,
    peers: Option<Vec<v1::NetworkPolicyPeer>>,
    ports: Option<Vec<v1::NetworkPolicyPort>>,
) -> Result<PolicyRule, Invalid> {
    let peers = peers.unwrap_or_default().into_iter();
    let ports = ports.unwrap_or_default().into_iter();
    Ok(PolicyRule {
        peers: peers.map(|p| peer(subject, p)).collect::<Result<_, _>>()?,
        ports: ports.map(|p| port(subject, p)).collect::<Result<_, _>>()?,
    })
}

fn peer(subject: &Subject, peer: v1::NetworkPolicyPeer) -> Result<PolicyPeer, Invalid> {
    match (peer.ip_block, peer.pod_selector, peer.namespace_selector) {
        (Some(block), None, None) => {
            let except = block.except.unwrap_or_default();
            Ok(PolicyPeer::Block {
                cidr: network(subject, &block.cidr)?,
                except: except
                    .iter()
                    .map(|e| network(subject, e))
                    .collect::<Result<_, _>>()?,
            })
        }
        (Some(_), _, _) => {
            Err(subject.invalid("peer", "an ipBlock stands alone, without selectors"))
        }
        (None, None, None) => Err(subject.invalid("peer", "names neither Pods nor an ipBlock")),
        (None, pods, namespaces) => Ok(PolicyPeer::Pods {
            pods: pods.map(selector),
            namespaces: namespaces.map(selector),
        }),
    }
}

fn port(subject: &Subject, port: v1::NetworkPolicyPort) -> Result<PolicyPort, Invalid> {
    Ok(PolicyPort {
        proto: subject.proto("ports.protocol", port.protocol.as_deref())?,
        port: port
            .port
            .map(|p| subject.port_or_name("ports.port", p))
            .transpose()?,
        end_port: port
            .end_port
            .map(|p| subject.port("ports.endPort", p))
            .transpose()?,
    })
}

fn network(subject: &Subject, text: &str) -> Result<Cidr, Invalid> {
    cidr::parse(text)
        .ok_or_else(|| subject.invalid("ipBlock", format!("{text:?} is not a network")))
}

fn selector(selector: LabelSelector) -> Selector {
    let expressions = selector.match_expressions.unwrap_or_default();
    Selector {
        labels: labels(selector.match_labels),
        expressions: expressions
            .into_iter()
            .map(|e| Requirement {
                key: e.key,
                operator: e.operator,
                values: e.values.unwrap_or_default(),
            })
            .collect(),
    }
}
