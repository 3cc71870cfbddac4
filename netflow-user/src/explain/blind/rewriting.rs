//! Programs of others that rewrite packets to the Service.

use super::{Case, View};
use crate::explain::attempt::Attempt;
use crate::explain::rewriting;
use crate::model::answer::Blind;
use crate::model::flow::Direction;
use crate::model::node::TcProgram;
use std::collections::BTreeSet;

/// Such programs come between what was seen of the Service's packets on a node.
pub fn on_node(case: &Case<'_>, index: usize, view: &View) -> Option<Blind> {
    let of_node = |a: &&Attempt<'_>| a.dialled_part().is_some_and(|p| p.view == index);
    let attempts = || case.attempts.iter().filter(of_node);
    let mut programs: BTreeSet<String> =
        attempts().flat_map(rewriting::suspects).map(name).collect();
    let joined = attempts().filter(|a| a.rewritten.is_some()).count();
    let addressed = attempts().any(|a| !a.is_direct());
    let rest = if !programs.is_empty() && joined > 0 {
        format!(
            "conntrack knows nothing of it; {joined} attempts were followed to the endpoint by the client's port and the time, \
             and others may have gone elsewhere"
        )
    } else if !programs.is_empty() {
        "what becomes of packets to the Service's address behind them, and of their answers, is not known".to_owned()
    } else if !addressed {
        programs = attempts()
            .flat_map(|a| in_front(view, a))
            .map(name)
            .collect();
        "they see packets of clients before netflow does, and none to the Service's address came behind them: those to its \
         Pods may have been sent to it"
            .to_owned()
    } else {
        return None;
    };
    if programs.is_empty() {
        return None;
    }
    let programs: Vec<String> = programs.into_iter().collect();
    Some(Blind {
        code: "tc-translation".to_owned(),
        node: view.name().to_owned(),
        capability: "nat".to_owned(),
        text: format!(
            "tc programs of others rewrite, or may rewrite, packets: {}: {rest}",
            programs.join(", ")
        ),
    })
}

/// Programs that see the packets of a direct attempt where they come in, before netflow.
fn in_front<'a>(view: &'a View, a: &Attempt<'_>) -> impl Iterator<Item = &'a TcProgram> {
    let sights = a.parts.iter().flat_map(|p| p.conn.sights_towards(true));
    let first = sights.min_by_key(|s| (s.stats.first, s.key));
    let came_in = first.filter(|s| s.key.dir == Direction::Ingress);
    let ifindex = came_in.map(|s| s.key.ifindex);
    rewriting::programs(view)
        .filter(move |p| p.first && p.side == "ingress" && Some(p.ifindex) == ifindex)
}

/// `cil_from_container (id 12, tcx ingress of lxc1, after netflow)`.
fn name(p: &TcProgram) -> String {
    let id = p.id.map_or(String::new(), |id| format!("id {id}, "));
    let order = if p.first { "before" } else { "after" };
    format!(
        "{} ({id}{} {} of {}, {order} netflow)",
        p.name, p.how, p.side, p.interface
    )
}
