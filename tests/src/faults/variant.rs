//! The same faults with another protocol or another client.

use super::{At, Expect, Fault, Form, find, rejected};
use crate::lab::plan::{Network, Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Party, World};
use anyhow::{Context, Result};

pub(super) const ALL: &[&dyn Fault] = &[
    &Variant {
        of: "healthy",
        name: "healthy-udp",
        change: Change::Udp,
    },
    &Variant {
        of: "listener-missing",
        name: "listener-missing-udp",
        change: Change::Udp,
    },
    &Variant {
        of: "no-endpoints-selector",
        name: "no-endpoints-selector-udp",
        change: Change::Udp,
    },
    &Variant {
        of: "firewall-drop",
        name: "firewall-drop-udp",
        change: Change::Udp,
    },
    &Variant {
        of: "protocol-mismatch",
        name: "protocol-mismatch-tcp",
        change: Change::Udp,
    },
    &Variant {
        of: "healthy",
        name: "healthy-node-client",
        change: Change::FromNode,
    },
    &Variant {
        of: "target-port-mismatch",
        name: "target-port-mismatch-node-client",
        change: Change::FromNode,
    },
    &Variant {
        of: "no-endpoints-not-ready",
        name: "no-endpoints-not-ready-node-client",
        change: Change::FromNode,
    },
];

/// What is different.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The Service speaks UDP (and who speaks the wrong protocol, TCP).
    Udp,
    /// The client is a process of the node, as a hostNetwork Pod is.
    FromNode,
}

struct Variant {
    of: &'static str,
    name: &'static str,
    change: Change,
}

impl Variant {
    fn plain(&self) -> &'static dyn Fault {
        find(self.of).unwrap_or_else(|| unreachable!("{} is in the catalogue", self.of))
    }
}

pub(super) fn to_udp(plan: &Plan, world: &mut World) -> Result<()> {
    let spec = world
        .objects
        .service_mut(&plan.service)?
        .spec
        .as_mut()
        .context("no spec")?;
    for port in spec.ports.iter_mut().flatten() {
        port.protocol = Some("UDP".to_owned());
    }
    for pod in &plan.backends {
        let spec = world
            .objects
            .pod_mut(pod)?
            .spec
            .as_mut()
            .context("no spec")?;
        for port in spec
            .containers
            .iter_mut()
            .filter_map(|c| c.ports.as_mut())
            .flatten()
        {
            port.protocol = Some("UDP".to_owned());
        }
        for listen in world.listens.entry(pod.ip).or_default() {
            listen.kind = "udp";
        }
    }
    for dial in world.via_vip.iter_mut().chain(&mut world.via_pod) {
        dial.proto = if dial.proto == "udp" { "tcp" } else { "udp" };
    }
    for filter in &mut world.filters {
        filter.proto = "udp";
    }
    world.objects.reconcile();
    Ok(())
}

impl Fault for Variant {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        match (self.change, self.of) {
            (Change::Udp, "healthy") => "nothing: the Service speaks UDP",
            (Change::Udp, "protocol-mismatch") => {
                "the client speaks TCP to a UDP port of the Service"
            }
            (Change::Udp, _) => "as without -udp, and the Service speaks UDP",
            (Change::FromNode, "healthy") => "nothing: the client is a process of the node",
            (Change::FromNode, _) => {
                "as without -node-client, and the client is a process of the node"
            }
        }
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        self.plain().inflict(plan, world)?;
        match self.change {
            Change::Udp => to_udp(plan, world),
            Change::FromNode => {
                world.client = Party::Node(0);
                Ok(())
            }
        }
    }
    fn expect(&self, at: At) -> Expect {
        let plain = self.plain().expect(at);
        // Where nobody ever answers and nothing says why, a datagram protocol may be one-way.
        if self.change == Change::Udp && plain.codes.contains(&"lost-beyond-node") {
            return Expect::not_from_here();
        }
        plain
    }
    fn client_sees(&self, plan: &Plan, mode: Mode) -> Vec<Outcome> {
        let plain = self.plain().client_sees(plan, mode);
        // What answers a UDP packet that nobody takes is ICMP as well.
        if self.change == Change::Udp && plain == [Outcome::Refused] {
            rejected()
        } else {
            plain
        }
    }
    fn placements(&self) -> &'static [Placement] {
        self.plain().placements()
    }
    fn networks(&self) -> &'static [Network] {
        self.plain().networks()
    }
    fn forms(&self) -> &'static [Form] {
        &Form::WITH_TRAFFIC
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        if self.of == "protocol-mismatch" {
            return vec!["TCP".to_owned()];
        }
        self.plain().must_name(plan)
    }
}
