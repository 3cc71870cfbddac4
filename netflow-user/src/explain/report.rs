//! What the rules have found so far, and which attempts are explained.

use super::attempt::{Attempt, Outcome};
use super::case::Case;
use super::codes::{self, Code};
use super::evidence::{Book, Draft, Handle};
use crate::flows::Cite;
use crate::model::Time;
use crate::model::answer::{Affected, Basis, Check, Finding, Fix, Hop, Severity};
use crate::model::objects::Labels;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// What a node was read to be holds for what happened so shortly before: a look reads it about as often.
const PRESENT: Duration = Duration::from_secs(5);

/// A finding before its evidence has ids.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its code.
    pub code: &'static Code,
    /// What it rests on.
    pub basis: Basis,
    /// Severity, the code's own unless a rule knows better.
    pub severity: Severity,
    /// Attempts it explains, as positions in the case, ascending.
    pub attempts: Vec<usize>,
    /// Clients that it hits before they dial the Service.
    pub clients: BTreeSet<String>,
    /// One sentence.
    pub summary: String,
    /// Evidence.
    pub evidence: Vec<Handle>,
    /// Values for the templates of commands.
    pub values: Vec<(&'static str, String)>,
    /// Ways out that know the concrete case, before the code's own.
    pub fixes: Vec<Fix>,
    /// What shows that it is over.
    pub over: Over,
}

/// What shows that a finding is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// Of the same address, and of the same backend where one had been chosen, a later attempt was served.
    #[default]
    Served,
    /// The same, of a client that it hit: others are served all the time.
    ServedAgain,
    /// The rule knows its last sign; `None` = it is not over.
    Known(Option<Time>),
}

/// Collects findings. An attempt has one cause: the first rule that explains it keeps it.
#[derive(Debug, Default)]
pub struct Report {
    /// Evidence of all findings.
    pub book: Book,
    /// Findings, unranked.
    pub found: Vec<Found>,
    /// Hop at which each explained attempt broke.
    pub broken: BTreeMap<usize, (Hop, Vec<Handle>)>,
}

/// What a rule says of one attempt: attempts with the same `key` are one finding.
pub struct Because {
    /// What tells findings of one code apart.
    pub key: String,
    /// Records of this attempt.
    pub evidence: Vec<Draft>,
}

/// What a rule says of all attempts with one key.
pub struct Saying {
    /// One sentence.
    pub summary: String,
    /// Evidence that is not of one attempt: objects, facts of a node.
    pub evidence: Vec<Draft>,
    /// Values for templates beyond the usual ones.
    pub values: Vec<(&'static str, String)>,
    /// Ways out that know the concrete case.
    pub fixes: Vec<Fix>,
    /// What shows that it is over.
    pub over: Over,
}

impl Saying {
    /// A sentence alone.
    pub fn new(summary: impl Into<String>) -> Saying {
        Saying {
            summary: summary.into(),
            evidence: Vec::new(),
            values: Vec::new(),
            fixes: Vec::new(),
            over: Over::default(),
        }
    }
}

impl Report {
    /// Failing attempts that no rule has explained yet.
    pub fn open<'c, 'a>(&self, case: &'c Case<'a>) -> Vec<(usize, &'c Attempt<'a>)> {
        let open = |i: &usize| !self.broken.contains_key(i);
        case.attempts
            .iter()
            .enumerate()
            .filter(|(i, a)| open(i) && a.outcome.is_failure())
            .collect()
    }

    /// Runs a rule over the open attempts: `because` says whether it explains one, `saying` words the finding for all
    /// that share a key. The finding is `basis` and its attempts are explained.
    pub fn explain<'a>(
        &mut self,
        case: &Case<'a>,
        code: &'static str,
        basis: Basis,
        because: impl Fn(&Attempt<'a>) -> Option<Because>,
        saying: impl Fn(&[&Attempt<'a>]) -> Saying,
    ) {
        let Some(code) = codes::find(code) else {
            return;
        };
        let mut groups: BTreeMap<String, Vec<(usize, Vec<Draft>)>> = BTreeMap::new();
        for (i, attempt) in self.open(case) {
            if let Some(Because { key, evidence }) = because(attempt) {
                groups.entry(key).or_default().push((i, evidence));
            }
        }
        for members in groups.into_values() {
            let attempts: Vec<&Attempt<'a>> =
                members.iter().map(|(i, _)| &case.attempts[*i]).collect();
            let Saying {
                mut summary,
                evidence,
                mut values,
                fixes,
                over,
            } = saying(&attempts);
            let drafts = members.iter().flat_map(|(_, own)| own).chain(&evidence);
            let later = read_later(case, &attempts, drafts);
            let basis = later.map_or(basis, |_| basis.max(Basis::Inferred));
            if let Some(read) = later {
                summary = format!(
                    "{summary}; the node was read at {read}, and may have been otherwise then"
                );
            }
            values.extend(usual_values(case, attempts.first().copied()));
            let mut handles = Distinct::default();
            let mut indexes = Vec::new();
            for (i, drafts) in members {
                let own: Vec<Handle> = drafts.into_iter().map(|d| self.book.add(d)).collect();
                handles.add(&own);
                self.broken.insert(i, (code.hop, own));
                indexes.push(i);
            }
            let extra: Vec<Handle> = evidence.into_iter().map(|d| self.book.add(d)).collect();
            handles.add(&extra);
            self.found.push(Found {
                code,
                basis,
                severity: code.severity,
                attempts: indexes,
                clients: BTreeSet::new(),
                summary,
                evidence: handles.all,
                values,
                fixes,
                over,
            });
        }
    }

    /// Adds a finding that explains no single attempt.
    pub fn state(
        &mut self,
        case: &Case<'_>,
        code: &'static str,
        basis: Basis,
        severity: Severity,
        saying: Saying,
    ) {
        let Some(code) = codes::find(code) else {
            return;
        };
        let Saying {
            summary,
            evidence,
            mut values,
            fixes,
            over,
        } = saying;
        values.extend(usual_values(case, None));
        let evidence = evidence.into_iter().map(|d| self.book.add(d)).collect();
        self.found.push(Found {
            code,
            basis,
            severity,
            attempts: Vec::new(),
            clients: BTreeSet::new(),
            summary,
            evidence,
            values,
            fixes,
            over,
        });
    }

    /// Ranks: critical first, then what was observed, then the first broken hop, then the number of attempts.
    pub fn rank(&mut self) {
        self.found.sort_by_key(|f| {
            (
                f.severity,
                f.basis,
                f.code.hop,
                usize::MAX - f.attempts.len(),
                f.code.code,
                f.summary.clone(),
            )
        });
    }

    /// Handles in the order in which findings cite them.
    pub fn cited(&self) -> Vec<Handle> {
        let mut all = Distinct::default();
        for f in &self.found {
            all.add(&f.evidence);
        }
        all.all
    }
}

impl Found {
    /// As the answer shows it.
    pub fn finding(
        &self,
        case: Option<&Case<'_>>,
        context: &str,
        ids: &BTreeMap<Handle, String>,
        book_times: &[Option<Time>],
    ) -> Finding {
        let values: Vec<(&str, &str)> = self.values.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let fill = |t: &str| codes::fill(t, context, &values);
        let check = self
            .code
            .check
            .iter()
            .map(|c| Check {
                text: fill(c.text),
                command: fill(c.command),
            })
            .collect();
        let general = self.code.mitigate.iter().map(|m| Fix {
            text: fill(m.text),
            command: fill(m.command),
            changes: m.changes,
        });
        Finding {
            code: self.code.code,
            severity: self.severity,
            basis: self.basis,
            hop: self.code.hop,
            from: book_times.iter().copied().flatten().min(),
            until: case.and_then(|c| self.until(c)),
            affected: case.map(|c| self.affected(c)).unwrap_or_default(),
            summary: self.summary.clone(),
            evidence: self
                .evidence
                .iter()
                .filter_map(|h| ids.get(h).cloned())
                .collect(),
            check,
            fix: self.fixes.iter().cloned().chain(general).collect(),
            confusable: self.code.confusable.to_vec(),
        }
    }

    /// Last sign of it, where it is over.
    fn until(&self, case: &Case<'_>) -> Option<Time> {
        if let Over::Known(until) = self.over {
            return until;
        }
        let mine = || self.attempts.iter().map(|i| &case.attempts[*i]);
        let latest = mine().map(Attempt::began).max()?;
        // Where the port was wrong, a later attempt is served at another one.
        let backend = |a: &Attempt<'_>| a.backend().map(|b| b.ip());
        let hit: BTreeSet<_> = mine().map(|a| (a.orig.destination(), backend(a))).collect();
        let clients: BTreeSet<IpAddr> = mine().map(Attempt::client).collect();
        let same = |a: &Attempt<'_>| {
            let to = a.orig.destination();
            let of_client = self.over == Over::Served || clients.contains(&a.client());
            of_client && (hit.contains(&(to, None)) || hit.contains(&(to, backend(a))))
        };
        let served = |a: &&Attempt<'_>| a.outcome == Outcome::Ok && a.began() > latest && same(a);
        case.attempts.iter().find(served)?;
        mine().map(Attempt::last).max()
    }

    fn affected(&self, case: &Case<'_>) -> Affected {
        let mine = || self.attempts.iter().map(|i| &case.attempts[*i]);
        let dialling = mine().map(|a| case.name(a.client(), a.began()));
        let clients: BTreeSet<String> = dialling.chain(self.clients.iter().cloned()).collect();
        let backends: BTreeSet<String> = mine()
            .filter_map(|a| a.backend().map(|b| case.backend_name(b.ip(), a.began())))
            .collect();
        // Direct attempts are no attempts on the Service, unless the same cause hits them.
        let of = case
            .attempts
            .iter()
            .enumerate()
            .filter(|(i, a)| case.counts(a) || self.attempts.binary_search(i).is_ok());
        Affected {
            attempts: mine().map(|a| a.weight).sum(),
            of: of.map(|(_, a)| a.weight).sum(),
            clients: clients.into_iter().collect(),
            backends: backends.into_iter().collect(),
        }
    }
}

/// Where a node tells of the past: when it was read, if that is evidence here, and all of these attempts were over long before.
fn read_later<'d>(
    case: &Case<'_>,
    attempts: &[&Attempt<'_>],
    mut drafts: impl Iterator<Item = &'d Draft>,
) -> Option<Time> {
    let telling = case.views.iter().filter(|v| v.start.kept.is_some());
    let read = telling
        .filter_map(|v| v.facts.as_ref())
        .map(|f| f.time)
        .max()?;
    let over = attempts.iter().map(|a| a.last()).max()?;
    let cited = drafts.any(|d| d.cites.contains(&Cite::Node));
    (cited && read.since(over) > PRESENT).then_some(read)
}

/// Handles in the order in which they came, each once.
#[derive(Default)]
struct Distinct {
    all: Vec<Handle>,
    known: HashSet<Handle>,
}

impl Distinct {
    fn add(&mut self, more: &[Handle]) {
        for h in more {
            if self.known.insert(*h) {
                self.all.push(*h);
            }
        }
    }
}

/// Values that every template may use.
fn usual_values(case: &Case<'_>, attempt: Option<&Attempt<'_>>) -> Vec<(&'static str, String)> {
    let service = case.service;
    let selector = service.selector.iter();
    let selector = selector
        .flat_map(Labels::iter)
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",");
    let mut values = vec![
        ("ns", service.namespace.clone()),
        ("svc", service.name.clone()),
        ("selector", selector),
        (
            "vip",
            service
                .cluster_ips
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        ("l4", "tcp".to_owned()),
    ];
    let Some(attempt) = attempt else {
        return values;
    };
    let at = attempt.began();
    values.retain(|(k, _)| *k != "l4" && *k != "vip");
    values.push(("vip", attempt.orig.dst.to_string()));
    values.push(("l4", attempt.orig.proto.to_string().to_ascii_lowercase()));
    if let Some(who) = case.identity.who(attempt.client(), at) {
        values.push(("client", who.name().to_owned()));
        values.push(("client_ns", who.namespace().unwrap_or_default().to_owned()));
        values.push(("client_node", who.node().unwrap_or_default().to_owned()));
    }
    if let Some(backend) = attempt.backend() {
        values.push(("pod_ip", backend.ip().to_string()));
        values.push(("target_port", backend.port().to_string()));
        if let Some(who) = case.identity.who(backend.ip(), at) {
            let pod = case.backend_pod(backend.ip()).map(|p| p.name.as_str());
            values.push(("pod", pod.unwrap_or(who.name()).to_owned()));
            values.push(("node", who.node().unwrap_or_default().to_owned()));
        }
    }
    values
}
