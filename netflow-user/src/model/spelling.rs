//! How alike two names are.

use std::mem;

/// Edits between two names: insert, delete, replace, swap of neighbours.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if j > 0 && x != y && previous == Some(y) && b[j - 1] == x {
                best = best.min(before[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        before = mem::replace(&mut last, row);
        previous = Some(x);
    }
    last[b.len()]
}

/// Whether `candidate` may be what was meant by `wanted`: few edits for its length, or one contains the other.
pub fn alike(wanted: &str, candidate: &str) -> bool {
    let shorter = wanted.len().min(candidate.len());
    let edits = distance(wanted, candidate);
    edits <= shorter.div_ceil(3).min(4)
        || (shorter >= 3 && (candidate.contains(wanted) || wanted.contains(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("web-api", "web-api", 0),
            ("web-api", "web-apis", 1),
            ("web-api", "wep-api", 1),
            ("web-api", "wbe-api", 1),
            ("web-api", "webapi", 1),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("abc", "ca", 3),
        ];
        for (a, b, edits) in cases {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn likeness_is_measured_against_the_length() {
        assert!(alike("web-api", "web-app"));
        assert!(alike("web", "web-frontend"));
        assert!(alike("chekout", "checkout"));
        assert!(!alike("web", "db"));
        assert!(!alike("payments", "inventory"));
        assert!(!alike("a", "b-service"));
    }
}
