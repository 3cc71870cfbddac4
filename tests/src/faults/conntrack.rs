//! Conntrack and the translation that rests on it.

use super::route::shapes;
use super::variant::to_udp;
use super::{At, Expect, Fault, Form, Vantage};
use crate::lab::plan::{Network, Placement, Plan, Shape};
use crate::manifests::make_unready;
use crate::pace;
use crate::proxy::Mode;
use crate::settings::Masquerade;
use crate::traffic::{Dial, Listen, Outcome};
use crate::world::{Party, World};
use anyhow::Result;

pub(super) const ALL: &[&dyn Fault] = &[
    &Hairpin(Round::Refused),
    &Hairpin(Round::NoMasquerade),
    &Hairpin(Round::Neither),
    &Hairpin(Round::Routed),
    &Hairpin(Round::Works),
    &ReplyBypassesNat,
    &BridgeWithoutRules,
    &ConntrackStale,
    &ConntrackFull,
    &ConntrackPressure,
    &ConntrackInvalid,
    &ClashResolved,
    &SnatPortsExhausted,
    &SourceMasqueraded,
];

/// Labs whose Pods are on a bridge: what is broken here lies in the node's conntrack, before any difference of network.
pub(super) fn plain(placements: &[Placement]) -> Vec<Shape> {
    shapes(placements, &[Network::Bridge])
}

/// What a Pod that dials the Service it serves itself finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// The bridge port does not send back.
    Refused,
    /// Nobody masquerades it.
    NoMasquerade,
    /// Both.
    Neither,
    /// Nobody masquerades it, and the bridge leaves all to the IP layer.
    Routed,
    /// All that it needs.
    Works,
}

struct Hairpin(Round);

impl Fault for Hairpin {
    fn name(&self) -> &'static str {
        match self.0 {
            Round::Refused => "hairpin",
            Round::NoMasquerade => "hairpin-no-masquerade",
            Round::Neither => "hairpin-neither",
            Round::Routed => "hairpin-routed",
            Round::Works => "near-hairpin-works",
        }
    }
    fn breaks(&self) -> &'static str {
        match self.0 {
            Round::Refused => {
                "a Pod dials its own Service, and the bridge port does not send packets back"
            }
            Round::NoMasquerade => "a Pod dials its own Service, and nobody masquerades that",
            Round::Neither => {
                "a Pod dials its own Service, with neither hairpin mode nor masquerade"
            }
            Round::Routed => {
                "a Pod dials its own Service without masquerade, and the bridge leaves rules to the IP layer"
            }
            Round::Works => "nothing: a Pod dials its own Service",
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        world.client = Party::Backend(0);
        for pod in &plan.backends[1..] {
            make_unready(world.objects.pod_mut(pod)?, "ContainersNotReady", "");
        }
        world.objects.reconcile();
        // What a Pod dials on its own address does not leave it.
        world.via_pod.remove(0);
        let settings = &mut world.settings;
        settings.hairpin = matches!(self.0, Round::NoMasquerade | Round::Routed | Round::Works);
        settings.bridge_nf = self.0 != Round::Routed;
        if matches!(self.0, Round::NoMasquerade | Round::Neither | Round::Routed) {
            settings.masquerade = Masquerade::NotHairpin;
        }
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        match self.0 {
            Round::Works => Expect {
                info: Some("proxy-mode"),
                ..Expect::healthy()
            },
            _ => Expect::code("hairpin", &["drop"]),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        match self.0 {
            Round::Works => vec![Outcome::Ok],
            _ => vec![Outcome::Timeout],
        }
    }
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Same]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
    /// Bridged answers of every Service on the node are not translated back either.
    fn is_node_wide(&self) -> bool {
        self.0 == Round::Routed
    }
}

struct ReplyBypassesNat;

impl Fault for ReplyBypassesNat {
    fn name(&self) -> &'static str {
        "reply-bypasses-nat"
    }
    fn breaks(&self) -> &'static str {
        "client and backends are on one bridge, whose packets pass no rules: answers are not translated back"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.bridge_nf = false;
        Ok(())
    }
    fn expect(&self, _at: At) -> Expect {
        Expect::code("reply-bypasses-nat", &["flow"]).and(&["ct"])
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Same]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
    fn is_node_wide(&self) -> bool {
        true
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        let tables = if plan.client.ip.is_ipv6() {
            "ip6tables"
        } else {
            "iptables"
        };
        vec![format!("bridge-nf-call-{tables}")]
    }
}

struct BridgeWithoutRules;

impl Fault for BridgeWithoutRules {
    fn name(&self) -> &'static str {
        "near-bridge-without-rules"
    }
    fn breaks(&self) -> &'static str {
        "nothing that matters: bridged packets pass no rules, and the backends are on another node"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.bridge_nf = false;
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            _ => Expect::healthy(),
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Cross]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
    fn is_node_wide(&self) -> bool {
        true
    }
}

/// A small connection or exchange that goes on all the time.
fn hold(dial: &Dial) -> Dial {
    Dial {
        count: 1,
        hold: Some(300),
        send: 100,
        receive: 100,
        ..dial.clone()
    }
}

struct ConntrackStale;

impl Fault for ConntrackStale {
    fn name(&self) -> &'static str {
        "conntrack-stale"
    }
    fn breaks(&self) -> &'static str {
        "a UDP client keeps its port, and its conntrack entry keeps sending to a Pod that was replaced"
    }
    /// One Pod serves; the others come later.
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        to_udp(plan, world)?;
        for pod in &plan.backends[1..] {
            make_unready(world.objects.pod_mut(pod)?, "ContainersNotReady", "");
        }
        world.objects.reconcile();
        world.via_vip.insert(0, hold(&world.via_vip[0]));
        world.via_pod.remove(0);
        Ok(())
    }
    fn beforehand(&self, plan: &Plan, world: &mut World) -> Result<bool> {
        let mut fresh = World::healthy(plan, world.mode);
        to_udp(plan, &mut fresh)?;
        let gone = &plan.backends[0];
        fresh
            .objects
            .pods
            .retain(|p| p.metadata.name.as_ref() != Some(&gone.name));
        fresh.objects.reconcile();
        world.objects = fresh.objects;
        world.listen(gone, Vec::new());
        world.gone.push(gone.ip);
        Ok(true)
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("conntrack-stale", &["ct"]).degraded())
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout, Outcome::Unreachable]
    }
    /// The entry must stand when the Pod is replaced.
    fn forms(&self) -> &'static [Form] {
        &[Form::Retrying]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

struct ConntrackFull;

impl Fault for ConntrackFull {
    fn name(&self) -> &'static str {
        "conntrack-full"
    }
    fn breaks(&self) -> &'static str {
        "entries of others fill the conntrack table of the client's node, and none can be thrown out"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.conntrack_fill = 100;
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(Expect::code("conntrack-full", &["drop"]).and(&["node"]))
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Timeout]
    }
    fn is_node_wide(&self) -> bool {
        true
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

struct ConntrackPressure;

impl Fault for ConntrackPressure {
    fn name(&self) -> &'static str {
        "conntrack-pressure"
    }
    fn breaks(&self) -> &'static str {
        "nothing yet: entries of others nearly fill the conntrack table of the client's node"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.conntrack_fill = 95;
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            Vantage::Client | Vantage::Together => Expect {
                info: Some("conntrack-pressure"),
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

/// Long connections to backends that send what conntrack cannot place.
fn stray(plan: &Plan, world: &mut World) {
    for pod in &plan.backends {
        let ports = plan.service.ports.iter();
        let listens = ports.map(|p| Listen::any("stray", p.target)).collect();
        world.listen(pod, listens);
    }
    for dial in &mut world.via_vip {
        *dial = Dial {
            count: 100,
            interval: 500,
            ..hold(dial)
        };
    }
}

struct ConntrackInvalid;

impl Fault for ConntrackInvalid {
    fn name(&self) -> &'static str {
        "conntrack-invalid"
    }
    fn breaks(&self) -> &'static str {
        "backends send segments from outside of the window, which the node passes on untranslated"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        stray(plan, world);
        world.settings.drops_invalid = false;
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            // Behind the translation there is nothing odd about a client that resets.
            Vantage::Backend => Expect::without_cause(),
            Vantage::Client | Vantage::Together => {
                Expect::code("conntrack-invalid", &["flow"]).or_degraded()
            }
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Reset]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

struct ClashResolved;

impl Fault for ClashResolved {
    fn name(&self) -> &'static str {
        "conntrack-clash-resolved"
    }
    fn breaks(&self) -> &'static str {
        "nothing: a UDP client sends two datagrams from one socket at once, and conntrack resolves that"
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        to_udp(plan, world)?;
        for dial in &mut world.via_vip {
            *dial = Dial {
                twice: true,
                count: 1000,
                // An emulated machine does not get through as many: what it answers late is not what is shown here.
                interval: 20 * u64::from(pace::times()),
                ..dial.clone()
            };
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            Vantage::Client | Vantage::Together => Expect {
                info: Some("conntrack-clash"),
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

struct SnatPortsExhausted;

impl Fault for SnatPortsExhausted {
    fn name(&self) -> &'static str {
        "snat-ports-exhausted"
    }
    fn breaks(&self) -> &'static str {
        "all connections are masqueraded with two source ports, and more are held open"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.masquerade = Masquerade::All(61_000, 61_001);
        for dial in &mut world.via_vip {
            *dial = Dial {
                count: 100,
                interval: 200,
                ..hold(dial)
            };
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        at.client_side(
            Expect::code("snat-ports-exhausted", &["drop"])
                .and(&["node"])
                .or_degraded(),
        )
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok, Outcome::Timeout]
    }
    fn is_node_wide(&self) -> bool {
        true
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}

struct SourceMasqueraded;

impl Fault for SourceMasqueraded {
    fn name(&self) -> &'static str {
        "source-ip-masqueraded"
    }
    fn breaks(&self) -> &'static str {
        "nothing: the proxy masquerades everybody, so backends do not see the client's address"
    }
    fn inflict(&self, _plan: &Plan, world: &mut World) -> Result<()> {
        world.settings.masquerade = Masquerade::All(32_768, 60_999);
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        match at.vantage {
            Vantage::Backend => Expect::unharmed(),
            Vantage::Client | Vantage::Together => Expect {
                info: Some("source-ip-masqueraded"),
                ..Expect::healthy()
            },
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }
    fn shapes(&self) -> Vec<Shape> {
        plain(self.placements())
    }
}
