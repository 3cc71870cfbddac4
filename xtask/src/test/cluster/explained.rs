//! The real netflow on a node of a real cluster: names come from its API, rules from its kube-proxy. What kubectl breaks must be
//! what it says.

use super::stopped::Stopped;
use super::traffic::Traffic;
use super::{application, component, kubectl, xtask};
use crate::process;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

/// One way to break the Service `web`.
struct Break {
    /// The code that comes first.
    code: &'static str,
    /// Arguments of kubectl.
    with: &'static [&'static str],
    /// What the slice must say of the endpoints before it is asked: whether each is ready.
    until: Option<&'static str>,
}

const BREAKS: [Break; 3] = [
    Break {
        code: "target-port-mismatch",
        with: &[
            "patch",
            "service",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":8099}]"#,
        ],
        until: None,
    },
    Break {
        code: "no-endpoints-selector",
        with: &[
            "patch",
            "service",
            "web",
            "-p",
            r#"{"spec":{"selector":{"app":"wbe"}}}"#,
        ],
        until: Some(""),
    },
    Break {
        code: "no-endpoints-not-ready",
        with: &[
            "patch",
            "deployment",
            "web",
            "-p",
            r#"{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null},"template":{"spec":{"containers":[{"name":"web","readinessProbe":{"tcpSocket":{"port":8099}}}]}}}}"#,
        ],
        until: Some("false false"),
    },
];

/// Milliseconds that netflow may take to read the objects.
const LIMIT: u16 = 20_000;

/// The least that explains a Service of a namespace.
const READER: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}},
  {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader", "namespace": "default"}, "rules": [
    {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]},
  {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader", "namespace": "default"},
   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
   "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}]}"#;

/// All of it, in the cluster that is up, where `web` serves.
pub fn all() -> Result<()> {
    let traffic = Traffic::start()?;
    traffic.feel(1, true)?;
    let node = node_of_client()?;
    let explain = Explain::new(&node)?;
    explain.expect("healthy", None)?;
    explain.expect_missing()?;
    with_few_rights(&explain)?;
    server_goes_away(&explain)?;
    for it in &BREAKS {
        broken(&explain, &traffic, it)?;
    }
    Ok(())
}

/// Breaks the Service, asks, and puts it right again.
fn broken(explain: &Explain, traffic: &Traffic, it: &Break) -> Result<()> {
    kubectl(it.with)?;
    if let Some(wanted) = it.until {
        endpoints_are(wanted)?;
    }
    traffic.feel(1, false)?;
    explain.expect("failing", Some(it.code))?;
    kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        &application(),
    ])?;
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    endpoints_are("true true")?;
    traffic.feel(1, true)
}

/// Waits until the slice of `web` says so of its endpoints.
fn endpoints_are(wanted: &str) -> Result<()> {
    let format = r#"jsonpath={.endpoints[*].conditions.ready}{"\n"}"#;
    let label = "kubernetes.io/service-name=web";
    let watch = [
        "kubectl",
        "--",
        "get",
        "endpointslices",
        "--watch",
        "-l",
        label,
    ];
    let mut watch = xtask(&watch)?
        .args(["-o", format, "--request-timeout", "60s"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(watch.stdout.take().context("its stdout")?).lines();
    let is_so = lines.map_while(Result::ok).any(|line| line == wanted);
    // It may have ended by itself.
    let _ = watch.kill();
    watch.wait()?;
    ensure!(is_so, "the endpoints of web did not become {wanted:?}");
    Ok(())
}

fn node_of_client() -> Result<String> {
    kubectl(&["get", "pod", "client", "-o", "jsonpath={.spec.nodeName}"])
}

/// netflow on a node.
struct Explain {
    node: String,
    kubeconfig: PathBuf,
}

impl Explain {
    fn new(node: &str) -> Result<Explain> {
        let status = process::read(&mut xtask(&["status", "-o", "json"])?)?;
        let status: Value = serde_json::from_str(&status)?;
        let kubeconfig = status["kubeconfig"].as_str().context("kubeconfig")?;
        Ok(Explain {
            node: node.to_owned(),
            kubeconfig: kubeconfig.into(),
        })
    }

    fn command(&self, service: &str, more: &[&str]) -> Result<Command> {
        let mut command = xtask(&["exec", &self.node, "--", "netflow", "explain", service])?;
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(["-o", "json"]).args(more);
        Ok(command)
    }

    fn answer(mut command: Command) -> Result<(i32, Value)> {
        let output = command.output().with_context(|| process::show(&command))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{}: {}", process::show(&command), said.trim()))?;
        Ok((output.status.code().unwrap_or(-1), answer))
    }

    /// Explains `web`: the verdict, and the code that comes first. The answer, for what else it must say.
    fn expect(&self, verdict: &str, code: Option<&str>) -> Result<Value> {
        let began = Instant::now();
        let (exit, answer) = Self::answer(self.command("web", &[])?)?;
        let first = &answer["findings"][0];
        let right = answer["verdict"] == verdict
            && exit == i32::from(verdict != "healthy")
            && code.is_none_or(|code| first["code"] == code)
            && answer["service"]["namespace"] == "default"
            && answer["nodes"][0]["name"] == *self.node;
        ensure!(
            right,
            "{verdict} {code:?} is not what was said (exit {exit}): {answer:#}"
        );
        let client = format!("{}", answer["paths"]);
        ensure!(
            client.contains("default/client"),
            "the client is not named: {answer:#}"
        );
        println!(
            "  {} in {:.1} s{}",
            code.unwrap_or(verdict),
            began.elapsed().as_secs_f64(),
            first["summary"]
                .as_str()
                .map_or(String::new(), |s| format!(": {s}"))
        );
        Ok(answer)
    }

    fn expect_missing(&self) -> Result<()> {
        let (exit, answer) = Self::answer(self.command("wep", &[])?)?;
        let first = &answer["findings"][0];
        ensure!(
            exit == 1 && first["code"] == "service-not-found",
            "{answer:#}"
        );
        let summary = first["summary"].to_string();
        ensure!(
            summary.contains("web"),
            "the nearest name is not offered: {answer:#}"
        );
        Ok(())
    }
}

/// Who may read one namespace only is answered, and told what that leaves out.
fn with_few_rights(explain: &Explain) -> Result<()> {
    let dir = explain.kubeconfig.parent().context("its directory")?;
    let objects = File::new(dir.join("reader.json"), READER)?;
    kubectl(&["apply", "-f", &objects.0.to_string_lossy()])?;
    let config = File::kubeconfig(dir.join("reader.kubeconfig"), "reader")?;
    let reader = Explain {
        node: explain.node.clone(),
        kubeconfig: config.0.clone(),
    };
    let answer = reader.expect("healthy", None)?;
    for (code, kind) in [
        ("objects-limited", "Service"),
        ("objects-limited", "Pod"),
        ("objects-unknown", "Node"),
        ("objects-unknown", "NetworkPolicy"),
    ] {
        blind(&answer, code, kind)?;
    }
    // A Service of another namespace has this address, which the reader cannot know.
    let dns = crate::cluster::DNS_IP.to_string();
    let (exit, answer) = Explain::answer(reader.command(&dns, &[])?)?;
    ensure!(
        exit == 3 && answer["findings"] == serde_json::json!([]),
        "{answer:#}"
    );
    blind(&answer, "objects-limited", "Service")
}

/// The API server stops to answer while netflow looks: names stay, and their age is said.
fn server_goes_away(explain: &Explain) -> Result<()> {
    let server = component("kube-apiserver", None)?;
    let dir = explain.kubeconfig.parent().context("its directory")?;
    let recording = dir.join("away.nfr");
    let kept = recording.to_string_lossy().into_owned();
    let args = ["--record", &kept];
    let command = explain.command("web", &args)?;
    // A recording is begun once the objects are read.
    let begun = Inotify::init(InitFlags::IN_CLOEXEC)?;
    begun.add_watch(dir, AddWatchFlags::IN_CREATE)?;
    let asked = thread::spawn(move || Explain::answer(command));
    let mut begun = [PollFd::new(begun.as_fd(), PollFlags::POLLIN)];
    let stopped = match poll(&mut begun, LIMIT) {
        Ok(0) => Err(anyhow!("netflow did not begin to look")),
        Ok(_) => Stopped::process(server),
        Err(error) => Err(error.into()),
    };
    let answered = asked.join();
    let _ = fs::remove_file(&recording);
    drop(stopped?);
    let Ok(answered) = answered else {
        bail!("netflow could not be run");
    };
    let (exit, answer) = answered?;
    ensure!(exit == 0 && answer["verdict"] == "healthy", "{answer:#}");
    blind(&answer, "objects-old", "")
}

/// An answer names what could not be seen.
fn blind(answer: &Value, code: &str, of: &str) -> Result<()> {
    let all = answer["blind"].as_array().context("blind")?;
    let told = all
        .iter()
        .any(|b| b["code"] == code && b["capability"] == of);
    ensure!(told, "{code} of {of:?} is not said: {:#}", answer["blind"]);
    Ok(())
}

/// A file that is there as long as this is.
pub struct File(PathBuf);

impl File {
    /// The administrator's kubeconfig, with the token of a service account.
    pub fn kubeconfig(path: PathBuf, account: &str) -> Result<File> {
        let token = kubectl(&["create", "token", account])?;
        let admin = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"])?;
        let mut config: Value = serde_json::from_str(&admin)?;
        config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
        File::new(path, &config.to_string())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn new(path: PathBuf, text: &str) -> Result<File> {
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| path.display().to_string())?;
        Ok(File(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
