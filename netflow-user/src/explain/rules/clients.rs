//! Scope: where no cause explains it, which clients fail while others are served at the same endpoints.

use super::scope::{answered, is_its_doing, last_sight};
use super::service::full_name;
use crate::explain::attempt::{Attempt, Outcome};
use crate::explain::case::Case;
use crate::explain::endpoints::ZONE_LABEL;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Over, Report, Saying};
use crate::model::answer::{Basis, Via};
use crate::model::identity::Who;
use crate::model::shared::Name;
use crate::model::{Proto, Time, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Attempts on each side. With fewer chance alone, which hits whom it will, parts them as cleanly more often than once in
/// twenty: of six of which three fail there are twenty such parts.
const ENOUGH: u64 = 3;

/// Clients in all: of two, everything in which they differ parts them.
const CLIENTS: usize = 3;

/// Names told before "and others".
const NAMES: usize = 3;

/// Some clients fail, and others are served.
pub fn some_fail(case: &Case<'_>, report: &mut Report) {
    let scopes = scopes(case, report);
    let of = |a: &Attempt<'_>| scopes.iter().position(|s| s.holds(a));
    report.explain(
        case,
        "some-clients-fail",
        Basis::Observed,
        |a| {
            let n = of(a)?;
            let sight = last_sight(case, a).into_iter();
            let evidence: Vec<Draft> = sight
                .chain(case.translation(a))
                .map(|d| scopes[n].cited(d, a.client()))
                .collect();
            (!evidence.is_empty()).then(|| Because {
                key: n.to_string(),
                evidence,
            })
        },
        |hit| of(hit[0]).map_or_else(|| Saying::new(""), |n| scopes[n].saying(case, hit)),
    );
}

/// Attempts that can be compared: one port, by ways on which the same rules are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    via: Via,
    port: u16,
    proto: Proto,
    ipv6: bool,
}

impl Way {
    fn of(case: &Case<'_>, a: &Attempt<'_>) -> Option<Way> {
        let port = case.port_of_attempt(a).filter(|_| case.counts(a))?;
        // What came from a node that was not asked shows behind its translation.
        let via = if a.via == Via::Pod { Via::Vip } else { a.via };
        Some(Way {
            via,
            port: port.port,
            proto: port.proto,
            ipv6: a.orig.dst.is_ipv6(),
        })
    }
}

/// What a client is by, for one who looks for what others have in common with it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trait {
    Is(String),
    /// It has none: a Node is in no namespace.
    None,
    /// The objects do not tell.
    Unknown,
}

/// Asks for one, of an address at a time.
type Asked = fn(&Case<'_>, IpAddr, Time) -> Trait;

/// What is looked at, with words for whoever shares it.
const TRAITS: [(&str, Asked); 3] = [
    ("on node", node),
    ("in zone", zone),
    ("in namespace", namespace),
];

fn known(name: Option<&str>) -> Trait {
    name.map_or(Trait::Unknown, |n| Trait::Is(n.to_owned()))
}

fn node_name<'a>(case: &Case<'a>, ip: IpAddr, at: Time) -> Option<&'a str> {
    case.placed_on(ip, at).or_else(|| case.node_with(ip))
}

fn node(case: &Case<'_>, ip: IpAddr, at: Time) -> Trait {
    known(node_name(case, ip, at))
}

fn zone(case: &Case<'_>, ip: IpAddr, at: Time) -> Trait {
    let node = node_name(case, ip, at).and_then(|n| case.objects.node(n));
    known(
        node.and_then(|n| n.labels.get(ZONE_LABEL))
            .map(Name::as_str),
    )
}

fn namespace(case: &Case<'_>, ip: IpAddr, at: Time) -> Trait {
    match case.identity.holder(ip, at) {
        Some(who @ Who::Pod { .. }) => known(who.namespace()),
        Some(Who::Node(_)) => Trait::None,
        Some(Who::Service { .. }) | None if case.is_node_address(ip) => Trait::None,
        Some(Who::Service { .. }) | None => Trait::Unknown,
    }
}

/// How it went for one client.
struct Tally<'c, 'a> {
    at: Time,
    ok: Vec<&'c Attempt<'a>>,
    failed: Vec<&'c Attempt<'a>>,
    /// Some of its attempts have a cause.
    explained: bool,
}

fn weight(attempts: &[&Attempt<'_>]) -> u64 {
    attempts.iter().map(|a| a.weight).sum()
}

impl Tally<'_, '_> {
    fn is_served(&self) -> bool {
        weight(&self.ok) > weight(&self.failed) * 10
    }

    fn fails(&self) -> bool {
        weight(&self.failed) > weight(&self.ok) * 10
    }
}

/// Who fails and who does not.
struct Scope {
    /// Attempts that failed.
    failed: BTreeSet<(Tuple, Time)>,
    /// Clients that fail, with when they began.
    failing: BTreeMap<IpAddr, Time>,
    /// Clients that are served.
    served: BTreeMap<IpAddr, Time>,
    /// What all that fail share, and none of the others has.
    shared: Vec<(&'static str, String)>,
    /// Evidence that others are served.
    good: Vec<Draft>,
}

fn scopes(case: &Case<'_>, report: &Report) -> Vec<Scope> {
    if report.open(case).is_empty() {
        return Vec::new();
    }
    let mut ways: BTreeMap<Way, BTreeMap<IpAddr, Tally<'_, '_>>> = BTreeMap::new();
    for (i, a) in case.attempts.iter().enumerate() {
        let Some(way) = Way::of(case, a) else {
            continue;
        };
        let clients = ways.entry(way).or_default();
        let tally = clients.entry(a.client()).or_insert_with(|| Tally {
            at: a.began(),
            ok: Vec::new(),
            failed: Vec::new(),
            explained: false,
        });
        if a.outcome == Outcome::Ok {
            tally.ok.push(a);
        } else if report.broken.contains_key(&i) {
            tally.explained = true;
        } else if is_its_doing(a) {
            tally.failed.push(a);
        }
    }
    ways.values().filter_map(|c| scope(case, c)).collect()
}

fn scope(case: &Case<'_>, clients: &BTreeMap<IpAddr, Tally<'_, '_>>) -> Option<Scope> {
    let decided = |t: &Tally<'_, '_>| !t.ok.is_empty() || !t.failed.is_empty();
    let decided: Vec<_> = clients.iter().filter(|(_, t)| decided(t)).collect();
    let (failing, others): (Vec<_>, Vec<_>) = decided.into_iter().partition(|(_, t)| t.fails());
    // Who fails now and then is hit by something else, or by this for another reason than who it is.
    let clean = others.iter().all(|(_, t)| t.is_served());
    let causeless = failing.iter().all(|(_, t)| !t.explained);
    if failing.is_empty() || !clean || !causeless || failing.len() + others.len() < CLIENTS {
        return None;
    }
    let failed: Vec<&Attempt<'_>> = failing.iter().flat_map(|(_, t)| t.failed.clone()).collect();
    let ok: Vec<&Attempt<'_>> = others.iter().flat_map(|(_, t)| t.ok.clone()).collect();
    let met: Vec<Met> = ok.iter().map(|a| Met::of(case, a)).collect();
    let wanted: Vec<Wanted> = failed.iter().map(|a| Wanted::of(case, a)).collect();
    let (known, all): (BTreeSet<&Met>, BTreeSet<&Wanted>) =
        (met.iter().collect(), wanted.iter().collect());
    let failed_there: Vec<&Attempt<'_>> = std::iter::zip(&failed, &wanted)
        .filter(|(_, w)| known.iter().any(|m| w.fits(m)))
        .map(|(a, _)| *a)
        .collect();
    let served_there: Vec<&Attempt<'_>> = std::iter::zip(&ok, &met)
        .filter(|(_, m)| all.iter().any(|w| w.fits(m)))
        .map(|(a, _)| *a)
        .collect();
    if weight(&failed_there) < ENOUGH || weight(&served_there) < ENOUGH {
        return None;
    }
    let began = |of: &[(&IpAddr, &Tally<'_, '_>)]| of.iter().map(|(ip, t)| (**ip, t.at)).collect();
    let (failing, served): (BTreeMap<IpAddr, Time>, BTreeMap<IpAddr, Time>) =
        (began(&failing), began(&others));
    let shared: Vec<_> = TRAITS
        .iter()
        .filter_map(|(words, of)| {
            let of = |(ip, at): (&IpAddr, &Time)| of(case, *ip, *at);
            let value = told_apart(failing.iter().map(of), served.iter().map(of))?;
            Some((*words, value))
        })
        .collect();
    if shared.is_empty() && failing.len() > 1 {
        return None;
    }
    Some(Scope {
        failed: failed.iter().map(|a| (a.orig, a.began())).collect(),
        failing,
        served,
        shared,
        good: good(case, &served_there),
    })
}

/// The endpoint of an attempt, and whether the way there leads to another node, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Met {
    backend: Option<SocketAddr>,
    crosses: Option<bool>,
}

impl Met {
    fn of(case: &Case<'_>, a: &Attempt<'_>) -> Met {
        let crosses = |to: IpAddr| {
            let client = node_name(case, a.client(), a.began())?;
            Some(client != case.placed_on(to, a.began())?)
        };
        let backend = a.backend();
        Met {
            backend,
            crosses: backend.and_then(|b| crosses(b.ip())),
        }
    }
}

/// What must have served others, so that who asks is what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    met: Met,
    /// On as long a way: nothing came back, and what lies between the nodes would explain that.
    alike: bool,
}

impl Wanted {
    fn of(case: &Case<'_>, failed: &Attempt<'_>) -> Wanted {
        let met = Met::of(case, failed);
        Wanted {
            met,
            alike: !answered(failed) && met.crosses != Some(false),
        }
    }

    /// Where no endpoint was chosen any that serves will do.
    fn fits(&self, ok: &Met) -> bool {
        self.met.backend.is_none()
            || self.met.backend == ok.backend && (!self.alike || self.met.crosses == ok.crosses)
    }
}

/// What all that fail are and none of those served is.
fn told_apart(
    mut failing: impl Iterator<Item = Trait>,
    mut served: impl Iterator<Item = Trait>,
) -> Option<String> {
    let first = failing.next()?;
    let Trait::Is(value) = &first else {
        return None;
    };
    let apart = failing.all(|t| t == first) && served.all(|t| t != first && t != Trait::Unknown);
    apart.then(|| value.clone())
}

impl Scope {
    fn holds(&self, a: &Attempt<'_>) -> bool {
        self.failed.contains(&(a.orig, a.began()))
    }

    /// Evidence of those that fail, one piece for each client that is named.
    fn cited(&self, draft: Draft, client: IpAddr) -> Draft {
        let named = self.failing.keys().take(NAMES).any(|ip| *ip == client);
        let whose = if named {
            client.to_string()
        } else {
            "others".to_owned()
        };
        Draft {
            kind: format!("{} {whose}", draft.kind),
            ..draft
        }
    }

    fn saying(&self, case: &Case<'_>, hit: &[&Attempt<'_>]) -> Saying {
        let (names, others) = (called(case, &self.failing), called(case, &self.served));
        let first = hit[0];
        let port = case.port_of_attempt(first).map_or(0, |p| p.port);
        let how = if hit.iter().all(|a| a.outcome == first.outcome) {
            how(first.outcome, self.failing.len() == 1)
        } else if self.failing.len() == 1 {
            "fails"
        } else {
            "fail"
        };
        let summary = format!(
            "Of {} clients of {} port {port} only {names} {how}; the same endpoints serve {others}. {}",
            self.failing.len() + self.served.len(),
            full_name(case),
            self.told()
        );
        let all = self.failing.iter().chain(&self.served);
        let traits: Vec<String> = all.map(|(ip, at)| described(case, *ip, *at)).collect();
        let mut evidence = self.good.clone();
        evidence.push(Draft::objects("clients", traits.join("; ")));
        Saying {
            evidence,
            over: Over::ServedAgain,
            ..Saying::new(summary)
        }
    }

    /// What parts them, all of it: which of several matters is not known.
    fn told(&self) -> String {
        let traits: Vec<String> = self
            .shared
            .iter()
            .map(|(words, value)| format!("{words} {value}"))
            .collect();
        let traits = traits.join(" and ");
        match (self.failing.len(), self.shared.len()) {
            (1, 0) => "All that is told of it is true of one of them, too".to_owned(),
            (1, _) => {
                format!(
                    "It alone is {traits}: whether that matters, or which client it is, is not seen from here"
                )
            }
            (_, 1) => format!("Only these are {traits}"),
            _ => format!("Only these are {traits}: which of it matters is not seen from here"),
        }
    }
}

fn how(outcome: Outcome, single: bool) -> &'static str {
    match (outcome, single) {
        (Outcome::Reset, true) => "is reset after connecting",
        (Outcome::Reset, false) => "are reset after connecting",
        (Outcome::Refused, true) => "is refused",
        (Outcome::Refused, false) => "are refused",
        (Outcome::Stalled, true) => "gets stuck within its connections",
        (Outcome::Stalled, false) => "get stuck within their connections",
        (_, true) => "gets no answer",
        (_, false) => "get no answer",
    }
}

fn called(case: &Case<'_>, clients: &BTreeMap<IpAddr, Time>) -> String {
    let mut names: Vec<String> = clients.iter().map(|(ip, at)| case.name(*ip, *at)).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    let names = names.join(", ");
    if more == 0 {
        names
    } else {
        format!("{names} and {more} more")
    }
}

fn described(case: &Case<'_>, ip: IpAddr, at: Time) -> String {
    let traits = TRAITS
        .iter()
        .filter_map(|(words, of)| match of(case, ip, at) {
            Trait::Is(value) => Some(format!("{words} {value}")),
            Trait::None | Trait::Unknown => None,
        });
    let traits: Vec<String> = traits.collect();
    let name = case.name(ip, at);
    if traits.is_empty() {
        return format!("nothing is told of {name}");
    }
    format!("{name} is {}", traits.join(", "))
}

/// Evidence: other clients were served, one attempt of each of some.
fn good(case: &Case<'_>, served: &[&Attempt<'_>]) -> Vec<Draft> {
    let mut told: BTreeSet<IpAddr> = BTreeSet::new();
    let of = |a: &&Attempt<'_>| {
        let (part, backend) = (*a.parts.first()?, a.backend()?);
        let sights = part.conn.sights_towards(false);
        let sight = sights.min_by_key(|s| (s.stats.first, s.key))?;
        let client = case.name(a.client(), a.began());
        let text = format!("{} serves {client}", case.named(backend, a.began()));
        Some(case.sight(part, sight, &format!("good {client}"), text))
    };
    let first = served.iter().filter(|a| told.insert(a.client()));
    first.take(NAMES).filter_map(of).collect()
}
