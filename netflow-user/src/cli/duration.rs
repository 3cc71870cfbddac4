//! Lengths of time as people write them.

use std::time::Duration;

/// `500ms`, `10s`, `2m`, `1h`, joined (`1m30s`), or a plain number of seconds. More than zero.
pub fn parse(typed: &str) -> Result<Duration, String> {
    let wrong = || format!("`{typed}` is not a length of time; write for example 10s, 500ms or 2m");
    if let Ok(seconds) = typed.parse::<u64>() {
        return nonzero(Duration::from_secs(seconds)).ok_or_else(wrong);
    }
    let mut total = Duration::ZERO;
    let mut rest = typed;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    nonzero(total).ok_or_else(wrong)
}

fn nonzero(d: Duration) -> Option<Duration> {
    (!d.is_zero()).then_some(d)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn lengths() {
        for (typed, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("8", 8_000),
        ] {
            assert_eq!(parse(typed), Ok(Duration::from_millis(millis)), "{typed}");
        }
        for typed in [
            "",
            "0",
            "0s",
            "s",
            "10x",
            "10s5",
            "-1s",
            "1.5s",
            "99999999999999999999",
            "99999999999999999h",
        ] {
            assert!(parse(typed).is_err(), "{typed}");
        }
    }
}
