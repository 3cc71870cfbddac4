//! Routes, neighbours and what the IP layer refuses.

use super::{At, Expect, Fault, Form, Vantage, beyond};
use crate::lab::cidr::Cidr;
use crate::lab::plan::{Family, Network, Placement, Plan, PodPlan, Shape};
use crate::lab::{between, pods};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Site, Step, Tweak, World};
use anyhow::Result;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(super) const ALL: &[&dyn Fault] = &[
    &Broken(Kind::NoRoute),
    &Broken(Kind::NoRouteBack),
    &Broken(Kind::Blackhole),
    &Broken(Kind::RouterHasNoRoute),
    &Broken(Kind::ClientHasNoRoute),
    &Broken(Kind::ForwardingDisabled),
    &Broken(Kind::ForwardingDisabledUplink),
    &Broken(Kind::GatewaySilent),
    &Broken(Kind::PodSilent),
    &Broken(Kind::NeighborStale),
    &Broken(Kind::AsymmetricReturn),
    &Broken(Kind::BadChecksum),
    &Overlay(Cut::PeerLost),
    &Overlay(Cut::PortBlocked),
    &Near(Unrelated::Forwarding),
    &Near(Unrelated::ReversePath),
    &Near(Unrelated::Neighbors),
];

/// Labs in such places, with such networks.
pub(super) fn shapes(placements: &[Placement], networks: &[Network]) -> Vec<Shape> {
    let fits = |s: &Shape| placements.contains(&s.placement) && networks.contains(&s.network);
    Shape::all().into_iter().filter(fits).collect()
}

/// Those of them that have IPv4 alone: what is broken is something that IPv6 does not have.
pub(super) fn of_ipv4(mut shapes: Vec<Shape>) -> Vec<Shape> {
    shapes.retain(|s| s.family == Family::Ipv4);
    shapes
}

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    NoRoute,
    NoRouteBack,
    Blackhole,
    RouterHasNoRoute,
    ClientHasNoRoute,
    ForwardingDisabled,
    ForwardingDisabledUplink,
    GatewaySilent,
    PodSilent,
    NeighborStale,
    AsymmetricReturn,
    BadChecksum,
}

struct Broken(Kind);

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Kind::NoRoute
            | Kind::NoRouteBack
            | Kind::Blackhole
            | Kind::RouterHasNoRoute
            | Kind::ClientHasNoRoute => "no-route",
            Kind::ForwardingDisabled | Kind::ForwardingDisabledUplink => "forwarding-disabled",
            Kind::GatewaySilent | Kind::PodSilent => "neighbor-failed",
            Kind::NeighborStale => "neighbor-stale",
            Kind::AsymmetricReturn => "asymmetric-return",
            Kind::BadChecksum => "bad-checksum",
        }
    }
}

fn ip(line: String) -> Step {
    Step::Ip(line)
}

/// Routes of node `n` to the other node's Pods and to everywhere are lost.
fn without_routes(plan: &Plan, n: usize) -> Tweak {
    let default = format!("default via {}", plan.nodes[n].gateway);
    let routes = [default, between::route_to_other(plan, n)];
    let each = |verb: &str| {
        let line = |route: &String| ip(format!("route {verb} {route}"));
        routes.iter().map(line).collect()
    };
    Tweak {
        site: Site::Node(n),
        done: each("del"),
        undone: each("add"),
    }
}

/// The router knows no way to node `n`, or to its Pods, and says so.
fn router_without_route(plan: &Plan, n: usize) -> Tweak {
    let node = &plan.nodes[n];
    // Through a tunnel the router sees only packets of nodes.
    let to = if plan.shape.network.is_tunnelled() {
        Cidr::host(node.ip)
    } else {
        node.pods
    };
    let line = |verb: &str| {
        // Beside the right route: `ip -batch` takes no rules of IPv6, and IPv4 no second route without another metric.
        ip(if to.base.is_ipv6() {
            format!("route {verb} unreachable {to} metric 1")
        } else {
            format!("rule {verb} to {to} unreachable pref 50")
        })
    };
    Tweak {
        site: Site::Router,
        done: vec![line("add")],
        undone: vec![line("del")],
    }
}

/// An interface does not answer who asks for the link-layer address of `ip`.
fn deaf(site: Site, dev: &str, ip: IpAddr) -> Tweak {
    if ip.is_ipv6() {
        // Neighbour discovery has no setting for it.
        let asked = "icmpv6 type nd-neighbor-solicit";
        let rules = format!(
            "table ip6 deaf {{ chain in {{ type filter hook input priority -400; iifname {dev} {asked} drop\n}}\n}}\n"
        );
        return Tweak {
            site,
            done: vec![Step::Nft(rules)],
            undone: vec![Step::Nft("delete table ip6 deaf\n".to_owned())],
        };
    }
    let to = |value: &str| Step::sysctl(format!("net.ipv4.conf.{dev}.arp_ignore"), value);
    Tweak {
        site,
        done: vec![to("8")],
        undone: vec![to("0")],
    }
}

/// The Pod's node has a permanent neighbour entry that is wrong.
fn misaddressed(plan: &Plan, pod: &PodPlan) -> Tweak {
    let dev = if plan.shape.network.is_bridged() {
        &plan.nodes[pod.node].bridge
    } else {
        &pod.veth
    };
    let entry = format!("{} dev {dev}", pod.ip);
    Tweak {
        site: Site::Node(pod.node),
        done: vec![ip(format!(
            "neigh replace {entry} lladdr 02:00:5e:10:00:99 nud permanent"
        ))],
        undone: vec![ip(format!("neigh del {entry}"))],
    }
}

/// Node 0 marks what its Pods send and routes it by that through its uplink; without the mark, which answers do not carry,
/// it believes the other node's Pods behind another interface.
fn asymmetric(plan: &Plan) -> Tweak {
    let (node, other) = (&plan.nodes[0], &plan.nodes[1]);
    let (pods, decoy, mark) = (other.pods, "second0", "0x77");
    let filter =
        |value: &str| Step::sysctl(format!("net.ipv4.conf.{}.rp_filter", node.uplink), value);
    let rule = |verb: &str| ip(format!("rule {verb} fwmark {mark}/0xff lookup 77 pref 60"));
    let via = format!("via {} dev {}", node.gateway, node.uplink);
    let marking = format!(
        "table ip steer {{ chain pre {{ type filter hook prerouting priority -150; ip saddr {} meta mark set meta mark or {mark}\n}}\n}}\n",
        node.pods
    );
    Tweak {
        site: Site::Node(0),
        done: vec![
            ip(format!("link add {decoy} type bridge")),
            ip(format!("link set {decoy} up")),
            ip(format!("route add {pods} {via} table 77")),
            rule("add"),
            Step::Nft(marking),
            ip(format!("route replace {pods} dev {decoy}")),
            filter("1"),
        ],
        undone: vec![
            filter("0"),
            ip(format!("route replace {pods} {via}")),
            Step::Nft("delete table ip steer\n".to_owned()),
            rule("del"),
            ip(format!("route del {pods} table 77")),
            ip(format!("link del {decoy}")),
        ],
    }
}

/// What leaves for the backends has a wrong IP header checksum.
fn corrupting(plan: &Plan) -> Tweak {
    let to: Vec<String> = plan.backends.iter().map(|p| p.ip.to_string()).collect();
    let rules = format!(
        "table ip worn {{ chain post {{ type filter hook postrouting priority 300; ip daddr {{ {} }} @nh,80,16 set 0x0bad\n}}\n}}\n",
        to.join(", ")
    );
    Tweak {
        site: match plan.shape.placement {
            Placement::Same => Site::Node(0),
            Placement::Cross => Site::Router,
        },
        done: vec![Step::Nft(rules)],
        undone: vec![Step::Nft(
            "table ip worn\ndelete table ip worn\n".to_owned(),
        )],
    }
}

impl Fault for Broken {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::NoRouteBack => "no-route-back",
            Kind::Blackhole => "no-route-blackhole",
            Kind::RouterHasNoRoute => "no-route-router",
            Kind::ClientHasNoRoute => "no-route-client",
            Kind::ForwardingDisabledUplink => "forwarding-disabled-uplink",
            Kind::PodSilent => "neighbor-failed-pod",
            kind => kind.code(),
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Kind::NoRoute => "the client's node has no route to the backends",
            Kind::NoRouteBack => "the backends' node has no route to the client",
            Kind::Blackhole => "the client's node has blackhole routes for the backends",
            Kind::RouterHasNoRoute => {
                "the router between the nodes has no route to the backends' node"
            }
            Kind::ClientHasNoRoute => "the client's Pod has lost its default route",
            Kind::ForwardingDisabled => "the client's node does not forward",
            Kind::ForwardingDisabledUplink => {
                "the backends' node does not forward what comes in from the other node"
            }
            Kind::GatewaySilent => {
                "the gateway of the client's node answers neither ARP nor neighbour discovery"
            }
            Kind::PodSilent => "the backends answer neither ARP nor neighbour discovery",
            Kind::NeighborStale => {
                "the backends' node sends to link-layer addresses that they do not have"
            }
            Kind::AsymmetricReturn => {
                "answers come in where the client's node would not send to the backends, and rp_filter is strict"
            }
            Kind::BadChecksum => "packets for the backends get a wrong IP header checksum",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let backends = || plan.backends.iter();
        world.tweaks = match self.0 {
            Kind::NoRoute => vec![without_routes(plan, 0)],
            Kind::NoRouteBack => vec![without_routes(plan, 1)],
            Kind::Blackhole => backends()
                .map(|pod| Tweak {
                    site: Site::Node(0),
                    done: vec![ip(format!("route add blackhole {}", pod.ip))],
                    undone: vec![ip(format!("route del blackhole {}", pod.ip))],
                })
                .collect(),
            Kind::RouterHasNoRoute => vec![router_without_route(plan, 1)],
            Kind::ClientHasNoRoute => vec![Tweak {
                site: Site::Pod(plan.client.ip),
                done: vec![ip("route del default".to_owned())],
                undone: pods::default_route(plan, &plan.client)
                    .map(ip)
                    .into_iter()
                    .collect(),
            }],
            Kind::ForwardingDisabled => {
                let name = if plan.client.ip.is_ipv6() {
                    "net.ipv6.conf.all.forwarding"
                } else {
                    "net.ipv4.ip_forward"
                };
                vec![Tweak {
                    site: Site::Node(0),
                    done: vec![Step::sysctl(name, "0")],
                    undone: vec![Step::sysctl(name, "1")],
                }]
            }
            Kind::ForwardingDisabledUplink => {
                let node = &plan.nodes[1];
                let dev = if plan.shape.network.is_tunnelled() {
                    &node.tunnel
                } else {
                    &node.uplink
                };
                let name = format!("net/ipv4/conf/{dev}/forwarding");
                vec![Tweak {
                    site: Site::Node(1),
                    done: vec![Step::sysctl(&name, "0")],
                    undone: vec![Step::sysctl(&name, "1")],
                }]
            }
            Kind::GatewaySilent => {
                let node = &plan.nodes[0];
                vec![deaf(Site::Router, &node.router_if, node.gateway)]
            }
            Kind::PodSilent => backends()
                .map(|p| deaf(Site::Pod(p.ip), &p.ifname, p.ip))
                .collect(),
            Kind::NeighborStale => backends().map(|p| misaddressed(plan, p)).collect(),
            Kind::AsymmetricReturn => vec![asymmetric(plan)],
            Kind::BadChecksum => vec![corrupting(plan)],
        };
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let code = self.0.code();
        match self.0 {
            Kind::NoRoute | Kind::Blackhole => at.client_side(Expect::code(code, &["drop"])),
            Kind::ClientHasNoRoute => at.client_side(Expect::code(code, &["node"])),
            // The backends' node sees its answers leave and nothing come back.
            Kind::AsymmetricReturn => match at.vantage {
                Vantage::Backend => beyond(),
                Vantage::Client | Vantage::Together => Expect::code(code, &["drop"]),
            },
            // Routed Pods wait for their gateway, which their node answers for only while it forwards.
            Kind::ForwardingDisabled | Kind::GatewaySilent => {
                at.client_side(Expect::code(code, &["drop", "flow"]))
            }
            // The client's node sees that nothing at all comes back through the tunnel.
            Kind::NoRouteBack | Kind::ForwardingDisabledUplink
                if at.network.is_tunnelled() && at.vantage == Vantage::Client =>
            {
                beyond().or("overlay-peer-lost")
            }
            Kind::NoRouteBack
            | Kind::ForwardingDisabledUplink
            | Kind::NeighborStale
            | Kind::BadChecksum => at.backend_side(Expect::code(code, &["drop"])),
            // The router says so a few times only and, while it is asked on and on, no more (net/ipv4/route.c, `ip_error`):
            // of clients that retried before netflow looked nothing may be said any more. Then a tunnel is silent, no more.
            Kind::RouterHasNoRoute if at.form == Form::Retrying => match at.vantage {
                Vantage::Client | Vantage::Together if at.network.is_tunnelled() => {
                    Expect::code(code, &["flow"]).or("overlay-peer-lost")
                }
                Vantage::Client => Expect::code(code, &["flow"]).or("lost-beyond-node"),
                Vantage::Together => Expect::code(code, &["flow"]).or("never-arrived"),
                Vantage::Backend => Expect::not_from_here(),
            },
            Kind::RouterHasNoRoute => at.client_side(Expect::code(code, &["flow"])),
            Kind::PodSilent => match (at.vantage, at.placement) {
                // "Host unreachable" comes back only after three seconds of unanswered neighbour requests, and from
                // there it cannot be told whether the Pod is there.
                (Vantage::Client, Placement::Cross) => beyond().or("backend-gone"),
                _ => Expect::code(code, &["drop", "flow"]),
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        match self.0 {
            Kind::NoRoute
            | Kind::RouterHasNoRoute
            | Kind::ForwardingDisabled
            | Kind::GatewaySilent
            | Kind::PodSilent => {
                vec![Outcome::Unreachable, Outcome::Timeout]
            }
            Kind::ClientHasNoRoute => vec![Outcome::Unreachable],
            Kind::NoRouteBack
            | Kind::Blackhole
            | Kind::ForwardingDisabledUplink
            | Kind::NeighborStale
            | Kind::AsymmetricReturn
            | Kind::BadChecksum => vec![Outcome::Timeout],
        }
    }
    fn placements(&self) -> &'static [Placement] {
        match self.0 {
            Kind::PodSilent | Kind::NeighborStale | Kind::BadChecksum | Kind::ClientHasNoRoute => {
                &Placement::ALL
            }
            _ => &[Placement::Cross],
        }
    }
    fn shapes(&self) -> Vec<Shape> {
        let networks: &[Network] = match self.0 {
            Kind::NoRoute
            | Kind::NoRouteBack
            | Kind::Blackhole
            | Kind::RouterHasNoRoute
            | Kind::ClientHasNoRoute
            | Kind::ForwardingDisabled
            | Kind::ForwardingDisabledUplink
            | Kind::GatewaySilent => &Network::ALL,
            _ => &Network::ROUTED,
        };
        let shapes = shapes(self.placements(), networks);
        match self.0 {
            // IPv6 has no reverse path filter, no checksum of its header, forwards on a node as a whole, and tells of its route
            // lookups in another way.
            Kind::AsymmetricReturn
            | Kind::BadChecksum
            | Kind::ForwardingDisabledUplink
            | Kind::ClientHasNoRoute => of_ipv4(shapes),
            _ => shapes,
        }
    }
    fn is_node_wide(&self) -> bool {
        !matches!(
            self.0,
            Kind::Blackhole | Kind::PodSilent | Kind::NeighborStale | Kind::BadChecksum
        )
    }
}

/// The same where it harms nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unrelated {
    Forwarding,
    ReversePath,
    Neighbors,
}

struct Near(Unrelated);

impl Fault for Near {
    fn name(&self) -> &'static str {
        match self.0 {
            Unrelated::Forwarding => "near-forwarding-elsewhere",
            Unrelated::ReversePath => "near-strict-reverse-path",
            Unrelated::Neighbors => "near-other-neighbor",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Unrelated::Forwarding => {
                "nothing: an interface that nothing comes in through does not forward"
            }
            Unrelated::ReversePath => {
                "nothing: reverse path filters are strict and routes symmetric"
            }
            Unrelated::Neighbors => {
                "nothing for the Service: a neighbour entry is wrong, and a Pod that nobody dials does not answer"
            }
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let node = &plan.nodes[0];
        world.tweaks = match self.0 {
            Unrelated::Forwarding => {
                let name = format!("net.ipv4.conf.{}.forwarding", node.uplink);
                vec![Tweak {
                    site: Site::Node(0),
                    done: vec![Step::sysctl(&name, "0")],
                    undone: vec![Step::sysctl(&name, "1")],
                }]
            }
            Unrelated::ReversePath => {
                let all = |value: &str| {
                    let strict =
                        |dev| Step::sysctl(format!("net.ipv4.conf.{dev}.rp_filter"), value);
                    vec![strict("all"), strict(&node.uplink)]
                };
                vec![Tweak {
                    site: Site::Node(0),
                    done: all("1"),
                    undone: all("0"),
                }]
            }
            Unrelated::Neighbors => vec![
                misaddressed(plan, &plan.spare),
                deaf(Site::Pod(plan.spare.ip), &plan.spare.ifname, plan.spare.ip),
            ],
        };
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect::healthy()
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn placements(&self) -> &'static [Placement] {
        match self.0 {
            // Across nodes answers come in through the uplink.
            Unrelated::Forwarding => &[Placement::Same],
            _ => &Placement::ALL,
        }
    }
    fn shapes(&self) -> Vec<Shape> {
        let networks: &[Network] = match self.0 {
            Unrelated::Neighbors => &Network::ROUTED,
            _ => &[Network::Bridge],
        };
        let shapes = shapes(self.placements(), networks);
        match self.0 {
            Unrelated::Forwarding | Unrelated::ReversePath => of_ipv4(shapes),
            Unrelated::Neighbors => shapes,
        }
    }
    /// The second Service has an endpoint on either node.
    fn is_node_wide(&self) -> bool {
        self.0 == Unrelated::Forwarding
    }
}

/// Where the tunnel between the nodes is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// On the way.
    PeerLost,
    /// By a rule of the backends' node.
    PortBlocked,
}

impl Cut {
    /// For which nodes nothing comes through.
    fn blocked(self) -> &'static [usize] {
        match self {
            Cut::PeerLost => &[0, 1],
            Cut::PortBlocked => &[1],
        }
    }
}

struct Overlay(Cut);

impl Fault for Overlay {
    fn name(&self) -> &'static str {
        match self.0 {
            Cut::PeerLost => "overlay-peer-lost",
            Cut::PortBlocked => "tunnel-port-blocked",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Cut::PeerLost => "the network between the nodes drops the tunnel's packets",
            Cut::PortBlocked => "a rule of the backends' node drops the tunnel's packets",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let (site, hook) = match self.0 {
            Cut::PeerLost => (Site::Router, "forward"),
            Cut::PortBlocked => (Site::Node(1), "input"),
        };
        let table = format!("{}_tunnel", plan.word);
        let packets = if plan.shape.network == Network::Ipip {
            "meta l4proto 4".to_owned()
        } else {
            let ports = self.0.blocked().iter().map(|n| plan.tunnel_port(*n));
            let ports: BTreeSet<u16> = ports.collect();
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!("udp dport {{ {} }}", ports.join(", "))
        };
        let rules = format!(
            "table inet {table} {{ chain {hook} {{ type filter hook {hook} priority 0; {packets} drop\n}}\n}}\n"
        );
        world.tweaks = vec![Tweak {
            site,
            done: vec![Step::Nft(rules)],
            undone: vec![Step::Nft(format!("delete table inet {table}\n"))],
        }];
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let lost = Expect::code("overlay-peer-lost", &["flow"]);
        let blocked = Expect::code("tunnel-port-blocked", &["drop"]);
        match (self.0, at.vantage) {
            (_, Vantage::Backend) => Expect::not_from_here(),
            (Cut::PortBlocked, Vantage::Together) => blocked,
            (_, Vantage::Client) | (Cut::PeerLost, Vantage::Together) => lost,
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Cross]
    }
    fn shapes(&self) -> Vec<Shape> {
        shapes(self.placements(), &[Network::Vxlan])
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}
