//! Identity of an address at a time, from dated versions of the objects.

use crate::model::Time;
use crate::model::identity::{Identity, Who};
use crate::model::objects::{Objects, Pod};
use foldhash::quality::RandomState;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::{iter, mem};

/// Holders that ended and are still remembered, over all addresses.
const HISTORY: usize = 65_536;

/// One holder of an address for a stretch of time.
#[derive(Debug, Clone)]
struct Tenure {
    from: Time,
    /// First moment at which it no longer held the address; `None` = it still does.
    until: Option<Time>,
    who: Who,
}

impl Tenure {
    fn covers(&self, at: Time) -> bool {
        self.from <= at && self.until.is_none_or(|end| at < end)
    }
}

/// The holders of one address. The last one stands in the map itself: most lookups end there, and with many addresses
/// each further place in memory costs more than all the rest.
#[derive(Debug)]
struct Line {
    /// Only this one may be open.
    last: Tenure,
    /// Earlier ones, oldest first; they overlap neither each other nor the last.
    before: Vec<Tenure>,
}

impl Line {
    fn at(&self, at: Time) -> Option<&Tenure> {
        let mut newest_first = iter::once(&self.last).chain(self.before.iter().rev());
        newest_first.find(|t| t.covers(at))
    }

    fn push(&mut self, tenure: Tenure) {
        self.before.push(mem::replace(&mut self.last, tenure));
    }

    /// Start of the first holder after `at`.
    fn next_after(&self, at: Time) -> Option<Time> {
        let starts = self.before.iter().chain([&self.last]).map(|t| t.from);
        starts.filter(|from| *from > at).min()
    }

    /// Puts in a tenure that begins anywhere.
    fn insert(&mut self, tenure: Tenure) {
        if tenure.from > self.last.from {
            self.push(tenure);
            return;
        }
        let place = self.before.partition_point(|t| t.from <= tenure.from);
        self.before.insert(place, tenure);
    }
}

/// Addresses with what is known of each.
type ByAddress<T> = HashMap<IpAddr, T, RandomState>;

/// Every address that the objects name, with who held it when.
#[derive(Debug, Default)]
pub struct Identities {
    lines: ByAddress<Line>,
    /// Addresses whose holder ended, oldest end first: what to forget next.
    ended: VecDeque<IpAddr>,
    /// Time of the newest version learned.
    newest: Option<Time>,
    /// Most ended tenures kept.
    history: usize,
}

impl Identities {
    /// Knows nobody yet.
    pub fn new() -> Identities {
        Identities::with_history(HISTORY)
    }

    /// As [`Identities::new`], remembering at most `history` holders that ended.
    pub fn with_history(history: usize) -> Identities {
        Identities {
            history,
            ..Identities::default()
        }
    }

    /// A version newer than all before: ends what it no longer shows, begins what it newly shows.
    fn advance(&mut self, holders: ByAddress<Who>, now: Time) {
        let mut ended = Vec::new();
        for (ip, line) in &mut self.lines {
            let last = &mut line.last;
            if last.until.is_none() && holders.get(ip) != Some(&last.who) {
                last.until = Some(now);
                ended.push(*ip);
            }
        }
        ended.sort_unstable();
        self.ended.extend(ended);
        // A change became visible now, but happened some time after the version before. Where nobody held the
        // address in between, the new holder gets that time: its first packets precede the object we read.
        let since = self.newest.unwrap_or_default();
        let begin = |from, who| Tenure {
            from,
            until: None,
            who,
        };
        for (ip, who) in holders {
            match self.lines.entry(ip) {
                Entry::Vacant(free) => {
                    free.insert(Line {
                        last: begin(since, who),
                        before: Vec::new(),
                    });
                }
                Entry::Occupied(mut line) => {
                    let line = line.get_mut();
                    if let Some(end) = line.last.until {
                        line.push(begin(end.max(since), who));
                    }
                }
            }
        }
        self.newest = Some(now);
    }

    /// A version from before the newest one (another node's recording): it only fills what is still unknown at its time.
    fn fill_in(&mut self, holders: ByAddress<Who>, then: Time) {
        let mut holders: Vec<_> = holders.into_iter().collect();
        holders.sort_unstable_by_key(|(ip, _)| *ip);
        for (ip, who) in holders {
            let tenure = |until| Tenure {
                from: then,
                until,
                who,
            };
            match self.lines.entry(ip) {
                Entry::Vacant(free) => {
                    free.insert(Line {
                        last: tenure(self.newest),
                        before: Vec::new(),
                    });
                }
                Entry::Occupied(mut line) => {
                    let line = line.get_mut();
                    if line.at(then).is_some() {
                        continue;
                    }
                    line.insert(tenure(line.next_after(then).or(self.newest)));
                }
            }
            self.ended.push_back(ip);
        }
    }

    /// Forgets the holders that ended first, so that history stays bounded.
    fn forget(&mut self) {
        while self.ended.len() > self.history {
            let Some(ip) = self.ended.pop_front() else {
                return;
            };
            if let Entry::Occupied(mut line) = self.lines.entry(ip) {
                if !line.get().before.is_empty() {
                    line.get_mut().before.remove(0);
                } else if line.get().last.until.is_some() {
                    line.remove();
                }
            }
        }
    }
}

impl Identity for Identities {
    fn learn(&mut self, objects: &Objects) {
        let holders = holders(objects);
        if self.newest.is_none_or(|newest| newest <= objects.time) {
            self.advance(holders, objects.time);
        } else {
            self.fill_in(holders, objects.time);
        }
        self.forget();
    }

    fn holder(&self, ip: IpAddr, at: Time) -> Option<&Who> {
        let line = self.lines.get(&ip.to_canonical())?;
        line.at(at).map(|t| &t.who)
    }
}

/// Who holds which address in one version. Where several objects name an address, a Node goes before a Pod and a Pod
/// before a Service: load balancers that announce node addresses put those into the Service's status.
fn holders(objects: &Objects) -> ByAddress<Who> {
    let most = objects.pods.len() + objects.services.len();
    let mut holders = ByAddress::with_capacity_and_hasher(most, RandomState::default());
    for service in &objects.services {
        let who = Who::Service {
            namespace: service.namespace.as_str().into(),
            name: service.name.as_str().into(),
        };
        let addresses = [&service.cluster_ips, &service.external_ips, &service.lb_ips];
        for ip in addresses.into_iter().flatten() {
            holders
                .entry(ip.to_canonical())
                .or_insert_with(|| who.clone());
        }
    }
    insert_pods(objects, &mut holders);
    for node in &objects.nodes {
        let who = Who::Node(node.name.as_str().into());
        for ip in node.internal_ips.iter().chain(&node.other_ips) {
            holders.insert(ip.to_canonical(), who.clone());
        }
    }
    holders
}

fn insert_pods(objects: &Objects, holders: &mut ByAddress<Who>) {
    let mut claims: ByAddress<&Pod> = ByAddress::default();
    for pod in objects.pods.iter().filter(|p| !p.is_finished()) {
        for ip in &pod.ips {
            let best = claims.entry(ip.to_canonical()).or_insert(pod);
            if pod.claim() > best.claim() {
                *best = pod;
            }
        }
    }
    for (ip, pod) in claims {
        let node = pod.node.clone().map(Into::into);
        let who = match (pod.host_network, node) {
            // Its address is the node's, whether or not the Node object is known.
            (true, Some(node)) => Who::Node(node),
            (true, None) => continue,
            (false, node) => Who::Pod {
                namespace: pod.namespace.clone().into(),
                name: pod.name.clone().into(),
                node,
                owner: pod.owner.clone().map(Into::into),
            },
        };
        holders.insert(ip, who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::{Node, Service};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::V4([0, 0, 0, 0].into()))
    }

    fn pod(name: &str, address: &str) -> Pod {
        Pod {
            namespace: "app".into(),
            name: name.into(),
            ips: vec![ip(address)],
            node: Some("worker".into()),
            phase: "Running".into(),
            ..Pod::default()
        }
    }

    fn version(time: u64, pods: Vec<Pod>) -> Objects {
        Objects {
            time: Time(time),
            pods: pods.into(),
            ..Objects::default()
        }
    }

    fn named(identities: &Identities, address: &str, at: u64) -> Option<String> {
        identities.who(ip(address), Time(at)).map(|w| w.to_string())
    }

    #[test]
    fn a_reused_address_is_attributed_by_time() {
        let mut ids = Identities::new();
        ids.learn(&version(100, vec![pod("old", "10.1.0.5")]));
        ids.learn(&version(200, vec![]));
        ids.learn(&version(300, vec![pod("new", "10.1.0.5")]));
        ids.learn(&version(400, vec![pod("newer", "10.1.0.5")]));
        assert_eq!(named(&ids, "10.1.0.5", 50).as_deref(), Some("app/old"));
        assert_eq!(named(&ids, "10.1.0.5", 199).as_deref(), Some("app/old"));
        assert_eq!(named(&ids, "10.1.0.5", 200).as_deref(), Some("app/new"));
        assert_eq!(named(&ids, "10.1.0.5", 399).as_deref(), Some("app/new"));
        assert_eq!(named(&ids, "10.1.0.5", 400).as_deref(), Some("app/newer"));
        assert_eq!(named(&ids, "10.1.0.6", 400), None);
    }

    #[test]
    fn an_address_given_back_is_nobodys() {
        let mut ids = Identities::new();
        ids.learn(&version(100, vec![pod("old", "10.1.0.5")]));
        ids.learn(&version(200, vec![]));
        assert_eq!(named(&ids, "10.1.0.5", 250), None);
        let mut done = pod("job", "10.1.0.5");
        done.phase = "Succeeded".into();
        ids.learn(&version(300, vec![done]));
        assert_eq!(named(&ids, "10.1.0.5", 350), None);
    }

    #[test]
    fn host_network_pods_are_their_node() {
        let mut agent = pod("agent", "192.0.2.7");
        agent.host_network = true;
        let mut objects = version(1, vec![agent]);
        let mut ids = Identities::new();
        ids.learn(&objects);
        assert_eq!(named(&ids, "192.0.2.7", 1).as_deref(), Some("worker"));
        objects.nodes.push(Node {
            name: "worker".into(),
            internal_ips: vec![ip("192.0.2.7")],
            ..Node::default()
        });
        objects.time = Time(2);
        ids.learn(&objects);
        assert_eq!(
            ids.who(ip("192.0.2.7"), Time(2)),
            Some(Who::Node("worker".into()))
        );
    }

    #[test]
    fn services_by_every_address_but_a_node_keeps_its_own() {
        let mut objects = version(1, vec![]);
        objects.services.push(Service {
            namespace: "app".into(),
            name: "web".into(),
            cluster_ips: vec![ip("10.96.0.9"), ip("fd00::9")],
            external_ips: vec![ip("198.51.100.1")],
            lb_ips: vec![ip("203.0.113.1"), ip("192.0.2.7")],
            ..Service::default()
        });
        objects.nodes.push(Node {
            name: "worker".into(),
            internal_ips: vec![ip("192.0.2.7")],
            ..Node::default()
        });
        let mut ids = Identities::new();
        ids.learn(&objects);
        for address in ["10.96.0.9", "fd00::9", "198.51.100.1", "203.0.113.1"] {
            assert_eq!(named(&ids, address, 1).as_deref(), Some("app/web"));
        }
        assert_eq!(named(&ids, "192.0.2.7", 1).as_deref(), Some("worker"));
        assert_eq!(
            named(&ids, "::ffff:10.96.0.9", 1).as_deref(),
            Some("app/web")
        );
    }

    #[test]
    fn a_pod_on_a_lost_node_does_not_keep_the_address() {
        let mut lost = pod("lost", "10.1.0.5");
        lost.deleting = true;
        let mut ids = Identities::new();
        ids.learn(&version(1, vec![lost, pod("new", "10.1.0.5")]));
        assert_eq!(named(&ids, "10.1.0.5", 1).as_deref(), Some("app/new"));
    }

    #[test]
    fn an_older_version_fills_gaps_only() {
        let mut ids = Identities::new();
        ids.learn(&version(300, vec![pod("a", "10.1.0.5")]));
        ids.learn(&version(
            200,
            vec![pod("b", "10.1.0.5"), pod("c", "10.1.0.6")],
        ));
        assert_eq!(named(&ids, "10.1.0.5", 250).as_deref(), Some("app/a"));
        assert_eq!(named(&ids, "10.1.0.6", 250).as_deref(), Some("app/c"));
        assert_eq!(named(&ids, "10.1.0.6", 300), None);
    }

    #[test]
    fn history_is_bounded() {
        let mut ids = Identities::with_history(10);
        for n in 0..100_u64 {
            ids.learn(&version(n * 10, vec![pod(&format!("p{n}"), "10.1.0.5")]));
        }
        assert_eq!(ids.lines[&ip("10.1.0.5")].before.len(), 10);
        assert_eq!(named(&ids, "10.1.0.5", 895).as_deref(), Some("app/p89"));
        assert_eq!(named(&ids, "10.1.0.5", 5), None);
        for n in 0..100_u64 {
            let address = format!("10.2.0.{n}");
            ids.learn(&version(2_000 + n, vec![pod("x", &address)]));
        }
        assert!(ids.lines.len() <= 11);
    }
}
