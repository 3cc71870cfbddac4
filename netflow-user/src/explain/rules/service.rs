//! The Service itself: its name, its ports, whether it has endpoints.

use crate::explain::attempt::Attempt;
use crate::explain::case::Case;
use crate::explain::codes;
use crate::explain::evidence::Draft;
use crate::explain::lack::{Lack, lack};
use crate::explain::pods;
use crate::explain::report::{Because, Found, Over, Report, Saying};
use crate::flows::{ConnEvent, Leg};
use crate::model::answer::{Basis, Changes, Fix, Severity, Via};
use crate::model::objects::{Objects, Pod, ServicePort, TargetPort};
use crate::model::query::{Query, Target};
use crate::model::record::{Event, Rejection, Rules};
use crate::model::resolve::NotFound;
use std::collections::BTreeSet;

/// No Service has the name or address asked about.
pub fn not_found(query: &Query, objects: &Objects, what: &NotFound, report: &mut Report) {
    // Where no Service was given at all, it cannot be told from one that does not exist.
    let limited = objects.limits.iter().any(|l| l.kind == "Service");
    // An address may be that of a Service in a namespace that may not be read.
    if objects.is_unknown("Service") || limited && matches!(what, NotFound::Address(_)) {
        return;
    }
    let Some(code) = codes::find("service-not-found") else {
        return;
    };
    let text = format!("{} Services in {}", objects.services.len(), objects.source);
    let handle = report.book.add(Draft::objects("no such service", text));
    let asked = match &query.target {
        Target::Name(name) => name.clone(),
        Target::Address(_) => String::new(),
    };
    let (ns, svc) = match what {
        NotFound::Name {
            namespace,
            near,
            elsewhere,
            ..
        } => match (near.first(), elsewhere.first()) {
            (_, Some(other)) => (other.clone(), asked),
            (Some(near), None) => (namespace.clone(), near.clone()),
            (None, None) => (namespace.clone(), asked),
        },
        NotFound::Namespace { namespace, near } => {
            (near.first().unwrap_or(namespace).clone(), asked)
        }
        NotFound::Address(_) => (query.namespace.clone(), asked),
    };
    report.found.push(Found {
        code,
        basis: Basis::Objects,
        severity: Severity::Critical,
        attempts: Vec::new(),
        clients: BTreeSet::new(),
        summary: what.to_string(),
        evidence: vec![handle],
        values: vec![("ns", ns), ("svc", svc)],
        fixes: Vec::new(),
        over: Over::default(),
    });
}

/// VIP packets to a port that the Service does not have, with this protocol or at all.
pub fn port_undefined(case: &Case<'_>, report: &mut Report) {
    let ports = || {
        let list: Vec<String> = case
            .service
            .ports
            .iter()
            .map(|p| format!("{}/{}", p.port, p.proto))
            .collect();
        format!("Service {} has port {}", full_name(case), list.join(", "))
    };
    let undefined = |a: &Attempt<'_>, other_protocol: bool| {
        let of_service = matches!(a.via, Via::Vip | Via::Lb | Via::ExternalIp);
        let same_number = case.service.ports.iter().any(|p| p.port == a.orig.dport);
        if !of_service || case.port_of(&a.orig).is_some() || same_number != other_protocol {
            return None;
        }
        let evidence = dialled(case, a)
            .into_iter()
            .chain(answer_of_node(case, a))
            .collect();
        Some(Because {
            key: format!("{}/{}", a.orig.dport, a.orig.proto),
            evidence,
        })
    };
    let objects = || vec![Draft::objects("ports", ports())];
    report.explain(
        case,
        "protocol-mismatch",
        Basis::Observed,
        |a| undefined(a, true),
        |of| {
            let dialled = of[0].orig;
            let served: Vec<String> = case
                .service
                .ports
                .iter()
                .filter(|p| p.port == dialled.dport)
                .map(|p| p.proto.to_string())
                .collect();
            let served = served.join(" and ");
            let summary = format!(
                "Clients dial {} port {} with {}, the Service serves it with {served} only",
                dialled.dst, dialled.dport, dialled.proto
            );
            Saying {
                evidence: objects(),
                ..Saying::new(summary)
            }
        },
    );
    report.explain(
        case,
        "service-port-undefined",
        Basis::Observed,
        |a| undefined(a, false),
        |of| {
            let dialled = of[0].orig;
            let list: Vec<String> = case
                .service
                .ports
                .iter()
                .map(|p| p.port.to_string())
                .collect();
            let summary = format!(
                "Clients dial port {} of {}, which the Service does not have (it has {})",
                dialled.dport,
                dialled.dst,
                list.join(", ")
            );
            Saying {
                evidence: objects(),
                ..Saying::new(summary)
            }
        },
    );
}

/// The Service port has no endpoint that may get traffic.
pub fn no_endpoints(case: &Case<'_>, report: &mut Report) {
    for (code, of_kind) in [
        (
            "no-endpoints-selector",
            Lack::is_selector as fn(&Lack) -> bool,
        ),
        ("no-endpoints-not-ready", Lack::is_not_ready),
        ("named-port-unresolved", Lack::is_port_name),
    ] {
        report.explain(
            case,
            code,
            Basis::Observed,
            |a| {
                let port = case.port_of_attempt(a).filter(|_| a.via != Via::Pod)?;
                let (objects, service) = case.then(a.began());
                let lack = lack(objects, service, port).filter(of_kind)?;
                // Traffic that was translated all the same has a backend: other rules say what became of it.
                if a.is_translated() {
                    return None;
                }
                let evidence: Vec<Draft> = dialled(case, a)
                    .into_iter()
                    .chain(answer_of_node(case, a))
                    .collect();
                Some(Because {
                    key: format!("{}|{lack}", port.port),
                    evidence,
                })
            },
            |of| {
                let port = case.port_of_attempt(of[0]);
                let (objects, service) = case.then(of[0].began());
                let lack = port.and_then(|p| lack(objects, service, p));
                lack_saying(case, port, lack.as_ref())
            },
        );
        if report.found.iter().any(|f| f.code.code == code) {
            continue;
        }
        let lacking = case
            .service
            .ports
            .iter()
            .filter(|p| case.query.port.is_none_or(|q| q == p.port));
        let lacking = lacking.filter_map(|p| Some((p, lack(case.objects, case.service, p)?)));
        if let Some((port, lack)) = lacking.into_iter().find(|(_, l)| of_kind(l)) {
            // Traffic that passes proves the objects wrong or outdated: worth knowing, no fault.
            let passed = |a: &&Attempt<'_>| !a.outcome.is_failure() && a.via != Via::Pod;
            let mut served = case.attempts.iter().filter(passed).peekable();
            let of_port = |a: &Attempt<'_>| case.port_of_attempt(a).is_some_and(|p| p == port);
            let severity = if served.peek().is_none() {
                Severity::Critical
            } else if served.any(of_port) {
                Severity::Info
            } else {
                // Other ports of the Service do serve.
                Severity::Warning
            };
            let saying = lack_saying(case, Some(port), Some(&lack));
            report.state(case, code, Basis::Objects, severity, saying);
        }
    }
}

fn lack_saying(case: &Case<'_>, port: Option<&ServicePort>, lack: Option<&Lack>) -> Saying {
    let number = port.map_or(String::new(), |p| format!(" port {}", p.port));
    let pods = pods::selected(case.objects, case.service);
    let named = lack.is_some_and(Lack::is_port_name);
    let fixes = port
        .filter(|_| named)
        .and_then(|p| other_target(case, p, &pods));
    let lack = lack.map(ToString::to_string).unwrap_or_default();
    let summary = format!(
        "Service {}{number} has no endpoint: {lack}",
        full_name(case)
    );
    let mut values: Vec<(&'static str, String)> = Vec::new();
    values.extend(pods.first().map(|p| ("pod", p.name.to_string())));
    if let Some(TargetPort::Name(name)) = port.map(|p| &p.target) {
        values.push(("port_name", name.clone()));
    }
    Saying {
        evidence: vec![Draft::objects("lack", lack)],
        values,
        fixes: fixes.into_iter().collect(),
        ..Saying::new(summary)
    }
}

/// The way out where a target port's name is nobody's: the one port that all Pods declare, and nothing else leads to.
fn other_target(case: &Case<'_>, port: &ServicePort, pods: &[&Pod]) -> Option<Fix> {
    let free = |pod: &Pod| -> BTreeSet<(String, u16)> {
        let taken = pods::spoken_for(case.objects, pod, port);
        pods::declared(pod, port.proto)
            .filter(|c| !taken.contains(&c.port))
            .map(|c| (c.name.to_string(), c.port))
            .collect()
    };
    let (first, others) = pods.split_first()?;
    let ports = free(first);
    let only = ports.iter().next().filter(|_| ports.len() == 1)?;
    if others.iter().any(|p| free(p) != ports) {
        return None;
    }
    patch_target(
        case,
        port,
        &match only {
            (name, number) if name.is_empty() => TargetPort::Number(*number),
            (name, _) => TargetPort::Name(name.clone()),
        },
    )
}

/// The way out that points a Service port at another port of its Pods.
pub(super) fn patch_target(
    case: &Case<'_>,
    port: &ServicePort,
    target: &TargetPort,
) -> Option<Fix> {
    let index = case.service.ports.iter().position(|p| p == port)?;
    let value = match target {
        TargetPort::Number(n) => n.to_string(),
        TargetPort::Name(n) => format!("\"{n}\""),
    };
    let patch =
        format!(r#"[{{"op":"replace","path":"/spec/ports/{index}/targetPort","value":{value}}}]"#);
    Some(Fix {
        text: format!("Point the Service at port {target}"),
        command: case.command(
            "kubectl patch svc {svc} -n {ns} --type=json -p '",
            &[("svc", &case.service.name), ("ns", &case.service.namespace)],
        ) + &patch
            + "'",
        changes: Changes::Cluster,
    })
}

/// `namespace/name` of the Service.
pub(super) fn full_name(case: &Case<'_>) -> String {
    format!("{}/{}", case.service.namespace, case.service.name)
}

/// Evidence: the client's packet as it came to the node.
pub(super) fn dialled(case: &Case<'_>, attempt: &Attempt<'_>) -> Option<Draft> {
    let part = attempt.dialled_part()?;
    let sight = part
        .conn
        .sights_of(Leg::Orig)
        .min_by_key(|s| (s.stats.first, s.key))?;
    let what = if attempt.orig.proto == crate::model::Proto::TCP {
        "SYN"
    } else {
        "datagram"
    };
    let text = format!(
        "{} sent a {what} to {}",
        case.name(attempt.client(), attempt.began()),
        attempt.orig.destination()
    );
    Some(case.sight(part, sight, "dialled", text))
}

/// Evidence: what the node did with a packet that no backend was chosen for.
pub(super) fn answer_of_node(case: &Case<'_>, attempt: &Attempt<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (part, event, drop, leg) in attempt.drops() {
        if leg == Leg::Orig {
            drafts.push(drop_draft(case, part, event, drop));
        }
    }
    for (part, event) in attempt.events() {
        if let Event::Ipvs { to: None, .. } = event.record.event {
            let text = format!("IPVS has no destination for {}", attempt.orig.destination());
            drafts.push(case.event(part, event, "no destination", text));
        }
        if let Event::IcmpSent {
            icmp_type, code, ..
        } = event.record.event
        {
            // Of ICMPv6 errors only the call is seen, before the rate limit.
            let text = if attempt.orig.dst.is_ipv6() {
                format!("the node was to answer with ICMPv6 type {icmp_type} code {code}")
            } else {
                format!("the node answered with ICMP type {icmp_type} code {code}")
            };
            drafts.push(case.event(part, event, &format!("icmp {icmp_type}/{code}"), text));
        }
    }
    drafts
}

/// Evidence: a dropped packet.
pub(super) fn drop_draft(
    case: &Case<'_>,
    part: crate::explain::attempt::Part<'_>,
    event: &ConnEvent,
    drop: &crate::model::record::Drop,
) -> Draft {
    let to = event
        .record
        .tuple
        .map_or(String::new(), |t| format!(" to {}", t.destination()));
    let hook = drop
        .hook
        .map_or(String::new(), |h| format!(" at {}", hook_name(h)));
    let ct = match drop.ct {
        None => ", no conntrack entry".to_owned(),
        Some(ct) if ct.is_dnat() => format!(", translated from {}", ct.orig.destination()),
        Some(_) => ", not translated".to_owned(),
    };
    let verdict = drop.verdict.as_ref();
    let rules = verdict
        .and_then(|v| v.rules.as_ref())
        .map_or(String::new(), |r| format!(" by {}", rules_name(r)));
    let told = match verdict.and_then(|v| v.reject) {
        Some(Rejection::Unreachable { code }) => {
            format!(", rejected with ICMP unreachable code {code}")
        }
        Some(Rejection::Reset) => ", rejected with a TCP reset".to_owned(),
        None => String::new(),
    };
    let text = format!(
        "packet{to} dropped: {} in {}(){hook}{rules}{told}{ct}",
        drop.reason, drop.place
    );
    let kind = format!(
        "drop|{}|{}|{to}|{:?}|{rules}{told}",
        drop.reason, drop.place, drop.hook
    );
    case.event(part, event, &kind, text)
}

/// Name of a set of rules for a reader.
pub(super) fn rules_name(rules: &Rules) -> String {
    match rules {
        Rules::Nftables {
            family,
            table,
            chain,
        } => {
            let family = family.map_or(String::new(), |f| format!("{} ", f.name()));
            format!("nftables table {family}{table}, chain {chain}")
        }
        Rules::Iptables { table } => format!("the {table} table of iptables"),
    }
}

/// Name of a netfilter hook for a reader.
pub(super) fn hook_name(hook: crate::model::record::NfHook) -> &'static str {
    use crate::model::record::NfHook;
    match hook {
        NfHook::Prerouting => "PREROUTING",
        NfHook::Input => "INPUT",
        NfHook::Forward => "FORWARD",
        NfHook::Output => "OUTPUT",
        NfHook::Postrouting => "POSTROUTING",
    }
}
