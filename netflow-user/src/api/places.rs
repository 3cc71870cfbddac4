//! Where the agents of a cluster are, and what they are asked with: what the objects of `deploy/base` and those who ask agree on.

/// The namespace of all of it.
pub const NAMESPACE: &str = "netflow";
/// What the agents' Pods are labelled with.
pub const LABEL: &str = "app.kubernetes.io/name=netflow";
/// The DaemonSet that they belong to.
pub const AGENT_SET: &str = "netflow-agent";
/// Where each listens, on the loopback interface of its node: a port-forward to the Pod gets there, nothing else on the network
/// does.
pub const PORT: u16 = 4271;
/// The name in the agents' certificate. They share one, whatever their nodes are called.
pub const AGENT_NAME: &str = "netflow-agent";
/// The Secret with the agents' certificate, and with the authority that signs those of clients.
pub const AGENT_SECRET: &str = "netflow-agent";
/// The Secret with a client's certificate, and with the authority that signed the agents'.
pub const CLIENT_SECRET: &str = "netflow-client";

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use serde_json::Value;

    #[test]
    fn the_agents_pods_are_found_where_they_are_looked_for() {
        let text = include_str!("../../../deploy/base/daemonset.yaml");
        let agents: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(agents["metadata"]["namespace"], NAMESPACE);
        let (key, value) = LABEL.split_once('=').unwrap();
        assert_eq!(agents["spec"]["template"]["metadata"]["labels"][key], value);
    }
}
