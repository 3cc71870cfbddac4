//! `NetworkPolicy` and other filters.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

const DROPPING_RULES: &[CheckStep] = &[
    CheckStep {
        text: "On the node: dropping rules with counters (iptables)",
        command: "iptables-save -c | grep -E -e '-j (DROP|REJECT)' -e '^:.* DROP '",
    },
    CheckStep {
        text: "On the node: dropping rules with counters (nftables)",
        command: "nft list ruleset | grep -nE 'drop|reject'",
    },
];

const ADMIT: &[FixStep] = &[FixStep {
    text: "Admit this client and port in table {table}, chain {chain}, by whatever manages that firewall; a rule changed by hand returns with its owner's next sync",
    command: "",
    changes: Changes::Node,
}];

pub(super) static POLICY_DENIED_INGRESS: Code = Code {
    code: "policy-denied-ingress",
    title: "A NetworkPolicy does not admit the client",
    severity: Severity::Critical,
    hop: Hop::Policy,
    family: Family::Policy,
    meaning: "The backend Pod is selected by a NetworkPolicy for ingress, and no rule of any policy that selects it \
              admits this client on this port. The packets are dropped in front of the Pod.",
    looked_at: "The dropped packet as seen there (after translation), the policies that select the Pod, and which label \
                of the client's Pod or Namespace is missing for a rule to admit it.",
    check: &[
        CheckStep {
            text: "Policies of the backend's namespace",
            command: "kubectl get networkpolicy -n {ns}",
        },
        CheckStep {
            text: "Rules of the policy",
            command: "kubectl describe networkpolicy {policy} -n {ns}",
        },
        CheckStep {
            text: "Labels of the client Pod",
            command: "kubectl get pod {client} -n {client_ns} --show-labels",
        },
        CheckStep {
            text: "Labels of its namespace, which a namespaceSelector looks at",
            command: "kubectl get namespace {client_ns} --show-labels",
        },
    ],
    mitigate: &[FixStep {
        text: "If the client should be admitted: give it the label that a rule asks for, or add a rule for just this client and port",
        command: "kubectl edit networkpolicy {policy} -n {ns}",
        changes: Changes::Cluster,
    }],
    confusable: &["firewall-drop", "lost-beyond-node"],
};

pub(super) static FIREWALL_DROP: Code = Code {
    code: "firewall-drop",
    title: "A filter rule drops the packets",
    severity: Severity::Critical,
    hop: Hop::Policy,
    family: Family::Policy,
    meaning: "A rule of a host firewall (or of a network plugin) drops the packets, and no NetworkPolicy explains it. The \
              client sees a timeout.",
    looked_at: "Kernel drops by netfilter of this connection's own packets: hook and namespace; the rules that can drop \
                there, with their counters; the NetworkPolicies, which admit the client.",
    check: DROPPING_RULES,
    mitigate: ADMIT,
    confusable: &[
        "policy-denied-ingress",
        "firewall-reject",
        "lost-beyond-node",
    ],
};

pub(super) static FIREWALL_REJECT: Code = Code {
    code: "firewall-reject",
    title: "A filter rule refuses the packets",
    severity: Severity::Critical,
    hop: Hop::Policy,
    family: Family::Policy,
    meaning: "A rule of a host firewall (or of a network plugin) answers in place of the backend, with ICMP or a RST, and \
              no NetworkPolicy explains it. The client sees refused connections at once, and timeouts where ICMP is \
              limited in rate or where a RST to a bridged Pod is not translated back.",
    looked_at: "Kernel drops by netfilter of this connection's own packets, the ICMP error or RST that the same namespace \
                made for them, the rules that reject there with their counters.",
    check: DROPPING_RULES,
    mitigate: ADMIT,
    confusable: &["firewall-drop", "listener-missing", "no-endpoints-selector"],
};
