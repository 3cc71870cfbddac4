//! Which connections are shown.

use crate::explain::connections::ConnectionState;

/// Text that a connection has in a name or an address; without any, all do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// One more letter.
    pub fn push(&mut self, c: char) {
        self.0.push(c);
    }

    /// The last letter less.
    pub fn erase(&mut self) {
        self.0.pop();
    }

    /// All connections again.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a connection has the text.
    pub fn keeps(&self, connection: &ConnectionState) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let ConnectionState {
            dialled,
            client,
            backend,
            address,
            ..
        } = connection;
        let wanted = self.0.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        has(client)
            || backend.as_deref().is_some_and(has)
            || has(&dialled.source().to_string())
            || has(&dialled.destination().to_string())
            || address.is_some_and(|a| has(&a.to_string()))
    }
}
