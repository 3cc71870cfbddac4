//! What programs of the cluster say to each other: evidence of a node (`netflow.v1`), asked for by whoever explains.

pub mod client;
pub mod server;

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
pub struct Address(pub PathBuf);

/// What is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of an agent: give unix:///PATH of its socket")]
pub struct BadAddress(String);

impl std::str::FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.starts_with('/') {
            Ok(Address(PathBuf::from(path)))
        } else {
            Err(BadAddress(text.to_owned()))
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_as_hubble_names_one() {
        for text in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), "unix:///run/a.sock");
        }
        for text in ["", "a.sock", "unix://", "10.0.0.1:4244", "unix:a"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
