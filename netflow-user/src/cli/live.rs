//! This node, live: rights are checked, programs attached, facts and records gathered, everything detached again.

use super::COMMIT;
use super::args::{CaptureArgs, Means, TcTier, TierArgs};
use super::failure::Failure;
use super::host;
use super::interrupt::Interrupts;
use super::output::Output;
use super::session::{self, End, Feed, Limits, Node, Observer, now};
use crate::cluster::ask::{ask, pods_of, this_node};
use crate::cluster::identity::Identities;
use crate::explain::{Clients, Explainer};
use crate::kernel::beside::Beside;
use crate::kernel::{self, Kernel, KernelError};
use crate::model::Input;
use crate::model::capability::{Capability, TierStatus};
use crate::model::feed::Start;
use crate::model::netns::NetnsId;
use crate::model::node::{NodeFacts, Unread};
use crate::model::objects::Objects;
use crate::model::query::Query;
use crate::model::recording::Writer;
use crate::model::source::{Ask, NodeSource, ObjectSource, RecordSource, SourceError};
use crate::node::{NodeReader, netns};
use netflow_ebpf::map;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// What to look at.
pub struct Request<'a> {
    /// What was asked.
    pub query: Query,
    /// Kube context and API server; empty with files.
    pub cluster: (&'a str, &'a str),
    /// Longest look; `None` = until somebody ends it.
    pub window: Option<Duration>,
    /// How to look.
    pub capture: &'a CaptureArgs,
    /// Where later objects come from.
    pub source: &'a mut dyn ObjectSource,
    /// Objects as they are now.
    pub objects: Objects,
}

/// Looks. Whatever it returns, nothing is attached any more.
pub fn run(
    request: Request<'_>,
    explainer: &mut Explainer,
    output: &Output,
    observer: &mut dyn Observer,
) -> Result<End, Failure> {
    check_services(&request.objects)?;
    let decided = decided_by_objects(&request.query, &request.objects);
    if !decided {
        check_rights()?;
    }
    let recording = request.capture.record.as_deref().map(Writer::create);
    let mut feed = Feed::new(explainer, recording.transpose()?, output);
    let start = |netns, tiers| {
        let (query, objects) = (&request.query, &request.objects);
        start(query, request.cluster, objects, netns, tiers)
    };
    if decided {
        let start = start(0, Vec::new());
        tell_objects(start, request.objects, &mut feed);
        feed.finish();
        return Ok(End::Closed);
    }
    let interrupts = Interrupts::listen()
        .map_err(|e| Failure::new("signals", format!("signals cannot be taken over: {e}"), ""))?;
    let own = netns::own().map_err(|e| Failure::new("netns", e.to_string(), ""))?;
    let kernel = attach(&request.capture.tiers, output.is_chatty())?;
    let tiers = kernel.tiers();
    let mut node = LiveNode::new(Own { kernel, output }, request.query.clone());
    let start = start(own.inum, tiers);
    for tier in start.tiers.iter().filter(|t| !t.best) {
        output.detail(format_args!(
            "{}: {} ({})",
            tier.capability.name(),
            tier.tier.as_deref().unwrap_or("none"),
            tier.reasons.join("; ")
        ));
    }
    let limits = Limits {
        window: request.window,
        interrupts: &interrupts,
    };
    let end = session::look(
        start,
        request.objects,
        request.source,
        &mut node,
        &mut feed,
        &limits,
        observer,
    );
    drop(node);
    interrupts.detached();
    feed.finish();
    Ok(end?)
}

/// Loads and attaches the programs, in the way asked for.
pub fn attach(tiers: &TierArgs, verbose: bool) -> Result<Kernel, Failure> {
    let kernel = Kernel::start(kernel::Options {
        force_clsact: tiers.tc == Some(TcTier::Clsact),
        btf: tiers.btf.clone(),
        without_kprobes: tiers.without.contains(&Means::Kprobe),
        force_raw_tp: tiers.without.contains(&Means::TpBtf),
        force_ctnetlink: tiers.without.contains(&Means::NatTracepoint),
        verbose_log: verbose,
        ring_bytes: tiers.ring.unwrap_or(map::RECORDS_BYTES),
    })?;
    let all = kernel.tiers();
    let flow = all.iter().find(|t| t.capability == Capability::Flow);
    match (tiers.tc, flow) {
        (Some(TcTier::Tcx), Some(flow)) if flow.tier.as_deref() != Some("tcx") => {
            Err(Failure::new(
                "no-tier",
                format!(
                    "packets cannot be seen through TCX: {}",
                    flow.reasons.join("; ")
                ),
                "leave --tc away: netflow takes the best way there is",
            ))
        }
        _ => Ok(kernel),
    }
}

/// Without these nothing can be attached; said before anything is touched.
pub fn check_rights() -> Result<(), Failure> {
    let missing: Vec<&str> = host::missing_capabilities()
        .into_iter()
        .filter(|c| !matches!(*c, "CAP_SYS_ADMIN" | "CAP_SYSLOG"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "not-root",
        format!(
            "looking at packets needs root ({} missing)",
            missing.join(", ")
        ),
        "run it as root on the node, or ask agents: `netflow install | kubectl apply -f -` runs one on every node; --replay FILE needs no rights",
    ))
}

/// Without a single Service no name can be told from one that does not exist.
pub fn check_services(objects: &Objects) -> Result<(), Failure> {
    if !objects.is_unknown("Service") {
        return Ok(());
    }
    if let Some(limit) = objects.limits.iter().find(|l| l.kind == "Service") {
        return Err(Failure::new(
            "no-services",
            format!("Services may not be read: {}", limit.why),
            "get, list and watch of services, endpointslices and pods are the least: `kubectl auth can-i list services -n NAMESPACE`",
        ));
    }
    Err(Failure::new(
        "no-services",
        format!("no Service is among the objects given ({})", objects.source),
        "give the Services with what belongs to them: \
         `kubectl get svc,endpointslices,pods,nodes,ns,netpol -A -o yaml`",
    ))
}

/// A Service that does not exist needs neither rights nor a look at packets.
pub fn decided_by_objects(query: &Query, objects: &Objects) -> bool {
    let mut trial = Explainer::new(Box::new(Identities::new()));
    let start = start(query, ("", ""), objects, 0, Vec::new());
    trial.feed(0, &Input::Start(Box::new(start)));
    trial.feed(0, &Input::Objects(Box::new(objects.clone())));
    trial.answer().service.is_none()
}

/// Tells what objects alone decide.
pub fn tell_objects(start: Start, objects: Objects, feed: &mut Feed<'_>) {
    feed.give(&Input::Start(Box::new(start)));
    feed.give(&Input::Objects(Box::new(objects)));
    feed.give(&Input::End { time: now() });
}

/// Who speaks, and what was asked; from now on. `cluster`: context and API server.
pub fn start(
    query: &Query,
    cluster: (&str, &str),
    objects: &Objects,
    netns: u32,
    tiers: Vec<TierStatus>,
) -> Start {
    let (context, server) = cluster;
    Start {
        time: now(),
        node: this_node(objects, &host::addresses()).unwrap_or_else(host::name),
        netns,
        kernel: host::kernel(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: COMMIT.into(),
        tiers,
        query: query.clone(),
        context: context.to_owned(),
        server: server.to_owned(),
        kept: None,
    }
}

/// The BPF programs, as far as a look needs them: loaded for it alone, or an agent's.
pub trait Programs: RecordSource {
    /// Keeps the packets of these Pods, which are placed on this node; of all that live here, if no objects tell.
    fn watch_pods(&mut self, pods: &[IpAddr]);

    /// Keeps room for packets of these addresses.
    fn watch_addresses(&mut self, addresses: &[IpAddr]);

    /// What there is around them.
    fn surroundings(&mut self) -> Result<Surroundings, SourceError>;
}

/// What there is around the programs.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// What they do not see.
    pub unread: Vec<Unread>,
    /// Programs of others on the same interfaces.
    pub beside: Vec<Beside>,
}

impl Surroundings {
    /// As they are now.
    pub fn of(kernel: &Kernel) -> Surroundings {
        let unseen = kernel.unseen().into_iter().map(|i| Unread {
            what: format!("packets at {}", i.name),
            why: i.problem,
        });
        let mut unread: Vec<Unread> = unseen.collect();
        let beside = kernel.beside().unwrap_or_else(|e| {
            unread.push(Unread {
                what: "tc programs of others".into(),
                why: e.to_string(),
            });
            Vec::new()
        });
        Surroundings { unread, beside }
    }
}

/// Lets the kernel keep the packets of these Pods, and says how many of their addresses were found: a Pod's namespace may
/// appear later than its object. One that does not fit into the map is not kept; the rest is.
pub fn keep_pods(kernel: &mut Kernel, pods: &[IpAddr]) -> Result<usize, KernelError> {
    let found = if pods.is_empty() {
        netns::by_next_hop()
    } else {
        netns::pods(pods)
    };
    // That they cannot be looked for is among the facts, as what could not be read.
    let Ok(found) = found else {
        return Ok(0);
    };
    let ids: Vec<NetnsId> = found.namespaces.iter().map(|n| n.id).collect();
    kernel.watch_netns(&ids)?;
    Ok(found.namespaces.iter().map(|n| n.ips.len()).sum())
}

/// Programs of this look alone.
struct Own<'a> {
    kernel: Kernel,
    output: &'a Output,
}

impl RecordSource for Own<'_> {
    fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
        self.kernel.drain()
    }

    fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
        self.kernel.finish()
    }
}

impl Programs for Own<'_> {
    fn watch_pods(&mut self, pods: &[IpAddr]) {
        if let Err(e) = keep_pods(&mut self.kernel, pods) {
            self.output.detail(e);
        }
    }

    fn watch_addresses(&mut self, addresses: &[IpAddr]) {
        // For what does not fit into the map no room is kept.
        if let Err(e) = self.kernel.watch_addresses(addresses) {
            self.output.detail(e);
        }
    }

    fn surroundings(&mut self) -> Result<Surroundings, SourceError> {
        Ok(Surroundings::of(&self.kernel))
    }
}

/// The node this process runs on.
pub struct LiveNode<P> {
    programs: P,
    reader: NodeReader,
    query: Query,
    local: Vec<IpAddr>,
    /// Addresses of Pods placed on this node that have a namespace of their own; empty if no objects tell.
    pods: Vec<IpAddr>,
    /// What the objects say should be asked.
    aimed: Option<Ask>,
    /// That, and clients that were met.
    ask: Ask,
    /// Namespaces that were met, by their inode numbers.
    met: BTreeSet<u32>,
}

impl<P: Programs> LiveNode<P> {
    /// Nothing is read yet.
    pub fn new(programs: P, query: Query) -> LiveNode<P> {
        LiveNode {
            programs,
            reader: NodeReader::default(),
            query,
            local: host::addresses(),
            pods: Vec::new(),
            aimed: None,
            ask: Ask::default(),
            met: BTreeSet::new(),
        }
    }
}

impl<P> LiveNode<P> {
    /// The addresses of Pods in namespaces that were not met before.
    fn held_in(&mut self, namespaces: &BTreeSet<u32>) -> Vec<IpAddr> {
        let new: BTreeSet<u32> = namespaces.difference(&self.met).copied().collect();
        if new.is_empty() {
            return Vec::new();
        }
        self.met.extend(&new);
        // That they cannot be looked for is among the facts, as what could not be read.
        let found = netns::pods(&self.pods).unwrap_or_default();
        let those = found.namespaces.into_iter();
        those
            .filter(|n| new.contains(&n.id.inum))
            .flat_map(|n| n.ips)
            .collect()
    }
}

impl<P: Programs> Node for LiveNode<P> {
    fn aim(&mut self, objects: &Objects) -> bool {
        let node = this_node(objects, &self.local);
        let ask = ask(objects, &self.query, node.as_deref());
        let pods = node.map_or_else(Vec::new, |node| pods_of(objects, &node));
        if self.aimed.as_ref() == Some(&ask) && self.pods == pods {
            return false;
        }
        if self.pods != pods {
            // A namespace that nobody's was may be a new Pod's, whose object comes after it.
            self.met.clear();
            self.pods = pods;
        }
        self.programs.watch_pods(&self.pods);
        let vips = ask.vips.iter().map(|(ip, _, _)| *ip);
        let addresses: Vec<IpAddr> = vips.chain(ask.conntrack.iter().copied()).collect();
        self.programs.watch_addresses(&addresses);
        self.ask = ask.clone();
        self.aimed = Some(ask);
        true
    }

    fn meet(&mut self, clients: &Clients) -> bool {
        let Clients {
            addresses,
            namespaces,
        } = clients;
        let known = self.ask.pods.len();
        let held = self.held_in(namespaces);
        for client in addresses.iter().chain(&held) {
            if self.pods.contains(client) && !self.ask.pods.contains(client) {
                self.ask.pods.push(*client);
            }
        }
        self.ask.pods.len() > known
    }

    fn facts(&mut self) -> Result<NodeFacts, SourceError> {
        self.programs.watch_pods(&self.pods);
        let mut facts = self.reader.read(&self.ask)?;
        let Surroundings { unread, beside } = self.programs.surroundings()?;
        facts.unread.extend(unread);
        facts.tc_programs = beside.into_iter().map(Into::into).collect();
        match kernel::socket::programs() {
            Ok(programs) => facts.socket_programs = programs,
            Err(e) => facts.unread.push(Unread {
                what: "programs that sockets pass".into(),
                why: e.to_string(),
            }),
        }
        Ok(facts)
    }

    fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
        self.programs.drain()
    }

    fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
        self.programs.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects;

    /// Programs that keep nothing.
    struct Idle;

    impl RecordSource for Idle {
        fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
            Ok(Vec::new())
        }

        fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
            self.drain()
        }
    }

    impl Programs for Idle {
        fn watch_pods(&mut self, _pods: &[IpAddr]) {}

        fn watch_addresses(&mut self, _addresses: &[IpAddr]) {}

        fn surroundings(&mut self) -> Result<Surroundings, SourceError> {
            Ok(Surroundings::default())
        }
    }

    /// A namespace may be there before the object of its Pod.
    #[test]
    fn a_namespace_that_was_nobodys_is_met_again_once_there_are_other_pods() {
        let own = IpAddr::from([192, 0, 2, 1]);
        let mut objects = Objects {
            nodes: vec![objects::Node {
                name: "n1".into(),
                internal_ips: vec![own],
                ..objects::Node::default()
            }]
            .into(),
            ..Objects::default()
        };
        let mut node = LiveNode::new(Idle, Query::default());
        node.local = vec![own];
        node.aim(&objects);
        node.met.insert(1);
        node.aim(&objects);
        assert!(node.met.contains(&1), "nothing has changed");
        objects.pods.push(objects::Pod {
            ips: vec![IpAddr::from([10, 1, 1, 1])],
            node: Some("n1".into()),
            ..objects::Pod::default()
        });
        node.aim(&objects);
        assert!(node.met.is_empty());
    }
}
