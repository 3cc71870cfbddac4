//! Clients whose DNS queries fail.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Severity, Verdict};
use crate::model::flow::Direction;
use crate::model::objects::{
    Endpoint, EndpointSlice, Objects, Service, ServicePort, SlicePort, TargetPort,
};
use crate::model::query::{From, Target};
use crate::model::shared::Map;
use crate::model::{Input, Proto, Tuple};

const DNS: &str = "172.30.0.10";
const RESOLVER: &str = "10.9.1.9";

/// `shop/cart`, and a Service `sys/names` that answers DNS queries, by a Pod that is ready or not.
fn with_dns(ready: bool) -> Objects {
    let mut o = objects(&[BACKEND, REMOTE]);
    o.services.push(Service {
        namespace: "sys".into(),
        name: "names".into(),
        kind: "ClusterIP".into(),
        cluster_ips: vec![ip(DNS)],
        ports: vec![ServicePort {
            name: "dns".into(),
            proto: Proto::UDP,
            port: 53,
            target: TargetPort::Number(53),
            node_port: None,
        }],
        selector: Some([("app".to_owned(), "names".to_owned())].into()),
        ..Service::default()
    });
    o.slices.push(EndpointSlice {
        namespace: "sys".into(),
        name: "names-x".into(),
        service: "names".into(),
        by_controller: false,
        ports: vec![SlicePort {
            name: "dns".into(),
            proto: Proto::UDP,
            port: Some(53),
        }],
        endpoints: vec![Endpoint {
            addresses: vec![ip(RESOLVER)],
            ready,
            serving: ready,
            ..Endpoint::default()
        }],
    });
    let mut resolver = pod("names", RESOLVER, "a", &[]);
    resolver.namespace = "sys".into();
    if !ready {
        resolver.conditions = Map::default();
    }
    o.pods.push(resolver);
    o
}

fn query(sport: u16, to: &str) -> Tuple {
    tuple(Proto::UDP, CLIENT, sport, to, 53)
}

/// A query that the node refuses.
fn refused(s: &mut Story, sport: u16, to: &str) {
    let q = query(sport, to);
    s.flow(q, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
    s.drop(q, NETNS, "NETFILTER_DROP", "nf_hook_slow", None, ms(10));
    s.unreachable(DNS, q, 3, 0, ms(10));
}

/// A query that somebody answers.
fn answered(s: &mut Story, sport: u16, to: &str) {
    let q = query(sport, to);
    s.flow(q, CLIENT_VETH, Direction::Ingress, ms(20), |_| {});
    s.flow(q.inverse(), CLIENT_VETH, Direction::Egress, ms(21), |_| {});
}

fn client() -> From {
    From::Pod(None, "client".into())
}

/// Explains what clients `from` there saw.
fn asked(mut s: Story, from: Option<From>) -> Answer {
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.from = from;
    }
    explain(&[s.told(ms(4000))])
}

fn severity(answer: &Answer) -> Option<Severity> {
    severity_of(answer, "dns-no-endpoints")
}

fn severity_of(answer: &Answer, code: &str) -> Option<Severity> {
    let mut all = answer.findings.iter();
    all.find(|f| f.code == code).map(|f| f.severity)
}

/// A query that goes to the resolver's Pod.
fn sent(s: &mut Story, sport: u16) -> Tuple {
    let q = query(sport, DNS);
    let reply = tuple(Proto::UDP, RESOLVER, 53, CLIENT, sport);
    s.flow(q, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
    s.nat(q, reply, ms(10));
    s.flow(
        reply.inverse(),
        BACKEND_VETH,
        Direction::Egress,
        ms(10),
        |_| {},
    );
    reply
}

#[test]
fn a_client_that_cannot_resolve_never_dials() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    refused(&mut s, 5002, DNS);
    let answer = asked(s, Some(client()));
    assert_cause(&answer, "dns-no-endpoints", Verdict::Failing);
    let cause = &answer.findings[0];
    assert_eq!(cause.affected.clients, ["shop/client"]);
    assert_eq!(cause.affected.of, 0, "queries are no attempts");
    for part in ["sys/names port 53", "names (Ready is not True", "shop/cart"] {
        assert!(cause.summary.contains(part), "{}", cause.summary);
    }
    let mut checks = cause.check.iter();
    assert!(checks.any(|c| {
        c.command
            .contains("-n sys -l kubernetes.io/service-name=names")
    }));
}

#[test]
fn who_dials_all_the_same_is_warned() {
    for from in [None, Some(client())] {
        let mut s = Story::new("a", with_dns(false), facts_a());
        refused(&mut s, 5001, DNS);
        s.served(4001, backend(), BACKEND_VETH, ms(30));
        let answer = asked(s, from);
        assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
        assert_eq!(severity(&answer), Some(Severity::Warning));
    }
}

#[test]
fn queries_are_not_why_an_attempt_fails() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    let r = reply(4001, remote());
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.nat(vip(4001), r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    let answer = explain(&[s.told(ms(8000))]);
    assert_cause(&answer, "lost-beyond-node", Verdict::Failing);
    assert_eq!(severity(&answer), Some(Severity::Warning));
}

#[test]
fn of_whom_nothing_is_known_nothing_is_concluded() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    let answer = asked(s, None);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert_eq!(severity(&answer), Some(Severity::Info));
    assert!(answer.findings[0].summary.contains("--from"));
}

#[test]
fn others_do_not_matter_where_the_service_is_at_work() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    let q = tuple(Proto::UDP, BACKEND, 5001, DNS, 53);
    s.flow(q, BACKEND_VETH, Direction::Ingress, ms(10), |_| {});
    s.drop(q, NETNS, "NETFILTER_DROP", "nf_hook_slow", None, ms(10));
    s.served(4001, backend(), BACKEND_VETH, ms(30));
    let answer = asked(s, None);
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn who_was_not_asked_for_is_left_out() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    let answer = asked(s, Some(From::Pod(None, "cart".into())));
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn another_resolver_that_answers_is_as_good() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    answered(&mut s, 5002, "198.51.100.53");
    let answer = asked(s, Some(client()));
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert_eq!(severity(&answer), Some(Severity::Warning));
}

#[test]
fn objects_without_queries_say_nothing_of_this_service() {
    let s = Story::new("a", with_dns(false), facts_a());
    let answer = asked(s, Some(client()));
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn answers_are_no_fault_whatever_the_objects_say() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    answered(&mut s, 5001, DNS);
    let answer = asked(s, Some(client()));
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn a_port_that_is_not_dns_is_another_matter() {
    let mut o = with_dns(false);
    o.services[1].ports[0].port = 5353;
    let mut s = Story::new("a", o, facts_a());
    refused(&mut s, 5001, DNS);
    assert_eq!(severity(&asked(s, Some(client()))), None);
}

#[test]
fn who_asks_about_the_resolver_itself_hears_of_its_endpoints() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.namespace = "sys".into();
        start.query.target = Target::Name("names".into());
    }
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "no-endpoints-not-ready", Verdict::Failing);
}

#[test]
fn a_resolver_that_says_nothing_keeps_clients_from_dialling() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    sent(&mut s, 5001);
    sent(&mut s, 5002);
    let answer = asked(s, Some(client()));
    assert_cause(&answer, "dns-timeout", Verdict::Failing);
    let says = &answer.findings[0].summary;
    for part in ["shop/client", "sys/names (10.9.1.9:53)", "shop/cart"] {
        assert!(says.contains(part), "{says}");
    }
}

#[test]
fn what_drops_queries_is_named() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    let reply = sent(&mut s, 5001);
    let at = ms(10);
    s.drop(
        reply.inverse(),
        NETNS,
        "NETFILTER_DROP",
        "nft_do_chain",
        None,
        at,
    );
    let answer = asked(s, Some(client()));
    assert_cause(&answer, "dns-timeout", Verdict::Failing);
    assert!(answer.evidence.iter().any(|e| e.text.contains("dropped")));
}

/// Of two queries to the resolver's Pod the second one's drop was seen.
#[test]
fn a_query_whose_drop_was_not_seen_met_what_the_others_met() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    sent(&mut s, 5001);
    let reply = sent(&mut s, 5002);
    let (reason, place) = ("NETFILTER_DROP", "nf_hook_slow");
    s.drop(reply.inverse(), BACKEND_NETNS, reason, place, None, ms(11));
    let answer = asked(s, Some(client()));
    assert_eq!(critical(&answer), ["dns-timeout"], "{answer:#?}");
    let summary = &answer.findings[0].summary;
    assert!(summary.contains("drops"), "{summary}");
}

#[test]
fn queries_that_no_endpoint_gets_are_not_answered_either() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    let q = query(5001, DNS);
    s.flow(q, CLIENT_VETH, Direction::Ingress, ms(10), |_| {});
    s.flow(q, UPLINK, Direction::Egress, ms(10), |_| {});
    let answer = asked(s, Some(client()));
    assert_cause(&answer, "dns-timeout", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("none of its endpoints"));
}

#[test]
fn a_query_of_just_now_is_not_unanswered() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    sent(&mut s, 5001);
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.from = Some(client());
    }
    let answer = explain(&[s.told(ms(400))]);
    assert!(answer.findings.is_empty(), "{answer:#?}");
}

#[test]
fn a_resolver_that_answers_is_no_fault() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    let reply = sent(&mut s, 5001);
    s.flow(reply, BACKEND_VETH, Direction::Ingress, ms(11), |_| {});
    let back = query(5001, DNS).inverse();
    s.flow(back, CLIENT_VETH, Direction::Egress, ms(11), |_| {});
    let answer = asked(s, Some(client()));
    assert!(answer.findings.is_empty(), "{answer:#?}");
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence);
}

#[test]
fn who_dials_without_an_answer_has_the_address() {
    let mut s = Story::new("a", with_dns(true), facts_a());
    sent(&mut s, 5001);
    s.served(4001, backend(), BACKEND_VETH, ms(30));
    let answer = asked(s, Some(client()));
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    let warned = severity_of(&answer, "dns-timeout");
    assert_eq!(warned, Some(Severity::Warning));
}

#[test]
fn the_resolvers_node_does_not_know_what_else_a_client_of_another_sends() {
    let mut o = with_dns(true);
    o.pods[0].node = Some("b".into());
    let mut facts = facts_a();
    facts.pods.remove(0);
    let mut s = Story::new("a", o, facts);
    sent(&mut s, 5001);
    let answer = asked(s, Some(client()));
    assert!(critical(&answer).is_empty(), "{answer:#?}");
}

#[test]
fn of_a_namespace_not_everybody_is_a_client() {
    let namespace = || Some(From::Namespace("shop".into()));
    // Nobody dials the Service, and this client resolves nothing: that may well be why.
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    let answer = asked(s, namespace());
    assert_cause(&answer, "dns-no-endpoints", Verdict::Failing);
    // Others of the namespace are served.
    let mut s = Story::new("a", with_dns(false), facts_a());
    s.served(4001, backend(), BACKEND_VETH, ms(30));
    let q = tuple(Proto::UDP, BACKEND, 5001, DNS, 53);
    s.flow(q, BACKEND_VETH, Direction::Ingress, ms(10), |_| {});
    s.drop(q, NETNS, "NETFILTER_DROP", "nf_hook_slow", None, ms(10));
    let answer = asked(s, namespace());
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
}

#[test]
fn who_dials_another_port_has_the_address() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    s.served(4001, backend(), BACKEND_VETH, ms(30));
    if let Input::Start(start) = &mut s.inputs[0] {
        start.query.port = Some(9999);
    }
    let answer = asked(s, Some(client()));
    assert_ne!(severity(&answer), Some(Severity::Critical), "{answer:#?}");
}

#[test]
fn queries_are_judged_by_the_endpoints_of_their_time() {
    let mut s = Story::new("a", with_dns(false), facts_a());
    refused(&mut s, 5001, DNS);
    let mut later = with_dns(true);
    later.time = ms(3500);
    s.inputs.push(Input::Objects(Box::new(later)));
    let answer = asked(s, Some(client()));
    assert_eq!(severity_of(&answer, "dns-timeout"), None, "{answer:#?}");
}
