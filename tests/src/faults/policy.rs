//! NetworkPolicies and other filters.

use super::conntrack::plain;
use super::route::shapes;
use super::{At, Expect, Fault, Vantage, rejected};
use crate::lab::plan::{Network, Placement, Plan, PodPlan, Shape};
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::{Deed, Filter, Hook, Party, Spot, World};
use anyhow::Result;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use std::net::SocketAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &PolicyDeniedIngress(Denial::All),
    &PolicyDeniedIngress(Denial::Label),
    &PolicyDeniedIngress(Denial::Namespace),
    &PolicyDeniedIngress(Denial::Port),
    &FirewallDrop(Wall::BackendNode),
    &FirewallDrop(Wall::ClientNode),
    &FirewallDrop(Wall::BackendPod),
    &FirewallDrop(Wall::ClientPod),
    &FirewallReject(Wall::BackendNode, Deed::Reject),
    &FirewallReject(Wall::BackendPod, Deed::Reject),
    &FirewallReject(Wall::ClientNode, Deed::Reset),
    &UnrelatedReject,
];

/// What a policy does not admit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    All,
    Label,
    Namespace,
    Port,
}

/// A policy over the backends that does not admit the client.
pub(super) fn denying(plan: &Plan, denial: Denial) -> Result<NetworkPolicy> {
    let (key, value) = &plan.backends[0].label;
    let target = plan.port().target;
    let here = json!([{"protocol": "TCP", "port": target}]);
    let ingress = match denial {
        Denial::All => json!([]),
        Denial::Label => json!([{
            "from": [{"podSelector": {"matchLabels": {"access": "granted"}}, "namespaceSelector": {}}],
            "ports": here,
        }]),
        Denial::Namespace => json!([{
            "from": [{"namespaceSelector": {"matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "edge"]}]}}],
            "ports": here,
        }]),
        Denial::Port => {
            json!([{"ports": [{"protocol": "TCP", "port": target - 1, "endPort": target - 1}]}])
        }
    };
    Ok(serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": plan.service.namespace, "name": policy_name(plan)},
        "spec": {
            "podSelector": {"matchLabels": {key.as_str(): value}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        }
    }))?)
}

fn policy_name(plan: &Plan) -> String {
    format!("{}-{}-only", plan.service.name, plan.word)
}

struct PolicyDeniedIngress(Denial);

impl Fault for PolicyDeniedIngress {
    fn name(&self) -> &'static str {
        match self.0 {
            Denial::All => "policy-denied-ingress",
            Denial::Label => "policy-denied-ingress-label",
            Denial::Namespace => "policy-denied-ingress-namespace",
            Denial::Port => "policy-denied-ingress-port",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Denial::All => "a NetworkPolicy admits nobody to the backends",
            Denial::Label => {
                "a NetworkPolicy admits Pods with a label that the client does not have"
            }
            Denial::Namespace => {
                "a NetworkPolicy admits namespaces with a label that the client's does not have"
            }
            Denial::Port => "a NetworkPolicy admits everybody, but to another port",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.objects.policies.push(denying(plan, self.0)?);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.backend_side(Expect::code("policy-denied-ingress", &["drop"]).and(&["k8s"]))
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        let label = match self.0 {
            Denial::All | Denial::Port => None,
            Denial::Label => Some("access".to_owned()),
            Denial::Namespace => Some("tier".to_owned()),
        };
        std::iter::once(policy_name(plan)).chain(label).collect()
    }
}

/// Where somebody's own firewall rule stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wall {
    BackendNode,
    ClientNode,
    BackendPod,
    ClientPod,
}

/// The rules of a wall.
fn wall(plan: &Plan, wall: Wall, deed: Deed) -> Vec<Filter> {
    let (target, node) = (plan.port().target, plan.backend_node());
    let to_pod = |spot: Spot, hook: Hook, pod: &PodPlan| Filter {
        spot,
        hook,
        proto: "tcp",
        dst: pod.ip,
        dport: target,
        deed,
    };
    let pods = plan.backends.iter();
    match wall {
        Wall::BackendNode => pods
            .map(|p| to_pod(Spot::Node(node), Hook::Forward, p))
            .collect(),
        Wall::ClientNode => pods
            .map(|p| to_pod(Spot::Node(0), Hook::Forward, p))
            .collect(),
        Wall::BackendPod => pods
            .map(|p| to_pod(Spot::Pod(p.ip), Hook::Input, p))
            .collect(),
        Wall::ClientPod => vec![Filter {
            spot: Spot::Pod(plan.client.ip),
            hook: Hook::Output,
            proto: "tcp",
            dst: plan.service.vip,
            dport: plan.port().port,
            deed,
        }],
    }
}

struct FirewallDrop(Wall);

impl Fault for FirewallDrop {
    fn name(&self) -> &'static str {
        match self.0 {
            Wall::BackendNode => "firewall-drop",
            Wall::ClientNode => "firewall-drop-client-node",
            Wall::BackendPod => "firewall-drop-in-pod",
            Wall::ClientPod => "firewall-drop-client-pod",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Wall::BackendNode => {
                "a firewall rule on the backends' node drops what is forwarded to them"
            }
            Wall::ClientNode => {
                "a firewall rule on the client's node drops what is forwarded to the backends"
            }
            Wall::BackendPod => "a firewall rule inside the backend Pods drops what comes in",
            Wall::ClientPod => {
                "a firewall rule inside the client Pod drops what goes out to the VIP"
            }
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.filters = wall(plan, self.0, Deed::Drop);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let expect = Expect::code("firewall-drop", &["drop"]);
        match self.0 {
            Wall::BackendNode | Wall::BackendPod => at.backend_side(expect),
            Wall::ClientNode | Wall::ClientPod => match at.vantage {
                Vantage::Backend => Expect::not_from_here(),
                Vantage::Client | Vantage::Together => expect,
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        match self.0 {
            Wall::ClientNode => &[Placement::Cross],
            _ => &Placement::ALL,
        }
    }
}

struct FirewallReject(Wall, Deed);

impl Fault for FirewallReject {
    fn name(&self) -> &'static str {
        match self.0 {
            Wall::BackendNode => "firewall-reject",
            Wall::BackendPod => "firewall-reject-in-pod",
            Wall::ClientNode => "firewall-reject-reset",
            Wall::ClientPod => "firewall-reject-client-pod",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Wall::BackendNode => {
                "a firewall rule on the backends' node rejects what is forwarded to them"
            }
            Wall::BackendPod => "a firewall rule inside the backend Pods rejects what comes in",
            Wall::ClientNode => {
                "a firewall rule on the client's node answers what is forwarded to the backends with RST"
            }
            Wall::ClientPod => "a firewall rule inside the client Pod rejects what goes out",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.filters = wall(plan, self.0, self.1);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match (self.0, at.vantage) {
            (Wall::ClientNode | Wall::ClientPod, Vantage::Backend) => Expect::not_from_here(),
            // From another node comes the ICMP error alone, which says as much.
            (_, Vantage::Client) if at.placement == Placement::Cross => {
                Expect::code("firewall-reject", &["flow", "drop"])
            }
            _ => Expect::code("firewall-reject", &["drop"]),
        }
    }
    fn client_sees(&self, plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        match self.1 {
            // What comes over a bridge is answered at its port, past the translation back (`nf_send_reset`,
            // <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/netfilter/nf_reject_ipv4.c>): the RST is none of a
            // connection that the client knows.
            Deed::Reset if plan.shape.network.is_bridged() => vec![Outcome::Timeout],
            Deed::Reset => vec![Outcome::Refused],
            _ => rejected(),
        }
    }
    fn placements(&self) -> &'static [Placement] {
        match self.0 {
            Wall::ClientNode => &[Placement::Cross],
            _ => &Placement::ALL,
        }
    }
    fn shapes(&self) -> Vec<Shape> {
        match self.1 {
            Deed::Reset => shapes(self.placements(), &Network::ROUTED),
            _ => plain(self.placements()),
        }
    }
}

struct UnrelatedReject;

impl Fault for UnrelatedReject {
    fn name(&self) -> &'static str {
        "near-unrelated-reject"
    }
    fn breaks(&self) -> &'static str {
        "nothing: a firewall rule rejects another connection of the same client"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let port = plan.port().target;
        world.filters.push(Filter {
            spot: Spot::Node(0),
            hook: Hook::Forward,
            proto: "tcp",
            dst: plan.spare.ip,
            dport: port,
            deed: Deed::Reject,
        });
        let dial = Dial::tcp(SocketAddr::new(plan.spare.ip, port));
        world.noise.push((Party::Client, dial));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            _ => Expect::healthy(),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}
