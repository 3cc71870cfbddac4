//! Wall-clock time as one integer.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

/// Nanoseconds since the Unix epoch, UTC. Displays as RFC 3339 with microseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Time that has passed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, d: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, micros) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000);
        let (days, rest) = (secs / 86_400, secs % 86_400);
        let (year, month, day) = civil_from_days(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            rest / 3600,
            rest % 3600 / 60,
            rest % 60
        )
    }
}

/// What is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time as RFC 3339 writes it")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    /// RFC 3339, from 1970 on: `2026-11-30T16:04:05.5Z`, or with an offset such as `+02:00`.
    fn from_str(text: &str) -> Result<Time, NotATime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        let nanos = u64::try_from(time.as_nanosecond()).map_err(|_| NotATime)?;
        Ok(Time(nanos))
    }
}

/// Days since 1970-01-01 to a Gregorian date, by eras of 400 years (146,097 days), years starting in March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_rfc3339() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Time(951_782_400_123_456_789).to_string(),
            "2000-02-29T00:00:00.123456Z"
        );
        assert_eq!(
            Time(1_795_219_199_999_999_999).to_string(),
            "2026-11-20T23:59:59.999999Z"
        );
    }

    #[test]
    fn reads_what_it_displays_and_what_others_write() {
        let known = |text: &str| text.parse().map(|Time(t)| t);
        for time in [0, 951_782_400_123_456_000, 1_795_219_199_999_999_000] {
            assert_eq!(known(&Time(time).to_string()), Ok(time));
        }
        let noon = known("2026-11-30T12:00:00Z");
        assert_eq!(noon, Ok(1_796_040_000_000_000_000));
        for same in [
            "2026-11-30T14:00:00+02:00",
            "2026-11-30T06:30:00.000-05:30",
            "2026-11-30t12:00:00z",
        ] {
            assert_eq!(known(same), noon, "{same}");
        }
        for wrong in [
            "",
            "2026-11-30",
            "2026-11-30T12:00:00",
            "2026-11-31T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-11-00T12:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T12:00:00.Z",
            "2026-11-30T12:00:00+2:00",
            "2026-11-30T12:00:00Zx",
            "1969-12-31T23:59:59Z",
            "+026-11-30T12:00:00Z",
            "2026-11-30T12:00:00ä",
        ] {
            assert_eq!(known(wrong), Err(NotATime), "{wrong}");
        }
    }

    #[test]
    fn differences_never_go_negative() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(5) - Duration::from_secs(1), Time(0));
    }
}
