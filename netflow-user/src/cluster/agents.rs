//! The agents of a cluster, and the way to each: the API forwards a connection to its Pod, over which both ends still show each
//! other their certificates. Nothing but the API needs to be in reach.

use super::access::Access;
use crate::api::Address;
use crate::api::client::{AskError, PATIENCE, Peer};
use crate::api::places::{AGENT_NAME, AGENT_SET, CLIENT_SECRET, LABEL, NAMESPACE, PORT};
use crate::api::tls::{Pem, Pems};
use crate::causes::causes;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The agents of a cluster.
pub struct Agents {
    client: Client,
    pems: Pems,
    /// At most one a node, by its name.
    pub members: Vec<Member>,
}

/// An agent's Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node.
    pub node: String,
    /// Its name.
    pub pod: String,
    /// Why it cannot be asked yet.
    pub idle: Option<String>,
}

/// Agents cannot be found, or not be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentsError {
    /// There are none.
    #[error(
        "no netflow agent runs in the cluster ({server}): namespace {NAMESPACE} has none of their Pods"
    )]
    None {
        /// The API server.
        server: String,
    },
    /// The API does not let us.
    #[error("the agents of the cluster may not be asked, for want of the right to {right}: {why}")]
    Denied {
        /// What is wanted.
        right: &'static str,
        /// What the API says.
        why: String,
    },
    /// The Secret is not there, or something is not in it.
    #[error("the agents of the cluster answer only those who show a certificate, and {0}")]
    NoCertificate(String),
    /// The API does not answer as it should.
    #[error("the Kubernetes API ({server}) cannot be asked where the agents are: {why}")]
    Api {
        /// Which.
        server: String,
        /// Why.
        why: String,
    },
}

/// An agent that was found is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The API does not let us.
    #[error(transparent)]
    Denied(AgentsError),
    /// It cannot be asked yet.
    #[error("{}: {why}", address.agent())]
    Idle {
        /// Where.
        address: Address,
        /// Why.
        why: String,
    },
    /// The API leads nowhere.
    #[error("{}: the API server does not lead there: {why}", address.agent())]
    NoWay {
        /// Where.
        address: Address,
        /// Why.
        why: String,
    },
    /// It leads there, and no agent answers as it should.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl Agents {
    /// Finds them by `runtime`, within the time that the API has to answer.
    pub fn find(access: &Access, runtime: &Runtime) -> Result<Agents, AgentsError> {
        let (to, answer) = channel();
        let asked = access.clone();
        // Off this thread: a kubeconfig's program may hold up whoever waits for it.
        runtime.spawn(async move {
            // Nobody waits any more, if it cannot be sent.
            let _ = to.send(found(&asked).await);
        });
        let found = answer.recv_timeout(access.timeout);
        found.unwrap_or_else(|_| {
            Err(AgentsError::Api {
                server: access.title(),
                why: format!("no answer within {:?}", access.timeout),
            })
        })
    }

    /// Connects to one of them.
    pub async fn reach(&self, member: &Member) -> Result<Peer, ReachError> {
        let address = member.address();
        if let Some(why) = member.idle.clone() {
            return Err(ReachError::Idle { address, why });
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let no_way = |why| {
            let address = address.clone();
            ReachError::NoWay { address, why }
        };
        let forwarded = timeout(PATIENCE, pods.portforward(&member.pod, &[PORT])).await;
        let forwarded = forwarded.map_err(|_| no_way(format!("no answer within {PATIENCE:?}")))?;
        let mut forwarded = forwarded.map_err(|e| match denied(&e) {
            Some(why) => ReachError::Denied(AgentsError::Denied {
                right: "forward ports to Pods in namespace netflow (get and create pods/portforward)",
                why,
            }),
            None => no_way(causes(&e)),
        })?;
        let (Some(stream), Some(trouble)) =
            (forwarded.take_stream(PORT), forwarded.take_error(PORT))
        else {
            return Err(no_way("its port was not forwarded".into()));
        };
        // Whoever forwards says there why it cannot, and may leave the stream open.
        tokio::select! {
            biased;
            Some(why) = trouble => Err(untold(&address, &why)),
            peer = Peer::over(&address, stream, AGENT_NAME, &self.pems) => Ok(peer?),
        }
    }

    /// How many there should be, where that may be read.
    pub async fn wanted(&self, patience: Duration) -> Option<usize> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let set = timeout(patience, sets.get(AGENT_SET)).await.ok()?.ok()?;
        usize::try_from(set.status?.desired_number_scheduled).ok()
    }
}

impl Member {
    /// Where it is.
    pub fn address(&self) -> Address {
        Address::Pod {
            namespace: NAMESPACE.into(),
            name: self.pod.clone(),
            node: self.node.clone(),
        }
    }

    /// Of a Pod that is placed, and has not ended.
    fn of(pod: Pod) -> Option<Member> {
        let status = pod.status.unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        if matches!(&*phase, "Succeeded" | "Failed") {
            return None;
        }
        let idle = if pod.metadata.deletion_timestamp.is_some() {
            Some("its Pod is being deleted".to_owned())
        } else {
            (phase != "Running").then(|| format!("its Pod is {phase}"))
        };
        Some(Member {
            node: pod.spec?.node_name?,
            pod: pod.metadata.name?,
            idle,
        })
    }
}

async fn found(access: &Access) -> Result<Agents, AgentsError> {
    let server = || access.title();
    let unreadable = |why| AgentsError::Api {
        server: server(),
        why,
    };
    let client = Client::try_from(access.config.clone()).map_err(|e| unreadable(causes(&e)))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let listed = pods.list(&ListParams::default().labels(LABEL)).await;
    let listed = listed.map_err(|e| match denied(&e) {
        Some(why) => AgentsError::Denied {
            right: "list Pods in namespace netflow",
            why,
        },
        None => unreadable(causes(&e)),
    })?;
    let members = members(listed.items);
    if members.is_empty() {
        return Err(AgentsError::None { server: server() });
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets.get_opt(CLIENT_SECRET).await;
    let secret = secret.map_err(|e| match denied(&e) {
        Some(why) => AgentsError::Denied {
            right: "get Secret netflow-client in namespace netflow",
            why,
        },
        None => unreadable(causes(&e)),
    })?;
    Ok(Agents {
        client,
        pems: pems(secret)?,
        members,
    })
}

/// One a node: of several, as while one replaces another, one that can be asked.
fn members(pods: Vec<Pod>) -> Vec<Member> {
    let mut by_node: BTreeMap<String, Member> = BTreeMap::new();
    for member in pods.into_iter().filter_map(Member::of) {
        let known = by_node.get(&member.node);
        if known.is_none_or(|known| known.idle.is_some()) {
            by_node.insert(member.node.clone(), member);
        }
    }
    by_node.into_values().collect()
}

/// Nothing of it is ever written to a disk.
fn pems(secret: Option<Secret>) -> Result<Pems, AgentsError> {
    let name = format!("Secret {NAMESPACE}/{CLIENT_SECRET}");
    let no = AgentsError::NoCertificate;
    let secret = secret.ok_or_else(|| no(format!("{name} does not exist")))?;
    let mut data = secret.data.unwrap_or_default();
    let mut pem = |key: &str| {
        let text = data.remove(key);
        let text = text.ok_or_else(|| no(format!("{name} holds no {key}")))?;
        Ok(Pem {
            place: format!("{key} of {name}"),
            text: text.0,
        })
    };
    Ok(Pems {
        cert: pem("tls.crt")?,
        key: pem("tls.key")?,
        ca: pem("ca.crt")?,
    })
}

/// What the API says where it does not let us.
fn denied(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) if status.code == 403 => Some(status.message.clone()),
        _ => None,
    }
}

/// What whoever forwards says of the Pod.
fn untold(address: &Address, why: &str) -> ReachError {
    if why.contains("connection refused") {
        return AskError::Absent(address.clone()).into();
    }
    ReachError::NoWay {
        address: address.clone(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, phase: &str) -> Pod {
        let object = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        });
        serde_json::from_value(object).unwrap()
    }

    fn leaving(mut pod: Pod) -> Pod {
        let gone = json!("2026-01-01T00:00:00Z");
        pod.metadata.deletion_timestamp = serde_json::from_value(gone).unwrap();
        pod
    }

    #[test]
    fn a_node_has_one_agent_that_is_asked() {
        let found = members(vec![
            leaving(pod("old", Some("n1"), "Running")),
            pod("new", Some("n1"), "Running"),
            pod("b", Some("n2"), "Pending"),
            pod("nowhere", None, "Pending"),
            pod("ended", Some("n3"), "Failed"),
            pod("d", Some("n4"), "Running"),
            leaving(pod("d-old", Some("n4"), "Running")),
        ]);
        let found: Vec<_> = found
            .iter()
            .map(|m| (&*m.node, &*m.pod, m.idle.as_deref()))
            .collect();
        let wanted = [
            ("n1", "new", None),
            ("n2", "b", Some("its Pod is Pending")),
            ("n4", "d", None),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_missing_of_the_certificate_is_said() {
        let said = |secret| pems(secret).err().unwrap().to_string();
        let missing = said(None);
        assert!(
            missing.ends_with("Secret netflow/netflow-client does not exist"),
            "{missing}"
        );
        let mut secret = Secret::default();
        let data = ["tls.crt", "ca.crt"].map(|key| (key.to_owned(), ByteString(Vec::new())));
        secret.data = Some(data.into());
        let half = said(Some(secret));
        assert!(half.ends_with("holds no tls.key"), "{half}");
    }

    #[test]
    fn a_port_on_which_nobody_listens_is_an_agent_that_is_not_there() {
        let address = members(vec![pod("a", Some("n1"), "Running")])[0].address();
        let told =
            "failed to execute portforward: dial tcp4 127.0.0.1:4271: connect: connection refused";
        let error = untold(&address, told);
        assert!(
            matches!(error, ReachError::Ask(AskError::Absent(_))),
            "{error}"
        );
        let error = untold(&address, "no such sandbox").to_string();
        assert!(
            error.ends_with("does not lead there: no such sandbox"),
            "{error}"
        );
    }
}
