//! From connections and facts to the proved cause.
//!
//! The [`Explainer`] is fed what a recording holds, in its order, and answers from that alone: the same inputs give the
//! same answer, byte for byte. It gathers what each node told ([`view`]), makes attempts of it ([`attempt`], [`case`]),
//! walks their path ([`walk`]), lets the [`rules`] explain those that failed and ranks what they found ([`report`]).

pub mod attempt;
pub mod blind;
pub mod case;
pub mod codes;
pub mod connections;
pub mod datagrams;
pub mod endpoints;
pub mod evidence;
pub mod fate;
pub mod lack;
pub mod others;
pub mod past;
pub mod pods;
pub mod policy;
pub mod report;
pub mod rewriting;
pub mod rules;
pub mod scene;
pub mod selector;
pub mod sockets;
pub mod tunnel;
pub mod view;
pub mod walk;

use crate::model::answer::{
    Answer, Basis, Cluster, Finding, Lost, NodeState, PortInfo, SCHEMA, ServiceInfo, Severity,
    Tool, Verdict, Window,
};
use crate::model::feed::{Clock, Silence, Silent};
use crate::model::identity::Identity;
use crate::model::objects::{Objects, Service, TargetPort};
use crate::model::query::Query;
use crate::model::resolve::{NotFound, resolve};
use crate::model::{Input, Time};
use attempt::Outcome;
use blind::Told;
use case::Case;
use past::Past;
use report::Report;
use scene::{Scene, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;
use view::View;

/// An observed critical finding that has stood on top for so long is the answer (design: time to answer).
const SETTLED: Duration = Duration::from_secs(2);

/// Codes that say no more than that nothing comes back, and another node or router will know.
const ASK_THERE: [&str; 2] = ["lost-beyond-node", "overlay-peer-lost"];

/// Codes that are given only after a while: till then the same failures have the name of what they met.
const TOLD_LATE: [&str; 1] = ["endpointslice-stale"];

/// Who was seen to use the Service, or to try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Network namespaces (inode numbers) in which a route to the Service was looked for in vain: what is in them is not known yet.
    pub namespaces: BTreeSet<u32>,
}

/// Answers from what it is fed.
pub struct Explainer {
    identity: Box<dyn Identity>,
    /// Those that have told something, in the order of the recordings.
    views: Vec<View>,
    /// Those that should have and did not, or ceased to, by name.
    silent: BTreeMap<String, Silent>,
    objects: Objects,
    past: Past,
    /// Code and summary of the finding on top, and since when it has stood there.
    top: Option<(&'static str, Time)>,
    /// It has stood there for long enough.
    settled: bool,
    /// Something was fed since that was looked at.
    fed: bool,
}

impl Explainer {
    /// An explainer that was told nothing.
    pub fn new(identity: Box<dyn Identity>) -> Explainer {
        Explainer {
            identity,
            views: Vec::new(),
            silent: BTreeMap::new(),
            objects: Objects::default(),
            past: Past::default(),
            top: None,
            settled: false,
            fed: true,
        }
    }

    /// Takes in the next input of one recording. A look of one node is recording 0.
    pub fn feed(&mut self, recording: usize, input: &Input) {
        self.fed = true;
        if let Input::Silent(silent) = input {
            self.silent.insert(silent.node.clone(), silent.clone());
            return;
        }
        let known = self.views.binary_search_by_key(&recording, |v| v.recording);
        let index = known.unwrap_or_else(|place| {
            self.views.insert(place, View::new(recording));
            place
        });
        if let Input::Objects(objects) = input {
            self.identity.learn(objects);
            self.past.learn(objects, &self.query());
            if objects.time >= self.objects.time {
                self.objects = (**objects).clone();
            }
            self.watch();
        }
        self.views[index].feed(input);
    }

    /// Whether an observed critical finding has stood on top for two seconds, by the time of the inputs. Asked again
    /// before anything was fed, it has not changed. What only says where to look next stands on as the cause that was told
    /// from there, and what is told late has stood there under another name.
    pub fn settled(&mut self) -> bool {
        if std::mem::take(&mut self.fed) {
            let now = self.now();
            self.top = match (self.cause(), self.top) {
                (Some(code), Some((old, since)))
                    if old == code || ASK_THERE.contains(&old) || TOLD_LATE.contains(&code) =>
                {
                    Some((code, since))
                }
                (cause, _) => cause.map(|code| (code, now)),
            };
            self.settled = self
                .top
                .is_some_and(|(_, since)| now.since(since) >= SETTLED);
        }
        self.settled
    }

    /// Code of the finding on top, if it is critical and observed.
    fn cause(&self) -> Option<&'static str> {
        let query = self.query();
        let service = resolve(&self.objects, &query).ok()?;
        let case = self.case(&query, service);
        let mut report = Report::default();
        rules::run(&case, &mut report);
        report.rank();
        let top = report.found.first()?;
        (top.severity == Severity::Critical && top.basis == Basis::Observed)
            .then_some(top.code.code)
    }

    fn case<'a>(&'a self, query: &'a Query, service: &'a Service) -> Case<'a> {
        Case::new(
            query,
            &self.objects,
            &self.past,
            service,
            &self.views,
            self.identity.as_ref(),
        )
    }

    /// The clients seen so far, for a source that can look into their namespaces.
    pub fn clients(&self) -> Clients {
        let query = self.query();
        let Ok(service) = resolve(&self.objects, &query) else {
            return Clients::default();
        };
        let case = self.case(&query, service);
        Clients {
            addresses: case.attempts.iter().map(attempt::Attempt::client).collect(),
            namespaces: case.failed_lookups().map(|f| f.record.netns).collect(),
        }
    }

    /// The answer as of now.
    pub fn answer(&self) -> Answer {
        let query = self.query();
        let found = resolve(&self.objects, &query);
        let case = found.as_ref().ok().map(|s| self.case(&query, s));
        self.answer_to(&query, &found, case.as_ref())
    }

    /// The answer as of now, and the connections that it rests on, as far as they are wanted.
    pub fn scene(&self, wanted: &Wanted<'_>) -> Scene {
        let query = self.query();
        let found = resolve(&self.objects, &query);
        let case = found.as_ref().ok().map(|s| self.case(&query, s));
        let answer = self.answer_to(&query, &found, case.as_ref());
        let Window { from, to } = answer.window;
        let (connections, all, rates) = scene::of(case.as_ref(), wanted, from, to);
        Scene {
            query,
            answer,
            connections,
            all,
            rates,
        }
    }

    fn answer_to(
        &self,
        query: &Query,
        found: &Result<&Service, NotFound>,
        case: Option<&Case<'_>>,
    ) -> Answer {
        let service = found.as_ref().ok().copied();
        let mut report = Report::default();
        let mut paths = Vec::new();
        if let Some(case) = case {
            rules::run(case, &mut report);
            report.rank();
            paths = walk::paths(case, &mut report);
        } else if let Err(what) = found {
            rules::not_found(query, &self.objects, what, &mut report);
        }
        let mut cited = report.cited();
        for (_, hops) in &paths {
            cited.extend(hops.iter().map(|(_, h)| *h));
        }
        let times: Vec<Vec<Option<Time>>> = report
            .found
            .iter()
            .map(|f| f.evidence.iter().map(|h| report.book.time(*h)).collect())
            .collect();
        let evidence::Finished { evidence, ids } =
            std::mem::take(&mut report.book).finish(&cited, self.identity.as_ref());
        let context = self.views.first().map_or("", |v| v.start.context.as_str());
        let findings: Vec<Finding> = report
            .found
            .iter()
            .zip(&times)
            .map(|(f, times)| f.finding(case, context, &ids, times))
            .collect();
        let paths = paths
            .into_iter()
            .map(|(mut path, hops)| {
                for (hop, handle) in hops {
                    path.hops[hop].evidence.extend(ids.get(&handle).cloned());
                }
                path
            })
            .collect();
        let proved = findings
            .first()
            .is_some_and(|f| f.severity == Severity::Critical && f.basis == Basis::Observed);
        Answer {
            schema: SCHEMA,
            tool: self.tool(),
            cluster: self.cluster(),
            nodes: self.nodes(),
            service: service.map(service_info),
            window: self.window(),
            verdict: verdict(case, &findings),
            paths,
            evidence,
            findings,
            blind: blind::spots(&self.told(), case, proved),
        }
    }

    /// The objects as they were told last.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    fn told(&self) -> Told<'_> {
        Told {
            views: &self.views,
            silent: &self.silent,
            objects: &self.objects,
        }
    }

    /// Those that answered first.
    fn nodes(&self) -> Vec<NodeState> {
        let answered = self.views.iter();
        let answered = answered.map(|v| node_state(v, self.views.len() == 1));
        let told = |s: &&Silent| !self.views.iter().any(|v| v.name() == s.node);
        let silent = self.silent.values().filter(told).map(silent_state);
        answered.chain(silent).collect()
    }

    /// Latest time told by any recording.
    fn now(&self) -> Time {
        self.views.iter().map(|v| v.now).max().unwrap_or_default()
    }

    fn query(&self) -> Query {
        self.views
            .first()
            .map(|v| v.start.query.clone())
            .unwrap_or_default()
    }

    /// Tells the tables which addresses serve, so that connections seen mid-flow are turned the right way.
    fn watch(&mut self) {
        let mut servers: HashSet<(IpAddr, u16)> = HashSet::new();
        for s in &self.objects.services {
            for ip in s.cluster_ips.iter().chain(&s.external_ips).chain(&s.lb_ips) {
                servers.extend(s.ports.iter().map(|p| (*ip, p.port)));
            }
        }
        for slice in &self.objects.slices {
            for ip in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                servers.extend(slice.ports.iter().filter_map(|p| p.port).map(|p| (*ip, p)));
            }
        }
        for pod in &self.objects.pods {
            for ip in &pod.ips {
                servers.extend(pod.ports.iter().map(|p| (*ip, p.port)));
            }
        }
        for view in &mut self.views {
            view.table.watch(servers.iter().copied());
        }
    }

    fn tool(&self) -> Tool {
        let start = self.views.first().map(|v| &v.start);
        Tool {
            version: start.map_or_else(String::new, |s| s.version.clone()),
            commit: start.map_or_else(String::new, |s| s.commit.clone()),
        }
    }

    fn cluster(&self) -> Cluster {
        let start = self.views.first().map(|v| &v.start);
        let server = start.map(|s| s.server.clone()).filter(|s| !s.is_empty());
        Cluster {
            context: start.map_or_else(String::new, |s| s.context.clone()),
            server: server.unwrap_or_else(|| self.objects.source.clone()),
        }
    }

    fn window(&self) -> Window {
        let starts = self
            .views
            .iter()
            .map(|v| v.start.time)
            .filter(|t| *t > Time::default());
        Window {
            from: starts.min().unwrap_or_default(),
            to: self.now(),
        }
    }
}

/// `alone`: the node's clock is the only one there is.
fn node_state(view: &View, alone: bool) -> NodeState {
    let tier = |t: &crate::model::capability::TierStatus| {
        (
            t.capability,
            t.tier.clone().unwrap_or_else(|| "none".to_owned()),
        )
    };
    let clock = view.clock.as_ref();
    NodeState {
        name: view.name().to_owned(),
        state: "answered".to_owned(),
        tiers: view.start.tiers.iter().map(tier).collect(),
        lost: Lost {
            records: view.lost.values().sum(),
            kinds: view
                .lost
                .iter()
                .filter(|(_, n)| **n > 0)
                .map(|(k, n)| (k.clone(), *n))
                .collect(),
        },
        clock_offset_ms: clock.map(Clock::ahead_ms).or(alone.then_some(0.0)),
        clock_within_ms: clock.map(Clock::within_ms),
    }
}

fn silent_state(silent: &Silent) -> NodeState {
    let state = match silent.kind {
        Silence::Absent => "absent",
        Silence::Timeout => "timeout",
    };
    NodeState {
        name: silent.node.clone(),
        state: state.to_owned(),
        tiers: BTreeMap::new(),
        lost: Lost::default(),
        clock_offset_ms: None,
        clock_within_ms: None,
    }
}

fn service_info(service: &Service) -> ServiceInfo {
    let ports = service.ports.iter().map(|p| PortInfo {
        name: p.name.clone(),
        port: p.port,
        protocol: p.proto,
        target_port: match &p.target {
            TargetPort::Number(n) => n.to_string(),
            TargetPort::Name(n) => n.clone(),
        },
    });
    ServiceInfo {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        kind: service.kind.clone(),
        cluster_ips: service.cluster_ips.clone(),
        ports: ports.collect(),
    }
}

/// The verdict rests on attempts; where there are none, on what objects say.
fn verdict(case: Option<&Case<'_>>, findings: &[Finding]) -> Verdict {
    let counted = || {
        case.into_iter()
            .flat_map(|c| c.attempts.iter().filter(|a| c.counts(a)))
    };
    let ok = counted().any(|a| a.outcome == Outcome::Ok);
    // Who cannot resolve the Service's name fails without an attempt on it.
    let unresolved = findings
        .iter()
        .any(|f| f.severity == Severity::Critical && f.basis == Basis::Observed);
    let failed = unresolved || counted().any(|a| a.outcome.is_failure());
    let suspected = findings
        .iter()
        .any(|f| f.severity == Severity::Critical && f.basis == Basis::Objects);
    match (ok, failed) {
        (false, true) => Verdict::Failing,
        (true, true) => Verdict::Degraded,
        // What reached a backend says nothing of a Service that leads to none.
        (_, false) if suspected => Verdict::Suspected,
        (true, false) => Verdict::Healthy,
        (false, false) => Verdict::NotEnoughEvidence,
    }
}

#[cfg(test)]
mod tests;
