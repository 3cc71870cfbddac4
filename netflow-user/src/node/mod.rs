//! Facts about the node, read by netlink, getsockopt and `/proc`: nothing is run, loaded, created or sent by looking.

mod conntrack;
mod counters;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod links;
pub(crate) mod modules;
mod neighbors;
pub(crate) mod netlink;
pub mod netns;
mod pod;
mod routes;
pub mod rules;
mod sockets;
mod sysctl;
mod wireguard;

use crate::model::Time;
use crate::model::node::{NodeFacts, PodNetns, Route, RouteLookup, Unread};
use crate::model::source::{Ask, NodeSource, SourceError};
use netlink::{Netlink, NetlinkError};
use netns::{Home, NetnsError};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A table with more routes than this (a full BGP table) is reduced to those that cover an address asked about.
const ROUTES: usize = 4096;
/// With more answers than this only those that tell something are kept: no route, a path MTU, the way to a VIP.
const LOOKUPS: usize = 4096;
/// Other ends of tunnels to which the ways are asked for: each costs a question, and a cluster may have thousands.
const PEERS: usize = 512;

/// Reads the node whose network namespace the calling thread is in.
#[derive(Debug, Default)]
pub struct NodeReader {
    conntrack: conntrack::Reader,
}

impl NodeSource for NodeReader {
    fn read(&mut self, ask: &Ask) -> Result<NodeFacts, SourceError> {
        let wanted = Wanted::new(ask);
        let id = netns::own().map_err(|e| cannot_look(&e))?;
        let mut facts = NodeFacts {
            time: now(),
            netns: id.inum,
            ..NodeFacts::default()
        };
        // The Pods are visited by another thread while this one reads the node.
        let pods = std::thread::scope(|scope| {
            let visit = netns::start(scope, || read_pods(ask, &wanted));
            read_own(&mut facts, ask, &wanted, &mut self.conntrack);
            visit?.join().map_err(|_| NetnsError::Thread)?
        });
        match pods {
            Ok(pods) => {
                facts.pods = pods.namespaces;
                facts.share_own();
                facts.lookups.extend(pods.lookups);
                facts.unread.extend(pods.unread);
            }
            Err(e) => facts.missing("network namespaces of Pods", &e),
        }
        if facts.lookups.len() > LOOKUPS {
            let vip = |ip| ask.vips.iter().any(|(vip, _, _)| *vip == ip);
            facts
                .lookups
                .retain(|l| l.errno.is_some() || l.mtu.is_some() || vip(l.dst));
        }
        Ok(facts)
    }
}

fn cannot_look(e: &NetnsError) -> SourceError {
    SourceError {
        what: "the node".into(),
        why: e.to_string(),
        hint: "run netflow as root on the node, with /proc mounted".into(),
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
}

impl NodeFacts {
    fn missing(&mut self, what: &str, why: &dyn Display) {
        self.unread.push(Unread {
            what: what.to_owned(),
            why: why.to_string(),
        });
    }

    /// Pods of the host's network see what the node sees.
    fn share_own(&mut self) {
        for pod in self.pods.iter_mut().filter(|p| p.netns == self.netns) {
            pod.links.clone_from(&self.links);
            pod.routes.clone_from(&self.routes);
            pod.neighbors.clone_from(&self.neighbors);
            pod.listeners.clone_from(&self.listeners);
            pod.sockets.clone_from(&self.sockets);
            pod.counters.clone_from(&self.counters);
            pod.firewall.clone_from(&self.firewall);
        }
    }

    /// The value, or a note that it is missing.
    fn note<T: Default, E: Display>(&mut self, what: &str, read: Result<T, E>) -> T {
        match read {
            Ok(value) => value,
            Err(e) => {
                self.missing(what, &e);
                T::default()
            }
        }
    }
}

fn read_own(facts: &mut NodeFacts, ask: &Ask, wanted: &Wanted, table: &mut conntrack::Reader) {
    match Netlink::open(libc::NETLINK_ROUTE) {
        Ok(mut route) => {
            let interfaces = facts.note("links", links::interfaces(&mut route));
            facts.links = interfaces.into_iter().map(|i| i.link).collect();
            let peers = wireguard::read(facts.links.iter_mut(), &wanted.destinations);
            facts.note("peers of WireGuard devices", peers);
            let all = facts.note("routes", routes::routes(&mut route));
            let count = all.len();
            facts.routes = wanted.relevant(all);
            if facts.routes.len() < count {
                let why = format!("{count} routes: only those that cover an address asked about");
                facts.missing("some routes", &why);
            }
            facts.neighbors = facts.note("neighbours", neighbors::neighbors(&mut route));
            facts.tunnel_peers = facts.note("tunnel peers", neighbors::tunnel_peers(&mut route));
            let lookups = wanted.lookups(&mut route, facts.netns, &[]);
            facts.lookups = facts.note("route lookups", lookups);
            read_ways_to_peers(facts, &mut route);
        }
        Err(e) => facts.missing("links and routes", &e),
    }
    facts.sysctls = sysctl::read();
    if facts.sysctls.is_empty() {
        facts.missing("sysctls", &"nothing below /proc/sys/net can be read");
    }
    read_conntrack(facts, wanted, table);
    let sockets = facts.note("sockets", sockets::read(&wanted.addresses));
    facts.listeners = sockets.listeners;
    facts.sockets = sockets.connected;
    if let Some(why) = sockets.shortcoming {
        facts.missing("details of sockets", &why);
    }
    facts.counters = facts.note("counters", counters::read());
    let (rules, unread) = rules::everything(ask);
    facts.proxy = rules.proxy;
    facts.firewall = rules.firewall;
    facts.flowtables = rules.flowtables;
    facts.unread.extend(unread);
}

/// What the kernel knows of the ways to the other ends of tunnels: path MTUs that it learnt, and ends to which there is no way.
fn read_ways_to_peers(facts: &mut NodeFacts, route: &mut Netlink) {
    let of_links = facts.links.iter().filter_map(|l| l.tunnel.as_ref());
    let fixed = of_links.flat_map(|t| {
        let endpoints = t.peers.iter().filter_map(|p| p.endpoint);
        t.remote.into_iter().chain(endpoints.map(|e| e.ip()))
    });
    let forwarded = facts.tunnel_peers.iter().map(|p| p.remote);
    let mut peers: BTreeSet<IpAddr> = fixed.chain(forwarded).collect();
    // The group of a VXLAN that floods, or an end that is not fixed, is no peer.
    peers.retain(|ip| !ip.is_unspecified() && !ip.is_multicast());
    if peers.len() > PEERS {
        let why = format!("{} of them: only the first {PEERS}", peers.len());
        facts.missing("ways to some tunnel peers", &why);
    }
    let netns = facts.netns;
    let ways = peers.into_iter().take(PEERS);
    let ways: Result<Vec<_>, _> = ways.map(|ip| routes::lookup(route, netns, ip)).collect();
    let mut ways = facts.note("ways to tunnel peers", ways);
    ways.retain(|l| l.errno.is_some() || l.learned_mtu().is_some());
    facts.lookups.extend(ways);
}

fn read_conntrack(facts: &mut NodeFacts, wanted: &Wanted, table: &mut conntrack::Reader) {
    let number = |facts: &NodeFacts, name: &str| {
        let value = facts
            .sysctls
            .get(&format!("net.netfilter.nf_conntrack_{name}"));
        value.and_then(|v| v.parse::<u64>().ok())
    };
    // Without this setting the kernel has no conntrack loaded: there is nothing to read.
    let Some(count) = number(facts, "count") else {
        return;
    };
    let max = number(facts, "max").unwrap_or(0);
    match table.read(&wanted.addresses, now()) {
        Ok(read) => {
            facts.conntrack = read.table;
            if read.left_out > 0 {
                let why = format!("{} more match", read.left_out);
                facts.missing("some conntrack entries", &why);
            }
        }
        Err(e) => {
            facts.missing("conntrack", &e);
        }
    }
    // Without ctnetlink, or from a kernel that does not count by it.
    if facts.conntrack.max == 0 {
        (facts.conntrack.count, facts.conntrack.max) = (count, max);
    }
}

/// What the visit to the Pods brought back.
#[derive(Default)]
struct Pods {
    namespaces: Vec<PodNetns>,
    lookups: Vec<RouteLookup>,
    unread: Vec<Unread>,
}

/// To be called on a thread that ends with it: it moves between namespaces.
fn read_pods(ask: &Ask, wanted: &Wanted) -> Result<Pods, NetnsError> {
    let mut pods = Pods::default();
    if ask.pods.is_empty() {
        return Ok(pods);
    }
    let home = Home::here()?;
    let found = netns::find_pods(&home, &ask.pods);
    let held: BTreeSet<_> = found.namespaces.iter().flat_map(|n| &n.ips).collect();
    for ip in ask.pods.iter().filter(|ip| !held.contains(ip)) {
        let mut why = "no network namespace of this node that could be found holds it".to_owned();
        if let Some((count, reason)) = &found.closed {
            why = format!("{why}; {count} could not be looked into ({reason})");
        }
        pods.unread.push(Unread {
            what: format!("network namespace of {ip}"),
            why,
        });
    }
    for namespace in &found.namespaces {
        let mut pod = PodNetns {
            netns: namespace.id.inum,
            cookie: namespace.id.cookie,
            ips: namespace.ips.clone(),
            ..PodNetns::default()
        };
        if pod.netns != home.id.inum {
            namespace.enter()?;
            let lookups = pod::read(&mut pod, wanted, &mut pods.unread);
            pods.lookups.extend(lookups);
        }
        pods.namespaces.push(pod);
    }
    Ok(pods)
}

/// The addresses that the question is about.
struct Wanted {
    /// Service addresses and endpoints: their conntrack entries and connections are wanted.
    addresses: BTreeSet<IpAddr>,
    /// Those and the Pods': routes to them are wanted.
    destinations: BTreeSet<IpAddr>,
}

impl Wanted {
    fn new(ask: &Ask) -> Self {
        let mut addresses: BTreeSet<_> = ask.conntrack.iter().copied().collect();
        addresses.extend(ask.vips.iter().map(|(ip, _, _)| *ip));
        let mut destinations = addresses.clone();
        destinations.extend(&ask.pods);
        Self {
            addresses,
            destinations,
        }
    }

    /// All of `routes`, or of very many those that cover a destination.
    fn relevant(&self, mut all: Vec<Route>) -> Vec<Route> {
        if all.len() > ROUTES {
            all.retain(|r| self.destinations.iter().any(|ip| routes::covers(r, *ip)));
        }
        all
    }

    /// The kernel's answer for every destination that is not one of `held`.
    fn lookups(
        &self,
        route: &mut Netlink,
        netns: u32,
        held: &[IpAddr],
    ) -> Result<Vec<RouteLookup>, NetlinkError> {
        let wanted = self.destinations.iter().filter(|ip| !held.contains(ip));
        wanted.map(|ip| routes::lookup(route, netns, *ip)).collect()
    }
}
