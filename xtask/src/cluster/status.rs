//! What is up, for people and for programs.

use super::build;
use super::plan;
use super::raise;
use super::state::State;
use crate::table::{self, Align};
use anyhow::Result;
use serde_json::{Value, json};

/// As JSON.
pub fn json(state: Option<&State>) -> Result<Value> {
    let Some(state) = state else {
        return Ok(json!({"up": false}));
    };
    let ready = raise::ready().unwrap_or_default();
    let nodes = state.settings.nodes().map(|node| {
        let name = node.name();
        let ready = ready.contains(&(name.clone(), true));
        json!({"name": name, "address": node.ip(), "pods": node.pods(), "namespace": node.place(), "ready": ready})
    });
    let components = state.components.iter().map(|component| {
        json!({
            "name": component.name,
            "node": component.node,
            "pid": component.process.pid,
            "running": component.process.lives(),
        })
    });
    Ok(json!({
        "up": state.stands(),
        "proxy": state.settings.proxy,
        "network": state.settings.network,
        "kubeconfig": plan::kubeconfig(),
        "logs": plan::logs(),
        "versions": build::versions()?.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "components": components.collect::<Vec<_>>(),
    }))
}

/// As a table.
pub fn text(state: Option<&State>) -> String {
    let Some(state) = state else {
        return "no cluster is up: cargo xtask cluster up\n".to_owned();
    };
    let ready = raise::ready().unwrap_or_default();
    let said = |name: &str| match ready.iter().find(|(it, _)| it == name) {
        Some((_, true)) => "Ready",
        Some((_, false)) => "NotReady",
        None => "unknown to the API server",
    };
    let nodes = state.settings.nodes().map(|node| {
        let name = node.name();
        let said = said(&name).to_owned();
        [name, said, node.ip().to_string(), node.pods(), node.place()]
    });
    let nodes: Vec<_> = nodes.collect();
    let components = state.components.iter().map(|component| {
        let node = component.node.clone().unwrap_or_else(|| "cp".to_owned());
        let lives = if component.process.lives() {
            "runs"
        } else {
            "ended"
        };
        [
            component.name.clone(),
            node,
            component.process.pid.to_string(),
            lives.to_owned(),
        ]
    });
    let components: Vec<_> = components.collect();
    let left = Align::Left;
    let mut parts = vec![format!(
        "{}: {}\n",
        state.settings,
        if state.stands() { "up" } else { "not whole" }
    )];
    if !nodes.is_empty() {
        let heads = ["node", "state", "address", "pods", "namespace"].map(|head| (head, left));
        parts.push(table::render(heads, &nodes));
    }
    let heads = [
        ("component", left),
        ("on", left),
        ("pid", Align::Right),
        ("state", left),
    ];
    parts.push(table::render(heads, &components));
    parts.push(format!(
        "kubeconfig: {} (in network namespace {})\nlogs: {}\n",
        plan::kubeconfig().display(),
        plan::CONTROL,
        plan::logs().display()
    ));
    parts.join("\n")
}
