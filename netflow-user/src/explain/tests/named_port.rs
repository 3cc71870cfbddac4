//! A targetPort that is a name.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Basis, Severity, Verdict};
use crate::model::objects::{ContainerPort, Objects, TargetPort};
use crate::model::shared::Map;
use crate::model::{Input, Proto};

fn each_port(o: &mut Objects, change: impl Fn(&mut ContainerPort)) {
    for pod in &mut o.pods {
        let mut ports = pod.ports.to_vec();
        ports.iter_mut().for_each(&change);
        pod.ports = ports.into();
    }
}

/// The Service leads to `target`, the Pods call their port `declared`; the slices have a number where these agree.
fn named(target: &str, declared: &str) -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.services[0].ports[0].target = TargetPort::Name(target.into());
    each_port(&mut o, |port| port.name = declared.into());
    if target != declared {
        o.slices[0].ports.clear();
    }
    o
}

fn idle(objects: Objects) -> Vec<Input> {
    Story::new("a", objects, facts_a()).told(ms(3000))
}

#[test]
fn a_name_that_no_pod_has_is_the_cause() {
    let answer = rejected(named("http", "web"));
    assert_cause(&answer, "named-port-unresolved", Verdict::Failing);
    let found = &answer.findings[0];
    assert!(
        found.summary.contains("targetPort http") && found.summary.contains("web (8080/TCP)"),
        "{}",
        found.summary
    );
    let fix = &found.fix[0].command;
    assert!(
        fix.contains("patch svc cart -n shop") && fix.contains("\"value\":\"web\""),
        "{fix}"
    );
    let others: Vec<&str> = found.fix.iter().map(|f| f.text.as_str()).collect();
    assert!(others.iter().any(|t| t.contains("name http")), "{others:?}");
}

#[test]
fn a_slice_port_without_a_number_is_none() {
    let mut o = named("http", "web");
    o.slices[0].ports = objects(&[]).slices[0].ports.clone();
    o.slices[0].ports[0].port = None;
    assert_cause(&rejected(o), "named-port-unresolved", Verdict::Failing);
}

#[test]
fn the_right_name_of_another_protocol_is_told() {
    let mut o = named("http", "http");
    o.slices[0].ports.clear();
    each_port(&mut o, |port| port.proto = Proto::UDP);
    let answer = rejected(o);
    assert_cause(&answer, "named-port-unresolved", Verdict::Failing);
    assert!(
        answer.findings[0].summary.contains("for 8080/UDP only"),
        "{}",
        answer.findings[0].summary
    );
}

#[test]
fn which_of_several_ports_was_meant_is_not_guessed() {
    let mut o = named("http", "web");
    for pod in o.pods.iter_mut().filter(|p| !p.ports.is_empty()) {
        let more = ContainerPort {
            container: "app".into(),
            name: "metrics".into(),
            port: 9090,
            proto: Proto::TCP,
        };
        pod.ports = pod.ports.iter().cloned().chain([more]).collect();
    }
    let answer = rejected(o);
    assert_cause(&answer, "named-port-unresolved", Verdict::Failing);
    let mut fixes = answer.findings[0].fix.iter();
    assert!(fixes.all(|f| !f.command.contains(" patch ")));
}

#[test]
fn objects_alone_only_suspect_it() {
    let answer = explain(&[idle(named("http", "web"))]);
    assert_eq!(
        (top(&answer), answer.verdict),
        ("named-port-unresolved", Verdict::Suspected)
    );
    assert_eq!(answer.findings[0].basis, Basis::Objects);
}

#[test]
fn traffic_that_passes_proves_the_objects_outdated() {
    let mut s = Story::new("a", named("http", "web"), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let mut findings = answer.findings.iter();
    assert!(findings.all(|f| f.severity == Severity::Info));
}

#[test]
fn traffic_to_another_port_proves_nothing_of_this_one() {
    let mut o = named("http", "http");
    let service = &mut o.services[0];
    let mut other = service.ports[0].clone();
    (other.name, other.port) = ("rpc".into(), 9000);
    other.target = TargetPort::Name("grpc".into());
    service.ports.push(other);
    let mut s = Story::new("a", o, facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let found = &answer.findings[0];
    assert_eq!(
        (found.code, found.severity),
        ("named-port-unresolved", Severity::Warning)
    );
}

#[test]
fn one_pod_that_has_the_name_is_enough() {
    let mut o = named("http", "http");
    let web = ContainerPort {
        name: "web".into(),
        ..o.pods[2].ports[0].clone()
    };
    o.pods[2].ports = vec![web].into();
    o.slices[0].endpoints.truncate(1);
    let answer = explain(&[idle(o)]);
    assert_eq!(critical(&answer), Vec::<&str>::new());
}

#[test]
fn slices_that_are_behind_are_not_the_names_fault() {
    let mut o = named("http", "http");
    o.slices[0].ports.clear();
    let answer = explain(&[idle(o)]);
    assert_eq!(critical(&answer), Vec::<&str>::new());
}

#[test]
fn of_pods_that_are_not_ready_the_name_is_no_cause() {
    let mut o = named("http", "web");
    for pod in &mut o.pods {
        pod.conditions = Map::default();
    }
    for endpoint in &mut o.slices[0].endpoints {
        endpoint.ready = false;
        endpoint.serving = false;
    }
    assert_cause(&rejected(o), "no-endpoints-not-ready", Verdict::Failing);
}
