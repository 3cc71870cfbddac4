//! What a Service's type promises and does not, whoever dials it.

use super::service::full_name;
use crate::explain::attempt::Outcome;
use crate::explain::case::Case;
use crate::explain::codes;
use crate::explain::evidence::Draft;
use crate::explain::lack;
use crate::explain::report::{Report, Saying};
use crate::model::answer::{Basis, Severity};
use crate::model::objects::{Service, ServicePort, TargetPort};
use crate::model::query::From;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A Service of type ExternalName is a DNS alias: there is no path to walk.
pub fn external_name(case: &Case<'_>, report: &mut Report) {
    let Some(name) = &case.service.external_name else {
        return;
    };
    let service = full_name(case);
    // Kubernetes takes digits for a name as well, which no DNS server resolves
    // (<https://kubernetes.io/docs/concepts/services-networking/service/#externalname>).
    let (severity, what) = if name.parse::<IpAddr>().is_ok() {
        let what = format!(
            "an alias for {name}, which DNS takes for a name made of digits and does not resolve"
        );
        (Severity::Critical, what)
    } else {
        (
            own_severity("external-name-is-dns"),
            format!("an alias for {name}"),
        )
    };
    let summary = format!(
        "Service {service} is only a DNS name, {what}: it has no address, and nothing proxies or balances what is sent \
         to it{}",
        untranslated(case.service)
    );
    let text = format!("Service {service}: type ExternalName, externalName {name}");
    let saying = Saying {
        evidence: vec![Draft::objects("external name", text)],
        values: vec![("external_name", name.clone())],
        ..Saying::new(summary)
    };
    report.state(
        case,
        "external-name-is-dns",
        Basis::Objects,
        severity,
        saying,
    );
}

/// Ports that somebody expects to be translated.
fn untranslated(service: &Service) -> String {
    let moved = |p: &&ServicePort| p.target != TargetPort::Number(p.port);
    service
        .ports
        .iter()
        .find(moved)
        .map_or_else(String::new, |p| {
            format!("; its port {} is not turned into {}", p.port, p.target)
        })
}

/// No load balancer has taken the Service up.
pub fn load_balancer_pending(case: &Case<'_>, report: &mut Report) {
    let pending = case.service.load_balancer.as_ref();
    let Some(balancer) = pending.filter(|lb| !lb.assigned) else {
        return;
    };
    let service = full_name(case);
    let who = match &balancer.class {
        Some(class) => format!(
            "only a controller for loadBalancerClass {class} gives it one, and none has so far"
        ),
        None => "no load-balancer controller of the cluster has given it one so far".to_owned(),
    };
    let summary = format!(
        "Service {service} is of type LoadBalancer and has no external address: {who}; its cluster IP and node ports do \
         not depend on that"
    );
    let class = balancer.class.as_deref().unwrap_or("none given");
    let text =
        format!("Service {service}: status.loadBalancer is empty, loadBalancerClass {class}");
    let saying = Saying {
        evidence: vec![Draft::objects("load balancer", text)],
        ..Saying::new(summary)
    };
    // Who asks for clients from outside asks for that address, unless they come another way.
    let wanted = case.query.from == Some(From::External) && !is_served(case);
    let severity = if wanted {
        Severity::Critical
    } else {
        own_severity("load-balancer-pending")
    };
    report.state(
        case,
        "load-balancer-pending",
        Basis::Objects,
        severity,
        saying,
    );
}

/// DNS gives the ready Pods of a headless Service, and there are none, or not all.
pub fn headless_not_ready(case: &Case<'_>, report: &mut Report) {
    let members = members(case);
    let unready: Vec<&str> = members.values().filter_map(|why| why.as_deref()).collect();
    if !case.service.headless || unready.is_empty() {
        return;
    }
    let none = unready.len() == members.len();
    let service = full_name(case);
    let unready = unready.join("; ");
    let summary = if none {
        format!(
            "DNS has no address for the headless Service {service}: no Pod of it is ready: {unready}"
        )
    } else {
        format!(
            "DNS leaves out {} of the {} Pods of the headless Service {service}, which are not ready: {unready}",
            members.values().flatten().count(),
            members.len()
        )
    };
    let pod = members.iter().find(|(_, why)| why.is_some());
    let saying = Saying {
        evidence: vec![Draft::objects("headless", format!("{service}: {unready}"))],
        values: pod
            .map(|(name, _)| ("pod", name.clone()))
            .into_iter()
            .collect(),
        ..Saying::new(summary)
    };
    // Clients that have an address from before go on.
    let severity = if none && !is_served(case) {
        own_severity("headless-not-ready")
    } else {
        Severity::Warning
    };
    report.state(case, "headless-not-ready", Basis::Objects, severity, saying);
}

/// Endpoints of the Service that are to stay, by the name of their Pod or by address, with why they are not ready.
fn members(case: &Case<'_>) -> BTreeMap<String, Option<String>> {
    let endpoints = case.slices().flat_map(|s| &s.endpoints);
    let staying = endpoints.filter(|e| e.ready || !e.terminating);
    staying
        .filter_map(|e| {
            let address = e.addresses.first()?;
            let pod = e.pod.as_deref();
            let name = pod.map_or_else(|| address.to_string(), str::to_owned);
            let why = || {
                let pod = case.objects.pod(&case.service.namespace, &name);
                let known = pod.and_then(lack::unready);
                known.unwrap_or_else(|| format!("{name} (its endpoint is not ready)"))
            };
            let why = (!e.ready).then(why);
            Some((name, why))
        })
        .collect()
}

fn is_served(case: &Case<'_>) -> bool {
    let mut counted = case.attempts.iter().filter(|a| case.counts(a));
    counted.any(|a| a.outcome == Outcome::Ok)
}

fn own_severity(code: &str) -> Severity {
    codes::find(code).map_or(Severity::Info, |c| c.severity)
}
