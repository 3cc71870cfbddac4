//! Name resolution: a client whose queries fail never dials the Service.

use super::service::{self, full_name};
use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::codes;
use crate::explain::past::Past;
use crate::explain::report::{Found, Report};
use crate::explain::view::View;
use crate::model::answer::{Basis, Severity};
use crate::model::objects::Service;
use crate::model::query::{Query, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// DNS (RFC 1035).
const DOMAIN: u16 = 53;

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

/// Queries go to a DNS Service that has no endpoint.
pub fn no_endpoints(case: &Case<'_>, report: &mut Report) {
    for dns in resolvers(case) {
        queries(case, dns, |queries| {
            let mut own = Report {
                book: std::mem::take(&mut report.book),
                ..Report::default()
            };
            service::no_endpoints(queries, &mut own);
            report.book = own.book;
            for found in own.found {
                add(case, queries, "dns-no-endpoints", found, report);
            }
        });
    }
}

/// Other Services that answer DNS queries. One that is asked about itself is explained like every Service.
fn resolvers<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Service> {
    let resolves = |s: &&Service| s.ports.iter().any(|p| p.port == DOMAIN);
    let asked = resolves(&case.service);
    let all = case.objects.services.iter();
    all.filter(move |s| !asked && resolves(s))
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
    let mut past = Past::default();
    past.learn(case.objects, &query);
    look(&Case::new(
        &query,
        case.objects,
        &past,
        dns,
        case.views,
        case.identity,
    ));
}

/// Adds what was found of queries, as far as it concerns clients of the Service asked about.
fn add(case: &Case<'_>, queries: &Case<'_>, code: &'static str, found: Found, report: &mut Report) {
    let failing = found.attempts.iter().map(|i| &queries.attempts[*i]);
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
        basis: Basis::Observed,
        severity,
        attempts: Vec::new(),
        clients: names,
        summary,
        ..found
    });
}

fn standing(case: &Case<'_>, client: IpAddr) -> Standing {
    let dials = case.attempts.iter().any(|a| a.client() == client);
    match (&case.query.from, dials) {
        (Some(_), false) if !is_answered(case, client) => Standing::CutOff,
        (Some(_), _) | (None, true) => Standing::Client,
        (None, false) => Standing::Stranger,
    }
}

/// Some DNS server answers the client, in the cluster or elsewhere.
fn is_answered(case: &Case<'_>, client: IpAddr) -> bool {
    let sent = case.views.iter().flat_map(View::connections);
    let mut queries = sent.filter(|c| c.orig.src == client && c.orig.dport == DOMAIN);
    queries.any(|c| c.sights_towards(false).any(|s| !s.stats.flags.rst()))
}
