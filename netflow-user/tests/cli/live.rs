//! The binary on a node: signals, kills, full disks. Needs root and the Debian package iproute2.

use crate::run::{BINARY, manifests, netflow, valid};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for what must come, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A network namespace of the test's own with one interface besides `lo`, removed at its end.
struct Netns(String);

impl Netns {
    fn new() -> Netns {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and loads BPF programs: run it as root"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = Netns(format!("nfcli-{}-{number}", std::process::id()));
        let ip = |args: &[&str]| {
            let status = Command::new("ip").args(args).status().expect("ip runs");
            assert!(status.success(), "ip {args:?}");
        };
        ip(&["netns", "add", &netns.0]);
        ip(&["-n", &netns.0, "link", "set", "lo", "up"]);
        ip(&[
            "-n", &netns.0, "link", "add", "a0", "type", "veth", "peer", "name", "a1",
        ]);
        ip(&["-n", &netns.0, "link", "set", "a0", "up"]);
        netns
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.0))
            .arg(program)
            .args(args);
        command
    }

    fn netflow(&self, args: &[&str]) -> Output {
        self.command(BINARY, args)
            .output()
            .expect("the binary starts")
    }

    /// Starts a look that lasts until it is ended, on the tier whose filters can be listed from outside.
    fn look(&self, manifests: &Path, more: &[&str]) -> Child {
        let path = manifests.display().to_string();
        let args = [
            "explain",
            "app/web",
            "--manifests",
            &path,
            "--for",
            "10m",
            "--tc",
            "clsact",
        ];
        let mut command = self.command(BINARY, &[&args[..], more].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        self.wait_until_filters(true);
        child
    }

    fn filters(&self) -> String {
        let show = ["filter", "show", "dev", "a0", "ingress"];
        let out = self.command("tc", &show).output().expect("tc runs");
        String::from_utf8(out.stdout).expect("UTF-8")
    }

    fn wait_until_filters(&self, wanted: bool) {
        let began = Instant::now();
        while self.filters().contains("netflow") != wanted {
            assert!(began.elapsed() < PATIENCE, "filters: {}", self.filters());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

/// `nsenter` becomes the program it runs, so that the child's id is netflow's.
fn send(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(id), signal).expect("it is there");
}

#[test]
fn the_first_signal_answers_and_leaves_nothing() {
    let (netns, dir) = (Netns::new(), manifests());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = netns.look(dir.path(), &["-o", "json"]);
        send(&child, signal);
        let out = child.wait_with_output().expect("it ends");
        assert_eq!(out.status.code(), Some(3), "{signal}: {out:?}");
        let text = String::from_utf8(out.stdout).expect("UTF-8");
        let answer = valid(&text, include_str!("../../../docs/schema/explain.v1.json"));
        assert_eq!(answer["verdict"], "not-enough-evidence");
        assert_eq!(answer["nodes"][0]["tiers"]["flow"], "clsact");
        assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
    }
}

#[test]
fn the_second_signal_quits_and_leaves_nothing() {
    let (netns, dir) = (Netns::new(), manifests());
    let child = netns.look(dir.path(), &[]);
    // Of two different signals the second is not merged into the first.
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGTERM);
    let out = child.wait_with_output().expect("it ends");
    assert!(matches!(out.status.code(), Some(130 | 3)), "{out:?}");
    assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
}

#[test]
fn what_a_killed_run_leaves_is_cleaned_up() {
    let (netns, dir) = (Netns::new(), manifests());
    let mut child = netns.look(dir.path(), &[]);
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    assert!(
        netns.filters().contains("netflow"),
        "clsact filters outlive a kill"
    );
    let out = netns.netflow(&["cleanup"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(
        text.lines().count() > 1 && text.lines().all(|l| l.starts_with("removed ")),
        "{text}"
    );
    assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
    let again = netns.netflow(&["cleanup", "-o", "json"]);
    let text = String::from_utf8(again.stdout).expect("UTF-8");
    let left = valid(&text, include_str!("../../../docs/schema/cleanup.v1.json"));
    assert_eq!(left["removed"], Value::Array(vec![]));
}

#[test]
fn a_recording_replays_to_the_byte() {
    let (netns, dir) = (Netns::new(), manifests());
    let objects = dir.path().join("objects.yaml").display().to_string();
    let file = dir.path().join("a.nfr").display().to_string();
    let args = [
        "explain",
        "app/web",
        "--manifests",
        &objects,
        "--for",
        "2s",
        "-o",
        "json",
    ];
    let live = netns.netflow(&[&args[..], &["--record", &file]].concat());
    assert_eq!(live.status.code(), Some(3), "{live:?}");
    let replayed = netflow(&["explain", "--replay", &file, "-o", "json"]);
    assert_eq!(replayed.code, 3);
    assert_eq!(
        String::from_utf8(live.stdout).expect("UTF-8"),
        replayed.stdout
    );
}

#[test]
fn a_full_disk_does_not_cost_the_answer() {
    let (netns, dir) = (Netns::new(), manifests());
    let child = netns.look(dir.path(), &["-o", "json", "--record", "/dev/full"]);
    send(&child, Signal::SIGINT);
    let out = child.wait_with_output().expect("it ends");
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    serde_json::from_slice::<Value>(&out.stdout).expect("an answer");
    let said = String::from_utf8(out.stderr).expect("UTF-8");
    assert!(said.contains("/dev/full"), "{said}");
}

#[test]
fn what_cannot_start_leaves_nothing() {
    let (netns, dir) = (Netns::new(), manifests());
    let objects = dir.path().display().to_string();
    let args = [
        "explain",
        "app/web",
        "--manifests",
        &objects,
        "--tc",
        "clsact",
        "-o",
        "json",
    ];
    let no_btf = netns.netflow(&[&args[..], &["--btf", &objects]].concat());
    assert_eq!(no_btf.status.code(), Some(2), "{no_btf:?}");
    let failure = String::from_utf8(no_btf.stdout).expect("UTF-8");
    let failure = valid(&failure, include_str!("../../../docs/schema/error.v1.json"));
    assert_eq!(failure["code"], "no-btf");
    assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
}

#[test]
fn watch_writes_lines_until_nobody_reads_them() {
    let (netns, dir) = (Netns::new(), manifests());
    let objects = dir.path().display().to_string();
    let args = [
        "watch",
        "app/web",
        "--manifests",
        &objects,
        "-o",
        "jsonl",
        "--tc",
        "clsact",
    ];
    let mut child = netns
        .command(BINARY, &args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = child.stdout.take().expect("a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let event = valid(&line, include_str!("../../../docs/schema/watch.v1.json"));
    assert_eq!(event["kind"], "verdict");
    send(&child, Signal::SIGINT);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
}

#[test]
fn doctor_says_what_can_be_seen() {
    let netns = Netns::new();
    for (option, tier) in [("clsact", "clsact"), ("", "")] {
        let mut args = vec!["doctor", "-o", "json"];
        if !option.is_empty() {
            args.extend(["--tc", option]);
        }
        let out = netns.netflow(&args);
        assert!(matches!(out.status.code(), Some(0 | 1)), "{out:?}");
        let text = String::from_utf8(out.stdout).expect("UTF-8");
        let report = valid(&text, include_str!("../../../docs/schema/doctor.v1.json"));
        let well = report["health"] == "well";
        assert_eq!(out.status.code(), Some(i32::from(!well)), "{report:#}");
        let capabilities = report["capabilities"].as_array().expect("capabilities");
        let flow = capabilities.iter().find(|c| c["capability"] == "flow");
        let flow = flow.expect("flow is always seen");
        assert!(tier.is_empty() || flow["tier"] == tier, "{flow:#}");
        assert!(!netns.filters().contains("netflow"), "{}", netns.filters());
    }
}
