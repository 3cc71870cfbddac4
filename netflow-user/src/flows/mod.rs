//! Records → connections.
//!
//! A connection is client → VIP → backend → reply → client as one object. Conntrack's two tuples name the four forms in
//! which its packets appear ([`Leg`]); where there is no conntrack the packet's own tuple is all there is. The module is
//! pure: it imports `model` only and its clock is the records'.

mod connection;
mod datagrams;
mod history;
mod progress;
mod table;

pub use connection::{Cite, ConnEvent, Connection, Leg, RecordId, Sight};
pub use datagrams::{Datagrams, SILENCE};
pub use history::{Evicted, History, Stock};
pub use progress::Hanging;
pub use table::{Table, TableLimits};

#[cfg(test)]
mod tests;
