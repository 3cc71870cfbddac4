//! A lab: two nodes with Pods, a router between them, a host outside. All of it in network namespaces of its own; the
//! machine's own namespace is never touched.

pub mod between;
pub mod cidr;
mod conntrack;
pub mod draw;
mod ipvs;
pub mod modules;
pub mod netns;
pub mod plan;
pub mod pods;
mod rules;
mod settings;
pub mod state;
mod tweaks;
pub mod wireguard;

use crate::proxy::{Mode, nftables};
use crate::traffic::{App, Listen};
use crate::world::{Between, Lost, Party, Tweak, World};
use anyhow::{Context, Result, bail};
use cidr::Cidr;
use plan::{NodeNet, Plan, PodPlan, Shape, Unknown};
use state::{Owner, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, RwLock};

/// Whether a lab outlives the process that raised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is taken down when dropped, and by the next start if this process dies.
    Owned,
    /// It stays until `down`.
    Stays,
}

/// A lab that is up.
pub struct Lab {
    /// How it looks.
    pub plan: Plan,
    /// How Services are proxied.
    pub mode: Mode,
    state: State,
    servers: BTreeMap<IpAddr, (Vec<Listen>, App)>,
    /// Pods with firewall rules inside.
    ruled: BTreeSet<IpAddr>,
    tweaks: Vec<Tweak>,
    /// Percent of the client node's conntrack table that were filled.
    conntrack_fill: u8,
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static OPEN: Mutex<Vec<State>> = Mutex::new(Vec::new());
/// Held for reading while a lab is being raised or taken down; taken for good before everything is taken down.
static GATE: RwLock<()> = RwLock::new(());

/// Takes down every lab of this process; for signal handlers, which cannot drop what other threads hold.
pub fn take_all_down() {
    // Nothing may be raised any more once the removal has begun: it would outlive this process. Nor does anybody else remove.
    std::mem::forget(GATE.write());
    let states = OPEN
        .lock()
        .map(|mut open| std::mem::take(&mut *open))
        .unwrap_or_default();
    for state in states {
        if let Err(e) = state.remove() {
            eprintln!("netflow-lab: {e:#}");
        }
    }
}

/// Refuses when this process may not make network namespaces.
pub fn need_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and needs root: run it with sudo");
    }
    Ok(())
}

impl Lab {
    /// Raises a lab: links, addresses, routes. Nothing listens and no rule is written yet; see [`Lab::apply`].
    pub fn up(plan: Plan, mode: Mode, life: Life) -> Result<Lab> {
        need_root()?;
        modules::load()?;
        if mode.is_ipvs() {
            modules::load_ipvs()?;
        }
        let gate = GATE.read();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("nfl{:x}-{number}", std::process::id());
        let lab = Lab {
            state: State {
                namespaces: namespaces(&plan, &prefix),
                prefix,
                owner: match life {
                    Life::Owned => Some(Owner::me()?),
                    Life::Stays => None,
                },
                seed: plan.seed,
                shape: plan.shape.name(),
                proxy: mode.name().to_owned(),
                fault: String::new(),
            },
            plan,
            mode,
            servers: BTreeMap::new(),
            ruled: BTreeSet::new(),
            tweaks: Vec::new(),
            conntrack_fill: 0,
        };
        let built = lab.state.save().and_then(|()| {
            if let Ok(mut open) = OPEN.lock() {
                open.push(lab.state.clone());
            }
            lab.build()
        });
        // A lab that could not be raised is taken down, which asks for the gate.
        drop(gate);
        built.context("raising the lab")?;
        Ok(lab)
    }

    /// It stands on after this process has ended.
    pub fn stays(&self) -> bool {
        self.state.owner.is_none()
    }

    /// Namespace of node `n`.
    pub fn node(&self, n: usize) -> String {
        format!("{}-{}", self.state.prefix, self.plan.nodes[n].name)
    }

    /// Namespace of a Pod.
    pub fn pod(&self, pod: &PodPlan) -> String {
        pod_namespace(&self.state.prefix, pod)
    }

    /// Namespace of the router.
    pub fn router(&self) -> String {
        format!("{}-router", self.state.prefix)
    }

    /// Namespace of the host outside.
    pub fn outside(&self) -> String {
        format!("{}-outside", self.state.prefix)
    }

    /// Namespace of a party.
    pub fn party(&self, party: Party) -> String {
        match party {
            Party::Client => self.pod(&self.plan.client),
            Party::Backend(n) => self.pod(&self.plan.backends[n]),
            Party::Second(n) => self.pod(&self.plan.seconds[n]),
            Party::Node(n) => self.node(n),
            Party::Outside => self.outside(),
        }
    }

    /// Namespace by the name of a node or Pod, `router` or `outside`.
    pub fn find(&self, name: &str) -> Option<String> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let node = (0..2)
            .find(|n| self.plan.nodes[*n].name == name)
            .map(|n| self.node(n));
        let pod = || {
            self.plan
                .pods()
                .find(|p| p.name == name)
                .map(|p| self.pod(p))
        };
        node.or_else(pod).or_else(|| match name {
            "router" => Some(self.router()),
            "outside" => Some(self.outside()),
            _ => None,
        })
    }

    /// Files of this lab.
    pub fn dir(&self) -> PathBuf {
        self.state.dir()
    }

    /// The objects, as files.
    pub fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
    }

    /// Starts a program in a namespace.
    pub fn spawn(&self, netns: &str, mut command: Command) -> Result<Child> {
        netns::within(netns, move || {
            command
                .spawn()
                .with_context(|| format!("starting {}", command.get_program().display()))
        })
    }

    /// Makes the lab as `world` says: manifests, rules, listeners, what lies between the nodes.
    pub fn apply(&mut self, world: &World) -> Result<()> {
        world
            .objects
            .write(&self.manifests(), self.plan.manifest_style)?;
        tweaks::undo(self, &world.tweaks)?;
        for n in 0..2 {
            rules::node(self, world, n)?;
        }
        rules::pods(self, world)?;
        settings::set(self, &world.settings)?;
        self.set_between(&world.between)?;
        self.set_gone(&world.gone)?;
        tweaks::make(self, &world.tweaks)?;
        self.set_listens(&world.listens)
    }

    /// Makes of it only what is done to single machines.
    pub fn apply_tweaks(&mut self, world: &World) -> Result<()> {
        tweaks::undo(self, &world.tweaks)?;
        tweaks::make(self, &world.tweaks)
    }

    fn has_rules(&self, pod: IpAddr) -> bool {
        self.ruled.contains(&pod)
    }

    fn set_has_rules(&mut self, pod: IpAddr, rules: bool) {
        if rules {
            self.ruled.insert(pod);
        } else {
            self.ruled.remove(&pod);
        }
    }

    fn set_listens(&mut self, listens: &BTreeMap<IpAddr, Vec<Listen>>) -> Result<()> {
        self.servers
            .retain(|ip, (now, _)| listens.get(ip) == Some(now));
        let pods: Vec<PodPlan> = self.plan.pods().cloned().collect();
        for pod in pods {
            let wanted = listens.get(&pod.ip).filter(|l| !l.is_empty());
            if let Some(wanted) = wanted.filter(|_| !self.servers.contains_key(&pod.ip)) {
                let app = App::serve(self, &self.pod(&pod), wanted)?;
                self.servers.insert(pod.ip, (wanted.clone(), app));
            }
        }
        Ok(())
    }

    /// A Pod that is gone has neither address nor carrier.
    fn set_gone(&self, gone: &[IpAddr]) -> Result<()> {
        for n in 0..2 {
            let pods = self.plan.pods().filter(|p| p.node == n);
            let (gone, there): (Vec<_>, Vec<_>) = pods.partition(|p| gone.contains(&p.ip));
            for pod in &gone {
                netns::batch(&self.pod(pod), &pods::gone(pod))?;
            }
            for pod in &there {
                netns::batch(&self.pod(pod), &pods::inside(&self.plan, pod))?;
            }
            let lines = gone.iter().map(|pod| pods::detach(&self.plan, pod));
            let lines = lines.chain(there.iter().map(|pod| pods::attach(&self.plan, pod)));
            netns::batch(&self.node(n), &lines.flatten().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn set_between(&self, between: &Between) -> Result<()> {
        netns::batch(&self.router(), &self.router_routes(between.path_mtu))?;
        let lost = between.lost.as_ref().map_or(String::new(), |lost| {
            let drop = |to: &Cidr| format!("{} daddr {to} drop\n", nftables::family(to.base));
            let rules: Vec<String> = self.swallowed(lost).iter().map(drop).collect();
            format!(
                "table inet path {{ chain forward {{ type filter hook forward priority 0;\n{}}}\n}}\n",
                rules.concat()
            )
        });
        let mute = if between.mute { between::MUTE } else { "" };
        let rules = format!("flush ruleset\n{lost}{mute}");
        netns::within(&self.router(), || netns::feed("nft", &["-f", "-"], &rules))
    }

    /// Destinations that the router drops.
    fn swallowed(&self, lost: &Lost) -> Vec<Cidr> {
        match lost {
            Lost::Node(n) => {
                let nets = self.plan.nodes[*n].nets();
                if self.plan.shape.network.is_tunnelled() {
                    // Here Pods' packets are inside the nodes' own.
                    nets.map(|net| Cidr::host(net.ip)).collect()
                } else {
                    nets.map(|net| net.pods).collect()
                }
            }
            Lost::Pods(ips) => {
                let hit = self.plan.pods().filter(|p| ips.contains(&p.ip));
                hit.flat_map(PodPlan::ips).map(Cidr::host).collect()
            }
        }
    }

    /// The router's routes. A small path MTU is a property of the routes, so that the router accepts big packets and
    /// finds them too big only when it sends them on, as at a narrower link.
    fn router_routes(&self, path_mtu: Option<u32>) -> Vec<String> {
        let mtu = path_mtu.map_or(String::new(), |m| format!(" mtu lock {m}"));
        let mut lines = Vec::new();
        for node in &self.plan.nodes {
            for NodeNet { ip, pods, .. } in node.nets() {
                let route = if self.plan.shape.network.is_tunnelled() {
                    Cidr::host(ip).to_string()
                } else {
                    format!("{pods} via {ip}")
                };
                lines.push(format!("route replace {route} dev {}{mtu}", node.router_if));
            }
        }
        lines
    }

    fn build(&self) -> Result<()> {
        let adds: Vec<String> = self
            .state
            .namespaces
            .iter()
            .map(|n| format!("netns add {n}"))
            .collect();
        netns::manage(&adds, false)?;
        for ns in &self.state.namespaces {
            // Link-local addresses are usable at once, as they are long since where a Pod runs.
            netns::sysctl(ns, &[("net.ipv6.conf.default.accept_dad", "0")])?;
        }
        netns::batch(&self.router(), &self.links())?;
        netns::sysctl(&self.router(), &FORWARDING)?;
        netns::batch(&self.router(), &self.router_setup())?;
        netns::batch(&self.outside(), &self.outside_setup())?;
        for n in 0..2 {
            netns::sysctl(&self.node(n), &FORWARDING)?;
            netns::sysctl(
                &self.node(n),
                &[
                    ("net.bridge.bridge-nf-call-iptables", "1"),
                    ("net.bridge.bridge-nf-call-ip6tables", "1"),
                ],
            )?;
            netns::batch(&self.node(n), &self.node_setup(n))?;
            // kube-proxy looks for stale entries as it starts; so the module by which the table is read is there on every node.
            conntrack::empty(&self.node(n))?;
            if self.mode.is_ipvs() {
                ipvs::prepare(&self.node(n), self.mode == Mode::Ipvs)?;
            }
            let fdb = between::fdb(&self.plan, n);
            if !fdb.is_empty() {
                let args = ["-n", &self.node(n), "-batch", "-"];
                netns::feed("bridge", &args, &fdb)?;
            }
        }
        wireguard::join(&self.plan, [&self.node(0), &self.node(1)])?;
        for pod in self.plan.pods() {
            netns::batch(&self.pod(pod), &["link set lo up".to_owned()])?;
            let node = self.node(pod.node);
            netns::sysctl(&node, &pods::answering(&self.plan, pod))?;
        }
        for n in 0..2 {
            put_clsact(&self.node(n))?;
        }
        self.set_gone(&[])
    }

    /// Every veth pair, made directly in the namespaces that hold its ends.
    fn links(&self) -> Vec<String> {
        let veth = |a: &str, a_ns: String, b: &str, b_ns: String, mtu: u32| {
            format!(
                "link add name {a} netns {a_ns} mtu {mtu} type veth peer name {b} netns {b_ns} mtu {mtu}"
            )
        };
        let mtu = self.plan.mtu;
        let mut lines = vec![veth(
            "to-outside",
            self.router(),
            "eth0",
            self.outside(),
            mtu,
        )];
        for (n, node) in self.plan.nodes.iter().enumerate() {
            lines.push(veth(
                &node.router_if,
                self.router(),
                &node.uplink,
                self.node(n),
                mtu,
            ));
        }
        for pod in self.plan.pods() {
            let node = self.node(pod.node);
            lines.push(veth(
                &pod.veth,
                node,
                &pod.ifname,
                self.pod(pod),
                self.plan.pod_mtu,
            ));
        }
        lines
    }

    fn router_setup(&self) -> Vec<String> {
        let mut lines = vec![
            "link set lo up".to_owned(),
            "link set to-outside up".to_owned(),
        ];
        for networks in self.plan.networks() {
            lines.push(address(
                networks.outside.nth(1),
                networks.outside,
                "to-outside",
            ));
        }
        for node in &self.plan.nodes {
            lines.push(format!("link set {} up", node.router_if));
            for net in node.nets() {
                lines.push(address(net.gateway, net.link, &node.router_if));
            }
        }
        lines.extend(self.router_routes(None));
        if self.plan.unknown == Unknown::Swallow {
            for networks in self.plan.networks() {
                let everything = networks.outside.everything();
                lines.push(format!("route add blackhole {everything}"));
            }
        }
        lines
    }

    fn outside_setup(&self) -> Vec<String> {
        let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        for networks in self.plan.networks() {
            let outside = networks.outside;
            lines.push(address(outside.nth(2), outside, "eth0"));
            lines.push(format!("route add default via {}", outside.nth(1)));
        }
        lines
    }

    fn node_setup(&self, n: usize) -> Vec<String> {
        let (node, plan) = (&self.plan.nodes[n], &self.plan);
        let uplink = &node.uplink;
        let mut lines = vec!["link set lo up".to_owned(), format!("link set {uplink} up")];
        for net in node.nets() {
            lines.push(address(net.ip, net.link, uplink));
            lines.push(format!("route add default via {}", net.gateway));
        }
        lines.extend(pods::on_node(plan, n));
        lines.extend(between::to_other(plan, n));
        lines
    }

    /// Notes which fault the lab has, for `status`.
    pub fn note_fault(&mut self, name: &str) -> Result<()> {
        name.clone_into(&mut self.state.fault);
        self.state.save()
    }

    /// Gives the lab away: `owner` is to take it down, or the next start after its death.
    pub fn hand_over(mut self, owner: Owner) -> Result<()> {
        self.state.owner = Some(owner);
        self.state.save()?;
        if let Ok(mut open) = OPEN.lock() {
            open.retain(|s| s.prefix != self.state.prefix);
        }
        self.state.owner = None;
        self.leave();
        Ok(())
    }

    /// Takes the lab down.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let _gate = GATE.read();
        if let Ok(mut open) = OPEN.lock() {
            open.retain(|s| s.prefix != self.state.prefix);
        }
        self.servers.clear();
        self.state.remove()
    }

    /// The lab of a state that is up already; its plan is drawn again. Whoever owns it still does: it stays when this is dropped.
    pub fn reopen(state: &State) -> Result<Lab> {
        let shape = Shape::parse(&state.shape).context("unknown shape in the state")?;
        Ok(Lab {
            plan: Plan::draw(state.seed, shape),
            mode: Mode::parse(&state.proxy).context("unknown proxy mode in the state")?,
            state: State {
                owner: None,
                ..state.clone()
            },
            servers: BTreeMap::new(),
            ruled: BTreeSet::new(),
            tweaks: Vec::new(),
            conntrack_fill: 0,
        })
    }

    /// Lets servers go on after this process ends.
    pub fn leave(mut self) {
        for (_, (_, app)) in std::mem::take(&mut self.servers) {
            app.leave();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.state.owner.is_some()
            && self.state.dir().exists()
            && let Err(e) = self.end()
        {
            eprintln!("netflow-lab: taking the lab down: {e:#}");
        }
    }
}

/// Makes a namespace a router.
const FORWARDING: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
];

/// A line of `ip` that gives an interface an address.
fn address(ip: IpAddr, net: Cidr, ifname: &str) -> String {
    format!("addr add {ip}/{} dev {ifname}{}", net.len, nodad(ip))
}

/// Nobody else has the address, and it is wanted at once.
fn nodad(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { " nodad" } else { "" }
}

/// Gives every interface of a node its clsact qdisc, as a network plugin does before there is traffic. Else netflow adds and
/// removes it where there is no TCX, and the kernel drops what the interface would send in those moments (`dev_deactivate` in
/// `qdisc_graft`, `net/sched/sch_api.c`, v6.18): one netflow's end would be loss that another one sees, and tells truly.
fn put_clsact(node: &str) -> Result<()> {
    let lines = netns::within(node, || {
        let interfaces = nix::net::if_::if_nameindex()?;
        let names = interfaces.iter().map(|i| i.name().to_string_lossy());
        let others = names.filter(|name| name != "lo");
        let line = |name| format!("qdisc add dev {name} clsact");
        Ok(others.map(line).collect::<Vec<_>>())
    })?;
    let lines = lines.join("\n") + "\n";
    netns::feed("tc", &["-n", node, "-batch", "-"], &lines)
}

fn pod_namespace(prefix: &str, pod: &PodPlan) -> String {
    format!("{prefix}-{}-{}", pod.namespace, pod.name)
}

fn namespaces(plan: &Plan, prefix: &str) -> Vec<String> {
    let fixed = ["router", "outside"].map(|n| format!("{prefix}-{n}"));
    let nodes = plan.nodes.iter().map(|n| format!("{prefix}-{}", n.name));
    let pods = plan.pods().map(|p| pod_namespace(prefix, p));
    fixed.into_iter().chain(nodes).chain(pods).collect()
}
