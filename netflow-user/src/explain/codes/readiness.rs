//! Endpoints that get connections while they are not ready for them.

use super::service::SHOW_SLICES;
use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

pub(super) static TERMINATING_BACKEND: Code = Code {
    code: "terminating-backend",
    title: "Connections go to a Pod that shuts down",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Service,
    meaning: "The chosen endpoint is terminating, and its Pod no longer takes connections. A proxy sends to such endpoints \
              where no other is ready (all Pods of the Service go at once, as in a drain or with one replica), and for a \
              moment in every rollout, which is not counted here. The application closes its socket before the last \
              connection was sent to it.",
    looked_at: "Outcomes of attempts by chosen endpoint, how each ended at the Pod, and the endpoint's conditions at that \
                time. Where endpoints that stay fail in the same way, it is not given.",
    check: &[
        SHOW_SLICES,
        CheckStep {
            text: "Pods that are Terminating, and whether their successors are ready",
            command: "kubectl get pods -n {ns} -l '{selector}' -o wide",
        },
        CheckStep {
            text: "Grace period, preStop hook and what became of the Pod",
            command: "kubectl describe pod {pod} -n {ns}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Let the application go on accepting for some seconds after SIGTERM (a preStop sleep does it), in the Pod \
                   template",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Keep a ready Pod throughout: more replicas, maxUnavailable 0, a PodDisruptionBudget",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["proxy-rules-stale", "conntrack-stale", "listener-missing"],
};

pub(super) static PUBLISH_NOT_READY: Code = Code {
    code: "publish-not-ready",
    title: "Connections go to a Pod that is not ready",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Service,
    meaning: "The Service has publishNotReadyAddresses: its Pods count as endpoints whatever their readiness probe says. \
              The chosen one is not ready and does not take connections, so clients fail that would have waited, or gone to \
              another Pod, without it.",
    looked_at: "publishNotReadyAddresses, the readiness of the chosen endpoint and its Pod at that time, and how each \
                attempt ended at the Pod. Where ready Pods fail in the same way, it is not given.",
    check: &[
        CheckStep {
            text: "Whether the Service publishes Pods that are not ready",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.publishNotReadyAddresses}'",
        },
        CheckStep {
            text: "Condition and events of the Pod: which probe fails, and how",
            command: "kubectl describe pod {pod} -n {ns}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Find out why the Pod is not ready",
            command: "kubectl logs {pod} -n {ns} --tail=100",
            changes: Changes::Nothing,
        },
        FixStep {
            text: "Publish only ready Pods; peers that look each other up while starting need a Service of their own for that",
            command: "kubectl patch svc {svc} -n {ns} -p '{\"spec\":{\"publishNotReadyAddresses\":false}}'",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["listener-missing", "one-bad-endpoint"],
};

pub(super) static ENDPOINTSLICE_STALE: Code = Code {
    code: "endpointslice-stale",
    title: "EndpointSlices are behind the Pods",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Service,
    meaning: "An EndpointSlice still lists an address whose Pod is gone or has another address by now, and has not followed \
              for two seconds and more. Proxies do as the slices say, so connections go to an address that nobody has, or \
              that another Pod has been given since. The endpoint slice controller, a part of kube-controller-manager, is \
              down, stuck, or may not write.",
    looked_at: "Endpoints of the slices that the controller manages, the Pods that they name, for how long the two have \
                differed, and the packets sent there. Slices that are written by hand, and Services without a selector, \
                are left out. Without such packets it is a warning.",
    check: &[
        CheckStep {
            text: "Addresses in the slices, and the Pods that they name",
            command: "kubectl get endpointslice {slice} -n {ns} -o yaml",
        },
        CheckStep {
            text: "Pods of the Service with the addresses that they have now",
            command: "kubectl get pods -n {ns} -l '{selector}' -o wide",
        },
        CheckStep {
            text: "Whether the controller manager runs and leads: its lease is renewed every few seconds",
            command: "kubectl get lease kube-controller-manager -n kube-system -o yaml",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Bring kube-controller-manager back, or let it write EndpointSlices again (quota, webhook, rights)",
            command: "",
            changes: Changes::Cluster,
        },
        FixStep {
            text: "Once it runs and the slice does not change: remove the slice, which it writes anew",
            command: "kubectl delete endpointslice {slice} -n {ns}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["backend-gone", "proxy-rules-stale", "conntrack-stale"],
};
