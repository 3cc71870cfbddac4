//! Service addresses that no packet carries.

use super::{Case, View};
use crate::explain::attempt::Attempt;
use crate::explain::sockets::{self, Dialling};
use crate::model::answer::Blind;
use crate::model::node::SocketProgram;
use std::collections::BTreeSet;

/// Sockets of a node may be given a backend for the Service's address, by the programs that are named.
pub fn on_node(case: &Case<'_>, index: usize, view: &View) -> Option<Blind> {
    let dialled = case.by_socket.iter().filter(|d| d.view == index);
    let programs: BTreeSet<String> = dialled
        .flat_map(|Dialling { proto, v6, .. }| sockets::programs(view, *proto, *v6))
        .map(name)
        .collect();
    if programs.is_empty() {
        return None;
    }
    let programs: Vec<String> = programs.into_iter().collect();
    let rest = if case.attempts.iter().any(Attempt::is_direct) {
        "so what goes to its Pods counts as its traffic; which of it dialled the Service is not known"
    } else {
        "and none to its Pods: what a program refuses makes no packet"
    };
    Some(Blind {
        code: "socket-load-balancing".to_owned(),
        node: view.name().to_owned(),
        capability: "nat".to_owned(),
        text: format!(
            "Sockets pass {}, which may put a backend in place of the Service's address: no packet to that address was seen, \
             {rest}",
            programs.join(", ")
        ),
    })
}

/// `cgroup/connect4 lb_connect (id 7)`.
fn name(program: &SocketProgram) -> String {
    let SocketProgram { id, name, hook } = program;
    match name.as_str() {
        "" => format!("{hook} (id {id})"),
        name => format!("{hook} {name} (id {id})"),
    }
}
