//! What the user names on the command line: a Service, a port, a client.

use crate::model::query::{From, Query, Target};
use std::net::{IpAddr, Ipv6Addr};

/// Words that do not name a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{typed}`: {why}")]
pub struct TargetError {
    /// What was typed.
    pub typed: String,
    /// What is wrong with it.
    pub why: String,
}

/// A target, before `-n`, `--port` and the default namespace are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Namespace, where the words name one.
    pub namespace: Option<String>,
    /// Name or address.
    pub target: Target,
    /// Port, where the words name one.
    pub port: Option<u16>,
}

/// Forms of the first argument: `NAME`, `svc/NAME`, `NS/NAME`, `NAME.NS[.svc…]`, an address; each with `:PORT`.
pub fn parse(typed: &str) -> Result<Named, TargetError> {
    if let Some((host, port)) = address(typed)? {
        return Ok(Named {
            namespace: None,
            target: Target::Address(host),
            port,
        });
    }
    let (host, port) = split_port(typed, typed)?;
    let (namespace, name) = match host.split_once('/') {
        Some(("svc" | "service" | "services", name)) => (None, name),
        Some((namespace, name)) => (Some(namespace), name),
        None => match host.split_once('.') {
            Some((name, domain)) => (Some(namespace_of(domain, typed)?), name),
            None => (None, host),
        },
    };
    named(namespace, name, port, typed)
}

/// `--svc`: the same forms, but `svc/NAME` is a Service in the namespace `svc`.
pub fn parse_svc(typed: &str) -> Result<Named, TargetError> {
    match typed.split_once('/') {
        Some((namespace, rest)) => {
            let (name, port) = split_port(rest, typed)?;
            named(Some(namespace), name, port, typed)
        }
        None => parse(typed),
    }
}

/// `--from`.
pub fn parse_from(typed: &str) -> Result<From, TargetError> {
    if typed == "external" {
        return Ok(From::External);
    }
    if let Ok(ip) = typed.parse::<IpAddr>() {
        return Ok(From::Ip(ip.to_canonical()));
    }
    let Some((kind, rest)) = typed.split_once('/') else {
        return Err(error(
            typed,
            "expected pod/NAME, deploy/NAME, ns/NAME, node/NAME, external or an address",
        ));
    };
    // `pod/NS/NAME` names the namespace too.
    let (namespace, name) = match rest.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, rest),
    };
    for part in namespace.iter().chain([&name]) {
        check_subdomain(part, typed)?;
    }
    let namespace = namespace.map(str::to_owned);
    let name = name.to_owned();
    match (kind, &namespace) {
        ("pod" | "pods" | "po", _) => Ok(From::Pod(namespace, name)),
        ("deploy" | "deployment" | "deployments", _) => Ok(From::Deploy(namespace, name)),
        ("ns" | "namespace" | "namespaces", None) => Ok(From::Namespace(name)),
        ("node" | "nodes" | "no", None) => Ok(From::Node(name)),
        _ => Err(error(
            typed,
            "expected pod/NAME, deploy/NAME, ns/NAME, node/NAME, external or an address",
        )),
    }
}

/// Puts the words together: the namespace is the target's, else the one given.
pub fn query(
    named: Named,
    namespace: &str,
    port: Option<u16>,
    from: Option<From>,
) -> Result<Query, TargetError> {
    if let (Some(a), Some(b)) = (named.port, port)
        && a != b
    {
        return Err(TargetError {
            typed: format!("--port {b}"),
            why: format!("the target already names port {a}"),
        });
    }
    check_label(namespace, namespace)?;
    Ok(Query {
        since_ms: None,
        namespace: named.namespace.unwrap_or_else(|| namespace.to_owned()),
        target: named.target,
        port: named.port.or(port),
        from,
        for_ms: 0,
    })
}

/// An address with or without port; `None` if it is not one. IPv6 with a port needs brackets.
fn address(typed: &str) -> Result<Option<(IpAddr, Option<u16>)>, TargetError> {
    if let Ok(ip) = typed.parse::<IpAddr>() {
        return Ok(Some((ip.to_canonical(), None)));
    }
    if let Some(inner) = typed.strip_prefix('[') {
        let (ip, tail) = inner
            .split_once(']')
            .ok_or_else(|| error(typed, "`[` without `]`"))?;
        let ip: Ipv6Addr = ip
            .parse()
            .map_err(|_| error(typed, "no IPv6 address inside the brackets"))?;
        let port = match tail.strip_prefix(':') {
            Some(port) => Some(parse_port(port, typed)?),
            None if tail.is_empty() => None,
            None => return Err(error(typed, "expected `:PORT` after the brackets")),
        };
        return Ok(Some((IpAddr::V6(ip).to_canonical(), port)));
    }
    match typed.rsplit_once(':') {
        Some((host, port)) => match host.parse::<IpAddr>() {
            Ok(ip @ IpAddr::V4(_)) => Ok(Some((ip, Some(parse_port(port, typed)?)))),
            _ if host.contains(':') => Err(error(
                typed,
                "not an address; an IPv6 address with a port is written [ADDRESS]:PORT",
            )),
            _ => Ok(None),
        },
        None => Ok(None),
    }
}

fn split_port<'a>(host: &'a str, typed: &str) -> Result<(&'a str, Option<u16>), TargetError> {
    match host.rsplit_once(':') {
        Some((host, port)) => Ok((host, Some(parse_port(port, typed)?))),
        None => Ok((host, None)),
    }
}

fn parse_port(port: &str, typed: &str) -> Result<u16, TargetError> {
    match port.parse() {
        Ok(0) | Err(_) => Err(error(typed, "a port is a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// The namespace in what follows the first dot: `NS`, `NS.svc`, `NS.svc.cluster.local`, with or without a last dot.
fn namespace_of<'a>(domain: &'a str, typed: &str) -> Result<&'a str, TargetError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let mut labels = domain.split('.');
    let namespace = labels.next().unwrap_or_default();
    match labels.next() {
        None | Some("svc") => Ok(namespace),
        Some(other) => Err(error(
            typed,
            &format!("expected NAME.NAMESPACE.svc, found `{other}` instead of `svc`"),
        )),
    }
}

fn named(
    namespace: Option<&str>,
    name: &str,
    port: Option<u16>,
    typed: &str,
) -> Result<Named, TargetError> {
    check_label(name, typed)?;
    if let Some(namespace) = namespace {
        check_label(namespace, typed)?;
    }
    Ok(Named {
        namespace: namespace.map(str::to_owned),
        target: Target::Name(name.to_owned()),
        port,
    })
}

/// Service and Namespace names are RFC 1123 labels.
fn check_label(name: &str, typed: &str) -> Result<(), TargetError> {
    if name.len() > 63 {
        return Err(error(typed, "a name has at most 63 characters"));
    }
    check_characters(name, typed)
}

/// Pod, Deployment and Node names are RFC 1123 subdomains: labels joined by dots.
fn check_subdomain(name: &str, typed: &str) -> Result<(), TargetError> {
    if name.len() > 253 {
        return Err(error(typed, "a name has at most 253 characters"));
    }
    name.split('.')
        .try_for_each(|label| check_characters(label, typed))
}

fn check_characters(label: &str, typed: &str) -> Result<(), TargetError> {
    if label.is_empty() {
        return Err(error(typed, "a name is missing"));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(bad) = label.chars().find(|c| !allowed(*c)) {
        return Err(error(
            typed,
            &format!("`{bad}` cannot be in a name (lower-case letters, digits and `-` can)"),
        ));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(error(typed, "a name neither starts nor ends with `-`"));
    }
    Ok(())
}

fn error(typed: &str, why: &str) -> TargetError {
    TargetError {
        typed: typed.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;

    fn name(namespace: Option<&str>, name: &str, port: Option<u16>) -> Named {
        Named {
            namespace: namespace.map(Into::into),
            target: Target::Name(name.into()),
            port,
        }
    }

    fn ip(ip: &str, port: Option<u16>) -> Named {
        Named {
            namespace: None,
            target: Target::Address(ip.parse().unwrap()),
            port,
        }
    }

    #[test]
    fn targets() {
        let table = [
            ("web-api", name(None, "web-api", None)),
            ("web-api:8080", name(None, "web-api", Some(8080))),
            ("svc/web-api", name(None, "web-api", None)),
            ("service/web-api:80", name(None, "web-api", Some(80))),
            ("app/web-api", name(Some("app"), "web-api", None)),
            ("web-api.app", name(Some("app"), "web-api", None)),
            ("web-api.app.svc", name(Some("app"), "web-api", None)),
            (
                "web-api.app.svc.cluster.local:8080",
                name(Some("app"), "web-api", Some(8080)),
            ),
            (
                "web-api.app.svc.example.org.",
                name(Some("app"), "web-api", None),
            ),
            ("10.96.12.7", ip("10.96.12.7", None)),
            ("10.96.12.7:53", ip("10.96.12.7", Some(53))),
            ("fd00::7", ip("fd00::7", None)),
            ("[fd00::7]", ip("fd00::7", None)),
            ("[fd00::7]:53", ip("fd00::7", Some(53))),
            ("::ffff:10.96.12.7", ip("10.96.12.7", None)),
            ("0-day", name(None, "0-day", None)),
        ];
        for (typed, want) in table {
            assert_eq!(parse(typed), Ok(want), "{typed}");
        }
    }

    #[test]
    fn bad_targets() {
        let long = "a".repeat(64);
        let table = [
            ("", "missing"),
            ("app/", "missing"),
            ("/web", "missing"),
            ("web.", "missing"),
            ("Web", "`W`"),
            ("web_api", "`_`"),
            ("-web", "neither starts"),
            ("a/b/c", "`/`"),
            ("web:0", "1 to 65535"),
            ("web:http", "1 to 65535"),
            ("web:70000", "1 to 65535"),
            ("10.96.12.7:x", "1 to 65535"),
            ("10.96.12.7.9.1", "found `12`"),
            ("web.app.pod.cluster.local", "found `pod`"),
            ("[fd00::7", "without `]`"),
            ("[10.0.0.1]:80", "no IPv6"),
            ("[fd00::7]80", "expected `:PORT`"),
            ("fd00::7::80", "[ADDRESS]:PORT"),
            (&long, "63"),
        ];
        for (typed, want) in table {
            let e = parse(typed).unwrap_err();
            assert!(e.to_string().contains(want), "{typed}: {e}");
        }
    }

    #[test]
    fn svc_option_takes_the_first_part_for_a_namespace() {
        assert_eq!(parse_svc("svc/web"), Ok(name(Some("svc"), "web", None)));
        assert_eq!(parse_svc("web"), Ok(name(None, "web", None)));
        assert_eq!(
            parse_svc("app/web:80"),
            Ok(name(Some("app"), "web", Some(80)))
        );
        for typed in ["web:80", "web.app", "web.app.svc:80", "10.96.12.7:53"] {
            assert_eq!(parse_svc(typed), parse(typed), "{typed}");
        }
        assert!(parse_svc("a/b/c").is_err());
    }

    #[test]
    fn clients() {
        let table = [
            ("pod/web-0", From::Pod(None, "web-0".into())),
            (
                "pod/app/web-0",
                From::Pod(Some("app".into()), "web-0".into()),
            ),
            ("deploy/web.v2", From::Deploy(None, "web.v2".into())),
            ("ns/app", From::Namespace("app".into())),
            ("node/ip-10-0-0-1.ec2", From::Node("ip-10-0-0-1.ec2".into())),
            ("external", From::External),
            ("10.1.2.3", From::Ip("10.1.2.3".parse().unwrap())),
        ];
        for (typed, want) in table {
            assert_eq!(parse_from(typed), Ok(want), "{typed}");
        }
        for typed in ["web", "pod/", "sts/web", "ns/a/b", "10.1.2", "pod/A"] {
            assert!(parse_from(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn namespace_and_port_come_from_the_target_first() {
        let q = |typed: &str, ns, port| query(parse(typed).unwrap(), ns, port, None);
        let got = q("web.app:80", "other", Some(80)).unwrap();
        assert_eq!((got.namespace.as_str(), got.port), ("app", Some(80)));
        assert_eq!(q("web", "other", None).unwrap().namespace, "other");
        assert_eq!(q("web", "default", Some(9)).unwrap().namespace, "default");
        assert!(q("web:80", "default", Some(81)).is_err());
        assert!(q("web", "Other", None).is_err());
    }
}
