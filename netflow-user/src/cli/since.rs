//! Times in the past as people write them.

use super::duration;
use crate::model::Time;
use std::time::Duration;

/// A time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// By the clock of whoever asks.
    At(Time),
}

impl Since {
    /// How long ago that is now; `None` = it is still to come.
    pub fn ago(self, now: Time) -> Option<Duration> {
        match self {
            Since::Ago(ago) => Some(ago),
            Since::At(at) => (at < now).then(|| now.since(at)),
        }
    }
}

/// `10m`, as lengths of time are written, or RFC 3339.
pub fn parse(typed: &str) -> Result<Since, String> {
    let at = typed.parse().map(Since::At);
    at.or_else(|_| duration::parse(typed).map(Since::Ago))
        .map_err(|_| {
            format!(
                "`{typed}` is no time in the past; write for example 10m, or 2026-11-30T16:04:00Z"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_long_ago_or_by_the_clock() {
        let now = Time(1_796_040_060_000_000_000);
        let minute = Duration::from_mins(1);
        let ago = |typed: &str| parse(typed).map(|since| since.ago(now));
        assert_eq!(ago("60s"), Ok(Some(minute)));
        assert_eq!(ago("2026-11-30T12:00:00Z"), Ok(Some(minute)));
        assert_eq!(ago("2026-11-30T12:01:00Z"), Ok(None), "now is not the past");
        assert_eq!(ago("2026-11-30T12:02:00Z"), Ok(None));
        assert!(ago("0s").is_err() && ago("yesterday").is_err() && ago("-5m").is_err());
    }
}
