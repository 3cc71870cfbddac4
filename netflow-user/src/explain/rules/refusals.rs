//! Refusals in ICMP that came from elsewhere: the filter that made them is on a node that was not asked, or dropped unseen.

use super::beyond::{left, sent_draft};
use super::filter::is_dropped;
use super::service::full_name;
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::report::Saying;
use crate::flows::ConnEvent;
use crate::model::Proto;
use crate::model::flow::Direction;
use crate::model::record::IcmpError;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// An ICMP error that came from elsewhere.
#[derive(Clone)]
pub(super) struct Refusal {
    /// Who sent it.
    pub(super) from: IpAddr,
    /// Evidence: the error, which may be another attempt's.
    pub(super) draft: Draft,
    /// Evidence: the attempt left, where the error is of another endpoint on the same node.
    pub(super) sent: Option<Draft>,
}

/// What attempts were told. ICMP is limited in rate, so what was said of one stands for others, and an outage has many of them:
/// it is gathered once.
pub(super) struct Refusals<'c, 'a> {
    case: &'c Case<'a>,
    certain: bool,
    of_endpoint: HashMap<(Proto, SocketAddr), Refusal>,
    of_node: HashMap<(Proto, &'a str), Refusal>,
    /// Endpoints that served somebody.
    serving: BTreeSet<IpAddr>,
}

impl<'c, 'a> Refusals<'c, 'a> {
    /// All of a case. TCP answers at a closed port with RST, so port unreachable is `certain` to be a filter's.
    pub(super) fn of(case: &'c Case<'a>, certain: bool) -> Refusals<'c, 'a> {
        let mut all = Refusals {
            case,
            certain,
            of_endpoint: HashMap::new(),
            of_node: HashMap::new(),
            serving: BTreeSet::new(),
        };
        for a in &case.attempts {
            match a.outcome {
                Outcome::Ok => all.serving.extend(a.backend().map(|b| b.ip())),
                Outcome::Refused => all.add(a),
                _ => {}
            }
        }
        all
    }

    fn add(&mut self, a: &Attempt<'a>) {
        let Some(found) = found(a, self.certain) else {
            return;
        };
        let from = found.0;
        let refusal = || refusal(self.case, found);
        if let Some(to) = a.backend() {
            let known = self.of_endpoint.entry((a.orig.proto, to));
            known.or_insert_with(refusal);
        }
        if let Some(node) = self.case.node_with(from) {
            let known = self.of_node.entry((a.orig.proto, node));
            known.or_insert_with(refusal);
        }
    }

    /// The one that refused an attempt, if no drop that was seen goes with it.
    pub(super) fn refused(&self, a: &Attempt<'a>) -> Option<Refusal> {
        if is_dropped(a) {
            return None;
        }
        match a.outcome {
            Outcome::Refused => found(a, self.certain).map(|found| refusal(self.case, found)),
            Outcome::Timeout if a.drops().is_empty() => {
                let to = a.backend()?;
                let same = self.of_endpoint.get(&(a.orig.proto, to)).cloned();
                same.or_else(|| self.awaited(a, to.ip()))
            }
            _ => None,
        }
    }

    /// The node of the attempt's endpoint refuses others for another endpoint beside it. It sends only so many errors to one
    /// address (`icmp_ratelimit`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/ip-sysctl.rst>): what it has not said of this one
    /// may come. Where the node was asked, its drops tell.
    fn awaited(&self, a: &Attempt<'a>, to: IpAddr) -> Option<Refusal> {
        let node = self.case.placed_on(to, a.began())?;
        let found = self.of_node.get(&(a.orig.proto, node))?;
        if self.case.was_asked(to, a.began()) || self.serving.contains(&to) {
            return None;
        }
        let (part, sight) = left(self.case, a)?;
        Some(Refusal {
            sent: Some(sent_draft(a, self.case, part, sight)),
            ..found.clone()
        })
    }

    /// In words, of attempts that were refused so.
    pub(super) fn saying(&self, of: &[&Attempt<'a>]) -> Saying {
        let refused = of.iter().filter_map(|a| Some((*a, self.refused(a)?)));
        let (awaited, told): (Vec<_>, Vec<_>) = refused.partition(|(_, r)| r.sent.is_some());
        let refusing: BTreeSet<String> = told
            .iter()
            .map(|(a, r)| self.case.name(r.from, a.began()))
            .collect();
        let refusing: Vec<String> = refusing.into_iter().collect();
        let Some((a, _)) = told.first() else {
            return Saying::new("");
        };
        let what = if self.certain {
            "a filter rule there rejects them"
        } else {
            "a filter rule or a prohibiting route there rejects them"
        };
        let silent: BTreeSet<String> = awaited
            .iter()
            .map(|(a, _)| a.translated().destination().to_string())
            .collect();
        let silent: Vec<String> = silent.into_iter().collect();
        let tail = if silent.is_empty() {
            String::new()
        } else {
            format!(
                ". Of {} on the same node, which sends only so many ICMP errors to one address, nothing has come back",
                silent.join(", ")
            )
        };
        Saying::new(format!(
            "Packets of {} to {} are refused by {} with ICMP, which no closed port does: {what}{tail}",
            full_name(self.case),
            a.translated().destination(),
            refusing.join(", ")
        ))
    }
}

/// An error that came in, who sent it, and where it was seen.
type Found<'a> = (IpAddr, Part<'a>, &'a ConnEvent, &'a IcmpError);

fn found<'a>(a: &Attempt<'a>, certain: bool) -> Option<Found<'a>> {
    let v6 = a.orig.dst.is_ipv6();
    let tells = |icmp: &IcmpError| {
        let (kind, code) = (icmp.icmp_type, icmp.code);
        let port = (kind, code) == if v6 { (1, 4) } else { (3, 3) };
        if certain {
            port && a.orig.proto == Proto::TCP
        } else {
            !port && refuses(kind, code, v6)
        }
    };
    let (part, event, icmp) = a
        .icmp()
        .find(|(_, _, icmp)| icmp.dir == Direction::Ingress && tells(icmp))?;
    Some((event.record.tuple?.src, part, event, icmp))
}

fn refusal(case: &Case<'_>, (from, part, event, icmp): Found<'_>) -> Refusal {
    let (kind, code) = (icmp.icmp_type, icmp.code);
    let text = format!("ICMP type {kind} code {code} came from {from}");
    Refusal {
        from,
        draft: case.event(part, event, &format!("refused {kind}/{code}"), text),
        sent: None,
    }
}

/// Destination unreachable for a port, a protocol or by prohibition (RFC 792, RFC 1812; RFC 4443): what filters answer with
/// by default. Unreachable hosts and nets mean routes and neighbours as well.
pub(super) fn refuses(icmp_type: u8, code: u8, v6: bool) -> bool {
    matches!(
        (v6, icmp_type, code),
        (false, 3, 2 | 3 | 9 | 10 | 13) | (true, 1, 1 | 4 | 5 | 6)
    )
}
