//! Looking for bytes where they should not be.

/// 64 bytes: a pattern of sixteen, four times, so that a part that leaks is recognised wherever it was cut.
pub struct Canary(pub [u8; 16]);

/// As few bytes in a row are taken for a leak; fewer are found by chance.
const WINDOW: usize = 8;

impl Canary {
    /// The payload.
    pub fn payload(&self) -> Vec<u8> {
        self.0.repeat(4)
    }

    /// Whether a part of it is in `bytes`, as sent or with its bytes reversed (a number read from it and written in the
    /// other byte order).
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let payload = self.payload();
        let mut reversed = payload.clone();
        reversed.reverse();
        [payload, reversed].iter().any(|pattern| {
            pattern[..16 + WINDOW - 1]
                .windows(WINDOW)
                .any(|part| contains(bytes, part))
        })
    }

    /// The pattern as hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// As [`Canary::is_in`], also the way text would show it: as hexadecimal digits or as a list of numbers.
    pub fn is_in_text(&self, bytes: &[u8]) -> bool {
        let numbers = self.0.map(|byte| byte.to_string());
        let squeezed: Vec<u8> = bytes
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(u8::to_ascii_lowercase)
            .collect();
        self.is_in(bytes)
            || contains(&squeezed, &self.hex().as_bytes()[..2 * WINDOW])
            || contains(&squeezed, numbers[..WINDOW].join(",").as_bytes())
    }
}

/// Whether `part` stands in `bytes`.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn parts_of_a_canary_are_found_wherever_they_were_cut() {
    let canary = Canary(*b"\x91netflow-canary\x1f");
    let around = |part: &[u8]| [b"before".as_slice(), part, b"after"].concat();
    let payload = canary.payload();
    for start in 0..payload.len() - WINDOW {
        let mut part = payload[start..start + WINDOW].to_vec();
        assert!(canary.is_in(&around(&part)), "from {start}");
        part.reverse();
        assert!(canary.is_in(&around(&part)), "reversed, from {start}");
    }
    assert!(!canary.is_in(&around(&payload[..WINDOW - 1])));
    assert!(!canary.is_in(b"netflow and a canary"));
    assert!(canary.is_in_text(b"payload 916E6574666C6F772D63616E6172791F"));
    assert!(canary.is_in_text(b"payload [145, 110, 101, 116, 102, 108, 111, 119, 45]"));
}
