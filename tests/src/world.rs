//! How a lab is meant to be at a moment: a description that [`crate::lab::Lab::apply`] makes true.

use crate::lab::plan::{Plan, PodPlan};
use crate::manifests::Objects;
use crate::proxy::Mode;
use crate::settings::Settings;
use crate::traffic::{Dial, Listen};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What a node's kube-proxy has written.
#[derive(Debug, Clone, PartialEq)]
pub enum Programmed {
    /// Rules of the objects as they are.
    InSync,
    /// Rules of the objects as they were.
    Old(Box<Objects>),
    /// No rules at all.
    Nothing,
}

/// Where a firewall rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// On a node, by index.
    Node(usize),
    /// In the Pod with this address.
    Pod(IpAddr),
}

/// Chain of a firewall rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// To a local socket.
    Input,
    /// Passing through.
    Forward,
    /// From a local socket.
    Output,
}

impl Hook {
    /// The iptables chain.
    pub fn chain(self) -> &'static str {
        match self {
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
            Hook::Output => "OUTPUT",
        }
    }
}

/// What a firewall rule does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Nothing is said.
    Drop,
    /// ICMP port unreachable is sent.
    Reject,
    /// A RST is sent.
    Reset,
}

impl Deed {
    /// As iptables spells it.
    pub fn target(self) -> &'static str {
        match self {
            Deed::Drop => "DROP",
            Deed::Reject => "REJECT",
            Deed::Reset => "REJECT --reject-with tcp-reset",
        }
    }

    /// As nft spells it.
    pub fn statement(self) -> &'static str {
        match self {
            Deed::Drop => "drop",
            Deed::Reject => "reject",
            Deed::Reset => "reject with tcp reset",
        }
    }
}

/// A firewall rule that lets nothing pass: no NetworkPolicy, somebody's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where.
    pub spot: Spot,
    /// Chain.
    pub hook: Hook,
    /// Protocol, lower case.
    pub proto: &'static str,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
    /// What it does.
    pub deed: Deed,
}

/// What is wrong between the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// MTU of the path between the nodes.
    pub path_mtu: Option<u32>,
    /// "Fragmentation needed" is not sent.
    pub mute: bool,
    /// What is dropped silently.
    pub lost: Option<Lost>,
}

/// Destinations that the network swallows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// All Pods of a node, by index.
    Node(usize),
    /// These Pods.
    Pods(Vec<IpAddr>),
}

/// Where something is set otherwise than a healthy lab has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// On a node, by index.
    Node(usize),
    /// In the Pod with this address.
    Pod(IpAddr),
    /// On the router between the nodes.
    Router,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A line of `ip -batch`.
    Ip(String),
    /// A sysctl by its dotted name, and its value.
    Sysctl(String, String),
    /// Lines of `nft -f`.
    Nft(String),
}

impl Step {
    /// A setting.
    pub fn sysctl(name: impl Into<String>, value: impl Into<String>) -> Step {
        Step::Sysctl(name.into(), value.into())
    }
}

/// What somebody did to a machine by hand, and what undoes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tweak {
    /// Where.
    pub site: Site,
    /// What was done.
    pub done: Vec<Step>,
    /// How it is undone.
    pub undone: Vec<Step>,
}

/// The whole.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// How the rules are written.
    pub mode: Mode,
    /// What the API server holds.
    pub objects: Objects,
    /// What each node's kube-proxy wrote.
    pub programmed: [Programmed; 2],
    /// Whether a network plugin enforces the policies.
    pub enforced: bool,
    /// Sockets by Pod address.
    pub listens: BTreeMap<IpAddr, Vec<Listen>>,
    /// Foreign firewall rules.
    pub filters: Vec<Filter>,
    /// The network between the nodes.
    pub between: Between,
    /// How the nodes are set.
    pub settings: Settings,
    /// Pods whose address is gone.
    pub gone: Vec<IpAddr>,
    /// What was done by hand besides.
    pub tweaks: Vec<Tweak>,
    /// Namespace and name asked about.
    pub asked: (String, String),
    /// Clients asked about (`--from`); `None`: all.
    pub from: Option<String>,
    /// Where the clients run.
    pub client: Party,
    /// Clients of the Service.
    pub via_vip: Vec<Dial>,
    /// Clients that dial Pods directly.
    pub via_pod: Vec<Dial>,
    /// Clients that have nothing to do with the Service, by the namespace they run in.
    pub noise: Vec<(Party, Dial)>,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The client Pod.
    Client,
    /// A backend Pod, by index.
    Backend(usize),
    /// A Pod of the second Service, by index, which is its node's as well.
    Second(usize),
    /// The node of a Pod, as its kubelet would.
    Node(usize),
    /// The host outside.
    Outside,
}

impl World {
    /// Everything works.
    pub fn healthy(plan: &Plan, mode: Mode) -> World {
        let ports: Vec<u16> = plan.service.ports.iter().map(|p| p.target).collect();
        let second: Vec<u16> = plan.second.ports.iter().map(|p| p.target).collect();
        let mut listens = BTreeMap::new();
        for pod in &plan.backends {
            listens.insert(pod.ip, tcp(&ports));
        }
        for pod in &plan.seconds {
            listens.insert(pod.ip, tcp(&second));
        }
        let (port, service) = (plan.port(), &plan.service);
        World {
            mode,
            objects: Objects::of(plan),
            programmed: [Programmed::InSync, Programmed::InSync],
            enforced: true,
            listens,
            filters: Vec::new(),
            between: Between::default(),
            settings: Settings::default(),
            gone: Vec::new(),
            tweaks: Vec::new(),
            asked: (service.namespace.clone(), service.name.clone()),
            from: None,
            client: Party::Client,
            via_vip: vec![Dial::tcp(SocketAddr::new(service.vip, port.port))],
            via_pod: plan
                .backends
                .iter()
                .map(|pod| Dial {
                    interval: 700,
                    ..Dial::tcp(SocketAddr::new(pod.ip, port.target))
                })
                .collect(),
            noise: Vec::new(),
        }
    }

    /// Objects from which node `n`'s proxy rules are rendered.
    pub fn seen_by_proxy(&self, n: usize) -> Option<&Objects> {
        match &self.programmed[n] {
            Programmed::InSync => Some(&self.objects),
            Programmed::Old(objects) => Some(objects),
            Programmed::Nothing => None,
        }
    }

    /// Replaces what a Pod listens on.
    pub fn listen(&mut self, pod: &PodPlan, listens: Vec<Listen>) {
        self.listens.insert(pod.ip, listens);
    }
}

fn tcp(ports: &[u16]) -> Vec<Listen> {
    ports.iter().map(|p| Listen::any("tcp", *p)).collect()
}
