//! An answer of `netflow explain -o json`, as far as scenarios look at it.

use netflow_user::model::answer::{Basis, Plane, Severity, Verdict};
use netflow_user::model::{Proto, Tuple};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// The answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// Always `netflow.explain/v1`.
    pub schema: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Paths that were seen.
    #[serde(default)]
    pub paths: Vec<Path>,
    /// Findings, the cause first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What they cite.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

/// Attempts from one client to one endpoint.
#[derive(Debug, Clone, Deserialize)]
pub struct Path {
    /// The endpoint, where one was chosen.
    pub backend: Option<String>,
    /// Refused.
    pub refused: u32,
    /// Reset.
    pub reset: u32,
    /// Timed out.
    pub timeout: u32,
    /// Unreachable.
    pub unreachable: u32,
    /// Stalled.
    pub stalled: u32,
}

impl Path {
    /// Whether an attempt failed.
    pub fn failed(&self) -> bool {
        self.refused + self.reset + self.timeout + self.unreachable + self.stalled > 0
    }
}

/// A finding.
#[derive(Debug, Clone, Deserialize)]
pub struct Finding {
    /// Code.
    pub code: String,
    /// Severity.
    pub severity: Severity,
    /// Basis.
    pub basis: Basis,
    /// One sentence.
    pub summary: String,
    /// When it was seen last, if it is over.
    pub until: Option<String>,
    /// Ids of evidence.
    #[serde(default)]
    pub evidence: Vec<String>,
}

/// A piece of evidence.
#[derive(Debug, Clone, Deserialize)]
pub struct Evidence {
    /// Id.
    pub id: String,
    /// Plane.
    pub plane: Plane,
    /// In words.
    pub text: String,
    /// Packet or connection.
    pub flow: Option<Flow>,
}

/// The packet or connection of a piece of evidence.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    /// Protocol.
    pub proto: String,
    /// Source.
    pub src: End,
    /// Destination.
    pub dst: End,
    /// Original tuple of the conntrack entry.
    pub orig: Option<Ends>,
    /// Reply tuple.
    pub reply: Option<Ends>,
}

/// Address and port.
#[derive(Debug, Clone, Deserialize)]
pub struct End {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    #[serde(default)]
    pub port: u16,
}

/// A conntrack tuple.
#[derive(Debug, Clone, Deserialize)]
pub struct Ends {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
}

impl Flow {
    /// Every tuple that it names.
    pub fn tuples(&self) -> Vec<Tuple> {
        let proto = match self.proto.as_str() {
            "ICMP" => Proto::ICMP,
            "ICMPv6" => Proto::ICMPV6,
            name => Proto::parse(name).unwrap_or(Proto(0)),
        };
        let tuple = |src: SocketAddr, dst: SocketAddr| Tuple {
            proto,
            src: src.ip(),
            sport: src.port(),
            dst: dst.ip(),
            dport: dst.port(),
        };
        let own = tuple(
            SocketAddr::new(self.src.ip, self.src.port),
            SocketAddr::new(self.dst.ip, self.dst.port),
        );
        let translated = self
            .orig
            .iter()
            .chain(&self.reply)
            .map(|e| tuple(e.src, e.dst));
        std::iter::once(own).chain(translated).collect()
    }
}

impl Answer {
    /// The first finding that is more than information.
    pub fn top(&self) -> Option<&Finding> {
        self.findings.iter().find(|f| f.severity != Severity::Info)
    }

    /// What a finding cites.
    pub fn cited(&self, finding: &Finding) -> Vec<&Evidence> {
        self.evidence
            .iter()
            .filter(|e| finding.evidence.contains(&e.id))
            .collect()
    }

    /// What the table shows: the top code, else the verdict.
    pub fn headline(&self) -> String {
        self.top()
            .map_or_else(|| self.verdict.name().to_owned(), |f| f.code.clone())
    }
}

/// A plane as in JSON.
pub fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Flow => "flow",
        Plane::Ct => "ct",
        Plane::Drop => "drop",
        Plane::Mtu => "mtu",
        Plane::K8s => "k8s",
        Plane::Node => "node",
        Plane::Probe => "probe",
    }
}
