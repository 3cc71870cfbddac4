use super::*;
use crate::model::Proto;
use crate::model::objects::{PolicyPeer, TargetPort};
use crate::model::shared::Name;
use std::error::Error;
use std::iter;
use std::net::IpAddr;
use std::thread;

type Outcome = Result<(), Box<dyn Error>>;

/// As `kubectl get … -A -o yaml` prints it, shortened where nothing is read.
const CLUSTER: &str = include_str!("testdata/cluster.yaml");
const POLICIES: &str = include_str!("testdata/policies.yaml");
const PODS: &str = include_str!("testdata/pods.json");

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Result<Dir, Box<dyn Error>> {
        let dir = Dir(tempfile::tempdir()?);
        for (name, text) in files {
            dir.write(name, text)?;
        }
        Ok(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    }

    fn open(&self) -> Result<ManifestSource, ManifestError> {
        ManifestSource::open(&[self.0.path().to_path_buf()], false)
    }
}

fn first(source: &mut ManifestSource) -> Result<Objects, Box<dyn Error>> {
    Ok(source.poll()?.ok_or("no version")?)
}

fn objects(files: &[(&str, &str)]) -> Result<Objects, Box<dyn Error>> {
    first(&mut Dir::new(files)?.open()?)
}

/// Polls until the source has a new version.
fn next(source: &mut ManifestSource) -> Result<Objects, Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(version) = source.poll()? {
            return Ok(version);
        }
        thread::yield_now();
    }
    Err("no new version".into())
}

/// Polls until the source warns.
fn warning(source: &mut ManifestSource) -> Result<String, Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if source.poll()?.is_some() {
            return Err("a new version instead of a warning".into());
        }
        if let Some(warning) = source.take_warnings().pop() {
            return Ok(warning.to_string());
        }
        thread::yield_now();
    }
    Err("no warning".into())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

fn service_yaml(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: app\nspec:\n  clusterIP: {address}\n  \
         ports:\n  - port: 80\n"
    )
}

#[test]
fn what_kubectl_prints_is_read() -> Outcome {
    let cluster = objects(&[("cluster.yaml", CLUSTER)])?;
    let web = cluster.service("shop", "web").ok_or("no web")?;
    assert_eq!(web.kind, "LoadBalancer");
    assert_eq!(web.cluster_ips, [ip("10.96.40.7"), ip("fd00:96::7")]);
    assert_eq!(web.external_ips, [ip("198.51.100.20")]);
    assert_eq!(web.lb_ips, [ip("203.0.113.80")]);
    let balancer = web.load_balancer.as_ref().ok_or("no load balancer")?;
    assert!(balancer.assigned && balancer.class.is_none());
    assert_eq!(web.affinity_secs, Some(10_800));
    assert!(web.external_local && !web.internal_local && !web.headless);
    let ports: Vec<_> = web
        .ports
        .iter()
        .map(|p| {
            (
                p.name.as_str(),
                p.proto,
                p.port,
                p.target.clone(),
                p.node_port,
            )
        })
        .collect();
    let wanted = [
        (
            "http",
            Proto::TCP,
            80,
            TargetPort::Name("http".into()),
            Some(30_080),
        ),
        (
            "quic",
            Proto::UDP,
            443,
            TargetPort::Number(8443),
            Some(30_443),
        ),
    ];
    assert_eq!(ports, wanted);
    let selector = web.selector.as_ref().ok_or("no selector")?;
    assert_eq!(selector.get("app").map(Name::as_str), Some("web"));

    let db = cluster.service("shop", "db").ok_or("no db")?;
    assert!(db.headless && db.cluster_ips.is_empty() && db.publish_not_ready);
    assert_eq!(db.ports[0].target, TargetPort::Number(5432));
    let mail = cluster.service("shop", "mail").ok_or("no mail")?;
    assert_eq!(mail.external_name.as_deref(), Some("smtp.example.net"));
    assert_eq!(mail.selector, None);

    let slice = cluster.slices_of(web).next().ok_or("no slice")?;
    assert!(slice.by_controller);
    let ends: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| {
            (
                e.addresses[0],
                e.ready,
                e.serving,
                e.terminating,
                e.pod.as_deref(),
            )
        })
        .collect();
    let wanted = [
        (ip("10.244.1.17"), true, true, false, Some("web-6c9f7-x2b")),
        (ip("10.244.2.9"), false, true, true, Some("web-6c9f7-k8s")),
        (ip("10.244.2.10"), true, true, false, None),
    ];
    assert_eq!(ends, wanted);
    assert_eq!(*slice.endpoints[0].zones, ["zone-a"]);
    assert_eq!(*slice.endpoints[0].node_hints, ["worker-1"]);
    assert_eq!(slice.ports[0].port, Some(8080));

    let node = cluster.node("worker-1").ok_or("no node")?;
    assert_eq!(node.internal_ips, [ip("192.0.2.11")]);
    assert_eq!(node.other_ips, [ip("198.51.100.11")]);
    assert_eq!(node.pod_cidrs, [(ip("10.244.1.0"), 24)]);
    assert_eq!(node.ready, Some(true));
    assert_eq!(node.network_unavailable.as_deref(), Some("NoRouteCreated"));
    assert!(cluster.namespaces.iter().any(|n| n.name == "shop"));
    assert_eq!(cluster.unknown_kinds, ["Pod", "NetworkPolicy"]);
    Ok(())
}

#[test]
fn pods_in_json() -> Outcome {
    let cluster = objects(&[("pods.json", PODS)])?;
    let web = cluster.pod("shop", "web-6c9f7-x2b").ok_or("no web")?;
    assert_eq!(web.ips, [ip("10.244.1.17"), ip("fd00:244:1::17")]);
    assert_eq!(web.node.as_deref(), Some("worker-1"));
    assert_eq!(web.owner.as_deref(), Some("ReplicaSet/web-6c9f7"));
    assert!(!web.is_ready() && !web.deleting && !web.host_network);
    let declared: Vec<_> = web
        .ports
        .iter()
        .map(|p| (p.container.as_str(), p.name.as_str(), p.port))
        .collect();
    assert_eq!(declared, [("app", "http", 8080), ("mesh", "", 15_020)]);
    assert_eq!(
        *web.unready_containers,
        [("app".into(), "CrashLoopBackOff".into())]
    );
    assert_eq!(
        web.conditions
            .get("ContainersReady")
            .map_or("", |c| &c.reason),
        "ContainersNotReady: containers with unready status: [app]"
    );
    let agent = cluster.pod("kube-system", "agent-7").ok_or("no agent")?;
    assert!(agent.host_network && agent.deleting);

    // Nothing else of an object may survive: here are its values that must not.
    let kept = serde_json::to_string(&cluster)?;
    assert!(PODS.contains("hunter2") && PODS.contains("annotated") && PODS.contains("registry"));
    for secret in ["hunter2", "annotated", "registry.example", "pull-secret"] {
        assert!(!kept.contains(secret), "{secret} was kept");
    }
    Ok(())
}

#[test]
fn policies_with_their_defaults() -> Outcome {
    let cluster = objects(&[("p.yml", POLICIES)])?;
    let sides: Vec<_> = cluster
        .policies
        .iter()
        .map(|p| {
            let rules = |r: &Option<Vec<_>>| r.as_ref().map(Vec::len);
            (p.name.as_str(), rules(&p.ingress), rules(&p.egress))
        })
        .collect();
    let wanted = [
        ("default-deny", Some(0), None),
        ("no-types", Some(1), None),
        ("no-types-egress", Some(0), Some(1)),
        ("egress-only", None, Some(1)),
    ];
    assert_eq!(sides, wanted);
    let rule = &cluster.policies[1].ingress.as_ref().ok_or("no rule")?[0];
    let PolicyPeer::Pods { pods, namespaces } = &rule.peers[0] else {
        return Err("not Pods".into());
    };
    assert_eq!(
        pods.as_ref().map(|p| p.expressions[0].operator.as_str()),
        Some("NotIn")
    );
    assert!(namespaces.as_ref().is_some_and(|n| n.labels.is_empty()));
    let PolicyPeer::Block { cidr, except } = &rule.peers[1] else {
        return Err("not a block".into());
    };
    assert_eq!(
        (*cidr, except.as_slice()),
        ((ip("10.0.0.0"), 8), &[(ip("10.9.0.0"), 16)][..])
    );
    let ports: Vec<_> = rule
        .ports
        .iter()
        .map(|p| (p.proto, p.port.clone(), p.end_port))
        .collect();
    let wanted = [
        (Proto::TCP, Some(TargetPort::Number(8000)), Some(8090)),
        (Proto::UDP, Some(TargetPort::Name("dns".into())), None),
        (Proto::SCTP, None, None),
    ];
    assert_eq!(ports, wanted);
    Ok(())
}

#[test]
fn endpoints_count_where_no_slice_does() -> Outcome {
    let endpoints = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: {name}, namespace: app}}\nsubsets:\n\
             - addresses:\n  - ip: 10.1.0.1\n    nodeName: n1\n    targetRef: {{kind: Pod, name: a}}\n  \
             notReadyAddresses:\n  - ip: 10.1.0.2\n  ports:\n  - {{name: http, port: 8080}}\n"
        )
    };
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: sliced-abc\n  namespace: app\n  \
                 labels: {kubernetes.io/service-name: sliced}\naddressType: IPv4\nendpoints: null\nports: []\n";
    let text = format!(
        "{}---\n{}---\n{slice}",
        endpoints("plain"),
        endpoints("sliced")
    );
    let cluster = objects(&[("e.yaml", &text)])?;
    let names: Vec<_> = cluster
        .slices
        .iter()
        .map(|s| (&s.service[..], s.endpoints.len()))
        .collect();
    assert_eq!(names, [("sliced", 0), ("plain", 2)]);
    let plain = &cluster.slices[1];
    let mut by_hand = cluster.slices.iter();
    assert!(by_hand.all(|s| !s.by_controller));
    assert_eq!(plain.endpoints[0].pod.as_deref(), Some("a"));
    assert!(plain.endpoints[0].ready && !plain.endpoints[1].ready);
    assert_eq!(plain.ports[0].port, Some(8080));
    assert!(!cluster.is_unknown("EndpointSlice"));
    Ok(())
}

#[test]
fn lists_of_every_form() -> Outcome {
    let item = r#"{"metadata":{"name":"a"},"spec":{}}"#;
    let typed = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}"#;
    let forms = [
        format!(r#"{{"apiVersion":"v1","kind":"List","items":[{typed}]}}"#),
        format!(r#"{{"apiVersion":"v1","items":[{typed}],"kind":"List"}}"#),
        format!(r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{{}},"items":[{item}]}}"#),
        format!(r#"{{"apiVersion":"v1","items":[{item}],"kind":"ServiceList"}}"#),
        format!("{typed}\n{typed}"),
        format!("---\n{typed}\n---\n# nothing\n---\n"),
        "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: a\nkind: List\n".into(),
        "kind: Service\r\nmetadata:\r\n  name: a\r\napiVersion: v1\r\n".into(),
    ];
    for (n, form) in forms.iter().enumerate() {
        let cluster = objects(&[("a.yaml", form)])?;
        assert_eq!(cluster.services.len(), 1, "form {n}");
        assert_eq!(cluster.services[0].namespace, "default", "form {n}");
    }
    let none = r#"{"kind":"NetworkPolicyList","apiVersion":"networking.k8s.io/v1","items":[]}"#;
    let cluster = objects(&[("a.json", none)])?;
    assert!(!cluster.is_unknown("NetworkPolicy") && cluster.is_unknown("Service"));
    Ok(())
}

#[test]
fn other_kinds_are_skipped_and_counted() -> Outcome {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n\
                data: {a: b}\napiVersion: v1\nkind: ConfigMap\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: b}\n";
    let dir = Dir::new(&[
        ("a.yaml", text),
        ("notes.txt", "not: [yaml"),
        (".x.yaml", "["),
    ])?;
    let mut source = dir.open()?;
    assert_eq!(source.skipped(), 3);
    assert_eq!(first(&mut source)?.services.len(), 1);
    Ok(())
}

#[test]
fn a_broken_document_is_named_by_file_line_and_what() -> Outcome {
    let good = service_yaml("good", "10.96.0.1");
    let other = service_yaml("other", "10.96.0.2");
    let table = [
        ("spec: [1, 2", 11, "bracket"),
        (
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: many\n",
            17,
            "many",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  clusterIP: 10.0.0.256\n",
            0,
            "Service default/a: spec.clusterIPs: \"10.0.0.256\" is not an IP address",
        ),
        (
            "apiVersion: v1\nkind: Service\nspec: {}\n",
            0,
            "Service: metadata.name: is missing",
        ),
        ("a: b\n", 0, "not a Kubernetes object"),
        ("- a\n- b\n", 0, "a Kubernetes object"),
        ("just words\n", 0, "a Kubernetes object"),
    ];
    for (broken, line, what) in table {
        let text = format!("{good}---\n{broken}\n---\n{other}");
        let dir = Dir::new(&[("bad.yaml", &text)])?;
        let Err(error) = dir.open() else {
            return Err(format!("{broken} was read").into());
        };
        let ManifestError::Broken { first, more } = &error else {
            return Err(format!("{broken}: {error}").into());
        };
        let place = first.to_string();
        assert_eq!((*more, &first.path), (0, &dir.path("bad.yaml")), "{place}");
        assert!(first.what.contains(what), "{place}");
        assert!((10..=17).contains(&first.line), "{place}");
        assert!(line == 0 || first.line == line, "{place}, not {line}");

        let mut lenient = ManifestSource::open(&[dir.path("bad.yaml")], true)?;
        assert_eq!(lenient.take_warnings(), std::slice::from_ref(first));
        assert_eq!(next(&mut lenient)?.services.len(), 2);
    }
    Ok(())
}

#[test]
fn a_broken_item_does_not_spoil_the_list_for_the_lenient() -> Outcome {
    let item = |name: &str, port: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":{port}}}]}}}}"#
        )
    };
    let list = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{},\n{},\n{}]}}",
        item("a", "80"),
        item("b", "0"),
        item("c", "81")
    );
    let yaml = format!("# a comment\n{list}");
    for (name, text, line) in [("l.json", &list, 3), ("l.yaml", &yaml, 4)] {
        let dir = Dir::new(&[(name, text)])?;
        let Err(ManifestError::Broken { first: problem, .. }) = dir.open() else {
            return Err("a port 0 was read".into());
        };
        assert_eq!(problem.line, line, "{problem}");
        assert!(
            problem.what.contains("Service default/b: spec.ports.port"),
            "{problem}"
        );
        let mut lenient = ManifestSource::open(&[dir.path(name)], true)?;
        assert_eq!(lenient.take_warnings().len(), 1);
        let cluster = first(&mut lenient)?;
        let names: Vec<_> = cluster.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }
    Ok(())
}

#[test]
fn each_broken_item_of_a_yaml_list_is_named_by_the_line_of_what_is_wrong() -> Outcome {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata:
    name: a
  spec:
    ports:
    - port: many
- {apiVersion: v1, kind: Service, metadata: {name: b}}
- apiVersion: apiextensions.k8s.io/v1
  kind: CustomResourceDefinition
  spec: {versions: []}
- metadata:
    name: [c]
  apiVersion: v1
  kind: Service
- metadata:
    name: d
";
    let dir = Dir::new(&[("list.yaml", text)])?;
    let mut lenient = ManifestSource::open(&[dir.path("list.yaml")], true)?;
    let warnings = lenient.take_warnings();
    let lines: Vec<usize> = warnings.iter().map(|w| w.line).collect();
    assert_eq!(lines, [10, 16, 20], "{warnings:#?}");
    let named = ["item 1 of the list", "many", "at `- port: many`"];
    for part in named {
        assert!(warnings[0].what.contains(part), "{}", warnings[0]);
    }
    let cluster = first(&mut lenient)?;
    let names: Vec<_> = cluster.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, lenient.skipped()), (vec!["b"], 1));
    Ok(())
}

/// As kubectl takes them, too.
#[test]
fn lists_may_hold_lists() -> Outcome {
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}"#;
    let list = |items: &str| format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#);
    let nested = list(&list(service));
    let yaml = format!("# a comment\n{nested}");
    for (name, text) in [("l.json", &nested), ("l.yaml", &yaml)] {
        assert_eq!(objects(&[(name, text)])?.services.len(), 1, "{name}");
    }
    Ok(())
}

/// As kubectl takes them.
#[test]
fn quantities_may_be_numbers_and_ports_names() -> Outcome {
    let text = "\
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: app, labels: {tier: '1'}}
spec:
  nodeName: n1
  containers:
  - name: web
    resources: {limits: {cpu: 1, memory: 1.5}, requests: {cpu: 0.25}}
    ports: [{containerPort: 8080, name: http}]
    readinessProbe: {httpGet: {port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: app}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: http}, {port: 81, name: b, targetPort: 8081}]}
";
    let cluster = objects(&[("a.yaml", text)])?;
    assert_eq!(cluster.pods.iter().count(), 1);
    assert_eq!(cluster.services[0].ports.len(), 2);
    Ok(())
}

#[test]
fn paths_that_give_nothing() -> Outcome {
    let dir = Dir::new(&[("empty/notes.txt", "x"), ("blank.yaml", "# nothing\n---\n")])?;
    let open = |name| ManifestSource::open(&[dir.path(name)], true).err();
    assert!(matches!(open("none"), Some(ManifestError::Missing { .. })));
    assert!(matches!(open("empty"), Some(ManifestError::Empty { .. })));
    assert!(matches!(
        open("blank.yaml"),
        Some(ManifestError::Empty { .. })
    ));
    fs::write(dir.path("binary.yaml"), [0xff, 0xfe, 0x00])?;
    let error = open("binary.yaml").ok_or("binary was read")?;
    assert!(matches!(error, ManifestError::Unreadable { .. }));
    let error = SourceError::from(error);
    assert!(!error.hint.is_empty() && error.why.contains("binary.yaml"));
    Ok(())
}

#[test]
fn the_later_of_two_counts() -> Outcome {
    let dir = Dir::new(&[
        ("a.yaml", &service_yaml("web", "10.96.0.1")),
        ("b/c.yaml", &service_yaml("web", "10.96.0.2")),
    ])?;
    let mut source = dir.open()?;
    let cluster = first(&mut source)?;
    assert_eq!(cluster.services.len(), 1);
    assert_eq!(cluster.services[0].cluster_ips, [ip("10.96.0.2")]);
    let warnings = source.take_warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .what
            .starts_with("Service app/web was already in")
    );
    Ok(())
}

#[test]
fn files_are_read_again_when_they_change() -> Outcome {
    let dir = Dir::new(&[("a.yaml", &service_yaml("web", "10.96.0.1"))])?;
    let mut source = dir.open()?;
    let mut before = first(&mut source)?;
    assert_eq!(source.refresh(), None);
    let mut check = |source: &mut ManifestSource, names: &[&str]| -> Outcome {
        let version = next(source)?;
        let found: Vec<_> = version.services.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(found, names);
        assert!(before.time < version.time && version.time <= now());
        before = version;
        Ok(())
    };
    dir.write("a.yaml", &service_yaml("api", "10.96.0.1"))?;
    check(&mut source, &["api"])?;
    dir.write("more/b.yaml", &service_yaml("new", "10.96.0.2"))?;
    check(&mut source, &["api", "new"])?;
    dir.write("next", &service_yaml("renamed", "10.96.0.3"))?;
    fs::rename(dir.path("next"), dir.path("a.yaml"))?;
    check(&mut source, &["renamed", "new"])?;
    fs::remove_file(dir.path("more/b.yaml"))?;
    check(&mut source, &["renamed"])?;
    assert_eq!(source.refresh(), None);
    assert!(source.take_warnings().is_empty());
    Ok(())
}

#[test]
fn a_half_written_file_keeps_the_version_before() -> Outcome {
    let dir = Dir::new(&[("a.yaml", &service_yaml("web", "10.96.0.1"))])?;
    let mut source = ManifestSource::open(&[dir.path("a.yaml")], false)?;
    first(&mut source)?;
    dir.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {")?;
    assert!(warning(&mut source)?.contains("the version before still counts"));
    assert_eq!(source.refresh(), None);
    assert!(source.take_warnings().is_empty(), "told twice");
    dir.write("a.yaml", "")?;
    assert!(warning(&mut source)?.contains("is empty now"));
    fs::remove_file(dir.path("a.yaml"))?;
    assert_eq!(source.refresh(), None);
    dir.write("a.yaml", &service_yaml("back", "10.96.0.1"))?;
    assert_eq!(next(&mut source)?.services[0].name, "back");
    Ok(())
}
/// The parser's own limits are for input of strangers.
#[test]
fn large_documents_are_read() -> Outcome {
    let many = "10.0.0.1, ".repeat(260_000);
    let text = format!(
        "{}  externalIPs: [{many}]\n",
        service_yaml("web", "10.96.0.1")
    );
    let cluster = objects(&[("a.yaml", &text)])?;
    assert_eq!(cluster.services[0].external_ips.len(), 260_000);
    // Schemas of custom resources are deep.
    let nested = (1..55).map(|level| format!("{}a:\n", " ".repeat(level)));
    let head = "apiVersion: example.net/v1\nkind: Deep\nspec:\n".to_owned();
    let deep: String = iter::once(head).chain(nested).collect();
    let dir = Dir::new(&[("deep.yaml", &deep)])?;
    assert_eq!(dir.open()?.skipped(), 1);
    Ok(())
}
