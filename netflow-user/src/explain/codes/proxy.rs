//! Rules of the Service proxy and conntrack.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

const PROXY_PODS: CheckStep = CheckStep {
    text: "The proxy of that node: running, ready, restarts",
    command: "kubectl get pods -n kube-system -o wide --field-selector spec.nodeName={client_node}",
};

const PROXY_LOGS: CheckStep = CheckStep {
    text: "Errors of kube-proxy while it writes rules",
    command: "kubectl logs -n kube-system -l k8s-app=kube-proxy --tail=100 --prefix",
};

const CONNTRACK: CheckStep = CheckStep {
    text: "On the node: where conntrack sends these connections (dst of the second tuple's src)",
    command: "conntrack -L -p {l4} --orig-dst {vip}",
};

const RULES: CheckStep = CheckStep {
    text: "On the node: the rules for this address, in whichever of the two the proxy writes",
    command: "(iptables-save -t nat; ip6tables-save -t nat; nft list ruleset) | grep -F '{ns}/{svc}'",
};

pub(super) static VIP_NOT_TRANSLATED: Code = Code {
    code: "vip-not-translated",
    title: "The Service address is not translated",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "Packets to the Service address pass the node with their destination unchanged: no rule of a Service proxy \
              took them. kube-proxy is not running, has not synced, or its rules were removed. The network beyond does \
              not know the address, so nothing comes back.",
    looked_at: "Packets to the Service address at each interface of the node, their conntrack entries, and the proxy \
                rules for the address.",
    check: &[PROXY_PODS, RULES, PROXY_LOGS],
    mitigate: &[FixStep {
        text: "Restart the proxy on that node so that it writes its rules anew",
        command: "kubectl delete pod -n kube-system -l k8s-app=kube-proxy --field-selector spec.nodeName={client_node}",
        changes: Changes::Cluster,
    }],
    confusable: &[
        "service-port-undefined",
        "protocol-mismatch",
        "proxy-rules-stale",
    ],
};

pub(super) static PROXY_RULES_STALE: Code = Code {
    code: "proxy-rules-stale",
    title: "Proxy rules name a backend that is gone",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "The node's rules still send new connections to an address that is no longer an endpoint of the Service. The \
              proxy does not follow the EndpointSlices: it hangs, lacks its connection to the API server, or fails to \
              write.",
    looked_at: "The backend chosen for new connections, the EndpointSlices at that time, the current proxy rules.",
    check: &[
        CheckStep {
            text: "The addresses that the Service stands for now",
            command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o wide",
        },
        RULES,
        PROXY_PODS,
        PROXY_LOGS,
    ],
    mitigate: &[FixStep {
        text: "Restart the proxy on that node so that it reads the EndpointSlices anew",
        command: "kubectl delete pod -n kube-system -l k8s-app=kube-proxy --field-selector spec.nodeName={client_node}",
        changes: Changes::Cluster,
    }],
    confusable: &[
        "proxy-sync-lag",
        "backend-gone",
        "one-bad-endpoint",
        "vip-not-translated",
    ],
};

pub(super) static PROXY_SYNC_LAG: Code = Code {
    code: "proxy-sync-lag",
    title: "The proxy follows the EndpointSlices late",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "The EndpointSlices changed, and more than 3 s later the node's rules still sent new connections to an endpoint \
              that had left, or turned them away though there was one. kube-proxy writes rules once per second at most \
              (minSyncPeriod), so it is overloaded, writes too many rules, was set to a longer period, or hears late of \
              changes. Pods that stop before the proxies have followed lose connections meanwhile.",
    looked_at: "When the EndpointSlices changed while we looked, which backend new connections got after that, and the rules \
                as they were read last. Rules that are 30 s behind (syncPeriod, after which kube-proxy tries again) do not \
                follow at all, which is another code. Where no connection failed for it, it is a warning.",
    check: &[
        CheckStep {
            text: "How long writing rules takes, and how long after a change (on the node)",
            command: "curl -s http://127.0.0.1:10249/metrics | grep -E 'kubeproxy_(sync_proxy_rules|network_programming)_duration_seconds_(sum|count)'",
        },
        CheckStep {
            text: "minSyncPeriod as it is set; empty or 0s stands for 1 s",
            command: "kubectl get configmap kube-proxy -n kube-system -o yaml | grep -i syncPeriod",
        },
        PROXY_PODS,
        PROXY_LOGS,
    ],
    mitigate: &[
        FixStep {
            text: "Let Pods serve on for some seconds after they were told to end (a preStop hook that sleeps), until the proxies have followed",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Give kube-proxy the processor time it lacks, a shorter minSyncPeriod, or the nftables mode, which writes only what changed",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &[
        "proxy-rules-stale",
        "proxy-unhealthy",
        "terminating-backend",
    ],
};

pub(super) static BACKEND_GONE: Code = Code {
    code: "backend-gone",
    title: "The chosen endpoint does not exist any more",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Proxy,
    meaning: "Objects and rules still name an endpoint whose Pod no longer exists: no Pod of that address is on its node. \
              Connections to it time out or end in host unreachable.",
    looked_at: "Packets to the endpoint and what came back, neighbour entries and interfaces of its node, the Pod objects.",
    check: &[
        CheckStep {
            text: "Who has the address now",
            command: "kubectl get pods -A -o wide --field-selector status.podIP={pod_ip}",
        },
        CheckStep {
            text: "The addresses that the Service stands for",
            command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o wide",
        },
        CheckStep {
            text: "On the Pod's node: FAILED or INCOMPLETE means that nobody answers for it",
            command: "ip neigh show {pod_ip}",
        },
        CONNTRACK,
    ],
    mitigate: &[
        FixStep {
            text: "Look at the Pod's node: if it is well and has no such Pod, the Pod object stands for nothing and can be deleted",
            command: "kubectl get node {node} -o wide",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "For a Service without selector: correct its EndpointSlice",
            command: "kubectl edit -n {ns} $(kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o name)",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["proxy-rules-stale", "lost-beyond-node", "one-bad-endpoint"],
};

pub(super) static ETP_LOCAL_NO_ENDPOINT: Code = Code {
    code: "etp-local-no-endpoint",
    title: "externalTrafficPolicy: Local, and the node has no endpoint",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "Traffic from outside came to a node that has no endpoint of the Service, and externalTrafficPolicy: Local \
              lets the node use no other. Its proxy drops the packets without an answer, so that a load balancer tries \
              another node; who dials the node itself waits in vain.",
    looked_at: "Packets from outside to the node, what the node did with them, where the Service's endpoints are placed.",
    check: &[
        CheckStep {
            text: "The policy, and the port on which load balancers ask whether a node has endpoints",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.externalTrafficPolicy} {.spec.healthCheckNodePort}'",
        },
        CheckStep {
            text: "The nodes that have endpoints",
            command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o wide",
        },
        RULES,
    ],
    mitigate: &[
        FixStep {
            text: "Dial nodes that have endpoints; let the load balancer ask healthCheckNodePort",
            command: "",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "Give every node that is dialled an endpoint (a DaemonSet, or topology spread constraints)",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Let every node serve; the Pods then see the node's address instead of the client's",
            command: "kubectl patch svc {svc} -n {ns} -p '{\"spec\":{\"externalTrafficPolicy\":\"Cluster\"}}'",
            changes: Changes::Cluster,
        },
    ],
    confusable: &[
        "firewall-drop",
        "vip-not-translated",
        "no-endpoints-not-ready",
    ],
};
