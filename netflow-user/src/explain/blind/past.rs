//! What was asked of the past and nobody has kept.

use crate::explain::view::View;
use crate::model::answer::Blind;
use crate::model::feed::Kept;

/// Of a node that tells of the past.
pub(super) fn on_node(view: &View) -> Vec<Blind> {
    let Some(kept) = view.start.kept else {
        return Vec::new();
    };
    let (node, from) = (view.name(), view.start.time);
    let Kept {
        asked,
        looking,
        healthy_from,
        healthy_evicted,
        failing_evicted,
        objects_from,
        ..
    } = kept;
    let blind = |code: &str, capability: &str, text: String| Blind {
        code: code.to_owned(),
        node: node.to_owned(),
        capability: capability.to_owned(),
        text,
    };
    let short = (from > asked).then(|| {
        let why = if from == looking {
            "its agent has been looking since then".to_owned()
        } else {
            format!("its history is full, and {failing_evicted} connections of before had to go")
        };
        let text = format!("{node} tells from {from} on, not from {asked}: {why}");
        blind("history-short", "flow", text)
    });
    let evicted = (healthy_from > from && healthy_evicted > 0).then(|| {
        let text = format!(
            "The history of {node} is full: of healthy connections all are there from {healthy_from} on only ({healthy_evicted} had to go), so before that more may have been served than is shown"
        );
        blind("history-evicted", "flow", text)
    });
    let objects = (objects_from > from).then(|| {
        let text = format!(
            "Names and endpoints are known to {node} from {objects_from} on: before that they are taken to be as they were then"
        );
        blind("objects-history-short", "objects", text)
    });
    let facts = view.facts.as_ref().map(|facts| {
        let text = format!(
            "Rules, sockets, routes and settings of {node} are as they were at {}, after what is explained",
            facts.time
        );
        blind("node-state-of-now", "node", text)
    });
    let all = [short, evicted, objects, facts];
    all.into_iter().flatten().collect()
}
