//! Why a command could not run: one shape for people and for programs.

use super::remote::certificates;
use super::target::TargetError;
use crate::api::gate::GateError;
use crate::api::server::ServeError;
use crate::kernel::KernelError;
use crate::model::recording::RecordingError;
use crate::model::source::SourceError;
use serde::Serialize;
use std::io;

/// Value of `schema`.
pub const SCHEMA: &str = "netflow.error/v1";

/// A command could not run (exit code 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Stable identifier.
    pub code: &'static str,
    /// What went wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// `netflow.error/v1`.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    code: &'a str,
    message: &'a str,
    hint: &'a str,
}

impl Failure {
    /// A failure with what to do about it.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// As JSON, one line.
    pub fn json(&self) -> String {
        let report = Report {
            schema: SCHEMA,
            code: self.code,
            message: &self.message,
            hint: &self.hint,
        };
        serde_json::to_string(&report).unwrap_or_default()
    }
}

impl From<TargetError> for Failure {
    fn from(e: TargetError) -> Failure {
        Failure::new(
            "bad-target",
            e.to_string(),
            "name a Service as NAME, NAMESPACE/NAME, NAME.NAMESPACE.svc or by its address, with :PORT if need be",
        )
    }
}

impl From<ServeError> for Failure {
    fn from(e: ServeError) -> Failure {
        let (code, hint) = match e {
            ServeError::Taken(_) => (
                "agent-runs",
                "one agent is enough for a node; --socket gives a second one another place",
            ),
            ServeError::NoSocket(_) => (
                "socket",
                "--socket names a place that is free; netflow removes nothing that it did not make",
            ),
            ServeError::Io { .. } => (
                "socket",
                "--socket names a place in a directory that can be written to",
            ),
            ServeError::Gate(e) => return e.into(),
        };
        Failure::new(code, e.to_string(), hint)
    }
}

impl From<GateError> for Failure {
    fn from(e: GateError) -> Failure {
        match e {
            GateError::Tls(_) => certificates(&e, "--tls-cert, --tls-key and --client-ca"),
            GateError::Listen { ref why, .. } => {
                let hint = match why.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 want the capability NET_BIND_SERVICE; others do not"
                    }
                    _ => "--listen names an address of this node and a port that nobody has yet",
                };
                Failure::new("listen", e.to_string(), hint)
            }
        }
    }
}

impl From<SourceError> for Failure {
    fn from(e: SourceError) -> Failure {
        let message = e.to_string();
        Failure::new("source-unreadable", message, e.hint)
    }
}

impl From<RecordingError> for Failure {
    fn from(e: RecordingError) -> Failure {
        let code = match e {
            RecordingError::Unreadable { .. }
            | RecordingError::NotARecording { .. }
            | RecordingError::Newer { .. } => "recording-unreadable",
            RecordingError::NotCreated { .. } | RecordingError::Stopped { .. } => {
                "recording-unwritable"
            }
        };
        Failure::new(code, e.to_string(), e.hint())
    }
}

impl From<KernelError> for Failure {
    fn from(e: KernelError) -> Failure {
        let code = match e {
            KernelError::NotPermitted(_) => "not-root",
            KernelError::NoBtf(_) | KernelError::BadBtf(_) => "no-btf",
            KernelError::NoTier { .. } => "no-tier",
            _ => "kernel",
        };
        Failure::new(code, e.to_string(), e.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_wants_a_capability_is_told_from_one_that_is_taken() {
        let hint = |kind: io::ErrorKind| {
            let at = ([0, 0, 0, 0], 443).into();
            let why = kind.into();
            Failure::from(GateError::Listen { at, why }).hint
        };
        let denied = hint(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("NET_BIND_SERVICE"), "{denied}");
        let taken = hint(io::ErrorKind::AddrInUse);
        assert!(taken.contains("nobody has yet"), "{taken}");
    }
}
