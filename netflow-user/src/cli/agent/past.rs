//! What happened before anybody asked: told from what was kept, as a look would have told it.

use super::hub::{Latest, Order};
use super::seat::ask;
use crate::cli::failure::Failure;
use crate::cli::live::{self, LiveNode, Programs, Surroundings};
use crate::cli::session::{End, Node as _, now};
use crate::cluster::versions::Wanted;
use crate::explain::Clients;
use crate::flows::{History, Stock};
use crate::model::capability::TierStatus;
use crate::model::feed::{Kept, Start};
use crate::model::flow::FlowSnapshot;
use crate::model::objects::{EndpointSlice, Node, Objects, Pod, Service};
use crate::model::query::Query;
use crate::model::record::{Event, Record};
use crate::model::resolve::resolve;
use crate::model::source::{RecordSource, SourceError};
use crate::model::{Input, Time, Tuple};
use crate::node::netns;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::mpsc::Sender;

/// What is told of the past.
pub struct Past {
    /// The objects, the oldest version first; the latest is whole.
    versions: Vec<Objects>,
    /// From when on it is known how they were.
    objects_from: Time,
    asked: Time,
    then: Then,
}

impl Past {
    /// Takes out of what is kept what concerns a question, from `asked` on; `None` = nothing is kept.
    pub fn gather(
        orders: &Sender<Order>,
        latest: &Latest,
        query: &Query,
        asked: Time,
    ) -> Result<Option<Past>, Failure> {
        let (objects, versions) = latest.versions();
        live::check_services(&objects)?;
        let concerned = Concerned::of(query, &objects);
        let before = versions.before(&objects, asked, &concerned);
        let addresses = concerned.addresses(before.iter().chain([&*objects]));
        let wanted = Ask {
            from: asked,
            addresses,
        };
        let Some(then) = ask(orders, |to| Order::Past(wanted, to))? else {
            return Ok(None);
        };
        let concerned = concerned.with(then.addresses());
        let mut all = versions.before(&objects, asked, &concerned);
        all.push(Objects::clone(&objects));
        Ok(Some(Past {
            versions: all,
            objects_from: versions.since(),
            asked,
            then,
        }))
    }

    /// Who tells, looking since `looking`. `cluster`: context and API server.
    pub fn start(&self, query: &Query, cluster: (&str, &str), looking: Time) -> Start {
        let kept = self.then.kept(self.asked, looking, self.objects_from);
        // Without its number a namespace is still told from others, by its node.
        let own = netns::own().map_or(0, |own| own.inum);
        let latest = self.versions.last();
        let tiers = self.then.tiers.clone();
        let start = live::start(
            query,
            cluster,
            latest.unwrap_or(&Objects::default()),
            own,
            tiers,
        );
        Start {
            time: kept.from(),
            kept: Some(kept),
            ..start
        }
    }

    /// Tells all, in order of time, while `tell` wants more; last how the node is now.
    pub fn tell(
        self,
        start: Start,
        orders: &Sender<Order>,
        mut tell: impl FnMut(&Input) -> bool,
    ) -> Result<End, SourceError> {
        let Past { versions, then, .. } = self;
        let query = start.query.clone();
        let latest = versions.last().cloned().unwrap_or_default();
        let clients = then.clients();
        tell(&Input::Start(Box::new(start)));
        let objects = versions.into_iter().map(|v| Input::Objects(Box::new(v)));
        let mut objects = objects.peekable();
        if let Some(first) = objects.next() {
            tell(&first);
        }
        for input in then.told {
            while let Some(version) = objects.next_if(|o| o.time() <= input.time()) {
                tell(&version);
            }
            if !tell(&input) {
                return Ok(End::Quit);
            }
        }
        objects.for_each(|version| _ = tell(&version));
        if !then.lost.is_empty() {
            tell(&Input::Lost { lost: then.lost });
        }
        if !live::decided_by_objects(&query, &latest) {
            let mut node = LiveNode::new(Present(orders.clone()), query);
            node.aim(&latest);
            node.meet(&clients);
            tell(&Input::Node(Box::new(node.facts()?)));
        }
        tell(&Input::End { time: now() });
        Ok(End::Closed)
    }
}

/// Port of DNS: who cannot resolve the Service's name fails before it is dialled.
const DOMAIN: u16 = 53;

/// What is asked of the history.
pub struct Ask {
    /// From when on.
    pub from: Time,
    /// Whose connections.
    pub addresses: HashSet<IpAddr>,
}

/// What it holds of that.
pub struct Then {
    /// What the kernel told, in order of time.
    pub told: Vec<Input>,
    /// What was lost meanwhile.
    pub lost: BTreeMap<String, u64>,
    /// How much of it is left.
    pub stock: Stock,
    /// On which tier each capability runs.
    pub tiers: Vec<TierStatus>,
}

impl Then {
    /// Takes it out.
    pub fn of(history: &History, ask: &Ask, tiers: Vec<TierStatus>) -> Then {
        let Ask { from, addresses } = ask;
        Then {
            told: history.since(*from, |ip| addresses.contains(&ip)),
            lost: history.lost_since(*from),
            stock: history.stock(),
            tiers,
        }
    }

    /// What of the past it is, asked for from `asked` on, of an agent that looks since `looking`.
    pub fn kept(&self, asked: Time, looking: Time, objects_from: Time) -> Kept {
        let Stock {
            healthy_evicted,
            failing_evicted,
            ..
        } = self.stock;
        Kept {
            asked,
            looking,
            healthy_from: healthy_evicted.until.max(looking),
            healthy_evicted: healthy_evicted.connections,
            failing_from: failing_evicted.until.max(looking),
            failing_evicted: failing_evicted.connections,
            objects_from,
        }
    }

    /// Who may have used the Service, or looked for a route to it in vain.
    fn clients(&self) -> Clients {
        let records = self.told.iter().filter_map(|input| match input {
            Input::Records { records } => Some(records),
            _ => None,
        });
        let unrouted = |r: &&Record| matches!(r.event, Event::FibError { .. });
        Clients {
            addresses: self.addresses().into_iter().collect(),
            namespaces: records
                .flatten()
                .filter(unrouted)
                .map(|r| r.netns)
                .collect(),
        }
    }

    /// Addresses of whom it tells.
    pub fn addresses(&self) -> HashSet<IpAddr> {
        let mut all = HashSet::new();
        for input in &self.told {
            match input {
                Input::Records { records } => all.extend(records.iter().flat_map(of_record)),
                Input::Flows { flows, .. } => all.extend(flows.iter().flat_map(of_flow)),
                _ => {}
            }
        }
        all
    }
}

fn ends(tuple: &Tuple) -> [IpAddr; 2] {
    [tuple.src, tuple.dst]
}

fn of_record(record: &Record) -> impl Iterator<Item = IpAddr> {
    record
        .tuple
        .iter()
        .flat_map(ends)
        .collect::<Vec<_>>()
        .into_iter()
}

fn of_flow(flow: &FlowSnapshot) -> [IpAddr; 2] {
    ends(&flow.key.tuple)
}

/// The objects that an answer about the past rests on: the Service asked about, those that answer DNS, what belongs to them,
/// and whoever spoke to them.
#[derive(Debug, Default)]
pub struct Concerned {
    /// Namespace and name of the Services.
    services: BTreeSet<(String, String)>,
    /// Addresses of those who spoke.
    speakers: HashSet<IpAddr>,
}

impl Concerned {
    /// By a question.
    pub fn of(query: &Query, objects: &Objects) -> Concerned {
        let asked = resolve(objects, query).into_iter();
        let answer = |s: &&Service| s.ports.iter().any(|p| p.port == DOMAIN);
        let dns = objects.services.iter().filter(answer);
        let services = asked.chain(dns);
        Concerned {
            services: services
                .map(|s| (s.namespace.clone(), s.name.clone()))
                .collect(),
            speakers: HashSet::new(),
        }
    }

    /// With these addresses.
    #[must_use]
    pub fn with(self, speakers: HashSet<IpAddr>) -> Concerned {
        Concerned { speakers, ..self }
    }

    /// Addresses of theirs in any of these versions. Those of the nodes are among them: NodePorts, tunnels and what is
    /// masqueraded have no others.
    pub fn addresses<'a>(&self, versions: impl Iterator<Item = &'a Objects>) -> HashSet<IpAddr> {
        let mut all = HashSet::new();
        for objects in versions {
            let services: Vec<&Service> = self.services_in(objects).collect();
            all.extend(services.iter().flat_map(|s| s.addresses()));
            let slices = objects.slices.iter().filter(|s| self.slice(s));
            all.extend(
                slices
                    .flat_map(|s| &s.endpoints)
                    .flat_map(|e| e.addresses.iter().copied()),
            );
            let selected = |p: &&Pod| services.iter().any(|s| s.selects(p));
            all.extend(objects.pods.iter().filter(selected).flat_map(|p| &p.ips));
            let nodes = objects.nodes.iter();
            all.extend(nodes.flat_map(|n| n.internal_ips.iter().chain(&n.other_ips)));
        }
        all
    }

    fn services_in<'a>(&self, objects: &'a Objects) -> impl Iterator<Item = &'a Service> {
        objects.services.iter().filter(|s| self.service(s))
    }

    fn has(&self, namespace: &str, name: &str) -> bool {
        let mut services = self.services.iter();
        services.any(|(ns, service)| ns == namespace && service == name)
    }
}

impl Wanted for Concerned {
    fn service(&self, service: &Service) -> bool {
        self.has(&service.namespace, &service.name)
    }

    fn slice(&self, slice: &EndpointSlice) -> bool {
        self.has(&slice.namespace, &slice.service)
    }

    fn pod(&self, pod: &Pod) -> bool {
        let beside = |(namespace, _): &(String, String)| *namespace == pod.namespace;
        self.services.iter().any(beside) || pod.ips.iter().any(|ip| self.speakers.contains(ip))
    }

    fn node(&self, _: &Node) -> bool {
        true
    }
}

/// The programs, for whoever wants nothing of what they see from now on.
pub struct Present(pub Sender<Order>);

impl RecordSource for Present {
    fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
        Ok(Vec::new())
    }

    fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
        self.drain()
    }
}

impl Programs for Present {
    fn watch_pods(&mut self, _pods: &[IpAddr]) {}

    fn watch_addresses(&mut self, _addresses: &[IpAddr]) {}

    fn surroundings(&mut self) -> Result<Surroundings, SourceError> {
        ask(&self.0, Order::Surroundings)
    }
}
