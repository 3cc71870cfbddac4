//! Faults that pass while netflow looks: the answer says that they were, and whether they are over.

use super::{At, Expect, Fault, Form, Turn};
use crate::lab::plan::{Placement, Plan};
use crate::proxy::Mode;
use crate::traffic::Outcome;
use crate::world::{Site, Step, Tweak, World};
use anyhow::Result;

/// For `super::all`.
pub(super) const ALL: &[&dyn Fault] = &[
    &Passing {
        name: "firewall-reject-heals",
        breaks: "a rule inside the backend Pods answers what comes in with RST, until somebody takes it out while netflow looks",
        turns: &[Turn::Heals],
    },
    &Passing {
        name: "firewall-reject-returns",
        breaks: "a rule inside the backend Pods answers what comes in with RST, is taken out while netflow looks, and comes back",
        turns: &[Turn::Heals, Turn::Returns],
    },
];

/// Its turns must be over before netflow answers, two seconds after it is sure. One rule is quick to take out, and unlike ICMP errors,
/// of which the kernel sends one a second, a RST answers each attempt at once.
struct Passing {
    name: &'static str,
    breaks: &'static str,
    turns: &'static [Turn],
}

impl Fault for Passing {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        self.breaks
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let port = plan.port().target;
        let rules = format!(
            "table inet wall {{ chain in {{ type filter hook input priority 0; tcp dport {port} reject with tcp reset\n}}\n}}\n"
        );
        for pod in &plan.backends {
            world.tweaks.push(Tweak {
                site: Site::Pod(pod.ip),
                done: vec![Step::Nft(rules.clone())],
                undone: vec![Step::Nft("delete table inet wall\n".to_owned())],
            });
        }
        super::service::often(world);
        Ok(())
    }
    fn turns(&self) -> &'static [Turn] {
        self.turns
    }
    fn expect(&self, _at: At) -> Expect {
        Expect {
            over: self.turns.last().map(|turn| *turn == Turn::Heals),
            ..Expect::code("firewall-reject", &["drop"]).degraded()
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok, Outcome::Refused]
    }
    /// From another node a RST tells nothing of who sent it.
    fn placements(&self) -> &'static [Placement] {
        &[Placement::Same]
    }
    /// What was rejected before netflow looked is not seen, and says nothing about turns.
    fn forms(&self) -> &'static [Form] {
        &[Form::Fresh, Form::VipOnly]
    }
}
