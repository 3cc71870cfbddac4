//! The traits that sources of facts implement: once for real, once from a recording.

use super::Proto;
use super::feed::Input;
use super::node::NodeFacts;
use super::objects::{EndpointSlice, Objects};
use std::net::IpAddr;

/// A source failed. `hint` says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct SourceError {
    /// What could not be had.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do.
    pub hint: String,
}

/// Where Kubernetes objects come from.
pub trait ObjectSource {
    /// Objects as they are now, or `None` if nothing changed since the call before.
    fn poll(&mut self) -> Result<Option<Objects>, SourceError>;
}

/// Which facts of a node are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Service addresses and ports whose proxy rules are wanted.
    pub vips: Vec<(IpAddr, u16, Proto)>,
    /// NodePorts whose proxy rules are wanted.
    pub node_ports: Vec<(u16, Proto)>,
    /// Addresses whose conntrack entries are wanted (VIPs and endpoints).
    pub conntrack: Vec<IpAddr>,
    /// Pod addresses whose network namespace is wanted (only Pods placed on this node).
    pub pods: Vec<IpAddr>,
}

/// Where facts about the node come from.
pub trait NodeSource {
    /// Reads the node now. Parts that cannot be read are named in the result, not errors.
    fn read(&mut self, ask: &Ask) -> Result<NodeFacts, SourceError>;
}

/// Where kernel records and flow sweeps come from.
pub trait RecordSource {
    /// Whatever has arrived since the last call: records, a sweep when one is due, lost counts when they changed.
    fn drain(&mut self) -> Result<Vec<Input>, SourceError>;

    /// As [`drain`](RecordSource::drain), with a sweep whether due or not: nothing more will be asked.
    fn finish(&mut self) -> Result<Vec<Input>, SourceError>;
}

/// Endpoints of a Service, for the places that build an [`Ask`].
pub fn slice_addresses(slices: &[EndpointSlice]) -> impl Iterator<Item = IpAddr> + '_ {
    slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .flat_map(|e| e.addresses.iter().copied())
}
