//! How long things took, for people.

use std::fmt;
use std::time::Duration;

/// Displays as `0.42 s`, `12.3 s` or `2 min 05 s`.
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 9.995 {
            write!(f, "{seconds:.2} s")
        } else if seconds < 59.95 {
            write!(f, "{seconds:.1} s")
        } else {
            let whole = self.0.as_secs() + u64::from(self.0.subsec_millis() >= 500);
            write!(f, "{} min {:02} s", whole / 60, whole % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_without_showing_sixty_seconds() {
        for (millis, text) in [
            (4, "0.00 s"),
            (420, "0.42 s"),
            (9_994, "9.99 s"),
            (9_995, "10.0 s"),
            (59_940, "59.9 s"),
            (59_960, "1 min 00 s"),
            (119_700, "2 min 00 s"),
            (125_000, "2 min 05 s"),
        ] {
            assert_eq!(Took(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
