//! The registry of codes: what each means, what was looked at, how to check it by hand and what to do.
//!
//! Codes are public identifiers and are never renamed. Verdicts (`healthy`, `suspected`, `not-enough-evidence`) are not
//! codes. One file per family; texts and commands are templates that [`fill`] completes.

use crate::model::answer::{Changes, Hop, Severity};

mod agents;
mod conntrack;
mod dns;
mod kind;
mod policy;
mod proxy;
mod readiness;
mod route;
mod service;

/// A part of the path that can fail, with its own way of being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Name resolution.
    Dns,
    /// Services, their endpoints and ports, and the sockets behind them.
    Service,
    /// Rules of the Service proxy and conntrack.
    Proxy,
    /// `NetworkPolicy` and other filters.
    Policy,
    /// Routes, overlays, MTU, and the way between nodes.
    Route,
}

impl Family {
    /// For headings and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Family::Dns => "dns",
            Family::Service => "service",
            Family::Proxy => "proxy",
            Family::Policy => "policy",
            Family::Route => "route",
        }
    }
}

/// A command that shows the fault by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckStep {
    /// What to look for in its output; a template too.
    pub text: &'static str,
    /// Command template.
    pub command: &'static str,
}

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixStep {
    /// What it does; a template too.
    pub text: &'static str,
    /// Command template; empty where no single line does it.
    pub command: &'static str,
    /// What it changes.
    pub changes: Changes,
}

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The stable identifier.
    pub code: &'static str,
    /// A short phrase.
    pub title: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// The hop it is about.
    pub hop: Hop,
    /// The family it belongs to.
    pub family: Family,
    /// What it means.
    pub meaning: &'static str,
    /// What netflow looks at before it says so.
    pub looked_at: &'static str,
    /// How to check by hand.
    pub check: &'static [CheckStep],
    /// What to do.
    pub mitigate: &'static [FixStep],
    /// Codes that look alike.
    pub confusable: &'static [&'static str],
}

/// All codes, in the order of the path.
pub static ALL: &[&Code] = &[
    &service::SERVICE_NOT_FOUND,
    &kind::EXTERNAL_NAME_IS_DNS,
    &kind::LOAD_BALANCER_PENDING,
    &kind::HEADLESS_NOT_READY,
    &dns::DNS_NO_ENDPOINTS,
    &dns::DNS_TIMEOUT,
    &service::SERVICE_PORT_UNDEFINED,
    &service::PROTOCOL_MISMATCH,
    &service::NO_ENDPOINTS_SELECTOR,
    &service::NO_ENDPOINTS_NOT_READY,
    &service::NAMED_PORT_UNRESOLVED,
    &proxy::ETP_LOCAL_NO_ENDPOINT,
    &agents::PROXY_UNHEALTHY,
    &proxy::VIP_NOT_TRANSLATED,
    &proxy::PROXY_SYNC_LAG,
    &proxy::PROXY_RULES_STALE,
    &conntrack::CONNTRACK_STALE,
    &conntrack::CONNTRACK_FULL,
    &conntrack::CONNTRACK_PRESSURE,
    &conntrack::CONNTRACK_CLASH,
    &conntrack::SNAT_PORTS_EXHAUSTED,
    &conntrack::SOURCE_IP_MASQUERADED,
    &conntrack::PROXY_MODE,
    &readiness::ENDPOINTSLICE_STALE,
    &proxy::BACKEND_GONE,
    &conntrack::HAIRPIN,
    &policy::POLICY_DENIED_INGRESS,
    &policy::FIREWALL_DROP,
    &policy::FIREWALL_REJECT,
    &conntrack::REPLY_BYPASSES_NAT,
    &conntrack::CONNTRACK_INVALID,
    &agents::CNI_UNHEALTHY,
    &route::NO_ROUTE,
    &route::FORWARDING_DISABLED,
    &route::NEIGHBOR_FAILED,
    &route::NEIGHBOR_STALE,
    &route::ASYMMETRIC_RETURN,
    &route::BAD_CHECKSUM,
    &route::MTU_MISMATCH,
    &route::MTU_BLACKHOLE,
    &route::PMTU_IGNORED,
    &route::PMTU_LEARNED,
    &route::FRAGMENTATION,
    &route::OVERLAY_PEER_LOST,
    &route::TUNNEL_PORT_BLOCKED,
    &route::BACKEND_NODE_DOWN,
    &route::LOST_BEYOND_NODE,
    &route::NEVER_ARRIVED,
    &service::LISTENER_LOOPBACK_ONLY,
    &service::TARGET_PORT_MISMATCH,
    &readiness::TERMINATING_BACKEND,
    &readiness::PUBLISH_NOT_READY,
    &service::LISTENER_MISSING,
    &service::ONE_BAD_ENDPOINT,
    &service::SOME_CLIENTS_FAIL,
];

/// Looks a code up by its identifier.
pub fn find(code: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|c| c.code == code)
}

/// The names that templates use, with what each stands for.
pub const PLACEHOLDERS: &[(&str, &str)] = &[
    ("ns", "namespace of the Service"),
    ("svc", "name of the Service"),
    ("vip", "address that the client dialled"),
    (
        "l4",
        "protocol in lower case, as conntrack and nft spell it",
    ),
    (
        "selector",
        "the Service's selector, as `kubectl -l` takes it",
    ),
    ("target_port", "port on the Pod"),
    (
        "port_name",
        "name that the Service gives the port on the Pod",
    ),
    (
        "external_name",
        "DNS name that an ExternalName Service stands for",
    ),
    ("slice", "name of the EndpointSlice"),
    ("pod", "name of the backend Pod"),
    ("pod_ip", "address of the backend Pod"),
    ("node", "node of the backend"),
    ("client_ns", "namespace of the client Pod"),
    ("client", "name of the client Pod"),
    ("client_node", "node of the client, or the one that met it"),
    ("client_ip", "address of the client"),
    ("client_port", "source port of the client"),
    ("policy", "name of the NetworkPolicy"),
    ("here", "node or router on which it happens"),
    ("to", "address that the packets were for"),
    ("dev", "interface at which it happens"),
    (
        "tunnel_packets",
        "the overlay's packets between nodes, as tcpdump calls them: udp port 4789, ip proto 4",
    ),
    ("table", "table of the rule"),
    ("chain", "chain of the rule"),
    (
        "payload",
        "ICMP payload that just fits the path MTU (MTU less 28 bytes for IPv4)",
    ),
];

/// Completes a template: `{name}` becomes its value, and `<name>` where none is known, so that the reader sees what to
/// put there. A kube context, where there is one, is added to each `kubectl`.
pub fn fill(template: &str, context: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        out.push_str(before);
        let known = after[1..].split_once('}').and_then(|(name, tail)| {
            PLACEHOLDERS
                .iter()
                .any(|(p, _)| *p == name)
                .then_some((name, tail))
        });
        let Some((name, tail)) = known else {
            out.push('{');
            rest = &after[1..];
            continue;
        };
        match values.iter().find(|(n, v)| *n == name && !v.is_empty()) {
            Some((_, value)) => out.push_str(value),
            None => out.extend(["<", name, ">"]),
        }
        rest = tail;
    }
    out.push_str(rest);
    if context.is_empty() {
        out
    } else {
        out.replace("kubectl ", &format!("kubectl --context {context} "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_unique_kebab_case_and_found() {
        let mut seen = BTreeSet::new();
        for code in ALL {
            assert!(seen.insert(code.code), "{} twice", code.code);
            assert!(
                code.code
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit())
            );
            assert_eq!(find(code.code), Some(*code));
        }
        assert_eq!(find("healthy"), None, "a verdict is not a code");
    }

    #[test]
    fn every_code_says_how_to_check_and_what_to_do() {
        for code in ALL {
            assert!(!code.meaning.is_empty() && !code.looked_at.is_empty());
            assert!(!code.check.is_empty(), "{}", code.code);
            assert!(
                !code.mitigate.is_empty() || code.severity == Severity::Info,
                "{}",
                code.code
            );
            for other in code.confusable {
                assert!(find(other).is_some(), "{}: {other}", code.code);
                assert_ne!(*other, code.code);
            }
        }
    }

    #[test]
    fn fixes_are_never_sweeping() {
        for fix in ALL.iter().flat_map(|c| c.mitigate) {
            for bad in ["-F", "flush", "delete ns"] {
                assert!(!fix.command.contains(bad), "{}", fix.command);
            }
            let one_entry = ["--orig-src", "--orig-port-src", "--orig-dst"];
            let named = one_entry.iter().all(|part| fix.command.contains(part));
            assert!(
                named || !fix.command.contains("conntrack -D"),
                "{}",
                fix.command
            );
            let edits = [" edit ", " patch ", " delete "]
                .iter()
                .any(|verb| fix.command.contains(verb));
            assert!(!edits || fix.changes == Changes::Cluster, "{}", fix.command);
        }
    }

    #[test]
    fn kubectl_edit_takes_no_selector() {
        for fix in ALL.iter().flat_map(|c| c.mitigate) {
            let edited = fix.command.split_once("kubectl edit").map(|(_, rest)| rest);
            let own = edited.and_then(|rest| rest.split("$(").next());
            assert!(!own.is_some_and(|c| c.contains(" -l ")), "{}", fix.command);
        }
    }

    #[test]
    fn templates_use_only_known_placeholders() {
        let templates: Vec<&str> = ALL
            .iter()
            .flat_map(|c| {
                let checks = c.check.iter().flat_map(|s| [s.text, s.command]);
                checks.chain(c.mitigate.iter().flat_map(|s| [s.text, s.command]))
            })
            .collect();
        let values: Vec<(&str, &str)> = PLACEHOLDERS.iter().map(|(p, _)| (*p, "x")).collect();
        for template in &templates {
            let filled = fill(template, "", &values);
            // What is left of braces must be jsonpath, which a placeholder's name never looks like.
            for (at, _) in filled.match_indices('{') {
                let next = filled[at + 1..].chars().next();
                assert!(
                    next.is_none_or(|c| !c.is_ascii_lowercase()),
                    "unknown placeholder in {template}"
                );
            }
        }
        for (name, _) in PLACEHOLDERS {
            let spelled = format!("{{{name}}}");
            assert!(
                templates.iter().any(|t| t.contains(&spelled)),
                "{name} is never used"
            );
        }
    }

    #[test]
    fn fill_replaces_keeps_json_and_marks_what_is_missing() {
        let cases = [
            ("get svc {svc} -n {ns}", "", "get svc web -n <ns>"),
            (
                "kubectl get svc {svc}",
                "prod",
                "kubectl --context prod get svc web",
            ),
            (
                r#"-p '{"spec":{"a":"{svc}"}}'"#,
                "",
                r#"-p '{"spec":{"a":"web"}}'"#,
            ),
            ("{", "", "{"),
            ("{nonsense}", "", "{nonsense}"),
        ];
        for (template, context, want) in cases {
            assert_eq!(fill(template, context, &[("svc", "web"), ("ns", "")]), want);
        }
    }
}
