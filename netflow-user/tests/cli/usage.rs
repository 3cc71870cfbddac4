//! The binary from outside: bad input, exit codes, streams.

use crate::run::{BINARY, Run, error, finding, manifests, netflow, valid, without_rights};
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn nothing_named_says_what_to_name() {
    for command in ["explain", "watch"] {
        let run = netflow(&[command, "--manifests", "objects.yaml"]);
        run.expect_failure("no-target");
    }
}

#[test]
fn nothing_to_read_objects_from_says_what_to_give() {
    let run = netflow(&["explain", "app/web"]);
    run.expect_failure("no-objects");
    assert!(run.stderr.contains("--manifests"), "{}", run.stderr);
}

#[test]
fn bad_targets_and_options() {
    let table: &[(&[&str], &str)] = &[
        (&["explain", "Web_API"], "bad-target"),
        (
            &["explain", "--svc", "app/web", "--from", "sts/x"],
            "bad-target",
        ),
        (&["explain", "web:80", "--port", "81"], "bad-target"),
        (&["explain", "--svc", "a/web", "b/web"], "usage"),
        (&["explain", "app/web", "--for", "0s"], "usage"),
        (&["explain", "app/web", "--for", "soon"], "usage"),
        (&["explain", "app/web", "--port", "0"], "usage"),
        (&["explain", "--nonsense"], "usage"),
        (&["explain", "--replay", "a", "--manifests", "b"], "usage"),
        (&["explain", "--replay", "a", "--context", "b"], "usage"),
        (&["explain", "app/web", "--since", "soon"], "usage"),
        (
            &["explain", "app/web", "--since", "5m", "--for", "5s"],
            "usage",
        ),
        (&["watch", "app/web", "--since", "5m"], "usage"),
        (
            &["explain", "app/web", "--since", "5m", "--standalone"],
            "no-past",
        ),
        (
            &["explain", "app/web", "--since", "5m", "--manifests", "a"],
            "no-past",
        ),
        (&["explain", "--since", "5m", "--replay", "a"], "no-past"),
        (
            &["explain", "app/web", "--since", "2199-01-01T00:00:00Z"],
            "no-past",
        ),
        (&["agent", "--history", "64MB"], "usage"),
        (&["agent", "--listen", "127.0.0.1:0"], "usage"),
        (&["agent", "--client-ca", "ca.crt"], "usage"),
        (
            &["status", "--tls-cert", "a", "--tls-key", "b", "--ca", "c"],
            "usage",
        ),
        (
            &["status", "--server", "https://a:1", "--tls-name", "b"],
            "usage",
        ),
        (&["status", "--server", "https://a"], "usage"),
        (&["status", "--server", "https://a:1"], "agent-certificate"),
        (
            &["explain", "app/web", "--server", "https://a:1"],
            "agent-certificate",
        ),
        (&["nonsense"], "usage"),
        (&["codes", "healthy"], "unknown-code"),
    ];
    for (args, code) in table {
        netflow(args).expect_failure(code);
    }
}

/// A kubeconfig whose one cluster is at `server`.
fn kubeconfig(dir: &TempDir, server: &str) -> String {
    let path = dir.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: lost, users: [{{name: u, user: {{token: t}}}}],\n\
         contexts: [{{name: lost, context: {{cluster: c, user: u}}}}],\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]}}\n"
    );
    std::fs::write(&path, text).expect("temporary file");
    path.display().to_string()
}

/// netflow with the names of such a cluster, which may take so long to tell them.
fn explain_within(wait: &str, kubeconfig: &str) -> Run {
    let wait = ["--request-timeout", wait];
    netflow(
        &[
            &["explain", "app/web", "--kubeconfig", kubeconfig],
            &wait[..],
        ]
        .concat(),
    )
}

#[test]
fn an_api_server_that_does_not_answer_is_said_in_time() {
    let dir = TempDir::new().expect("a directory");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let config = kubeconfig(&dir, &format!("https://127.0.0.1:{port}"));
    let explain = |wait: &str| {
        let began = Instant::now();
        let run = explain_within(wait, &config);
        run.expect_failure("source-unreadable");
        assert!(
            run.stderr
                .contains(&format!("lost https://127.0.0.1:{port}")),
            "{run:?}"
        );
        assert!(run.stderr.contains("--manifests"), "{run:?}");
        // It is run twice: for people and as JSON.
        began.elapsed() / 2
    };
    let took = explain("1s");
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(silent);
    let took = explain("20s");
    assert!(took < Duration::from_secs(5), "refused at once: {took:?}");
}

#[test]
fn a_program_that_gives_no_credentials_holds_nobody_up() {
    let dir = TempDir::new().expect("a directory");
    let config = kubeconfig(&dir, "https://127.0.0.1:1");
    let text = std::fs::read_to_string(&config).expect("just written");
    let exec = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, args: ['15'], interactiveMode: Never}}";
    std::fs::write(&config, text.replace("{token: t}", exec)).expect("temporary file");
    let began = Instant::now();
    let run = explain_within("1s", &config);
    assert_eq!(run.code, 2, "{run:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_kubeconfig_that_does_not_serve() {
    let dir = TempDir::new().expect("a directory");
    let config = kubeconfig(&dir, "https://127.0.0.1:1");
    let table: [(&[&str], &str); 3] = [
        (&["--kubeconfig", "/no/such/file"], "/no/such/file"),
        (&["--kubeconfig", &config, "--context", "other"], "other"),
        (&["--context", "other"], "no kubeconfig"),
    ];
    for (args, said) in table {
        let run = netflow(&[&["explain", "app/web"], args].concat());
        let code = if args.len() == 2 && args[0] == "--context" {
            "no-objects"
        } else {
            "source-unreadable"
        };
        run.expect_failure(code);
        assert!(run.stderr.contains(said), "{run:?}");
    }
}

#[test]
fn manifests_that_cannot_be_read() {
    let dir = manifests();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let text = file("text.yaml", "a: [1, 2\nb: }").expect("temporary file");
    let empty = file("empty.yaml", "").expect("temporary file");
    let missing = dir.path().join("missing.yaml").display().to_string();
    for path in [&text, &empty, &missing] {
        let run = netflow(&["explain", "app/web", "--manifests", path]);
        run.expect_failure("source-unreadable");
        assert!(run.stderr.contains(path.as_str()), "{}", run.stderr);
    }
    let good = dir.path().join("objects.yaml").display().to_string();
    let args = [
        "explain",
        "app/nobody",
        "--manifests",
        &good,
        "--manifests",
        &text,
    ];
    netflow(&args).expect_failure("source-unreadable");
    let run = netflow(&[&args[..], &["--lenient"]].concat());
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("text.yaml"), "{}", run.stderr);
}

#[test]
fn a_service_that_does_not_exist_is_a_finding_and_needs_no_rights() {
    let dir = manifests();
    let path = dir.path().display().to_string();
    for target in ["app/wed", "ap/web", "10.96.0.99:80"] {
        let args = ["explain", target, "--manifests", &path, "-o", "json"];
        let run = without_rights(&args);
        assert_eq!(run.code, 1, "{run:?}");
        let answer: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(answer["verdict"], "suspected");
        assert_eq!(answer["service"], Value::Null);
        assert_eq!(finding(&answer), Some("service-not-found"));
    }
    let run = without_rights(&["explain", "app/wed", "--manifests", &path]);
    assert!(
        run.stdout.contains("app/web"),
        "nearest name: {}",
        run.stdout
    );
    assert!(!run.stdout.contains('\x1b'), "no colours off a terminal");
}

#[test]
fn objects_come_from_stdin_too() {
    let dir = manifests();
    let text = std::fs::read(dir.path().join("objects.yaml")).expect("temporary file");
    let mut child = Command::new(BINARY)
        .args(["explain", "app/wed", "--manifests", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&text).expect("it reads");
    drop(stdin);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}

#[test]
fn without_rights_nothing_is_looked_at() {
    let dir = manifests();
    let path = dir.path().display().to_string();
    let record = dir.path().join("a.nfr");
    let file = record.display().to_string();
    let args = [
        "explain",
        "app/web",
        "--manifests",
        &path,
        "--record",
        &file,
    ];
    without_rights(&args).expect_failure("not-root");
    assert!(!record.exists(), "nothing is written either");
    for command in [
        &["watch", "app/web", "--manifests", &path][..],
        &["doctor"],
        &["cleanup"],
    ] {
        without_rights(command).expect_failure("not-root");
    }
}

#[test]
fn a_closed_stdout_is_silent() {
    for args in [
        &["codes"][..],
        &["codes", "-o", "json"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let mut child = Command::new(BINARY)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let out = child.wait_with_output().expect("it ends");
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(out.stderr.is_empty(), "{args:?}: {out:?}");
    }
}

#[test]
fn help_teaches_by_example() {
    for command in [
        "explain",
        "watch",
        "codes",
        "doctor",
        "cleanup",
        "completions",
    ] {
        let run = netflow(&[command, "--help"]);
        assert_eq!(run.code, 0);
        assert!(run.stderr.is_empty());
        assert!(run.stdout.contains("Usage: netflow"), "{}", run.stdout);
    }
    for command in ["explain", "watch", "codes", "completions"] {
        let run = netflow(&[command, "--help"]);
        assert!(run.stdout.contains("Examples:\n") || run.stdout.contains("Example:\n"));
    }
}

#[test]
fn completions_name_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let run = netflow(&["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.stdout.contains("explain") && run.stdout.contains("manifests"));
    }
}

#[test]
fn failures_as_json_are_one_document_on_stdout() {
    let run = netflow(&["explain", "app/web", "--nonsense", "-o", "json"]);
    assert_eq!(run.code, 2);
    assert_eq!(error(&run), "usage");
    let Run { stdout, .. } = netflow(&["explain", "app/web", "--nonsense"]);
    assert!(
        stdout.is_empty(),
        "as text a failure goes to stderr: {stdout}"
    );
}

#[test]
fn codes_as_json_are_as_their_schema_says() {
    let schema = include_str!("../../../docs/schema/codes.v1.json");
    let all = netflow(&["codes", "-o", "json"]);
    let all = valid(&all.stdout, schema);
    let codes = all["codes"].as_array().expect("codes");
    let lines = netflow(&["codes", "-o", "jsonl"]);
    assert_eq!(lines.stdout.lines().count(), codes.len());
    for (line, code) in lines.stdout.lines().zip(codes) {
        assert_eq!(valid(line, schema)["codes"][0], *code);
        let name = code["code"].as_str().expect("a code");
        let text = netflow(&["codes", name]);
        assert_eq!(text.code, 0);
        assert!(text.stdout.starts_with(name), "{}", text.stdout);
    }
}
