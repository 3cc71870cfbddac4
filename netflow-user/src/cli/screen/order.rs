//! In which order connections stand.

use crate::explain::connections::ConnectionState;
use std::cmp::Reverse;

/// What stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// What failed; the newest of it.
    #[default]
    Failed,
    /// The newest.
    Newest,
    /// The longest handshake.
    Slowest,
    /// What was sent again most often.
    Resent,
    /// By client's name.
    Client,
}

impl Order {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Order {
        match self {
            Order::Failed => Order::Newest,
            Order::Newest => Order::Slowest,
            Order::Slowest => Order::Resent,
            Order::Resent => Order::Client,
            Order::Client => Order::Failed,
        }
    }

    /// For a heading.
    pub fn name(self) -> &'static str {
        match self {
            Order::Failed => "failed first",
            Order::Newest => "newest first",
            Order::Slowest => "slowest handshake first",
            Order::Resent => "most sent again first",
            Order::Client => "by client",
        }
    }

    /// Puts them in order; among equals the newest is first.
    pub fn sort(self, rows: &mut [&ConnectionState]) {
        rows.sort_by_key(|c| (Reverse(c.began), c.dialled));
        match self {
            Order::Failed => rows.sort_by_key(|c| !c.outcome.is_failure()),
            Order::Newest => {}
            Order::Slowest => {
                rows.sort_by_key(|c| Reverse(c.round_trip.as_ref().map(|r| r.took)));
            }
            Order::Resent => rows.sort_by_key(|c| Reverse(c.retransmits)),
            Order::Client => rows.sort_by(|a, b| a.client.cmp(&b.client)),
        }
    }
}
