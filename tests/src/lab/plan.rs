//! What a lab looks like: every name, address, port and MTU, drawn from a seed.

use super::cidr::Cidr;
use super::draw::Draw;
use crate::traffic::Bound;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the backends run, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// On the client's node.
    Same,
    /// On the other node.
    Cross,
}

impl Placement {
    /// Both.
    pub const ALL: [Placement; 2] = [Placement::Same, Placement::Cross];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Placement::Same => "same",
            Placement::Cross => "cross",
        }
    }
}

/// Address families of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Family {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Pods and Services have both; the client dials one of them.
    Dual,
}

impl Family {
    /// All.
    pub const ALL: [Family; 3] = [Family::Ipv4, Family::Ipv6, Family::Dual];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
            Family::Dual => "dual",
        }
    }
}

/// How Pods are attached to their node, and the nodes to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Network {
    /// A bridge on each node; the router knows where Pods are.
    Bridge,
    /// A route for each Pod to its veth, no bridge; the router knows where Pods are.
    Veth,
    /// A bridge on each node; VXLAN between the nodes.
    Vxlan,
    /// A bridge on each node; Geneve between the nodes.
    Geneve,
    /// A bridge on each node; IP in IP between the nodes.
    Ipip,
    /// A bridge on each node; WireGuard between the nodes.
    Wireguard,
}

impl Network {
    /// Those that every kernel has.
    pub const ALL: [Network; 3] = [Network::Bridge, Network::Veth, Network::Vxlan];
    /// Those that need a module which not every kernel has.
    pub const BY_MODULE: [Network; 3] = [Network::Geneve, Network::Ipip, Network::Wireguard];
    /// Those where the router sees the packets of Pods as they are.
    pub const ROUTED: [Network; 2] = [Network::Bridge, Network::Veth];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Network::Bridge => "bridge",
            Network::Veth => "veth",
            Network::Vxlan => "vxlan",
            Network::Geneve => "geneve",
            Network::Ipip => "ipip",
            Network::Wireguard => "wireguard",
        }
    }

    /// Whether a node's Pods hang on one bridge; else each has a route to its own veth.
    pub fn is_bridged(self) -> bool {
        match self {
            Network::Veth => false,
            Network::Bridge
            | Network::Vxlan
            | Network::Geneve
            | Network::Ipip
            | Network::Wireguard => true,
        }
    }

    /// Whether packets between nodes are inside the nodes' own.
    pub fn is_tunnelled(self) -> bool {
        match self {
            Network::Bridge | Network::Veth => false,
            Network::Vxlan | Network::Geneve | Network::Ipip | Network::Wireguard => true,
        }
    }

    /// Bytes that stand before an IP packet between nodes with such addresses.
    fn overhead(self, outer: IpAddr) -> u32 {
        let ip = if outer.is_ipv4() { 20 } else { 40 };
        match self {
            Network::Bridge | Network::Veth => 0,
            // Outer IP, UDP, the tunnel's own header, inner Ethernet (RFC 7348, section 5; RFC 8926, section 3, without options).
            Network::Vxlan | Network::Geneve => ip + 8 + 8 + 14,
            // RFC 2003, section 3; RFC 2473, section 3.
            Network::Ipip => ip,
            // UDP, header and authentication: https://www.wireguard.com/protocol/.
            Network::Wireguard => ip + 8 + 16 + 16,
        }
    }
}

/// What is chosen of a lab; the rest is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Where the backends run.
    pub placement: Placement,
    /// Which addresses there are.
    pub family: Family,
    /// How Pods are connected.
    pub network: Network,
}

impl Shape {
    /// Every combination.
    pub fn all() -> Vec<Shape> {
        let mut all = Vec::new();
        for placement in Placement::ALL {
            for family in Family::ALL {
                all.extend(Network::ALL.map(|network| Shape {
                    placement,
                    family,
                    network,
                }));
            }
        }
        all
    }

    /// As in the table.
    pub fn name(self) -> String {
        let Shape {
            placement,
            family,
            network,
        } = self;
        format!("{}/{}/{}", placement.name(), family.name(), network.name())
    }

    /// From the names in the table.
    pub fn parse(name: &str) -> Option<Shape> {
        Shape::all().into_iter().find(|s| s.name() == name)
    }
}

/// Networks of a cluster, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Networks {
    /// All Pod addresses.
    pub pods: Cidr,
    /// All cluster IPs.
    pub services: Cidr,
    /// Link and address of the host outside.
    pub outside: Cidr,
}

/// Addresses of a node, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeNet {
    /// Its own.
    pub ip: IpAddr,
    /// Network between the node and the router.
    pub link: Cidr,
    /// The router's address on it.
    pub gateway: IpAddr,
    /// Pod network of this node; its first address is the bridge's.
    pub pods: Cidr,
}

/// A node: index 0 is the client's, 1 the other.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Kubernetes name.
    pub name: String,
    /// `InternalIP` of the family that is dialled.
    pub ip: IpAddr,
    /// Network between the node and the router.
    pub link: Cidr,
    /// The router's address on it.
    pub gateway: IpAddr,
    /// The same of the other family, where the cluster has two.
    pub other: Option<NodeNet>,
    /// Uplink interface.
    pub uplink: String,
    /// Bridge of the Pods, where there is one.
    pub bridge: String,
    /// Tunnel device, where there is one.
    pub tunnel: String,
    /// Its link-layer address.
    pub vtep: String,
    /// Pod network of this node; its first address is the bridge's.
    pub pods: Cidr,
    /// The router's interface toward it.
    pub router_if: String,
}

impl NodePlan {
    /// Its addresses of the family that is dialled.
    pub fn net(&self) -> NodeNet {
        let NodePlan {
            ip,
            link,
            gateway,
            pods,
            ..
        } = *self;
        NodeNet {
            ip,
            link,
            gateway,
            pods,
        }
    }

    /// Its addresses, family by family, the dialled one first.
    pub fn nets(&self) -> impl Iterator<Item = NodeNet> {
        std::iter::once(self.net()).chain(self.other)
    }
}

/// A Pod.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Index into [`Plan::nodes`].
    pub node: usize,
    /// Address of the family that is dialled.
    pub ip: IpAddr,
    /// Address of the other family, where the cluster has two.
    pub other_ip: Option<IpAddr>,
    /// Interface inside.
    pub ifname: String,
    /// Interface on the node.
    pub veth: String,
    /// Label key and value that tell its workload.
    pub label: (String, String),
    /// `ReplicaSet` or `StatefulSet` and its name.
    pub owner: (&'static str, String),
}

impl PodPlan {
    /// Its addresses, the dialled one first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.ip).chain(self.other_ip)
    }
}

/// A Service port and where it leads.
#[derive(Debug, Clone)]
pub struct PortPlan {
    /// Name, may be empty where it is the only one.
    pub name: String,
    /// On the VIP.
    pub port: u16,
    /// On the Pod.
    pub target: u16,
    /// On every node, where the Service has node ports.
    pub node_port: u16,
}

/// A Service.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster IP of the family that is dialled.
    pub vip: IpAddr,
    /// Cluster IP of the other family, where the cluster has two.
    pub other_vip: Option<IpAddr>,
    /// Ports (TCP).
    pub ports: Vec<PortPlan>,
}

impl ServicePlan {
    /// Its cluster IPs, the dialled one first.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.vip).chain(self.other_vip)
    }
}

/// What the network outside does with a packet for an address that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing comes back.
    Swallow,
    /// ICMP net unreachable comes back.
    Unreachable,
}

/// Everything about a lab that a seed decides.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What was chosen.
    pub shape: Shape,
    /// All Pod addresses of the family that is dialled.
    pub pod_cidr: Cidr,
    /// All cluster IPs of the family that is dialled.
    pub service_cidr: Cidr,
    /// The client's node and the other.
    pub nodes: [NodePlan; 2],
    /// The client; always on node 0.
    pub client: PodPlan,
    /// Backends of [`Plan::service`].
    pub backends: Vec<PodPlan>,
    /// Backends of [`Plan::second`], one on each node.
    pub seconds: Vec<PodPlan>,
    /// A Pod of a third workload, on the backends' node.
    pub spare: PodPlan,
    /// The Service that scenarios ask about.
    pub service: ServicePlan,
    /// A Service that stays healthy.
    pub second: ServicePlan,
    /// Link and address of the host outside.
    pub outside: Cidr,
    /// The same of the other family, where the cluster has two.
    pub other: Option<Networks>,
    /// Whether the family that is dialled is the cluster's second.
    pub dials_second: bool,
    /// Applications bind IPv6 sockets that take both families, even where there is only IPv4.
    pub dual_sockets: bool,
    /// MTU between the machines.
    pub mtu: u32,
    /// MTU of bridge and Pods.
    pub pod_mtu: u32,
    /// A smaller MTU that a bad link has.
    pub small_mtu: u32,
    /// Network number and UDP port of the tunnel; see [`Plan::tunnel_port`].
    pub vni: (u32, u16),
    /// What the router does with unknown destinations.
    pub unknown: Unknown,
    /// A word for names that lab-made firewall tables and chains carry.
    pub word: String,
    /// kube-proxy's newer nftables form (one dnat map per Service instead of one chain per endpoint).
    pub dnat_maps: bool,
    /// How the manifests are written.
    pub manifest_style: u32,
}

const WORKLOADS: [&str; 12] = [
    "web", "api", "cart", "orders", "ledger", "search", "mail", "auth", "media", "quotes", "stock",
    "billing",
];
const NAMESPACES: [&str; 8] = [
    "shop", "prod", "team-a", "payments", "edge", "default", "staging", "core",
];
const UPLINKS: [&str; 6] = ["eth0", "ens5", "enp3s0", "eno1", "bond0", "uplink0"];
const BRIDGES: [&str; 5] = ["cbr0", "cni0", "kbr", "podbr0", "br-pods"];
const TUNNELS: [&str; 4] = ["flannel.1", "overlay.calico", "cilium_ov", "vx0"];
const POD_IFS: [&str; 3] = ["eth0", "net0", "eth1"];
const VETHS: [&str; 4] = ["veth", "cali", "lxc", "p-"];
const LABEL_KEYS: [&str; 4] = ["app", "app.kubernetes.io/name", "k8s-app", "component"];
const PORT_NAMES: [&str; 5] = ["http", "web", "main", "grpc", "p0"];

impl Plan {
    /// UDP port to which the tunnel's packets for node `n` are sent. With WireGuard each end has its own.
    pub fn tunnel_port(&self, n: usize) -> u16 {
        let own = self.shape.network == Network::Wireguard && n == 1;
        self.vni.1 + u16::from(own)
    }

    /// What the tunnel between the nodes adds to a packet, in bytes.
    pub fn overhead(&self) -> u32 {
        self.shape.network.overhead(self.nodes[0].ip)
    }

    /// Draws a lab.
    pub fn draw(seed: u64, shape: Shape) -> Plan {
        let mut d = Draw::new(seed);
        let (networks, machines) = networks(&mut d, shape.family);
        let mtu = d.pick(&[1500, 1500, 1460, 1420, 9000, 8900]);
        let overhead = shape.network.overhead(machines[0].base);
        let pod_mtu = mtu - overhead - if d.chance(50) { 0 } else { d.between(10, 60) };
        let smallest = match shape.family {
            Family::Ipv4 => 1100,
            // No link may carry less (RFC 8200, section 5).
            Family::Ipv6 | Family::Dual => 1280,
        };
        let small_mtu = d.between(smallest, (pod_mtu.min(1500) - 60).max(smallest));
        let nodes = nodes(&mut d, &networks, &machines);
        let there = match shape.placement {
            Placement::Same => 0,
            Placement::Cross => 1,
        };
        let mut words = WORKLOADS.to_vec();
        let [asked, other, caller, idle] = std::array::from_fn(|_| d.take(&mut words));
        let app = d.pick(&NAMESPACES);
        let client_ns = if d.chance(50) {
            app
        } else {
            d.pick(&NAMESPACES)
        };
        let mut naming = Naming::new(&mut d, &nodes);
        let client = naming.workload(&mut d, client_ns, caller).pod(&mut d, 0);
        let mut asked_pods = naming.workload(&mut d, app, asked);
        let backends = (0..d.between(2, 3))
            .map(|_| asked_pods.pod(&mut d, there))
            .collect();
        let mut other_pods = naming.workload(&mut d, app, other);
        let seconds = (0..2).map(|node| other_pods.pod(&mut d, node)).collect();
        let spare = naming.workload(&mut d, app, idle).pod(&mut d, there);
        let (asked_vip, other_vip) = (d.between(20, 1900), d.between(2000, 3900));
        let service = service(&mut d, app, asked, &networks, asked_vip);
        let second = service_with(&mut d, app, other, &networks, other_vip, 1);
        let (dialled, other) = (networks[0], networks.get(1).copied());
        Plan {
            seed,
            shape,
            pod_cidr: dialled.pods,
            service_cidr: dialled.services,
            nodes,
            client,
            backends,
            seconds,
            spare,
            service,
            second,
            outside: dialled.outside,
            other,
            dials_second: other.is_some() && d.chance(50),
            dual_sockets: shape.family != Family::Ipv4 || d.chance(50),
            mtu,
            pod_mtu,
            small_mtu,
            vni: (d.between(1, 4096), d.pick(&[4789, 8472])),
            unknown: d.pick(&[Unknown::Swallow, Unknown::Unreachable]),
            word: d
                .pick(&["guard", "edge", "site", "sec", "fence", "corp"])
                .to_owned(),
            dnat_maps: d.chance(50),
            manifest_style: d.between(0, 2),
        }
    }

    /// Its networks, family by family, the dialled one first.
    pub fn networks(&self) -> impl Iterator<Item = Networks> {
        let dialled = Networks {
            pods: self.pod_cidr,
            services: self.service_cidr,
            outside: self.outside,
        };
        std::iter::once(dialled).chain(self.other)
    }

    /// Items of one family each, the dialled one first, in the order of the cluster's families.
    pub fn in_cluster_order<T>(&self, dialled_first: impl Iterator<Item = T>) -> Vec<T> {
        let mut items: Vec<T> = dialled_first.collect();
        if self.dials_second {
            items.reverse();
        }
        items
    }

    /// The address that applications bind for `bound`.
    pub fn bind(&self, bound: Bound) -> IpAddr {
        match bound {
            Bound::Any if self.dual_sockets => Ipv6Addr::UNSPECIFIED.into(),
            Bound::Any => Ipv4Addr::UNSPECIFIED.into(),
            Bound::Loopback if self.client.ip.is_ipv6() => Ipv6Addr::LOCALHOST.into(),
            Bound::Loopback => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// All Pods.
    pub fn pods(&self) -> impl Iterator<Item = &PodPlan> {
        std::iter::once(&self.client)
            .chain(&self.backends)
            .chain(&self.seconds)
            .chain(std::iter::once(&self.spare))
    }

    /// Index of the node on which the backends run.
    pub fn backend_node(&self) -> usize {
        self.backends[0].node
    }

    /// The port of the Service that scenarios use.
    pub fn port(&self) -> &PortPlan {
        &self.service.ports[0]
    }
}

/// Networks that do not overlap, of each family of the cluster, the dialled one first; and those of its machines.
fn networks(d: &mut Draw, family: Family) -> (Vec<Networks>, Vec<Cidr>) {
    let v6_first = family == Family::Ipv6 || family == Family::Dual && d.chance(50);
    let mut all = vec![if v6_first {
        networks_v6(d)
    } else {
        networks_v4(d)
    }];
    if family == Family::Dual {
        all.push(if v6_first {
            networks_v4(d)
        } else {
            networks_v6(d)
        });
    }
    all.into_iter().unzip()
}

fn networks_v4(d: &mut Draw) -> (Networks, Cidr) {
    let mut blocks = vec![
        Cidr::new(Ipv4Addr::new(10, d.between(0, 254) as u8, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(172, d.between(16, 31) as u8, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(192, 168, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(100, d.between(64, 127) as u8, 0, 0), 16),
    ];
    let [pods, services, machines] = std::array::from_fn(|_| d.take(&mut blocks));
    let outside = d.pick(&[
        Ipv4Addr::new(203, 0, 113, 0),
        Ipv4Addr::new(198, 51, 100, 0),
        Ipv4Addr::new(192, 0, 2, 0),
    ]);
    let networks = Networks {
        pods,
        services: Cidr::new(services.base, d.between(16, 20) as u8),
        outside: Cidr::new(outside, 24),
    };
    (networks, machines)
}

/// Unique local and documentation prefixes (RFC 4193, RFC 3849, RFC 9637). Service networks are small, as kube-apiserver
/// wants them.
fn networks_v6(d: &mut Draw) -> (Networks, Cidr) {
    let mut group = || d.between(1, 0xffff) as u16;
    let mut blocks = vec![
        [0xfd00 | group() & 0xff, group(), group()],
        [0xfd00 | group() & 0xff, 0, 0],
        [0x2001, 0xdb8, group()],
        [0x3fff, group() & 0xfff, group()],
    ];
    let [pods, services, machines] = std::array::from_fn(|_| {
        let [a, b, c] = d.take(&mut blocks);
        Cidr::new(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), 48)
    });
    let services = services.part(d.between(0, 0xffff), 64).base;
    let networks = Networks {
        pods: Cidr::new(pods.base, d.pick(&[48, 52, 56])),
        services: Cidr::new(services, d.between(108, 112) as u8),
        outside: Cidr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 0), 64),
    };
    (networks, machines)
}

fn nodes(d: &mut Draw, networks: &[Networks], machines: &[Cidr]) -> [NodePlan; 2] {
    let style = d.between(0, 2);
    let (uplink, bridge) = (d.pick(&UPLINKS).to_owned(), d.pick(&BRIDGES).to_owned());
    let tunnel = d.pick(&TUNNELS).to_owned();
    let nets: Vec<[NodeNet; 2]> = networks
        .iter()
        .zip(machines)
        .map(|(networks, machines)| node_nets(d, networks.pods, *machines))
        .collect();
    std::array::from_fn(|n| {
        let NodeNet {
            ip,
            link,
            gateway,
            pods,
        } = nets[0][n];
        let name = match style {
            0 => format!("worker-{}", d.suffix(4)),
            1 if ip.is_ipv4() => format!("ip-{}", ip.to_string().replace('.', "-")),
            _ => format!("{}-{}", d.pick(&["node", "kn", "pool-a", "rack"]), n + 1),
        };
        NodePlan {
            name,
            ip,
            link,
            gateway,
            pods,
            other: nets.get(1).map(|nets| nets[n]),
            uplink: uplink.clone(),
            bridge: bridge.clone(),
            tunnel: tunnel.clone(),
            vtep: format!("02:{:02x}:9a:17:00:{:02x}", d.between(0, 255), n + 1),
            router_if: format!("to-{n}"),
        }
    })
}

/// Addresses of both nodes, of one family.
fn node_nets(d: &mut Draw, pod_cidr: Cidr, machines: Cidr) -> [NodeNet; 2] {
    let (link_len, pod_len) = if pod_cidr.base.is_ipv4() {
        (24, d.between(24, 26) as u8)
    } else {
        (64, 64)
    };
    let (link, pods) = (d.between(0, 100), d.between(0, 30));
    std::array::from_fn(|i| {
        let n = i as u32;
        let link = machines.part(link + n * (1 + d.between(0, 50)), link_len);
        NodeNet {
            ip: link.nth(d.between(10, 200)),
            link,
            gateway: link.nth(1),
            pods: pod_cidr.part(pods + n * (1 + d.between(0, 20)), pod_len),
        }
    })
}

/// Names and addresses that were given out so far.
struct Naming {
    pod_cidrs: [Vec<Cidr>; 2],
    next: [u32; 2],
    ifname: String,
    veth: &'static str,
    label_key: &'static str,
}

impl Naming {
    fn new(d: &mut Draw, nodes: &[NodePlan; 2]) -> Naming {
        Naming {
            pod_cidrs: [0, 1].map(|n: usize| nodes[n].nets().map(|net| net.pods).collect()),
            next: [d.between(2, 9), d.between(2, 9)],
            ifname: d.pick(&POD_IFS).to_owned(),
            veth: d.pick(&VETHS),
            label_key: d.pick(&LABEL_KEYS),
        }
    }

    fn workload(&mut self, d: &mut Draw, namespace: &str, name: &str) -> Workload<'_> {
        Workload {
            stateful: d.chance(30),
            hash: d.suffix(9),
            count: 0,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            naming: self,
        }
    }
}

/// A Deployment or a StatefulSet that gets Pods.
struct Workload<'a> {
    naming: &'a mut Naming,
    namespace: String,
    name: String,
    stateful: bool,
    hash: String,
    count: u32,
}

impl Workload<'_> {
    fn pod(&mut self, d: &mut Draw, node: usize) -> PodPlan {
        let n = self.naming.next[node];
        self.naming.next[node] += d.between(1, 4);
        let (name, owner) = if self.stateful {
            (
                format!("{}-{}", self.name, self.count),
                ("StatefulSet", self.name.clone()),
            )
        } else {
            let set = format!("{}-{}", self.name, self.hash);
            (format!("{set}-{}", d.suffix(5)), ("ReplicaSet", set))
        };
        self.count += 1;
        PodPlan {
            namespace: self.namespace.clone(),
            name,
            node,
            ip: self.naming.pod_cidrs[node][0].nth(n),
            other_ip: self.naming.pod_cidrs[node].get(1).map(|c| c.nth(n)),
            ifname: self.naming.ifname.clone(),
            veth: format!("{}{}", self.naming.veth, d.suffix(7)),
            label: (self.naming.label_key.to_owned(), self.name.clone()),
            owner,
        }
    }
}

fn service(
    d: &mut Draw,
    namespace: &str,
    workload: &str,
    networks: &[Networks],
    vip: u32,
) -> ServicePlan {
    let ports = d.between(1, 2);
    service_with(d, namespace, workload, networks, vip, ports)
}

fn service_with(
    d: &mut Draw,
    namespace: &str,
    workload: &str,
    networks: &[Networks],
    vip: u32,
    ports: u32,
) -> ServicePlan {
    let mut names = PORT_NAMES.to_vec();
    let unnamed = ports == 1 && d.chance(50);
    let ports = (0..ports)
        .map(|n| PortPlan {
            name: if unnamed {
                String::new()
            } else {
                d.take(&mut names).to_owned()
            },
            // Disjoint ranges keep Service ports, target ports and wrong ports apart.
            port: [
                d.pick(&[80, 443, 8080]),
                d.between(1024, 4999) as u16 + n as u16,
            ][usize::from(n > 0 || d.chance(50))],
            target: d.between(10_000, 14_000) as u16 * 2 + n as u16,
            node_port: d.between(15_000, 16_383) as u16 * 2 + n as u16,
        })
        .collect();
    let suffix = d.pick(&["", "-svc", "-api"]);
    ServicePlan {
        namespace: namespace.to_owned(),
        name: format!("{workload}{suffix}"),
        vip: networks[0].services.nth(vip),
        other_vip: networks.get(1).map(|n| n.services.nth(vip)),
        ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_in_a_plan_collides() {
        for seed in 0..500 {
            for shape in Shape::all() {
                let plan = Plan::draw(seed, shape);
                let ips: BTreeSet<_> = plan.pods().map(|p| p.ip).collect();
                let names: BTreeSet<_> = plan.pods().map(|p| (&p.namespace, &p.name)).collect();
                let veths: BTreeSet<_> = plan.pods().map(|p| &p.veth).collect();
                let pods = plan.pods().count();
                assert_eq!(
                    (ips.len(), names.len(), veths.len()),
                    (pods, pods, pods),
                    "seed {seed}"
                );
                for p in plan.pods() {
                    assert!(plan.nodes[p.node].pods.contains(p.ip), "seed {seed}: {p:?}");
                    assert!(p.veth.len() <= 15);
                }
                let [a, b] = &plan.nodes;
                assert_ne!(
                    (a.pods, a.link, &a.name),
                    (b.pods, b.link, &b.name),
                    "seed {seed}"
                );
                assert!(
                    !a.pods.contains(b.pods.base) && !b.pods.contains(a.pods.base),
                    "seed {seed}"
                );
                for service in [&plan.service, &plan.second] {
                    assert!(plan.service_cidr.contains(service.vip), "seed {seed}");
                    let ports: BTreeSet<_> = service.ports.iter().map(|p| p.port).collect();
                    assert_eq!(ports.len(), service.ports.len(), "seed {seed}");
                }
                assert!(
                    plan.small_mtu < plan.pod_mtu && plan.pod_mtu <= plan.mtu,
                    "seed {seed}"
                );
                assert_eq!(
                    plan.backend_node(),
                    usize::from(shape.placement == Placement::Cross)
                );
                assert_eq!(plan.networks().count(), plan.client.ips().count());
            }
        }
    }
}
