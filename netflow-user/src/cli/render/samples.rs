//! Answers made by hand, for tests.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use crate::explain::codes;
use crate::model::answer::*;
use crate::model::capability::Capability;
use crate::model::{Proto, Time, Tuple};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(millis: u64) -> Time {
    Time(1_795_219_200_000_000_000 + millis * 1_000_000)
}

fn hop(hop: Hop, state: State, place: Option<(&str, &str)>, evidence: &[&str]) -> HopState {
    HopState {
        hop,
        state,
        node: place.map(|(node, _)| node.into()),
        netns: None,
        ifname: place.map(|(_, ifname)| ifname.into()),
        evidence: evidence.iter().map(|e| (*e).into()).collect(),
    }
}

fn peer(address: &str, port: u16, pod: Option<&str>, service: Option<&str>) -> Peer {
    Peer {
        ip: ip(address),
        port,
        pod: pod.map(Into::into),
        service: service.map(Into::into),
        node: None,
    }
}

fn path(via: Via, port: u16, from: &str, backend: &str, outcomes: Outcomes) -> Path {
    Path {
        via,
        family: "IPv4",
        port,
        from: from.into(),
        backend: Some(backend.into()),
        outcomes,
        hops: vec![],
    }
}

fn steps(code: &codes::Code, values: &[(&str, &str)]) -> (Vec<Check>, Vec<Fix>) {
    let text = |t: &str| codes::fill(t, "", values);
    let check = code.check.iter().map(|s| Check {
        text: text(s.text),
        command: text(s.command),
    });
    let fix = code.mitigate.iter().map(|s| Fix {
        text: text(s.text),
        command: text(s.command),
        changes: s.changes,
    });
    (check.collect(), fix.collect())
}

/// Everything works; nothing to say.
pub(crate) fn healthy() -> Answer {
    let outcomes = Outcomes {
        attempts: 12,
        ok: 12,
        ..Outcomes::default()
    };
    let mut vip = path(Via::Vip, 8080, "app/client", "app/web-api-0", outcomes);
    vip.hops = Hop::ALL
        .into_iter()
        .filter(|h| *h != Hop::Dns)
        .map(|h| hop(h, State::Ok, Some(("worker-1", "veth3a")), &["e1"]))
        .collect();
    Answer {
        schema: SCHEMA,
        tool: Tool {
            version: "0.1.0".into(),
            commit: "unknown".into(),
        },
        cluster: Cluster {
            context: String::new(),
            server: "manifests: objects.yaml".into(),
        },
        nodes: vec![NodeState {
            name: "worker-1".into(),
            state: "answered".into(),
            tiers: [
                (Capability::Flow, "tcx".to_owned()),
                (Capability::Drop, "tp_btf".to_owned()),
            ]
            .into(),
            lost: Lost::default(),
            clock_offset_ms: Some(0.0),
            clock_within_ms: None,
        }],
        service: Some(ServiceInfo {
            namespace: "app".into(),
            name: "web-api".into(),
            kind: "ClusterIP".into(),
            cluster_ips: vec![ip("10.96.12.7")],
            ports: vec![PortInfo {
                name: "http".into(),
                port: 8080,
                protocol: Proto::TCP,
                target_port: "8081".into(),
            }],
        }),
        window: Window {
            from: at(0),
            to: at(8_204),
        },
        verdict: Verdict::Healthy,
        paths: vec![vip],
        evidence: vec![Evidence {
            id: "e1".into(),
            plane: Plane::Flow,
            time: Some(at(120)),
            node: Some("worker-1".into()),
            netns: Some(4_026_532_345),
            ifname: Some("veth3a".into()),
            hook: Some("tc/egress".into()),
            flow: None,
            text: "SYN-ACK delivered to the client after 0.4 ms".into(),
        }],
        findings: vec![],
        blind: vec![],
    }
}

/// The VIP path is refused by the Pod, the Pod's right port answers.
pub(crate) fn mismatch() -> Answer {
    let mut a = healthy();
    let refused = Outcomes {
        attempts: 42,
        refused: 42,
        ..Outcomes::default()
    };
    let ok = Outcomes {
        attempts: 3,
        ok: 3,
        ..Outcomes::default()
    };
    let place = Some(("worker-1", "veth3a"));
    let mut vip = path(Via::Vip, 8080, "app/client", "app/web-api-0", refused);
    vip.hops = vec![
        hop(Hop::Client, State::Ok, place, &["e1"]),
        hop(Hop::Vip, State::Ok, place, &["e1"]),
        hop(Hop::Dnat, State::Ok, Some(("worker-1", "eth0")), &["e2"]),
        hop(Hop::Policy, State::Ok, None, &[]),
        hop(
            Hop::Backend,
            State::Ok,
            Some(("worker-1", "veth9c")),
            &["e3"],
        ),
        hop(
            Hop::Listener,
            State::Broken,
            Some(("worker-1", "veth9c")),
            &["e4", "e5", "e6", "e7"],
        ),
        hop(Hop::Return, State::Unseen, None, &[]),
    ];
    let mut pod = path(Via::Pod, 8080, "app/client", "app/web-api-0", ok);
    pod.hops = vec![
        hop(Hop::Client, State::Ok, place, &["e8"]),
        hop(
            Hop::Backend,
            State::Ok,
            Some(("worker-1", "veth9c")),
            &["e8"],
        ),
        hop(
            Hop::Listener,
            State::Ok,
            Some(("worker-1", "veth9c")),
            &["e8"],
        ),
    ];
    let other = path(
        Via::Vip,
        8080,
        "app/other-client-with-a-long-name-6d5f7c9b8-abcde",
        "app/web-api-1",
        Outcomes {
            attempts: 5,
            ok: 4,
            pending: 1,
            ..Outcomes::default()
        },
    );
    a.paths = vec![vip, pod, other];
    let tuple = Tuple {
        proto: Proto::TCP,
        src: ip("10.244.1.2"),
        sport: 40_112,
        dst: ip("10.96.12.7"),
        dport: 8080,
    };
    let reply = Tuple {
        proto: Proto::TCP,
        src: ip("10.244.1.5"),
        sport: 8081,
        dst: ip("10.244.1.2"),
        dport: 40_112,
    };
    let shown = |id: &str, millis, ifname: &str, hook: &str, text: &str| Evidence {
        id: id.into(),
        plane: Plane::Flow,
        time: Some(at(millis)),
        node: Some("worker-1".into()),
        netns: Some(4_026_532_345),
        ifname: Some(ifname.into()),
        hook: Some(hook.into()),
        flow: None,
        text: text.into(),
    };
    let mut reset = shown(
        "e4",
        1_204,
        "veth9c",
        "tc/ingress",
        "RST from the backend itself, in answer to the translated SYN",
    );
    reset.flow = Some(EvidenceFlow {
        proto: Proto::TCP,
        src: peer("10.244.1.5", 8081, Some("app/web-api-0"), None),
        dst: peer("10.244.1.2", 40_112, Some("app/client"), None),
        orig: Some(TupleText(tuple)),
        reply: Some(TupleText(reply)),
        zone: 0,
    });
    let mut again = reset.clone();
    again.id = "e6".into();
    again.time = Some(at(1_704));
    a.evidence = vec![
        shown("e1", 1_203, "veth3a", "tc/ingress", "SYN to the Service"),
        reset,
        Evidence {
            id: "e5".into(),
            plane: Plane::Node,
            time: Some(at(0)),
            node: Some("worker-1".into()),
            netns: None,
            ifname: None,
            hook: None,
            flow: None,
            text:
                "Listening sockets of app/web-api-0: TCP 0.0.0.0:8080; none takes 10.244.1.5:8081"
                    .into(),
        },
        again,
    ];
    let code = codes::find("target-port-mismatch").unwrap();
    let (check, fix) = steps(
        code,
        &[
            ("ns", "app"),
            ("svc", "web-api"),
            ("pod", "web-api-0"),
            ("target_port", "8081"),
        ],
    );
    a.verdict = Verdict::Failing;
    a.findings = vec![
        Finding {
            code: code.code,
            severity: code.severity,
            basis: Basis::Observed,
            hop: code.hop,
            from: Some(at(1_203)),
            until: None,
            affected: Affected {
                attempts: 42,
                of: 47,
                clients: vec!["app/client".into()],
                backends: vec!["app/web-api-0".into()],
            },
            summary: "The Service sends connections to port 8081 of app/web-api-0, where nothing listens; the application listens on 8080.".into(),
            evidence: vec!["e4".into(), "e5".into(), "e6".into()],
            check,
            fix,
            confusable: code.confusable.to_vec(),
        },
        Finding {
            code: "pmtu-learned",
            severity: Severity::Info,
            basis: Basis::Observed,
            hop: Hop::Route,
            from: None,
            until: None,
            affected: Affected::default(),
            summary: "10.10.0.1 said that packets over 1450 bytes are too big, and the sender made them smaller.".into(),
            evidence: vec!["e1".into()],
            check: vec![],
            fix: vec![],
            confusable: vec![],
        },
    ];
    a.blind = vec![Blind {
        code: "no-kprobes".into(),
        node: "worker-1".into(),
        capability: "mtu".into(),
        text: "PMTU learning is seen only through the ICMP messages that cross an interface".into(),
    }];
    a.nodes[0].lost = Lost {
        records: 12,
        kinds: [("ring:drop".to_owned(), 12)].into(),
    };
    a
}

/// No packet was seen.
pub(crate) fn silent() -> Answer {
    let mut a = healthy();
    a.verdict = Verdict::NotEnoughEvidence;
    a.paths.clear();
    a.evidence.clear();
    a
}
