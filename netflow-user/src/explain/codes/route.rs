//! Routes, overlays, MTU, and the way between nodes.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

pub(super) static MTU_BLACKHOLE: Code = Code {
    code: "mtu-blackhole",
    title: "Big packets vanish on the way",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Connections are set up and small messages pass, but full-size packets disappear and the sender is not told \
              (or does not heed) the smaller MTU of the path. Transfers hang after the handshake. Typical of an overlay \
              whose header does not fit, with ICMP filtered.",
    looked_at: "Handshakes that succeed while full-size segments are retransmitted, sizes that do pass, ICMP \
                fragmentation-needed seen and PMTU learned, MTU of each link on the way.",
    check: &[
        CheckStep {
            text: "From the sender: the largest payload that passes unfragmented, plus 28 bytes of headers, is the path MTU (IPv4)",
            command: "ping -M do -c 3 -s {payload} {pod_ip}",
        },
        CheckStep {
            text: "MTU of each link, on both nodes; an overlay must be smaller than its underlay by its header",
            command: "ip -d link show",
        },
        CheckStep {
            text: "On the sender: what PMTU it has learned, if any",
            command: "ip route get {pod_ip}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Let ICMP type 3 code 4 (ICMPv6 type 2) through every filter on the path",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Set the network plugin's MTU to what the smallest link carries, less its overlay header; Pods take it over when they are made anew",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["lost-beyond-node", "pmtu-learned", "firewall-drop"],
};

pub(super) static PMTU_LEARNED: Code = Code {
    code: "pmtu-learned",
    title: "A smaller path MTU was learned and used",
    severity: Severity::Info,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A router said that packets were too big, and the sender made them smaller: path MTU discovery works. Each \
              new destination loses its first big packet to it.",
    looked_at: "ICMP fragmentation-needed (ICMPv6 packet-too-big) that quotes one of these connections, the size sent \
                afterwards.",
    check: &[CheckStep {
        text: "On the sender: the learned MTU and when it expires",
        command: "ip route get {pod_ip}",
    }],
    mitigate: &[FixStep {
        text: "Nothing is broken; with one MTU on all links (overlay header included) the loss at each start goes away",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["mtu-blackhole"],
};

pub(super) static LOST_BEYOND_NODE: Code = Code {
    code: "lost-beyond-node",
    title: "Packets left this node and nothing came back",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The packets were translated and left this node on an uplink; nothing here dropped them and no answer came \
              in. The cause is on the way or on the other node, which was not asked.",
    looked_at: "The packets at each interface of this node, drops here, answers on the uplink.",
    check: &[
        CheckStep {
            text: "Ask the backend's node",
            command: "netflow explain --standalone --svc {ns}/{svc} --manifests OBJECTS.yaml --record {node}.nfr  # on {node}",
        },
        CheckStep {
            text: "Both recordings together are one path",
            command: "netflow explain --replay {client_node}.nfr {node}.nfr",
        },
        CheckStep {
            text: "Whether the backend's node is well",
            command: "kubectl get node {node} -o wide",
        },
        CheckStep {
            text: "The network plugin's Pods on both nodes",
            command: "kubectl get pods -n kube-system -o wide",
        },
    ],
    mitigate: &[FixStep {
        text: "Run netflow on the backend's node too; the cause shows there",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["never-arrived", "backend-gone", "mtu-blackhole"],
};

pub(super) static NEVER_ARRIVED: Code = Code {
    code: "never-arrived",
    title: "The client's packets never reached this node",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Asked on the backend's node: attempts are known from the other side, but none of their packets came in on \
              this node. They were lost before it.",
    looked_at: "The attempts as the client's node saw them, and all interfaces of this node.",
    check: &[
        CheckStep {
            text: "Routes from the client's node to the Pod (on that node)",
            command: "ip route get {pod_ip}",
        },
        CheckStep {
            text: "Whether the network plugin runs on both nodes",
            command: "kubectl get pods -n kube-system -o wide",
        },
    ],
    mitigate: &[FixStep {
        text: "Look between the nodes: security groups, firewalls, routes for the Pod range, tunnel ports of the overlay",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["lost-beyond-node", "firewall-drop"],
};
