//! Connections that clients made to other Services, whose endpoints the one asked about has as well.

use super::attempt::Attempt;
use super::case::{Case, SAME_ATTEMPT};
use crate::flows::Connection;
use crate::model::Tuple;
use std::collections::HashMap;

/// By the tuple that their endpoint gets.
pub struct Others<'a>(HashMap<Tuple, Vec<&'a Connection>>);

impl<'a> Others<'a> {
    /// All that a node has seen translated for another Service.
    pub fn of(case: &Case<'a>) -> Others<'a> {
        let mut all: HashMap<Tuple, Vec<&Connection>> = HashMap::new();
        for view in case.views {
            let dialled = view.connections().filter(|c| c.is_dnat());
            for conn in dialled.filter(|c| case.via(view, c).is_none()) {
                all.entry(conn.translated()).or_default().push(conn);
            }
        }
        Others(all)
    }

    /// Whether what looks on the endpoint's node like a connection to the Pod's own address is one of them.
    pub fn have(&self, attempt: &Attempt<'_>) -> bool {
        let isn = attempt.parts.iter().find_map(|p| p.conn.isn);
        let began = attempt.began();
        let is_it = |c: &&&Connection| {
            let same_isn = isn.is_none() || c.isn.is_none() || isn == c.isn;
            let apart = began.since(c.began).max(c.began.since(began));
            same_isn && apart < SAME_ATTEMPT
        };
        let known = self.0.get(&attempt.orig).into_iter().flatten();
        attempt.is_direct() && known.filter(is_it).count() > 0
    }
}
