//! Recordings from outside: what is replayed, what is refused, what is lost.

use crate::run::{error, finding, manifests, netflow, valid, write};
use netflow_user::model::feed::{Input, Start};
use netflow_user::model::objects::{Objects, Service, ServicePort, TargetPort};
use netflow_user::model::query::{Query, Target};
use netflow_user::model::recording::Writer;
use netflow_user::model::{Proto, Time};
use std::path::{Path, PathBuf};

const SCHEMA: &str = include_str!("../../../docs/schema/explain.v1.json");

/// A recording in which nothing happens, of a node of that name.
fn recording(dir: &Path, node: &str) -> PathBuf {
    let path = dir.join(format!("{node}.nfr"));
    let service = Service {
        namespace: "app".into(),
        name: "web".into(),
        kind: "ClusterIP".into(),
        cluster_ips: vec!["10.96.0.50".parse().expect("an address")],
        ports: vec![ServicePort {
            port: 80,
            proto: Proto::TCP,
            name: String::new(),
            target: TargetPort::Number(8080),
            node_port: None,
        }],
        ..Service::default()
    };
    let start = Start {
        time: Time(1_000_000_000),
        node: node.into(),
        version: "0.0.1".into(),
        query: Query {
            namespace: "app".into(),
            target: Target::Name("web".into()),
            ..Query::default()
        },
        ..Start::default()
    };
    let objects = Objects {
        services: vec![service].into(),
        ..Objects::default()
    };
    let mut writer = Writer::create(&path).expect("a temporary file");
    let mut inputs = vec![
        Input::Start(Box::new(start)),
        Input::Objects(Box::new(objects)),
    ];
    // Enough time for several chunks.
    inputs.extend((1..60).map(|n| Input::Tick {
        time: Time(1_000_000_000 + n * 200_000_000),
    }));
    inputs.push(Input::End {
        time: Time(13_000_000_000),
    });
    for input in &inputs {
        writer.write(input).expect("room on the disk");
    }
    writer.finish().expect("room on the disk");
    path
}

#[test]
fn a_live_answer_is_replayed_to_the_byte() {
    let dir = manifests();
    let objects = dir.path().display().to_string();
    let file = dir.path().join("a.nfr").display().to_string();
    let json = ["-o", "json"];
    let live = [
        &[
            "explain",
            "app/wed",
            "--manifests",
            &objects,
            "--record",
            &file,
        ][..],
        &json,
    ];
    let live = netflow(&live.concat());
    assert_eq!(live.code, 1, "{live:?}");
    let replayed = netflow(&[&["explain", "--replay", &file][..], &json].concat());
    assert_eq!(replayed.code, 1, "{replayed:?}");
    assert_eq!(live.stdout, replayed.stdout);
    let answer = valid(&live.stdout, SCHEMA);
    assert_eq!(finding(&answer), Some("service-not-found"));
}

#[test]
fn nothing_seen_is_exit_3_and_the_query_is_the_recordings() {
    let dir = manifests();
    let file = recording(dir.path(), "worker-1").display().to_string();
    let run = netflow(&["explain", "--replay", &file, "-o", "json"]);
    assert_eq!(run.code, 3, "{run:?}");
    let answer = valid(&run.stdout, SCHEMA);
    assert_eq!(answer["verdict"], "not-enough-evidence");
    assert_eq!(answer["service"]["name"], "web");
    assert_eq!(answer["tool"]["version"], "0.0.1", "the one that recorded");
    assert_eq!(answer["window"]["to"], "1970-01-01T00:00:13.000000Z");
    let other = netflow(&["explain", "--svc", "app/other", "--replay", &file]);
    assert_eq!(
        other.code, 1,
        "another question to the same recording: {other:?}"
    );
    let text = netflow(&["explain", "--replay", &file]);
    assert!(
        text.stdout
            .starts_with("no cluster · namespace app · node worker-1\n"),
        "{text:?}"
    );
}

#[test]
fn several_recordings_are_one_answer() {
    let dir = manifests();
    let (a, b) = (
        recording(dir.path(), "worker-1"),
        recording(dir.path(), "worker-2"),
    );
    let (a, b) = (a.display().to_string(), b.display().to_string());
    let run = netflow(&["explain", "--replay", &a, &b, "-o", "json"]);
    let answer = valid(&run.stdout, SCHEMA);
    let nodes = answer["nodes"].as_array().expect("nodes");
    let names: Vec<&str> = nodes.iter().filter_map(|n| n["name"].as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);
}

#[test]
fn what_is_no_recording_is_refused() {
    let dir = manifests();
    let whole = std::fs::read(recording(dir.path(), "worker-1")).expect("a temporary file");
    let mut newer = whole.clone();
    newer[8..10].copy_from_slice(&u16::MAX.to_be_bytes());
    let table: &[(&str, &[u8])] = &[
        (
            "garbage",
            b"\x00\x01\x02 this is no recording at all, not even nearly",
        ),
        ("empty", b""),
        ("short", &whole[..5]),
        ("newer", &newer),
    ];
    for (name, bytes) in table {
        let path = dir.path().join(name);
        write(&path, bytes);
        netflow(&["explain", "--replay", &path.display().to_string()])
            .expect_failure("recording-unreadable");
    }
    let missing = dir.path().join("missing").display().to_string();
    netflow(&["explain", "--replay", &missing]).expect_failure("recording-unreadable");
    // A good one beside it does not save it.
    let good = recording(dir.path(), "worker-2").display().to_string();
    let run = netflow(&["explain", "--replay", &good, &missing, "-o", "json"]);
    assert_eq!(
        (run.code, error(&run).as_str()),
        (2, "recording-unreadable")
    );
}

#[test]
fn a_recording_cut_short_answers_from_what_is_left() {
    let dir = manifests();
    let whole = std::fs::read(recording(dir.path(), "worker-1")).expect("a temporary file");
    let path = dir.path().join("cut.nfr");
    write(&path, &whole[..whole.len() - 30]);
    let run = netflow(&[
        "explain",
        "--replay",
        &path.display().to_string(),
        "-o",
        "json",
    ]);
    assert_eq!(run.code, 3, "{run:?}");
    valid(&run.stdout, SCHEMA);
    assert!(run.stderr.contains("cut short"), "{}", run.stderr);
    // Only the header is left.
    write(&path, &whole[..12]);
    netflow(&["explain", "--replay", &path.display().to_string()])
        .expect_failure("recording-empty");
}

#[test]
fn a_full_disk_costs_the_recording_only() {
    let dir = manifests();
    let objects = dir.path().display().to_string();
    let args = [
        "explain",
        "app/wed",
        "--manifests",
        &objects,
        "--record",
        "/dev/full",
    ];
    let run = netflow(&args);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains("service-not-found"), "{run:?}");
    assert!(run.stderr.contains("/dev/full"), "{run:?}");
    let nowhere = dir.path().join("no/such/dir.nfr").display().to_string();
    netflow(&[
        "explain",
        "app/wed",
        "--manifests",
        &objects,
        "--record",
        &nowhere,
    ])
    .expect_failure("recording-unwritable");
}
