//! What a node runs for its network: the Service proxy and the network plugin, as the objects show them.

use crate::explain::attempt::{Attempt, Outcome};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::lack;
use crate::explain::report::{Report, Saying};
use crate::explain::view::View;
use crate::model::answer::{Basis, Severity};
use crate::model::objects::{Objects, Pod};
use std::collections::BTreeSet;

/// The container of kube-proxy's Pods (kubernetes/cmd/kubeadm/app/phases/addons/proxy/manifests.go and
/// cluster/gce/manifests/kube-proxy.manifest; the hosted clusters name it so, too).
const PROXIES: [&str; 1] = ["kube-proxy"];

/// Containers of the network plugins' agents, as the manifests of their projects name them.
const PLUGINS: [&str; 9] = [
    "antrea-agent",
    "aws-node",
    "calico-node",
    "cilium-agent",
    "kindnet-cni",
    "kube-flannel",
    "kube-router",
    "ovnkube-controller",
    "weave",
];

/// Containers of what may translate Services in kube-proxy's place: a node that has one may need no kube-proxy.
const REPLACERS: [&str; 4] = [
    "antrea-agent",
    "cilium-agent",
    "kube-router",
    "ovnkube-controller",
];

/// What is wrong with an agent.
struct Trouble {
    what: String,
    /// The agent itself says so. That a node has none may be meant: which nodes a DaemonSet is for is not read.
    told: bool,
}

/// kube-proxy of a node whose clients' connections it should translate is not Ready, or there is none.
pub fn proxy_unhealthy(case: &Case<'_>, report: &mut Report) {
    for node in nodes_asked(case) {
        let Some(trouble) = proxy_trouble(case.objects, node) else {
            continue;
        };
        let meets = |a: &Attempt<'_>| {
            !a.is_direct() && a.parts.first().is_some_and(|p| p.node.name() == node)
        };
        let summary = format!(
            "The Service proxy of {node} is not in order, so its rules may not follow Services and endpoints: {}",
            trouble.what
        );
        add(
            case,
            report,
            "proxy-unhealthy",
            (node, trouble.told),
            meets,
            summary,
        );
    }
}

/// The network plugin of a client's or backend's node is not Ready, or there is none, or the node says that it has no
/// network.
pub fn cni_unhealthy(case: &Case<'_>, report: &mut Report) {
    let failing = case.attempts.iter().filter(|a| a.outcome.is_failure());
    let backends = failing.filter_map(|a| case.placed_on(a.backend()?.ip(), a.began()));
    let nodes: BTreeSet<&str> = nodes_asked(case).into_iter().chain(backends).collect();
    for node in nodes {
        let trouble =
            no_network(case.objects, node).or_else(|| trouble(case.objects, node, &PLUGINS));
        let Some(Trouble { what, told }) = trouble else {
            continue;
        };
        let crosses = |a: &Attempt<'_>| {
            let placed = a.backend().and_then(|b| case.placed_on(b.ip(), a.began()));
            a.parts.iter().any(|p| p.node.name() == node) || placed == Some(node)
        };
        let summary = format!("The Pod network of {node} is not in order: {what}");
        add(
            case,
            report,
            "cni-unhealthy",
            (node, told),
            crosses,
            summary,
        );
    }
}

/// kube-proxy of a node is not in order, by the objects.
pub(super) fn is_proxy_unhealthy(objects: &Objects, node: &str) -> bool {
    proxy_trouble(objects, node).is_some()
}

fn proxy_trouble(objects: &Objects, node: &str) -> Option<Trouble> {
    let trouble = trouble(objects, node, &PROXIES)?;
    (trouble.told || !runs(objects, node, &REPLACERS)).then_some(trouble)
}

/// Nodes that were asked and that the objects know.
fn nodes_asked<'a>(case: &Case<'a>) -> BTreeSet<&'a str> {
    let names = case.views.iter().map(View::name);
    names.filter(|n| case.objects.node(n).is_some()).collect()
}

/// States it by what became of the attempts that `touches` tells: objects prove nothing by themselves, and a Service that is
/// seen at work does without.
fn add(
    case: &Case<'_>,
    report: &mut Report,
    code: &'static str,
    (node, told): (&str, bool),
    touches: impl Fn(&Attempt<'_>) -> bool,
    summary: String,
) {
    let touches = |a: &Attempt<'_>| case.counts(a) && touches(a);
    let unexplained = report.open(case).into_iter().any(|(_, a)| touches(a));
    let at_work =
        |a: &Attempt<'_>| case.counts(a) && (a.outcome != Outcome::Pending || a.is_translated());
    let idle = !case.attempts.iter().any(at_work);
    let severity = if unexplained || told && idle {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let saying = Saying {
        evidence: vec![Draft::objects(format!("{code} {node}"), summary.clone())],
        values: vec![("here", node.to_owned())],
        ..Saying::new(summary)
    };
    report.state(case, code, Basis::Objects, severity, saying);
}

/// The node's own word for it: nobody has set up its network.
fn no_network(objects: &Objects, node: &str) -> Option<Trouble> {
    let why = objects.node(node)?.network_unavailable.as_ref()?;
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    };
    Some(Trouble {
        what: format!("the node's condition NetworkUnavailable is True{why}"),
        told: true,
    })
}

/// Pods on nodes' own networks that run one of these containers.
fn agents<'a>(objects: &'a Objects, containers: &'a [&str]) -> impl Iterator<Item = &'a Pod> {
    let runs = |p: &&Pod| {
        let mut own = p.containers.iter();
        p.host_network && !p.is_finished() && own.any(|c| containers.contains(&c.as_str()))
    };
    objects.pods.iter().filter(runs)
}

/// Whether a node has one of these that is Ready.
fn runs(objects: &Objects, node: &str, containers: &[&str]) -> bool {
    agents(objects, containers).any(|p| p.node.as_deref() == Some(node) && p.is_ready())
}

/// What is wrong with the Pod on a node that runs one of these containers; `None` = nothing, or it cannot be told.
fn trouble(objects: &Objects, node: &str, containers: &[&str]) -> Option<Trouble> {
    // Whoever was not Ready when the watch broke may be by now.
    let old = |kind: &str| matches!(kind, "" | "Pod");
    if runs(objects, node, containers) || objects.away.iter().any(|a| old(&a.kind)) {
        return None;
    }
    let mut here = agents(objects, containers).filter(|p| p.node.as_deref() == Some(node));
    if let Some(pod) = here.next() {
        // Objects as they are kept in a repository have no state.
        let is_told = pod.deleting || !pod.conditions.is_empty() || !pod.phase.is_empty();
        let unready = is_told.then(|| lack::unready(pod)).flatten()?;
        return Some(Trouble {
            what: format!("Pod {}/{unready}", pod.namespace),
            told: true,
        });
    }
    missing(objects, node, containers)
}

/// A DaemonSet has Pods on other nodes of this node's operating system, and none on it.
fn missing(objects: &Objects, node: &str, containers: &[&str]) -> Option<Trouble> {
    let system = |name: &str| {
        let labels = objects.node(name).map(|n| &n.labels);
        labels.and_then(|l| l.get("kubernetes.io/os"))
    };
    let own = system(node);
    agents(objects, containers)
        .filter(|p| p.node.as_deref().is_some_and(|n| system(n) == own))
        .find_map(|p| {
            let set = p.owner.as_ref()?.strip_prefix("DaemonSet/")?;
            Some(Trouble {
                what: format!(
                    "DaemonSet {}/{set} has Pods on other nodes and none on this one",
                    p.namespace
                ),
                told: false,
            })
        })
}
