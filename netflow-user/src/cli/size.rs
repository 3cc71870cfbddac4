//! Amounts of memory as people write them.

/// `64MiB`, `512KiB`, `1GiB`, or a plain number of bytes.
pub fn parse(typed: &str) -> Result<usize, String> {
    let wrong = || format!("`{typed}` is not an amount of memory; write for example 64MiB, or 0");
    let digits = typed.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = typed.split_at(digits.unwrap_or(typed.len()));
    let unit = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: usize = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// In the biggest unit that leaves a number of at least ten.
pub fn words(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift >= 10);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, unit)| format!("{} {unit}", bytes >> shift),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (typed, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse(typed), Ok(bytes), "{typed}");
        }
        for typed in [
            "",
            "MiB",
            "64MB",
            "64 MiB",
            "-1",
            "1.5GiB",
            "99999999999999GiB",
        ] {
            assert!(parse(typed).is_err(), "{typed}");
        }
        assert_eq!(words(900), "900 B");
        assert_eq!(words(64 << 20), "64 MiB");
        assert_eq!(words(9 << 20), "9216 KiB");
    }
}
