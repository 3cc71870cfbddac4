//! Name resolution: a client whose queries fail never dials the Service.

use super::beyond::{self, left, sent_draft};
use super::service::{self, dialled, full_name};
use super::{Rule, filter};
use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::codes;
use crate::explain::datagrams::DOMAIN;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Found, Report, Saying};
use crate::explain::view::View;
use crate::flows::Connection;
use crate::model::Time;
use crate::model::answer::{Basis, Severity, Via};
use crate::model::objects::Service;
use crate::model::query::{From, Query, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What is known of a client whose queries fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It sends queries; whether it is a client of the Service asked about is not known.
    Stranger,
    /// It is one, and has the Service's address or resolves elsewhere.
    Client,
    /// It was asked for, nobody answers its queries, and it never dialled the Service.
    CutOff,
}

/// Rules that say, by what became of a packet alone, why a query that has an endpoint is not answered.
const CAUSES: [Rule; 4] = [
    filter::policy_denied,
    filter::firewall_reject,
    filter::firewall_drop,
    beyond::node_down,
];

/// Queries to another Service that answers DNS fail: it has no endpoint, or none that answers.
pub fn unresolved(case: &Case<'_>, report: &mut Report) {
    for dns in resolvers(case) {
        queries(case, dns, |queries| {
            let mut own = Report {
                book: std::mem::take(&mut report.book),
                ..Report::default()
            };
            service::no_endpoints(queries, &mut own);
            let lacking = std::mem::take(&mut own.found);
            for rule in CAUSES {
                rule(queries, &mut own);
            }
            let known = known(queries, &own);
            unanswered(queries, &known, &mut own);
            report.book = own.book;
            for (code, all) in [("dns-no-endpoints", lacking), ("dns-timeout", own.found)] {
                for found in all {
                    add(case, queries, code, found, report);
                }
            }
        });
    }
}

/// Clients, and endpoints that their queries do not reach for a reason that is known.
type Known = BTreeSet<(IpAddr, SocketAddr)>;

fn known(case: &Case<'_>, report: &Report) -> Known {
    let open: BTreeSet<usize> = report.open(case).into_iter().map(|(i, _)| i).collect();
    let failing = case.attempts.iter().enumerate();
    failing
        .filter(|(i, a)| a.outcome.is_failure() && !open.contains(i))
        .filter_map(|(_, a)| Some((a.client(), a.backend()?)))
        .collect()
}

/// Queries are not answered, though there are endpoints for them, and nothing is known of why.
fn unanswered(case: &Case<'_>, known: &Known, report: &mut Report) {
    report.explain(
        case,
        "dns-timeout",
        Basis::Observed,
        |a| {
            let port = case.port_of_attempt(a).filter(|p| p.port == DOMAIN)?;
            // What became of this one was not seen, as before all was attached: it is what became of the others.
            if a.backend()
                .is_some_and(|to| known.contains(&(a.client(), to)))
            {
                return None;
            }
            let served = a.via == Via::Vip && case.has_choice(a, port);
            let mut evidence: Vec<Draft> =
                dialled(case, a).filter(|_| served).into_iter().collect();
            if evidence.is_empty() {
                return None;
            }
            evidence.extend(case.translation(a));
            evidence.extend(left(case, a).map(|(part, sight)| sent_draft(a, case, part, sight)));
            Some(Because {
                key: a.is_translated().to_string(),
                evidence,
            })
        },
        |of| {
            let to = of[0].orig.destination();
            let endpoints: BTreeSet<String> = of
                .iter()
                .filter_map(|a| Some(case.named(a.backend()?, a.began())))
                .collect();
            let what = if endpoints.is_empty() {
                "and are translated to none of its endpoints".to_owned()
            } else {
                let endpoints: Vec<String> = endpoints.into_iter().collect();
                format!("though they are sent to {}", endpoints.join(", "))
            };
            Saying::new(format!(
                "queries to {} ({to}) get no answer, {what}",
                full_name(case)
            ))
        },
    );
}

/// Other Services that were sent DNS queries of which not all have an answer. One that is asked about itself is explained
/// like every Service.
fn resolvers<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Service> {
    let resolves = |s: &Service| s.ports.iter().any(|p| p.port == DOMAIN);
    let asked = resolves(case.service);
    let sent = case.views.iter().flat_map(View::connections);
    let waits = |c: &&Connection| {
        let answered = latest(c, false);
        answered.is_none() || latest(c, true) > answered
    };
    let waiting = sent.filter(|c| c.orig.dport == DOMAIN).filter(waits);
    let to: BTreeSet<IpAddr> = waiting.map(|c| c.orig.dst).collect();
    let all = case.objects.services.iter();
    all.filter(move |s| !asked && resolves(s) && s.cluster_ips.iter().any(|ip| to.contains(ip)))
}

/// When the latest packet of a query was seen, or of what answers it.
fn latest(conn: &Connection, query: bool) -> Option<Time> {
    let packets = conn.sights_towards(query).map(|s| &s.stats);
    packets.filter(|s| !s.flags.rst()).map(|s| s.last).max()
}

/// Looks at what was sent to a DNS Service by the clients asked for.
fn queries(case: &Case<'_>, dns: &Service, look: impl FnOnce(&Case<'_>)) {
    let Some(vip) = dns.cluster_ips.first() else {
        return;
    };
    let query = Query {
        target: Target::Address(*vip),
        port: Some(DOMAIN),
        ..case.query.clone()
    };
    let Some(past) = case.past.of_resolver(*vip) else {
        return;
    };
    look(&Case::new(
        &query,
        case.objects,
        past,
        dns,
        case.views,
        case.identity,
    ));
}

/// Adds what was found of queries, as far as it concerns clients of the Service asked about.
fn add(case: &Case<'_>, queries: &Case<'_>, code: &'static str, found: Found, report: &mut Report) {
    let failing = found.attempts.iter().map(|i| &queries.attempts[*i]);
    let failing = failing.filter(|a| queries.counts(a));
    let clients: BTreeMap<IpAddr, &Attempt<'_>> = failing.map(|a| (a.client(), a)).collect();
    let standings = clients.keys().map(|ip| standing(case, *ip));
    let (Some(code), Some(most)) = (codes::find(code), standings.max()) else {
        return;
    };
    // Where the Service is seen at work, queries of others are no matter of its clients.
    if most == Standing::Stranger && !case.attempts.is_empty() {
        return;
    }
    let concerned = clients
        .iter()
        .filter(|(ip, _)| standing(case, **ip) == most);
    let names: BTreeSet<String> = concerned
        .map(|(ip, a)| queries.name(*ip, a.began()))
        .collect();
    let service = full_name(case);
    let (severity, so) = match most {
        Standing::CutOff => (
            Severity::Critical,
            format!("; nothing of theirs is sent to {service}"),
        ),
        Standing::Client => (Severity::Warning, String::new()),
        Standing::Stranger => (
            Severity::Info,
            format!("; whether they are clients of {service} is not known (--from names clients)"),
        ),
    };
    let summary = format!(
        "DNS queries of {} fail: {}{so}",
        names.iter().cloned().collect::<Vec<_>>().join(", "),
        found.summary
    );
    report.found.push(Found {
        code,
        // That queries fail is seen, whatever is only concluded of why.
        basis: Basis::Observed,
        severity,
        attempts: Vec::new(),
        clients: names,
        summary,
        ..found
    });
}

fn standing(case: &Case<'_>, client: IpAddr) -> Standing {
    // Whatever port is asked about: who dials another one has the Service's address.
    let to =
        |c: &Connection| c.orig.src == client && case.addresses().any(|(ip, _)| ip == c.orig.dst);
    let dials = case.attempts.iter().any(|a| a.client() == client)
        || case.views.iter().flat_map(View::connections).any(to);
    // What a client sends shows on its own node alone.
    let is_seen = case.views.iter().any(|v| case.is_local(v, client));
    // Of a namespace or a node not everybody is a client; where nobody dials the Service, that is what keeps them from it.
    let named = matches!(
        case.query.from,
        Some(From::Pod(..) | From::Deploy(..) | From::Ip(_))
    );
    let asked = named || case.query.from.is_some() && case.attempts.is_empty();
    match (asked, dials) {
        (true, false) if is_seen && !is_answered(case, client) => Standing::CutOff,
        (_, true) => Standing::Client,
        (true, false) if named => Standing::Client,
        (_, false) => Standing::Stranger,
    }
}

/// Some DNS server answers the client, in the cluster or elsewhere.
fn is_answered(case: &Case<'_>, client: IpAddr) -> bool {
    let sent = case.views.iter().flat_map(View::connections);
    let mut queries = sent.filter(|c| c.orig.src == client && c.orig.dport == DOMAIN);
    queries.any(|c| latest(c, false).is_some())
}
