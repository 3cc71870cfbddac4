//! What to ask a node for, given the objects and a query.

use crate::model::Proto;
use crate::model::objects::{Objects, Pod, Service};
use crate::model::query::{From, Query, Target};
use crate::model::resolve;
use crate::model::source::Ask;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Which Node this is: the one with an `InternalIP` among the local addresses, else with any other address there, else
/// the one whose hostNetwork Pods have one. Loopback addresses tell nothing.
pub fn this_node(objects: &Objects, local: &[IpAddr]) -> Option<String> {
    let is_local = |ip: &IpAddr| !ip.is_loopback() && local.contains(ip);
    let internal = objects
        .nodes
        .iter()
        .find(|n| n.internal_ips.iter().any(is_local));
    let other = || {
        let mut nodes = objects.nodes.iter();
        nodes.find(|n| n.other_ips.iter().any(is_local))
    };
    if let Some(node) = internal.or_else(other) {
        return Some(node.name.clone());
    }
    objects
        .pods
        .iter()
        .filter(|p| p.host_network && !p.is_finished())
        .find(|p| p.ips.iter().any(is_local))
        .and_then(|p| p.node.clone().map(String::from))
}

/// The facts that explain a Service on `node`: rules for every way to it, conntrack entries of it and of what is behind
/// it, the inside of its Pods that run here and, where the query names them, of its clients.
pub fn ask(objects: &Objects, query: &Query, node: Option<&str>) -> Ask {
    let mut ask = match resolve::resolve(objects, query) {
        Ok(service) => about(objects, service, query, node),
        Err(_) => unclaimed(query),
    };
    if let Some(from) = &query.from {
        let clients = objects.pods.iter().filter(|p| is_client(p, query, from));
        let here = clients.filter(|p| runs_on(p.node.as_deref(), node));
        ask.pods.extend(here.flat_map(addresses));
    }
    ask.pods.sort_unstable();
    ask.pods.dedup();
    ask
}

/// Addresses of the Pods placed on a node, those on its own network left out: whose packets are its own.
pub fn pods_of(objects: &Objects, node: &str) -> Vec<IpAddr> {
    let pods = objects.pods.iter();
    pods.filter(|p| !p.host_network && p.node.as_deref() == Some(node))
        .flat_map(addresses)
        .collect()
}

fn about(objects: &Objects, service: &Service, query: &Query, node: Option<&str>) -> Ask {
    let mut ports: BTreeSet<(u16, Proto)> =
        service.ports.iter().map(|p| (p.port, p.proto)).collect();
    // A port that the Service does not have is asked about too: is there a rule that rejects it?
    if let Some(port) = query.port
        && !service
            .ports
            .iter()
            .any(|p| p.port == port || p.node_port == Some(port))
    {
        ports.insert((port, Proto::TCP));
    }
    let vips: BTreeSet<IpAddr> = service.addresses().collect();
    let mut behind = BTreeSet::new();
    let mut here = BTreeSet::new();
    for endpoint in objects.slices_of(service).flat_map(|s| &s.endpoints) {
        behind.extend(&endpoint.addresses);
        if runs_on(endpoint.node.as_deref(), node) {
            here.extend(&endpoint.addresses);
        }
    }
    for pod in objects.pods.iter().filter(|p| service.selects(p)) {
        behind.extend(addresses(pod));
        if runs_on(pod.node.as_deref(), node) {
            here.extend(addresses(pod));
        }
    }
    Ask {
        vips: vips
            .iter()
            .flat_map(|ip| ports.iter().map(|(port, proto)| (*ip, *port, *proto)))
            .collect(),
        node_ports: service
            .ports
            .iter()
            .filter_map(|p| Some((p.node_port?, p.proto)))
            .collect(),
        conntrack: vips.union(&behind).copied().collect(),
        pods: here.into_iter().collect(),
    }
}

/// About an address that no Service has: a rule may still translate it.
fn unclaimed(query: &Query) -> Ask {
    let Target::Address(ip) = query.target else {
        return Ask::default();
    };
    let both = [Proto::TCP, Proto::UDP];
    Ask {
        vips: query
            .port
            .into_iter()
            .flat_map(|port| both.map(|proto| (ip, port, proto)))
            .collect(),
        conntrack: vec![ip],
        ..Ask::default()
    }
}

/// Where it is not said, it may be anywhere.
fn runs_on(placed: Option<&str>, node: Option<&str>) -> bool {
    match (placed, node) {
        (Some(placed), Some(node)) => placed == node,
        _ => true,
    }
}

/// Addresses that a Pod has now; a finished one gave its own back.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    pod.ips.iter().copied().filter(|_| !pod.is_finished())
}

fn is_client(pod: &Pod, query: &Query, from: &From) -> bool {
    let in_namespace = |given: &Option<String>| {
        let namespace = given.as_ref().unwrap_or(&query.namespace);
        pod.namespace == *namespace
    };
    match from {
        From::Pod(namespace, name) => in_namespace(namespace) && pod.name == *name,
        From::Deploy(namespace, name) => in_namespace(namespace) && pod.is_of_deployment(name),
        From::Namespace(namespace) => pod.namespace == *namespace,
        From::Node(node) => pod.node.as_deref() == Some(node),
        From::Ip(ip) => pod.ips.contains(ip),
        From::External => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::{Endpoint, EndpointSlice, Labels, Node, ServicePort, TargetPort};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    fn pod(name: &str, address: &str, node: &str, app: &str) -> Pod {
        Pod {
            namespace: "app".into(),
            name: name.into(),
            labels: Labels::from([("app".to_owned(), app.to_owned())]),
            ips: vec![ip(address)],
            node: Some(node.into()),
            owner: Some(format!("ReplicaSet/{app}-6c9f7").into()),
            ..Pod::default()
        }
    }

    fn endpoint(address: &str, node: Option<&str>) -> Endpoint {
        Endpoint {
            addresses: vec![ip(address)],
            node: node.map(Into::into),
            ..Endpoint::default()
        }
    }

    fn objects() -> Objects {
        let port = |number, proto, node_port| ServicePort {
            name: String::new(),
            proto,
            port: number,
            target: TargetPort::Number(number),
            node_port,
        };
        let mut done = pod("done", "10.1.1.9", "n1", "web");
        done.phase = "Failed".into();
        let mut agent = pod("agent", "192.0.2.3", "n3", "agent");
        agent.host_network = true;
        Objects {
            services: vec![Service {
                namespace: "app".into(),
                name: "web".into(),
                cluster_ips: vec![ip("10.96.0.1"), ip("fd00::1")],
                external_ips: vec![ip("198.51.100.1")],
                ports: vec![
                    port(80, Proto::TCP, Some(30_080)),
                    port(53, Proto::UDP, None),
                ],
                selector: Some(Labels::from([("app".to_owned(), "web".to_owned())])),
                ..Service::default()
            }]
            .into(),
            slices: vec![EndpointSlice {
                namespace: "app".into(),
                name: "web-x".into(),
                service: "web".into(),
                by_controller: false,
                ports: vec![],
                endpoints: vec![
                    endpoint("10.1.1.1", Some("n1")),
                    endpoint("10.1.2.1", Some("n2")),
                    endpoint("10.1.9.1", None),
                ],
            }]
            .into(),
            pods: vec![
                pod("web-0", "10.1.1.1", "n1", "web"),
                pod("web-1", "10.1.1.2", "n1", "web"),
                pod("web-2", "10.1.2.1", "n2", "web"),
                pod("client-0", "10.1.1.5", "n1", "client"),
                pod("client-1", "10.1.2.5", "n2", "client"),
                done,
                agent,
            ]
            .into(),
            nodes: vec![
                Node {
                    name: "n1".into(),
                    internal_ips: vec![ip("192.0.2.1")],
                    ..Node::default()
                },
                Node {
                    name: "n2".into(),
                    internal_ips: vec![ip("192.0.2.2")],
                    other_ips: vec![ip("198.51.100.2")],
                    ..Node::default()
                },
            ]
            .into(),
            ..Objects::default()
        }
    }

    fn query() -> Query {
        Query {
            namespace: "app".into(),
            target: Target::Name("web".into()),
            ..Query::default()
        }
    }

    fn texts(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_to_a_service() {
        let ask = ask(&objects(), &query(), Some("n1"));
        assert_eq!(ask.vips.len(), 6);
        assert!(ask.vips.contains(&(ip("fd00::1"), 53, Proto::UDP)));
        assert!(ask.vips.contains(&(ip("198.51.100.1"), 80, Proto::TCP)));
        assert_eq!(ask.node_ports, [(30_080, Proto::TCP)]);
        let wanted = [
            "10.1.1.1",
            "10.1.1.2",
            "10.1.2.1",
            "10.1.9.1",
            "10.96.0.1",
            "198.51.100.1",
            "fd00::1",
        ];
        assert_eq!(texts(&ask.conntrack), wanted);
        assert_eq!(texts(&ask.pods), ["10.1.1.1", "10.1.1.2", "10.1.9.1"]);
    }

    #[test]
    fn a_node_that_is_not_known_may_hold_every_pod() {
        let ask = ask(&objects(), &query(), None);
        let wanted = ["10.1.1.1", "10.1.1.2", "10.1.2.1", "10.1.9.1"];
        assert_eq!(texts(&ask.pods), wanted);
    }

    #[test]
    fn clients_where_the_query_names_them() {
        let pods = |from| {
            let query = Query {
                from: Some(from),
                ..query()
            };
            let found = ask(&objects(), &query, Some("n1")).pods;
            texts(&found).contains(&"10.1.1.5".to_owned())
        };
        let app = || Some("app".to_owned());
        assert!(pods(From::Pod(None, "client-0".into())));
        assert!(pods(From::Deploy(app(), "client".into())));
        assert!(pods(From::Namespace("app".into())));
        assert!(pods(From::Node("n1".into())));
        assert!(pods(From::Ip(ip("10.1.1.5"))));
        assert!(!pods(From::Pod(Some("shop".into()), "client-0".into())));
        assert!(!pods(From::Pod(None, "client-1".into())));
        assert!(!pods(From::Deploy(None, "cli".into())));
        assert!(!pods(From::External));
    }

    #[test]
    fn ports_and_addresses_that_no_service_has() {
        let undefined = Query {
            port: Some(8080),
            ..query()
        };
        let found = ask(&objects(), &undefined, None);
        assert!(found.vips.contains(&(ip("10.96.0.1"), 8080, Proto::TCP)));
        let stranger = Query {
            target: Target::Address(ip("10.96.0.77")),
            port: Some(443),
            ..query()
        };
        let found = ask(&objects(), &stranger, None);
        assert_eq!(found.vips[0], (ip("10.96.0.77"), 443, Proto::TCP));
        assert_eq!(texts(&found.conntrack), ["10.96.0.77"]);
        let nobody = Query {
            target: Target::Name("none".into()),
            ..query()
        };
        assert_eq!(ask(&objects(), &nobody, None), Ask::default());
    }

    #[test]
    fn a_node_knows_itself_by_its_addresses() {
        let objects = objects();
        let node = |local: &[&str]| {
            let local: Vec<_> = local.iter().map(|l| ip(l)).collect();
            this_node(&objects, &local)
        };
        assert_eq!(node(&["127.0.0.1", "192.0.2.1"]).as_deref(), Some("n1"));
        assert_eq!(node(&["198.51.100.2"]).as_deref(), Some("n2"));
        assert_eq!(node(&["192.0.2.3"]).as_deref(), Some("n3"));
        assert_eq!(node(&["10.1.1.1"]), None);
        assert_eq!(node(&[]), None);
    }

    #[test]
    fn a_nodes_own_pods() {
        let wanted = ["10.1.1.1", "10.1.1.2", "10.1.1.5"];
        assert_eq!(texts(&pods_of(&objects(), "n1")), wanted);
        assert!(pods_of(&objects(), "n3").is_empty());
    }
}
