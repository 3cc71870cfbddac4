//! Services, endpoints and ports.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

pub(super) const SHOW_SERVICE: CheckStep = CheckStep {
    text: "The Service: type, cluster IP, ports, selector",
    command: "kubectl get svc {svc} -n {ns} -o wide",
};

pub(super) const SHOW_SLICES: CheckStep = CheckStep {
    text: "The addresses that the Service stands for now",
    command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o wide",
};

pub(super) static SERVICE_NOT_FOUND: Code = Code {
    code: "service-not-found",
    title: "No such Service",
    severity: Severity::Critical,
    hop: Hop::Vip,
    family: Family::Service,
    meaning: "The Service asked about is not among the objects: the name is mistyped, or it lives in another namespace. \
              A client that uses this name gets NXDOMAIN.",
    looked_at: "All Services and Namespaces of the object source; the nearest existing names are offered.",
    check: &[
        CheckStep {
            text: "Services of this name in any namespace",
            command: "kubectl get svc -A --field-selector metadata.name={svc}",
        },
        CheckStep {
            text: "What this namespace has",
            command: "kubectl get svc -n {ns}",
        },
    ],
    mitigate: &[FixStep {
        text: "Use the full name NAME.NAMESPACE.svc in the client, or create the Service",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["no-endpoints-selector", "service-port-undefined"],
};

pub(super) static SERVICE_PORT_UNDEFINED: Code = Code {
    code: "service-port-undefined",
    title: "The Service has no such port",
    severity: Severity::Critical,
    hop: Hop::Vip,
    family: Family::Service,
    meaning: "Clients dial a port on the Service address that the Service does not define. No proxy rule translates it: \
              the packet is refused or vanishes, depending on the proxy mode. Port and targetPort are easily confused: \
              clients use port.",
    looked_at: "Packets to the Service address, by destination port, against spec.ports; what became of them.",
    check: &[
        SHOW_SERVICE,
        CheckStep {
            text: "Ports, with their targetPort on the Pod",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.ports}'",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Point the client at a port that the Service defines",
            command: "",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "Or add the port to the Service",
            command: "kubectl edit svc {svc} -n {ns}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &[
        "target-port-mismatch",
        "protocol-mismatch",
        "vip-not-translated",
    ],
};

pub(super) static PROTOCOL_MISMATCH: Code = Code {
    code: "protocol-mismatch",
    title: "Right port, other protocol",
    severity: Severity::Critical,
    hop: Hop::Vip,
    family: Family::Service,
    meaning: "Clients reach the port number by one transport (say UDP) while the Service defines it for another (say TCP). \
              A Service port is a number and a protocol together.",
    looked_at: "Packets to the Service address: their protocol and port against spec.ports.",
    check: &[
        SHOW_SERVICE,
        CheckStep {
            text: "Protocol of each port; a port without one is TCP",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.ports[*].protocol}'",
        },
    ],
    mitigate: &[FixStep {
        text: "Add a port with the protocol that the clients use (the same number may be defined for both), or change the client",
        command: "kubectl edit svc {svc} -n {ns}",
        changes: Changes::Cluster,
    }],
    confusable: &["service-port-undefined", "vip-not-translated"],
};

pub(super) static NO_ENDPOINTS_SELECTOR: Code = Code {
    code: "no-endpoints-selector",
    title: "The selector matches no Pod",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Service,
    meaning: "The Service has no endpoints because its selector matches no Pod in its namespace, often one label that \
              differs by a letter. The proxy refuses every connection.",
    looked_at: "Selector against Pod labels, the EndpointSlices, and what happened to packets to the Service address \
                (refused on the client's node).",
    check: &[
        SHOW_SLICES,
        CheckStep {
            text: "Pods that the selector matches: none",
            command: "kubectl get pods -n {ns} -l '{selector}' -o wide",
        },
        CheckStep {
            text: "Labels that the Pods do have",
            command: "kubectl get pods -n {ns} --show-labels",
        },
    ],
    mitigate: &[FixStep {
        text: "Correct the selector (or the labels of the Pod template) so that both agree",
        command: "kubectl edit svc {svc} -n {ns}",
        changes: Changes::Cluster,
    }],
    confusable: &["no-endpoints-not-ready", "service-not-found"],
};

pub(super) static NO_ENDPOINTS_NOT_READY: Code = Code {
    code: "no-endpoints-not-ready",
    title: "Pods match, none is ready",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Service,
    meaning: "The selector matches Pods, but none of them is Ready, so none is an endpoint and the proxy refuses every \
              connection. The readiness condition says why.",
    looked_at: "Pods of the selector with their conditions, the EndpointSlices' ready flags, and what happened to packets \
                to the Service address.",
    check: &[
        CheckStep {
            text: "Ready column and restarts of the Pods",
            command: "kubectl get pods -n {ns} -l '{selector}' -o wide",
        },
        CheckStep {
            text: "Condition and events of one of them: which probe fails, and how",
            command: "kubectl describe pod {pod} -n {ns}",
        },
        SHOW_SLICES,
    ],
    mitigate: &[
        FixStep {
            text: "Find out why the readiness probe fails",
            command: "kubectl logs {pod} -n {ns} --tail=100",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "Repair the application or its readiness probe in the Pod template",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["no-endpoints-selector", "listener-missing"],
};

pub(super) static NAMED_PORT_UNRESOLVED: Code = Code {
    code: "named-port-unresolved",
    title: "targetPort names a port that the Pods do not have",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Service,
    meaning: "The Service's targetPort is a name, and no container of its ready Pods declares a port of that name and \
              protocol. The name is resolved for each Pod, so the port has no number and is left out of the EndpointSlices: \
              the proxy refuses every connection, though all Pods are ready and listed.",
    looked_at: "targetPort against the names of the ready Pods' container ports, the ports of the EndpointSlices, and what \
                happened to packets to the Service address.",
    check: &[
        CheckStep {
            text: "targetPort of each port of the Service: a name",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.ports}'",
        },
        CheckStep {
            text: "Names that the containers give their ports",
            command: "kubectl get pod {pod} -n {ns} -o jsonpath='{.spec.containers[*].ports}'",
        },
        CheckStep {
            text: "Ports of the slices: this one is missing or has no number",
            command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o jsonpath='{.items[*].ports}'",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Set targetPort to a name that the containers declare, or to the number that the application listens on",
            command: "kubectl edit svc {svc} -n {ns}",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Or give the container's port the name {port_name} in the Pod template; its owner replaces the Pods",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &[
        "no-endpoints-not-ready",
        "target-port-mismatch",
        "service-port-undefined",
    ],
};

pub(super) static TARGET_PORT_MISMATCH: Code = Code {
    code: "target-port-mismatch",
    title: "targetPort is not the port the app listens on",
    severity: Severity::Critical,
    hop: Hop::Listener,
    family: Family::Service,
    meaning: "The Service sends connections to a Pod port where nothing listens, while the application listens on another. \
              The Pod answers with a reset: the client sees connection refused through the Service, and a Pod IP with the \
              right port works.",
    looked_at: "Resets from the backend itself after translation, the Pod's listening sockets, the ports that its \
                containers declare.",
    check: &[
        CheckStep {
            text: "targetPort of the Service against the containers' ports",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.ports}'",
        },
        CheckStep {
            text: "Ports that the containers declare",
            command: "kubectl get pod {pod} -n {ns} -o jsonpath='{.spec.containers[*].ports}'",
        },
        CheckStep {
            text: "What listens inside the Pod",
            command: "kubectl exec {pod} -n {ns} -- ss -ltnu",
        },
    ],
    mitigate: &[FixStep {
        text: "Set targetPort to the port that the application listens on",
        command: "kubectl edit svc {svc} -n {ns}",
        changes: Changes::Cluster,
    }],
    confusable: &[
        "listener-missing",
        "listener-loopback-only",
        "firewall-drop",
    ],
};

pub(super) static LISTENER_MISSING: Code = Code {
    code: "listener-missing",
    title: "Nothing listens on the port",
    severity: Severity::Critical,
    hop: Hop::Listener,
    family: Family::Service,
    meaning: "The Service points at the right port, yet no socket in the Pod listens on it: the application has not \
              started, has crashed, or is configured for another port, and no readiness probe tells. Service address and \
              Pod IP are refused alike.",
    looked_at: "Resets (UDP: port unreachable) from the backend itself, the Pod's listening sockets.",
    check: &[
        CheckStep {
            text: "What listens inside the Pod",
            command: "kubectl exec {pod} -n {ns} -- ss -ltnu",
        },
        CheckStep {
            text: "What the application says",
            command: "kubectl logs {pod} -n {ns} --tail=100",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Make the application listen on {target_port}; a readiness probe on that port keeps such Pods out of the Service",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "See whether it crashed",
            command: "kubectl describe pod {pod} -n {ns}",
            changes: Changes::Nothing,
        },
    ],
    confusable: &[
        "target-port-mismatch",
        "listener-loopback-only",
        "firewall-drop",
    ],
};

pub(super) static LISTENER_LOOPBACK_ONLY: Code = Code {
    code: "listener-loopback-only",
    title: "The app listens on loopback only",
    severity: Severity::Critical,
    hop: Hop::Listener,
    family: Family::Service,
    meaning: "The application listens on the right port but only on a loopback address, so it takes connections from \
              inside its own Pod alone. An exec'd check inside the Pod passes while everybody else is refused.",
    looked_at: "Resets from the backend itself, the bound address of the Pod's listening sockets.",
    check: &[CheckStep {
        text: "Local address of the socket: 127.0.0.1 or ::1 instead of 0.0.0.0 or [::]",
        command: "kubectl exec {pod} -n {ns} -- ss -ltnu",
    }],
    mitigate: &[FixStep {
        text: "Let the application bind to all addresses (0.0.0.0 or [::]) or to the Pod IP",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["listener-missing", "target-port-mismatch"],
};

pub(super) static ONE_BAD_ENDPOINT: Code = Code {
    code: "one-bad-endpoint",
    title: "Some endpoints fail, the others serve",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Service,
    meaning: "Connections fail only when the proxy chooses particular endpoints. Clients see errors in about that share \
              of their attempts, which looks random.",
    looked_at: "Outcomes of attempts, grouped by the endpoint that was chosen for each.",
    check: &[
        SHOW_SLICES,
        CheckStep {
            text: "State, restarts and age of the Pod that fails",
            command: "kubectl describe pod {pod} -n {ns}",
        },
    ],
    mitigate: &[FixStep {
        text: "Replace the failing Pod; its owner makes a new one",
        command: "kubectl delete pod {pod} -n {ns}",
        changes: Changes::Cluster,
    }],
    confusable: &[
        "some-clients-fail",
        "backend-gone",
        "listener-missing",
        "proxy-rules-stale",
    ],
};

pub(super) static SOME_CLIENTS_FAIL: Code = Code {
    code: "some-clients-fail",
    title: "Some clients fail, others are served",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Service,
    meaning: "The Service works for some clients and for others never, on the same port and at the same endpoints. Where it \
              breaks is not seen from here: what is left is who is hit, by node, zone, namespace or as a single client.",
    looked_at: "Outcomes of attempts at the same endpoints, grouped by client: its node, the node's label \
                topology.kubernetes.io/zone, its namespace. At least 3 attempts on each side and 3 clients in all; each client \
                either fails or is served (nine of ten attempts), and no client that is served shares with those that fail \
                what is told of them. Silence from another node is compared with clients that are on another node, too.",
    check: &[
        CheckStep {
            text: "The client that fails: its node, its labels",
            command: "kubectl get pod {client} -n {client_ns} -o wide --show-labels",
        },
        CheckStep {
            text: "Policies that may select clients by namespace or label",
            command: "kubectl get networkpolicy -A",
        },
        SHOW_SLICES,
    ],
    mitigate: &[FixStep {
        text: "Look at what treats these clients otherwise: lists of allowed sources in the application or in front of it, policies, the way from their node",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &[
        "one-bad-endpoint",
        "policy-denied-ingress",
        "firewall-drop",
        "lost-beyond-node",
    ],
};
