//! An eBPF proxy that works on sockets: there is no packet to the Service's address.

use crate::foreign::{attach_connect, connects_elsewhere};
use crate::netflow::{Files, Running, command, explain};
use crate::netns::Lab;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Service's address and its only endpoint.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);
const ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 2, 2), 8080);

/// The lab's Pod as an object: what it dials itself is direct, unless it is the proxy that makes it so.
const CLIENT: &str = r"
---
apiVersion: v1
kind: Pod
metadata: { namespace: app, name: client }
spec: { nodeName: worker, containers: [{ name: main }] }
status: { phase: Running, podIP: 10.77.1.2, podIPs: [{ ip: 10.77.1.2 }] }
";

/// A cgroup of the test's own, gone when it ends.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts.lines().find(|l| l.contains(" - cgroup2 "));
        let point = mount.and_then(|l| l.split(' ').nth(4));
        let point = point.context("cgroup2 is mounted nowhere")?;
        let path = Path::new(point).join(format!("nflive-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Cgroup(path))
    }

    /// The same command, to run in the cgroup.
    fn of(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]);
        inside.arg(&self.0);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}

/// `connect()` to the Service in the Pod; it is refused.
fn dial(lab: &Lab, cgroup: &Cgroup) -> Result<()> {
    let mut client = Command::new("bash");
    client.args(["-c", &format!("exec 3<>/dev/tcp/{VIP}/80")]);
    let output = lab.inside("pod", || Ok(cgroup.of(&client).output()?))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(why.contains("refused"), "{why}");
    Ok(())
}

#[test]
fn a_proxy_on_sockets_is_told_and_the_pods_path_explained() -> Result<()> {
    let (lab, files, cgroup) = (Lab::up()?, Files::new()?, Cgroup::new()?);
    let mut objects = OpenOptions::new().append(true).open(files.objects())?;
    objects.write_all(CLIENT.as_bytes())?;
    let code = connects_elsewhere(VIP, ENDPOINT);
    let proxy = attach_connect("lb_connect", &code, &cgroup.0)?;
    let recording = files.file("run.nfr");
    let name = recording.to_str().context("a path in UTF-8")?;
    let run = explain(&files, &["--for", "60s", "-o", "json", "--record", name]);
    let netflow = Running::on_tcx(&lab, cgroup.of(&run))?;
    for _ in 0..3 {
        dial(&lab, &cgroup)?;
    }
    netflow.signal(Signal::SIGINT)?;
    let output = netflow.output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(answer["verdict"], "failing", "{answer:#}");
    assert_eq!(
        answer["findings"][0]["code"], "listener-missing",
        "{answer:#}"
    );
    let paths = answer["paths"].as_array().context("paths")?;
    assert!(paths.iter().all(|p| p["via"] == "pod"), "{paths:#?}");
    let blind = answer["blind"].as_array().context("blind")?;
    let said = blind.iter().find(|b| b["code"] == "socket-load-balancing");
    let text = said.and_then(|b| b["text"].as_str()).context("said")?;
    assert!(text.contains("cgroup/connect4 lb_connect (id "), "{text}");
    drop(proxy);

    let replay = command(&["explain", "-o", "json", "--replay", name]).output()?;
    let replayed: Value = serde_json::from_slice(&replay.stdout)?;
    assert_eq!(replayed, answer, "what was read is in the recording");
    Ok(())
}
