//! What a query means among the objects there are.

use super::objects::{Objects, Service};
use super::query::{Query, Target};
use super::spelling;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// How many names are offered for one that does not exist.
const OFFERED: usize = 3;

/// A query names no Service. Displays as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    /// The namespace has no such Service.
    Name {
        /// Namespace asked.
        namespace: String,
        /// Name asked.
        name: String,
        /// Names in that namespace that may be meant, nearest first.
        near: Vec<String>,
        /// Other namespaces that have a Service of this very name.
        elsewhere: Vec<String>,
    },
    /// No object is in such a namespace.
    Namespace {
        /// Namespace asked.
        namespace: String,
        /// Namespaces that may be meant: those with a Service of this name, then by spelling.
        near: Vec<String>,
    },
    /// No Service has this address.
    Address(IpAddr),
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFound::Name {
                namespace,
                name,
                near,
                elsewhere,
            } => {
                write!(f, "namespace {namespace} has no Service {name}")?;
                let near = near.iter().map(|n| format!("{namespace}/{n}"));
                let elsewhere = elsewhere.iter().map(|n| format!("{n}/{name}"));
                offer(f, &near.chain(elsewhere).collect::<Vec<_>>())
            }
            NotFound::Namespace { namespace, near } => {
                write!(f, "there is no namespace {namespace}")?;
                offer(f, near)
            }
            NotFound::Address(ip) => write!(f, "no Service has the address {ip}"),
        }
    }
}

fn offer(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "; nearest: {}", names.join(", "))
}

/// The Service that a query means: by name, by one of its addresses, or by a Node's address and a NodePort.
pub fn resolve<'a>(objects: &'a Objects, query: &Query) -> Result<&'a Service, NotFound> {
    match &query.target {
        Target::Name(name) => objects
            .service(&query.namespace, name)
            .ok_or_else(|| missing(objects, &query.namespace, name)),
        Target::Address(ip) => {
            let ip = ip.to_canonical();
            objects
                .service_at(ip)
                .or_else(|| behind_node_port(objects, ip, query.port?))
                .ok_or(NotFound::Address(ip))
        }
    }
}

fn behind_node_port(objects: &Objects, ip: IpAddr, port: u16) -> Option<&Service> {
    objects.node_at(ip)?;
    objects
        .services
        .iter()
        .find(|s| s.ports.iter().any(|p| p.node_port == Some(port)))
}

fn missing(objects: &Objects, namespace: &str, name: &str) -> NotFound {
    let elsewhere: BTreeSet<&str> = objects
        .services
        .iter()
        .filter(|s| s.name == name)
        .map(|s| s.namespace.as_str())
        .collect();
    let known = namespaces(objects);
    if !known.contains(namespace) {
        let mut near: Vec<String> = elsewhere.iter().map(|n| (*n).to_owned()).collect();
        let spelt = nearest(namespace, known.difference(&elsewhere).copied());
        near.extend(spelt);
        near.truncate(OFFERED);
        return NotFound::Namespace {
            namespace: namespace.to_owned(),
            near,
        };
    }
    let siblings = objects.services.iter().filter(|s| s.namespace == namespace);
    NotFound::Name {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        near: nearest(name, siblings.map(|s| s.name.as_str())),
        elsewhere: elsewhere
            .into_iter()
            .take(OFFERED)
            .map(ToOwned::to_owned)
            .collect(),
    }
}

/// Every namespace that an object shows, whether or not its own object is there.
fn namespaces(objects: &Objects) -> BTreeSet<&str> {
    let own = objects.namespaces.iter().map(|n| n.name.as_str());
    let services = objects.services.iter().map(|s| s.namespace.as_str());
    let pods = objects.pods.iter().map(|p| p.namespace.as_str());
    own.chain(services).chain(pods).collect()
}

/// Names spelt like `wanted`, nearest first.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<_> = names
        .filter(|n| spelling::alike(wanted, n))
        .map(|n| (spelling::distance(wanted, n), n))
        .collect();
    near.sort_unstable();
    near.into_iter()
        .take(OFFERED)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;
    use crate::model::objects::{Namespace, Node, ServicePort, TargetPort};

    fn objects() -> Objects {
        let service = |namespace: &str, name: &str, last: u8| Service {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ips: vec![[10, 96, 0, last].into()],
            ports: vec![ServicePort {
                name: String::new(),
                proto: Proto::TCP,
                port: 80,
                target: TargetPort::Number(80),
                node_port: (last == 1).then_some(30_080),
            }],
            ..Service::default()
        };
        Objects {
            services: vec![
                service("app", "web-api", 1),
                service("app", "web-admin", 2),
                service("shop", "web", 3),
                service("shop", "redis", 4),
            ]
            .into(),
            namespaces: vec![Namespace {
                name: "empty".into(),
                ..Namespace::default()
            }]
            .into(),
            nodes: vec![Node {
                name: "n1".into(),
                internal_ips: vec![[192, 0, 2, 1].into()],
                ..Node::default()
            }]
            .into(),
            ..Objects::default()
        }
    }

    fn by_name(namespace: &str, name: &str) -> Query {
        Query {
            namespace: namespace.into(),
            target: Target::Name(name.into()),
            ..Query::default()
        }
    }

    fn by_address(ip: [u8; 4], port: Option<u16>) -> Query {
        Query {
            target: Target::Address(ip.into()),
            port,
            ..Query::default()
        }
    }

    #[test]
    fn services_by_name_address_and_node_port() {
        let objects = objects();
        let name = |query| resolve(&objects, &query).ok().map(|s| s.name.clone());
        assert_eq!(name(by_name("app", "web-api")).as_deref(), Some("web-api"));
        assert_eq!(name(by_name("shop", "web-api")), None);
        assert_eq!(
            name(by_address([10, 96, 0, 4], None)).as_deref(),
            Some("redis")
        );
        let node = |port| by_address([192, 0, 2, 1], port);
        assert_eq!(name(node(Some(30_080))).as_deref(), Some("web-api"));
        assert_eq!(name(node(Some(30_081))), None);
        assert_eq!(name(node(None)), None);
        assert_eq!(name(by_address([10, 96, 0, 9], Some(30_080))), None);
    }

    #[test]
    fn what_does_not_exist_is_told_with_what_may_be_meant() {
        let objects = objects();
        let table = [
            (
                by_name("app", "web-apl"),
                "namespace app has no Service web-apl; nearest: app/web-api",
            ),
            (
                by_name("app", "redis"),
                "namespace app has no Service redis; nearest: shop/redis",
            ),
            (
                by_name("app", "web"),
                "namespace app has no Service web; nearest: app/web-api, app/web-admin, shop/web",
            ),
            (
                by_name("empty", "payments"),
                "namespace empty has no Service payments",
            ),
            (
                by_name("ap", "web"),
                "there is no namespace ap; nearest: shop, app",
            ),
            (by_name("none", "none"), "there is no namespace none"),
            (
                by_address([10, 96, 0, 9], None),
                "no Service has the address 10.96.0.9",
            ),
        ];
        for (query, wanted) in table {
            let told = resolve(&objects, &query).err().map(|e| e.to_string());
            assert_eq!(told.as_deref(), Some(wanted));
        }
    }
}
