//! What the type of a Service promises and does not.

use super::service::{SHOW_SERVICE, SHOW_SLICES};
use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

pub(super) static EXTERNAL_NAME_IS_DNS: Code = Code {
    code: "external-name-is-dns",
    title: "The Service is only a DNS name",
    severity: Severity::Info,
    hop: Hop::Dns,
    family: Family::Service,
    meaning: "A Service of type ExternalName is an alias (CNAME) in the cluster's DNS and nothing else: it has no address, \
              no endpoints and no proxy rules. Its ports and its selector change nothing, a client connects to the name's \
              own address and port, and HTTP and TLS see the name that the client used. That is no fault by itself; it is \
              critical where the name is an IP address, which DNS never resolves.",
    looked_at: "Type and externalName of the Service, its ports. What the name resolves to, and traffic to that, is not \
                looked at: it does not go through the Service.",
    check: &[
        SHOW_SERVICE,
        CheckStep {
            text: "What a client gets for the name: the alias, then the address behind it",
            command: "kubectl exec {client} -n {client_ns} -- nslookup {svc}.{ns}.svc.cluster.local",
        },
        CheckStep {
            text: "Whether the name behind it resolves by itself",
            command: "kubectl exec {client} -n {client_ns} -- nslookup {external_name}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Where clients need a cluster IP or other ports: make it a ClusterIP Service without selector, with an \
                   EndpointSlice that lists the addresses",
            command: "kubectl edit svc {svc} -n {ns}",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Where the server looks at host names: let clients use {external_name} itself",
            command: "",
            changes: Changes::Nothing,
        },
    ],
    confusable: &["service-not-found", "no-endpoints-selector"],
};

pub(super) static LOAD_BALANCER_PENDING: Code = Code {
    code: "load-balancer-pending",
    title: "No load balancer has given an address",
    severity: Severity::Warning,
    hop: Hop::Vip,
    family: Family::Service,
    meaning: "The Service is of type LoadBalancer and its status names no address: no controller has taken it up, or it \
              has not succeeded yet. With a loadBalancerClass only the controller of that class acts, all others leave the \
              Service alone. Clients outside have nothing to dial; the cluster IP and the node ports work without it.",
    looked_at: "status.loadBalancer and spec.loadBalancerClass of the Service. Why a controller has given no address is \
                not seen. It is critical where clients from outside were asked about and none was served.",
    check: &[
        CheckStep {
            text: "EXTERNAL-IP stays <pending>",
            command: "kubectl get svc {svc} -n {ns} -o wide",
        },
        CheckStep {
            text: "What the controller says of it; without any event none feels responsible",
            command: "kubectl describe svc {svc} -n {ns}",
        },
        CheckStep {
            text: "The class that it asks for",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.loadBalancerClass}'",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Install or repair the controller for that class, or raise its quota or address pool",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "A class cannot be changed later: create the Service anew without it, or with one that is served",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["etp-local-no-endpoint", "no-endpoints-selector"],
};

pub(super) static HEADLESS_NOT_READY: Code = Code {
    code: "headless-not-ready",
    title: "DNS leaves out Pods that are not ready",
    severity: Severity::Critical,
    hop: Hop::Dns,
    family: Family::Service,
    meaning: "A headless Service (clusterIP: None) is a DNS name for the addresses of its ready Pods. Where none is ready \
              the name does not resolve; where some are not, theirs are missing, and so are the names of their own that a \
              StatefulSet's Pods have. Peers that look each other up while starting may wait for each other.",
    looked_at: "Ready flags of the endpoints in the slices, and the conditions of their Pods. What DNS answered is not \
                read. It is a warning where some are ready, or where clients were served at an address that they knew.",
    check: &[
        SHOW_SLICES,
        CheckStep {
            text: "Addresses that DNS gives: one for each ready Pod",
            command: "kubectl exec {client} -n {client_ns} -- nslookup {svc}.{ns}.svc.cluster.local",
        },
        CheckStep {
            text: "Condition and events of a Pod that is not ready: which probe fails, and how",
            command: "kubectl describe pod {pod} -n {ns}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Find out why the readiness probe fails",
            command: "kubectl logs {pod} -n {ns} --tail=100",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "If peers must find each other before they are ready, and cope with one that does not answer yet: publish \
                   them",
            command: "kubectl patch svc {svc} -n {ns} -p '{\"spec\":{\"publishNotReadyAddresses\":true}}'",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["no-endpoints-not-ready", "no-endpoints-selector"],
};
