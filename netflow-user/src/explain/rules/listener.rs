//! The backend answers that nothing listens.

use super::service::{dialled, drop_draft, full_name, patch_target};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::pods;
use crate::explain::report::{Because, Report, Saying};
use crate::flows::Sight;
use crate::model::Proto;
use crate::model::answer::{Basis, Via};
use crate::model::flow::Direction;
use crate::model::node::Listener;
use crate::model::objects::{Pod, TargetPort};
use crate::model::record::IcmpError;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The backend refused: its RST or ICMP port unreachable came, or its kernel found no socket. `None` = it did not.
pub(super) fn refusal(case: &Case<'_>, a: &Attempt<'_>) -> Option<(SocketAddr, Vec<Draft>)> {
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

/// Whether a socket of the backend's Pod takes such connections by now.
fn is_accepted_now(case: &Case<'_>, proto: Proto, backend: SocketAddr) -> bool {
    listeners(case, backend).is_some_and(|all| all.iter().any(|l| l.accepts(proto, backend)))
}

/// The Service leads to a port that the Pod neither declares nor serves, while it serves another.
pub fn target_port_mismatch(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "target-port-mismatch",
        Basis::Observed,
        |a| {
            let (backend, evidence) = refusal(case, a)?;
            other_ports(case, a, backend)?;
            Some(Because { key: backend.port().to_string(), evidence })
        },
        |of| {
            let a = of[0];
            let Some(backend) = a.backend() else { return Saying::new("") };
            let Some(other) = other_ports(case, a, backend) else { return Saying::new("") };
            let name = case.backend_name(backend.ip(), a.began());
            let summary = format!(
                "Service {} sends connections to port {} of its Pods, where nothing listens; {name} {} {}",
                full_name(case),
                backend.port(),
                other.does,
                numbers(&other.ports)
            );
            let mut evidence = vec![target_draft(case, a, backend)];
            evidence.extend(case.backend_pod(backend.ip()).map(declared_draft));
            evidence.extend(sockets_drafts(case, of));
            evidence.extend(other.success);
            let fix = |right| patch_target(case, case.port_of_attempt(a)?, &TargetPort::Number(right));
            let fixes = other.right.and_then(fix).into_iter().collect();
            Saying { evidence, fixes, ..Saying::new(summary) }
        },
    );
}

/// `port 80`, `ports 80 and 81`.
fn numbers(ports: &BTreeSet<u16>) -> String {
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let plural = if list.len() == 1 { "" } else { "s" };
    format!("port{plural} {}", list.join(" and "))
}

/// Ports of which one may have been meant.
struct OtherPorts {
    ports: BTreeSet<u16>,
    /// What the Pod does with them.
    does: &'static str,
    success: Option<Draft>,
    /// The one that was meant, where that is certain enough to offer it.
    right: Option<u16>,
}

fn other_ports(case: &Case<'_>, a: &Attempt<'_>, backend: SocketAddr) -> Option<OtherPorts> {
    let proto = a.orig.proto;
    let pod = case.backend_pod(backend.ip());
    let declared: BTreeSet<u16> = pod
        .iter()
        .flat_map(|p| pods::declared(p, proto).map(|c| c.port))
        .collect();
    if declared.contains(&backend.port()) || is_accepted_now(case, proto, backend) {
        return None;
    }
    let spoken_for = pod
        .zip(case.port_of_attempt(a))
        .map(|(pod, mine)| pods::spoken_for(case.objects, pod, mine))
        .unwrap_or_default();
    let is_other = |port: &u16| *port != backend.port() && !spoken_for.contains(port);
    let served = case.attempts.iter().find(|o| {
        let to = o.orig.destination();
        o.is_direct()
            && o.outcome == Outcome::Ok
            && o.orig.proto == proto
            && to.ip() == backend.ip()
            && is_other(&to.port())
    });
    if let Some(direct) = served {
        let port = direct.orig.dport;
        return Some(OtherPorts {
            ports: BTreeSet::from([port]),
            does: "answers on",
            success: success_draft(case, direct),
            right: Some(port),
        });
    }
    let containers = Containers::of(pod, proto);
    let may_be = |port: &u16| is_other(port) && containers.may_mean(*port, &declared);
    let (ports, does): (BTreeSet<u16>, _) = match listeners(case, backend) {
        // On a Node's address anybody's sockets listen.
        Some(_) if declared.is_empty() && on_host(case, backend) => return None,
        Some(all) => {
            let servers = all
                .iter()
                .filter(|l| l.proto == proto && !l.is_loopback() && !l.ephemeral);
            let listens = servers.map(|l| l.addr.port()).filter(may_be).collect();
            (listens, "listens on")
        }
        None => (
            declared.iter().copied().filter(may_be).collect(),
            "declares",
        ),
    };
    if let Some(port) = pod
        .and_then(|p| namesake(case, a, p))
        .filter(|p| ports.contains(p))
    {
        return Some(OtherPorts {
            ports: BTreeSet::from([port]),
            does,
            success: None,
            right: Some(port),
        });
    }
    // Where several containers declare ports, one that listens may be a sidecar's while the application is down.
    let rivals = if containers == Containers::AllDeclare {
        declared.iter().copied().filter(is_other).count()
    } else {
        ports.len()
    };
    let single = ports.iter().next().copied().filter(|_| rivals == 1);
    (!ports.is_empty()).then_some(OtherPorts {
        ports,
        does,
        success: None,
        right: single,
    })
}

fn on_host(case: &Case<'_>, backend: SocketAddr) -> bool {
    case.pod(backend.ip()).is_none() && case.views.iter().any(|v| v.is_own(backend.ip()))
}

/// The declared port that is named as the Service's port or target.
fn namesake(case: &Case<'_>, a: &Attempt<'_>, pod: &Pod) -> Option<u16> {
    let port = case.port_of_attempt(a)?;
    let is_it =
        |name: &str| port.name == name || matches!(&port.target, TargetPort::Name(n) if n == name);
    let mut named =
        pods::declared(pod, port.proto).filter(|c| !c.name.is_empty() && is_it(&c.name));
    named.next().map(|c| c.port)
}

/// What the containers of a Pod say of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Containers {
    /// None declares one: every listener may be meant.
    NoneDeclares,
    /// There is one, or only one is known: what it declares is meant.
    One,
    /// Several, and each declares ports.
    AllDeclare,
    /// Several, and one declares none: what the others declare is theirs.
    SomeSilent,
}

impl Containers {
    fn of(pod: Option<&Pod>, proto: Proto) -> Containers {
        let Some(pod) = pod else {
            return Containers::NoneDeclares;
        };
        let declaring: BTreeSet<&str> = pods::declared(pod, proto)
            .map(|c| c.container.as_str())
            .collect();
        match (declaring.len(), pod.containers.len()) {
            (0, _) => Containers::NoneDeclares,
            (1, 0 | 1) => Containers::One,
            (n, all) if n < all => Containers::SomeSilent,
            _ => Containers::AllDeclare,
        }
    }

    /// Whether a port of the Pod may be the one that the Service should lead to.
    fn may_mean(self, port: u16, declared: &BTreeSet<u16>) -> bool {
        match self {
            Containers::NoneDeclares => true,
            Containers::One | Containers::AllDeclare => declared.contains(&port),
            Containers::SomeSilent => !declared.contains(&port),
        }
    }
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
        case.backend_name(to.ip(), direct.began()),
        to.port()
    );
    Some(case.sight(*part, back, &format!("success {to}"), text))
}

fn target_draft(case: &Case<'_>, a: &Attempt<'_>, backend: SocketAddr) -> Draft {
    let port = case.port_of_attempt(a);
    let (from, target) = port.map_or((a.orig.dport, String::new()), |p| {
        (p.port, p.target.to_string())
    });
    let of_slice: BTreeSet<u16> = port
        .map(|p| case.slice_targets(p))
        .into_iter()
        .flatten()
        .filter(|to| to.ip() == backend.ip())
        .map(|to| to.port())
        .collect();
    let slice = if of_slice.is_empty() {
        "the slice does not list the Pod".to_owned()
    } else {
        format!("the slice says {}", numbers(&of_slice))
    };
    let text = format!(
        "Service {} port {from} has targetPort {target}; {slice}",
        full_name(case)
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

/// The right port, but no socket on it. Where one is there by now, that is a conclusion.
pub fn missing(case: &Case<'_>, report: &mut Report) {
    for (by_now, basis) in [(false, Basis::Observed), (true, Basis::Inferred)] {
        report.explain(
            case,
            "listener-missing",
            basis,
            |a| {
                let (backend, evidence) = refusal(case, a)?;
                // A direct attempt on another port than the Service's is not the Service's fault.
                if a.via == Via::Pod && case.port_of_attempt(a).is_none() {
                    return None;
                }
                (is_accepted_now(case, a.orig.proto, backend) == by_now).then(|| Because {
                    key: backend.port().to_string(),
                    evidence,
                })
            },
            |of| missing_saying(case, of, by_now),
        );
    }
}

fn missing_saying(case: &Case<'_>, of: &[&Attempt<'_>], by_now: bool) -> Saying {
    let backends: BTreeSet<String> = of
        .iter()
        .filter_map(|a| a.backend().map(|b| case.backend_name(b.ip(), a.began())))
        .collect();
    let port = of[0].backend().map_or(0, |b| b.port());
    let names = backends.into_iter().collect::<Vec<_>>().join(", ");
    let summary = if by_now {
        format!(
            "{names} refused connections on port {port}, where a socket listens by now: it did not at that time, or \
             something before it refused"
        )
    } else {
        format!("Nothing listens on port {port} of {names}")
    };
    let mut evidence = sockets_drafts(case, of);
    let pod = of[0].backend().and_then(|b| case.backend_pod(b.ip()));
    evidence.extend(pod.map(declared_draft));
    Saying {
        evidence,
        ..Saying::new(summary)
    }
}

/// Evidence: the socket tables of the backends' Pods.
fn sockets_drafts(case: &Case<'_>, of: &[&Attempt<'_>]) -> Vec<Draft> {
    let backends: BTreeSet<SocketAddr> = of.iter().filter_map(|a| a.backend()).collect();
    let mut drafts = Vec::new();
    for backend in backends {
        for (i, view) in case.views.iter().enumerate() {
            let (Some(pod), Some(facts)) = (view.pod(backend.ip()), view.facts.as_ref()) else {
                continue;
            };
            let servers = pod.listeners.iter();
            let mut list: Vec<String> = servers
                .filter(|l| !l.ephemeral || l.addr.port() == backend.port())
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
