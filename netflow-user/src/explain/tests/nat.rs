//! Packets that turn round on the node, and answers that pass by its translation.

use super::codes::*;
use super::story::*;
use crate::model::Proto;
use crate::model::answer::{Answer, Verdict};
use crate::model::flow::Direction;
use crate::model::node::NodeFacts;
use std::net::SocketAddr;

fn itself() -> SocketAddr {
    SocketAddr::new(ip(CLIENT), 8080)
}

/// The client is the backend as well.
fn own_service() -> crate::model::objects::Objects {
    let mut all = objects(&[CLIENT]);
    all.pods[0].labels.insert("app".into(), "cart".into());
    all
}

fn bridged(hairpin: bool) -> NodeFacts {
    let mut facts = facts_a();
    for link in facts.links.iter_mut().filter(|l| l.ifindex != UPLINK) {
        (link.master, link.hairpin) = (9, hairpin);
    }
    facts
}

/// The Pod's packet to itself is dropped in `netns` at `place`.
fn turned(netns: u32, reason: &str, place: &str, facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", own_service(), facts);
    let (o, r) = (vip(4001), reply(4001, itself()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.drop(
        r.inverse(),
        netns,
        reason,
        place,
        Some(unconfirmed(o, r)),
        ms(10),
    );
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_bridge_that_does_not_send_back_is_named_with_its_port() {
    let answer = turned(
        NETNS,
        "NOT_SPECIFIED",
        "br_handle_frame_finish",
        bridged(false),
    );
    assert_cause(&answer, "hairpin", Verdict::Failing);
    let found = &answer.findings[0];
    assert!(found.summary.contains("bridge port v-client"));
    assert!(found.fix[0].command.contains("dev v-client hairpin on"));
}

#[test]
fn a_packet_with_the_own_address_as_source_was_not_masqueraded() {
    for (reason, place) in [
        ("IP_LOCAL_SOURCE", "ip_rcv_finish_core"),
        ("NOT_SPECIFIED", "ip_rcv_finish_core"),
    ] {
        let answer = turned(BACKEND_NETNS + 1, reason, place, facts_a());
        assert_cause(&answer, "hairpin", Verdict::Failing);
        assert!(answer.findings[0].summary.contains("no rule masquerades"));
    }
}

#[test]
fn a_pod_that_answers_itself_was_sent_its_own_packet() {
    let mut s = Story::new("a", own_service(), facts_a());
    let (o, r) = (vip(4001), reply(4001, itself()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    let ct = s.nat(o, r, ms(10));
    // IPv6 lets it in; what the client got from itself, it had not asked itself for.
    s.drop(
        r,
        BACKEND_NETNS + 1,
        "NO_SOCKET",
        "tcp_v6_rcv",
        Some(ct),
        ms(11),
    );
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "hairpin", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("no rule masquerades"));
}

#[test]
fn a_routed_pod_that_is_sent_its_own_packet_back_shows_it_without_a_drop() {
    let sent_back = |to: SocketAddr, out: u32| {
        let mut all = own_service();
        all.slices[0].endpoints[0].addresses = vec![to.ip()];
        let mut s = Story::new("a", all, facts_a());
        let (o, r) = (vip(4001), reply(4001, to));
        s.syn(o, CLIENT_VETH, ms(10), 7, 3);
        s.nat(o, r, ms(10));
        s.syn_at(r.inverse(), out, Direction::Egress, ms(10), 7, 3);
        explain(&[s.told(ms(3000))])
    };
    assert_cause(
        &sent_back(itself(), CLIENT_VETH),
        "hairpin",
        Verdict::Failing,
    );
    let other = sent_back(backend(), BACKEND_VETH);
    assert!(other.findings.iter().all(|f| f.code != "hairpin"));
}

/// The local backend's SYN-ACK reaches the client in the form given.
fn answered(as_pod: bool, facts: NodeFacts) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn(o, CLIENT_VETH, ms(10), 7, 3);
    s.nat(o, r, ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 3);
    s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(11));
    let seen = if as_pod { r } else { o.inverse() };
    s.syn_ack(seen, CLIENT_VETH, Direction::Egress, ms(11));
    if as_pod {
        s.flow(r.inverse(), CLIENT_VETH, Direction::Ingress, ms(12), |f| {
            f.flags = crate::model::flow::TcpFlags(4);
            f.rst = Some(ms(12));
        });
    }
    explain(&[s.told(ms(3000))])
}

#[test]
fn an_answer_as_from_the_pod_is_not_taken() {
    let answer = answered(true, bridged(true));
    assert_cause(&answer, "reply-bypasses-nat", Verdict::Failing);
    assert!(answer.findings[0].summary.contains("br_netfilter"));
    let mut set = bridged(true);
    let name = "net.bridge.bridge-nf-call-iptables";
    set.sysctls.insert(name.into(), "1".into());
    let answer = answered(true, set);
    assert_cause(&answer, "reply-bypasses-nat", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(summary.contains("not known"), "{summary}");
    assert_eq!(
        answered(false, bridged(true)).verdict,
        Verdict::Healthy,
        "translated back"
    );
}

#[test]
fn a_masqueraded_client_is_worth_knowing_unless_it_is_a_node() {
    for (client, hidden) in [("203.0.113.9", true), (NODE_B, false)] {
        let mut s = Story::new("a", objects(&[BACKEND]), facts_a());
        let o = tuple(Proto::TCP, client, 4001, VIP, 80);
        let r = tuple(Proto::TCP, BACKEND, 8080, NODE_A, 61_001);
        s.syn(o, UPLINK, ms(10), 7, 1);
        s.nat(o, r, ms(10));
        s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
        s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(11));
        s.syn_ack(o.inverse(), UPLINK, Direction::Egress, ms(11));
        let answer = explain(&[s.told(ms(3000))]);
        assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
        let told = answer
            .findings
            .iter()
            .any(|f| f.code == "source-ip-masqueraded");
        assert_eq!(told, hidden, "{client}");
    }
}
