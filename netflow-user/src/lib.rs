//! netflow explains why a Kubernetes Service fails, from the packets on the node.
//!
//! Imports run one way: `cli` → {`api`, `explain`, `flows`, `kernel`, `node`, `cluster`} → `model` → `netflow_ebpf` (the ABI).
//! `flows` and `explain` import `model` only: no I/O, no clock, no async.

pub mod api;
mod causes;
pub mod cli;
pub mod cluster;
pub mod explain;
pub mod flows;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod kernel;
pub mod model;
pub mod node;
