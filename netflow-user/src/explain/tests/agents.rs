//! kube-proxy and network plugins that the objects show to be out of order.

use super::codes::*;
use super::story::*;
use crate::model::Proto;
use crate::model::answer::{Answer, Basis, Severity, Verdict};
use crate::model::flow::Direction;
use crate::model::objects::{Away, Objects, Pod};
use crate::model::shared::{Map, Name};

/// A Pod of a DaemonSet on a node's network.
fn agent(set: &str, container: &str, node: &str, address: &str) -> Pod {
    Pod {
        namespace: "sys".into(),
        host_network: true,
        containers: vec![container.into()].into(),
        owner: Some(format!("DaemonSet/{set}").into()),
        ..pod(&format!("{set}-{node}"), address, node, &[])
    }
}

/// Both nodes run kube-proxy and an agent of the network plugin.
fn in_order() -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    for (node, address) in [("a", NODE_A), ("b", NODE_B)] {
        o.pods.push(agent("proxy", "kube-proxy", node, address));
        o.pods.push(agent("net", "kube-flannel", node, address));
    }
    o
}

/// `set` of node `a` is not Ready.
fn not_ready(set: &str) -> Objects {
    let mut o = in_order();
    let name = format!("{set}-a");
    let mut pods = o.pods.iter_mut().filter(|p| p.name == name);
    pods.by_ref().for_each(|p| p.conditions = Map::default());
    o
}

/// Node `a` has no Pod of `set`.
fn gone(set: &str) -> Objects {
    let mut o = in_order();
    o.pods.retain(|p| p.name != format!("{set}-a"));
    o
}

fn unavailable() -> Objects {
    let mut o = in_order();
    o.nodes[0].network_unavailable = Some("NoRouteCreated".into());
    o
}

fn cases() -> [(&'static str, Objects, &'static str); 5] {
    [
        (
            "proxy-unhealthy",
            not_ready("proxy"),
            "sys/proxy-a (Ready is not True",
        ),
        ("proxy-unhealthy", gone("proxy"), "DaemonSet sys/proxy"),
        (
            "cni-unhealthy",
            not_ready("net"),
            "sys/net-a (Ready is not True",
        ),
        ("cni-unhealthy", gone("net"), "DaemonSet sys/net"),
        (
            "cni-unhealthy",
            unavailable(),
            "NetworkUnavailable is True (NoRouteCreated)",
        ),
    ]
}

fn idle(objects: Objects) -> Answer {
    explain(&[Story::new("a", objects, facts_a()).told(ms(3000))])
}

fn severity(answer: &Answer, code: &str) -> Option<Severity> {
    let mut all = answer.findings.iter();
    all.find(|f| f.code == code).map(|f| f.severity)
}

#[test]
fn objects_alone_suspect_it() {
    for (code, objects, says) in cases() {
        // That a node has none of a set may be meant.
        let verdict = if says.starts_with("DaemonSet") {
            Verdict::NotEnoughEvidence
        } else {
            Verdict::Suspected
        };
        let answer = idle(objects);
        assert_eq!((top(&answer), answer.verdict), (code, verdict));
        let cause = &answer.findings[0];
        assert_eq!(cause.basis, Basis::Objects);
        assert!(cause.summary.contains(says), "{}", cause.summary);
    }
}

#[test]
fn a_failure_that_nothing_else_explains_may_be_its() {
    for (code, objects, _) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
        let answer = explain(&[s.told(ms(8000))]);
        assert_eq!((top(&answer), answer.verdict), (code, Verdict::Failing));
        assert_eq!(answer.findings[0].basis, Basis::Objects);
    }
}

#[test]
fn an_observed_cause_goes_first() {
    for (code, objects, _) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        let r = reply(4001, remote());
        s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
        s.nat(vip(4001), r, ms(10));
        s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
        let answer = explain(&[s.told(ms(8000))]);
        assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
        assert_eq!(severity(&answer, code), Some(Severity::Warning));
    }
}

#[test]
fn traffic_that_passes_is_healthy_all_the_same() {
    for (code, objects, _) in cases() {
        let mut s = Story::new("a", objects, facts_a());
        s.served(4001, backend(), BACKEND_VETH, ms(10));
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
        assert_eq!(severity(&answer, code), Some(Severity::Warning));
    }
}

#[test]
fn a_backends_node_matters_once_an_attempt_to_it_fails() {
    let mut o = in_order();
    o.nodes[1].network_unavailable = Some(String::new());
    assert!(idle(o.clone()).findings.is_empty());
    let mut s = Story::new("a", o, facts_a());
    let r = reply(4001, remote());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    let answer = explain(&[s.told(ms(8000))]);
    assert_eq!(severity(&answer, "cni-unhealthy"), Some(Severity::Warning));
}

#[test]
fn what_is_in_order_or_cannot_be_told_is_no_fault() {
    let nobody = objects(&[BACKEND, REMOTE]);
    // One that is leaving, and its successor.
    let mut replaced = not_ready("proxy");
    let successor = agent("proxy", "kube-proxy", "a", NODE_A);
    replaced.pods.push(Pod {
        name: "proxy-new".into(),
        ..successor
    });
    // Somewhere runs one that nobody promised for every node.
    let mut alone = gone("proxy");
    alone.pods.iter_mut().for_each(|p| p.owner = None);
    // An ordinary Pod that is called so.
    let mut namesake = not_ready("proxy");
    let proxies = namesake
        .pods
        .iter_mut()
        .filter(|p| p.name.starts_with("proxy"));
    proxies.for_each(|p| p.host_network = false);
    // Objects without a state.
    let mut stateless = not_ready("net");
    stateless
        .pods
        .iter_mut()
        .for_each(|p| p.phase = Name::default());
    for objects in [in_order(), nobody, replaced, alone, namesake, stateless] {
        let answer = idle(objects);
        assert!(answer.findings.is_empty(), "{answer:#?}");
    }
}

#[test]
fn who_dials_pods_themselves_does_without_the_proxy() {
    let mut s = Story::new("a", not_ready("proxy"), facts_a());
    let t = tuple(Proto::TCP, CLIENT, 4001, BACKEND, 8080);
    s.syn(t, CLIENT_VETH, ms(10), 7, 3);
    let answer = explain(&[s.told(ms(8000))]);
    assert_ne!(answer.verdict, Verdict::Failing);
}

#[test]
fn a_set_that_is_not_meant_for_a_node_is_not_missed_there() {
    // Something else translates Services.
    let mut replaced = gone("proxy");
    let cilium = agent("cilium", "cilium-agent", "a", NODE_A);
    replaced.pods.push(cilium);
    // A set for nodes of another system.
    let mut other = gone("proxy");
    let system = |name: &str| [("kubernetes.io/os".to_owned(), name.to_owned())].into();
    other.nodes[0].labels = system("linux");
    other.nodes[1].labels = system("windows");
    for objects in [replaced, other] {
        let answer = idle(objects);
        assert!(answer.findings.is_empty(), "{answer:#?}");
    }
}

#[test]
fn what_was_not_ready_when_the_watch_broke_may_be_by_now() {
    for kind in ["", "Pod"] {
        let mut o = not_ready("proxy");
        o.away.push(Away {
            kind: kind.into(),
            since: ms(0),
            why: "connection refused".into(),
        });
        let answer = idle(o);
        assert_eq!(severity(&answer, "proxy-unhealthy"), None, "{answer:#?}");
    }
}
