//! Service addresses that are replaced in the socket, so that no packet ever carries them.
//!
//! Whether a program does that is not asked of the program. It shows: it is in force on the client's node, and of what the
//! node's clients send nothing goes to the Service's address, though they do reach its Pods.

use super::attempt::Attempt;
use super::case::Case;
use super::view::View;
use crate::model::Proto;
use crate::model::node::SocketProgram;
use std::collections::BTreeSet;

/// What the sockets of one node dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialling {
    /// Index of the recording.
    pub view: usize,
    /// Protocol.
    pub proto: Proto,
    /// IPv6.
    pub v6: bool,
}

/// Everything that the Service is dialled by where a program could replace its address and no packet to it was seen.
pub fn balanced(case: &Case<'_>) -> BTreeSet<Dialling> {
    let mut all = possible(case);
    let addressed = case.attempts.iter().filter(|a| !a.is_direct());
    for a in addressed {
        all.retain(|d| !is_of(case, *d, a));
    }
    all
}

/// Whether the client of a direct attempt may as well have dialled the Service.
pub fn is_balanced(case: &Case<'_>, a: &Attempt<'_>) -> bool {
    case.by_socket.iter().any(|d| is_of(case, *d, a))
}

/// Programs that the sockets of a node pass.
pub fn programs(view: &View, proto: Proto, v6: bool) -> impl Iterator<Item = &SocketProgram> {
    let all = view.facts.iter().flat_map(|f| &f.socket_programs);
    all.filter(move |p| p.concerns(proto, v6))
}

fn possible(case: &Case<'_>) -> BTreeSet<Dialling> {
    let families: BTreeSet<bool> = case.addresses().map(|(ip, _)| ip.is_ipv6()).collect();
    let mut all = BTreeSet::new();
    for (view, node) in case.views.iter().enumerate() {
        for proto in case.service.ports.iter().map(|p| p.proto) {
            let passed = |v6: &bool| programs(node, proto, *v6).next().is_some();
            let dialled = families.iter().copied().filter(passed);
            all.extend(dialled.map(|v6| Dialling { view, proto, v6 }));
        }
    }
    all
}

fn is_of(case: &Case<'_>, d: Dialling, a: &Attempt<'_>) -> bool {
    let same = (a.orig.proto, a.orig.dst.is_ipv6()) == (d.proto, d.v6);
    same && case.is_local(&case.views[d.view], a.client())
}
