//! What the user asked.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A target as typed, resolved as far as words alone allow. Objects decide the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Query {
    /// Namespace: from the target, else `-n`, else `default`.
    pub namespace: String,
    /// Service by name, or by address.
    pub target: Target,
    /// Only this Service port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only these clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
    /// Length of the window asked for, milliseconds.
    #[serde(default)]
    pub for_ms: u64,
    /// Not what happens from now on but what happened, from so many milliseconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// Service by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// By name.
    Name(String),
    /// By a VIP.
    Address(IpAddr),
}

impl Default for Target {
    fn default() -> Self {
        Target::Name(String::new())
    }
}

/// `--from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// A Pod of a namespace (`None`: the query's).
    Pod(Option<String>, String),
    /// Pods of a Deployment.
    Deploy(Option<String>, String),
    /// All Pods of a namespace.
    Namespace(String),
    /// Pods on a node, and the node itself.
    Node(String),
    /// Addresses that are neither Pod nor Node.
    External,
    /// One address.
    Ip(IpAddr),
}
