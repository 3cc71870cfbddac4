//! `netflow status`.

mod fleet;

pub use self::fleet::{FleetReport, NodeReport};
use super::args::{ApiArgs, Format, IdentityArgs};
use super::duration;
use super::failure::Failure;
use super::fleet::Fleet;
use super::objects::Place;
use super::output::Output;
use super::render;
use crate::api::client::{Agent, AskError};
use crate::api::dial::Identity;
use crate::api::v1::{History, StatusResponse, Tier, Unseen};
use crate::api::{Address, SOCKET};
use crate::cluster::agents::AgentsError;
use crate::model::Time;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Value of `schema`.
const SCHEMA: &str = "netflow.status/v1";

/// Say how the agent of this node is, or those of all nodes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow status
  netflow status --wait 30s
      waits for an agent that is starting
  netflow status --cluster
      how those of all nodes are, through the API server
  netflow status --ready
      for probes

Exit status: 0 well, 1 degraded, or one of many does not answer, 2 no agent answers")]
pub struct Status {
    /// Ask the agent at this socket (`unix:///PATH`) or address (`https://HOST:PORT`, with --tls-cert, --tls-key and --ca),
    /// instead of the one of this node
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context", "act_as"])]
    server: Option<Address>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Ask the agents of all nodes, through the API server; what is done anyway where no agent runs on this node
    #[arg(long, conflicts_with_all = ["server", "ready"])]
    cluster: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Wait until it answers, or all of them, but for so long at most; without TIME a minute
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// Print nothing, and exit 0 where it answers at all, degraded or not: for probes
    #[arg(long)]
    ready: bool,
}

/// How long a socket is left alone on which nobody answers.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Something is lost or cannot be seen.
    pub degraded: bool,
    /// Name of its node.
    pub node: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// `uname -r` there.
    pub kernel: String,
    /// Since when everything is attached.
    pub since: String,
    /// Seconds since then.
    pub up_seconds: u64,
    /// On which tier each capability runs.
    pub tiers: Vec<TierReport>,
    /// Records lost since then, by kind.
    pub lost: BTreeMap<String, u64>,
    /// Interfaces whose packets are not all seen.
    pub unseen: Vec<UnseenReport>,
    /// Where the names come from.
    pub objects: String,
    /// What of them cannot be read.
    pub limits: Vec<String>,
    /// Addresses of Pods placed on its node.
    pub pods: u32,
    /// Entries of the flow map.
    pub flows: u64,
    /// Who looks at the moment.
    pub looks: u32,
    /// What is kept for those who ask later; `None` = nothing.
    pub history: Option<HistoryReport>,
}

/// What is kept of what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryReport {
    /// Bytes that it may take.
    pub limit_bytes: u64,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Connections in it.
    pub connections: u64,
    /// From when on all connections that failed are there.
    pub failing_from: String,
    /// How many earlier ones had to go.
    pub failing_evicted: u64,
    /// From when on all healthy ones are there.
    pub healthy_from: String,
    /// How many earlier ones had to go.
    pub healthy_evicted: u64,
}

/// The tier of a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierReport {
    /// Which capability.
    pub capability: String,
    /// Which tier; `None` = none.
    pub tier: Option<String>,
    /// It is the best one there is.
    pub best: bool,
    /// Why not a better one.
    pub reasons: Vec<String>,
    /// What cannot be seen because of it.
    pub lost: String,
}

/// An interface whose packets are not all seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnseenReport {
    /// Its name.
    pub interface: String,
    /// Why.
    pub why: String,
}

/// Runs it.
pub fn run(args: &Status, output: &Output, format: Format) -> Result<u8, Failure> {
    let Status {
        server,
        identity,
        cluster,
        api,
        wait,
        ready,
    } = args;
    let wait = wait.unwrap_or_default();
    if *cluster || api.is_chosen() {
        let access = Place::of_api(api)?;
        return fleet::run(Fleet::find(&access)?, &access, wait, output, format);
    }
    let address = server.clone();
    let address = address.unwrap_or_else(|| Address::Socket(SOCKET.into()));
    let identity = identity.identity()?;
    let mut agent = match connect(&address, identity.as_ref(), wait, output) {
        Err(AskError::Absent(_)) if server.is_none() && !ready => {
            return elsewhere(api, wait, output, format)
                .unwrap_or_else(|| Err(AskError::Absent(address).into()));
        }
        connected => connected?,
    };
    let report = report(agent.status()?);
    if *ready {
        return Ok(0);
    }
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        Format::Jsonl => serde_json::to_string(&report).unwrap_or_default() + "\n",
        Format::Text | Format::Wide => render::status(&report, output.width()),
    };
    super::print(output, &text)?;
    Ok(u8::from(report.degraded))
}

/// Asks those of the cluster, unless there are none, or nobody knows.
fn elsewhere(
    api: &ApiArgs,
    wait: Duration,
    output: &Output,
    format: Format,
) -> Option<Result<u8, Failure>> {
    let access = Place::of_api(api).ok()?;
    match Fleet::find(&access) {
        Ok(fleet) => Some(fleet::run(fleet, &access, wait, output, format)),
        Err(e @ (AgentsError::None { .. } | AgentsError::Api { .. })) => {
            output.detail(e);
            None
        }
        Err(e @ (AgentsError::Denied { .. } | AgentsError::NoCertificate(_))) => {
            Some(Err(e.into()))
        }
    }
}

fn connect(
    address: &Address,
    identity: Option<&Identity>,
    wait: Duration,
    output: &Output,
) -> Result<Agent, AskError> {
    let until = Instant::now() + wait;
    let mut told = false;
    loop {
        match Agent::connect(address, identity) {
            Err(AskError::Absent(_)) if Instant::now() < until => {}
            done => return done,
        }
        if !told {
            output.notice(format_args!("waiting for the agent at {address}"));
            told = true;
        }
        thread::sleep(AGAIN_AFTER);
    }
}

fn report(status: StatusResponse) -> Report {
    let StatusResponse {
        node,
        version,
        commit,
        kernel,
        since_ns,
        now_ns,
        tiers,
        lost,
        unseen,
        objects,
        limits,
        pods,
        flows,
        looks,
        history,
    } = status;
    let tiers: Vec<TierReport> = tiers.into_iter().map(TierReport::from).collect();
    let unseen: Vec<UnseenReport> = unseen.into_iter().map(UnseenReport::from).collect();
    let poor = tiers.iter().any(|t| t.tier.is_none() || !t.lost.is_empty());
    Report {
        schema: SCHEMA,
        degraded: poor || !lost.is_empty() || !unseen.is_empty() || !limits.is_empty(),
        node,
        version,
        commit,
        kernel,
        since: Time(since_ns).to_string(),
        up_seconds: Time(now_ns).since(Time(since_ns)).as_secs(),
        tiers,
        lost: lost.into_iter().collect(),
        unseen,
        objects,
        limits,
        pods,
        flows,
        looks,
        history: history.map(HistoryReport::from),
    }
}

impl From<History> for HistoryReport {
    fn from(history: History) -> HistoryReport {
        let History {
            limit,
            bytes,
            connections,
            failing_from_ns,
            failing_evicted,
            healthy_from_ns,
            healthy_evicted,
        } = history;
        HistoryReport {
            limit_bytes: limit,
            bytes,
            connections,
            failing_from: Time(failing_from_ns).to_string(),
            failing_evicted,
            healthy_from: Time(healthy_from_ns).to_string(),
            healthy_evicted,
        }
    }
}

impl From<Tier> for TierReport {
    fn from(tier: Tier) -> TierReport {
        let Tier {
            capability,
            tier,
            best,
            reasons,
            lost,
        } = tier;
        TierReport {
            capability,
            tier: (!tier.is_empty()).then_some(tier),
            best,
            reasons,
            lost,
        }
    }
}

impl From<Unseen> for UnseenReport {
    fn from(unseen: Unseen) -> UnseenReport {
        let Unseen { interface, why } = unseen;
        UnseenReport { interface, why }
    }
}
