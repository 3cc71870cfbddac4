//! Some clients of a Service fail, and others are served.

use super::service::others;
use super::{At, Expect, Fault, Vantage};
use crate::lab::plan::{Placement, Plan};
use crate::proxy::{Mode, nftables};
use crate::traffic::{Dial, Listen, Outcome};
use crate::world::{Party, Site, Step, Tweak, World};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};

pub(super) const ALL: &[&dyn Fault] = &[
    &SomeFail {
        name: "some-clients-fail",
        breaks: "the Service's application resets the connections of one client, and serves the others",
        by: By::Application,
        whom: Whom::One,
    },
    &SomeFail {
        name: "some-clients-fail-node",
        breaks: "the Service's application resets the connections of all clients on one node, and serves the others",
        by: By::Application,
        whom: Whom::Node,
    },
    &SomeFail {
        name: "some-clients-fail-dropped",
        breaks: "a filter inside the backend Pods drops what one client sends, and lets the others in",
        by: By::Filter,
        whom: Whom::One,
    },
    &SomeFail {
        name: "near-some-clients-fail",
        breaks: "the Service's application resets the connections of one client, and there is no other",
        by: By::Application,
        whom: Whom::Only,
    },
];

/// What treats clients otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Nothing but the application knows why.
    Application,
    /// The kernel tells of it.
    Filter,
}

/// Who fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// One of several.
    One,
    /// All Pods of the client's node; those on the other are served.
    Node,
    /// The only one that there is.
    Only,
}

struct SomeFail {
    name: &'static str,
    breaks: &'static str,
    by: By,
    whom: Whom,
}

impl SomeFail {
    fn failing(&self, plan: &Plan) -> Vec<IpAddr> {
        let neighbour = (self.whom == Whom::Node).then_some(plan.seconds[0].ip);
        std::iter::once(plan.client.ip).chain(neighbour).collect()
    }

    /// Clients besides the one that all faults have.
    fn parties(&self) -> Vec<Party> {
        match self.whom {
            Whom::One => vec![Party::Second(0), Party::Second(1), Party::Node(0)],
            Whom::Node => vec![Party::Second(0), Party::Second(1), Party::Node(1)],
            Whom::Only => Vec::new(),
        }
    }
}

impl Fault for SomeFail {
    fn name(&self) -> &'static str {
        self.name
    }
    fn breaks(&self) -> &'static str {
        self.breaks
    }
    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        let (port, failing) = (plan.port(), self.failing(plan));
        for pod in &plan.backends {
            match self.by {
                By::Application => {
                    let mut listens = others(plan);
                    listens.push(Listen {
                        shuns: failing.clone(),
                        ..Listen::any("tcp", port.target)
                    });
                    world.listen(pod, listens);
                }
                By::Filter => world.tweaks.push(drop_from(&failing, pod.ip, port.target)),
            }
        }
        let to = SocketAddr::new(plan.service.vip, port.port);
        for party in self.parties() {
            world.noise.push((party, Dial::tcp(to)));
        }
        Ok(())
    }
    fn expect(&self, at: At) -> Expect {
        let scope = Expect::code("some-clients-fail", &["flow"]).degraded();
        let across = at.placement == Placement::Cross;
        match (self.by, self.whom, at.vantage) {
            (_, Whom::Only, _) => Expect::without_cause(),
            // The clients of the other node are served on the other node.
            (_, Whom::Node, Vantage::Client) if across => Expect::without_cause(),
            (By::Filter, _, Vantage::Client) if across => scope,
            (By::Filter, ..) => Expect::code("firewall-drop", &["drop"]).degraded(),
            (By::Application, ..) => scope,
        }
    }
    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        match self.by {
            By::Application => vec![Outcome::Reset],
            By::Filter => vec![Outcome::Timeout],
        }
    }
    fn must_name(&self, plan: &Plan) -> Vec<String> {
        match self.whom {
            Whom::One => vec![plan.client.name.clone()],
            Whom::Node => vec![format!("on node {}", plan.nodes[0].name)],
            Whom::Only => Vec::new(),
        }
    }
}

/// A rule inside a Pod against these clients.
fn drop_from(clients: &[IpAddr], pod: IpAddr, port: u16) -> Tweak {
    let rule = |ip: &IpAddr| {
        let family = nftables::family(*ip);
        format!("{family} saddr {ip} tcp dport {port} drop\n")
    };
    let rules: String = clients.iter().map(rule).collect();
    let chain = "type filter hook input priority 0;";
    Tweak {
        site: Site::Pod(pod),
        done: vec![Step::Nft(format!(
            "table inet door {{ chain in {{ {chain}\n{rules}}}\n}}\n"
        ))],
        undone: vec![Step::Nft("delete table inet door\n".to_owned())],
    }
}
