//! What conntrack itself could not do, or does from memory.

use super::filter::{is_by_rule, is_netfilter};
use super::nat::{raw_answer, raw_drafts};
use super::proxy::{are_rules_read, is_new, is_ruled, list, rules_draft};
use super::service::{dialled, drop_draft, full_name};
use crate::explain::attempt::{Attempt, Outcome, Part};
use crate::explain::case::Case;
use crate::explain::evidence::Draft;
use crate::explain::past::PROXY_LAG;
use crate::explain::report::{Because, Report, Saying};
use crate::explain::view::View;
use crate::flows::{ConnEvent, Leg, Sight};
use crate::model::answer::{Basis, Severity};
use crate::model::conntrack::CtTable;
use crate::model::flow::Direction;
use crate::model::record::{Drop, Event, NfHook};
use crate::model::{CtTuples, Proto, Time};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// So full, in percent, a table is worth a warning.
const PRESSURE: u64 = 90;

/// The table is full: a packet that begins a connection is dropped where conntrack looks at it first, without an entry.
pub fn full(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "conntrack-full",
        Basis::Observed,
        |a| {
            let mut evidence = refused_entries(case, a);
            let view = evidence.first()?.view.clone();
            let said = |e: &ConnEvent| matches!(e.record.event, Event::CtFull);
            let text = "conntrack has no entry left for the packet";
            evidence.extend(drafts_of(case, a, said, "table full", text));
            evidence.extend(dialled(case, a));
            Some(Because {
                key: view.map_or(String::new(), |(_, name)| name),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some((part, ..)) = refused_by_table(a).next() else {
                return Saying::new("");
            };
            let table = part.node.facts.as_ref().map(|f| &f.conntrack);
            let count = table.map_or(String::new(), |t| {
                format!(" ({} of at most {} entries)", t.count, t.max)
            });
            let summary = format!(
                "The conntrack table of {} is full{count}: it drops every new connection, those of {} among them",
                part.node.name(),
                full_name(case)
            );
            Saying {
                evidence: table_drafts(part),
                ..Saying::new(summary)
            }
        },
    );
}

fn refused_entries(case: &Case<'_>, a: &Attempt<'_>) -> Vec<Draft> {
    refused_by_table(a)
        .map(|(part, event, drop)| drop_draft(case, part, event, drop))
        .collect()
}

/// Drops for want of an entry on a node whose table is, or was meanwhile, full (`nf_conntrack_in` gives `NF_DROP` where
/// `__nf_conntrack_alloc` finds no room, `net/netfilter/nf_conntrack_core.c`, v6.18).
fn refused_by_table<'a>(
    a: &Attempt<'a>,
) -> impl Iterator<Item = (Part<'a>, &'a ConnEvent, &'a Drop)> {
    let by_rule = is_by_rule(a);
    a.drops()
        .into_iter()
        .filter_map(move |(part, event, drop, _)| {
            let own = event.record.netns == part.node.start.netns;
            let first_look = matches!(drop.hook, None | Some(NfHook::Prerouting | NfHook::Output));
            let by_hook = is_netfilter(drop) && drop.place == "nf_hook_slow" && drop.ct.is_none();
            let said = || {
                let mut events = part.conn.events.iter();
                events.any(|e| matches!(e.record.event, Event::CtFull))
            };
            (own && by_hook && first_look && !by_rule && (was_full(part.node) || said()))
                .then_some((part, event, drop))
        })
}

/// Evidence: events of one kind that an attempt has.
fn drafts_of(
    case: &Case<'_>,
    a: &Attempt<'_>,
    is_it: impl Fn(&ConnEvent) -> bool,
    kind: &str,
    text: &str,
) -> Vec<Draft> {
    a.events()
        .filter(|(_, e)| is_it(e))
        .map(|(part, e)| case.event(part, e, kind, text.to_owned()))
        .collect()
}

/// The table is full now, or it turned connections away while we looked. Its trackers count what they refuse for reasons of
/// their own as dropped, too (`nf_conntrack_in`, `net/netfilter/nf_conntrack_core.c`, v6.18): a table that was full moments
/// ago is not nearly empty. An entry that has just ended leaves it all but full; where its count of drops was read only
/// once, that is what is known.
fn was_full(node: &View) -> bool {
    let Some(facts) = &node.facts else {
        return false;
    };
    let table = &facts.conntrack;
    let filled = |percent| table.max > 0 && hundredfold(table) >= table.max.saturating_mul(percent);
    let once = node.before.as_ref().is_none_or(|f| f.time == facts.time);
    is_full(table) || filled(50) && rise(node, "drop") > 0 || filled(99) && once
}

/// To be compared with percents. A recording may claim any count.
fn hundredfold(table: &CtTable) -> u64 {
    table.count.saturating_mul(100)
}

fn is_full(table: &CtTable) -> bool {
    table.max > 0 && table.count >= table.max
}

/// By how much a statistic of conntrack rose while we looked.
fn rise(node: &View, name: &str) -> u64 {
    let of = |f: &crate::model::node::NodeFacts| f.conntrack.stats.get(name).copied();
    let before = node.before.as_ref().and_then(of);
    let now = node.facts.as_ref().and_then(of);
    before
        .zip(now)
        .map_or(0, |(before, now)| now.saturating_sub(before))
}

/// Evidence: fill of the table and what it turned away.
fn table_drafts(part: Part<'_>) -> Vec<Draft> {
    let Some(facts) = &part.node.facts else {
        return Vec::new();
    };
    let table = &facts.conntrack;
    let (name, dropped, early) = (
        part.node.name(),
        rise(part.node, "drop"),
        rise(part.node, "early_drop"),
    );
    let text = format!(
        "conntrack of {name}: {} entries of at most {}; meanwhile {dropped} packets dropped for want of room, {early} \
         entries thrown out early",
        table.count, table.max
    );
    vec![Draft::of_node(
        part.view,
        part.node,
        "conntrack table",
        text,
    )]
}

/// The table of a node is nearly full. Nothing fails for it yet.
pub fn pressure(case: &Case<'_>, report: &mut Report) {
    for (i, view) in case.views.iter().enumerate() {
        let table = view.facts.as_ref().map(|f| &f.conntrack);
        let Some(table) =
            table.filter(|t| t.max > 0 && hundredfold(t) > t.max.saturating_mul(PRESSURE))
        else {
            continue;
        };
        // A full one that turns connections of this Service away is a finding of its own.
        let told = report.found.iter().any(|f| f.code.code == "conntrack-full");
        if told && is_full(table) {
            continue;
        }
        let percent = hundredfold(table) / table.max;
        let text = format!(
            "conntrack of {}: {} entries of at most {}",
            view.name(),
            table.count,
            table.max
        );
        let summary = format!(
            "The conntrack table of {} is {percent} % full: from 100 % on new connections are dropped",
            view.name()
        );
        let saying = Saying {
            evidence: vec![Draft::of_node(i, view, "conntrack fill", text)],
            ..Saying::new(summary)
        };
        report.state(
            case,
            "conntrack-pressure",
            Basis::Observed,
            Severity::Warning,
            saying,
        );
    }
}

/// An entry from before sends to what is no endpoint any more, and no rule of today would.
pub fn stale(case: &Case<'_>, report: &mut Report) {
    for (read, basis) in [(true, Basis::Observed), (false, Basis::Inferred)] {
        report.explain(
            case,
            "conntrack-stale",
            basis,
            |a| {
                let to = remembered(case, a)?;
                if are_known(a) != read {
                    return None;
                }
                let mut evidence: Vec<Draft> = case.translation(a).into_iter().collect();
                for (part, event, drop, _) in a.drops() {
                    evidence.push(drop_draft(case, part, event, drop));
                }
                evidence.extend(dialled(case, a));
                Some(Because {
                    key: to.to_string(),
                    evidence,
                })
            },
            |of| stale_saying(case, of, read),
        );
    }
}

fn stale_saying(case: &Case<'_>, of: &[&Attempt<'_>], read: bool) -> Saying {
    let a = of[0];
    let to: BTreeSet<SocketAddr> = of.iter().filter_map(|a| a.backend()).collect();
    let by = if read {
        "no rule sends new ones there"
    } else {
        "whether a rule still does could not be read"
    };
    let summary = format!(
        "Conntrack of {} still sends old connections for {} to {}, no endpoint of {} any more; {by}",
        a.parts[0].node.name(),
        a.orig.destination(),
        list(&to),
        full_name(case)
    );
    let known = case
        .port_of_attempt(a)
        .map(|p| case.slice_targets(p))
        .unwrap_or_default();
    let slices = format!(
        "EndpointSlices of {} hold {}",
        full_name(case),
        list(&known)
    );
    let evidence = std::iter::once(Draft::objects("slices", slices)).chain(rules_draft(a));
    let client = a.orig.source();
    Saying {
        evidence: evidence.collect(),
        values: vec![
            ("client_ip", client.ip().to_string()),
            ("client_port", client.port().to_string()),
        ],
        ..Saying::new(summary)
    }
}

/// The target of an entry that today's slices lack and today's rules do not choose.
fn remembered(case: &Case<'_>, a: &Attempt<'_>) -> Option<SocketAddr> {
    if a.is_direct() || case.slices().next().is_none() {
        return None;
    }
    let port = case.port_of_attempt(a)?;
    let ct = a.nat().filter(CtTuples::is_dnat)?;
    let to = ct.translated().destination();
    let old =
        ct.status.confirmed() && (!is_new(a, &ct) && !is_just_dialled(a) || outlived(case, a, to));
    (old && !case.usable_since(waiting_since(a), a, port).contains(&to) && !is_ruled(a, to))
        .then_some(to)
}

/// It was made while we looked, of an endpoint that there was then and that left well before the latest packet.
fn outlived(case: &Case<'_>, a: &Attempt<'_>, to: SocketAddr) -> bool {
    let began = case
        .port_of_attempt(a)
        .map(|p| case.usable(a, p))
        .unwrap_or_default();
    began.contains(&to) && a.began() + PROXY_LAG < waiting_since(a)
}

/// Its SYN, which was seen, made the entry by the rules of that moment, and has not been sent again for longer than rules may lag
/// behind: it met an endpoint on its way out, whenever netflow began to look.
fn is_just_dialled(a: &Attempt<'_>) -> bool {
    let opened = a.parts.iter().any(|p| p.conn.opened);
    let dialled = a.orig.proto == Proto::TCP && a.outcome == Outcome::Timeout && opened;
    dialled && waiting_since(a) <= a.began() + PROXY_LAG
}

/// Since when the client has waited in vain: its latest packet that nothing answered, at the earliest the attempt's begin.
fn waiting_since(a: &Attempt<'_>) -> Time {
    let sent = a.parts.iter().flat_map(|p| p.conn.sights_towards(true));
    sent.map(|s| s.stats.last).max().unwrap_or(a.began())
}

/// Whether what each node's rules do with the address is known.
fn are_known(a: &Attempt<'_>) -> bool {
    let d = a.orig;
    a.parts
        .iter()
        .all(|p| are_rules_read(p.node) || !p.node.proxy(d.dst, d.dport, d.proto).is_empty())
}

/// Answers that conntrack did not recognise within a connection that it had translated before: they reach the client as from
/// the Pod, and the client resets what it never dialled.
pub fn invalid(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "conntrack-invalid",
        Basis::Observed,
        |a| {
            let cut = matches!(
                a.outcome,
                Outcome::Reset | Outcome::Stalled | Outcome::Timeout
            );
            let (part, answer) = raw_answer(a).filter(|_| cut && a.orig.proto == Proto::TCP)?;
            let translated = part
                .conn
                .sights_of(Leg::Unnat)
                .any(|s| s.key.dir == Direction::Egress && s.stats.first <= answer.stats.first);
            if !translated || is_afterwards(part, answer) {
                return None;
            }
            let mut evidence = raw_drafts(case, a, part, answer);
            evidence.extend(case.translation(a));
            Some(Because {
                key: part.node.name().to_owned(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some((part, answer)) = raw_answer(a) else {
                return Saying::new("");
            };
            let counted = rise(part.node, "invalid");
            let why = if counted > 0 {
                format!("conntrack called {counted} packets INVALID meanwhile, which are not translated")
            } else {
                "conntrack has lost the connection, or its count of INVALID packets could not be read".to_owned()
            };
            let summary = format!(
                "Within connections of {}, answers of {} reach the client untranslated on {}, and the client's RST cuts the \
                 connection: {why}",
                full_name(case),
                case.named(answer.key.tuple.source(), a.began()),
                part.node.name()
            );
            let text = format!("conntrack of {}: {why}", part.node.name());
            let mut evidence = vec![Draft::of_node(part.view, part.node, "conntrack invalid", text)];
            evidence.extend(liberal_draft(part));
            Saying {
                evidence,
                ..Saying::new(summary)
            }
        },
    );
}

/// The connection was being reset already: what follows on it belongs to no connection, for conntrack either.
fn is_afterwards(part: Part<'_>, answer: &Sight) -> bool {
    let client = answer.key.tuple.inverse();
    let others = part.conn.sights.iter().filter(|s| s.key.tuple != client);
    let rst = others.filter_map(|s| s.stats.rst).min();
    rst.is_some_and(|rst| rst <= answer.stats.first)
}

/// Evidence: how conntrack judges sequence numbers.
fn liberal_draft(part: Part<'_>) -> Option<Draft> {
    let name = "net.netfilter.nf_conntrack_tcp_be_liberal";
    let value = part.node.facts.as_ref()?.sysctls.get(name)?;
    let text = format!("{name} is {value}");
    Some(Draft::of_node(part.view, part.node, name, text))
}

/// Two packets began the same connection at once, and the second one's entry could not be put into the table. Where
/// conntrack resolved that, it is worth knowing; where the packet was lost for it, it is a fault.
pub fn clash(case: &Case<'_>, report: &mut Report) {
    report.explain(
        case,
        "conntrack-clash",
        Basis::Observed,
        |a| {
            let (part, event, drop, _) = insertion_failed(a)?;
            let said = |e: &ConnEvent| matches!(e.record.event, Event::CtInsertFailed { .. });
            let text = "the entry found no place in the conntrack table";
            let told = drafts_of(case, a, said, "not inserted", text);
            if told.is_empty() && rise(part.node, "insert_failed") == 0 {
                return None;
            }
            let mut evidence = vec![drop_draft(case, part, event, drop)];
            evidence.extend(told);
            evidence.extend(dialled(case, a));
            Some(Because {
                key: part.node.name().to_owned(),
                evidence,
            })
        },
        |of| {
            let a = of[0];
            let Some((part, ..)) = insertion_failed(a) else {
                return Saying::new("");
            };
            let failed = rise(part.node, "insert_failed");
            let summary = format!(
                "Packets of {} are lost on {}: conntrack could not insert their entries beside those of the same connection \
                 that came in at the same time ({failed} meanwhile)",
                full_name(case),
                part.node.name()
            );
            let text = format!(
                "conntrack of {}: insert_failed rose by {failed}",
                part.node.name()
            );
            Saying {
                evidence: vec![Draft::of_node(part.view, part.node, "insert_failed", text)],
                ..Saying::new(summary)
            }
        },
    );
    resolved(case, report);
}

/// Only protocols without connections are resolved so (`nf_ct_resolve_clash`, `net/netfilter/nf_conntrack_core.c`, v6.18), and
/// the kernel counts them for the node as a whole.
fn resolved(case: &Case<'_>, report: &mut Report) {
    let udp = |view: usize| {
        let mut attempts = case.attempts.iter();
        attempts.any(|a| a.orig.proto == Proto::UDP && a.parts.iter().any(|p| p.view == view))
    };
    for (i, view) in case.views.iter().enumerate() {
        let n = rise(view, "clash_resolve");
        let raced = |e: &ConnEvent| matches!(e.record.event, Event::CtClash { .. });
        let text = "two packets of this connection raced for an entry";
        let seen = case.attempts.iter();
        let here = seen.filter(|a| a.parts.iter().any(|p| p.view == i));
        let ours: Vec<Draft> = here
            .flat_map(|a| drafts_of(case, a, raced, "race", text))
            .collect();
        if ours.is_empty() && (n == 0 || !udp(i)) {
            continue;
        }
        let whose = if ours.is_empty() {
            ". Which connections they were is not counted"
        } else {
            ", connections of this Service among them"
        };
        let count = if n == 0 {
            String::new()
        } else {
            format!("{n} ")
        };
        let summary = format!(
            "Conntrack of {} resolved {count}races of packets that began the same connection at once; nothing was lost by \
             it{whose}",
            view.name()
        );
        let text = format!("conntrack of {}: clash_resolve rose by {n}", view.name());
        let mut evidence = vec![Draft::of_node(i, view, "clash_resolve", text)];
        evidence.extend(ours);
        let saying = Saying {
            evidence,
            ..Saying::new(summary)
        };
        report.state(
            case,
            "conntrack-clash",
            Basis::Inferred,
            Severity::Info,
            saying,
        );
    }
}

/// A packet that all rules had passed was dropped as its entry was to be put into the table: both NAT decisions are taken, the
/// second of which is the last that rules have a say in, and it is not confirmed (`__nf_conntrack_confirm`, `net/netfilter/nf_conntrack_core.c`, v6.18).
pub(super) fn insertion_failed<'a>(
    a: &Attempt<'a>,
) -> Option<(Part<'a>, &'a ConnEvent, &'a Drop, CtTuples)> {
    if is_by_rule(a) {
        return None;
    }
    a.drops().into_iter().find_map(|(part, event, drop, _)| {
        let ct = drop.ct?;
        let status = ct.status;
        let decided = status.src_nat_done() && status.dst_nat_done() && !status.confirmed();
        let own = event.record.netns == part.node.start.netns;
        (own && is_netfilter(drop) && drop.place == "nf_hook_slow" && decided)
            .then_some((part, event, drop, ct))
    })
}
