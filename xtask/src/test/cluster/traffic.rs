//! A client of the Service `web` that dials its address all the time.

use super::{kubectl, xtask};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long what is done to the Service may take to reach its client.
const LIMIT: Duration = Duration::from_mins(1);

/// The client's attempts.
pub struct Traffic {
    kubectl: Child,
    /// Whether each was served.
    served: Receiver<bool>,
}

impl Traffic {
    /// Begins to dial.
    pub fn start() -> Result<Traffic> {
        let ip = kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
        let to = format!("{ip}:80");
        let client = ["kubectl", "--", "exec", "client", "--", "/netflow-traffic"];
        let mut dial = xtask(&client)?;
        dial.args(["dial", "--to", &to, "--interval", "100"])
            .args(["--count", "100000", "--for", "3600"]);
        let mut kubectl = dial
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| process::show(&dial))?;
        let lines = BufReader::new(kubectl.stdout.take().context("its stdout")?).lines();
        let (told, served) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                let outcome = said["attempt"]["outcome"].as_str();
                if outcome.is_some_and(|outcome| told.send(outcome == "ok").is_err()) {
                    break;
                }
            }
        });
        Ok(Traffic { kubectl, served })
    }

    /// None of the attempts that ended since was unserved.
    pub fn felt_nothing(&self) -> Result<()> {
        let unserved = self.served.try_iter().filter(|served| !served).count();
        ensure!(
            unserved == 0,
            "{unserved} attempts of the client were not served"
        );
        Ok(())
    }

    /// Waits until so many attempts, one after the other, were served, or were not. Those that ended before do not count.
    pub fn feel(&self, times: usize, served: bool) -> Result<()> {
        while self.served.try_recv().is_ok() {}
        let end = Instant::now() + LIMIT;
        let mut so = 0;
        while so < times {
            let left = end.saturating_duration_since(Instant::now());
            match self.served.recv_timeout(left) {
                Ok(it) if it == served => so += 1,
                Ok(_) => so = 0,
                Err(_) => bail!("the client was not told within {LIMIT:?} (served: {served})"),
            }
        }
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
