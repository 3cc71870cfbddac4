use super::*;
use crate::model::objects::{Condition, Labels};
use crate::model::shared::Name;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn pod(name: &str, pairs: &[(&str, &str)]) -> Pod {
    Pod {
        namespace: "app".into(),
        name: name.into(),
        labels: labels(pairs),
        phase: "Running".into(),
        ..Pod::default()
    }
}

fn service(selector: &[(&str, &str)], target: TargetPort) -> Service {
    Service {
        namespace: "app".into(),
        name: "web".into(),
        selector: Some(labels(selector)),
        ports: vec![ServicePort {
            name: String::new(),
            proto: Proto::TCP,
            port: 80,
            target,
            node_port: None,
        }],
        ..Service::default()
    }
}

fn objects(pods: Vec<Pod>) -> Objects {
    Objects {
        pods: pods.into(),
        ..Objects::default()
    }
}

fn declaring(mut pod: Pod, name: &str, port: u16, proto: Proto) -> Pod {
    let new = ContainerPort {
        container: "main".into(),
        name: name.into(),
        port,
        proto,
    };
    pod.ports = pod.ports.iter().cloned().chain([new]).collect();
    pod
}

#[test]
fn a_selector_takes_running_pods_of_its_namespace() {
    let service_of = |selector| service(selector, TargetPort::Number(80));
    let mut elsewhere = pod("c", &[("app", "web")]);
    elsewhere.namespace = "other".into();
    let mut done = pod("d", &[("app", "web")]);
    done.phase = "Succeeded".into();
    let objects = objects(vec![
        pod("a", &[("app", "web"), ("v", "1")]),
        pod("b", &[("app", "db")]),
        elsewhere,
        done,
    ]);
    let names = |pods: Vec<&Pod>| -> Vec<Name> { pods.iter().map(|p| p.name.clone()).collect() };
    let web = service_of(&[("app", "web")]);
    assert_eq!(names(selected(&objects, &web)), ["a"]);
    assert_eq!(names(selected_elsewhere(&objects, &web)), ["c"]);
    assert!(selected(&objects, &service_of(&[])).is_empty());
    let mut none = service_of(&[]);
    none.selector = None;
    assert!(selected(&objects, &none).is_empty());
    assert_eq!(nearest(&objects, &none), None);
}

#[test]
fn the_nearest_pod_and_the_label_that_differs() {
    let web = service(
        &[("app", "web"), ("tier", "front")],
        TargetPort::Number(8080),
    );
    let plain = |name, pairs: &[(&str, &str)]| pod(name, pairs);
    // Pods, first the one expected
    let table: Vec<(&str, Vec<Pod>)> = vec![
        (
            "one label instead of two",
            vec![
                plain("x", &[("app", "web"), ("tier", "back")]),
                plain("a", &[("app", "db"), ("tier", "back")]),
            ],
        ),
        (
            "another value before no label",
            vec![
                plain("x", &[("app", "web"), ("tier", "zzzzzzzz")]),
                plain("a", &[("app", "web")]),
            ],
        ),
        (
            "declares the target port",
            vec![
                declaring(
                    plain("x", &[("app", "other"), ("tier", "front")]),
                    "",
                    8080,
                    Proto::TCP,
                ),
                plain("web-0", &[("app", "wep"), ("tier", "front")]),
            ],
        ),
        (
            "named like the Service",
            vec![
                plain("web-7d4-x", &[("app", "other"), ("tier", "front")]),
                plain("a", &[("app", "wep"), ("tier", "front")]),
            ],
        ),
        (
            "spelt alike",
            vec![
                plain("x", &[("app", "wep"), ("tier", "front")]),
                plain("a", &[("app", "database"), ("tier", "front")]),
            ],
        ),
    ];
    for (what, mut pods) in table {
        let wanted = pods[0].name.clone();
        pods.reverse();
        let objects = objects(pods);
        let found = nearest(&objects, &web).map(|n| n.pod.name.clone());
        assert_eq!(found, Some(wanted), "{what}");
    }
    let objects = objects(vec![plain("x", &[("app", "web"), ("tier", "fornt")])]);
    let misses = nearest(&objects, &web)
        .map(|n| n.misses)
        .unwrap_or_default();
    let text: Vec<_> = misses.iter().map(ToString::to_string).collect();
    assert_eq!(text, [r#"label tier is "fornt", wanted "front""#]);
}

#[test]
fn the_condition_that_keeps_a_pod_from_being_ready() {
    let with = |conditions: &[(&str, bool, &str)]| {
        let mut pod = pod("x", &[]);
        for (name, status, reason) in conditions {
            let condition = Condition {
                status: *status,
                reason: (*reason).into(),
            };
            pod.conditions.insert((*name).into(), condition);
        }
        pod
    };
    let table = [
        (
            with(&[
                ("PodScheduled", false, "Unschedulable"),
                ("Ready", false, ""),
            ]),
            Some(("PodScheduled", "Unschedulable")),
        ),
        (
            with(&[
                ("PodScheduled", true, ""),
                ("Initialized", false, "ContainersNotInitialized"),
                ("ContainersReady", false, "x"),
                ("Ready", false, "x"),
            ]),
            Some(("Initialized", "ContainersNotInitialized")),
        ),
        (
            with(&[
                ("Initialized", true, ""),
                ("ContainersReady", false, "ContainersNotReady"),
                ("Ready", false, "ContainersNotReady"),
            ]),
            Some(("ContainersReady", "ContainersNotReady")),
        ),
        (
            with(&[
                ("ContainersReady", true, ""),
                ("Ready", false, "ReadinessGatesNotReady"),
            ]),
            Some(("Ready", "ReadinessGatesNotReady")),
        ),
        (with(&[]), Some(("Ready", ""))),
        (
            with(&[("Ready", true, ""), ("ContainersReady", true, "")]),
            None,
        ),
    ];
    for (pod, wanted) in table {
        let found = not_ready(&pod).map(|n| (n.condition, n.reason));
        assert_eq!(found, wanted, "{:?}", pod.conditions);
    }
    let mut leaving = with(&[("Ready", true, "")]);
    leaving.deleting = true;
    leaving.unready_containers = vec![("main".into(), "CrashLoopBackOff".into())].into();
    let why = not_ready(&leaving);
    assert_eq!(why.as_ref().map(|w| w.condition), Some("Deleting"));
    assert_eq!(why.map(|w| w.containers.len()), Some(1));
}

#[test]
fn a_target_port_name_is_the_pods_own() {
    let by_name = service(&[], TargetPort::Name("http".into()));
    let by_number = service(&[], TargetPort::Number(9000));
    let new = declaring(pod("new", &[]), "http", 8081, Proto::TCP);
    let old = declaring(pod("old", &[]), "http", 8080, Proto::TCP);
    let wrong = declaring(pod("wrong", &[]), "http", 8080, Proto::UDP);
    let without = declaring(pod("without", &[]), "web", 8080, Proto::TCP);
    assert_eq!(target(&new, &by_name.ports[0]), Ok(8081));
    assert_eq!(target(&old, &by_name.ports[0]), Ok(8080));
    assert_eq!(target(&without, &by_number.ports[0]), Ok(9000));
    let miss = target(&wrong, &by_name.ports[0]).err();
    assert_eq!(
        miss.and_then(|m| m.other_proto).map(|p| p.proto),
        Some(Proto::UDP)
    );
    let miss = target(&without, &by_name.ports[0]).err();
    let named = miss.map(|m| m.named.iter().map(|p| p.name.clone()).collect::<Vec<_>>());
    assert_eq!(named, Some(vec!["web".into()]));
    assert!(declares(&old, 8080, Proto::TCP));
    assert!(!declares(&old, 8080, Proto::UDP));
    assert_eq!(declared(&wrong, Proto::TCP).count(), 0);
}
