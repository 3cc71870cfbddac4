//! Everything a rule may look at.

use super::attempt::{Attempt, Outcome, Part, outcome};
use super::codes;
use super::datagrams::{self, DOMAIN};
use super::endpoints::{self, Backend, Choice, ChoiceRule, Entry};
use super::evidence::Draft;
use super::others::Others;
use super::past::{PROXY_LAG, Past};
use super::rewriting;
use super::sockets::{self, Dialling};
use super::view::View;
use crate::flows::{Cite, ConnEvent, Connection, SILENCE, Sight};
use crate::model::answer::{Plane, Via};
use crate::model::cidr;
use crate::model::flow::Direction;
use crate::model::identity::{Identity, Who};
use crate::model::lookup::is_of_deployment;
use crate::model::objects::{EndpointSlice, Node, Objects, Pod, Service, ServicePort, TargetPort};
use crate::model::query::{From, Query};
use crate::model::record::{Event, Record};
use crate::model::{Proto, Time, Tuple};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A connection that two nodes saw began within this time on both, clocks being what they are.
const SAME_ATTEMPT: Duration = Duration::from_secs(30);

/// Looks of several nodes at the same time begin and end within so much of each other.
const MOMENT: Duration = Duration::from_secs(10);

/// So long after a connection began a stall of what it carries shows: a second without progress once the data was sent, and
/// the sweep after that.
const STALL_SHOWS: Duration = Duration::from_secs(2);

/// A client that dials so many ports which the Service does not have is looking around, not mistaken.
const SCANNED_PORTS: usize = 4;

/// A route lookup that found nothing in a table.
pub struct FailedLookup<'a> {
    /// Position of the recording.
    pub index: usize,
    /// Where it was made.
    pub view: &'a View,
    /// How its record is cited.
    pub cite: Cite,
    /// The record.
    pub record: &'a Record,
    /// Address looked for.
    pub dst: IpAddr,
    /// Negative errno.
    pub err: i32,
    /// Routing table.
    pub table: u32,
}

/// The Service asked about with all that was seen of it.
pub struct Case<'a> {
    /// What was asked.
    pub query: &'a Query,
    /// Kubernetes objects.
    pub objects: &'a Objects,
    /// Their earlier versions.
    pub past: &'a Past,
    /// The Service.
    pub service: &'a Service,
    /// What each node told.
    pub views: &'a [View],
    /// Attempts on the Service, by time.
    pub attempts: Vec<Attempt<'a>>,
    /// UDP ports of the Service that never answered anybody: they may be meant not to.
    pub one_way: BTreeSet<u16>,
    /// What sockets dial that reach the Service without a packet to its address.
    pub by_socket: BTreeSet<Dialling>,
    /// Who is who.
    pub identity: &'a dyn Identity,
}

impl<'a> Case<'a> {
    /// Gathers the attempts on a Service.
    pub fn new(
        query: &'a Query,
        objects: &'a Objects,
        past: &'a Past,
        service: &'a Service,
        views: &'a [View],
        identity: &'a dyn Identity,
    ) -> Case<'a> {
        let mut case = Case {
            query,
            objects,
            past,
            service,
            views,
            attempts: Vec::new(),
            one_way: BTreeSet::new(),
            by_socket: BTreeSet::new(),
            identity,
        };
        let mut attempts = case.gather();
        case.one_way = datagrams::one_way(&case, &mut attempts);
        case.attempts = attempts;
        case.by_socket = sockets::balanced(&case);
        case
    }

    /// Service addresses with the way they are dialled.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Via)> + '_ {
        let s = self.service;
        let of = |ips: &'a [IpAddr], via| ips.iter().map(move |ip| (*ip, via));
        of(&s.cluster_ips, Via::Vip)
            .chain(of(&s.external_ips, Via::ExternalIp))
            .chain(of(&s.lb_ips, Via::Lb))
    }

    /// Route lookups for the Service's addresses that found nothing in one table. Other tables may be asked after that, so alone
    /// none of them says that there is no route.
    pub fn failed_lookups(&self) -> impl Iterator<Item = FailedLookup<'a>> + '_ {
        let of_view = |(index, view): (usize, &'a View)| {
            view.loose.iter().filter_map(move |(cite, record)| {
                let Event::FibError { dst, err, table } = record.event else {
                    return None;
                };
                Some(FailedLookup {
                    index,
                    view,
                    cite: *cite,
                    record,
                    dst,
                    err,
                    table,
                })
            })
        };
        let all = self.views.iter().enumerate().flat_map(of_view);
        all.filter(|f| self.addresses().any(|(ip, _)| ip == f.dst) && self.is_of_port(f))
    }

    fn is_of_port(&self, lookup: &FailedLookup<'_>) -> bool {
        let port = lookup.record.tuple.map_or(0, |t| t.dport);
        port == 0 || self.query.port.is_none_or(|wanted| wanted == port)
    }

    /// Slices of the Service.
    pub fn slices(&self) -> impl Iterator<Item = &'a EndpointSlice> + '_ {
        let s = self.service;
        self.objects
            .slices
            .iter()
            .filter(move |e| e.namespace == s.namespace && e.service == s.name)
    }

    /// Every address in a slice of the Service, whatever its condition.
    pub fn slice_addresses(&self) -> BTreeSet<IpAddr> {
        self.slices()
            .flat_map(|s| &s.endpoints)
            .flat_map(|e| e.addresses.iter().copied())
            .collect()
    }

    /// Address and port of every endpoint of one Service port, whatever its condition.
    pub fn slice_targets(&self, port: &ServicePort) -> BTreeSet<SocketAddr> {
        let of_slice = |s: &'a EndpointSlice| {
            let numbers: Vec<u16> = s
                .ports
                .iter()
                .filter(|p| p.name == port.name && p.proto == port.proto)
                .filter_map(|p| p.port)
                .collect();
            s.endpoints
                .iter()
                .flat_map(|e| e.addresses.iter())
                .flat_map(move |ip| {
                    numbers
                        .clone()
                        .into_iter()
                        .map(move |n| SocketAddr::new(*ip, n))
                })
        };
        self.slices().flat_map(of_slice).collect()
    }

    /// The Pod that holds an address, by the objects.
    pub fn pod(&self, ip: IpAddr) -> Option<&'a Pod> {
        self.objects.pod_at(ip)
    }

    /// The Pod behind an endpoint's address. On a Node's address that is the Pod of the host's network which the
    /// Service selects or its slices name.
    pub fn backend_pod(&self, ip: IpAddr) -> Option<&'a Pod> {
        let named = |p: &Pod| {
            let endpoints = self.slices().flat_map(|s| &s.endpoints);
            p.namespace == self.service.namespace
                && endpoints
                    .filter(|e| e.addresses.contains(&ip))
                    .any(|e| e.pod.as_ref() == Some(&p.name))
        };
        let on_host = |p: &&Pod| {
            p.host_network
                && !p.is_finished()
                && p.ips.contains(&ip)
                && (self.service.selects(p) || named(p))
        };
        self.pod(ip)
            .or_else(|| self.objects.pods.iter().find(on_host))
    }

    /// Service port that a VIP packet addresses.
    pub fn port_of(&self, tuple: &Tuple) -> Option<&'a ServicePort> {
        self.service
            .ports
            .iter()
            .find(|p| p.port == tuple.dport && p.proto == tuple.proto)
    }

    /// Service port of an attempt, by the way it was dialled.
    pub fn port_of_attempt(&self, attempt: &Attempt<'_>) -> Option<&'a ServicePort> {
        match attempt.via {
            Via::NodePort => {
                self.service.ports.iter().find(|p| {
                    p.node_port == Some(attempt.orig.dport) && p.proto == attempt.orig.proto
                })
            }
            Via::Pod | Via::Headless => {
                let to = attempt.orig.destination();
                self.service
                    .ports
                    .iter()
                    .find(|p| p.proto == attempt.orig.proto && self.is_target(p, to))
            }
            Via::Vip | Via::Lb | Via::ExternalIp => self.port_of(&attempt.orig),
        }
    }

    /// Whether an address and port is what a Service port leads to.
    fn is_target(&self, port: &ServicePort, to: SocketAddr) -> bool {
        self.slice_targets(port).contains(&to)
            || match &port.target {
                TargetPort::Number(n) => {
                    *n == to.port() && self.pod(to.ip()).is_some_and(|p| self.service.selects(p))
                }
                TargetPort::Name(name) => self.pod(to.ip()).is_some_and(|p| {
                    self.service.selects(p)
                        && p.ports
                            .iter()
                            .any(|c| c.name == *name && c.port == to.port())
                }),
            }
    }

    /// What the proxy that meets an attempt chooses from, by each version of the objects that was in force during the
    /// attempt or shortly before: where a proxy may still have been behind, all that it may have known.
    pub fn choices(&self, a: &Attempt<'_>, port: &ServicePort) -> Vec<Choice<'a>> {
        let from = Time(a.began().0.saturating_sub(PROXY_LAG.as_nanos() as u64));
        let versions = self.past.between(from, a.last()).iter();
        versions.map(|o| self.choose(o, a, port)).collect()
    }

    fn choose(&self, objects: &'a Objects, a: &Attempt<'_>, port: &ServicePort) -> Choice<'a> {
        let service = objects.services.first().unwrap_or(self.service);
        let ipv6 = a.orig.dst.is_ipv6();
        endpoints::choose(
            objects,
            service,
            port,
            ipv6,
            self.entry(a),
            self.proxy_node(a),
        )
    }

    /// Whether the proxy that meets an attempt had, as far as the objects tell, endpoints to choose from all the time.
    pub fn has_choice(&self, a: &Attempt<'_>, port: &ServicePort) -> bool {
        let choices = self.choices(a, port);
        let some = |c: &Choice<'_>| c.rule != ChoiceRule::LocalUnknown && !c.backends.is_empty();
        !choices.is_empty() && choices.iter().all(some)
    }

    /// Endpoints that some proxy may have sent an attempt to.
    pub fn usable(&self, a: &Attempt<'_>, port: &ServicePort) -> BTreeSet<SocketAddr> {
        self.usable_since(a.began(), a, port)
    }

    /// Endpoints that some proxy may send what an attempt dials to at a time: each that a version of the objects let it use
    /// which was in force shortly before, or later, since the source of the objects may be behind the proxy. Hints are a
    /// preference which not every version of kube-proxy has, so they leave nobody out.
    pub fn usable_since(
        &self,
        at: Time,
        a: &Attempt<'_>,
        port: &ServicePort,
    ) -> BTreeSet<SocketAddr> {
        let from = Time(at.0.saturating_sub(PROXY_LAG.as_nanos() as u64));
        let of_version = |o: &'a Objects| {
            let service = o.services.first().unwrap_or(self.service);
            let ipv6 = a.orig.dst.is_ipv6();
            endpoints::usable(o, service, port, ipv6, self.entry(a), self.proxy_node(a))
        };
        let versions = self.past.since(from).iter().flat_map(of_version);
        versions.map(|b: Backend<'a>| b.address).collect()
    }

    /// Which traffic policy an attempt is under. Pods are inside wherever they run; of the nodes' own packets a proxy takes
    /// only those of its own node for such (kubernetes/pkg/proxy/iptables/proxier.go: `--src-type LOCAL`).
    pub fn entry(&self, a: &Attempt<'_>) -> Entry {
        if !matches!(a.via, Via::NodePort | Via::Lb | Via::ExternalIp) {
            return Entry::Internal;
        }
        let who = self.identity.who(a.client(), a.began());
        let of_node = |p: &Part<'_>| self.is_local(p.node, a.client());
        if matches!(who, Some(Who::Pod { .. })) || a.parts.first().is_some_and(of_node) {
            Entry::ExternalFromInside
        } else {
            Entry::External
        }
    }

    /// Node whose proxy meets an attempt first, where the objects know it by the name that it gives itself.
    pub fn proxy_node<'s>(&self, a: &'s Attempt<'_>) -> Option<&'s str> {
        self.proxy_name(a.parts.first()?.node)
    }

    /// A view's node, where the objects know it by the name that it gives itself.
    pub fn proxy_name<'s>(&self, view: &'s View) -> Option<&'s str> {
        let name = view.name();
        let placed = || {
            let mut endpoints = self.slices().flat_map(|s| &s.endpoints);
            endpoints.any(|e| e.node.as_deref() == Some(name))
        };
        (self.objects.node(name).is_some() || placed()).then_some(name)
    }

    /// Whether an address lives on a view's node, as far as anyone knows.
    pub fn is_local(&self, view: &View, ip: IpAddr) -> bool {
        view.is_own(ip)
            || view.pod(ip).is_some()
            || self
                .pod(ip)
                .is_some_and(|p| p.node.as_deref() == Some(view.name()))
    }

    /// Node on which an address lives, by the objects.
    pub fn node_of(&self, ip: IpAddr, at: Time) -> Option<String> {
        self.identity
            .who(ip, at)
            .and_then(|w| w.node().map(str::to_owned))
    }

    /// Node on which an endpoint or Pod of an address is placed, by the objects.
    pub fn placed_on(&self, ip: IpAddr, at: Time) -> Option<&'a str> {
        let of_slice = || {
            let mut endpoints = self.slices().flat_map(|s| &s.endpoints);
            endpoints
                .find(|e| e.addresses.contains(&ip))
                .and_then(|e| e.node.as_deref())
        };
        let of_pod = self.pod(ip).and_then(|p| p.node.as_deref());
        of_pod
            .or_else(of_slice)
            .or_else(|| self.identity.holder(ip, at).and_then(Who::node))
    }

    /// Whether the node on which an address is placed was asked.
    pub fn was_asked(&self, ip: IpAddr, at: Time) -> bool {
        let node = self.placed_on(ip, at);
        node.is_some_and(|n| self.views.iter().any(|v| v.name() == n))
    }

    /// Node whose own address this is: one of its object's, one that it was seen to hold, or one in its Pod networks that
    /// no Pod has, as network plugins give their bridges and tunnel devices.
    pub fn node_with(&self, ip: IpAddr) -> Option<&'a str> {
        let of_object = || self.objects.node_at(ip).map(|n| n.name.as_str());
        let of_view = || self.views.iter().find(|v| v.is_own(ip)).map(View::name);
        let holds = |n: &&'a Node| n.pod_cidrs.iter().any(|net| cidr::contains(*net, ip));
        let of_network = || {
            let mut nodes = self.objects.nodes.iter();
            let node = nodes.find(holds).filter(|_| self.pod(ip).is_none())?;
            Some(node.name.as_str())
        };
        of_object().or_else(of_view).or_else(of_network)
    }

    /// A command with its template's values and the kube context filled in.
    pub fn command(&self, template: &str, values: &[(&str, &str)]) -> String {
        let context = self.views.first().map_or("", |v| v.start.context.as_str());
        codes::fill(template, context, values)
    }

    /// The objects and the Service as they were at a time.
    pub fn then(&self, at: Time) -> (&'a Objects, &'a Service) {
        let version = self.past.between(at, at).first();
        version
            .and_then(|o| Some((o, o.services.first()?)))
            .unwrap_or((self.objects, self.service))
    }

    /// Name of an address for a reader: `namespace/name`, a Node's name, or the address itself.
    pub fn name(&self, ip: IpAddr, at: Time) -> String {
        self.identity
            .who(ip, at)
            .map_or_else(|| ip.to_string(), |w| w.to_string())
    }

    /// Name of an endpoint for a reader: its Pod's, also where the address is the Node's.
    pub fn backend_name(&self, ip: IpAddr, at: Time) -> String {
        match self.identity.who(ip, at) {
            Some(Who::Node(node)) => self.backend_pod(ip).map_or_else(
                || node.to_string(),
                |p| format!("{}/{}", p.namespace, p.name),
            ),
            Some(who) => who.to_string(),
            None => ip.to_string(),
        }
    }

    /// Name of an endpoint with the address, for sentences.
    pub fn named(&self, to: SocketAddr, at: Time) -> String {
        match self.identity.who(to.ip(), at) {
            Some(_) => format!("{} ({to})", self.backend_name(to.ip(), at)),
            None => to.to_string(),
        }
    }

    fn gather(&self) -> Vec<Attempt<'a>> {
        let mut all: Vec<(Via, Part<'a>)> = Vec::new();
        for (view, node) in self.views.iter().enumerate() {
            let mine = node
                .connections()
                .filter(|c| was_watched(node, c))
                .filter_map(|c| self.via(node, c).map(|via| (via, c)));
            all.extend(mine.map(|(via, conn)| (via, Part { view, node, conn })));
        }
        // Translated connections first, then those whose client is on the node: what another node saw of them joins.
        all.sort_by_cached_key(|(_, p)| {
            let client_side = p.conn.is_dnat() || self.is_local(p.node, p.conn.orig.src);
            (!client_side, p.conn.began, p.conn.orig)
        });
        let mut attempts: Vec<Attempt<'a>> = Vec::new();
        let mut by_tuple: HashMap<Tuple, Vec<usize>> = HashMap::new();
        for (via, part) in all {
            let known = by_tuple.get(&part.conn.orig).into_iter().flatten();
            let same = known.copied().filter(|i| continues(&attempts[*i], part));
            if let Some(i) = same.min_by_key(|i| distance(&attempts[*i], part)) {
                attempts[i].parts.push(part);
                continue;
            }
            for tuple in BTreeSet::from([part.conn.orig, part.conn.translated()]) {
                by_tuple.entry(tuple).or_default().push(attempts.len());
            }
            attempts.push(Attempt {
                via,
                orig: part.conn.orig,
                parts: vec![part],
                rewritten: None,
                outcome: Outcome::Pending,
                weight: 1,
            });
        }
        rewriting::join(self, &mut attempts);
        let others = Others::of(self, &attempts);
        attempts.retain(|a| self.is_asked(a) && !self.is_half_seen(a) && !others.have(a));
        let scans = self.scans(&attempts);
        attempts.retain(|a| !(self.is_undefined(a) && scans.contains(&a.client())));
        for a in &mut attempts {
            a.outcome = outcome(a);
            if a.outcome == Outcome::Timeout && is_taken(a) {
                a.outcome = Outcome::Pending;
            }
            if a.outcome == Outcome::Ok && self.is_unconfirmed(a) {
                a.outcome = Outcome::Pending;
            }
            if a.outcome == Outcome::Timeout && rewriting::may_be_answered(a) {
                a.outcome = Outcome::Pending;
            }
        }
        attempts.retain(|a| !(a.outcome.is_failure() && self.met_a_leaver(a)));
        merge_twins(&mut attempts);
        datagrams::split(&mut attempts);
        attempts.sort_by_cached_key(|a| (a.began(), a.orig));
        attempts
    }

    /// The client's node, which was asked as well, did not look yet, or no more: whether the Pod was dialled or the Service,
    /// nobody has seen. Nodes that are asked together begin and end a moment apart; one that fell silent is as one that was
    /// not asked.
    fn is_half_seen(&self, a: &Attempt<'_>) -> bool {
        let began = a.began();
        let just_missed = |v: &View| {
            let before = began < v.start.time && v.start.time.since(began) < MOMENT;
            let after = began > v.now && began.since(v.now) < MOMENT;
            before || after && v.ended
        };
        let told = |index| a.parts.iter().any(|p| p.view == index);
        let mut others = self.views.iter().enumerate().filter(|(i, _)| !told(*i));
        a.via == Via::Pod && others.any(|(_, v)| just_missed(v) && self.is_local(v, a.client()))
    }

    /// The backend has not closed it, and its node, which was asked as well, had stopped looking before a stall could show
    /// there: whether all that it answers arrives is not known.
    fn is_unconfirmed(&self, a: &Attempt<'_>) -> bool {
        let closed = |p: &Part<'_>| {
            let mut answers = p.conn.sights_towards(false);
            answers.any(|s| s.stats.fin.is_some())
        };
        let decided = a.parts.first().map(|p| p.view);
        let mut others = self.views.iter().enumerate();
        let gone = others.any(|(i, v)| {
            let early = v.now < a.began() + STALL_SHOWS;
            Some(i) != decided && early && self.is_local(v, a.translated().dst)
        });
        a.orig.proto == Proto::TCP && gone && !a.parts.iter().any(closed)
    }

    /// A Service address was dialled on a port that the Service does not have.
    fn is_undefined(&self, a: &Attempt<'_>) -> bool {
        matches!(a.via, Via::Vip | Via::Lb | Via::ExternalIp) && self.port_of(&a.orig).is_none()
    }

    /// Its endpoint was just being removed: until every proxy knows, some still send to a Pod that shuts down. Each
    /// rollout has a few such attempts, and they are no fault of the path.
    fn met_a_leaver(&self, a: &Attempt<'_>) -> bool {
        let (Some(to), Some(port)) = (a.backend(), self.port_of_attempt(a)) else {
            return false;
        };
        // One that was open may be cut when its Pod ends, however long before it began.
        let was_open = matches!(a.outcome, Outcome::Reset | Outcome::Stalled);
        let met = if was_open { a.last() } else { a.began() };
        let from = Time(a.began().0.saturating_sub(PROXY_LAG.as_nanos() as u64));
        let versions = self.past.between(from, met + PROXY_LAG);
        let ipv6 = to.is_ipv6();
        let find = |o: &'a Objects| {
            let service = o.services.first().unwrap_or(self.service);
            let mut all = endpoints::backends(o, service, port, ipv6).into_iter();
            all.find(|b| b.address == to).map(|b| b.endpoint)
        };
        // A version read while it was being written may lack what is there again in the next.
        let is_gone = |o: &'a Objects| find(o).is_none_or(|e| e.terminating);
        versions.last().is_some_and(is_gone)
            && versions.windows(2).any(|pair| {
                let was = find(&pair[0]).is_some_and(|e| e.ready);
                was && is_gone(&pair[1])
            })
    }

    /// Clients that try port after port: what they meet at ports that the Service does not have is no fault.
    fn scans(&self, attempts: &[Attempt<'_>]) -> BTreeSet<IpAddr> {
        let mut tried: BTreeMap<IpAddr, BTreeSet<(Proto, u16)>> = BTreeMap::new();
        for a in attempts.iter().filter(|a| self.is_undefined(a)) {
            tried
                .entry(a.client())
                .or_default()
                .insert((a.orig.proto, a.orig.dport));
        }
        tried
            .into_iter()
            .filter(|(_, ports)| ports.len() >= SCANNED_PORTS)
            .map(|(ip, _)| ip)
            .collect()
    }

    /// How a connection addresses the Service; `None` = it does not.
    pub(super) fn via(&self, node: &View, conn: &Connection) -> Option<Via> {
        let dialled = conn.orig;
        // Later fragments: what they belong to is told by the first one. No Service answers pings.
        if (dialled.sport, dialled.dport) == (0, 0) || !dialled.proto.has_ports() {
            return None;
        }
        let address = self.addresses().find(|(ip, _)| *ip == dialled.dst);
        if let Some((_, via)) = address.filter(|(_, via)| self.is_ours(*via, &dialled)) {
            return Some(via);
        }
        let node_port =
            |p: &&ServicePort| p.node_port == Some(dialled.dport) && p.proto == dialled.proto;
        if node.is_own(dialled.dst) && self.service.ports.iter().any(|p| node_port(&p)) {
            return Some(Via::NodePort);
        }
        if conn.is_dnat() {
            return None;
        }
        let way = if self.service.headless {
            Via::Headless
        } else {
            Via::Pod
        };
        let to = dialled.destination();
        let of_port = |p: &ServicePort| p.proto == dialled.proto && self.is_target(p, to);
        if self.service.ports.iter().any(of_port) {
            return Some(way);
        }
        // Another declared port of a selected Pod: its success tells which port does serve.
        let pod = self.pod(to.ip()).filter(|p| self.service.selects(p))?;
        pod.ports
            .iter()
            .any(|c| c.port == to.port() && c.proto == dialled.proto)
            .then_some(Via::Pod)
    }

    /// Whether a packet to one of the Service's addresses is for the Service. A cluster address is its alone. An external
    /// one may be shared with other Services, which have ports of their own, and may be a node's, with the node's own ports.
    fn is_ours(&self, via: Via, dialled: &Tuple) -> bool {
        if via == Via::Vip || self.port_of(dialled).is_some() {
            return true;
        }
        let has_port = |s: &Service| {
            let mut ports = s.ports.iter();
            ports.any(|p| p.port == dialled.dport && p.proto == dialled.proto)
        };
        let mut others = self.objects.services.iter();
        !others.any(|s| s.addresses().any(|ip| ip == dialled.dst) && has_port(s))
            && !self.is_node_address(dialled.dst)
    }

    /// Whether an address is a node's own.
    pub fn is_node_address(&self, ip: IpAddr) -> bool {
        self.views.iter().any(|v| v.is_own(ip)) || self.objects.node_at(ip).is_some()
    }

    fn is_asked(&self, attempt: &Attempt<'_>) -> bool {
        let port = self.query.port.is_none_or(|wanted| match attempt.via {
            Via::Pod | Via::Headless | Via::NodePort => self
                .port_of_attempt(attempt)
                .is_none_or(|p| p.port == wanted),
            _ => attempt.orig.dport == wanted,
        });
        port && self
            .query
            .from
            .as_ref()
            .is_none_or(|from| self.is_from(attempt.client(), attempt.began(), from))
    }

    /// Whether an address was, at a time, that of a client asked about.
    pub fn is_from(&self, ip: IpAddr, at: Time, from: &From) -> bool {
        let who = self.identity.who(ip, at);
        let here = |ns: &Option<String>| ns.clone().unwrap_or_else(|| self.query.namespace.clone());
        match (from, who) {
            (From::Ip(wanted), _) => *wanted == ip,
            (From::External, who) => who.is_none(),
            (
                From::Pod(ns, name),
                Some(Who::Pod {
                    namespace, name: n, ..
                }),
            ) => *namespace == *here(ns) && *n == **name,
            (
                From::Deploy(ns, name),
                Some(Who::Pod {
                    namespace, owner, ..
                }),
            ) => *namespace == *here(ns) && owner.is_some_and(|o| is_of_deployment(&o, name)),
            (From::Namespace(ns), Some(who)) => who.namespace() == Some(ns),
            (From::Node(node), Some(who)) => who.node() == Some(node),
            _ => false,
        }
    }

    /// Whether an attempt counts for the verdict: everything that used the Service, and what came to a backend from a
    /// node that was not asked, or has fallen silent, since behind DNAT there it looks like this. A direct attempt does not,
    /// except where sockets are given a Pod's address for the Service's.
    pub fn counts(&self, attempt: &Attempt<'_>) -> bool {
        match attempt.via {
            Via::Pod => {
                let seen = |v: &View| v.was_looking(attempt.began()) || v.ended;
                let direct = self
                    .views
                    .iter()
                    .any(|v| seen(v) && self.is_local(v, attempt.client()));
                let served = !direct || sockets::is_balanced(self, attempt);
                served && self.port_of_attempt(attempt).is_some()
            }
            Via::Headless => !self.may_be_probe(attempt),
            _ => true,
        }
    }

    /// It came to a Pod from its own node: the kubelet's probes do, whatever DNS says of the Pod.
    fn may_be_probe(&self, attempt: &Attempt<'_>) -> bool {
        let (Some(backend), client) = (attempt.backend(), attempt.client()) else {
            return false;
        };
        let beside = |v: &View| v.is_own(client) && self.is_local(v, backend.ip());
        let node = self.placed_on(backend.ip(), attempt.began());
        self.views.iter().any(beside) || node.is_some() && self.node_with(client) == node
    }

    /// Evidence: an entry of the flow map.
    pub fn sight(&self, part: Part<'_>, sight: &Sight, kind: &str, text: String) -> Draft {
        let ingress = sight.key.dir == Direction::Ingress;
        Draft {
            plane: Plane::Flow,
            kind: format!(
                "{kind}|{}|{}",
                served_end(part, sight),
                sight.key.tuple.proto
            ),
            time: Some(sight.stats.first),
            view: Some((part.view, part.node.name().to_owned())),
            netns: Some(part.node.start.netns),
            ifname: part.node.ifname(sight.key.ifindex),
            hook: Some(if ingress { "tc/ingress" } else { "tc/egress" }.to_owned()),
            tuple: Some(sight.key.tuple),
            ct: part.conn.ct(),
            text,
            cites: vec![Cite::Flow(sight.key)],
        }
    }

    /// Evidence: a kernel record.
    pub fn event(&self, part: Part<'_>, event: &ConnEvent, kind: &str, text: String) -> Draft {
        let (plane, hook) = match &event.record.event {
            Event::Drop(_) => (Plane::Drop, "kfree_skb"),
            Event::Nat { .. }
            | Event::CtEnd { .. }
            | Event::CtInsertFailed { .. }
            | Event::CtClash { .. }
            | Event::CtFull => (Plane::Ct, "conntrack"),
            Event::Ipvs { .. } => (Plane::Ct, "ip_vs"),
            Event::IcmpSent { .. } => (Plane::Mtu, "icmp_send"),
            Event::PmtuReceived { .. } => (Plane::Mtu, "icmp_rcv"),
            Event::PmtuLearned { .. } => (Plane::Mtu, "route"),
            Event::Fragmented { .. } => (Plane::Mtu, "ip_fragment"),
            Event::ListenOverflow { .. } => (Plane::Drop, "listen"),
            Event::IcmpError(e) if e.is_too_big(part.conn.orig.dst.is_ipv6()) => {
                (Plane::Mtu, hook_of(e.dir))
            }
            Event::IcmpError(e) => (Plane::Flow, hook_of(e.dir)),
            Event::Syn(s)
            | Event::SynAck(s)
            | Event::Rst(s)
            | Event::FirstPacket(s)
            | Event::Retransmit(s) => (Plane::Flow, hook_of(s.dir)),
            Event::TcpRetransmit { .. } => (Plane::Flow, "tcp_retransmit_skb"),
            Event::ResetSent => (Plane::Flow, "tcp_send_reset"),
            Event::ResetReceived => (Plane::Flow, "tcp_receive_reset"),
            Event::FlowEnd { .. } => (Plane::Flow, "tc"),
            Event::NeighborWait { .. } => (Plane::Flow, "neigh_event_send"),
            Event::FibError { .. } | Event::NeighborFailed { .. } => (Plane::Node, "neigh"),
        };
        let ct = match &event.record.event {
            Event::Drop(d) => d.ct,
            Event::Nat { ct, .. }
            | Event::CtEnd { ct, .. }
            | Event::CtInsertFailed { ct, .. }
            | Event::CtClash { ct } => Some(**ct),
            Event::IcmpSent { ct, .. } | Event::NeighborWait { ct, .. } => ct.as_deref().copied(),
            _ => part.conn.ct(),
        };
        let own = event.record.netns == part.node.start.netns;
        Draft {
            plane,
            kind: kind.to_owned(),
            time: Some(event.record.time),
            view: Some((part.view, part.node.name().to_owned())),
            netns: Some(event.record.netns),
            ifname: if own {
                part.node.ifname(event.record.ifindex)
            } else {
                Self::pod_ifname(part, event)
            },
            hook: Some(hook.to_owned()),
            tuple: event.record.tuple,
            ct,
            text,
            cites: vec![Cite::Record(event.cite)],
        }
    }

    fn pod_ifname(part: Part<'_>, event: &ConnEvent) -> Option<String> {
        let pods = part.node.facts.iter().flat_map(|f| &f.pods);
        let mut links = pods
            .filter(|p| p.netns == event.record.netns)
            .flat_map(|p| &p.links);
        links
            .find(|l| l.ifindex == event.record.ifindex)
            .map(|l| l.name.clone())
    }

    /// Evidence: the packet with another destination, from the same port of the client.
    fn rewriting(&self, attempt: &Attempt<'_>, to: SocketAddr) -> Option<Draft> {
        let part = *attempt.parts.first()?;
        let sights = part.conn.sights_towards(true);
        let sight = sights.min_by_key(|s| (s.stats.first, s.key))?;
        let from = attempt.orig.destination();
        let text = format!(
            "a packet from the client's port goes to {}, the one to {from} goes no further, and conntrack translates \
             neither: a program did",
            self.named(to, attempt.began())
        );
        Some(self.sight(part, sight, "rewritten", text))
    }

    /// Evidence: which backend was chosen, by conntrack or, where that does not know, by IPVS or a program.
    pub fn translation(&self, attempt: &Attempt<'_>) -> Option<Draft> {
        if let Some(rewritten) = attempt.rewritten {
            return self.rewriting(attempt, rewritten.destination());
        }
        let part = attempt.parts.iter().find(|p| p.conn.is_dnat())?;
        let ct = part.conn.nat()?;
        let to = ct.translated().destination();
        let by_ipvs = part.conn.is_untracked();
        let text = format!(
            "{}: {} is translated to {}{}",
            if by_ipvs { "IPVS" } else { "conntrack" },
            ct.orig.destination(),
            self.named(to, attempt.began()),
            if ct.is_snat() {
                format!(", source becomes {}", ct.reply.dst)
            } else {
                String::new()
            }
        );
        let nat = part.conn.events.iter().find(|e| match e.record.event {
            Event::Nat { .. } => !by_ipvs,
            Event::Ipvs { to, .. } => by_ipvs && to.is_some(),
            _ => false,
        });
        let mut draft = match nat {
            Some(event) => self.event(*part, event, "", text),
            None => Draft {
                plane: Plane::Ct,
                kind: String::new(),
                time: Some(part.conn.began),
                view: Some((part.view, part.node.name().to_owned())),
                netns: Some(part.node.start.netns),
                ifname: None,
                hook: Some("conntrack".to_owned()),
                tuple: Some(ct.orig),
                ct: Some(ct),
                text,
                cites: part.conn.ct_cite().into_iter().collect(),
            },
        };
        draft.kind = format!("translation|{}|{to}", ct.orig.destination());
        // Conntrack records say where a flow goes, not through which interface.
        draft.ifname = None;
        draft.plane = Plane::Ct;
        Some(draft)
    }
}

/// The end of a packet that attempts have in common: the client's has a port of its own each time.
fn served_end(part: Part<'_>, sight: &Sight) -> SocketAddr {
    let tuple = sight.key.tuple;
    match part.conn.leg(&tuple) {
        Some(leg) if !leg.is_forward() => tuple.source(),
        _ => tuple.destination(),
    }
}

fn hook_of(dir: Direction) -> &'static str {
    if dir == Direction::Ingress {
        "tc/ingress"
    } else {
        "tc/egress"
    }
}

/// Datagrams that went to a socket of the backend, with nothing dropped on the way: not every protocol answers as DNS does.
fn is_taken(a: &Attempt<'_>) -> bool {
    let one_way = a.orig.proto == Proto::UDP && a.orig.dport != DOMAIN;
    let Some(to) = a.backend().filter(|_| one_way) else {
        return false;
    };
    let taken = |p: &Part<'_>| {
        let pod = p.node.pod(to.ip());
        pod.is_some_and(|pod| pod.listeners.iter().any(|l| l.accepts(Proto::UDP, to)))
            && a.sent_on(*p).is_some()
    };
    a.drops().is_empty() && a.icmp().next().is_none() && a.parts.iter().any(taken)
}

/// Two datagrams of one socket at once may each get an entry and a backend of its own (`nf_ct_resolve_clash`,
/// `net/netfilter/nf_conntrack_core.c`, v6.18). For the client that is one exchange: what only came to the second backend is
/// none of its own, unless it was dropped, and an answer, which looks the same from either, is one to both.
fn merge_twins(attempts: &mut Vec<Attempt<'_>>) {
    let udp = attempts.iter().filter(|a| a.orig.proto == Proto::UDP);
    let sent: BTreeSet<Tuple> = udp.filter(|a| has_sender(a)).map(|a| a.orig).collect();
    let is_twin = |a: &Attempt<'_>| {
        a.orig.proto == Proto::UDP
            && !has_sender(a)
            && a.drops().is_empty()
            && sent.contains(&a.orig)
    };
    let mut answered: HashMap<Tuple, Vec<Time>> = HashMap::new();
    attempts.retain(|a| {
        let is_twin = is_twin(a);
        if is_twin && a.outcome == Outcome::Ok {
            answered.entry(a.orig).or_default().push(a.began());
        }
        !is_twin
    });
    for a in attempts {
        let near = |t: &Time| t.since(a.began()).max(a.began().since(*t)) <= SILENCE;
        let is_answered = answered.get(&a.orig).is_some_and(|t| t.iter().any(near));
        if is_answered && matches!(a.outcome, Outcome::Timeout | Outcome::Pending) {
            a.outcome = Outcome::Ok;
        }
    }
}

fn has_sender(a: &Attempt<'_>) -> bool {
    // As the client sends it: behind a translation every datagram looks the same.
    let sent = |p: &Part<'_>| p.conn.sights.iter().any(|s| s.key.tuple == a.orig);
    a.parts.iter().any(sent)
}

/// Some of it happened after everything was attached on the node. What ended before was seen at some interfaces only, so
/// what is missing there proves nothing.
fn was_watched(node: &View, conn: &Connection) -> bool {
    conn.last >= node.start.time
}

/// Whether a part is another node's sight of the same attempt: it starts with the tuple that the first one ended with.
fn continues(attempt: &Attempt<'_>, part: Part<'_>) -> bool {
    attempt.parts.iter().all(|p| p.view != part.view)
        && (attempt.translated() == part.conn.orig || attempt.orig == part.conn.orig)
        && is_same(attempt, part.conn)
}

/// Whether a connection that has the attempt's tuple on another node is the attempt: began at the same time, with the same number.
pub(super) fn is_same(attempt: &Attempt<'_>, conn: &Connection) -> bool {
    let known = attempt.parts.iter().find_map(|p| p.conn.isn);
    let same_isn = known.is_none() || conn.isn.is_none() || known == conn.isn;
    let (a, b) = (attempt.began(), conn.began);
    same_isn && a.since(b) < SAME_ATTEMPT && b.since(a) < SAME_ATTEMPT
}

/// How far a part is from an attempt that it may continue, where one tuple was used for several: the initial sequence number
/// tells, else whether both ran before anybody looked, else time. One that runs keeps its source port, whoever wants it.
fn distance(attempt: &Attempt<'_>, part: Part<'_>) -> (bool, bool, Duration) {
    let isn = part.conn.isn;
    let known = attempt.parts.iter().find_map(|p| p.conn.isn);
    let same = isn.is_some() && known == isn;
    let (a, b) = (attempt.began(), part.conn.began);
    let apart = a.since(b).max(b.since(a));
    (!same, known.is_some() != isn.is_some(), apart)
}
