//! Name resolution in the cluster.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

const RESOLVE: CheckStep = CheckStep {
    text: "Whether the client resolves any name of the cluster",
    command: "kubectl exec {client} -n {client_ns} -- nslookup kubernetes.default",
};

pub(super) static DNS_NO_ENDPOINTS: Code = Code {
    code: "dns-no-endpoints",
    title: "The cluster's DNS has no endpoint",
    severity: Severity::Critical,
    hop: Hop::Dns,
    family: Family::Dns,
    meaning: "Clients send their DNS queries to a Service that has no endpoint which may get traffic: the queries are \
              refused or dropped. Who cannot resolve the Service's name never dials its address, so nothing of it is seen \
              there.",
    looked_at: "Packets of the Service's clients to port 53 of other Services, what the node did with them, and the slices, \
                selector and Pods of those. Names are not read. It is critical only for clients that were named (--from), \
                got no answer from any DNS server and sent nothing to the Service; a warning for clients that reach the \
                Service all the same; info where it is not known whether they are its clients.",
    check: &[
        CheckStep {
            text: "The DNS Service and its endpoints: no address, or only such as are not ready",
            command: "kubectl get svc,endpointslices -n {ns} -l kubernetes.io/service-name={svc} -o wide",
        },
        CheckStep {
            text: "Its Pods: how many there are, and in what state",
            command: "kubectl get pods -n {ns} -l '{selector}' -o wide",
        },
        RESOLVE,
    ],
    mitigate: &[
        FixStep {
            text: "Bring its Pods back: look at why they are not ready, or at who scaled them to none",
            command: "kubectl describe pods -n {ns} -l '{selector}'",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "If the selector is wrong, correct it",
            command: "kubectl edit svc {svc} -n {ns}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["dns-timeout", "no-endpoints-not-ready"],
};

pub(super) static DNS_TIMEOUT: Code = Code {
    code: "dns-timeout",
    title: "The cluster's DNS does not answer",
    severity: Severity::Critical,
    hop: Hop::Dns,
    family: Family::Dns,
    meaning: "Clients send DNS queries to a Service that has endpoints for them, and get no answer: something drops or \
              refuses the queries or the answers, or the DNS server is stuck, overloaded or throttled. Who cannot resolve \
              the Service's name never dials its address. Where netflow sees what becomes of the queries, the summary says \
              so.",
    looked_at: "Packets of the Service's clients to port 53 of other Services and the answers to them, drops, and where the \
                node sent them on. Names and contents are not read, nor what the DNS server does. It is critical only for \
                clients that were named (--from), got no answer from any DNS server and sent nothing to the Service; a \
                warning for other clients of it; info where it is not known whether they are its clients.",
    check: &[
        RESOLVE,
        CheckStep {
            text: "What the DNS servers say, and whether they restart",
            command: "kubectl logs -n {ns} -l '{selector}' --tail=100 --prefix",
        },
        CheckStep {
            text: "Their CPU against its limit: one that is throttled answers late",
            command: "kubectl top pods -n {ns} -l '{selector}'",
        },
        CheckStep {
            text: "Policies that select the DNS servers or keep the client from port 53",
            command: "kubectl get networkpolicy -A",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Admit UDP and TCP port 53 from the clients to the DNS servers where a policy or filter drops it",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Give the DNS servers more replicas or CPU where they are short of it",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["dns-no-endpoints", "conntrack-clash", "lost-beyond-node"],
};
