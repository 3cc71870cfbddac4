//! Takes out of a recording what a finding cites. A finding that still says `observed` afterwards did not rest on what
//! it showed.
//!
//! A finding cites an example for a group of attempts, so the records of the whole group go: those of the cited plane
//! between the same two addresses that share a port with the example (the client's own port differs per attempt).

use crate::answer::{Answer, Evidence, Finding};
use anyhow::Result;
use netflow_user::model::answer::Plane;
use netflow_user::model::record::{Event, Record};
use netflow_user::model::recording::{Reader, Writer};
use netflow_user::model::{CtTuples, Input, Tuple};
use std::net::IpAddr;
use std::path::Path;

/// Copies recording `from` to `to` without what `finding` cites. Gives the number of records and entries taken out.
pub fn without_cited(answer: &Answer, finding: &Finding, from: &Path, to: &Path) -> Result<usize> {
    let mut cited = Cited::of(&answer.cited(finding));
    for input in Reader::open(from)? {
        cited.learn(&input);
    }
    let mut taken = 0;
    let mut writer = Writer::create(to)?;
    for mut input in Reader::open(from)? {
        taken += cited.take_from(&mut input);
        writer.write(&input)?;
    }
    writer.finish()?;
    Ok(taken)
}

struct Cited(Vec<(Plane, Vec<Tuple>)>);

impl Cited {
    fn of(evidence: &[&Evidence]) -> Cited {
        let rows = evidence
            .iter()
            .filter_map(|e| Some((e.plane, e.flow.as_ref()?.tuples())));
        Cited(rows.collect())
    }

    /// One connection has several tuples on its way through the node; conntrack, or IPVS, says which belong together.
    fn learn(&mut self, input: &Input) {
        let translations: Vec<CtTuples> = match input {
            Input::Records { records } => records.iter().filter_map(translation).collect(),
            Input::Node(facts) => facts.conntrack.entries.iter().map(|e| e.tuples).collect(),
            _ => Vec::new(),
        };
        for ct in &translations {
            let faces = faces(ct);
            for (_, tuples) in &mut self.0 {
                let related = tuples
                    .iter()
                    .any(|t| faces.iter().any(|f| same_group(t, f)));
                let new: Vec<Tuple> = faces.into_iter().filter(|f| !tuples.contains(f)).collect();
                if related && (ct.is_dnat() || ct.is_snat()) {
                    tuples.extend(new);
                }
            }
        }
    }

    fn take_from(&self, input: &mut Input) -> usize {
        match input {
            Input::Records { records } => retain(records, |r| !self.holds_record(r)),
            Input::Flows { flows, .. } => {
                retain(flows, |f| !self.holds(&[Plane::Flow], &[f.key.tuple]))
            }
            Input::Node(facts) => {
                let entries = retain(&mut facts.conntrack.entries, |e| {
                    !self.holds(&[Plane::Ct], &both(&e.tuples))
                });
                entries + retain(&mut facts.neighbors, |n| !self.holds_target(n.ip))
            }
            _ => 0,
        }
    }

    fn holds(&self, planes: &[Plane], tuples: &[Tuple]) -> bool {
        self.0
            .iter()
            .filter(|(plane, _)| planes.contains(plane))
            .flat_map(|(_, cited)| cited)
            .any(|cited| tuples.iter().any(|t| same_group(cited, t)))
    }

    /// A neighbour that did not answer is cited with the packet that waited for it, a route with what was to be sent.
    fn holds_target(&self, ip: IpAddr) -> bool {
        let cited = self.0.iter().filter(|(plane, _)| *plane == Plane::Node);
        cited.flat_map(|(_, tuples)| tuples).any(|t| t.dst == ip)
    }

    fn holds_record(&self, record: &Record) -> bool {
        match record.event {
            Event::NeighborFailed { ip: to } | Event::FibError { dst: to, .. } => {
                return self.holds_target(to);
            }
            _ => {}
        }
        let mut tuples: Vec<Tuple> = record.tuple.into_iter().collect();
        let planes: &[Plane] = match &record.event {
            Event::Nat { ct, .. }
            | Event::CtEnd { ct, .. }
            | Event::CtInsertFailed { ct, .. }
            | Event::CtClash { ct } => {
                tuples.extend(both(ct));
                &[Plane::Ct]
            }
            Event::CtFull | Event::Ipvs { .. } => &[Plane::Ct],
            Event::Drop(drop) => {
                tuples.extend(drop.ct.iter().flat_map(both));
                tuples.extend(drop.quoted);
                &[Plane::Drop, Plane::Mtu]
            }
            Event::PmtuReceived { quoted, .. } => {
                tuples.extend(*quoted);
                &[Plane::Mtu]
            }
            Event::Fragmented { .. } => &[Plane::Mtu],
            Event::ListenOverflow { .. } => &[Plane::Drop],
            Event::IcmpError(icmp) => {
                tuples.extend(icmp.quoted);
                &[Plane::Flow, Plane::Drop, Plane::Mtu]
            }
            Event::IcmpSent { ct, .. } => {
                tuples.extend(ct.as_deref().into_iter().flat_map(both));
                &[Plane::Flow, Plane::Drop, Plane::Mtu]
            }
            _ => &[Plane::Flow],
        };
        self.holds(planes, &tuples)
    }
}

fn translation(record: &Record) -> Option<CtTuples> {
    match &record.event {
        Event::Nat { ct, .. }
        | Event::CtEnd { ct, .. }
        | Event::CtInsertFailed { ct, .. }
        | Event::CtClash { ct } => Some(**ct),
        Event::Drop(drop) => drop.ct,
        Event::IcmpSent { ct, .. } => ct.as_deref().copied(),
        Event::Ipvs { to, .. } => Some(CtTuples::sent_to(record.tuple?, (*to)?)),
        _ => None,
    }
}

/// The connection's tuples: untranslated, with either address translated, with both.
fn faces(ct: &CtTuples) -> [Tuple; 4] {
    let (before, after) = (ct.orig, ct.translated());
    let dnat_only = Tuple {
        dst: after.dst,
        dport: after.dport,
        ..before
    };
    let snat_only = Tuple {
        src: after.src,
        sport: after.sport,
        ..before
    };
    [before, after, dnat_only, snat_only]
}

fn retain<T>(items: &mut Vec<T>, keep: impl Fn(&T) -> bool) -> usize {
    let before = items.len();
    items.retain(keep);
    before - items.len()
}

fn both(ct: &CtTuples) -> [Tuple; 2] {
    [ct.orig, ct.reply]
}

fn same_group(a: &Tuple, b: &Tuple) -> bool {
    let along = |a: &Tuple, b: &Tuple| {
        (a.src, a.dst) == (b.src, b.dst) && (a.dport == b.dport || a.sport == b.sport)
    };
    a.proto == b.proto && (along(a, b) || along(a, &b.inverse()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netflow_user::model::Proto;
    use std::net::Ipv4Addr;

    fn tuple(src: u8, sport: u16, dst: u8, dport: u16) -> Tuple {
        let ip = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        Tuple {
            proto: Proto::TCP,
            src: ip(src),
            sport,
            dst: ip(dst),
            dport,
        }
    }

    #[test]
    fn a_group_is_all_attempts_of_a_client_to_a_port_both_ways() {
        let cited = tuple(1, 40_000, 2, 80);
        assert!(same_group(&cited, &tuple(1, 40_001, 2, 80)));
        assert!(same_group(&cited, &tuple(2, 80, 1, 40_001)));
        assert!(!same_group(&cited, &tuple(1, 40_001, 2, 81)));
        assert!(!same_group(&cited, &tuple(3, 40_000, 2, 80)));
    }
}
