//! What netflow prints as JSON against the schemas in docs/schema.

use anyhow::{Context, Result, anyhow, bail, ensure};
use netflow_user::model::answer::{
    Affected, Answer, Basis, Blind, Changes, Check, Cluster, Evidence, EvidenceFlow, Finding, Fix,
    Hop, HopState, Lost, NodeState, Outcomes, Path, Peer, Plane, PortInfo, SCHEMA, ServiceInfo,
    Severity, State, Tool, TupleText, Verdict, Via, Window,
};
use netflow_user::model::capability::Capability;
use netflow_user::model::{Proto, Time, Tuple};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

const EXPLAIN: &str = include_str!("../../docs/schema/explain.v1.json");
const ERROR: &str = include_str!("../../docs/schema/error.v1.json");
const WATCH: &str = include_str!("../../docs/schema/watch.v1.json");
const DOCTOR: &str = include_str!("../../docs/schema/doctor.v1.json");
const CLEANUP: &str = include_str!("../../docs/schema/cleanup.v1.json");
const STATUS: &str = include_str!("../../docs/schema/status.v1.json");

fn schema(text: &str) -> Result<Value> {
    let schema: Value = serde_json::from_str(text)?;
    if let Err(error) = jsonschema::meta::validate(&schema) {
        bail!("not a schema: {error}");
    }
    Ok(schema)
}

/// Errors of `instance`, each with the path to it.
fn errors(schema: &Value, instance: &Value) -> Result<Vec<String>> {
    let validator = jsonschema::validator_for(schema)?;
    Ok(validator
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect())
}

/// Fields of `instance` that the schema does not describe.
fn undescribed(schema: &Value, instance: &Value) -> Vec<String> {
    let mut found = Vec::new();
    describe(schema, schema, instance, "", &mut found);
    found
}

fn describe(root: &Value, schema: &Value, instance: &Value, path: &str, found: &mut Vec<String>) {
    let schema = resolve(root, schema);
    match instance {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                describe(
                    root,
                    &schema["items"],
                    item,
                    &format!("{path}/{index}"),
                    found,
                );
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}/{name}");
                if let Some(schema) = schema["properties"].get(name) {
                    describe(root, schema, value, &path, found);
                } else if !schema["additionalProperties"].is_object() {
                    found.push(path);
                }
            }
        }
        _ => {}
    }
}

/// Follows `$ref` and the alternative to null.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        let target = schema["$ref"].as_str().and_then(|at| at.strip_prefix('#'));
        if let Some(to) = target.and_then(|at| root.pointer(at)) {
            schema = to;
        } else if let Some(other) = schema["oneOf"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["type"] != "null"))
        {
            schema = other;
        } else {
            return schema;
        }
    }
}

fn tuple() -> Result<Tuple> {
    Ok(Tuple {
        proto: Proto::TCP,
        src: "10.1.0.5".parse()?,
        sport: 40_000,
        dst: "10.2.0.7".parse()?,
        dport: 8080,
    })
}

fn peer(ip: &str, port: u16) -> Result<Peer> {
    Ok(Peer {
        ip: ip.parse()?,
        port,
        pod: Some("app/client".to_owned()),
        service: Some("app/web".to_owned()),
        node: Some("worker-1".to_owned()),
    })
}

/// An answer in which every field that may be absent is there.
fn full() -> Result<Answer> {
    let flow = EvidenceFlow {
        proto: Proto::TCP,
        src: peer("10.1.0.5", 40_000)?,
        dst: peer("fd00::7", 8080)?,
        orig: Some(TupleText(tuple()?)),
        reply: Some(TupleText(tuple()?.inverse())),
        zone: 3,
    };
    let planes = [
        Plane::Flow,
        Plane::Ct,
        Plane::Drop,
        Plane::Mtu,
        Plane::K8s,
        Plane::Node,
        Plane::Probe,
    ];
    let evidence = planes.iter().zip(1..).map(|(plane, number)| Evidence {
        id: format!("e{number}"),
        plane: *plane,
        time: Some(Time(1_700_000_000_000_000_000)),
        node: Some("worker-1".to_owned()),
        netns: Some(4_026_532_345),
        ifname: Some("veth3a".to_owned()),
        hook: Some("tc/ingress".to_owned()),
        flow: Some(flow.clone()),
        text: "a SYN came in".to_owned(),
    });
    let states = [State::Ok, State::Broken, State::Unseen, State::Degraded];
    let hops = Hop::ALL
        .iter()
        .zip(states.iter().cycle())
        .map(|(hop, state)| HopState {
            hop: *hop,
            state: *state,
            node: Some("worker-1".to_owned()),
            netns: Some(4_026_532_345),
            ifname: Some("veth3a".to_owned()),
            evidence: vec!["e1".to_owned()],
        });
    let hops: Vec<HopState> = hops.collect();
    let vias = [
        Via::Vip,
        Via::Pod,
        Via::NodePort,
        Via::Lb,
        Via::ExternalIp,
        Via::Headless,
    ];
    let paths = vias.iter().map(|via| Path {
        via: *via,
        family: "IPv4",
        port: 8080,
        from: "app/client".to_owned(),
        backend: Some("app/web-0".to_owned()),
        outcomes: Outcomes {
            attempts: 2,
            refused: 2,
            ..Outcomes::default()
        },
        hops: hops.clone(),
    });
    Ok(Answer {
        schema: SCHEMA,
        tool: Tool {
            version: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
        },
        cluster: Cluster::default(),
        nodes: vec![NodeState {
            name: "worker-1".to_owned(),
            state: "answered".to_owned(),
            tiers: Capability::ALL
                .iter()
                .map(|capability| (*capability, "none".to_owned()))
                .collect(),
            lost: Lost {
                records: 2,
                kinds: [("ring:drop".to_owned(), 2)].into(),
            },
            clock_offset_ms: Some(-0.25),
            clock_within_ms: Some(0.2),
        }],
        service: Some(ServiceInfo {
            namespace: "app".to_owned(),
            name: "web".to_owned(),
            kind: "ClusterIP".to_owned(),
            cluster_ips: vec!["10.96.12.7".parse::<IpAddr>()?],
            ports: vec![PortInfo {
                name: "http".to_owned(),
                port: 8080,
                protocol: Proto::TCP,
                target_port: "8081".to_owned(),
            }],
        }),
        window: Window {
            from: Time(0),
            to: Time(1),
        },
        verdict: Verdict::Failing,
        paths: paths.collect(),
        evidence: evidence.collect(),
        findings: [Severity::Critical, Severity::Warning, Severity::Info]
            .into_iter()
            .zip([Basis::Observed, Basis::Inferred, Basis::Objects])
            .map(|(severity, basis)| finding(severity, basis))
            .collect(),
        blind: vec![Blind {
            code: "no-pod-ip-attempts".to_owned(),
            node: String::new(),
            capability: "flow".to_owned(),
            text: "nothing dialled a Pod IP".to_owned(),
        }],
    })
}

fn finding(severity: Severity, basis: Basis) -> Finding {
    let fix = [Changes::Cluster, Changes::Node, Changes::Nothing].map(|changes| Fix {
        text: "set the port".to_owned(),
        command: String::new(),
        changes,
    });
    Finding {
        code: "target-port-mismatch",
        severity,
        basis,
        hop: Hop::Listener,
        from: Some(Time(5)),
        until: Some(Time(6)),
        affected: Affected {
            attempts: 2,
            of: 2,
            clients: vec!["app/client".to_owned()],
            backends: vec!["app/web-0".to_owned()],
        },
        summary: "the Service sends to a port that nobody listens on".to_owned(),
        evidence: vec!["e1".to_owned()],
        check: vec![Check {
            text: "shows the port".to_owned(),
            command: "kubectl get svc".to_owned(),
        }],
        fix: fix.to_vec(),
        confusable: vec!["listener-missing"],
    }
}

/// An answer in which everything that may be absent is.
fn bare() -> Result<Answer> {
    let mut answer = full()?;
    answer.service = None;
    for node in &mut answer.nodes {
        node.lost = Lost::default();
        node.tiers.clear();
    }
    for path in &mut answer.paths {
        path.backend = None;
        for hop in &mut path.hops {
            (hop.node, hop.netns, hop.ifname) = (None, None, None);
        }
    }
    for evidence in &mut answer.evidence {
        (evidence.time, evidence.node, evidence.netns) = (None, None, None);
        (evidence.ifname, evidence.hook, evidence.flow) = (None, None, None);
    }
    for finding in &mut answer.findings {
        (finding.from, finding.until) = (None, None);
    }
    Ok(answer)
}

#[test]
fn answers_fit_their_schema() -> Result<()> {
    let schema = schema(EXPLAIN)?;
    for answer in [full()?, bare()?] {
        let value = serde_json::to_value(&answer)?;
        assert_eq!(errors(&schema, &value)?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn every_verdict_is_in_the_schema() -> Result<()> {
    let schema = schema(EXPLAIN)?;
    for verdict in [
        Verdict::Healthy,
        Verdict::Failing,
        Verdict::Degraded,
        Verdict::Suspected,
        Verdict::NotEnoughEvidence,
    ] {
        let answer = Answer { verdict, ..full()? };
        let value = serde_json::to_value(&answer)?;
        assert_eq!(value["verdict"], verdict.name());
        assert_eq!(errors(&schema, &value)?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn every_field_is_described() -> Result<()> {
    let schema = schema(EXPLAIN)?;
    let mut value = serde_json::to_value(full()?)?;
    assert_eq!(undescribed(&schema, &value), Vec::<String>::new());
    value["findings"][0]["affected"]["unknown"] = json!(1);
    value["evidence"][1]["flow"]["reply"]["unknown"] = json!(1);
    assert_eq!(
        undescribed(&schema, &value),
        [
            "/evidence/1/flow/reply/unknown",
            "/findings/0/affected/unknown"
        ]
    );
    Ok(())
}

#[test]
fn what_is_wrong_is_refused() -> Result<()> {
    let schema = schema(EXPLAIN)?;
    let good = serde_json::to_value(full()?)?;
    for (pointer, wrong) in [
        ("/schema", json!("netflow.explain/v2")),
        ("/verdict", json!("fine")),
        ("/window/from", json!("2026-11-20 23:59")),
        ("/paths/0/via", json!("nodePort")),
        ("/paths/0/attempts", json!(-1)),
        ("/paths/0/hops/0/hop", json!("nat")),
        ("/findings/0/basis", json!("guessed")),
        ("/findings/0/code", json!("Target Port")),
        ("/evidence/0/id", json!("7")),
        ("/nodes/0/tiers", json!({"flows": "tcx"})),
        ("/service/ports/0/port", json!(70_000)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).context(pointer)? = wrong;
        assert_eq!(errors(&schema, &bad)?.len(), 1, "{pointer}");
    }
    Ok(())
}

#[test]
fn errors_fit_their_schema() -> Result<()> {
    let schema = schema(ERROR)?;
    let good = json!({"schema": "netflow.error/v1", "code": "not-root", "message": "needs root", "hint": ""});
    assert_eq!(errors(&schema, &good)?, Vec::<String>::new());
    for field in ["schema", "code", "message", "hint"] {
        let mut bad = good.clone();
        bad.as_object_mut().context("an object")?.remove(field);
        assert_eq!(errors(&schema, &bad)?.len(), 1, "{field}");
    }
    Ok(())
}

/// Runs netflow in a network namespace of its own, so that no interface of the machine is touched.
fn netflow(args: &[&str]) -> Result<Output> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("these tests need root")?;
            let mut netflow = Command::new(env!("CARGO_BIN_EXE_netflow"));
            netflow.args(args).output().context("netflow")
        });
        match thread.join() {
            Ok(output) => output,
            Err(_) => bail!("the thread panicked"),
        }
    })
}

/// The one document on stdout, which must fit its schema, and the exit status.
fn document(args: &[&str], text: &str) -> Result<(Value, Option<i32>)> {
    let output = netflow(args)?;
    let value: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?}: {output:?}"))?;
    assert_eq!(errors(&schema(text)?, &value)?, Vec::<String>::new());
    Ok((value, output.status.code()))
}

#[test]
fn what_doctor_and_cleanup_print_fits() -> Result<()> {
    let (doctor, status) = document(&["doctor", "-o", "json"], DOCTOR)?;
    assert_eq!(status, Some(i32::from(doctor["health"] != "well")));
    let (_, status) = document(&["cleanup", "-o", "json"], CLEANUP)?;
    assert_eq!(status, Some(0));
    Ok(())
}

/// An agent in a network namespace of its own. Dropping it kills it.
struct Agent(Child);

impl Agent {
    fn start(objects: &str, socket: &str) -> Result<Agent> {
        let spawn = || {
            unshare(CloneFlags::CLONE_NEWNET).context("these tests need root")?;
            let mut agent = Command::new(env!("CARGO_BIN_EXE_netflow"));
            agent.args(["agent", "--manifests", objects, "--socket", socket]);
            agent.stderr(Stdio::piped());
            agent.spawn().context("netflow agent")
        };
        let spawned = thread::scope(|scope| scope.spawn(spawn).join());
        let mut agent = Agent(spawned.map_err(|_| anyhow!("the thread panicked"))??);
        let stderr = agent.0.stderr.take().context("no stderr")?;
        let said = BufReader::new(stderr).lines().map_while(Result::ok);
        // It says so once it can be asked; one that ends says no more.
        let ready = said.into_iter().any(|line| line.contains("answers at"));
        ensure!(ready, "the agent ended");
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_status_prints_fits() -> Result<()> {
    let objects = concat!(env!("CARGO_TARGET_TMPDIR"), "/status-objects.json");
    let socket = concat!(env!("CARGO_TARGET_TMPDIR"), "/status.sock");
    std::fs::write(objects, OBJECTS)?;
    let _agent = Agent::start(objects, socket)?;
    let server = format!("unix://{socket}");
    let ask = ["status", "--server", &server, "-o", "json"];
    let (report, status) = document(&ask, STATUS)?;
    assert_eq!(undescribed(&schema(STATUS)?, &report), Vec::<String>::new());
    assert_eq!(status, Some(i32::from(report["degraded"] == true)));
    let said = report["objects"].as_str().context("no source")?;
    assert!(said.contains("status-objects.json"), "{said}");
    Ok(())
}

/// A Service whose selector matches no Pod.
const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "app", "name": "web"},
     "spec": {"clusterIP": "10.96.7.7", "selector": {"app": "web"}, "ports": [{"port": 80}]}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [], "ports": [],
     "metadata": {"namespace": "app", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "app", "name": "web-1", "labels": {"app": "wep"}},
     "spec": {"containers": []}, "status": {"podIP": "10.77.1.2"}}]}"#;

#[test]
fn what_explain_and_watch_print_fits() -> Result<()> {
    let objects = concat!(env!("CARGO_TARGET_TMPDIR"), "/schema-objects.json");
    std::fs::write(objects, OBJECTS)?;
    let ask = |command, format| {
        [
            [command, "--svc", "app/web", "--manifests", objects],
            ["--standalone", "--for", "1s", "-o", format],
        ]
        .concat()
    };
    let (answer, status) = document(&ask("explain", "json"), EXPLAIN)?;
    assert_eq!(
        undescribed(&schema(EXPLAIN)?, &answer),
        Vec::<String>::new()
    );
    assert_eq!(answer["findings"][0]["code"], "no-endpoints-selector");
    assert_eq!(
        (answer["verdict"].as_str(), status),
        (Some("suspected"), Some(1))
    );

    let watch = netflow(&ask("watch", "jsonl"))?;
    let lines = String::from_utf8(watch.stdout)?;
    let mut kinds = BTreeSet::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line)?;
        assert_eq!(errors(&schema(WATCH)?, &event)?, Vec::<String>::new());
        kinds.insert(event["kind"].to_string());
    }
    assert!(
        kinds.contains("\"finding\"") && kinds.contains("\"verdict\""),
        "{kinds:?}"
    );
    Ok(())
}
