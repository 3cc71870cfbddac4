//! Services whose type promises less than is expected of them.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Basis, Severity, Verdict};
use crate::model::flow::Direction;
use crate::model::objects::{LoadBalancer, Objects, TargetPort};
use crate::model::query::From;
use crate::model::shared::Map;
use crate::model::{Input, Proto};

fn idle(objects: Objects) -> Answer {
    explain(&[Story::new("a", objects, facts_a()).told(ms(3000))])
}

fn severity(answer: &Answer, code: &str) -> Option<Severity> {
    let mut of_code = answer.findings.iter().filter(|f| f.code == code);
    of_code.next().map(|f| f.severity)
}

/// `shop/cart` is an alias.
fn alias(name: &str) -> Objects {
    let mut o = objects(&[]);
    let service = &mut o.services[0];
    service.kind = "ExternalName".into();
    service.external_name = Some(name.into());
    service.cluster_ips.clear();
    service.selector = None;
    o.slices.clear();
    o
}

#[test]
fn an_alias_is_told_and_is_no_fault() {
    let answer = idle(alias("db.example.net"));
    assert_eq!(
        (top(&answer), answer.verdict),
        ("external-name-is-dns", Verdict::NotEnoughEvidence)
    );
    let found = &answer.findings[0];
    assert_eq!(
        (found.severity, found.basis),
        (Severity::Info, Basis::Objects)
    );
    let says = &found.summary;
    assert!(
        says.contains("db.example.net") && says.contains("port 80 is not turned into 8080"),
        "{says}"
    );
}

#[test]
fn ports_that_nobody_wants_translated_are_not_mentioned() {
    let mut o = alias("db.example.net");
    o.services[0].ports[0].target = TargetPort::Number(80);
    let answer = idle(o);
    assert!(!answer.findings[0].summary.contains("turned into"));
}

#[test]
fn an_alias_for_an_address_never_resolves() {
    let answer = idle(alias("192.0.2.80"));
    assert_eq!(
        (top(&answer), answer.verdict),
        ("external-name-is-dns", Verdict::Suspected)
    );
}

#[test]
fn other_services_are_no_alias() {
    assert!(idle(objects(&[BACKEND])).findings.is_empty());
}

fn balanced(assigned: bool, class: Option<&str>) -> Objects {
    let mut o = objects(&[BACKEND]);
    o.services[0].kind = "LoadBalancer".into();
    o.services[0].load_balancer = Some(LoadBalancer {
        class: class.map(ToOwned::to_owned),
        assigned,
    });
    o
}

fn served(objects: Objects) -> Vec<Input> {
    let mut s = Story::new("a", objects, facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(10));
    s.told(ms(3000))
}

#[test]
fn a_load_balancer_that_is_awaited_leaves_the_cluster_ip_healthy() {
    let answer = explain(&[served(balanced(false, Some("example.net/lb")))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(
        severity(&answer, "load-balancer-pending"),
        Some(Severity::Warning)
    );
    assert!(answer.findings[0].summary.contains("example.net/lb"));
}

#[test]
fn a_load_balancer_that_has_something_or_is_not_known_is_not_awaited() {
    let mut unknown = balanced(false, None);
    unknown.services[0].load_balancer = None;
    for objects in [balanced(true, None), unknown] {
        let answer = explain(&[served(objects)]);
        assert_eq!(answer.verdict, Verdict::Healthy);
        assert!(answer.findings.is_empty(), "{answer:#?}");
    }
}

#[test]
fn who_asks_for_clients_from_outside_asks_for_the_load_balancer() {
    let mut s = Story::new("a", balanced(false, None), facts_a());
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.from = Some(From::External);
    }
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(
        (top(&answer), answer.verdict),
        ("load-balancer-pending", Verdict::Suspected)
    );
}

/// `shop/cart` has no cluster IP; of its two Pods those named are ready.
fn headless(ready: &[&str]) -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.services[0].headless = true;
    o.services[0].cluster_ips.clear();
    for (endpoint, name) in o.slices[0].endpoints.iter_mut().zip(["cart", "cart-far"]) {
        endpoint.pod = Some(name.into());
        endpoint.ready = ready.contains(&name);
        endpoint.serving = endpoint.ready;
    }
    for pod in &mut o.pods {
        if !ready.contains(&pod.name.as_str()) {
            pod.conditions = Map::default();
        }
    }
    o
}

/// The client is served by the local Pod at its own address.
fn dialled(objects: Objects) -> Answer {
    dialled_from(CLIENT, objects)
}

fn dialled_from(client: &str, objects: Objects) -> Answer {
    let mut s = Story::new("a", objects, facts_a());
    let t = tuple(Proto::TCP, client, 4001, BACKEND, 8080);
    s.syn(t, CLIENT_VETH, ms(10), 7, 1);
    s.syn_at(t, BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.syn_ack(t.inverse(), BACKEND_VETH, Direction::Ingress, ms(11));
    s.syn_ack(t.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    explain(&[s.told(ms(3000))])
}

#[test]
fn dns_has_nothing_where_no_pod_is_ready() {
    let answer = idle(headless(&[]));
    assert_eq!(
        (top(&answer), answer.verdict),
        ("headless-not-ready", Verdict::Suspected)
    );
    assert_eq!(critical(&answer), ["headless-not-ready"]);
    let says = &answer.findings[0].summary;
    assert!(
        says.contains("cart-far (Ready is not True"),
        "each Pod with its reason: {says}"
    );
}

#[test]
fn some_that_are_missing_from_dns_are_a_warning() {
    let answer = dialled(headless(&["cart"]));
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(
        severity(&answer, "headless-not-ready"),
        Some(Severity::Warning)
    );
    assert!(answer.findings[0].summary.contains("1 of the 2 Pods"));
}

#[test]
fn clients_that_know_the_address_are_served_all_the_same() {
    let answer = dialled(headless(&[]));
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(critical(&answer), Vec::<&str>::new());
}

#[test]
fn probes_of_the_kubelet_are_no_clients() {
    let answer = dialled_from(NODE_A, headless(&[]));
    assert_eq!(
        (top(&answer), answer.verdict),
        ("headless-not-ready", Verdict::Suspected)
    );
}

#[test]
fn ready_published_or_leaving_pods_are_in_dns_or_meant_to_go() {
    let ready = headless(&["cart", "cart-far"]);
    let mut published = headless(&[]);
    published.services[0].publish_not_ready = true;
    for endpoint in &mut published.slices[0].endpoints {
        endpoint.ready = true;
    }
    let mut leaving = headless(&["cart"]);
    leaving.slices[0].endpoints[1].terminating = true;
    for objects in [ready, published, leaving] {
        let answer = idle(objects);
        assert!(answer.findings.is_empty(), "{answer:#?}");
    }
}

#[test]
fn a_cluster_ip_is_not_headless() {
    let mut o = headless(&[]);
    o.services[0].headless = false;
    o.services[0].cluster_ips = vec![ip(VIP)];
    assert_eq!(top(&idle(o)), "no-endpoints-not-ready");
}

#[test]
fn a_selector_that_matches_nothing_is_said_of_headless_services_too() {
    let mut o = headless(&[]);
    o.services[0].selector = Some([("app".to_owned(), "kart".to_owned())].into());
    o.slices[0].endpoints.clear();
    assert_eq!(top(&idle(o)), "no-endpoints-selector");
}
