//! All agents of a cluster, found and reached through its API.

use super::failure::Failure;
use super::remote::{Begun, Source};
use crate::api::client::{self, AskError};
use crate::api::places::NAMESPACE;
use crate::api::v1::StatusResponse;
use crate::cluster::access::Access;
use crate::cluster::agents::{Agents, AgentsError, Member, ReachError};
use crate::model::feed::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Code of what the API does not let us do.
pub const NOT_ALLOWED: &str = "agents-not-allowed";
/// How long one of many may take until it tells something.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an agent says of itself, and how its clock stands to ours.
pub struct Surveyed {
    /// Which.
    pub member: Member,
    /// What, or why nothing.
    pub answer: Result<(StatusResponse, Clock), Failure>,
}

/// All agents of a cluster.
pub struct Fleet {
    runtime: Arc<Runtime>,
    agents: Arc<Agents>,
}

impl Fleet {
    /// Finds them.
    pub fn find(access: &Access) -> Result<Fleet, AgentsError> {
        let runtime = client::runtime().map_err(|e| AgentsError::Api {
            server: access.title(),
            why: e.to_string(),
        })?;
        match Agents::find(access, &runtime) {
            Ok(agents) => Ok(Fleet {
                runtime: Arc::new(runtime),
                agents: Arc::new(agents),
            }),
            Err(e) => {
                // Whatever still waits there is waited for by nobody.
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    /// How many there should be, where that may be read.
    pub fn wanted(&self) -> Option<usize> {
        self.runtime.block_on(self.agents.wanted(PATIENCE))
    }

    /// Asks all of them how they are, at the same time.
    pub fn survey(&self) -> Vec<Surveyed> {
        let mut asked = JoinSet::new();
        for member in self.agents.members.clone() {
            let agents = self.agents.clone();
            let ask = async move {
                let answer = timeout(PATIENCE, measure(&agents, &member)).await;
                let answer = answer.unwrap_or_else(|_| Err(late(&member)));
                Surveyed { member, answer }
            };
            asked.spawn_on(ask, self.runtime.handle());
        }
        let mut surveyed = self.runtime.block_on(asked.join_all());
        surveyed.sort_by(|a, b| a.member.node.cmp(&b.member.node));
        surveyed
    }

    /// All of them, to be asked.
    pub fn sources(self) -> Vec<Source> {
        let Fleet { runtime, agents } = self;
        let members = agents.members.clone().into_iter();
        members
            .map(|member| {
                let (runtime, agents) = (runtime.clone(), agents.clone());
                Source {
                    name: member.address().agent(),
                    node: Some(member.node.clone()),
                    begin: Box::new(move |query| {
                        let begun = runtime.block_on(in_time(&agents, &member, query))?;
                        Ok(Begun {
                            collecting: begun.collecting.within(runtime),
                            ..begun
                        })
                    }),
                }
            })
            .collect()
    }
}

async fn measure(agents: &Agents, member: &Member) -> Result<(StatusResponse, Clock), Failure> {
    let mut peer = agents.reach(member).await?;
    Ok(peer.measure().await?)
}

async fn in_time(agents: &Agents, member: &Member, query: String) -> Result<Begun, Failure> {
    let begun = timeout(PATIENCE, begin(agents, member, query)).await;
    begun.unwrap_or_else(|_| Err(late(member)))
}

async fn begin(agents: &Agents, member: &Member, query: String) -> Result<Begun, Failure> {
    let mut peer = agents.reach(member).await?;
    let (_, clock) = peer.measure().await?;
    let collecting = peer.collect(query).await.map_err(|e| match e {
        // It speaks of its node, and there are others.
        AskError::Problem(problem) => {
            let agent = member.address().agent();
            Failure::new(
                "agent",
                format!("{agent}: {}", problem.message),
                problem.hint,
            )
        }
        other => other.into(),
    })?;
    Ok(Begun {
        collecting,
        clock: Some(clock),
    })
}

fn late(member: &Member) -> Failure {
    let agent = member.address().agent();
    let why = format!("{agent}: no answer within {PATIENCE:?}");
    Failure::new("agent-unreachable", why, "ask again")
}

impl From<AgentsError> for Failure {
    fn from(e: AgentsError) -> Failure {
        let (code, hint) = match &e {
            AgentsError::None { .. } => (
                "no-agent",
                "`netflow install | kubectl apply -f -` runs one on every node; without them netflow looks as root on a node, with --standalone".to_owned(),
            ),
            AgentsError::Denied { .. } => (
                NOT_ALLOWED,
                format!(
                    "the Role netflow-asker grants it, where netflow is installed: `kubectl create rolebinding netflow-asker --namespace {NAMESPACE} --role netflow-asker --user NAME`"
                ),
            ),
            AgentsError::NoCertificate(_) => (
                "agent-certificate",
                "`netflow install | kubectl apply -f -` makes one".to_owned(),
            ),
            AgentsError::Api { .. } => (
                "source-unreadable",
                "`kubectl get --raw /readyz` asks the same server; --context and --kubeconfig name another, --manifests takes the objects from files".to_owned(),
            ),
        };
        Failure::new(code, e.to_string(), hint)
    }
}

impl From<ReachError> for Failure {
    fn from(e: ReachError) -> Failure {
        match e {
            ReachError::Denied(e) => e.into(),
            ReachError::Ask(e) => e.into(),
            ReachError::Idle { .. } | ReachError::NoWay { .. } => Failure::new(
                "agent-unreachable",
                e.to_string(),
                format!("`kubectl get pods --namespace {NAMESPACE} -o wide` shows how it is"),
            ),
        }
    }
}
