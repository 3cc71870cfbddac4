//! What a node runs for its network, out of order by the objects.

use super::service::idle;
use super::{At, Expect, Fault, Form, Vantage, leaked};
use crate::lab::plan::Plan;
use crate::manifests::{make_unready, node_agent};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Programmed, World};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::NodeCondition;
use netflow_user::model::answer::Verdict;

pub(super) const ALL: &[&dyn Fault] = &[
    &ProxyUnhealthy {
        name: "proxy-unhealthy",
        state: State::NotReady,
        works: false,
    },
    &ProxyUnhealthy {
        name: "proxy-unhealthy-gone",
        state: State::Gone,
        works: false,
    },
    &ProxyUnhealthy {
        name: "near-proxy-unhealthy",
        state: State::NotReady,
        works: true,
    },
    &CniUnhealthy {
        name: "cni-unhealthy",
        state: State::NotReady,
    },
    &CniUnhealthy {
        name: "cni-unhealthy-gone",
        state: State::Gone,
    },
    &CniUnhealthy {
        name: "cni-unhealthy-no-network",
        state: State::Unset,
    },
];

/// Nobody uses the Service: what an agent says of itself is suspected, that there is none may be meant.
fn unused(code: &'static str, state: State) -> Expect {
    match state {
        State::Gone => Expect {
            verdicts: vec![Verdict::NotEnoughEvidence],
            info: Some(code),
            ..Expect::healthy()
        },
        State::NotReady | State::Unset => idle(code),
    }
}

/// What is wrong on the client's node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The agent's Pod is not Ready.
    NotReady,
    /// There is no such Pod on it.
    Gone,
    /// The node says so itself.
    Unset,
}

/// Both nodes run an agent; the client's is in this state.
fn run_agents(
    plan: &Plan,
    world: &mut World,
    set: &str,
    container: &str,
    state: State,
) -> Result<()> {
    for n in 0..plan.nodes.len() {
        let mut pod = node_agent(plan, n, set, container);
        match (n, state) {
            (0, State::Gone) => continue,
            (0, State::NotReady) => {
                make_unready(&mut pod, "ContainersNotReady", "CrashLoopBackOff");
            }
            _ => {}
        }
        world.objects.pods.push(pod);
    }
    if state == State::Unset {
        let status = world.objects.nodes[0].status.as_mut();
        let conditions = &mut status.context("no status")?.conditions;
        conditions.get_or_insert_default().push(NodeCondition {
            type_: "NetworkUnavailable".to_owned(),
            status: "True".to_owned(),
            reason: Some("NoRouteCreated".to_owned()),
            ..NodeCondition::default()
        });
    }
    Ok(())
}

struct ProxyUnhealthy {
    name: &'static str,
    state: State,
    /// Its rules of before are all there.
    works: bool,
}

impl Fault for ProxyUnhealthy {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        match (self.works, self.state) {
            (true, _) => {
                "nothing yet: kube-proxy of the client's node is not Ready, and its rules stand"
            }
            (false, State::Gone) => "the client's node has no kube-proxy, and none of its rules",
            (false, _) => "kube-proxy of the client's node is not Ready, and never wrote a rule",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        if !self.works {
            world.programmed[0] = Programmed::Nothing;
        }
        run_agents(plan, world, "kube-proxy", "kube-proxy", self.state)
    }
    /// What is seen of packets goes first.
    fn expect(&self, at: At) -> Expect {
        let also = |expect: Expect| Expect {
            info: Some("proxy-unhealthy"),
            ..expect
        };
        match (at.vantage, at.form) {
            (Vantage::Backend, _) if self.works => Expect::unharmed(),
            (Vantage::Backend, _) => Expect::not_from_here(),
            (_, Form::Idle) => unused("proxy-unhealthy", self.state),
            _ if self.works => also(Expect::healthy()),
            _ => also(Expect::code("vip-not-translated", &["flow", "drop"])),
        }
    }
    fn client_sees(&self, plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        if self.works {
            vec![Outcome::Ok]
        } else {
            leaked(plan)
        }
    }
    fn forms(&self) -> &'static [Form] {
        if self.works {
            &Form::WITH_TRAFFIC
        } else {
            &super::service::WITH_IDLE
        }
    }
    fn is_node_wide(&self) -> bool {
        !self.works
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.nodes[0].name.clone()]
    }
}

struct CniUnhealthy {
    name: &'static str,
    state: State,
}

impl Fault for CniUnhealthy {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        match self.state {
            State::NotReady => {
                "the network plugin's agent on the client's node is not Ready; what it set up stands"
            }
            State::Gone => {
                "the network plugin's agent on the client's node is gone; what it set up stands"
            }
            State::Unset => "the client's node says that it has no network; Pods that run have one",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        run_agents(plan, world, "kube-flannel-ds", "kube-flannel", self.state)
    }
    /// Objects alone suspect it; traffic that passes is healthy all the same.
    fn expect(&self, at: At) -> Expect {
        match (at.vantage, at.form) {
            (Vantage::Backend, _) => Expect::unharmed(),
            (_, Form::Idle) => unused("cni-unhealthy", self.state),
            _ => Expect {
                info: Some("cni-unhealthy"),
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn forms(&self) -> &'static [Form] {
        &super::service::WITH_IDLE
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.nodes[0].name.clone()]
    }
}
