//! The binary, running on the lab's node.

use crate::attached;
use crate::netns::{Lab, TO_HOST, TO_POD, eventually};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Name of the lab's Service: sixteen bytes, as a canary has.
pub const SERVICE: [u8; 16] = *b"explained-web-01";

/// A Service whose only endpoint is the lab's host.
const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: { namespace: app, name: explained-web-01 }
spec:
  clusterIPs: [10.96.7.7]
  clusterIP: 10.96.7.7
  ports: [{ name: http, port: 80, targetPort: 8080, protocol: TCP }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { namespace: app, name: web-1, labels: { kubernetes.io/service-name: explained-web-01 } }
addressType: IPv4
ports: [{ name: http, port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.77.2.2], conditions: { ready: true } }]
---
apiVersion: v1
kind: Node
metadata: { name: worker }
status: { addresses: [{ type: InternalIP, address: 10.77.1.1 }] }
";

/// Files of one test, gone when it ends.
pub struct Files(PathBuf);

impl Files {
    /// A directory with the objects in it.
    pub fn new() -> Result<Files> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "live-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("objects.yaml"), OBJECTS)?;
        Ok(Files(dir))
    }

    /// The objects.
    pub fn objects(&self) -> PathBuf {
        self.file("objects.yaml")
    }

    /// A file among them.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// `netflow`, not yet started: `NETFLOW_BIN` where another one than cargo's is to be tested.
pub fn command(args: &[&str]) -> Command {
    let built = || env!("CARGO_BIN_EXE_netflow").into();
    let mut command = Command::new(std::env::var_os("NETFLOW_BIN").unwrap_or_else(built));
    command.args(args);
    command
}

/// `netflow explain` of the lab's Service.
pub fn explain(files: &Files, args: &[&str]) -> Command {
    let mut command = command(&["explain", "--standalone", "--svc", "app/explained-web-01"]);
    command.arg("--manifests").arg(files.objects()).args(args);
    command
}

/// Runs to its end on the node.
pub fn finish(lab: &Lab, mut command: Command) -> Result<Output> {
    lab.inside("node", || {
        command.output().with_context(|| format!("{command:?}"))
    })
}

/// A process on the node, killed when the test ends.
pub struct Running(pub Child);

impl Running {
    /// Starts it and waits until it is attached by TCX to both of the node's links.
    pub fn on_tcx(lab: &Lab, command: Command) -> Result<Running> {
        Running::start(lab, command, "attached by TCX", |device| {
            let names = attached::tcx(lab, device)?;
            Ok(names.iter().any(|name| name == "netflow_out"))
        })
    }

    /// Starts it and waits until it is attached by clsact to both of the node's links.
    pub fn on_clsact(lab: &Lab, command: Command) -> Result<Running> {
        Running::start(lab, command, "attached by clsact", |device| {
            let filters = attached::filters(lab, device)?;
            let ours = filters.iter().filter(|filter| filter.contains("netflow:"));
            Ok(ours.count() == 2)
        })
    }

    fn start(
        lab: &Lab,
        mut command: Command,
        what: &str,
        ready: impl Fn(&str) -> Result<bool>,
    ) -> Result<Running> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = lab.inside("node", || {
            command.spawn().with_context(|| format!("{command:?}"))
        })?;
        let mut running = Running(child);
        for device in [TO_POD, TO_HOST] {
            let attached = eventually(what, || {
                if let Some(status) = running.0.try_wait()? {
                    return Ok(Some(Err(status)));
                }
                Ok(ready(device)?.then_some(Ok(())))
            })?;
            if let Err(status) = attached {
                let mut said = Vec::new();
                read(running.0.stderr.take(), &mut said)?;
                bail!("{command:?}: {status}: {}", String::from_utf8_lossy(&said));
            }
        }
        Ok(running)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal)?;
        Ok(())
    }

    /// Waits for its end.
    pub fn output(mut self) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        std::thread::scope(|scope| -> Result<()> {
            let errors = scope.spawn(|| read(err, &mut stderr));
            read(out, &mut stdout)?;
            errors
                .join()
                .map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        let status = self.0.wait()?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }
}

fn read(pipe: Option<impl std::io::Read>, into: &mut Vec<u8>) -> Result<()> {
    pipe.context("a pipe")?.read_to_end(into)?;
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}
