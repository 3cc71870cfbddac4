//! The answer of `explain`, as `netflow.explain/v1` (docs/schema/explain.v1.json). Readers ignore fields they do not know.

use super::capability::Capability;
use super::{Proto, Time};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Value of `schema`.
pub const SCHEMA: &str = "netflow.explain/v1";

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What made it.
    pub tool: Tool,
    /// Which cluster.
    pub cluster: Cluster,
    /// Nodes asked.
    pub nodes: Vec<NodeState>,
    /// The Service asked about; `None` if it does not exist.
    pub service: Option<ServiceInfo>,
    /// The window looked at.
    pub window: Window,
    /// The verdict.
    pub verdict: Verdict,
    /// Paths seen, VIP first.
    pub paths: Vec<Path>,
    /// What was cited.
    pub evidence: Vec<Evidence>,
    /// Findings; the first is the cause.
    pub findings: Vec<Finding>,
    /// What could not be seen and so might change the answer.
    pub blind: Vec<Blind>,
}

/// Version of netflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Version.
    pub version: String,
    /// Commit.
    pub commit: String,
}

/// Where the objects came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cluster {
    /// Kube context, empty with files.
    pub context: String,
    /// API server, or the files.
    pub server: String,
}

/// A node that was asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Name.
    pub name: String,
    /// `answered`, `absent` or `timeout`.
    pub state: String,
    /// Tier by capability; absent capabilities map to `none`.
    pub tiers: BTreeMap<Capability, String>,
    /// Lost records: total, and by kind.
    pub lost: Lost,
    /// Offset of its clock to ours, ms: 0 on the same node, absent where nobody measured it, as between recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
    /// How far off that may be, ms, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_within_ms: Option<f64>,
}

/// Lost records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Lost {
    /// All.
    pub records: u64,
    /// By kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u64>,
}

/// The Service asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// VIPs.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<PortInfo>,
}

/// A Service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortInfo {
    /// Name.
    pub name: String,
    /// Port on the VIP.
    pub port: u16,
    /// Protocol.
    #[serde(serialize_with = "proto_name")]
    pub protocol: Proto,
    /// Port on the Pod, number or name.
    pub target_port: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's serialize_with passes a reference"
)]
fn proto_name<S: Serializer>(p: &Proto, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(p)
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Start.
    #[serde(serialize_with = "time_text")]
    pub from: Time,
    /// End.
    #[serde(serialize_with = "time_text")]
    pub to: Time,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's serialize_with passes a reference"
)]
fn time_text<S: Serializer>(t: &Time, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(t)
}

#[expect(
    clippy::ref_option,
    reason = "serde's serialize_with passes a reference"
)]
fn time_text_opt<S: Serializer>(t: &Option<Time>, s: S) -> Result<S::Ok, S::Error> {
    match t {
        Some(t) => s.collect_str(t),
        None => s.serialize_none(),
    }
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// VIP and Pod-IP paths work.
    Healthy,
    /// No attempt got through, on observation.
    Failing,
    /// Some attempts got through, some did not, on observation.
    Degraded,
    /// Objects alone say that it cannot work.
    Suspected,
    /// Nothing was seen that decides.
    NotEnoughEvidence,
}

impl Verdict {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Failing => "failing",
            Verdict::Degraded => "degraded",
            Verdict::Suspected => "suspected",
            Verdict::NotEnoughEvidence => "not-enough-evidence",
        }
    }

    /// Exit code of `explain`.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Healthy => 0,
            Verdict::Failing | Verdict::Degraded | Verdict::Suspected => 1,
            Verdict::NotEnoughEvidence => 3,
        }
    }
}

/// How the client addressed the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Cluster IP.
    Vip,
    /// The Pod's own address.
    Pod,
    /// A NodePort.
    NodePort,
    /// A load-balancer address.
    Lb,
    /// An external IP.
    ExternalIp,
    /// Pod address of a headless Service.
    Headless,
}

/// Attempts that share way, port, client and backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Path {
    /// How the Service was addressed.
    pub via: Via,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Port dialled.
    pub port: u16,
    /// Client, by name where known.
    pub from: String,
    /// Backend, by name where known; `None` if none was chosen.
    pub backend: Option<String>,
    /// Outcomes; they sum to `attempts`.
    #[serde(flatten)]
    pub outcomes: Outcomes,
    /// Hop by hop.
    pub hops: Vec<HopState>,
}

/// How attempts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// All.
    pub attempts: u64,
    /// SYN-ACK (UDP: reply) delivered at the client's interface.
    pub ok: u64,
    /// RST or ICMP delivered.
    pub refused: u64,
    /// RST after the handshake.
    pub reset: u64,
    /// Unanswered.
    pub timeout: u64,
    /// ICMP host/net unreachable delivered.
    pub unreachable: u64,
    /// Retransmitting after the handshake.
    pub stalled: u64,
    /// Not decided when the window closed.
    pub pending: u64,
}

impl Outcomes {
    /// Attempts that failed.
    pub fn failed(&self) -> u64 {
        let Outcomes {
            attempts: _,
            ok: _,
            refused,
            reset,
            timeout,
            unreachable,
            stalled,
            pending: _,
        } = *self;
        refused + reset + timeout + unreachable + stalled
    }
}

/// A hop of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hop {
    /// The client sends.
    Client,
    /// Name resolution.
    Dns,
    /// The VIP packet is on the node.
    Vip,
    /// A backend is chosen.
    Dnat,
    /// NetworkPolicy and other filters.
    Policy,
    /// Source NAT.
    Snat,
    /// Routing, overlay, MTU.
    Route,
    /// The backend Pod gets the packet.
    Backend,
    /// A socket takes it.
    Listener,
    /// The reply comes back to the node.
    Return,
    /// The reply is translated back and delivered.
    Unnat,
}

impl Hop {
    /// All, in order.
    pub const ALL: [Hop; 11] = [
        Hop::Client,
        Hop::Dns,
        Hop::Vip,
        Hop::Dnat,
        Hop::Policy,
        Hop::Snat,
        Hop::Route,
        Hop::Backend,
        Hop::Listener,
        Hop::Return,
        Hop::Unnat,
    ];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Hop::Client => "client",
            Hop::Dns => "dns",
            Hop::Vip => "vip",
            Hop::Dnat => "dnat",
            Hop::Policy => "policy",
            Hop::Snat => "snat",
            Hop::Route => "route",
            Hop::Backend => "backend",
            Hop::Listener => "listener",
            Hop::Return => "return",
            Hop::Unnat => "unnat",
        }
    }
}

/// State of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every attempt passed.
    Ok,
    /// Failing attempts stop here.
    Broken,
    /// Nothing was seen here.
    Unseen,
    /// Some attempts stop here.
    Degraded,
}

/// One hop of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopState {
    /// Which hop.
    pub hop: Hop,
    /// Its state.
    pub state: State,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Ids of what shows it.
    pub evidence: Vec<String>,
}

/// Where a piece of evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// tc counters and TCP state.
    Flow,
    /// Conntrack.
    Ct,
    /// Kernel drop.
    Drop,
    /// PMTU, ICMP, fragmentation.
    Mtu,
    /// API objects.
    K8s,
    /// Node facts.
    Node,
    /// Our own traffic.
    Probe,
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `e1`, `e2`, … in the order in which the answer cites them.
    pub id: String,
    /// Plane.
    pub plane: Plane,
    /// When it was seen.
    #[serde(serialize_with = "time_text_opt")]
    pub time: Option<Time>,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Hook (`tc/ingress`, `tp_btf/kfree_skb`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// The packet or connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<EvidenceFlow>,
    /// In words.
    pub text: String,
}

/// Addresses of a piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvidenceFlow {
    /// Protocol.
    #[serde(serialize_with = "proto_name")]
    pub proto: Proto,
    /// Source.
    pub src: Peer,
    /// Destination.
    pub dst: Peer,
    /// Original tuple of the conntrack entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orig: Option<TupleText>,
    /// Reply tuple of the conntrack entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<TupleText>,
    /// Conntrack zone.
    pub zone: u16,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// `namespace/name` of the Pod, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `namespace/name` of the Service, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the Node, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A conntrack tuple in JSON: `{"src":"ip:port","dst":"ip:port"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TupleText(pub super::Tuple);

impl Serialize for TupleText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(2))?;
        m.serialize_entry("src", &self.0.source().to_string())?;
        m.serialize_entry("dst", &self.0.destination().to_string())?;
        m.end()
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Breaks connections.
    Critical,
    /// May break connections.
    Warning,
    /// Worth knowing; changes neither verdict nor exit code.
    Info,
}

/// What a finding rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Records of a failing attempt's own tuple.
    Observed,
    /// Records, combined.
    Inferred,
    /// Objects only.
    Objects,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable public identifier (failures.md).
    pub code: &'static str,
    /// Severity.
    pub severity: Severity,
    /// What it rests on.
    pub basis: Basis,
    /// The hop it is about.
    pub hop: Hop,
    /// First evidence.
    #[serde(serialize_with = "time_text_opt")]
    pub from: Option<Time>,
    /// Last evidence, if it ended before the window did.
    #[serde(serialize_with = "time_text_opt")]
    pub until: Option<Time>,
    /// Whom it hits.
    pub affected: Affected,
    /// One sentence.
    pub summary: String,
    /// Ids of evidence.
    pub evidence: Vec<String>,
    /// How to check by hand.
    pub check: Vec<Check>,
    /// What to do.
    pub fix: Vec<Fix>,
    /// Codes that look alike.
    pub confusable: Vec<&'static str>,
}

/// Whom a finding hits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Affected {
    /// Attempts hit.
    pub attempts: u64,
    /// Of so many.
    pub of: u64,
    /// Clients.
    pub clients: Vec<String>,
    /// Backends.
    pub backends: Vec<String>,
}

/// A command that shows the same by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it shows.
    pub text: String,
    /// The command.
    pub command: String,
}

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What it does.
    pub text: String,
    /// The command; empty where none fits in a line.
    pub command: String,
    /// What it changes.
    pub changes: Changes,
}

/// What a fix changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Changes {
    /// Objects of the cluster.
    Cluster,
    /// State of a node.
    Node,
    /// Nothing: it only shows.
    Nothing,
}

/// Something that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blind {
    /// Stable identifier.
    pub code: String,
    /// Node, empty for all.
    pub node: String,
    /// Capability concerned, or the part of the facts.
    pub capability: String,
    /// In words.
    pub text: String,
}
