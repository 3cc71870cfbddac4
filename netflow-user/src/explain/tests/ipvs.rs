//! IPVS without conntrack (`net.ipv4.vs.conntrack=0`): what its own records show in place of translated entries.

use super::codes::*;
use super::story::*;
use crate::model::answer::{Answer, Evidence, HopState, State, Verdict};
use crate::model::flow::Direction;
use crate::model::node::{Listener, NodeFacts, ProxyService};
use crate::model::objects::Objects;
use crate::model::record::IpvsMethod;
use crate::model::{Proto, Tuple};
use std::net::SocketAddr;

/// The virtual server of the Service on a node that has its address, as kube-proxy gives it one.
fn virtual_server(mut facts: NodeFacts, backends: &[SocketAddr]) -> NodeFacts {
    facts.links[0].addrs.push((ip(VIP), 32));
    served(facts, backends)
}

fn served(facts: NodeFacts, backends: &[SocketAddr]) -> NodeFacts {
    let row = ProxyService {
        mode: "ipvs".into(),
        place: format!("virtual server {VIP}:80"),
        reject: backends.is_empty(),
        ..rules_to(backends)
    };
    ruled(facts, row)
}

/// A SYN to the VIP that IPVS sends to the local backend, with what the backend says to it.
fn sent(facts: NodeFacts, to: SocketAddr) -> Story {
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    let (o, r) = (vip(4001), reply(4001, to));
    s.syn(o, CLIENT_VETH, ms(10), 7, 1);
    s.ipvs(o, IpvsMethod::Nat, Some(to), ms(10));
    s.syn_at(r.inverse(), BACKEND_VETH, Direction::Egress, ms(10), 7, 1);
    s
}

fn hops(answer: &Answer) -> Vec<&'static str> {
    let passed = |h: &&HopState| h.state == State::Ok;
    let hops = answer.paths[0].hops.iter();
    hops.filter(passed).map(|h| h.hop.name()).collect()
}

#[test]
fn the_path_is_whole_where_conntrack_shows_nothing() {
    let mut s = sent(virtual_server(facts_a(), &[backend()]), backend());
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.syn_ack(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.syn_ack(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_eq!(answer.verdict, Verdict::Healthy, "{answer:#?}");
    assert_eq!(answer.paths.len(), 1, "{answer:#?}");
    let backend = answer.paths[0].backend.as_deref();
    assert_eq!(backend, Some("shop/cart"));
    let all = [
        "client", "vip", "dnat", "policy", "route", "backend", "listener", "return", "unnat",
    ];
    assert_eq!(hops(&answer), all);
}

#[test]
fn a_refusal_behind_ipvs_is_the_backends() {
    let mut facts = virtual_server(facts_a(), &[backend()]);
    facts.pods[1].listeners.push(Listener {
        proto: Proto::TCP,
        addr: SocketAddr::new(ip("0.0.0.0"), 9090),
        v6only: false,
        queue: 0,
        backlog: 128,
        ephemeral: false,
    });
    let mut s = sent(facts, backend());
    let (o, r) = (vip(4001), reply(4001, backend()));
    s.rst(r, BACKEND_VETH, Direction::Ingress, ms(11));
    s.rst(o.inverse(), CLIENT_VETH, Direction::Egress, ms(11));
    let answer = explain(&[s.told(ms(3000))]);
    assert_cause(&answer, "listener-missing", Verdict::Failing);
    let shown = |t: &str| answer.evidence.iter().any(|e| e.text.contains(t));
    assert!(
        shown("IPVS: 172.30.4.4:80 is translated to shop/cart"),
        "{answer:#?}"
    );
    assert!(!shown("conntrack: "), "{answer:#?}");
}

#[test]
fn a_real_server_that_the_slices_lack_is_stale_where_a_syn_shows_it_is_chosen() {
    let gone = SocketAddr::new(ip("10.9.1.99"), 8080);
    let mut s = sent(virtual_server(facts_a(), &[backend()]), gone);
    let r = reply(4001, gone);
    s.neighbor_failed(r.inverse(), ms(3010));
    let answer = explain(&[s.told(ms(4000))]);
    assert_cause(&answer, "proxy-rules-stale", Verdict::Failing);
}

#[test]
fn what_ipvs_remembers_of_datagrams_says_nothing_of_its_servers() {
    let gone = SocketAddr::new(ip("10.9.1.99"), 8080);
    let mut all = objects(&[BACKEND]);
    all.services[0].ports[0].proto = Proto::UDP;
    all.slices[0].ports[0].proto = Proto::UDP;
    let o = tuple(Proto::UDP, CLIENT, 4001, VIP, 80);
    let mut facts = virtual_server(facts_a(), &[backend()]);
    facts.proxy.services[0].proto = Proto::UDP;
    let mut s = Story::new("a", all, facts);
    s.flow(o, CLIENT_VETH, Direction::Ingress, ms(10), |f| {
        f.packets = 3;
        f.last = ms(2500);
    });
    s.ipvs(o, IpvsMethod::Nat, Some(gone), ms(10));
    let sent = Tuple {
        dst: gone.ip(),
        dport: gone.port(),
        ..o
    };
    s.neighbor_failed(sent, ms(3010));
    let answer = explain(&[s.told(ms(4000))]);
    assert!(
        !critical(&answer).contains(&"proxy-rules-stale"),
        "{answer:#?}"
    );
}

/// IPVS has no real server for what is dialled, and says so.
fn turned_away(objects: Objects) -> Answer {
    let facts = virtual_server(facts_a(), &[]);
    let mut s = Story::new("a", objects, facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 1);
    s.ipvs(vip(4001), IpvsMethod::NoDestination, None, ms(10));
    s.drop(
        vip(4001),
        NETNS,
        "NETFILTER_DROP",
        "nf_hook_slow",
        None,
        ms(10),
    );
    s.unreachable(VIP, vip(4001), 3, 0, ms(10));
    explain(&[s.told(ms(3000))])
}

#[test]
fn a_virtual_server_without_real_ones_is_evidence() {
    let answer = turned_away(objects(&[BACKEND]));
    assert_cause(&answer, "vip-not-translated", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(summary.contains("as if the Service had no endpoint"));
    let mut none = objects(&[]);
    none.services[0].selector = Some([("app".to_owned(), "basket".to_owned())].into());
    let answer = turned_away(none);
    assert_cause(&answer, "no-endpoints-selector", Verdict::Failing);
    let cited = &answer.findings[0].evidence;
    let said = |e: &&Evidence| {
        cited.contains(&e.id) && e.text == "IPVS has no destination for 172.30.4.4:80"
    };
    assert!(answer.evidence.iter().any(|e| said(&e)), "{answer:#?}");
}

/// The packet leaves the node by the default route as it came.
fn leaves_as_it_is(facts: NodeFacts, method: Option<IpvsMethod>) -> Answer {
    let mut s = Story::new("a", objects(&[BACKEND]), facts);
    s.syn(vip(4001), CLIENT_VETH, ms(10), 7, 3);
    if let Some(method) = method {
        s.ipvs(vip(4001), method, Some(backend()), ms(10));
    }
    s.syn_at(vip(4001), UPLINK, Direction::Egress, ms(10), 7, 3);
    explain(&[s.told(ms(9000))])
}

#[test]
fn an_address_that_the_node_does_not_have_never_comes_to_ipvs() {
    let answer = leaves_as_it_is(served(facts_a(), &[backend()]), None);
    assert_cause(&answer, "vip-not-translated", Verdict::Failing);
    let summary = &answer.findings[0].summary;
    assert!(summary.contains("IPVS sees only what"), "{summary}");
}

#[test]
fn a_way_of_ipvs_that_does_not_translate_is_no_missing_translation() {
    for method in [IpvsMethod::Direct, IpvsMethod::Tunnel, IpvsMethod::Local] {
        let facts = virtual_server(facts_a(), &[backend()]);
        let answer = leaves_as_it_is(facts, Some(method));
        assert!(
            !critical(&answer).contains(&"vip-not-translated"),
            "{method:?}: {answer:#?}"
        );
    }
}
