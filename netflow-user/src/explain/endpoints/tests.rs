use super::*;
use crate::model::Proto;
use crate::model::objects::{Labels, Node, SlicePort, TargetPort};
use std::net::IpAddr;

const PORT: u16 = 8080;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// An endpoint written as `address@node conditions`, with r(eady), s(erving), t(erminating).
fn endpoint(text: &str) -> Endpoint {
    let (place, conditions) = text.split_once(' ').unwrap_or((text, ""));
    let (address, node) = place.split_once('@').unwrap_or((place, ""));
    Endpoint {
        addresses: vec![ip(address)],
        ready: conditions.contains('r'),
        serving: conditions.contains('s'),
        terminating: conditions.contains('t'),
        node: (!node.is_empty()).then(|| node.into()),
        ..Endpoint::default()
    }
}

fn slice(endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        namespace: "app".into(),
        name: "web-x".into(),
        service: "web".into(),
        by_controller: false,
        ports: vec![SlicePort {
            name: "http".into(),
            proto: Proto::TCP,
            port: Some(PORT),
        }],
        endpoints,
    }
}

fn service() -> Service {
    Service {
        namespace: "app".into(),
        name: "web".into(),
        ports: vec![ServicePort {
            name: "http".into(),
            proto: Proto::TCP,
            port: 80,
            target: TargetPort::Number(PORT),
            node_port: None,
        }],
        ..Service::default()
    }
}

fn node(name: &str, zone: &str) -> Node {
    Node {
        name: name.into(),
        labels: Labels::from([(ZONE_LABEL.to_owned(), zone.to_owned())]),
        ..Node::default()
    }
}

fn objects(slices: Vec<EndpointSlice>) -> Objects {
    Objects {
        slices: slices.into(),
        nodes: vec![node("n1", "east"), node("n2", "west")].into(),
        ..Objects::default()
    }
}

fn chosen(
    objects: &Objects,
    service: &Service,
    entry: Entry,
    node: Option<&str>,
) -> (Vec<String>, ChoiceRule) {
    let choice = choose(objects, service, &service.ports[0], false, entry, node);
    let addresses = choice
        .backends
        .iter()
        .map(|b| b.address.ip().to_string())
        .collect();
    (addresses, choice.rule)
}

#[test]
fn as_kube_proxy_chooses() {
    use ChoiceRule::{LocalUnknown, NoneLocal, Nothing, Ready, Terminating};
    const N1: Option<&str> = Some("n1");
    // endpoints (last byte of the address), Local policy, client's node → chosen
    let table = [
        ("1@n1 rs, 2@n2 rs", false, N1, "1 2", Ready),
        ("1@n1 rs, 2@n2 s", false, N1, "1", Ready),
        ("1@n1 rs, 2@n2 st", false, N1, "1", Ready),
        ("1@n1, 2@n2 st", false, N1, "2", Terminating),
        ("1@n1 t, 2@n2", false, N1, "", Nothing),
        ("", false, N1, "", Nothing),
        // publishNotReadyAddresses shows in the slice as ready, also while terminating
        ("1@n1 rt", false, None, "1", Ready),
        ("1@n1 rs, 2@n2 rs", true, N1, "1", Ready),
        ("1@n1 st, 2@n2 rs", true, N1, "1", Terminating),
        ("1@n1, 2@n2 rs", true, N1, "", NoneLocal),
        ("2@n2 st", true, N1, "", NoneLocal),
        ("2@n2", true, N1, "", Nothing),
        ("2 rs", true, N1, "", NoneLocal),
        ("1@n1 rs, 2@n2 rs", true, None, "1 2", LocalUnknown),
        ("1@n1", true, None, "", Nothing),
    ];
    for (endpoints, local, node, wanted, rule) in table {
        let list = endpoints.split(", ").filter(|e| !e.is_empty());
        let list = list.map(|e| endpoint(&format!("10.0.0.{e}"))).collect();
        let mut service = service();
        service.internal_local = local;
        let found = chosen(&objects(vec![slice(list)]), &service, Entry::Internal, node);
        let wanted = wanted.split_whitespace().map(|w| format!("10.0.0.{w}"));
        assert_eq!(found, (wanted.collect(), rule), "{endpoints}");
    }
}

#[test]
fn each_way_in_has_its_own_policy() {
    let objects = objects(vec![slice(vec![endpoint("10.0.2.1@n2 rs")])]);
    let mut service = service();
    service.external_local = true;
    let rule = |service: &Service, entry| chosen(&objects, service, entry, Some("n1")).1;
    assert_eq!(rule(&service, Entry::Internal), ChoiceRule::Ready);
    assert_eq!(rule(&service, Entry::External), ChoiceRule::NoneLocal);
    assert_eq!(rule(&service, Entry::ExternalFromInside), ChoiceRule::Ready);
    (service.external_local, service.internal_local) = (false, true);
    assert_eq!(rule(&service, Entry::Internal), ChoiceRule::NoneLocal);
    assert_eq!(rule(&service, Entry::External), ChoiceRule::Ready);
}

#[test]
fn hints_count_only_when_complete_and_served() {
    let hinted = |text: &str, zones: &[&str], nodes: &[&str]| Endpoint {
        zones: zones.iter().map(|z| (*z).into()).collect(),
        node_hints: nodes.iter().map(|n| (*n).into()).collect(),
        ..endpoint(text)
    };
    let east = hinted("10.0.1.1@n1 rs", &["east"], &[]);
    let west = hinted("10.0.2.1@n2 rs", &["west"], &[]);
    let bare = endpoint("10.0.3.1@n2 rs");
    let unready = endpoint("10.0.4.1@n2");
    let rule = |endpoints: Vec<Endpoint>, node| {
        chosen(
            &objects(vec![slice(endpoints)]),
            &service(),
            Entry::Internal,
            node,
        )
    };
    let one = |address: &str, rule| (vec![address.to_owned()], rule);
    let pair = vec![east.clone(), west.clone()];
    assert_eq!(
        rule(pair.clone(), Some("n1")),
        one("10.0.1.1", ChoiceRule::ZoneHints)
    );
    assert_eq!(
        rule(pair.clone(), Some("n2")),
        one("10.0.2.1", ChoiceRule::ZoneHints)
    );
    assert_eq!(rule(pair.clone(), None).1, ChoiceRule::Ready);
    assert_eq!(rule(pair.clone(), Some("unknown")).1, ChoiceRule::Ready);
    // An endpoint without hints spoils them, one that is not ready does not.
    assert_eq!(
        rule(vec![east.clone(), bare], Some("n1")).1,
        ChoiceRule::Ready
    );
    assert_eq!(
        rule(vec![east, unready], Some("n1")).1,
        ChoiceRule::ZoneHints
    );
    // No endpoint for this zone: all of them.
    assert_eq!(
        rule(vec![west], Some("n1")),
        one("10.0.2.1", ChoiceRule::Ready)
    );
    let both = vec![
        hinted("10.0.1.1@n1 rs", &["east", "west"], &["n1"]),
        hinted("10.0.2.1@n2 rs", &["east"], &["n2"]),
    ];
    assert_eq!(
        rule(both, Some("n1")),
        one("10.0.1.1", ChoiceRule::NodeHints)
    );
}

#[test]
fn ports_are_matched_by_name_and_protocol_in_each_slice() {
    let mut second = slice(vec![endpoint("10.0.2.1@n2 rs")]);
    second.ports[0].port = Some(9090);
    let mut unset = slice(vec![endpoint("10.0.3.1@n2 rs")]);
    unset.ports[0].port = None;
    let mut other_name = slice(vec![endpoint("10.0.4.1@n2 rs")]);
    other_name.ports[0].name = "web".into();
    let mut other_proto = slice(vec![endpoint("10.0.5.1@n2 rs")]);
    other_proto.ports[0].proto = Proto::UDP;
    let mut other_service = slice(vec![endpoint("10.0.6.1@n2 rs")]);
    other_service.service = "api".into();
    let objects = objects(vec![
        slice(vec![endpoint("10.0.1.1@n1 rs"), endpoint("fd00::1@n1 rs")]),
        second,
        unset,
        other_name,
        other_proto,
        other_service,
    ]);
    let service = service();
    let list = |ipv6| -> Vec<String> {
        backends(&objects, &service, &service.ports[0], ipv6)
            .iter()
            .map(|b| b.address.to_string())
            .collect()
    };
    assert_eq!(list(false), ["10.0.1.1:8080", "10.0.2.1:9090"]);
    assert_eq!(list(true), ["[fd00::1]:8080"]);
}

#[test]
fn an_address_in_two_slices_counts_once_and_as_ready() {
    let objects = objects(vec![
        slice(vec![endpoint("10.0.1.1@n1")]),
        slice(vec![endpoint("10.0.1.1@n1 rs")]),
    ]);
    assert_eq!(
        chosen(&objects, &service(), Entry::Internal, None),
        (vec!["10.0.1.1".to_owned()], ChoiceRule::Ready)
    );
}
