//! What a lab looks like: every name, address, port and MTU, drawn from a seed.

use super::cidr::Cidr;
use super::draw::Draw;
use std::net::{IpAddr, Ipv4Addr};

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

/// A node: index 0 is the client's, 1 the other.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Kubernetes name.
    pub name: String,
    /// `InternalIP`.
    pub ip: IpAddr,
    /// Network between the node and the router.
    pub link: Cidr,
    /// The router's address on it.
    pub gateway: IpAddr,
    /// Uplink interface.
    pub uplink: String,
    /// Bridge of the Pods.
    pub bridge: String,
    /// Pod network of this node; its first address is the bridge's.
    pub pods: Cidr,
    /// The router's interface toward it.
    pub router_if: String,
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
    /// Address.
    pub ip: IpAddr,
    /// Interface inside.
    pub ifname: String,
    /// Interface on the node.
    pub veth: String,
    /// Label key and value that tell its workload.
    pub label: (String, String),
    /// `ReplicaSet` or `StatefulSet` and its name.
    pub owner: (&'static str, String),
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
}

/// A Service.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster IP.
    pub vip: IpAddr,
    /// Ports (TCP).
    pub ports: Vec<PortPlan>,
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
    /// Where the backends are.
    pub placement: Placement,
    /// All Pod addresses.
    pub pod_cidr: Cidr,
    /// All cluster IPs.
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
    /// MTU between the machines.
    pub mtu: u32,
    /// MTU of bridge and Pods.
    pub pod_mtu: u32,
    /// A smaller MTU that a bad link has.
    pub small_mtu: u32,
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
const POD_IFS: [&str; 3] = ["eth0", "net0", "eth1"];
const VETHS: [&str; 4] = ["veth", "cali", "lxc", "p-"];
const LABEL_KEYS: [&str; 4] = ["app", "app.kubernetes.io/name", "k8s-app", "component"];
const PORT_NAMES: [&str; 5] = ["http", "web", "main", "grpc", "p0"];

impl Plan {
    /// Draws a lab.
    pub fn draw(seed: u64, placement: Placement) -> Plan {
        let mut d = Draw::new(seed);
        let [pod_cidr, service_cidr, machines, outside] = networks(&mut d);
        let mtu = d.pick(&[1500, 1500, 1460, 1420, 9000, 8900]);
        let pod_mtu = mtu - if d.chance(50) { 0 } else { d.between(10, 60) };
        let small_mtu = d.between(1100, pod_mtu.min(1500) - 60);
        let nodes = nodes(&mut d, pod_cidr, machines);
        let there = match placement {
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
        let service = service(&mut d, app, asked, service_cidr.nth(asked_vip));
        let second = service_with(&mut d, app, other, service_cidr.nth(other_vip), 1);
        Plan {
            seed,
            placement,
            pod_cidr,
            service_cidr,
            nodes,
            client,
            backends,
            seconds,
            spare,
            service,
            second,
            outside,
            mtu,
            pod_mtu,
            small_mtu,
            unknown: d.pick(&[Unknown::Swallow, Unknown::Unreachable]),
            word: d
                .pick(&["guard", "edge", "site", "sec", "fence", "corp"])
                .to_owned(),
            dnat_maps: d.chance(50),
            manifest_style: d.between(0, 2),
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

/// Networks of Pods, Services, machines and the outside, which do not overlap.
fn networks(d: &mut Draw) -> [Cidr; 4] {
    let mut families = vec![
        Cidr::new(Ipv4Addr::new(10, d.between(0, 254) as u8, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(172, d.between(16, 31) as u8, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(192, 168, 0, 0), 16),
        Cidr::new(Ipv4Addr::new(100, d.between(64, 127) as u8, 0, 0), 16),
    ];
    let [pods, services, machines] = std::array::from_fn(|_| d.take(&mut families));
    let outside = d.pick(&[
        Ipv4Addr::new(203, 0, 113, 0),
        Ipv4Addr::new(198, 51, 100, 0),
        Ipv4Addr::new(192, 0, 2, 0),
    ]);
    let services = Cidr::new(services.base, d.between(16, 20) as u8);
    [pods, services, machines, Cidr::new(outside, 24)]
}

fn nodes(d: &mut Draw, pod_cidr: Cidr, machines: Cidr) -> [NodePlan; 2] {
    let style = d.between(0, 2);
    let (uplink, bridge) = (d.pick(&UPLINKS).to_owned(), d.pick(&BRIDGES).to_owned());
    let pod_len = d.between(24, 26) as u8;
    let (link, pods) = (d.between(0, 100), d.between(0, 30));
    std::array::from_fn(|i| {
        let n = i as u32;
        let link = machines.part(link + n * (1 + d.between(0, 50)), 24);
        let (ip, gateway) = (link.nth(d.between(10, 200)), link.nth(1));
        let name = match style {
            0 => format!("worker-{}", d.suffix(4)),
            1 => format!("ip-{}", ip.to_string().replace('.', "-")),
            _ => format!("{}-{}", d.pick(&["node", "kn", "pool-a", "rack"]), n + 1),
        };
        NodePlan {
            name,
            ip,
            link,
            gateway,
            uplink: uplink.clone(),
            bridge: bridge.clone(),
            pods: pod_cidr.part(pods + n * (1 + d.between(0, 20)), pod_len),
            router_if: format!("to-{n}"),
        }
    })
}

/// Names and addresses that were given out so far.
struct Naming {
    pod_cidrs: [Cidr; 2],
    next: [u32; 2],
    ifname: String,
    veth: &'static str,
    label_key: &'static str,
}

impl Naming {
    fn new(d: &mut Draw, nodes: &[NodePlan; 2]) -> Naming {
        Naming {
            pod_cidrs: [nodes[0].pods, nodes[1].pods],
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
            ip: self.naming.pod_cidrs[node].nth(n),
            ifname: self.naming.ifname.clone(),
            veth: format!("{}{}", self.naming.veth, d.suffix(7)),
            label: (self.naming.label_key.to_owned(), self.name.clone()),
            owner,
        }
    }
}

fn service(d: &mut Draw, namespace: &str, workload: &str, vip: IpAddr) -> ServicePlan {
    let ports = d.between(1, 2);
    service_with(d, namespace, workload, vip, ports)
}

fn service_with(
    d: &mut Draw,
    namespace: &str,
    workload: &str,
    vip: IpAddr,
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
        })
        .collect();
    let suffix = d.pick(&["", "-svc", "-api"]);
    ServicePlan {
        namespace: namespace.to_owned(),
        name: format!("{workload}{suffix}"),
        vip,
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
            for placement in Placement::ALL {
                let plan = Plan::draw(seed, placement);
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
                    usize::from(placement == Placement::Cross)
                );
            }
        }
    }
}
