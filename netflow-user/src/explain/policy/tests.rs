use super::*;
use crate::model::objects::{Condition, ContainerPort, Limit, Namespace, Node, Requirement};
use crate::model::shared::Name;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn select(pairs: &[(&str, &str)]) -> Selector {
    Selector {
        labels: labels(pairs),
        expressions: vec![],
    }
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Selector {
    Selector {
        labels: Labels::default(),
        expressions: vec![Requirement {
            key: key.into(),
            operator: operator.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }],
    }
}

fn pod(namespace: &str, name: &str, address: &str, node: &str, pairs: &[(&str, &str)]) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        labels: labels(pairs),
        ips: vec![ip(address)],
        node: Some(node.into()),
        phase: "Running".into(),
        conditions: [(
            "Ready".to_owned(),
            Condition {
                status: true,
                reason: Name::default(),
            },
        )]
        .into(),
        ..Pod::default()
    }
}

fn pods(pods: Option<Selector>, namespaces: Option<Selector>) -> PolicyPeer {
    PolicyPeer::Pods { pods, namespaces }
}

fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    PolicyPeer::Block {
        cidr: cidr::parse(cidr).unwrap_or((ip("0.0.0.0"), 32)),
        except: except.iter().filter_map(|e| cidr::parse(e)).collect(),
    }
}

fn tcp(port: Option<TargetPort>, end_port: Option<u16>) -> PolicyPort {
    PolicyPort {
        proto: Proto::TCP,
        port,
        end_port,
    }
}

fn number(port: u16) -> PolicyPort {
    tcp(Some(TargetPort::Number(port)), None)
}

fn rule(peers: &[PolicyPeer], ports: &[PolicyPort]) -> PolicyRule {
    PolicyRule {
        peers: peers.to_vec(),
        ports: ports.to_vec(),
    }
}

fn ingress_policy(name: &str, selector: Selector, rules: &[PolicyRule]) -> NetworkPolicy {
    NetworkPolicy {
        namespace: "shop".into(),
        name: name.into(),
        pod_selector: selector,
        ingress: Some(rules.to_vec()),
        egress: None,
    }
}

/// Namespaces shop (team=shop), tools (team=infra) and one without an object; a server in shop and its clients.
fn cluster(policies: Vec<NetworkPolicy>) -> Objects {
    let mut server = pod("shop", "server", "10.1.1.1", "n1", &[("app", "server")]);
    server.ips.push(ip("fd00:1::1"));
    server.ports = vec![
        ContainerPort {
            container: "main".into(),
            name: "web".into(),
            port: 8080,
            proto: Proto::TCP,
        },
        ContainerPort {
            container: "main".into(),
            name: "dns".into(),
            port: 5353,
            proto: Proto::UDP,
        },
    ]
    .into();
    let mut agent = pod("tools", "agent", "192.0.2.2", "n2", &[("role", "front")]);
    agent.host_network = true;
    Objects {
        pods: vec![
            server,
            pod("shop", "front", "10.1.2.1", "n2", &[("role", "front")]),
            pod("shop", "batch", "10.1.2.2", "n2", &[("role", "batch")]),
            pod("tools", "probe", "10.1.2.3", "n2", &[("role", "front")]),
            pod("bare", "x", "10.1.2.4", "n2", &[]),
            agent,
        ]
        .into(),
        namespaces: vec![
            Namespace {
                name: "shop".into(),
                labels: labels(&[("team", "shop")]),
            },
            Namespace {
                name: "tools".into(),
                labels: labels(&[("team", "infra")]),
            },
        ]
        .into(),
        nodes: ["n1", "n2"]
            .iter()
            .zip(["192.0.2.1", "192.0.2.2"])
            .map(|(name, address)| Node {
                name: (*name).to_owned(),
                internal_ips: vec![ip(address)],
                ..Node::default()
            })
            .collect(),
        policies: policies.into(),
        ..Objects::default()
    }
}

const FRONT: &str = "10.1.2.1";
const BATCH: &str = "10.1.2.2";
const PROBE: &str = "10.1.2.3";
const BARE: &str = "10.1.2.4";
const OUTSIDE: &str = "203.0.113.9";
const OTHER_NODE: &str = "192.0.2.2";
const OWN_NODE: &str = "192.0.2.1";

fn to_server(objects: &Objects, from: &str, proto: Proto, port: u16) -> Verdict {
    let tuple = Tuple {
        proto,
        src: ip(from),
        sport: 40_000,
        dst: ip(if from.contains(':') {
            "fd00:1::1"
        } else {
            "10.1.1.1"
        }),
        dport: port,
    };
    ingress(objects, &tuple).unwrap_or(Verdict::Unknown)
}

fn admitted(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Exempt(_) | Verdict::NotIsolated | Verdict::Allowed { .. } => true,
        Verdict::Denied { .. } | Verdict::Unknown => false,
    }
}

#[test]
fn ingress_peers() {
    let any = Selector::default;
    // rule's peers → which of the clients get in
    let table: Vec<(&str, Vec<PolicyPeer>, &[&str])> = vec![
        (
            "no peers admit everybody",
            vec![],
            &[FRONT, BATCH, PROBE, BARE, OUTSIDE, OTHER_NODE],
        ),
        (
            "podSelector means the policy's own namespace",
            vec![pods(Some(select(&[("role", "front")])), None)],
            &[FRONT],
        ),
        (
            "an empty podSelector: all Pods of the own namespace, nobody else",
            vec![pods(Some(any()), None)],
            &[FRONT, BATCH],
        ),
        (
            "namespaceSelector alone: all Pods of those namespaces",
            vec![pods(None, Some(select(&[("team", "infra")])))],
            &[PROBE],
        ),
        (
            "an empty namespaceSelector: all Pods of all namespaces, no address outside",
            vec![pods(None, Some(any()))],
            &[FRONT, BATCH, PROBE, BARE],
        ),
        (
            "both in one peer: and",
            vec![pods(
                Some(select(&[("role", "front")])),
                Some(select(&[("team", "shop")])),
            )],
            &[FRONT],
        ),
        (
            "both in two peers: or",
            vec![
                pods(Some(select(&[("role", "batch")])), None),
                pods(None, Some(select(&[("team", "infra")]))),
            ],
            &[BATCH, PROBE],
        ),
        (
            "a namespace without object has its name as label",
            vec![pods(
                None,
                Some(select(&[("kubernetes.io/metadata.name", "bare")])),
            )],
            &[BARE],
        ),
        (
            "so has one with an object that does not show it",
            vec![pods(
                None,
                Some(expression(
                    "kubernetes.io/metadata.name",
                    "In",
                    &["tools", "none"],
                )),
            )],
            &[PROBE],
        ),
        (
            "NotIn admits Pods without the label",
            vec![pods(
                Some(expression("role", "NotIn", &["front"])),
                Some(any()),
            )],
            &[BATCH, BARE],
        ),
        (
            "DoesNotExist admits only Pods without the label",
            vec![pods(
                Some(expression("role", "DoesNotExist", &[])),
                Some(any()),
            )],
            &[BARE],
        ),
        (
            "ipBlock counts for Pods and others alike",
            vec![block("10.1.2.0/30", &[])],
            &[FRONT, BATCH, PROBE],
        ),
        (
            "except takes out of the block",
            vec![block("0.0.0.0/0", &["10.1.0.0/16", "192.0.2.0/24"])],
            &[OUTSIDE],
        ),
        (
            "an exception of one block is no bar to another peer",
            vec![
                block("0.0.0.0/0", &["10.1.0.0/16"]),
                pods(Some(select(&[("role", "front")])), None),
            ],
            &[FRONT, OUTSIDE, OTHER_NODE],
        ),
        (
            "labels never admit a Pod on the node's network",
            vec![pods(Some(select(&[("role", "front")])), Some(any()))],
            &[FRONT, PROBE],
        ),
        (
            "an IPv6 block admits no IPv4",
            vec![block("::/0", &[])],
            &[],
        ),
    ];
    for (what, peers, wanted) in table {
        let policy = ingress_policy("p", select(&[("app", "server")]), &[rule(&peers, &[])]);
        let objects = cluster(vec![policy]);
        for from in [FRONT, BATCH, PROBE, BARE, OUTSIDE, OTHER_NODE] {
            let verdict = to_server(&objects, from, Proto::TCP, 8080);
            assert_eq!(
                admitted(&verdict),
                wanted.contains(&from),
                "{what}: {from}: {verdict:?}"
            );
        }
    }
}

#[test]
fn ingress_ports() {
    let name = |n: &str| Some(TargetPort::Name(n.into()));
    let udp = |port| PolicyPort {
        proto: Proto::UDP,
        port,
        end_port: None,
    };
    let table: Vec<(&str, Vec<PolicyPort>, Proto, u16, bool)> = vec![
        ("no ports: every port", vec![], Proto::TCP, 9999, true),
        (
            "no ports: every protocol",
            vec![],
            Proto::ICMP,
            0x0800,
            true,
        ),
        ("number", vec![number(8080)], Proto::TCP, 8080, true),
        (
            "another number",
            vec![number(8080)],
            Proto::TCP,
            8081,
            false,
        ),
        (
            "another protocol",
            vec![number(8080)],
            Proto::UDP,
            8080,
            false,
        ),
        ("protocol only", vec![tcp(None, None)], Proto::TCP, 1, true),
        (
            "protocol only, another",
            vec![tcp(None, None)],
            Proto::UDP,
            1,
            false,
        ),
        (
            "range, first",
            vec![tcp(Some(TargetPort::Number(8000)), Some(8090))],
            Proto::TCP,
            8000,
            true,
        ),
        (
            "range, last",
            vec![tcp(Some(TargetPort::Number(8000)), Some(8090))],
            Proto::TCP,
            8090,
            true,
        ),
        (
            "range, beyond",
            vec![tcp(Some(TargetPort::Number(8000)), Some(8090))],
            Proto::TCP,
            8091,
            false,
        ),
        ("name", vec![tcp(name("web"), None)], Proto::TCP, 8080, true),
        (
            "name, another port",
            vec![tcp(name("web"), None)],
            Proto::TCP,
            80,
            false,
        ),
        (
            "name that the Pod has for another protocol",
            vec![tcp(name("dns"), None)],
            Proto::TCP,
            5353,
            false,
        ),
        (
            "name and protocol",
            vec![udp(name("dns"))],
            Proto::UDP,
            5353,
            true,
        ),
        (
            "one of several",
            vec![number(1), number(8080)],
            Proto::TCP,
            8080,
            true,
        ),
        (
            "ports never admit ICMP",
            vec![number(8080)],
            Proto::ICMP,
            8080,
            false,
        ),
    ];
    for (what, ports, proto, port, wanted) in table {
        let objects = cluster(vec![ingress_policy(
            "p",
            Selector::default(),
            &[rule(&[], &ports)],
        )]);
        let verdict = to_server(&objects, FRONT, proto, port);
        assert_eq!(admitted(&verdict), wanted, "{what}: {verdict:?}");
    }
}

#[test]
fn peer_and_port_must_hold_in_the_same_rule() {
    let front = pods(Some(select(&[("role", "front")])), None);
    let batch = pods(Some(select(&[("role", "batch")])), None);
    let objects = cluster(vec![ingress_policy(
        "p",
        Selector::default(),
        &[
            rule(std::slice::from_ref(&front), &[number(80)]),
            rule(&[batch], &[number(8080)]),
        ],
    )]);
    assert!(!admitted(&to_server(&objects, FRONT, Proto::TCP, 8080)));
    assert!(admitted(&to_server(&objects, FRONT, Proto::TCP, 80)));
    assert!(admitted(&to_server(&objects, BATCH, Proto::TCP, 8080)));
}

#[test]
fn isolation() {
    let other_namespace = NetworkPolicy {
        namespace: "tools".into(),
        name: "p".into(),
        ingress: Some(vec![]),
        ..NetworkPolicy::default()
    };
    let other_pods = ingress_policy("p", select(&[("app", "other")]), &[]);
    let mut egress_only = ingress_policy("p", Selector::default(), &[]);
    egress_only.ingress = None;
    egress_only.egress = Some(vec![]);
    for policy in [other_namespace, other_pods, egress_only] {
        let objects = cluster(vec![policy]);
        assert_eq!(
            to_server(&objects, FRONT, Proto::TCP, 8080),
            Verdict::NotIsolated
        );
    }

    let deny = ingress_policy("deny-all", Selector::default(), &[]);
    let objects = cluster(vec![deny.clone()]);
    let Verdict::Denied { policies } = to_server(&objects, FRONT, Proto::TCP, 8080) else {
        panic!("a policy without rules admits nothing");
    };
    assert_eq!(policies[0].policy.to_string(), "shop/deny-all");
    assert_eq!(policies[0].nearest(), None);

    // Policies add up: what one admits, another cannot take away.
    let allow = ingress_policy("allow", Selector::default(), &[rule(&[], &[number(8080)])]);
    let objects = cluster(vec![deny, allow]);
    assert_eq!(
        to_server(&objects, FRONT, Proto::TCP, 8080),
        Verdict::Allowed {
            policy: PolicyName {
                namespace: "shop".into(),
                name: "allow".into()
            },
            rule: 0
        }
    );
    let Verdict::Denied { policies } = to_server(&objects, FRONT, Proto::TCP, 81) else {
        panic!("port 81 is admitted by none");
    };
    assert_eq!(policies.len(), 2);
}

#[test]
fn exemptions() {
    let mut objects = cluster(vec![ingress_policy("deny", Selector::default(), &[])]);
    let verdict = |objects: &Objects, from| to_server(objects, from, Proto::TCP, 8080);
    assert_eq!(
        verdict(&objects, OWN_NODE),
        Verdict::Exempt(Exemption::OwnNode)
    );
    assert_eq!(
        verdict(&objects, "10.1.1.1"),
        Verdict::Exempt(Exemption::Itself)
    );
    assert!(!admitted(&verdict(&objects, OTHER_NODE)));
    // Without Node objects a Pod on the node's network still tells which node an address is.
    objects.nodes.clear();
    objects.pods[5].node = Some("n1".into());
    assert_eq!(
        verdict(&objects, OTHER_NODE),
        Verdict::Exempt(Exemption::OwnNode)
    );
    objects.pods[5].namespace = "shop".into();
    assert_eq!(
        evaluate(
            &objects,
            Side::Ingress,
            &objects.pods[5],
            ip(FRONT),
            Proto::TCP,
            1
        ),
        Verdict::Exempt(Exemption::HostNetwork)
    );
}

#[test]
fn what_is_not_known_is_not_denied() {
    let mut objects = cluster(vec![]);
    assert_eq!(
        to_server(&objects, FRONT, Proto::TCP, 1),
        Verdict::NotIsolated
    );
    objects.unknown_kinds = vec!["NetworkPolicy".into()];
    assert_eq!(to_server(&objects, FRONT, Proto::TCP, 1), Verdict::Unknown);
    let nobody = Tuple {
        proto: Proto::TCP,
        src: ip(OUTSIDE),
        sport: 1,
        dst: ip("10.9.9.9"),
        dport: 1,
    };
    assert_eq!(ingress(&objects, &nobody), None);
}

#[test]
fn a_peer_that_may_be_a_pod_which_could_not_be_read_is_not_denied() {
    let admits = PolicyPeer::Pods {
        pods: None,
        namespaces: Some(Selector::default()),
    };
    let rule = PolicyRule {
        peers: vec![admits],
        ports: Vec::new(),
    };
    let policy = ingress_policy("in", Selector::default(), &[rule]);
    let mut objects = cluster(vec![policy]);
    let limit = |kind: &str, namespaces: &[&str]| Limit {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
        why: "forbidden".into(),
    };
    let denied = |objects: &Objects| {
        let verdict = to_server(objects, OUTSIDE, Proto::TCP, 1);
        matches!(verdict, Verdict::Denied { .. })
    };
    assert!(denied(&objects));
    objects.limits = vec![limit("Pod", &["shop"])];
    assert_eq!(
        to_server(&objects, OUTSIDE, Proto::TCP, 1),
        Verdict::Unknown
    );
    // Whose policies could not be read is not known to be free of them either.
    objects.limits = vec![limit("NetworkPolicy", &["other"])];
    objects.policies.clear();
    assert_eq!(to_server(&objects, FRONT, Proto::TCP, 1), Verdict::Unknown);
    objects.limits = vec![limit("NetworkPolicy", &["shop"])];
    assert_eq!(
        to_server(&objects, FRONT, Proto::TCP, 1),
        Verdict::NotIsolated
    );
}

#[test]
fn egress_looks_at_the_destination() {
    let mut policy = ingress_policy("out", select(&[("role", "front")]), &[]);
    policy.ingress = None;
    policy.egress = Some(vec![
        rule(
            &[pods(Some(select(&[("app", "server")])), None)],
            &[tcp(Some(TargetPort::Name("web".into())), None)],
        ),
        rule(&[block("203.0.113.0/24", &[])], &[number(443)]),
        rule(
            &[block("198.51.100.0/24", &[])],
            &[tcp(Some(TargetPort::Name("web".into())), None)],
        ),
    ]);
    let objects = cluster(vec![policy]);
    let from_front = |dst: &str, dport| {
        let tuple = Tuple {
            proto: Proto::TCP,
            src: ip(FRONT),
            sport: 40_000,
            dst: ip(dst),
            dport,
        };
        egress(&objects, &tuple).unwrap_or(Verdict::Unknown)
    };
    assert!(admitted(&from_front("10.1.1.1", 8080)));
    assert!(!admitted(&from_front("10.1.1.1", 80)));
    assert!(!admitted(&from_front(BATCH, 8080)));
    assert!(admitted(&from_front(OUTSIDE, 443)));
    assert!(!admitted(&from_front(OUTSIDE, 80)));
    // A name has no number where the destination is no Pod.
    assert!(!admitted(&from_front("198.51.100.1", 8080)));
    // Another Pod of the namespace is not isolated, and ingress of this one is not either.
    let batch = Tuple {
        proto: Proto::TCP,
        src: ip(BATCH),
        sport: 1,
        dst: ip(OUTSIDE),
        dport: 80,
    };
    assert_eq!(egress(&objects, &batch), Some(Verdict::NotIsolated));
    assert_eq!(
        ingress(&objects, &batch_to_front()),
        Some(Verdict::NotIsolated)
    );
}

fn batch_to_front() -> Tuple {
    Tuple {
        proto: Proto::TCP,
        src: ip(BATCH),
        sport: 1,
        dst: ip(FRONT),
        dport: 80,
    }
}

#[test]
fn ipv6_by_block_and_by_label() {
    let policy = ingress_policy(
        "p",
        Selector::default(),
        &[
            rule(&[block("2001:db8::/32", &["2001:db8:bad::/48"])], &[]),
            rule(&[pods(Some(select(&[("role", "front")])), None)], &[]),
        ],
    );
    let mut objects = cluster(vec![policy]);
    objects.pods[1].ips.push(ip("fd00:2::1"));
    let verdict = |from| admitted(&to_server(&objects, from, Proto::TCP, 1));
    assert!(verdict("2001:db8::7"));
    assert!(!verdict("2001:db8:bad::7"));
    assert!(verdict("fd00:2::1"));
    assert!(!verdict("fd00:2::2"));
}

#[test]
fn a_denial_names_the_nearest_miss() {
    let role = |value| pods(Some(select(&[("role", value)])), None);
    let table: Vec<(&str, Vec<PolicyRule>, &str, &str)> = vec![
        (
            "label with another value",
            vec![rule(&[role("front")], &[])],
            BATCH,
            r#"Pod shop/batch: label role is "batch", wanted "front""#,
        ),
        (
            "label missing",
            vec![rule(&[pods(Some(select(&[("access", "yes")])), None)], &[])],
            FRONT,
            r#"Pod shop/front: no label access, wanted "yes""#,
        ),
        (
            "label of the Namespace",
            vec![rule(&[pods(None, Some(select(&[("team", "shop")])))], &[])],
            PROBE,
            r#"Namespace tools: label team is "infra", wanted "shop""#,
        ),
        (
            "Pod of another namespace",
            vec![rule(&[role("front")], &[])],
            PROBE,
            "Pod tools/probe is in namespace tools, the rule admits Pods of shop only",
        ),
        (
            "port",
            vec![rule(&[role("front")], &[number(80), number(443)])],
            FRONT,
            "TCP 8080 is not among the admitted ports TCP 80, TCP 443",
        ),
        (
            "unresolved port name",
            vec![rule(
                &[],
                &[tcp(Some(TargetPort::Name("http".into())), None)],
            )],
            FRONT,
            "TCP 8080 is not among the admitted ports TCP http (the Pod declares no port named http)",
        ),
        (
            "outside the block",
            vec![rule(&[block("198.51.100.0/24", &[])], &[])],
            OUTSIDE,
            "203.0.113.9 is not in 198.51.100.0/24",
        ),
        (
            "in an exception",
            vec![rule(&[block("203.0.113.0/24", &["203.0.113.8/30"])], &[])],
            OUTSIDE,
            "203.0.113.9 is in 203.0.113.8/30, which is excepted from 203.0.113.0/24",
        ),
        (
            "another node",
            vec![rule(&[role("front")], &[])],
            OTHER_NODE,
            "192.0.2.2 is node n2, and the rule admits Pods by label",
        ),
        (
            "the closest rule and peer: only the port differs",
            vec![
                rule(&[role("x"), block("198.51.100.0/24", &[])], &[]),
                rule(&[role("y"), role("front")], &[number(80)]),
                rule(&[role("z")], &[number(80)]),
            ],
            FRONT,
            "TCP 8080 is not among the admitted ports TCP 80",
        ),
    ];
    for (what, rules, from, wanted) in table {
        let objects = cluster(vec![ingress_policy("p", Selector::default(), &rules)]);
        let Verdict::Denied { policies } = to_server(&objects, from, Proto::TCP, 8080) else {
            panic!("{what}: not denied");
        };
        assert_eq!(policies[0].rules.len(), rules.len(), "{what}");
        let nearest = policies[0].nearest().map(ToString::to_string);
        assert_eq!(nearest.as_deref(), Some(wanted), "{what}");
    }
}

#[test]
fn labels_of_a_namespace_that_was_not_given_are_not_known() {
    let asks = |wanted: &[(&str, &str)]| {
        let rules = [rule(&[pods(None, Some(select(wanted)))], &[])];
        let objects = cluster(vec![ingress_policy("p", Selector::default(), &rules)]);
        to_server(&objects, BARE, Proto::TCP, 8080)
    };
    assert_eq!(asks(&[("team", "shop")]), Verdict::Unknown);
    // Its name is known.
    let named = asks(&[("team", "shop"), (NAMESPACE_NAME_LABEL, "front")]);
    assert!(matches!(named, Verdict::Denied { .. }), "{named:?}");
}
