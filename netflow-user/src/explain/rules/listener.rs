//! The backend answers that nothing listens.

use super::service::{dialled, drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::{Because, Report, Saying};
use crate::flows::Sight;
use crate::model::Proto;
use crate::model::answer::{Basis, Changes, Fix, Via};
use crate::model::flow::Direction;
use crate::model::node::Listener;
use crate::model::objects::{Pod, TargetPort};
use crate::model::record::IcmpError;
use std::net::SocketAddr;

/// The backend refused: its RST or ICMP port unreachable came, or its kernel found no socket. `None` = it did not.
fn refusal(case: &Case<'_>, a: &Attempt<'_>) -> Option<(SocketAddr, Vec<Draft>)> {
    let backend = a.backend()?;
    if !matches!(a.outcome, Outcome::Refused | Outcome::Timeout) {
        return None;
    }
    let mut evidence = Vec::new();
    for part in &a.parts {
        evidence.extend(rst_seen(*part, a).map(|s| {
            let from = case.named(s.key.tuple.source(), a.began());
            case.sight(
                *part,
                s,
                &format!("rst {}", s.key.tuple.source()),
                format!("RST from {from}: nothing accepts the connection"),
            )
        }));
    }
    for (part, event, drop, leg) in a.drops() {
        if drop.reason == "NO_SOCKET" && leg.is_forward() {
            evidence.push(drop_draft(case, part, event, drop));
        }
    }
    evidence.extend(port_unreachable(case, a, backend));
    if evidence.is_empty() && a.orig.proto != Proto::TCP {
        // ICMP is limited in rate (icmp_ratelimit): silence after one such answer is the same refusal.
        let siblings = case
            .attempts
            .iter()
            .filter(|o| o.backend() == Some(backend) && o.orig.proto == a.orig.proto);
        evidence.extend(siblings.flat_map(|o| port_unreachable(case, o, backend)));
    }
    if evidence.is_empty() {
        return None;
    }
    evidence.extend(case.translation(a));
    evidence.extend(dialled(case, a));
    Some((backend, evidence))
}

/// Evidence: the backend's own ICMP port unreachable.
fn port_unreachable(case: &Case<'_>, a: &Attempt<'_>, backend: SocketAddr) -> Vec<Draft> {
    let says = |icmp: &IcmpError| {
        icmp.dir == Direction::Ingress
            && matches!(
                (icmp.icmp_type, icmp.code, backend.is_ipv6()),
                (3, 3, false) | (1, 4, true)
            )
    };
    a.icmp()
        .filter(|(_, event, icmp)| {
            says(icmp) && event.record.tuple.is_some_and(|t| t.src == backend.ip())
        })
        .map(|(part, event, _)| {
            let text = format!(
                "{} answers ICMP port unreachable",
                case.named(backend, a.began())
            );
            case.event(part, event, &format!("unreachable {backend}"), text)
        })
        .collect()
}

/// The RST as it came in from the backend's side, not one that this node made.
fn rst_seen<'a>(part: Part<'a>, a: &Attempt<'_>) -> Option<&'a Sight> {
    let from = |s: &&Sight| {
        s.key.dir == Direction::Ingress
            && s.stats.rst.is_some()
            && a.is_from_backend(part, &s.key.tuple)
    };
    part.conn
        .sights
        .iter()
        .filter(from)
        .min_by_key(|s| (s.stats.rst, s.key))
}

/// Listening sockets of the backend's Pod, where its node was asked and the Pod found.
fn listeners<'a>(case: &Case<'a>, backend: SocketAddr) -> Option<&'a [Listener]> {
    case.views
        .iter()
        .find_map(|v| v.pod(backend.ip()))
        .map(|p| p.listeners.as_slice())
}

/// The right port is bound on a loopback address only.
pub fn loopback_only(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "listener-loopback-only",
        Basis::Observed,
        |a| {
            let (backend, evidence) = refusal(case, a)?;
            loopback(case, a.orig.proto, backend)?;
            Some(Because {
                key: backend.port().to_string(),
                evidence,
            })
        },
        |of| {
            let Some(backend) = of[0].backend() else {
                return Saying::new("");
            };
            let bound = loopback(case, of[0].orig.proto, backend)
                .map(|l| l.addr.to_string())
                .unwrap_or_default();
            let name = case.backend_name(backend.ip(), of[0].began());
            let summary = format!(
                "{name} listens on {bound} only: connections from outside the Pod are refused"
            );
            Saying {
                evidence: sockets_drafts(case, of),
                ..Saying::new(summary)
            }
        },
    );
}

fn loopback<'a>(case: &Case<'a>, proto: Proto, backend: SocketAddr) -> Option<&'a Listener> {
    let all = listeners(case, backend)?;
    if all.iter().any(|l| l.accepts(proto, backend)) {
        return None;
    }
    all.iter()
        .find(|l| l.proto == proto && l.addr.port() == backend.port() && l.is_loopback())
}

/// The Service leads to a port that the Pod neither declares nor serves, while it serves another.
pub fn target_port_mismatch(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "target-port-mismatch",
        Basis::Observed,
        |a| {
            let (backend, evidence) = refusal(case, a)?;
            other_port(case, a, backend)?;
            Some(Because { key: backend.port().to_string(), evidence })
        },
        |of| {
            let a = of[0];
            let Some(backend) = a.backend() else { return Saying::new("") };
            let Some(other) = other_port(case, a, backend) else { return Saying::new("") };
            let name = case.backend_name(backend.ip(), a.began());
            let summary = format!(
                "Service {} sends connections to port {} of its Pods, where nothing listens; {name} {}",
                full_name(case),
                backend.port(),
                other.text
            );
            let mut evidence = vec![target_draft(case, a, backend)];
            evidence.extend(case.backend_pod(backend.ip()).map(declared_draft));
            evidence.extend(sockets_drafts(case, of));
            evidence.extend(other.success);
            Saying { evidence, fixes: fix_port(case, a, other.port), ..Saying::new(summary) }
        },
    );
}

/// The port that would have been right.
struct OtherPort {
    port: u16,
    text: String,
    success: Option<Draft>,
}

fn other_port(case: &Case<'_>, a: &Attempt<'_>, backend: SocketAddr) -> Option<OtherPort> {
    let pod = case.backend_pod(backend.ip());
    let declared: Vec<u16> = pod
        .iter()
        .flat_map(|p| &p.ports)
        .filter(|p| p.proto == a.orig.proto)
        .map(|p| p.port)
        .collect();
    if declared.contains(&backend.port()) {
        return None;
    }
    let served = case.attempts.iter().find(|o| {
        let same_pod = o
            .backend()
            .is_some_and(|b| b.ip() == backend.ip() && b.port() != backend.port());
        o.outcome == Outcome::Ok && same_pod && o.orig.proto == a.orig.proto
    });
    if let Some(direct) = served.and_then(Attempt::backend) {
        let success = served.and_then(|o| success_draft(case, o));
        let text = format!("answers on port {}", direct.port());
        return Some(OtherPort {
            port: direct.port(),
            text,
            success,
        });
    }
    let Some(all) = listeners(case, backend) else {
        let port = pod.and_then(|p| likely_ports(case, a, p).next())?;
        let text = format!("declares port {port}");
        return Some(OtherPort {
            port,
            text,
            success: None,
        });
    };
    let open = |port: u16| {
        all.iter()
            .any(|l| l.proto == a.orig.proto && !l.is_loopback() && l.addr.port() == port)
    };
    let port = match pod.filter(|_| !declared.is_empty()) {
        // A listener that the Pod does not declare, where it declares others, is a sidecar's.
        Some(pod) => likely_ports(case, a, pod).find(|p| open(*p))?,
        // On a Node's address anybody's sockets listen.
        None if on_host(case, backend) => return None,
        None => all.iter().map(|l| l.addr.port()).find(|p| open(*p))?,
    };
    let text = format!("listens on port {port}");
    Some(OtherPort {
        port,
        text,
        success: None,
    })
}

fn on_host(case: &Case<'_>, backend: SocketAddr) -> bool {
    case.pod(backend.ip()).is_none() && case.views.iter().any(|v| v.is_own(backend.ip()))
}

/// Declared ports, the likeliest first: one named as the Service's port or target is, then those in the Pod's own
/// order, in which an injected sidecar mostly comes last.
fn likely_ports(case: &Case<'_>, a: &Attempt<'_>, pod: &Pod) -> impl Iterator<Item = u16> {
    let port = case.port_of_attempt(a);
    let wanted = |name: &str| {
        !name.is_empty()
            && port.is_some_and(|p| {
                p.name == name || matches!(&p.target, TargetPort::Name(n) if n == name)
            })
    };
    let of_proto = pod.ports.iter().filter(|p| p.proto == a.orig.proto);
    let (named, others): (Vec<_>, Vec<_>) = of_proto.partition(|p| wanted(&p.name));
    named
        .into_iter()
        .chain(others)
        .map(|p| p.port)
        .collect::<Vec<_>>()
        .into_iter()
}

fn success_draft(case: &Case<'_>, direct: &Attempt<'_>) -> Option<Draft> {
    let part = direct.parts.first()?;
    let back = part
        .conn
        .sights_towards(false)
        .find(|s| s.stats.syn_ack.is_some())?;
    let to = direct.backend()?;
    let text = format!(
        "{} accepts connections on port {}",
        case.name(to.ip(), direct.began()),
        to.port()
    );
    Some(case.sight(*part, back, &format!("success {to}"), text))
}

fn target_draft(case: &Case<'_>, a: &Attempt<'_>, backend: SocketAddr) -> Draft {
    let port = case.port_of_attempt(a);
    let (from, target) = port.map_or((a.orig.dport, String::new()), |p| {
        let target = match &p.target {
            TargetPort::Number(n) => n.to_string(),
            TargetPort::Name(n) => n.clone(),
        };
        (p.port, target)
    });
    let text = format!(
        "Service {} port {from} has targetPort {target}; the slice says {}",
        full_name(case),
        backend.port()
    );
    Draft::objects("target port", text)
}

fn declared_draft(pod: &Pod) -> Draft {
    let ports: Vec<String> = pod
        .ports
        .iter()
        .map(|p| format!("{}/{} ({})", p.port, p.proto, p.container))
        .collect();
    let ports = if ports.is_empty() {
        "no ports".to_owned()
    } else {
        ports.join(", ")
    };
    Draft::objects(
        format!("declared {}", pod.name),
        format!("Pod {}/{} declares {ports}", pod.namespace, pod.name),
    )
}

fn fix_port(case: &Case<'_>, a: &Attempt<'_>, port: u16) -> Vec<Fix> {
    let Some(index) = case
        .port_of_attempt(a)
        .and_then(|p| case.service.ports.iter().position(|q| std::ptr::eq(p, q)))
    else {
        return Vec::new();
    };
    let context = case.views.first().map_or("", |v| v.start.context.as_str());
    let context = if context.is_empty() {
        String::new()
    } else {
        format!(" --context {context}")
    };
    vec![Fix {
        text: format!("Point the Service at port {port}"),
        command: format!(
            "kubectl{context} patch svc {} -n {} --type=json -p '[{{\"op\":\"replace\",\"path\":\"/spec/ports/{index}/targetPort\",\"value\":{port}}}]'",
            case.service.name, case.service.namespace
        ),
        changes: Changes::Cluster,
    }]
}

/// The right port, but no socket on it.
pub fn missing(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "listener-missing",
        Basis::Observed,
        |a| {
            let (backend, evidence) = refusal(case, a)?;
            // A direct attempt on another port than the Service's is not the Service's fault.
            if a.via == Via::Pod && case.port_of_attempt(a).is_none() {
                return None;
            }
            Some(Because {
                key: backend.port().to_string(),
                evidence,
            })
        },
        |of| {
            let backends: std::collections::BTreeSet<String> = of
                .iter()
                .filter_map(|a| a.backend().map(|b| case.backend_name(b.ip(), a.began())))
                .collect();
            let port = of[0].backend().map_or(0, |b| b.port());
            let names: Vec<String> = backends.into_iter().collect();
            let summary = format!("Nothing listens on port {port} of {}", names.join(", "));
            let mut evidence = sockets_drafts(case, of);
            evidence.extend(
                of[0]
                    .backend()
                    .and_then(|b| case.backend_pod(b.ip()))
                    .map(declared_draft),
            );
            Saying {
                evidence,
                ..Saying::new(summary)
            }
        },
    );
}

/// Evidence: the socket tables of the backends' Pods.
fn sockets_drafts(case: &Case<'_>, of: &[&Attempt<'_>]) -> Vec<Draft> {
    let backends: std::collections::BTreeSet<SocketAddr> =
        of.iter().filter_map(|a| a.backend()).collect();
    let mut drafts = Vec::new();
    for backend in backends {
        for (i, view) in case.views.iter().enumerate() {
            let (Some(pod), Some(facts)) = (view.pod(backend.ip()), view.facts.as_ref()) else {
                continue;
            };
            let mut list: Vec<String> = pod
                .listeners
                .iter()
                .map(|l| format!("{}/{}", l.addr, l.proto))
                .collect();
            list.sort();
            list.dedup();
            let what = if list.is_empty() {
                "nothing".to_owned()
            } else {
                list.join(", ")
            };
            let name = case.backend_name(backend.ip(), facts.time);
            let mut draft = Draft::node(
                format!("sockets {}", backend.ip()),
                format!("sockets of {name}: listens on {what}"),
            );
            draft.time = Some(facts.time);
            draft.view = Some((i, view.name().to_owned()));
            draft.netns = Some(pod.netns);
            drafts.push(draft);
        }
    }
    drafts
}
