//! What one node told us, gathered.

use crate::flows::{Cite, Connection, RecordId, Table, TableLimits};
use crate::model::feed::{Clock, Input, Start};
use crate::model::node::{Link, NodeFacts, PodNetns};
use crate::model::record::{Event, Record};
use crate::model::{Proto, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One recording, or the live node.
#[derive(Debug)]
pub struct View {
    /// Which recording it is.
    pub recording: usize,
    /// Who speaks.
    pub start: Start,
    /// Its connections.
    pub table: Table,
    /// The node as it was before we looked.
    pub before: Option<NodeFacts>,
    /// The node as it was last read.
    pub facts: Option<NodeFacts>,
    /// Lost records by kind.
    pub lost: BTreeMap<String, u64>,
    /// Records that belong to no connection: failed neighbours and routes.
    pub loose: Vec<(Cite, Record)>,
    /// Latest time told.
    pub now: Time,
    /// Latest sweep of the flow map: what it did not tell of had not changed.
    pub swept: Time,
    /// How its clock stands to that of who asked, where that was measured.
    pub clock: Option<Clock>,
    /// It has told all that it was asked for.
    pub ended: bool,
    /// Inputs taken in.
    inputs: u32,
}

/// Loose records kept.
const MAX_LOOSE: usize = 4096;

impl View {
    /// Nothing was told yet.
    pub fn new(recording: usize) -> View {
        View {
            recording,
            start: Start::default(),
            table: Table::new(TableLimits::default()),
            before: None,
            facts: None,
            lost: BTreeMap::new(),
            loose: Vec::new(),
            now: Time::default(),
            swept: Time::default(),
            clock: None,
            ended: false,
            inputs: 0,
        }
    }

    /// Takes in everything except what the whole answer shares: objects, and who is silent.
    pub fn feed(&mut self, input: &Input) {
        let ordinal = self.inputs;
        self.inputs += 1;
        match input {
            Input::Start(start) => {
                self.now = self.now.max(start.time);
                self.start = (**start).clone();
            }
            Input::Objects(objects) => self.now = self.now.max(objects.time),
            Input::Node(facts) => self.node(facts),
            Input::Records { records } => {
                for (item, record) in records.iter().enumerate() {
                    let cite = RecordId {
                        input: ordinal,
                        item: item as u32,
                    };
                    self.now = self.now.max(record.time);
                    let loose = matches!(
                        record.event,
                        Event::NeighborFailed { .. }
                            | Event::FibError { .. }
                            | Event::PmtuLearned { .. }
                            | Event::CtEnd { evicted: true, .. }
                    );
                    if loose && self.loose.len() < MAX_LOOSE {
                        self.loose.push((Cite::Record(cite), record.clone()));
                    }
                    self.table.record(cite, record);
                }
            }
            Input::Flows { time, flows } => {
                self.now = self.now.max(*time);
                self.swept = self.swept.max(*time);
                self.table.flows(*time, flows);
            }
            Input::Lost { lost } => self.lost.clone_from(lost),
            Input::Clock(clock) => self.clock = Some(*clock),
            Input::Silent(_) => {}
            Input::Tick { time } => self.now = self.now.max(*time),
            Input::End { time } => {
                self.now = self.now.max(*time);
                self.ended = true;
            }
        }
    }

    fn node(&mut self, facts: &NodeFacts) {
        self.now = self.now.max(facts.time);
        let listed = facts.conntrack.listed.unwrap_or(facts.time);
        for entry in &facts.conntrack.entries {
            self.table.conntrack(listed, entry.tuples);
        }
        if self.before.is_none() {
            self.before = Some(facts.clone());
        }
        self.facts = Some(facts.clone());
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.start.node
    }

    /// Whether it was looking then: before it had begun, or after it has fallen silent, nobody knows what happened there.
    pub fn was_looking(&self, at: Time) -> bool {
        self.start.time <= at && at <= self.now
    }

    /// Whether the address belongs to the node itself.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.facts
            .iter()
            .flat_map(|f| &f.links)
            .any(|l| l.addrs.iter().any(|(a, _)| *a == ip))
    }

    /// The Pod namespace that holds an address, where it was found on this node.
    pub fn pod(&self, ip: IpAddr) -> Option<&PodNetns> {
        self.facts
            .iter()
            .flat_map(|f| &f.pods)
            .find(|p| p.ips.contains(&ip))
    }

    /// An interface of the node.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.facts
            .iter()
            .flat_map(|f| &f.links)
            .find(|l| l.ifindex == ifindex)
    }

    /// Name of an interface, in the namespace it was seen in where that is the node's.
    pub fn ifname(&self, ifindex: u32) -> Option<String> {
        match (ifindex, self.link(ifindex)) {
            (0, _) => None,
            (_, Some(link)) => Some(link.name.clone()),
            (n, None) => Some(format!("if{n}")),
        }
    }

    /// What the node's proxy rules do with an address and port.
    pub fn proxy(
        &self,
        ip: IpAddr,
        port: u16,
        proto: Proto,
    ) -> Vec<&crate::model::node::ProxyService> {
        self.facts
            .iter()
            .flat_map(|f| &f.proxy.services)
            .filter(|s| s.ip.is_none_or(|a| a == ip) && s.port == port && s.proto == proto)
            .collect()
    }

    /// Connections, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.table.connections()
    }
}
