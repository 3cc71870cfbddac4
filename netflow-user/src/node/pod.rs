//! What is read inside the network namespace of a Pod.

use super::conntrack;
use super::netlink::Netlink;
use super::{Wanted, counters, links, neighbors, routes, rules, sockets};
use crate::model::Time;
use crate::model::conntrack::CtEntry;
use crate::model::node::{PodNetns, RouteLookup, Unread};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A Pod's own conntrack table is read up to this many entries: only a mesh fills one.
const REDIRECTS_WITHIN: u64 = 65_536;

/// Reads the namespace that the calling thread is in into `pod`, whose number and addresses are known.
pub fn read(pod: &mut PodNetns, wanted: &Wanted, unread: &mut Vec<Unread>) -> Vec<RouteLookup> {
    let name = pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let name = name.join(", ");
    let mut missing = |what: &str, why: &dyn std::fmt::Display| {
        unread.push(Unread {
            what: format!("{what} of {name}"),
            why: why.to_string(),
        });
    };
    let mut lookups = Vec::new();
    match Netlink::open(libc::NETLINK_ROUTE) {
        Ok(mut route) => {
            match links::interfaces(&mut route) {
                Ok(all) => pod.links = all.into_iter().map(|i| i.link).collect(),
                Err(e) => missing("links", &e),
            }
            match routes::routes(&mut route) {
                Ok(all) => pod.routes = wanted.relevant(all),
                Err(e) => missing("routes", &e),
            }
            match neighbors::neighbors(&mut route) {
                Ok(all) => pod.neighbors = all,
                Err(e) => missing("neighbours", &e),
            }
            match wanted.lookups(&mut route, pod.netns, &pod.ips) {
                Ok(all) => lookups = all,
                Err(e) => missing("route lookups", &e),
            }
        }
        Err(e) => missing("links and routes", &e),
    }
    match sockets::read(&wanted.addresses) {
        // What is less than it could be is the same everywhere, and the node's own part says it.
        Ok(found) => {
            pod.listeners = found.listeners;
            pod.sockets = found.connected;
        }
        Err(e) => missing("sockets", &e),
    }
    match counters::read() {
        Ok(all) => pod.counters = all,
        Err(e) => missing("counters", &e),
    }
    let (firewall, unread_rules) = rules::firewall();
    pod.firewall = firewall;
    for part in unread_rules {
        missing(&part.what, &part.why);
    }
    pod.redirects = redirects(&pod.ips);
    lookups
}

/// Local ports to which connections of the Pod are redirected: a sidecar's. Only conntrack tells, and only while
/// there are connections.
fn redirects(ips: &[IpAddr]) -> Vec<SocketAddr> {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    let count = count.ok().and_then(|n| n.trim().parse::<u64>().ok());
    if !count.is_some_and(|n| (1..=REDIRECTS_WITHIN).contains(&n)) {
        return Vec::new();
    }
    let mut local: BTreeSet<IpAddr> = ips.iter().copied().collect();
    local.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
    let read = conntrack::Reader::default()
        .read(&local, Time::default())
        .unwrap_or_default();
    redirect_targets(&read.table.entries, &local)
}

fn redirect_targets(entries: &[CtEntry], local: &BTreeSet<IpAddr>) -> Vec<SocketAddr> {
    let redirected = entries
        .iter()
        .filter(|e| e.tuples.is_dnat() && local.contains(&e.tuples.reply.src))
        .map(|e| e.tuples.reply.source());
    redirected.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CtStatus, CtTuples, Proto, Tuple};

    fn entry(dst: ([u8; 4], u16), reply_from: ([u8; 4], u16)) -> CtEntry {
        let tuple = |src: [u8; 4], sport, dst: [u8; 4], dport| Tuple {
            proto: Proto::TCP,
            src: src.into(),
            sport,
            dst: dst.into(),
            dport,
        };
        let client = ([10, 0, 0, 9], 40_000);
        CtEntry {
            tuples: CtTuples {
                orig: tuple(client.0, client.1, dst.0, dst.1),
                reply: tuple(reply_from.0, reply_from.1, client.0, client.1),
                status: CtStatus::default(),
                zone: 0,
                mark: 0,
                info: 0,
            },
            id: 1,
            timeout_secs: 1,
            tcp_state: None,
        }
    }

    #[test]
    fn only_what_is_sent_to_the_pod_itself_is_a_redirect() {
        let pod = [10, 0, 0, 2];
        let local = [IpAddr::from(pod), IpAddr::from([127, 0, 0, 1])].into();
        let entries = [
            entry((pod, 8080), (pod, 8080)),
            entry((pod, 8080), (pod, 15_006)),
            entry(([10, 96, 0, 1], 80), ([127, 0, 0, 1], 15_001)),
            entry(([10, 96, 0, 1], 80), ([127, 0, 0, 1], 15_001)),
            entry(([10, 96, 0, 1], 80), ([10, 0, 0, 7], 8080)),
        ];
        let targets = redirect_targets(&entries, &local);
        let expected = ["10.0.0.2:15006", "127.0.0.1:15001"];
        let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
        assert_eq!(targets, expected);
    }
}
