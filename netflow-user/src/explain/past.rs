//! What the objects said of the Service at an earlier time.

use super::datagrams::DOMAIN;
use crate::model::Time;
use crate::model::objects::{Node, Objects};
use crate::model::query::{Query, Target};
use crate::model::resolve::resolve;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// So long after a change of the slices a proxy may still send to what was an endpoint before. kube-proxy writes rules
/// at most once per `minSyncPeriod`, 1 s by default (kubernetes/pkg/proxy/apis/config/v1alpha1/defaults.go), and on a
/// big cluster a write takes as long again; clocks of nodes and of the source of objects differ by less than the rest.
pub const PROXY_LAG: Duration = Duration::from_secs(3);

/// Versions kept; of a Service that changes more often the oldest are forgotten.
const MOST: usize = 256;

/// Versions of the objects by time, each reduced to what decides where the Service leads.
#[derive(Debug, Default)]
pub struct Past {
    versions: Vec<Objects>,
    /// The same of the Services that answer DNS, by their first address.
    resolvers: BTreeMap<IpAddr, Past>,
}

impl Past {
    /// Takes in a version. Recordings of several nodes come one after the other, so it may be older than the last.
    pub fn learn(&mut self, objects: &Objects, query: &Query) {
        self.learn_one(objects, query);
        for (ip, query) in resolvers(objects, query) {
            let resolver = self.resolvers.entry(ip).or_default();
            resolver.learn_one(objects, &query);
        }
    }

    /// What was said of the Service that answers DNS at this address.
    pub fn of_resolver(&self, ip: IpAddr) -> Option<&Past> {
        self.resolvers.get(&ip)
    }

    fn learn_one(&mut self, objects: &Objects, query: &Query) {
        let version = reduced(objects, query);
        let place = self.versions.partition_point(|v| v.time <= version.time);
        let says_the_same = |other: &Objects| {
            let time = version.time;
            Objects {
                time,
                ..other.clone()
            } == version
        };
        if place > 0 && says_the_same(&self.versions[place - 1]) {
            return;
        }
        if let Some(next) = self.versions.get_mut(place)
            && says_the_same(next)
        {
            next.time = version.time;
            return;
        }
        self.versions.insert(place, version);
        if self.versions.len() > MOST {
            self.versions.remove(0);
        }
    }

    /// The versions that were in force at some moment from `from` to `to`, oldest first. The first one also stands for
    /// the time before it was read.
    pub fn between(&self, from: Time, to: Time) -> &[Objects] {
        let first = self.versions.partition_point(|v| v.time <= from);
        let end = self.versions.partition_point(|v| v.time <= to);
        let first = first.saturating_sub(1);
        &self.versions[first..end.max(first + 1).min(self.versions.len())]
    }

    /// The versions in force at `from` and after.
    pub fn since(&self, from: Time) -> &[Objects] {
        let first = self.versions.partition_point(|v| v.time <= from);
        &self.versions[first.saturating_sub(1)..]
    }
}

/// The Services that answer DNS, each by its first address, and how it is asked about.
fn resolvers<'a>(
    objects: &'a Objects,
    query: &'a Query,
) -> impl Iterator<Item = (IpAddr, Query)> + 'a {
    let services = objects.services.iter();
    let answering = services.filter(|s| s.ports.iter().any(|p| p.port == DOMAIN));
    answering.filter_map(|s| {
        let ip = *s.cluster_ips.first()?;
        let query = Query {
            target: Target::Address(ip),
            port: Some(DOMAIN),
            ..query.clone()
        };
        Some((ip, query))
    })
}

/// The Service asked about, its slices, the Pods of its namespace, and where the nodes are.
fn reduced(objects: &Objects, query: &Query) -> Objects {
    let Ok(service) = resolve(objects, query) else {
        return Objects {
            time: objects.time,
            ..Objects::default()
        };
    };
    let of_namespace = objects.pods.iter();
    let node = |n: &Node| Node {
        name: n.name.clone(),
        labels: n.labels.clone(),
        ..Node::default()
    };
    Objects {
        time: objects.time,
        services: vec![service.clone()].into(),
        slices: objects.slices_of(service).cloned().collect(),
        pods: of_namespace
            .filter(|p| p.namespace == service.namespace)
            .cloned()
            .collect(),
        nodes: objects.nodes.iter().map(node).collect(),
        unknown_kinds: objects.unknown_kinds.clone(),
        ..Objects::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::{EndpointSlice, Service};
    use crate::model::query::Target;

    fn version(at: u64, slices: &[&str]) -> Objects {
        let slice = |name: &&str| EndpointSlice {
            namespace: "app".into(),
            name: (*name).into(),
            service: "web".into(),
            ..EndpointSlice::default()
        };
        Objects {
            time: Time(at),
            services: vec![Service {
                namespace: "app".into(),
                name: "web".into(),
                ..Service::default()
            }]
            .into(),
            slices: slices.iter().map(slice).collect(),
            ..Objects::default()
        }
    }

    #[test]
    fn versions_in_force_whatever_the_order_of_reading() {
        let query = Query {
            namespace: "app".into(),
            target: Target::Name("web".into()),
            ..Query::default()
        };
        let mut past = Past::default();
        for v in [
            version(30, &["b"]),
            version(10, &["a"]),
            version(20, &["a"]),
            version(50, &["c"]),
            version(40, &["c"]),
        ] {
            past.learn(&v, &query);
        }
        let names =
            |all: &[Objects]| -> String { all.iter().map(|v| v.slices[0].name.as_str()).collect() };
        let between = |from, to| names(past.between(Time(from), Time(to)));
        assert_eq!(between(0, 5), "a", "the first stands for what was before");
        assert_eq!(between(10, 29), "a", "the same twice is one version");
        assert_eq!(between(10, 30), "ab");
        assert_eq!(between(45, 60), "c");
        assert_eq!(names(past.since(Time(35))), "bc");
        assert_eq!(names(past.since(Time(0))), "abc");
    }

    #[test]
    fn nothing_learned_is_no_version() {
        assert!(Past::default().between(Time(1), Time(2)).is_empty());
        assert!(Past::default().since(Time(1)).is_empty());
    }
}
