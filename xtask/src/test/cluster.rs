//! A real cluster is raised, used and taken down, and its `up` is killed on the way. What the machine has afterwards must be
//! what it had before.

mod broken;
mod explained;
mod fleet;
mod installed;
mod renewed;
mod stopped;
mod traffic;

use crate::cluster;
use crate::process;
use crate::tally::Tally;
use crate::timing::Took;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use traffic::Traffic;

/// How `up` is called; each proxy and each network is among them.
const CLUSTERS: [&[&str]; 3] = [
    &["--proxy", "iptables", "--network", "routed"],
    &["--proxy", "nftables", "--network", "vxlan"],
    &["--nodes", "0"],
];

/// Steps of `up` at whose end it is killed, as it names them: while certificates and images are made, the nodes and the control
/// plane started.
const STEPS: [&str; 6] = [
    "network",
    "certificates",
    "images",
    "namespaces, containerd",
    "API server",
    "kube-proxy",
];

/// All of it.
pub fn run() -> Result<Tally> {
    let traffic = cluster::build()?;
    let status = xtask(&["status", "-o", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&status.stdout).context("cluster status")?;
    ensure!(
        status["up"] == false,
        "a cluster is up: cargo xtask cluster down"
    );
    let before = Machine::now()?;
    let mut total = Tally::default();
    for step in STEPS {
        let done = killed_after(&traffic, step);
        total = total + judge(&format!("up killed after {step}"), done, &before);
    }
    for args in CLUSTERS {
        let done = used(args);
        let down = process::run(&mut xtask(&["down"])?);
        total = total + judge(&format!("up {}", args.join(" ")), done.and(down), &before);
    }
    Ok(total)
}

/// What was done must have worked, and the machine must be as it was.
fn judge(what: &str, done: Result<()>, before: &Machine) -> Tally {
    let same = Machine::now().and_then(|now| before.same(&now));
    match done.and(same) {
        Ok(()) => {
            println!("{what}: ok");
            Tally::PASSED
        }
        Err(error) => {
            eprintln!("{what}: {error:#}");
            Tally::FAILED
        }
    }
}

fn xtask(args: &[&str]) -> Result<Command> {
    let mut xtask = Command::new(std::env::current_exe().context("this program")?);
    xtask.arg("cluster").args(args);
    Ok(xtask)
}

fn killed_after(traffic: &Path, step: &str) -> Result<()> {
    let mut up = xtask(&["up", "--traffic"])?
        .arg(traffic)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(up.stderr.take().context("its stderr")?);
    let mut steps = said.lines().map_while(Result::ok);
    let done = steps.any(|line| line.contains(step));
    up.kill()?;
    up.wait()?;
    process::run(&mut xtask(&["down"])?)?;
    ensure!(done, "up ended before {step} was done");
    Ok(())
}

/// Raises a cluster, again without effect, and uses it.
fn used(args: &[&str]) -> Result<()> {
    let up = [&["up"], args].concat();
    process::run(&mut xtask(&up)?)?;
    let again = Instant::now();
    process::run(&mut xtask(&up)?)?;
    ensure!(
        again.elapsed() < Duration::from_secs(5),
        "up raised what was up"
    );
    let status = process::read(&mut xtask(&["status", "-o", "json"])?)?;
    let status: Value = serde_json::from_str(&status)?;
    ensure!(status["up"] == true, "status says {status}");
    let nodes = status["nodes"].as_array().context("nodes")?;
    for node in nodes {
        ensure!(node["ready"] == true, "status says {node}");
    }
    if nodes.is_empty() {
        return watch_list();
    }
    serve()?;
    resolve()?;
    explained::all()?;
    installed::all()
}

/// The manifest of what is tried in a cluster.
fn application() -> String {
    let path = workspace::root().join("tests/cluster/web.yaml");
    path.to_string_lossy().into_owned()
}

fn kubectl(args: &[&str]) -> Result<String> {
    process::read(&mut xtask(&[&["kubectl", "--"], args].concat())?)
}

/// The process of a component, of a node where each has one.
fn component(name: &str, node: Option<&str>) -> Result<Pid> {
    // It exits 1 where one of them has ended, as those do that a test started anew.
    let status = xtask(&["status", "-o", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&status.stdout).context("cluster status")?;
    let mut components = status["components"].as_array().into_iter().flatten();
    let is_it = |c: &&Value| c["name"] == name && c["node"].as_str() == node;
    let pid = components.find(is_it).and_then(|c| c["pid"].as_i64());
    let pid = pid.with_context(|| format!("{name} does not run"))?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

/// `kubectl HOW -f -` of these objects.
fn feed(how: &str, objects: &str) -> Result<()> {
    let mut kubectl = xtask(&["kubectl", "--", how, "-f", "-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = kubectl.stdin.take().context("its stdin")?;
    stdin.write_all(objects.as_bytes())?;
    drop(stdin);
    let status = kubectl.wait()?;
    ensure!(status.success(), "kubectl {how}: {status}");
    Ok(())
}

/// Clients may ask for what is there and what comes in one watch: etcd tells how far it is.
fn watch_list() -> Result<()> {
    let path = "/api/v1/namespaces?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2";
    let events = kubectl(&["get", "--raw", path])?;
    ensure!(
        events.contains("k8s.io/initial-events-end"),
        "the watch told: {events}"
    );
    Ok(())
}

/// A Pod reaches both servers of a Service, one of which is on the other node.
fn serve() -> Result<()> {
    let began = Instant::now();
    kubectl(&["apply", "--server-side", "-f", &application()])?;
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/client",
        "--timeout=60s",
    ])?;
    println!("  Pods ready in {}", Took(began.elapsed()));
    let on = kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ])?;
    let on: BTreeSet<&str> = on.split_whitespace().collect();
    ensure!(on.len() == 2, "both servers are on {on:?}");
    // With twenty connections both servers are chosen but once in half a million. The rules of a new Service follow within a
    // second.
    Traffic::start()?.feel(20, true)
}

/// The name server knows the Service, asked by its own Service's address.
fn resolve() -> Result<()> {
    let ip = kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let ip: std::net::Ipv4Addr = ip.parse()?;
    let answer = cluster::on_node("n1", || ask("web.default.svc.cluster.local"))??;
    ensure!(
        answer.ends_with(&ip.octets()),
        "the name server says {answer:?}"
    );
    println!("  web.default.svc.cluster.local is {ip}");
    Ok(())
}

/// Asks for the IPv4 address of a name (RFC 1035).
fn ask(name: &str) -> Result<Vec<u8>> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect((cluster::DNS_IP, 53))?;
    socket.send(&query)?;
    let mut answer = [0; 512];
    let len = socket
        .recv(&mut answer)
        .context("the name server's answer")?;
    Ok(answer[..len].to_vec())
}

/// What a cluster could leave on a machine, or change.
#[derive(Debug, PartialEq, Eq)]
struct Machine(BTreeSet<String>);

/// What a kubelet sets where it is let.
const SYSCTLS: [&str; 6] = [
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Where a node's software keeps things.
const PLACES: [&str; 10] = [
    "/var/lib/netflow-cluster",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/lib/etcd",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni",
    "/opt/cni",
    "/run/containerd",
];

/// Programs of a cluster.
const PROGRAMS: [&str; 10] = [
    "etcd",
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "containerd",
    "containerd-shim",
    "coredns",
    "netflow",
];

impl Machine {
    fn now() -> Result<Machine> {
        let mut all = BTreeSet::new();
        let names = |dir: &str| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        let ours = |name: &String| name.starts_with("nfk");
        all.extend(
            names("/run/netns")
                .filter(ours)
                .map(|name| format!("namespace {name}")),
        );
        for name in names("/proc") {
            let program = fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
            // one that ended and that the first process has not waited for yet has no program any more
            let runs = fs::read_link(format!("/proc/{name}/exe")).is_ok();
            if runs && PROGRAMS.iter().any(|it| program.starts_with(it)) {
                all.insert(format!("process {name} {}", program.trim()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for line in mounts.lines() {
            let at = line.split(' ').nth(4).unwrap_or_default();
            // others come and go
            if !at.starts_with("/run/netns") {
                all.insert(format!("mount {at}"));
            }
            if line.contains(" - cgroup") {
                all.extend(
                    names(at)
                        .filter(ours)
                        .map(|name| format!("cgroup {at}/{name}")),
                );
            }
        }
        for place in PLACES.iter().filter(|place| Path::new(place).exists()) {
            all.insert(format!("directory {place}"));
        }
        for name in SYSCTLS {
            let value = fs::read_to_string(Path::new("/proc/sys").join(name))?;
            all.insert(format!("{name} = {}", value.trim()));
        }
        Ok(Machine(all))
    }

    fn same(&self, now: &Machine) -> Result<()> {
        let (Machine(before), Machine(after)) = (self, now);
        let gone: Vec<_> = before.difference(after).collect();
        let new: Vec<_> = after.difference(before).collect();
        ensure!(
            gone.is_empty() && new.is_empty(),
            "gone from the machine: {gone:?}; new: {new:?}"
        );
        Ok(())
    }
}
