//! Connections that clients made to other Services, whose endpoints the one asked about has as well.

use super::attempt::Attempt;
use super::case::{Case, is_same};
use crate::flows::Connection;
use crate::model::Tuple;
use std::collections::HashMap;

/// By the tuple that their endpoint gets.
pub struct Others<'a>(HashMap<Tuple, Vec<&'a Connection>>);

impl<'a> Others<'a> {
    /// Those that a node has seen translated for another Service, and that may be one of `attempts`. What one node sees both ways
    /// it knows as one connection, so there must be several.
    pub fn of(case: &Case<'a>, attempts: &[Attempt<'a>]) -> Others<'a> {
        let mut all: HashMap<Tuple, Vec<&Connection>> = HashMap::new();
        if case.views.len() > 1 {
            let direct = attempts.iter().filter(|a| a.is_direct());
            all.extend(direct.map(|a| (a.orig, Vec::new())));
        }
        if all.is_empty() {
            return Others(all);
        }
        for view in case.views {
            for conn in view.connections().filter(|c| c.is_dnat()) {
                if let Some(same) = all.get_mut(&conn.translated())
                    && case.via(view, conn).is_none()
                {
                    same.push(conn);
                }
            }
        }
        Others(all)
    }

    /// Whether what looks on the endpoint's node like a connection to the Pod's own address is one of them.
    pub fn have(&self, attempt: &Attempt<'_>) -> bool {
        let mut known = self.0.get(&attempt.orig).into_iter().flatten();
        attempt.is_direct() && known.any(|conn| is_same(attempt, conn))
    }
}
