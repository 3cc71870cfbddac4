//! What looks like a fault and is none, or is another one: things that healthy and foreign clusters do.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Verdict};
use crate::model::conntrack::CtStatus;
use crate::model::flow::Direction;
use crate::model::node::{FirewallRule, NodeFacts, ProxyService};
use crate::model::objects::{NetworkPolicy, Objects, PolicyPeer, PolicyRule, Selector};
use crate::model::{CtTuples, Input, Proto};

#[test]
fn a_ping_of_the_service_address_is_no_attempt() {
    let echo = tuple(Proto::ICMP, CLIENT, 7, VIP, 8 << 8);
    let ct = CtTuples {
        status: CtStatus(0x100),
        ..unconfirmed(echo, echo.inverse())
    };
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    s.drop(
        echo,
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(ct),
        ms(10),
    );
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence, "{answer:#?}");
}

/// `client` dials the node port of A, which turns it away; the only endpoint is on B.
fn local_only(client: &str) -> Answer {
    let mut local = objects(&[REMOTE]);
    local.services[0].external_local = true;
    local.services[0].ports[0].node_port = Some(30_080);
    local.slices[0].endpoints[0].node = Some("b".into());
    let row = ProxyService {
        ip: None,
        port: 30_080,
        drop: true,
        ..rules_to(&[])
    };
    let dialled = tuple(Proto::TCP, client, 5000, NODE_A, 30_080);
    let mut s = Story::new("a", local, ruled(facts_a(), row));
    s.syn(dialled, UPLINK, ms(10), 7, 3);
    s.drop(
        dialled,
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    explain(&[s.told(ms(4000))])
}

#[test]
fn another_node_is_outside_for_a_local_policy() {
    for client in ["203.0.113.9", NODE_B] {
        assert_cause(
            &local_only(client),
            "etp-local-no-endpoint",
            Verdict::Failing,
        );
    }
}

#[test]
fn which_endpoints_a_node_without_a_name_may_use_is_not_known() {
    let mut local = objects(&[REMOTE]);
    local.services[0].internal_local = true;
    local.slices[0].endpoints[0].node = Some("b".into());
    let row = ProxyService {
        drop: true,
        ..rules_to(&[])
    };
    let mut s = Story::new("unknown", local, ruled(facts_a(), row));
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        vip(4001),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    let answer = explain(&[s.told(ms(4000))]);
    assert!(
        !critical(&answer).contains(&"vip-not-translated"),
        "{answer:#?}"
    );
}

#[test]
fn one_number_may_be_the_node_port_of_two_protocols() {
    let mut dns = objects(&[BACKEND]);
    let service = &mut dns.services[0];
    service.ports[0].node_port = Some(30_053);
    let mut datagrams = service.ports[0].clone();
    datagrams.name = "udp".into();
    datagrams.proto = Proto::UDP;
    service.ports.insert(0, datagrams);
    let dialled = tuple(Proto::TCP, "203.0.113.9", 5000, NODE_A, 30_053);
    let to = tuple(Proto::TCP, BACKEND, 8080, "203.0.113.9", 5000);
    let mut s = Story::new("a", dns, facts_a());
    s.syn(dialled, UPLINK, ms(10), 7, 1);
    s.nat(dialled, to, ms(10));
    s.syn_at(to.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s.rst(to, BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(dialled.inverse(), UPLINK, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
}

/// A filter of node A drops the translated packet.
fn filtered(objects: Objects, before: NodeFacts, after: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects, before);
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        r.inverse(),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        Some(unconfirmed(o, r)),
        ms(10),
    );
    s.inputs.push(Input::Node(Box::new(after)));
    explain(&[s.told(ms(4000))])
}

fn with(rules: Vec<FirewallRule>) -> NodeFacts {
    NodeFacts {
        firewall: rules,
        ..facts_a()
    }
}

/// What the finding on top says of a drop by a rule of which nothing more is known.
fn said(objects: Objects) -> String {
    let rules = with(vec![dropping(None)]);
    let answer = filtered(objects, rules.clone(), rules);
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    answer.findings[0].summary.clone()
}

#[test]
fn a_drop_is_not_said_to_have_no_policy_where_one_denies_egress_or_none_was_read() {
    let mut denied = objects(&[BACKEND]);
    denied.policies.push(NetworkPolicy {
        namespace: "shop".into(),
        name: "stay-in".into(),
        egress: Some(Vec::new()),
        ..NetworkPolicy::default()
    });
    let summary = said(denied.clone());
    assert!(summary.contains("shop/stay-in"), "{summary}");
    assert!(!summary.contains("no NetworkPolicy explains"), "{summary}");

    let mut unread = objects(&[BACKEND]);
    unread.unknown_kinds.push("NetworkPolicy".into());
    let summary = said(unread);
    assert!(!summary.contains("no NetworkPolicy explains"), "{summary}");

    denied.policies[0].egress = Some(vec![PolicyRule::default()]);
    let summary = said(denied);
    assert!(summary.contains("no NetworkPolicy explains"), "{summary}");
}

#[test]
fn labels_of_a_namespace_that_was_not_given_deny_nothing() {
    let mut foreign = objects(&[BACKEND]);
    foreign.pods[0].namespace = "front".into();
    let team = Selector {
        labels: [("team".to_owned(), "a".to_owned())].into(),
        ..Selector::default()
    };
    foreign.policies.push(NetworkPolicy {
        namespace: "shop".into(),
        name: "locked".into(),
        ingress: Some(vec![PolicyRule {
            peers: vec![PolicyPeer::Pods {
                pods: None,
                namespaces: Some(team),
            }],
            ports: Vec::new(),
        }]),
        ..NetworkPolicy::default()
    });
    let summary = said(foreign.clone());
    assert!(!summary.contains("no NetworkPolicy explains"), "{summary}");
    foreign.namespaces.push(crate::model::objects::Namespace {
        name: "front".into(),
        ..Default::default()
    });
    let rules = with(vec![dropping(None)]);
    let answer = filtered(foreign, rules.clone(), rules);
    assert_cause(&answer, "policy-denied-ingress", Verdict::Failing);
}

#[test]
fn a_rule_for_invalid_packets_drops_none_that_conntrack_knows() {
    let invalid = |packets| FirewallRule {
        mode: "iptables-nft".into(),
        table: "filter".into(),
        chain: "KUBE-FORWARD".into(),
        text: "ct state invalid".into(),
        comment: None,
        partial: true,
        matches: None,
        ..dropping(Some(packets))
    };
    let mute = FirewallRule {
        hook: None,
        ..dropping(None)
    };
    let answer = filtered(
        objects(&[BACKEND]),
        with(vec![invalid(40), mute.clone()]),
        with(vec![invalid(48), mute]),
    );
    assert_cause(&answer, "firewall-drop", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(!summary.contains("KUBE-FORWARD"), "{summary}");
}

#[test]
fn copies_that_a_bridge_in_promiscuous_mode_hands_up_are_no_stray_frames() {
    let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 3);
    s.drop(r.inverse(), NETNS, "OTHERHOST", "ip_rcv_core", None, ms(10));
    let answer = explain(&[s.told(ms(4000))]);
    assert!(
        !critical(&answer).contains(&"neighbor-stale"),
        "{answer:#?}"
    );
}

/// Two clients: one is served by the local backend, the other is not answered by the remote one.
fn two_clients(both: bool) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND, REMOTE]), facts_a());
    let other = "10.9.1.6";
    for i in 0..12 {
        s.served(4100 + i, backend(), BACKEND_VETH, ms(20 + u64::from(i)));
    }
    let client = if both { CLIENT } else { other };
    let o = tuple(Proto::TCP, client, 4001, VIP, 80);
    let r = tuple(Proto::TCP, REMOTE, 8080, client, 4001);
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), UPLINK, Direction::Egress, ms(10), 7, 3);
    s.syn_ack(r, UPLINK, Direction::Ingress, ms(11));
    explain(&[s.told(ms(4000))])
}

#[test]
fn an_endpoint_is_not_bad_for_a_client_that_no_endpoint_served() {
    assert!(critical(&two_clients(true)).contains(&"one-bad-endpoint"));
    assert!(!critical(&two_clients(false)).contains(&"one-bad-endpoint"));
}
