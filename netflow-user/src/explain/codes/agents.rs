//! What a node runs for its network.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

const PODS_OF_NODE: CheckStep = CheckStep {
    text: "What runs on the node, and in what state",
    command: "kubectl get pods -A -o wide --field-selector spec.nodeName={here}",
};

const SHOW_NODE: CheckStep = CheckStep {
    text: "Conditions, taints and events of the node",
    command: "kubectl describe node {here}",
};

pub(super) static PROXY_UNHEALTHY: Code = Code {
    code: "proxy-unhealthy",
    title: "The node's kube-proxy is not Ready or gone",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "kube-proxy on this node is not Ready, or other nodes have a Pod of it and this one has none. The rules that it \
              wrote before stay and go on translating; what changes after that, new Services, Pods that come and go, does \
              not reach this node. After a restart of the node there are no rules at all.",
    looked_at: "Pods of the host's network with a container kube-proxy, by node, and their conditions. A proxy that runs \
                outside of Pods, or is a part of a network plugin, is not seen. Objects alone prove nothing: what was seen \
                of packets goes first, and where attempts of this node pass or have another cause it is a warning.",
    check: &[
        PODS_OF_NODE,
        CheckStep {
            text: "Whether the rules on the node name today's endpoints",
            command: "nft list ruleset | grep -F '{vip}'; iptables-save | grep -F '{vip}'",
        },
        SHOW_NODE,
    ],
    mitigate: &[FixStep {
        text: "Look at why it does not run: its log and events, the node's taints, the image",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["vip-not-translated", "proxy-rules-stale", "proxy-sync-lag"],
};

pub(super) static CNI_UNHEALTHY: Code = Code {
    code: "cni-unhealthy",
    title: "The node's network plugin is not Ready or gone",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The network plugin's agent on this node is not Ready, or other nodes have a Pod of it and this one has none, or \
              the node's condition NetworkUnavailable is True. Pods that have a network keep it; routes, tunnels and \
              policies for what is new are not set up, and new Pods do not start.",
    looked_at: "The condition NetworkUnavailable of the client's and the backends' nodes; Pods of the host's network with a \
                container of a known plugin (Antrea, AWS VPC CNI, Calico, Cilium, flannel, kindnet, kube-router, \
                OVN-Kubernetes, Weave), by node, and their conditions. Objects alone prove nothing: what was seen of \
                packets goes first, and where attempts through this node pass or have another cause it is a warning.",
    check: &[PODS_OF_NODE, SHOW_NODE],
    mitigate: &[FixStep {
        text: "Look at why the agent does not run: its log and events, the node's taints, the image",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["no-route", "overlay-peer-lost", "backend-node-down"],
};
