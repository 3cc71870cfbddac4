//! Entry to the private readers of `node/` for [`crate::fuzz`].

use super::netlink::Parts;
use super::rules;
use super::{conntrack, links, neighbors, routes, sockets, wireguard};
use crate::model::Proto;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
fn wanted() -> BTreeSet<IpAddr> {
    [
        Ipv4Addr::new(10, 96, 0, 1).into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
    ]
    .into()
}

/// A datagram of rtnetlink, conntrack, `sock_diag` or WireGuard.
pub fn netlink(datagram: &[u8]) {
    let wanted = wanted();
    for part in Parts(datagram) {
        let message = &part.message;
        part.error();
        links::interface(message);
        links::assigned(message);
        for family in [2, 10] {
            neighbors::neighbor(message, family);
        }
        neighbors::tunnel_peer(message);
        wireguard::family_id(message);
        wireguard::device(message);
        if let Some(route) = routes::Answer::read(message).map(routes::Answer::into_route) {
            for ip in &wanted {
                routes::covers(&route, *ip);
            }
        }
        conntrack::totals(message);
        conntrack::entry(message, &wanted);
        for proto in [Proto::TCP, Proto::UDP] {
            sockets::socket(message, proto, &wanted);
        }
    }
}

/// Text of `/proc`.
pub fn text(text: &str) {
    let wanted = wanted();
    sockets::port_range(text);
    for line in text.lines() {
        for proto in [Proto::TCP, Proto::UDP] {
            sockets::line_socket(line, proto, &wanted);
        }
    }
    rules::fuzz::ipvs(text);
}
