//! Service addresses that a tc program of somebody else replaces in the packet: conntrack knows nothing of it.
//!
//! The packet is seen with one destination at one place and with another at the next. That both are one packet is
//! concluded only where such a program stands between, the client's port is the same, the new destination is an endpoint
//! of the Service, both came within a moment, and their sequence numbers, where seen, are equal. Everything else stays apart
//! and undecided.

use super::attempt::{Attempt, Part};
use super::case::Case;
use super::view::View;
use crate::flows::Sight;
use crate::model::answer::Via;
use crate::model::flow::Direction;
use crate::model::node::TcProgram;
use crate::model::{Proto, Tuple};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

/// A packet crosses a node within this; a client that uses its port anew, and a SYN that is sent again, come later.
const CROSSING: Duration = Duration::from_millis(500);

/// Makes one attempt of each pair that is the same packet before and after a program.
pub fn join(case: &Case<'_>, attempts: &mut Vec<Attempt<'_>>) {
    let mut direct: HashMap<Client, Vec<usize>> = HashMap::new();
    for (i, a) in attempts
        .iter()
        .enumerate()
        .filter(|(_, a)| a.via == Via::Pod)
    {
        direct.entry(client(a)).or_default().push(i);
    }
    let mut gone = BTreeSet::new();
    for i in 0..attempts.len() {
        let Some(same) = direct.get(&client(&attempts[i])) else {
            continue;
        };
        if suspects(&attempts[i]).is_empty() {
            continue;
        }
        let targets = targets(case, &attempts[i]);
        let mut fits = same
            .iter()
            .copied()
            .filter(|j| !gone.contains(j) && continues(&attempts[i], &attempts[*j], &targets));
        // Two that fit tell nothing.
        let (Some(j), None) = (fits.next(), fits.next()) else {
            continue;
        };
        gone.insert(j);
        let (rewritten, mut parts) = (attempts[j].orig, attempts[j].parts.clone());
        parts.append(&mut attempts[i].parts);
        attempts[i].parts = parts;
        attempts[i].rewritten = Some(rewritten);
    }
    let mut index = 0..;
    attempts.retain(|_| index.next().is_some_and(|i| !gone.contains(&i)));
}

/// Programs that may have rewritten the packets of an attempt that nothing translated: those that see them after netflow saw
/// them with the address dialled for the last time.
pub fn suspects<'a>(a: &Attempt<'a>) -> Vec<&'a TcProgram> {
    let kept = |t: Option<Tuple>| t == Some(a.orig);
    let ended = || a.drops().iter().any(|(_, e, ..)| kept(e.record.tuple));
    if a.is_direct() || a.nat().is_some_and(|nat| nat.is_dnat()) || ended() {
        return Vec::new();
    }
    let Some(part) = a.dialled_part() else {
        return Vec::new();
    };
    let Some(last) = last_sight(part) else {
        return Vec::new();
    };
    let passed = kept(part.conn.ct().map(|ct| ct.orig));
    let after = |p: &&TcProgram| is_after(p, last, passed);
    programs(part.node).filter(after).collect()
}

/// Answers to what is rewritten show in the form that the program has made of them, or not at all. One packet that nothing
/// came back for may be answered, unlike one that the client had to send again.
pub fn may_be_answered(a: &Attempt<'_>) -> bool {
    let again = a.orig.proto == Proto::TCP && a.sends() >= 2;
    a.rewritten.is_none() && !again && !suspects(a).is_empty()
}

/// tc programs of others on a node.
pub fn programs(view: &View) -> impl Iterator<Item = &TcProgram> {
    view.facts.iter().flat_map(|f| &f.tc_programs)
}

/// The last place at which a packet to the address dialled was seen.
fn last_sight(part: Part<'_>) -> Option<&Sight> {
    let sights = part.conn.sights.iter();
    let dialled = sights.filter(|s| s.key.tuple == part.conn.orig);
    dialled.max_by_key(|s| {
        let leaves = s.key.dir == Direction::Egress;
        (leaves, s.stats.first, s.key)
    })
}

/// Behind netflow at the same place; or, for what came in and was seen no more, in front of netflow where it leaves.
/// `passed`: conntrack, which comes after tc ingress, saw the packet as it was.
fn is_after(p: &TcProgram, last: &Sight, passed: bool) -> bool {
    let egress = p.side == "egress";
    let came_in = last.key.dir == Direction::Ingress;
    let here = p.ifindex == last.key.ifindex && egress != came_in;
    (here && !p.first && !(came_in && passed)) || (came_in && egress && p.first)
}

fn targets(case: &Case<'_>, a: &Attempt<'_>) -> BTreeSet<SocketAddr> {
    let port = case.port_of_attempt(a);
    port.map(|p| case.slice_targets(p)).unwrap_or_default()
}

/// Protocol, address and port of a client.
type Client = (Proto, SocketAddr);

fn client(a: &Attempt<'_>) -> Client {
    (a.orig.proto, a.orig.source())
}

/// Whether `b`, of the same client and to a Pod, is what became of `a`.
fn continues(a: &Attempt<'_>, b: &Attempt<'_>, targets: &BTreeSet<SocketAddr>) -> bool {
    let (Some(before), Some(after)) = (a.parts.first(), b.parts.first()) else {
        return false;
    };
    let (isn, other) = (before.conn.isn, after.conn.isn);
    before.view == after.view
        && targets.contains(&b.orig.destination())
        && (isn.is_none() || other.is_none() || isn == other)
        && a.began().since(b.began()) < CROSSING
        && b.began().since(a.began()) < CROSSING
}
