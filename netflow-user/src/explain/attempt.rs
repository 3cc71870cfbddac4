//! One attempt of a client to reach the Service, from every node that saw it, and how it ended.

use super::view::View;
use crate::flows::{ConnEvent, Connection, Hanging, Leg, Sight};
use crate::model::answer::Via;
use crate::model::flow::Direction;
use crate::model::record::{Drop, Event, IcmpError};
use crate::model::{CtTuples, Proto, Time, Tuple};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Unanswered for so long is a timeout (design: attempt).
pub const UNANSWERED: Duration = Duration::from_secs(1);

/// A segment is sent again after so long at the earliest (`TCP_RTO_MIN`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/tcp.h>): until then silence says nothing.
const FIRST_RESEND: Duration = Duration::from_millis(200);

/// So long after its first packet a connection whose answer was lost has said so: a SYN is sent again after a second
/// (RFC 6298, 2.1), and later by the timer's grain and what keeps a processor busy.
const SERVED: Duration = Duration::from_millis(1500);

/// What one node saw of the attempt.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Index of the recording.
    pub view: usize,
    /// Its node.
    pub node: &'a View,
    /// The connection as that node has it.
    pub conn: &'a Connection,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// RST or ICMP port unreachable/prohibited delivered.
    Refused,
    /// RST after the handshake.
    Reset,
    /// Unanswered.
    Timeout,
    /// ICMP host or net unreachable delivered.
    Unreachable,
    /// Retransmitting after the handshake without progress.
    Stalled,
    /// Not decided yet.
    Pending,
}

impl Outcome {
    /// It failed.
    pub fn is_failure(self) -> bool {
        !matches!(self, Outcome::Ok | Outcome::Pending)
    }
}

/// An attempt. `parts` starts at the client's side.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// How the Service was addressed.
    pub via: Via,
    /// As the client dialled.
    pub orig: Tuple,
    /// What each node saw.
    pub parts: Vec<Part<'a>>,
    /// What a tc program of somebody else made of `orig`, behind conntrack's back. The parts that show this come first.
    pub rewritten: Option<Tuple>,
    /// How it ended.
    pub outcome: Outcome,
    /// How many attempts it stands for (UDP datagrams after silence), at least 1.
    pub weight: u64,
}

/// A stretch of data that is sent again and again.
#[derive(Debug, Clone, Copy)]
pub struct Stall<'a> {
    /// Which part shows it best.
    pub part: Part<'a>,
    /// The entry that retransmits.
    pub sight: &'a Sight,
    /// From the client to the backend.
    pub forward: bool,
    hanging: Hanging,
}

impl<'a> Attempt<'a> {
    /// A Pod's own address was dialled.
    pub fn is_direct(&self) -> bool {
        matches!(self.via, Via::Pod | Via::Headless)
    }

    /// What becomes of its packets, from the first part that shows it.
    pub fn nat(&self) -> Option<CtTuples> {
        self.parts.iter().find_map(|p| p.conn.nat())
    }

    /// As the backend gets it.
    pub fn translated(&self) -> Tuple {
        if let Some(rewritten) = self.rewritten {
            let mut parts = self.parts.iter().filter(|p| p.conn.orig == rewritten);
            let known = parts.find(|p| p.conn.nat().is_some());
            return known.map_or(rewritten, |p| p.conn.translated());
        }
        self.parts
            .iter()
            .find(|p| p.conn.nat().is_some())
            .map_or(self.orig, |p| p.conn.translated())
    }

    /// Backend that was chosen; for a direct attempt the one dialled. `None` = no choice was seen.
    pub fn backend(&self) -> Option<SocketAddr> {
        match self.via {
            Via::Pod | Via::Headless => Some(self.orig.destination()),
            _ if self.rewritten.is_some() => self.rewritten.map(|t| t.destination()),
            _ => self
                .nat()
                .filter(CtTuples::is_dnat)
                .map(|nat| nat.translated().destination()),
        }
    }

    /// Whether it goes to another destination than the one dialled, by whoever's doing.
    pub fn is_translated(&self) -> bool {
        self.rewritten.is_some() || self.nat().is_some_and(|nat| nat.is_dnat())
    }

    /// The part that shows packets to the address dialled.
    pub fn dialled_part(&self) -> Option<Part<'a>> {
        let mut parts = self.parts.iter().copied();
        let dialled = parts.find(|p| p.conn.orig == self.orig);
        dialled.or(self.parts.first().copied())
    }

    /// A program rewrites what this part shows: it is not how the backend has it.
    fn is_before_rewriting(&self, part: Part<'_>) -> bool {
        self.rewritten.is_some() && part.conn.orig == self.orig
    }

    /// Client's address.
    pub fn client(&self) -> IpAddr {
        self.orig.src
    }

    /// First sign of it.
    pub fn began(&self) -> Time {
        self.parts
            .iter()
            .map(|p| p.conn.began)
            .min()
            .unwrap_or_default()
    }

    /// Latest sign of it.
    pub fn last(&self) -> Time {
        self.parts
            .iter()
            .map(|p| p.conn.last)
            .max()
            .unwrap_or_default()
    }

    /// The part of the node that holds the address, if one does.
    pub fn part_of(&self, ip: IpAddr) -> Option<Part<'a>> {
        self.parts
            .iter()
            .copied()
            .find(|p| p.node.is_own(ip) || p.node.pod(ip).is_some())
    }

    /// All events with their part.
    pub fn events(&self) -> impl Iterator<Item = (Part<'a>, &'a ConnEvent)> + '_ {
        self.parts
            .iter()
            .flat_map(|p| p.conn.events.iter().map(move |e| (*p, e)))
    }

    /// Drops of its own packets, forward or back, in order of time.
    pub fn drops(&self) -> Vec<(Part<'a>, &'a ConnEvent, &'a Drop, Leg)> {
        let mut all: Vec<_> = self
            .events()
            .filter_map(|(p, e)| {
                let Event::Drop(drop) = &e.record.event else {
                    return None;
                };
                let leg = p.conn.leg(&e.record.tuple?)?;
                Some((p, e, drop.as_ref(), leg))
            })
            .collect();
        all.sort_by_key(|(_, e, ..)| e.record.time);
        all
    }

    /// ICMP errors about its packets.
    pub fn icmp(&self) -> impl Iterator<Item = (Part<'a>, &'a ConnEvent, &'a IcmpError)> + '_ {
        self.events().filter_map(|(p, e)| match &e.record.event {
            Event::IcmpError(icmp) => Some((p, e, icmp)),
            _ => None,
        })
    }

    /// The backend itself answered with RST: it came into a node from the backend's side, or the kernel of the
    /// backend's namespace said that no socket takes the packet.
    pub fn backend_rst(&self) -> Option<Part<'a>> {
        self.parts.iter().copied().find(|p| {
            let came_in = |s: &Sight| s.key.dir == Direction::Ingress && s.stats.rst.is_some();
            p.conn
                .sights
                .iter()
                .any(|s| self.is_from_backend(*p, &s.key.tuple) && came_in(s))
        })
    }

    /// The client reset it, and the backend had not.
    pub fn is_cut_by_client(&self) -> bool {
        let first = |part: &Part<'_>, forward| {
            let sent = part.conn.sights_towards(forward);
            sent.filter_map(|s| s.stats.rst).min()
        };
        self.parts.iter().any(|p| {
            first(p, true).is_some_and(|own| first(p, false).is_none_or(|other| own < other))
        })
    }

    /// Whether a tuple is a packet as the backend sends it (before it is translated back).
    pub fn is_from_backend(&self, part: Part<'_>, tuple: &Tuple) -> bool {
        if self.is_before_rewriting(part) {
            return false;
        }
        match part.conn.leg(tuple) {
            Some(Leg::Reply) => true,
            Some(Leg::Unnat) => !part.conn.nat().is_some_and(|n| n.is_dnat() || n.is_snat()),
            _ => false,
        }
    }

    /// Whether a tuple is a packet as the backend gets it.
    pub fn is_to_backend(&self, part: Part<'_>, tuple: &Tuple) -> bool {
        if self.is_before_rewriting(part) {
            return false;
        }
        match part.conn.leg(tuple) {
            Some(Leg::Translated) => true,
            Some(Leg::Orig) => !part.conn.nat().is_some_and(|n| n.is_dnat() || n.is_snat()),
            _ => false,
        }
    }

    /// Last place at which this part's node sent it towards the backend: the interface that saw it last.
    pub fn sent_on(&self, part: Part<'a>) -> Option<&'a Sight> {
        let to_backend =
            part.conn.sights.iter().filter(|s| {
                s.key.dir == Direction::Egress && self.is_to_backend(part, &s.key.tuple)
            });
        last_on_the_way(part.node, to_backend)
    }

    /// Last place at which this part's node sent an answer towards the client.
    pub fn answered_on(&self, part: Part<'a>) -> Option<&'a Sight> {
        let back = part.conn.sights.iter().filter(|s| {
            s.key.dir == Direction::Egress
                && part.conn.leg(&s.key.tuple).is_some_and(|l| !l.is_forward())
        });
        last_on_the_way(part.node, back)
    }

    /// Something of the backend came into this part's node.
    pub fn heard_backend(&self, part: Part<'a>) -> Option<&'a Sight> {
        let from = |s: &&Sight| {
            s.key.dir == Direction::Ingress && self.is_from_backend(part, &s.key.tuple)
        };
        part.conn
            .sights
            .iter()
            .filter(from)
            .min_by_key(|s| s.stats.first)
    }

    /// Data that is sent again and again without being acknowledged.
    pub fn stall(&self) -> Option<Stall<'a>> {
        self.parts
            .iter()
            .copied()
            .find_map(|part| stall_of(part, true).or_else(|| stall_of(part, false)))
    }

    /// Packets that went without an answer.
    pub fn sends(&self) -> u64 {
        let forward = self.parts.iter().flat_map(|p| p.conn.sights_towards(true));
        forward.map(|s| s.stats.packets).max().unwrap_or(0)
    }
}

/// A bridge port sees a packet after the bridge does, so a port is preferred to its master.
fn last_on_the_way<'a>(node: &View, sights: impl Iterator<Item = &'a Sight>) -> Option<&'a Sight> {
    let is_bridge = |s: &Sight| node.link(s.key.ifindex).is_some_and(|l| l.kind == "bridge");
    sights.max_by_key(|s| (!is_bridge(s), s.stats.first, s.key))
}

fn stall_of(part: Part<'_>, forward: bool) -> Option<Stall<'_>> {
    hanging(part, forward).filter(Stall::is_proved)
}

/// Data of one direction that is not acknowledged to its end: for a moment that is how every transfer looks.
fn hanging(part: Part<'_>, forward: bool) -> Option<Stall<'_>> {
    if is_unseen(part) {
        return None;
    }
    let hanging = part.conn.hanging(forward)?;
    let sight = part
        .conn
        .sights_towards(forward)
        .filter(|s| s.stats.data.is_some())
        .max_by_key(|s| (s.stats.retrans, s.key.dir == Direction::Ingress, s.key))?;
    Some(Stall {
        part,
        sight,
        forward,
        hanging,
    })
}

/// Hardware took its packets over, in the middle of whatever was under way: what is missing since may all have passed.
fn is_unseen(part: Part<'_>) -> bool {
    let ct = part.conn.ct();
    ct.is_some_and(|ct| ct.status.offloaded_to_hardware())
}

impl Stall<'_> {
    /// No progress for a second, in which the same was sent again at least twice (design: attempt). A connection that ran
    /// before we looked may have sent it many times before, further and further apart; where none of its acknowledgements
    /// was seen, they may pass where we do not look, so once it must be.
    fn is_proved(&self) -> bool {
        let running = is_running(self.part);
        let resent = match (running, self.hanging.is_acked()) {
            (false, _) => 2,
            (true, false) => 1,
            (true, true) => 0,
        };
        self.waited() >= UNANSWERED && self.hanging.resent >= resent
    }

    fn waited(&self) -> Duration {
        self.part.node.swept.since(self.hanging.since)
    }

    /// Since when nothing gets through: what was known to be under way then, and was sent again, never was acknowledged.
    pub fn since(&self) -> Time {
        let resent = self.sight.stats.retrans_first;
        let first = resent.filter(|t| *t >= self.hanging.since);
        first.unwrap_or(self.hanging.since)
    }

    /// Whether any of it was seen in another node's part.
    pub fn reached(&self, part: Part<'_>) -> bool {
        let mut sights = part.conn.sights_towards(self.forward);
        sights.any(|s| s.stats.data.is_some() && self.hanging.is_beyond(s.stats.seq_end))
    }

    /// Segments that were sent again without any progress.
    pub fn resent(&self) -> u32 {
        self.hanging.resent
    }

    /// Nothing of what this side sent since the handshake was acknowledged.
    pub fn passed_nothing(&self) -> bool {
        awaits_first_ack(self.part, self.forward)
    }

    /// Biggest IP packet that is known to be sent in vain, bytes.
    pub fn size(&self) -> u16 {
        let stats = &self.sight.stats;
        if stats.retrans > 0 {
            stats.retrans_max
        } else {
            stats.max_packet
        }
    }
}

/// Decides how an attempt ended, at the side of the client as far as it was seen.
pub fn outcome(attempt: &Attempt<'_>) -> Outcome {
    let Some(part) = deciding(attempt) else {
        return Outcome::Pending;
    };
    let answers = answers(part);
    if attempt.orig.proto == Proto::TCP {
        return tcp_outcome(attempt, part, &answers);
    }
    let latest = answers.iter().map(|s| s.stats.last).max();
    let waiting = latest.map(|answer| part.conn.datagrams().waiting_since(answer));
    match waiting {
        None => unanswered(attempt, part, attempt.began()),
        // An ABORT is an answer too, and chunks are not read.
        Some(_) if attempt.orig.proto == Proto::SCTP => Outcome::Pending,
        Some(None) => Outcome::Ok,
        Some(Some(since)) => unanswered(attempt, part, since),
    }
}

/// The part at the client's side. Where a program rewrites, answers show on one side of it only, before or after it.
fn deciding<'a>(attempt: &Attempt<'a>) -> Option<Part<'a>> {
    let of_client = attempt.part_of(attempt.client());
    let first = of_client.or(attempt.parts.first().copied())?;
    if attempt.rewritten.is_none() || !answers(first).is_empty() {
        return Some(first);
    }
    let dialled = attempt.dialled_part();
    dialled.filter(|p| !answers(*p).is_empty()).or(Some(first))
}

/// Entries of what the client was given. Where its interface is none that tc sees packets leave through (macvlan, a redirect
/// into the Pod's namespace), they are those of what came for it, once its own packets show that it got them.
fn answers(part: Part<'_>) -> Vec<&Sight> {
    let delivered = |s: &&Sight| reaches_client(part, s);
    let answers: Vec<&Sight> = part.conn.sights.iter().filter(delivered).collect();
    if answers.is_empty() && (took_up(part) || keeps_up(part)) {
        return part.conn.sights_towards(false).collect();
    }
    answers
}

/// The client acknowledged the SYN-ACK: after its SYN it sends segments with ACK, which no other than an answered one does.
fn took_up(part: Part<'_>) -> bool {
    part.conn.sights_towards(true).any(|s| {
        let stats = &s.stats;
        let opened = stats.syn.is_some() || part.conn.isn.is_some();
        let speaks = stats.data.is_some() || stats.fin.is_some() || !stats.flags.rst();
        opened && stats.flags.ack() && stats.ack != 0 && speaks
    })
}

/// The client of a connection that ran before we looked acknowledges what comes for it.
fn keeps_up(part: Part<'_>) -> bool {
    let data = part
        .conn
        .sights_towards(false)
        .any(|s| s.stats.data.is_some());
    let acks = part.conn.sights_towards(true).any(|s| s.stats.flags.ack());
    data && acks && part.conn.hanging(false).is_none()
}

fn tcp_outcome(attempt: &Attempt<'_>, part: Part<'_>, answers: &[&Sight]) -> Outcome {
    let running = is_running(part);
    let established = answers.iter().any(|s| is_taken_up(part, s))
        || took_up(part)
        || (running && answers.iter().any(|s| is_of_a_running(s)));
    let rst = answers.iter().filter_map(|s| s.stats.rst).min();
    let stalled = attempt.stall().is_some();
    if !established {
        return match rst {
            // No answer to a SYN, but the end of what was open before anybody looked.
            Some(_) if running && speaks(part) => Outcome::Reset,
            Some(_) => Outcome::Refused,
            None if running && stalled => Outcome::Stalled,
            None if answers.iter().any(|s| is_just_answered(part, s)) => Outcome::Pending,
            None => match unanswered(attempt, part, attempt.began()) {
                // What was open before anybody looked: the answer to its packet may be on its way, and its data hangs once it
                // has been sent again for long enough.
                Outcome::Timeout
                    if running && (attempt.sends() == 1 || hanging(part, true).is_some()) =>
                {
                    Outcome::Pending
                }
                outcome => outcome,
            },
        };
    }
    // A RST after a FIN is the end of a connection that was over; so is one after all was said and heard.
    let fin = part.conn.sights.iter().filter_map(|s| s.stats.fin).min();
    match (rst, fin) {
        (Some(rst), fin) if fin.is_none_or(|fin| rst < fin) && !is_complete(part) => Outcome::Reset,
        _ if stalled => Outcome::Stalled,
        _ if is_undecided(part) || !is_served(part, answers) => Outcome::Pending,
        _ => Outcome::Ok,
    }
}

/// The client sends within an open connection.
fn speaks(part: Part<'_>) -> bool {
    let mut sent = part.conn.sights_towards(true);
    sent.any(|s| s.stats.data.is_some() || s.stats.flags.ack() && !s.stats.flags.rst())
}

/// Its SYN was not seen: its handshake was over before anybody looked, or nearly.
fn is_running(part: Part<'_>) -> bool {
    !part.conn.opened && part.conn.isn.is_none()
}

/// An answer within a connection that was open before anybody looked. A SYN-ACK is none: it may be sent again to a client that gave up.
fn is_of_a_running(answer: &Sight) -> bool {
    let stats = &answer.stats;
    !stats.flags.rst() && stats.syn_ack.is_none()
}

/// Both sides sent data, and all of it was acknowledged: a server may close such a connection with a RST (`SO_LINGER` 0).
fn is_complete(part: Part<'_>) -> bool {
    [true, false].into_iter().all(|forward| {
        let mut sent = part.conn.sights_towards(forward);
        sent.any(|s| s.stats.data.is_some())
            && part.conn.hanging(forward).is_none()
            && !part.conn.is_astray(forward)
            && part
                .conn
                .sights_towards(!forward)
                .any(|s| s.stats.flags.ack())
    })
}

/// The answer shows an open connection: a SYN-ACK that need not be sent again because the client took it up, or (where
/// the SYN-ACK passed before everything was attached) anything that follows one. A SYN-ACK whose SYN was not seen, or long before it,
/// may be one that is sent again, and its client long gone.
pub fn is_taken_up(part: Part<'_>, answer: &Sight) -> bool {
    let acked = || part.conn.sights_towards(true).any(|s| s.stats.flags.ack());
    let stats = &answer.stats;
    // A server closes only what was opened.
    stats.data.is_some()
        || stats.fin.is_some()
        || match stats.syn_ack {
            Some(at) => {
                let first = stats.syn_retrans == 0 && !is_running(part) && is_prompt(part, at);
                acked() || first
            }
            None => stats.flags.ack() && !stats.flags.rst(),
        }
}

/// A SYN-ACK at this time came less than a second after its connection's first SYN. The kernel answers at once, and repeats itself a
/// second later (`TCP_TIMEOUT_INIT`, <https://elixir.bootlin.com/linux/v6.18/source/include/net/tcp.h>), as a client does whom no answer
/// reached: a later one may answer a SYN that is sent again, as in vain as the first.
fn is_prompt(part: Part<'_>, at: Time) -> bool {
    let is_answer = |syn: Time| syn <= at && at.since(syn) < UNANSWERED;
    part.conn.syn().is_none_or(is_answer)
}

/// Its only SYN-ACK so far came a moment ago: the client may take it up yet.
fn is_just_answered(part: Part<'_>, answer: &Sight) -> bool {
    let young = |at: Time| part.node.now.since(at) < SERVED;
    answer.stats.syn_retrans == 0 && answer.stats.syn_ack.is_some_and(young)
}

/// Whether the connection carries data cannot be told: one side's is being sent again without progress, none of it is
/// acknowledged yet, or some is not and the connection is younger than what makes a stall.
fn is_undecided(part: Part<'_>) -> bool {
    let young = part.node.now.since(part.conn.began) < UNANSWERED;
    // What began before we looked may be sent again only seconds from now.
    let again =
        |s: &Stall<'_>| (s.hanging.resent > 0 || is_running(part)) && s.waited() >= FIRST_RESEND;
    [true, false].into_iter().any(|forward| {
        hanging(part, forward).is_some_and(|s| young || again(&s) || is_hole(&s))
            || awaits_first_ack(part, forward)
    })
}

/// What answers a SYN may still reset the connection or leave it hanging, or never reach the client: a young one has been
/// served once data came back or a side has closed it. Conntrack may have announced it before its first packet was seen.
fn is_served(part: Part<'_>, answers: &[&Sight]) -> bool {
    let closed = |s: &Sight| s.stats.fin.is_some();
    let seen = part.conn.sights.iter().map(|s| s.stats.first).min();
    part.node.now.since(seen.unwrap_or(part.conn.began)) >= SERVED
        || part.conn.sights.iter().any(closed)
        || answers.iter().any(|s| s.stats.data.is_some())
}

/// What came in has waited a second for its acknowledgement, which a receiver owes within half of one (RFC 1122,
/// 4.2.3.2): something before it is missing. Not where a side gave the connection up.
fn is_hole(data: &Stall<'_>) -> bool {
    let aborted = data.part.conn.sights.iter().any(|s| s.stats.rst.is_some());
    !aborted && data.hanging.is_acked() && data.waited() >= UNANSWERED
}

fn awaits_first_ack(part: Part<'_>, forward: bool) -> bool {
    let sent = part
        .conn
        .sights_towards(forward)
        .filter(|s| s.stats.data.is_some());
    let mut opened = sent.filter(|s| s.stats.syn.is_some() || s.stats.syn_ack.is_some());
    let acks = part
        .conn
        .sights_towards(!forward)
        .filter(|s| s.stats.flags.ack());
    // The handshake itself acknowledges one number more than the initial one. Where no acknowledgement was seen at all,
    // not even that one, they pass elsewhere.
    let first = |s: &Sight| s.stats.isn.wrapping_add(1);
    acks.clone().next().is_some()
        && opened
            .next()
            .is_some_and(|s| acks.clone().all(|a| a.stats.ack == first(s)))
}

/// `since`: when the client began to wait.
fn unanswered(attempt: &Attempt<'_>, part: Part<'_>, since: Time) -> Outcome {
    for (p, event, icmp) in attempt.icmp() {
        if p.view != part.view {
            continue;
        }
        let outcome = icmp_outcome(icmp, attempt.orig.dst.is_ipv6());
        let heeded = outcome == Some(Outcome::Refused) && is_heeded(part, event, icmp);
        if let Some(outcome) = outcome.filter(|_| heeded || icmp_reaches_client(part, event, icmp))
        {
            return outcome;
        }
    }
    let waited = part.node.now.since(since);
    // A connection that was running and fell silent on both sides before we looked says nothing.
    // What waits for a neighbour in its Pod has not come to any interface. On the node it may wait before its source is
    // translated, and be sent on as another connection's.
    let waits = |(p, e): (Part<'_>, &ConnEvent)| {
        let in_pod = e.record.netns != p.node.start.netns;
        in_pod && matches!(e.record.event, Event::NeighborWait { .. })
    };
    let told = !attempt.drops().is_empty() || attempt.events().any(waits);
    if (attempt.sends() == 0 && !told) || is_unseen(part) {
        return Outcome::Pending;
    }
    if (attempt.orig.proto == Proto::TCP && attempt.sends() >= 2) || waited >= UNANSWERED {
        Outcome::Timeout
    } else {
        Outcome::Pending
    }
}

/// Delivered: sent out of the node's interface in the form that the client expects, or, for a client on the node
/// itself, come in (its translation back happens after tc ingress).
fn reaches_client(part: Part<'_>, sight: &Sight) -> bool {
    let Some(leg) = part.conn.leg(&sight.key.tuple) else {
        return false;
    };
    if part.node.is_own(part.conn.orig.src) {
        !leg.is_forward() && sight.key.dir == Direction::Ingress
    } else {
        leg == Leg::Unnat && sight.key.dir == Direction::Egress
    }
}

/// An error is recorded where it comes into the node. That it went on to the Pod shows the Pod itself: a SYN that nobody refused
/// would have been sent again a second later (RFC 6298, 2.1).
fn is_heeded(part: Part<'_>, event: &ConnEvent, icmp: &IcmpError) -> bool {
    let mut sent = part.conn.sights_towards(true).map(|s| s.stats.last);
    icmp.dir == Direction::Ingress
        && !part.node.is_own(part.conn.orig.src)
        && sent.all(|last| last < event.record.time + UNANSWERED / 2)
}

fn icmp_reaches_client(part: Part<'_>, event: &ConnEvent, icmp: &IcmpError) -> bool {
    let to_client = event
        .record
        .tuple
        .is_none_or(|t| t.dst == part.conn.orig.src);
    let wanted = if part.node.is_own(part.conn.orig.src) {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    to_client && icmp.dir == wanted
}

/// Destination unreachable codes (RFC 792, RFC 1812; RFC 4443): hosts and nets are unreachable, ports and
/// prohibitions refuse.
fn icmp_outcome(icmp: &IcmpError, v6: bool) -> Option<Outcome> {
    match (v6, icmp.icmp_type, icmp.code) {
        (false, 3, 0 | 1 | 5 | 6 | 7 | 11 | 12) | (true, 1, 0 | 3) => Some(Outcome::Unreachable),
        (false, 3, 2 | 3 | 9 | 10 | 13) | (true, 1, 1 | 4 | 5 | 6) => Some(Outcome::Refused),
        _ => None,
    }
}
