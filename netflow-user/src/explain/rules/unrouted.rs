//! Clients whose own namespace has no route to the Service: their system calls fail, and there is no packet to see.

use super::route::{answer_draft, kind_of_lack};
use super::service::full_name;
use crate::explain::case::{Case, FailedLookup};
use crate::explain::evidence::Draft;
use crate::explain::report::{Report, Saying};
use crate::model::answer::{Basis, Changes, Fix, Severity};
use crate::model::node::{PodNetns, RouteLookup};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A Pod that looked for a route in vain.
struct Stranded<'a> {
    lookup: FailedLookup<'a>,
    pod: &'a PodNetns,
    /// What the kernel answers there when it is asked now.
    answer: &'a RouteLookup,
}

impl<'a> Stranded<'a> {
    /// Only where the whole lookup fails: one table without an answer is how many lookups go on that succeed, with rules that
    /// choose between tables every one.
    fn of(case: &Case<'a>, lookup: FailedLookup<'a>) -> Option<Stranded<'a>> {
        let (record, dst) = (lookup.record, lookup.dst);
        let facts = lookup.view.facts.as_ref()?;
        let pod = facts.pods.iter().find(|p| p.netns == record.netns)?;
        let mut answers = facts.lookups.iter();
        let answer = answers.find(|l| l.netns == record.netns && l.dst == dst)?;
        let fails = facts.time >= record.time && answer.errno.is_some();
        let sent = || {
            case.attempts.iter().any(|a| {
                pod.ips.contains(&a.client()) && a.orig.dst == dst && a.began() >= record.time
            })
        };
        let stranded = Stranded {
            lookup,
            pod,
            answer,
        };
        (fails && stranded.is_asked(case) && !sent()).then_some(stranded)
    }

    fn client(&self) -> Option<IpAddr> {
        let same = |ip: &&IpAddr| ip.is_ipv4() == self.lookup.dst.is_ipv4();
        self.pod.ips.iter().find(same).copied()
    }

    fn is_asked(&self, case: &Case<'_>) -> bool {
        let from = case.query.from.as_ref();
        let at = self.lookup.record.time;
        self.client()
            .is_some_and(|ip| from.is_none_or(|from| case.is_from(ip, at, from)))
    }

    fn name(&self, case: &Case<'_>) -> String {
        let ip = self.client();
        ip.map_or_else(String::new, |ip| case.name(ip, self.lookup.record.time))
    }

    fn evidence(&self, case: &Case<'_>) -> [Draft; 2] {
        let FailedLookup {
            index,
            view,
            cite,
            record,
            dst,
            err,
            table,
        } = &self.lookup;
        let name = self.name(case);
        let text = format!(
            "{name} looked for a route to {dst}: errno {} in table {table}",
            -err
        );
        let mut tried = Draft::node(format!("fib {} {dst}", record.netns), text);
        tried.time = Some(record.time);
        tried.view = Some((*index, view.name().to_owned()));
        tried.netns = Some(record.netns);
        tried.hook = Some("fib_table_lookup".to_owned());
        tried.tuple = record.tuple;
        tried.cites = vec![*cite];
        [tried, answer_draft(*index, view, self.answer)]
    }
}

/// A Pod tries the Service and has no route to it.
pub fn clients(case: &Case<'_>, report: &mut Report) {
    let mut alike: BTreeMap<(usize, IpAddr, Option<i32>), Vec<Stranded<'_>>> = BTreeMap::new();
    for stranded in case.failed_lookups().filter_map(|l| Stranded::of(case, l)) {
        let key = (
            stranded.lookup.index,
            stranded.lookup.dst,
            stranded.answer.errno,
        );
        alike.entry(key).or_default().push(stranded);
    }
    for ((_, dst, errno), all) in alike {
        let names: BTreeSet<String> = all.iter().map(|s| s.name(case)).collect();
        let who = names.iter().cloned().collect::<Vec<_>>().join(", ");
        let summary = format!(
            "{who} has {} to {dst}: what it sends to {} fails before there is a packet",
            kind_of_lack(errno),
            full_name(case)
        );
        let here = all.first().map_or("", |s| s.lookup.view.name());
        let saying = Saying {
            evidence: all.iter().flat_map(|s| s.evidence(case)).collect(),
            values: vec![("here", here.to_owned()), ("to", dst.to_string())],
            fixes: vec![look_inside(&names, dst)],
            ..Saying::new(summary)
        };
        report.state(
            case,
            "no-route",
            Basis::Observed,
            Severity::Critical,
            saying,
        );
        if let Some(found) = report.found.last_mut() {
            found.clients = names;
        }
    }
}

fn look_inside(names: &BTreeSet<String>, dst: IpAddr) -> Fix {
    let pod = names.first().and_then(|name| name.split_once('/'));
    Fix {
        text: "Look at the routes inside the Pod, not on the node. It gets them from the network plugin when it is made; one \
               that is made anew gets them anew"
            .to_owned(),
        command: pod.map_or_else(String::new, |(namespace, name)| {
            format!("kubectl exec -n {namespace} {name} -- ip route get {dst}")
        }),
        changes: Changes::Nothing,
    }
}
