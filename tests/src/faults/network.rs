//! What lies between the nodes.

use super::route::{of_ipv4, shapes};
use super::{At, Expect, Fault, Form, Vantage};
use crate::lab::between::MUTE;
use crate::lab::plan::{Network, Placement, Plan, Shape};
use crate::proxy::Mode;
use crate::traffic::{Dial, Outcome};
use crate::world::{Lost, Site, Step, Tweak, World};
use anyhow::Result;

pub(super) const ALL: &[&dyn Fault] = &[
    &MtuBlackhole,
    &MtuBlackholeReplies,
    &PmtuLearned,
    &PmtuIgnored,
    &PmtuUntold,
    &MtuMismatch { told: true },
    &MtuMismatch { told: false },
    &Fragmentation,
    &LostBeyondNode,
    &NodeDown { silent: true },
    &NodeDown { silent: false },
    &NeverArrived,
    &LostMidTransfer,
];

const CROSS: &[Placement] = &[Placement::Cross];

/// Transfers that need full-size segments on the way there (`send`) or back (`receive`).
fn transfer(world: &mut World, send: u32, receive: u32) {
    for dial in world.via_vip.iter_mut().chain(&mut world.via_pod) {
        *dial = Dial {
            send: send as usize,
            receive,
            ..dial.clone()
        };
    }
}

/// The path between the nodes carries less than what Pods send, and nobody may cut it to fit.
fn narrow(plan: &Plan, world: &mut World) {
    world.between.path_mtu = Some(plan.small_mtu + plan.overhead());
    for n in 0..plan.nodes.len() {
        world.tweaks.extend(uncut(plan, n));
    }
}

/// A tunnel's packets forbid to be cut, as in IPv6 all do: without it routers cut them, where they still do that.
fn uncut(plan: &Plan, n: usize) -> Option<Tweak> {
    let node = &plan.nodes[n];
    let set = |df: &str| {
        let tunnel = &node.tunnel;
        vec![Step::Ip(format!(
            "link set dev {tunnel} type vxlan df {df}"
        ))]
    };
    let may = plan.shape.network == Network::Vxlan && node.ip.is_ipv4();
    may.then(|| Tweak {
        site: Site::Node(n),
        done: set("set"),
        undone: set("unset"),
    })
}

/// Full-size segments, where they hang.
const BIG: u32 = 200_000;
/// Full-size segments, where they pass: a few, since each crosses eight interfaces, and a machine that is emulated drops what
/// waits for them (`netdev_max_backlog`).
const FEW: u32 = 20_000;
/// One small segment.
const SMALL: u32 = 100;

/// Who sends what is too big, and so sees that it is never acknowledged, finds this: the other end only waits.
fn stalls(at: At, sender: Vantage, found: Expect) -> Expect {
    let expect = if at.vantage == sender || at.vantage == Vantage::Together {
        found
    } else {
        Expect::not_from_here()
    };
    match at.form {
        // What was open before netflow looked counts as answered until its data is seen to hang. At the other end it hangs where
        // its last segment is small enough to come through.
        Form::Retrying => expect.or_degraded(),
        _ => expect,
    }
}

fn blackhole(at: At, sender: Vantage) -> Expect {
    stalls(at, sender, Expect::code("mtu-blackhole", &["flow"]))
}

struct MtuBlackhole;

impl Fault for MtuBlackhole {
    fn name(&self) -> &'static str {
        "mtu-blackhole"
    }
    fn breaks(&self) -> &'static str {
        "the path between the nodes has a smaller MTU, and nobody is told: big requests vanish"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        narrow(plan, world);
        world.between.mute = true;
        transfer(world, BIG, SMALL);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        blackhole(at, Vantage::Client)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
}

struct MtuBlackholeReplies;

impl Fault for MtuBlackholeReplies {
    fn name(&self) -> &'static str {
        "mtu-blackhole-replies"
    }
    fn breaks(&self) -> &'static str {
        "the path between the nodes has a smaller MTU, and nobody is told: big replies vanish"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        narrow(plan, world);
        world.between.mute = true;
        transfer(world, SMALL, BIG);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        blackhole(at, Vantage::Backend)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
}

struct PmtuLearned;

impl Fault for PmtuLearned {
    fn name(&self) -> &'static str {
        "pmtu-learned"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the path between the nodes has a smaller MTU and says so"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        narrow(plan, world);
        transfer(world, FEW, FEW);
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect {
            info: Some("pmtu-learned"),
            ..Expect::healthy()
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn networks(&self) -> &'static [Network] {
        &Network::ROUTED
    }
    /// What was learned before netflow looked is no event any more.
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::VipOnly]
    }
}

struct PmtuIgnored;

impl Fault for PmtuIgnored {
    fn name(&self) -> &'static str {
        "pmtu-ignored"
    }
    fn breaks(&self) -> &'static str {
        "the path between the nodes has a smaller MTU and says so, and the client's Pod drops the message"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        narrow(plan, world);
        transfer(world, BIG, SMALL);
        world.tweaks.push(deaf(plan));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let found = Expect::code("pmtu-ignored", &["mtu"]).and(&["flow"]);
        stalls(at, Vantage::Client, found)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    fn shapes(&self) -> Vec<Shape> {
        shapes(CROSS, &[Network::Bridge])
    }
}

struct PmtuUntold;

impl Fault for PmtuUntold {
    fn name(&self) -> &'static str {
        "pmtu-untold"
    }
    fn breaks(&self) -> &'static str {
        "the path between the nodes has a smaller MTU and says so to the nodes, whose tunnel tells no Pod"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        narrow(plan, world);
        transfer(world, BIG, SMALL);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let found = Expect::code("pmtu-ignored", &["flow"]);
        stalls(at, Vantage::Client, found)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    /// IPv4 forwards by the MTU of the device, not by what was learned of the path, unless it is told to
    /// (`ip_dst_mtu_maybe_forward`, <https://elixir.bootlin.com/linux/v6.18/source/include/net/ip.h>).
    fn shapes(&self) -> Vec<Shape> {
        of_ipv4(shapes(CROSS, &[Network::Vxlan]))
    }
}

/// The client's Pod drops what says that a packet is too big.
fn deaf(plan: &Plan) -> Tweak {
    let told = if plan.client.ip.is_ipv6() {
        "icmpv6 type packet-too-big"
    } else {
        "icmp type destination-unreachable"
    };
    let rules = format!(
        "table inet shut {{ chain in {{ type filter hook input priority 0; {told} drop\n}}\n}}\n"
    );
    Tweak {
        site: Site::Pod(plan.client.ip),
        done: vec![Step::Nft(rules)],
        undone: vec![Step::Nft("delete table inet shut\n".to_owned())],
    }
}

/// The links between the nodes carry no more than Pods send, as after a move to others: the tunnel's headers do not fit.
struct MtuMismatch {
    told: bool,
}

impl Fault for MtuMismatch {
    fn name(&self) -> &'static str {
        if self.told {
            "mtu-mismatch-told"
        } else {
            "mtu-mismatch"
        }
    }
    fn breaks(&self) -> &'static str {
        if self.told {
            "nothing: the links carry less than the tunnel needs, and Pods are told what fits"
        } else {
            "the links carry less than the tunnel needs, and the node tells nobody: big requests vanish"
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        // Little is missing: what fits is more than the least that IPv6 can be told.
        let below = plan.pod_mtu + plan.overhead() - 10;
        for (n, node) in plan.nodes.iter().enumerate() {
            let set = |mtu: u32| vec![Step::Ip(format!("link set dev {} mtu {mtu}", node.uplink))];
            world.tweaks.push(Tweak {
                site: Site::Node(n),
                done: set(below),
                undone: set(plan.mtu),
            });
        }
        if !self.told {
            // Or the node would cut its own packets, as it may unless they forbid it.
            world.tweaks.extend(uncut(plan, 0));
            world.tweaks.push(Tweak {
                site: Site::Node(0),
                done: vec![Step::Nft(MUTE.to_owned())],
                undone: vec![Step::Nft("delete table inet mute\n".to_owned())],
            });
        }
        transfer(world, if self.told { FEW } else { BIG }, SMALL);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        if self.told {
            return match at.vantage {
                // What goes back is small.
                Vantage::Backend => Expect::unharmed(),
                Vantage::Client | Vantage::Together => Expect {
                    info: Some("mtu-mismatch"),
                    ..Expect::healthy()
                },
            };
        }
        let found = Expect::code("mtu-mismatch", &["flow"]).and(&["node"]);
        stalls(at, Vantage::Client, found)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![if self.told {
            Outcome::Ok
        } else {
            Outcome::Stalled
        }]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn networks(&self) -> &'static [Network] {
        &[Network::Vxlan]
    }
    /// A client that has been told, or has stalled, before netflow looked sends nothing big any more.
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::VipOnly]
    }
}

struct Fragmentation;

impl Fault for Fragmentation {
    fn name(&self) -> &'static str {
        "fragmentation"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the client sends datagrams that are bigger than a link"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        super::variant::to_udp(plan, world)?;
        transfer(world, plan.pod_mtu + 700, SMALL);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let info = Some("fragmentation");
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            Vantage::Client | Vantage::Together => Expect {
                info,
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn shapes(&self) -> Vec<Shape> {
        shapes(&Placement::ALL, &[Network::Bridge])
    }
    /// What was split before netflow looked is split again.
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::VipOnly]
    }
}

struct LostBeyondNode;

impl Fault for LostBeyondNode {
    fn name(&self) -> &'static str {
        "lost-beyond-node"
    }
    fn breaks(&self) -> &'static str {
        "the network drops everything for the Pods of the other node"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.between.lost = Some(Lost::Node(1));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        // Nothing at all comes through the tunnel.
        let lost = "overlay-peer-lost";
        if at.network.is_tunnelled() {
            lost_as(at, lost, lost)
        } else {
            lost_as(at, "lost-beyond-node", "never-arrived")
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}

/// The API says that the other node is not Ready.
struct NodeDown {
    /// And nothing comes back from it.
    silent: bool,
}

impl Fault for NodeDown {
    fn name(&self) -> &'static str {
        if self.silent {
            "backend-node-down"
        } else {
            "near-node-not-ready"
        }
    }
    fn breaks(&self) -> &'static str {
        if self.silent {
            "the backends' node is not Ready, and nothing comes back from it"
        } else {
            "nothing: the backends' node is not Ready, and its Pods serve"
        }
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.objects.node_down(1);
        if self.silent {
            world.between.lost = Some(Lost::Node(1));
        }
        Ok(())
    }
    /// A node that answers itself runs: then it is the network that is cut.
    fn expect(&self, at: At) -> Expect {
        match (self.silent, at.vantage) {
            (true, Vantage::Client) => Expect::code("backend-node-down", &["flow"]).and(&["k8s"]),
            (true, _) => LostBeyondNode.expect(at),
            (false, Vantage::Backend) => Expect::unharmed(),
            (false, _) => Expect::healthy(),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![if self.silent {
            Outcome::Timeout
        } else {
            Outcome::Ok
        }]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn is_node_wide(&self) -> bool {
        self.silent
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        vec![plan.nodes[1].name.clone()]
    }
}

/// Packets left one node and never came to the other, which is known as soon as both are asked.
fn lost(at: At) -> Expect {
    lost_as(at, "lost-beyond-node", "never-arrived")
}

/// The same, as the client's node says it alone and together with the other.
fn lost_as(at: At, alone: &'static str, together: &'static str) -> Expect {
    match at.vantage {
        Vantage::Client => Expect::code(alone, &["flow"]),
        Vantage::Backend => Expect {
            codes: vec!["never-arrived"],
            ..Expect::not_from_here()
        },
        Vantage::Together => Expect::code(together, &["flow"]),
    }
}

struct LostMidTransfer;

impl Fault for LostMidTransfer {
    fn name(&self) -> &'static str {
        "lost-mid-transfer"
    }
    fn breaks(&self) -> &'static str {
        "the network begins to drop everything for the Pods of the other node while connections transfer"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        super::healthy::transfer_on(world);
        Ok(())
    }
    fn meanwhile(&self, _plan: &Plan, world: &mut World) -> bool {
        world.between.lost = Some(Lost::Node(1));
        true
    }
    fn expect(&self, at: At) -> Expect {
        lost(at)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Stalled]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    /// The connections must stand when it happens.
    fn forms(&self) -> &'static [Form] {
        &[Form::Retrying]
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}

struct NeverArrived;

impl Fault for NeverArrived {
    fn name(&self) -> &'static str {
        "never-arrived"
    }
    fn breaks(&self) -> &'static str {
        "the network drops what is for the Service's backends"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.between.lost = Some(Lost::Pods(plan.backends.iter().map(|p| p.ip).collect()));
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        lost(at)
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        CROSS
    }
    fn networks(&self) -> &'static [Network] {
        &Network::ROUTED
    }
}
