//! Raising a cluster, step by step.

use super::control;
use super::daemon::{self, Daemon, explained};
use super::hold;
use super::image;
use super::inside::Place;
use super::kubectl;
use super::network;
use super::node;
use super::pki;
use super::plan::{self, Node, Settings};
use super::proxy;
use super::state::{Component, State};
use crate::timing::Took;
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long nodes and Pods may take to be ready.
const LIMIT: Duration = Duration::from_mins(2);

/// A cluster that is being raised.
pub struct Raising {
    /// What was asked for.
    pub settings: Settings,
    state: Mutex<State>,
}

impl Raising {
    /// Writes a component down.
    pub fn note(&self, name: &str, node: Option<Node>, daemon: &Daemon) -> Result<()> {
        let component = Component {
            name: name.to_owned(),
            node: node.map(Node::name),
            process: daemon.process()?,
        };
        self.change(|state| state.components.push(component))
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        // one who panicked left it whole
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.save()
    }
}

/// Raises it; `traffic` is the program that is to run in Pods.
pub fn raise(settings: Settings, traffic: &Path) -> Result<()> {
    let raising = Raising {
        settings,
        state: Mutex::new(State::new(settings)),
    };
    directories(&raising)?;
    daemon::make_logs()?;
    step("network", || network::make(settings))?;
    step("certificates", || pki::make(settings))?;
    let images = images(settings, traffic)?;
    let places = thread::scope(|scope| {
        let prepare = |node: Node| {
            let (raising, images) = (&raising, &images);
            scope.spawn(move || {
                step(
                    &format!("{}: namespaces, containerd, images", node.name()),
                    || {
                        let place = node::prepare(raising, node, images)?;
                        Ok((node, place))
                    },
                )
            })
        };
        let nodes: Vec<_> = settings.nodes().map(prepare).collect();
        let control = step("etcd, API server", || control::start(&raising));
        let nodes: Result<Vec<(Node, Place)>> = nodes.into_iter().map(joined).collect();
        control.and(nodes)
    })?;
    if places.is_empty() {
        step("controllers, scheduler", controllers)?;
    } else {
        nodes(&raising, &places)?;
        step("name server", name_server)?;
    }
    raising.change(|state| state.complete = true)
}

fn images(settings: Settings, traffic: &Path) -> Result<Vec<PathBuf>> {
    if settings.nodes == 0 {
        return Ok(Vec::new());
    }
    let file = plan::dir().join("netflow-traffic.tar");
    step("images", || {
        image::traffic(traffic, &file)?;
        Ok(vec![file, image::coredns()?])
    })
}

fn nodes(raising: &Raising, places: &[(Node, Place)]) -> Result<()> {
    for (node, _) in places {
        kubectl::apply(&node::object(*node))?;
    }
    thread::scope(|scope| {
        let start = |(node, place): &(Node, Place)| {
            let (node, place) = (*node, place.clone());
            scope.spawn(move || {
                node::kubelet(raising, node, &place)?;
                step(&format!("{}: {}", node.name(), proxy::NAME), || {
                    proxy::start(raising, node, &place)
                })
            })
        };
        let all: Vec<_> = places.iter().map(start).collect();
        all.into_iter().try_for_each(joined)
    })?;
    let logs: Vec<String> = places
        .iter()
        .map(|(node, _)| node::log("kubelet", *node))
        .collect();
    step("nodes ready", || {
        explained(
            kubectl::wait("condition=Ready", &["node", "--all"], LIMIT),
            &logs,
        )
    })
}

/// They run when they have given the first namespace what every Pod needs.
fn controllers() -> Result<()> {
    let logs = ["kube-controller-manager".to_owned()];
    let made = kubectl::wait("create", &["serviceaccount/default"], LIMIT);
    explained(made, &logs)
}

fn name_server() -> Result<()> {
    kubectl::apply_file(&workspace::root().join("tests/cluster/coredns.yaml"))?;
    let objects = ["--namespace=kube-system", "deployment/coredns"];
    let ready = kubectl::wait("condition=Available", &objects, LIMIT);
    ready.with_context(
        || match kubectl::read(&["get", "events", "--namespace=kube-system"]) {
            Ok(events) => format!("its events:\n{events}"),
            Err(error) => format!("{error:#}"),
        },
    )
}

/// Makes the directories that nodes mount their own upon, where the machine has none.
fn directories(raising: &Raising) -> Result<()> {
    let missing: Vec<PathBuf> = hold::DIRECTORIES
        .iter()
        .flat_map(|dir| missing(Path::new(dir)))
        .collect();
    raising.change(|state| state.directories.clone_from(&missing))?;
    if raising.settings.nodes == 0 {
        return Ok(());
    }
    for dir in hold::DIRECTORIES {
        fs::create_dir_all(dir).with_context(|| dir.to_owned())?;
    }
    Ok(())
}

/// What has to be made for `dir` to be there, parents first.
fn missing(dir: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|dir| !dir.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(done) => done,
        Err(_) => bail!("a step panicked"),
    }
}

/// Does a step and says how long it took, or which one failed.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    eprintln!("cluster: {what} … {}", Took(began.elapsed()));
    Ok(done)
}

/// Nodes of the cluster and whether they are ready, as the API server has it.
pub fn ready() -> Result<Vec<(String, bool)>> {
    let nodes = kubectl::json(&["get", "nodes", "--request-timeout=5s"])?;
    let items = nodes["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(items
        .iter()
        .map(|node| (name(node), is_ready(node)))
        .collect())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_missing_is_made_parents_first() {
        let dir = std::env::temp_dir().join(format!("netflow-missing-{}", std::process::id()));
        assert_eq!(
            missing(&dir.join("a/b")),
            [dir.clone(), dir.join("a"), dir.join("a/b")]
        );
        assert!(missing(&std::env::temp_dir()).is_empty());
    }

    #[test]
    fn a_node_is_ready_when_its_condition_says_so() {
        let node = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        assert!(is_ready(&node("Ready", "True")));
        assert!(!is_ready(&node("Ready", "Unknown")));
        assert!(!is_ready(&node("MemoryPressure", "True")));
        assert!(!is_ready(&json!({})));
    }
}
