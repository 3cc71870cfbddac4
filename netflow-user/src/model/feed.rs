//! What the pure part is fed, in order. A recording is this sequence and nothing else.

use super::Time;
use super::capability::TierStatus;
use super::flow::FlowSnapshot;
use super::node::NodeFacts;
use super::objects::Objects;
use super::query::Query;
use super::record::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kind of the records that an agent had, and that whoever looked through it was too slow for.
pub const TOO_SLOW: &str = "agent:too-slow";

/// One thing the pure part is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "kebab-case")]
pub enum Input {
    /// First of all: who speaks and what was asked.
    Start(Box<Start>),
    /// Kubernetes objects; a later one replaces the earlier from its time on.
    Objects(Box<Objects>),
    /// Facts about the node; the first one shows how it was before we looked.
    Node(Box<NodeFacts>),
    /// Kernel records, in the order of the ring (roughly by time).
    Records {
        /// The records.
        records: Vec<Record>,
    },
    /// A sweep of the flow map: entries that changed since the sweep before.
    Flows {
        /// When the sweep was taken.
        time: Time,
        /// Changed entries.
        flows: Vec<FlowSnapshot>,
    },
    /// Records lost so far, since the start.
    Lost {
        /// By kind (`ring:drop`, `flow-map-full`, `ctnetlink`, …); absolute counts.
        lost: BTreeMap<String, u64>,
    },
    /// Time passed, nothing else did.
    Tick {
        /// Now.
        time: Time,
    },
    /// How the clock of whoever speaks stands to that of who asked, where both are apart.
    Clock(Clock),
    /// A node that was to tell too tells nothing, or nothing more.
    Silent(Silent),
    /// The window is closed.
    End {
        /// Now.
        time: Time,
    },
}

impl Input {
    /// When it was told, where it has one time: for records that of the last.
    pub fn time(&self) -> Option<Time> {
        match self {
            Input::Start(start) => Some(start.time),
            Input::Objects(objects) => Some(objects.time),
            Input::Node(facts) => Some(facts.time),
            Input::Records { records } => records.last().map(|r| r.time),
            Input::Flows { time, .. } | Input::Tick { time } | Input::End { time } => Some(*time),
            Input::Lost { .. } | Input::Clock(_) | Input::Silent(_) => None,
        }
    }
}

/// How one clock stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Nanoseconds by which it is ahead.
    pub ahead: i64,
    /// How far off that may be.
    pub within: u64,
}

impl Clock {
    /// Milliseconds by which it is ahead. No clock is compared to less than a microsecond.
    pub fn ahead_ms(&self) -> f64 {
        (self.ahead as f64 / 1e3).round() / 1e3
    }

    /// How far off that may be, in milliseconds.
    pub fn within_ms(&self) -> f64 {
        (self.within as f64 / 1e3).round() / 1e3
    }
}

/// A node that tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Its name.
    pub node: String,
    /// In which way.
    pub kind: Silence,
    /// Why, in words.
    pub why: String,
}

/// Ways to tell nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// It has no agent.
    Absent,
    /// It has one that could not be asked, or that ceased to answer.
    Timeout,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// When the window opened (everything was attached); where the past was asked for, from when on it is told.
    pub time: Time,
    /// The node's name: from the Node object whose `InternalIP` is local, else the host name.
    pub node: String,
    /// Inode number of the node's network namespace.
    pub netns: u32,
    /// `uname -r`.
    pub kernel: String,
    /// Version of the netflow that recorded.
    pub version: String,
    /// Commit it was built from.
    #[serde(default)]
    pub commit: String,
    /// Which tier each capability runs on.
    pub tiers: Vec<TierStatus>,
    /// What was asked.
    pub query: Query,
    /// Kube context, empty if none.
    #[serde(default)]
    pub context: String,
    /// API server, empty if none.
    #[serde(default)]
    pub server: String,
    /// What is told happened before it was asked: what of that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// What of the past an agent has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// From when on it was asked to tell; [`Start::time`] is from when on it does.
    pub asked: Time,
    /// Since when it has been looking.
    pub looking: Time,
    /// From when on all healthy connections are there, and of how many earlier ones it has nothing.
    pub healthy_from: Time,
    /// See `healthy_from`.
    pub healthy_evicted: u64,
    /// The same of all others.
    pub failing_from: Time,
    /// See `failing_from`.
    pub failing_evicted: u64,
    /// From when on it is known how the objects were.
    pub objects_from: Time,
}

impl Kept {
    /// From when on it tells.
    pub fn from(&self) -> Time {
        self.asked.max(self.looking).max(self.failing_from)
    }
}
