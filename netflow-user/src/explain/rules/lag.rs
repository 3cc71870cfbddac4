//! kube-proxy that is behind: its rules follow the `EndpointSlices`, but late.

use super::agents::is_proxy_unhealthy;
use super::proxy::{
    are_rules_read, is_new, is_ruled_out, list, rules_draft, sent_to, untranslated,
};
use super::service::{dialled, full_name};
use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::endpoints::{self, Entry};
use crate::explain::evidence::Draft;
use crate::explain::past::PROXY_LAG;
use crate::explain::report::{Because, Over, Report, Saying};
use crate::explain::view::View;
use crate::model::answer::{Basis, Severity};
use crate::model::feed::Clock;
use crate::model::node::ProxyService;
use crate::model::objects::ServicePort;
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

/// kube-proxy tries again after so long when it failed to write its rules (`syncPeriod`, 30 s by default:
/// kubernetes/pkg/proxy/apis/config/v1alpha1/defaults.go, v1.36; `NewBoundedFrequencyRunner` in pkg/proxy/iptables/proxier.go).
/// Rules that are behind for longer are not late: they do not follow (`proxy-rules-stale`).
const RETRY: Duration = Duration::from_secs(30);

/// Connections, or the rules as they were read, show that a proxy followed a change of the slices later than proxies do
/// ([`PROXY_LAG`]), or has not yet.
pub fn behind(case: &Case<'_>, report: &mut Report) {
    let lags = lags(case);
    let code = "proxy-sync-lag";
    let mut of: HashMap<(Tuple, Time), usize> = HashMap::new();
    for (n, lag) in lags.iter().enumerate() {
        let attempts = lag.attempts.iter().map(|i| &case.attempts[*i]);
        of.extend(attempts.map(|a| ((a.orig, a.began()), n)));
    }
    let open: BTreeSet<usize> = report.open(case).into_iter().map(|(i, _)| i).collect();
    report.explain(
        case,
        code,
        Basis::Observed,
        |a| {
            let n = of.get(&(a.orig, a.began()))?;
            Some(Because {
                key: n.to_string(),
                evidence: lags[*n].shown_by(case, a),
            })
        },
        |hit| {
            let lag = of.get(&(hit[0].orig, hit[0].began()));
            lag.map_or_else(|| Saying::new(""), |n| lags[*n].saying(case))
        },
    );
    // Nobody is hurt where what was an endpoint still serves, or nobody dialled.
    for lag in lags
        .iter()
        .filter(|l| !l.attempts.iter().any(|i| open.contains(i)))
    {
        let mut saying = lag.saying(case);
        let attempts = lag.attempts.iter().map(|i| &case.attempts[*i]);
        saying
            .evidence
            .extend(attempts.flat_map(|a| lag.shown_by(case, a)));
        report.state(case, code, Basis::Inferred, Severity::Warning, saying);
    }
}

/// One change of the slices that the proxy of a node followed late.
struct Lag<'a> {
    /// Position of the recording.
    index: usize,
    view: &'a View,
    dialled: SocketAddr,
    proto: Proto,
    /// Former endpoints that still got connections; none: connections were turned away though there were endpoints.
    to: BTreeSet<SocketAddr>,
    /// When the objects told of the change.
    since: Time,
    /// Late attempts, whatever became of them, as positions in the case.
    attempts: Vec<usize>,
    /// Latest sign of it.
    latest: Time,
}

/// What tells changes apart: node, what is dialled, whether connections are turned away, and when.
type Key = (usize, SocketAddr, Proto, bool, Time);

fn lags<'a>(case: &Case<'a>) -> Vec<Lag<'a>> {
    if case.past.since(Time::default()).len() < 2 {
        return Vec::new();
    }
    let mut timelines = Timelines::default();
    let mut lags: BTreeMap<Key, Lag<'a>> = BTreeMap::new();
    for (i, a) in case.attempts.iter().enumerate() {
        let Some((since, to)) = late(case, &mut timelines, a) else {
            continue;
        };
        let (index, dialled) = (a.parts[0].view, a.orig.destination());
        let lag = at(
            case,
            &mut lags,
            (index, dialled, a.orig.proto, to.is_none(), since),
        );
        lag.to.extend(to);
        lag.attempts.push(i);
        lag.latest = lag.latest.max(a.began());
    }
    for (index, view) in case.views.iter().enumerate() {
        listed(case, &mut timelines, &mut lags, (index, view));
    }
    lags.into_values().filter(|l| l.is_late(case)).collect()
}

fn at<'m, 'a>(case: &Case<'a>, lags: &'m mut BTreeMap<Key, Lag<'a>>, key: Key) -> &'m mut Lag<'a> {
    let (index, dialled, proto, _, since) = key;
    lags.entry(key).or_insert_with(|| Lag {
        index,
        view: &case.views[index],
        dialled,
        proto,
        to: BTreeSet::new(),
        since,
        attempts: Vec::new(),
        latest: since,
    })
}

/// Since when the proxy should have known better, and the former endpoint that it chose for a new connection.
fn late(
    case: &Case<'_>,
    timelines: &mut Timelines,
    a: &Attempt<'_>,
) -> Option<(Time, Option<SocketAddr>)> {
    let port = case.port_of_attempt(a).filter(|_| !a.is_direct())?;
    let node = case.proxy_node(a);
    let timeline = timelines.of(case, port, a.orig.dst.is_ipv6(), case.entry(a), node);
    if let Some(ct) = a.nat().filter(CtTuples::is_dnat) {
        let to = ct.translated().destination();
        let since = timeline.left(a.began(), |chosen| chosen.contains(&to))?;
        return is_new(a, &ct).then_some((since, Some(to)));
    }
    let since = timeline.left(a.began(), BTreeSet::is_empty)?;
    untranslated(case, a, was_ruled_out)?;
    Some((since, None))
}

/// The rules, as they were read last or when we began, translate nothing.
fn was_ruled_out(a: &Attempt<'_>) -> bool {
    let before = |view: &View| {
        let rows = view.before.iter().flat_map(|f| &f.proxy.services);
        let mut own = rows.filter(|r| is_for(r, a.orig.destination(), a.orig.proto));
        own.all(|r| r.backends.is_empty()) && view.before.is_some()
    };
    is_ruled_out(a) || a.parts.first().is_some_and(|p| before(p.node))
}

fn is_for(row: &ProxyService, to: SocketAddr, proto: Proto) -> bool {
    row.ip.is_none_or(|ip| ip == to.ip()) && row.port == to.port() && row.proto == proto
}

/// What the rules of a node, as they were read last, still list or still turn away.
fn listed<'a>(
    case: &Case<'a>,
    timelines: &mut Timelines,
    lags: &mut BTreeMap<Key, Lag<'a>>,
    (index, view): (usize, &'a View),
) {
    let Some(facts) = &view.facts else { return };
    let node = case.proxy_name(view);
    for (ip, port) in case
        .service
        .cluster_ips
        .iter()
        .flat_map(|ip| case.service.ports.iter().map(move |p| (*ip, p)))
    {
        let timeline = timelines.of(case, port, ip.is_ipv6(), Entry::Internal, node);
        for row in view.proxy(ip, port.port, port.proto) {
            let former = row.backends.iter().filter_map(|to| {
                let since = timeline.left(facts.time, |chosen| chosen.contains(to))?;
                Some((since, Some(*to)))
            });
            let refused = || timeline.left(facts.time, BTreeSet::is_empty);
            let refused = row.backends.is_empty().then(refused).flatten();
            for (since, to) in former.chain(refused.map(|since| (since, None))) {
                let dialled = SocketAddr::new(ip, port.port);
                let lag = at(
                    case,
                    lags,
                    (index, dialled, port.proto, to.is_none(), since),
                );
                lag.to.extend(to);
                lag.latest = lag.latest.max(facts.time);
            }
        }
    }
}

impl Lag<'_> {
    /// It is late and no more: a proxy that is out of order, or has had the time to try again, does not follow at all.
    fn is_late(&self, case: &Case<'_>) -> bool {
        let young = self.view.now.since(self.since) <= RETRY;
        let late = self.follows(case).is_some_and(|follows| follows || young);
        let by = self.latest.since(self.since);
        late && by > PROXY_LAG + apart(case, self.view)
            && !is_proxy_unhealthy(case.objects, self.view.name())
    }

    /// Whether the rules follow by now; `None` = that was not read, or not after the latest connection.
    fn follows(&self, case: &Case<'_>) -> Option<bool> {
        let rows = self
            .view
            .proxy(self.dialled.ip(), self.dialled.port(), self.proto);
        if rows.is_empty() && !are_rules_read(self.view) {
            return None;
        }
        let mut backends = rows.iter().flat_map(|r| &r.backends);
        let is_behind = if self.to.is_empty() {
            backends.next().is_none()
        } else {
            backends.any(|b| self.to.contains(b))
        };
        let read = self.view.facts.as_ref()?.time;
        let mut began = self.attempts.iter().map(|i| case.attempts[*i].began());
        (is_behind || began.all(|t| t < read)).then_some(!is_behind)
    }

    /// Evidence: the late choice, or that there was none.
    fn shown_by(&self, case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
        if self.to.is_empty() {
            return untranslated(case, a, was_ruled_out).unwrap_or_default();
        }
        let mut evidence = sent_to(case, a);
        evidence.extend(dialled(case, a));
        evidence
    }

    fn saying(&self, case: &Case<'_>) -> Saying {
        let (node, service) = (self.view.name(), full_name(case));
        let late = self.latest.since(self.since).as_secs_f64();
        let follows = self.follows(case) == Some(true);
        let now = if follows {
            "its rules follow by now"
        } else {
            "its rules still do not follow"
        };
        let dialled = self.dialled;
        let (summary, change) = if self.to.is_empty() {
            (
                format!(
                    "{node} is late: {late:.1} s after EndpointSlices of {service} had an endpoint for it, it turned new connections for {dialled} away; {now}"
                ),
                format!("EndpointSlices of {service} have endpoints again"),
            )
        } else {
            let (to, change) = (self.named(case), self.change(case));
            (
                format!(
                    "{node} is late: {late:.1} s after EndpointSlices of {service} {change} {to}, it sent new connections for {dialled} there; {now}"
                ),
                format!("EndpointSlices of {service} {change} {to}"),
            )
        };
        let mut changed = Draft::objects(format!("change {}", self.since.0), change);
        changed.time = Some(self.since);
        let read = rules_of(self, case);
        let last = self.attempts.iter().map(|i| case.attempts[*i].last());
        Saying {
            evidence: std::iter::once(changed).chain(read).collect(),
            values: vec![("client_node", node.to_owned())],
            over: Over::Known(last.max().filter(|_| follows)),
            ..Saying::new(summary)
        }
    }

    /// As they were called while they were endpoints.
    fn named(&self, case: &Case<'_>) -> String {
        let before = Time(self.since.0.saturating_sub(1));
        let names = self.to.iter().map(|to| case.named(*to, before));
        list(&names.collect())
    }

    /// What the slices did with the first of them.
    fn change(&self, case: &Case<'_>) -> &'static str {
        let (objects, _) = case.then(self.since);
        let slices = objects.slices.iter().flat_map(|s| &s.endpoints);
        let ip = self.to.first().map(SocketAddr::ip);
        let mut own = slices.filter(|e| ip.is_some_and(|ip| e.addresses.contains(&ip)));
        match own.next() {
            None => "had dropped",
            Some(e) if e.terminating => "had marked as terminating",
            Some(_) => "had marked as not ready",
        }
    }
}

/// How far the node's clock may be from that of another that told of the objects, as far as they were measured.
fn apart(case: &Case<'_>, view: &View) -> Duration {
    let Some(own) = view.clock else {
        return Duration::ZERO;
    };
    let from = |other: Clock| {
        let ahead = other.ahead.abs_diff(own.ahead);
        Duration::from_nanos(ahead.saturating_add(other.within))
    };
    let others = case.views.iter().filter_map(|v| v.clock.map(from));
    others.max().unwrap_or_default()
}

/// Evidence: the rules as they were read last.
fn rules_of(lag: &Lag<'_>, case: &Case<'_>) -> Option<Draft> {
    if let Some(a) = lag.attempts.first().map(|i| &case.attempts[*i]) {
        return rules_draft(a);
    }
    let rows = lag
        .view
        .proxy(lag.dialled.ip(), lag.dialled.port(), lag.proto);
    let to: BTreeSet<&SocketAddr> = rows.iter().flat_map(|r| &r.backends).collect();
    let to = if to.is_empty() {
        "none".to_owned()
    } else {
        list(&to)
    };
    let text = format!("backends in the rules for {}: {to}", lag.dialled);
    Some(Draft::of_node(lag.index, lag.view, "rules", text))
}

/// What a proxy chooses from for one port, version by version of the objects.
struct Timeline(Vec<(Time, BTreeSet<SocketAddr>)>);

impl Timeline {
    /// When what `held` says ceased to be true, where that was longer before `at` than proxies need. What tells of the
    /// objects may itself be behind the proxy, so it must not come true again after `at` either.
    fn left(&self, at: Time, held: impl Fn(&BTreeSet<SocketAddr>) -> bool) -> Option<Time> {
        let Timeline(versions) = self;
        let now = versions.partition_point(|(time, _)| *time <= at);
        let last = versions[..now].iter().rposition(|(_, set)| held(set))?;
        let (since, _) = versions[..now].get(last + 1)?;
        let again = versions[now..].iter().any(|(_, set)| held(set));
        (!again && *since + PROXY_LAG < at).then_some(*since)
    }
}

/// Timelines by port, family, traffic policy and node.
#[derive(Default)]
struct Timelines(HashMap<(u16, Proto, bool, Entry, Option<String>), Timeline>);

impl Timelines {
    fn of(
        &mut self,
        case: &Case<'_>,
        port: &ServicePort,
        ipv6: bool,
        entry: Entry,
        node: Option<&str>,
    ) -> &Timeline {
        let key = (port.port, port.proto, ipv6, entry, node.map(str::to_owned));
        self.0.entry(key).or_insert_with(|| {
            let versions = case.past.since(Time::default()).iter();
            let choice = versions.map(|o| {
                let service = o.services.first().unwrap_or(case.service);
                let usable = endpoints::usable(o, service, port, ipv6, entry, node);
                let chosen = endpoints::ready_else_draining(usable).backends;
                (o.time, chosen.iter().map(|b| b.address).collect())
            });
            Timeline(choice.collect())
        })
    }
}
