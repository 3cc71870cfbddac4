//! What programs of the cluster say to each other: evidence of a node (`netflow.v1`), asked for by whoever explains.

pub mod authority;
pub mod client;
pub mod dial;
pub mod gate;
pub mod places;
pub mod server;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests;
pub mod tls;

/// The messages, generated from `proto/netflow/v1/evidence.proto`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::allow_attributes,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("netflow.v1");
}

use std::path::PathBuf;

/// Where an agent listens, unless told otherwise.
pub const SOCKET: &str = "/run/netflow/netflow.sock";

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On this node.
    Socket(PathBuf),
    /// Anywhere.
    Tls {
        /// A name, or an IP address without brackets.
        host: String,
        /// Of TCP.
        port: u16,
    },
    /// In a Pod of a cluster, which its API leads to.
    Pod {
        /// The Pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The node that it runs on.
        node: String,
    },
}

impl Address {
    /// The agent there, as sentences name it.
    pub fn agent(&self) -> String {
        match self {
            Address::Socket(_) | Address::Tls { .. } => format!("the agent at {self}"),
            Address::Pod { node, .. } => format!("the agent on node {node} ({self})"),
        }
    }
}

/// What is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of an agent: give unix:///PATH of its socket, or https://HOST:PORT where it listens"
)]
pub struct BadAddress(String);

impl std::str::FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let found = match text.strip_prefix("https://") {
            Some(place) => remote(place),
            None => socket(text),
        };
        found.ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn socket(text: &str) -> Option<Address> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    let path = path.strip_prefix("//").unwrap_or(path);
    path.starts_with('/').then(|| Address::Socket(path.into()))
}

fn remote(place: &str) -> Option<Address> {
    let place = place.strip_suffix('/').unwrap_or(place);
    let place: http::uri::Authority = place.parse().ok()?;
    let host = place.host();
    if host.is_empty() || place.as_str().contains('@') {
        return None;
    }
    Some(Address::Tls {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: place.port_u16()?,
    })
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(path) => write!(f, "unix://{}", path.display()),
            Address::Tls { host, port } if host.contains(':') => {
                write!(f, "https://[{host}]:{port}")
            }
            Address::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Address::Pod {
                namespace, name, ..
            } => write!(f, "Pod {namespace}/{name}"),
        }
    }
}
