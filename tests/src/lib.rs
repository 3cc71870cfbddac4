//! The lab and the scenarios.
//!
//! One [`world::World`] says how everything is meant to be: objects, what each node's kube-proxy last saw, listeners,
//! firewall rules, the router's mood. A fault changes a healthy world; [`lab::Lab::apply`] makes the namespaces match
//! it, and applying the healthy world again undoes the fault.

pub mod ablation;
pub mod agent;
pub mod answer;
pub mod demo;
pub mod faults;
pub mod lab;
pub mod manifests;
pub mod matrix;
pub mod netflow;
pub mod overhead;
pub mod pace;
pub mod parallel;
pub mod policy;
pub mod proxy;
pub mod report;
pub mod scenario;
pub mod settings;
pub mod stray;
pub mod traffic;
pub mod world;
