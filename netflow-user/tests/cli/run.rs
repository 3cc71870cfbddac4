//! Runs the binary.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_netflow");

/// What a run left.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    args: Vec<String>,
}

/// Runs netflow.
pub fn netflow(args: &[&str]) -> Run {
    run(Command::new(BINARY).args(args), args)
}

/// Runs netflow without any capability, whoever runs the test.
pub fn without_rights(args: &[&str]) -> Run {
    if nix::unistd::geteuid().is_root() {
        let drop = ["--inh-caps=-all", "--bounding-set=-all", BINARY];
        run(Command::new("setpriv").args(drop).args(args), args)
    } else {
        netflow(args)
    }
}

fn run(command: &mut Command, args: &[&str]) -> Run {
    // Whoever runs the tests may have a cluster at hand: it is none of theirs.
    for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    let out = command.env("HOME", "/nonexistent").output();
    let out = out.expect("the binary starts");
    Run {
        code: out.status.code().expect("it was not killed"),
        stdout: String::from_utf8(out.stdout).expect("UTF-8"),
        stderr: String::from_utf8(out.stderr).expect("UTF-8"),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
    }
}

impl Run {
    /// Exit 2, nothing on stdout, a line on stderr; and the code, when JSON is asked for.
    pub fn expect_failure(&self, code: &str) {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(
            self.stdout.is_empty() || self.args[0] == "doctor",
            "{self:?}"
        );
        assert!(!self.stderr.is_empty(), "{self:?}");
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        args.extend(["-o", "json"]);
        let again = if code == "not-root" {
            without_rights(&args)
        } else {
            netflow(&args)
        };
        assert_eq!(again.code, 2, "{again:?}");
        assert_eq!(error(&again), code, "{again:?}");
    }
}

/// Code of a failure, after a look at its schema.
pub fn error(run: &Run) -> String {
    let failure = valid(
        &run.stdout,
        include_str!("../../../docs/schema/error.v1.json"),
    );
    failure["code"].as_str().unwrap_or_default().to_owned()
}

/// Parses a document and holds it against a schema.
pub fn valid(document: &str, schema: &str) -> Value {
    let document: Value = serde_json::from_str(document).expect("one JSON document");
    let schema: Value = serde_json::from_str(schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{document:#}");
    document
}

/// Code of the first finding.
pub fn finding(answer: &Value) -> Option<&str> {
    answer["findings"][0]["code"].as_str()
}

/// A directory with one Service.
pub fn manifests() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(&dir.path().join("objects.yaml"), OBJECTS);
    dir
}

/// Writes a file.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("a temporary file");
}

const OBJECTS: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: app
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: app
spec:
  type: ClusterIP
  clusterIP: 10.96.0.50
  clusterIPs: [10.96.0.50]
  selector:
    app: web
  ports:
  - name: http
    port: 80
    protocol: TCP
    targetPort: 8080
";
