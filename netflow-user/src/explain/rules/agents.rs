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
const PLUGINS: [&str; 10] = [
    "antrea-agent",
    "aws-node",
    "calico-node",
    "cilium-agent",
    "kindnet-cni",
    "kube-flannel",
    "kube-ovn-cni",
    "kube-router",
    "ovnkube-controller",
    "weave",
];

/// kube-proxy of a node whose clients' connections it should translate is not Ready, or there is none.
pub fn proxy_unhealthy(case: &Case<'_>, report: &mut Report) {
    for node in nodes_asked(case) {
        let Some(what) = trouble(case.objects, node, &PROXIES) else {
            continue;
        };
        let meets = |a: &Attempt<'_>| {
            !a.is_direct() && a.parts.first().is_some_and(|p| p.node.name() == node)
        };
        let summary = format!(
            "The Service proxy of {node} is not in order, so its rules may not follow Services and endpoints: {what}"
        );
        add(case, report, "proxy-unhealthy", node, meets, summary);
    }
}

/// The network plugin of a client's or backend's node is not Ready, or there is none, or the node says that it has no
/// network.
pub fn cni_unhealthy(case: &Case<'_>, report: &mut Report) {
    let failing = case.attempts.iter().filter(|a| a.outcome.is_failure());
    let backends = failing.filter_map(|a| case.placed_on(a.backend()?.ip(), a.began()));
    let nodes: BTreeSet<&str> = nodes_asked(case).into_iter().chain(backends).collect();
    for node in nodes {
        let Some(what) =
            no_network(case.objects, node).or_else(|| trouble(case.objects, node, &PLUGINS))
        else {
            continue;
        };
        let crosses = |a: &Attempt<'_>| {
            let placed = a.backend().and_then(|b| case.placed_on(b.ip(), a.began()));
            a.parts.iter().any(|p| p.node.name() == node) || placed == Some(node)
        };
        let summary = format!("The Pod network of {node} is not in order: {what}");
        add(case, report, "cni-unhealthy", node, crosses, summary);
    }
}

/// Nodes that were asked and that the objects know.
fn nodes_asked<'a>(case: &Case<'a>) -> BTreeSet<&'a str> {
    let names = case.views.iter().map(View::name);
    names.filter(|n| case.objects.node(n).is_some()).collect()
}

/// States it by what became of the attempts that `touches` tells: objects prove nothing by themselves.
fn add(
    case: &Case<'_>,
    report: &mut Report,
    code: &'static str,
    node: &str,
    touches: impl Fn(&Attempt<'_>) -> bool,
    summary: String,
) {
    let touches = |a: &Attempt<'_>| case.counts(a) && touches(a);
    let unexplained = report.open(case).into_iter().any(|(_, a)| touches(a));
    let mut attempts = case.attempts.iter();
    let decided = attempts.any(|a| a.outcome != Outcome::Pending && touches(a));
    let severity = if unexplained || !decided {
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
fn no_network(objects: &Objects, node: &str) -> Option<String> {
    let why = objects.node(node)?.network_unavailable.as_ref()?;
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    };
    Some(format!(
        "the node's condition NetworkUnavailable is True{why}"
    ))
}

/// What is wrong with the Pod on a node that runs one of these containers; `None` = nothing, or it cannot be told.
fn trouble(objects: &Objects, node: &str, containers: &[&str]) -> Option<String> {
    let runs = |p: &&Pod| {
        let mut own = p.containers.iter();
        p.host_network && !p.is_finished() && own.any(|c| containers.contains(&c.as_str()))
    };
    let (here, elsewhere): (Vec<&Pod>, Vec<&Pod>) = objects
        .pods
        .iter()
        .filter(runs)
        .partition(|p| p.node.as_deref() == Some(node));
    if here.iter().any(|p| p.is_ready()) {
        return None;
    }
    // Objects as they are kept in a repository have no state.
    let is_told = |p: &&&Pod| p.deleting || !p.conditions.is_empty() || !p.phase.is_empty();
    if let Some(pod) = here.first() {
        Some(pod).filter(is_told)?;
        return Some(format!("Pod {}/{}", pod.namespace, lack::unready(pod)?));
    }
    // A DaemonSet is meant for every node; what else runs somewhere need not run here.
    let set = |p: &&Pod| {
        p.owner
            .as_ref()?
            .strip_prefix("DaemonSet/")
            .map(str::to_owned)
    };
    let of_set = elsewhere.iter().find(|p| set(p).is_some())?;
    Some(format!(
        "DaemonSet {}/{} has Pods on other nodes and none on this one",
        of_set.namespace,
        set(of_set)?
    ))
}
