//! Attempts one by one, for whoever watches them.

use super::attempt::{Attempt, Outcome, Part};
use super::case::Case;
use super::evidence::Draft;
use crate::flows::{ConnEvent, Sight};
use crate::model::answer::Via;
use crate::model::flow::FlowStats;
use crate::model::record::{Drop, Event};
use crate::model::{CtTuples, Time, Tuple};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

/// One attempt of a client, with what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionState {
    /// How the Service was addressed.
    pub via: Via,
    /// As the client dialled.
    pub dialled: Tuple,
    /// Client, by name where known.
    pub client: String,
    /// Backend, by name where known; `None` if none was chosen.
    pub backend: Option<String>,
    /// Address of the backend.
    pub address: Option<SocketAddr>,
    /// How it ended, or stands.
    pub outcome: Outcome,
    /// How many attempts it stands for (UDP datagrams after silence), at least 1.
    pub weight: u64,
    /// First sign of it.
    pub began: Time,
    /// Latest sign of it.
    pub last: Time,
    /// How long the handshake took; `None` where it was not seen whole, or is no TCP.
    pub round_trip: Option<RoundTrip>,
    /// Segments sent again, both ways.
    pub retransmits: u64,
    /// Packets that the kernels dropped.
    pub drops: u64,
    /// What was seen, in order of time.
    pub evidence: Vec<Sign>,
}

/// From a SYN to its SYN-ACK at one interface: the way from there to the backend and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundTrip {
    /// How long.
    pub took: Duration,
    /// Node and interface.
    pub place: String,
}

/// Something that was seen of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// When.
    pub time: Time,
    /// Node, interface and hook.
    pub place: String,
    /// In words.
    pub text: String,
}

/// Up to `limit` attempts that are to be `kept`: those that failed first, the newest of each kind first. And how many were to be kept.
pub fn list(
    case: &Case<'_>,
    limit: usize,
    kept: &dyn Fn(&ConnectionState) -> bool,
) -> (Vec<ConnectionState>, usize) {
    let mut attempts: Vec<&Attempt<'_>> = case.attempts.iter().collect();
    attempts.sort_by_cached_key(|a| (!a.outcome.is_failure(), Reverse(a.began()), a.orig));
    let (mut states, mut all) = (Vec::new(), 0);
    for attempt in attempts {
        let mut state = state(case, attempt);
        if !kept(&state) {
            continue;
        }
        all += 1;
        if states.len() < limit {
            state.evidence = evidence(case, attempt);
            states.push(state);
        }
    }
    (states, all)
}

/// Without the evidence, which takes longer to put into words.
fn state(case: &Case<'_>, attempt: &Attempt<'_>) -> ConnectionState {
    let (began, address) = (attempt.began(), attempt.backend());
    ConnectionState {
        via: attempt.via,
        dialled: attempt.orig,
        client: case.name(attempt.client(), began),
        backend: address.map(|to| case.backend_name(to.ip(), began)),
        address,
        outcome: attempt.outcome,
        weight: attempt.weight,
        began,
        last: attempt.last(),
        round_trip: attempt.parts.iter().find_map(|p| round_trip(*p)),
        retransmits: [true, false].map(|way| resent(attempt, way)).iter().sum(),
        drops: dropped(attempt),
        evidence: Vec::new(),
    }
}

/// Where the part saw both, the way is longest at the interface that is closest to the client. A SYN that was sent again
/// does not tell which of them was answered.
fn round_trip(part: Part<'_>) -> Option<RoundTrip> {
    let answered = |syn: &Sight| {
        let sent = syn.stats.syn.filter(|_| syn.stats.syn_retrans == 0)?;
        let here = |s: &&Sight| {
            (s.key.ifindex, s.key.depth) == (syn.key.ifindex, syn.key.depth)
                && s.key.dir != syn.key.dir
        };
        let back = part.conn.sights_towards(false).filter(here);
        let came = back.filter_map(|s| s.stats.syn_ack).min()?;
        (came > sent).then(|| (came.since(sent), syn.key.ifindex))
    };
    let (took, ifindex) = part.conn.sights_towards(true).filter_map(answered).max()?;
    let ifname = part.node.ifname(ifindex);
    Some(RoundTrip {
        took,
        place: place([Some(part.node.name()), ifname.as_deref(), None]),
    })
}

/// Every interface sees a segment that is sent again: the one that saw most of them counts.
fn resent(attempt: &Attempt<'_>, forward: bool) -> u64 {
    let sights = attempt
        .parts
        .iter()
        .flat_map(|p| p.conn.sights_towards(forward));
    let resent = sights.map(|s| u64::from(s.stats.retrans) + u64::from(s.stats.syn_retrans));
    resent.max().unwrap_or(0)
}

fn dropped(attempt: &Attempt<'_>) -> u64 {
    let drops = attempt.drops();
    let counts = drops
        .iter()
        .map(|(_, event, drop, _)| u64::from(drop.count) + u64::from(event.more));
    counts.sum()
}

fn evidence(case: &Case<'_>, attempt: &Attempt<'_>) -> Vec<Sign> {
    let sights = attempt.parts.iter().flat_map(|part| {
        let sights = part.conn.sights.iter();
        sights.map(|s| case.sight(*part, s, "", sight_text(s)))
    });
    let events = attempt.events().filter_map(|(part, event)| {
        let text = event_text(event)?;
        Some(case.event(part, event, "", text))
    });
    let mut signs: Vec<Sign> = sights.chain(events).map(sign).collect();
    signs.sort_by(|a, b| (a.time, &a.place).cmp(&(b.time, &b.place)));
    signs
}

fn sign(draft: Draft) -> Sign {
    let node = draft.view.as_ref().map(|(_, node)| node.as_str());
    Sign {
        time: draft.time.unwrap_or_default(),
        place: place([node, draft.ifname.as_deref(), draft.hook.as_deref()]),
        text: draft.text,
    }
}

fn place(parts: [Option<&str>; 3]) -> String {
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    parts.join(" ")
}

/// What passed an interface.
fn sight_text(sight: &Sight) -> String {
    let FlowStats { packets, bytes, .. } = sight.stats;
    let tuple = sight.key.tuple;
    let mut parts = vec![format!(
        "{} → {}: {packets} packets, {bytes} bytes",
        tuple.source(),
        tuple.destination()
    )];
    let flags = flags(&sight.stats);
    if !flags.is_empty() {
        parts.push(flags.join(" "));
    }
    let again = u64::from(sight.stats.retrans) + u64::from(sight.stats.syn_retrans);
    if again > 0 {
        parts.push(format!("{again} sent again"));
    }
    parts.join(", ")
}

fn flags(stats: &FlowStats) -> Vec<&'static str> {
    let marks = [
        (stats.syn, "SYN"),
        (stats.syn_ack, "SYN-ACK"),
        (stats.data, "data"),
        (stats.fin, "FIN"),
        (stats.rst, "RST"),
    ];
    let seen = marks.iter().filter(|(at, _)| at.is_some());
    seen.map(|(_, mark)| *mark).collect()
}

/// What the kernel told. Segments are left out: the counters of their interfaces show them.
fn event_text(event: &ConnEvent) -> Option<String> {
    let text = match &event.record.event {
        Event::Syn(_)
        | Event::SynAck(_)
        | Event::Rst(_)
        | Event::FirstPacket(_)
        | Event::Retransmit(_)
        | Event::FlowEnd { .. } => return None,
        Event::IcmpError(e) => format!("an {} passes", icmp(e.icmp_type, e.code, e.mtu)),
        Event::Drop(drop) => drop_text(drop),
        Event::Nat { ct, .. } => format!("conntrack: {}", translation(ct)),
        Event::CtEnd { evicted: true, .. } => {
            "conntrack gives its entry up, to make room in a full table".into()
        }
        Event::CtEnd { evicted: false, .. } => "conntrack's entry ends".into(),
        Event::CtInsertFailed { clash: true, .. } => {
            "conntrack cannot take it in: another entry has one of its tuples".into()
        }
        Event::CtInsertFailed { clash: false, .. } => "conntrack cannot take it in".into(),
        Event::CtClash { .. } => "two of its packets raced for an entry of conntrack".into(),
        Event::CtFull => "conntrack's table is full".into(),
        Event::IcmpSent {
            icmp_type,
            code,
            mtu,
            ..
        } => format!("the kernel sends an {}", icmp(*icmp_type, *code, *mtu)),
        Event::TcpRetransmit { .. } => "the socket sends again".into(),
        Event::ResetSent => "the kernel sends a RST".into(),
        Event::ResetReceived => "the socket gets a RST".into(),
        Event::FibError { dst, table, .. } => format!("no route to {dst} in table {table}"),
        Event::NeighborWait { ip, .. } => {
            format!("waits for the link-layer address of {ip}")
        }
        Event::NeighborFailed { ip } => format!("{ip} does not say its link-layer address"),
        Event::PmtuReceived { mtu, .. } => format!("is told of a path MTU of {mtu} bytes"),
        Event::PmtuLearned { dst, mtu, .. } => {
            format!("learns that the path MTU to {dst} is {mtu} bytes")
        }
        Event::Fragmented { len, .. } => format!("a packet of {len} bytes is cut into fragments"),
        Event::Ipvs { to: Some(to), .. } => format!("IPVS sends it to {to}"),
        Event::Ipvs { to: None, .. } => "IPVS has no destination for it".into(),
        Event::ListenOverflow { backlog, limit } => {
            format!("the socket's queue is full: {backlog} wait, {limit} may")
        }
    };
    Some(match event.more {
        0 => text,
        more => format!("{text} (and {more} more like it)"),
    })
}

fn drop_text(drop: &Drop) -> String {
    let times = match drop.count {
        0 | 1 => String::new(),
        n => format!(", {n} packets"),
    };
    format!("dropped: {} in {}{times}", drop.reason, drop.place)
}

fn icmp(icmp_type: u8, code: u8, mtu: u32) -> String {
    let told = match mtu {
        0 => String::new(),
        mtu => format!(", MTU {mtu}"),
    };
    format!("ICMP error (type {icmp_type}, code {code}{told})")
}

fn translation(ct: &CtTuples) -> String {
    let (from, to) = (ct.orig.destination(), ct.translated().destination());
    match (ct.is_dnat(), ct.is_snat()) {
        (true, true) => format!("{from} becomes {to}, source {}", ct.translated().source()),
        (true, false) => format!("{from} becomes {to}"),
        (false, true) => format!("source becomes {}", ct.translated().source()),
        (false, false) => "nothing is translated".into(),
    }
}
