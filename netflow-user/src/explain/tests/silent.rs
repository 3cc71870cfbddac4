//! Nodes that look at different times, or cease to.

use super::codes::*;
use super::story::*;
use crate::model::Input;
use crate::model::answer::{Verdict, Via};
use crate::model::feed::{Silence, Silent};
use crate::model::flow::Direction;

/// What the backend's node sees of a client on node `a`, whose packets to the Service were translated there.
fn backend_side(at: u64) -> Vec<Input> {
    let mut s = Story::new("b", objects(&[BACKEND, REMOTE]), facts_b());
    let tuple = reply(4001, remote()).inverse();
    s.syn_at(tuple, UPLINK, Direction::Ingress, ms(at), 7, 3);
    s.rst(tuple.inverse(), UPLINK, Direction::Egress, ms(at + 1));
    s.told(ms(8000))
}

/// Node `a`, which tells nothing of it, up to `end`.
fn client_side(end: u64) -> Vec<Input> {
    Story::new("a", objects(&[BACKEND, REMOTE]), facts_a()).told(ms(end))
}

#[test]
fn what_comes_after_the_clients_node_has_ended_is_not_taken_for_a_direct_attempt() {
    let within = explain(&[client_side(8000), backend_side(5000)]);
    assert!(within.paths.iter().any(|p| p.via == Via::Pod));
    let after = explain(&[client_side(4000), backend_side(5000)]);
    assert!(after.paths.is_empty(), "{:?}", after.paths);
}

#[test]
fn a_node_that_fell_silent_is_as_one_that_was_not_asked() {
    let mut cut = client_side(4000);
    cut.pop();
    cut.push(Input::Silent(Silent {
        node: "a".into(),
        kind: Silence::Timeout,
        why: "the agent on a ended".into(),
    }));
    let answer = explain(&[cut, backend_side(5000)]);
    assert_eq!(answer.verdict, Verdict::Failing, "{:?}", answer.paths);
    let silent = answer.blind.iter().find(|b| b.code == "node-silent");
    assert_eq!(silent.map(|b| &*b.node), Some("a"));
    assert_eq!(answer.nodes[0].state, "answered");
}
