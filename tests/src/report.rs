//! The table of scenarios.

use crate::faults::{self, At, Vantage};
use crate::matrix::Case;
use crate::scenario::Row;
use std::collections::BTreeSet;

const WIDTHS: [usize; 8] = [32, 16, 6, 9, 7, 7, 24, 6];

fn line(cells: [&str; 8], last: &str) -> String {
    let padded = cells
        .iter()
        .zip(WIDTHS)
        .map(|(cell, width)| format!("{cell:<width$}"));
    padded
        .chain([last.to_owned()])
        .collect::<Vec<_>>()
        .join(" ")
}

/// Head of the table.
pub fn head() -> String {
    line(
        [
            "scenario", "proxy", "where", "traffic", "family", "network", "says", "s",
        ],
        "result",
    )
}

/// One scenario.
pub fn row(row: &Row) -> String {
    let Row {
        case,
        top,
        took,
        wrong,
    } = row;
    let seconds = format!("{:.1}", took.as_secs_f64());
    let result = if wrong.is_empty() {
        "ok".to_owned()
    } else {
        format!("FAIL (seed {}) {}", case.seed, wrong.join("; "))
    };
    line(
        [
            case.fault.name(),
            case.mode.name(),
            case.placement.name(),
            case.form.name(),
            case.family.name(),
            case.network.name(),
            top,
            &seconds,
        ],
        &result,
    )
}

/// Codes of the catalogue that no case expects.
pub fn unproved(cases: &[Case]) -> Vec<&'static str> {
    let mut expected = BTreeSet::new();
    for Case {
        fault,
        mode,
        placement,
        form,
        family,
        network,
        ..
    } in cases
    {
        for vantage in [Vantage::Client, Vantage::Backend, Vantage::Together] {
            let at = At {
                vantage,
                placement: *placement,
                mode: *mode,
                form: *form,
                family: *family,
                network: *network,
            };
            let expect = fault.expect(at);
            // Only what must be said proves a code, not what may be.
            if expect.firm && expect.codes.len() == 1 {
                expected.extend(expect.codes);
            }
            expected.extend(expect.info);
        }
    }
    faults::CODES
        .into_iter()
        .filter(|c| !expected.contains(c))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix;

    #[test]
    fn the_subset_holds_every_code() {
        let cases = matrix::pairwise(&matrix::full(9), 9);
        assert_eq!(unproved(&cases), Vec::<&str>::new());
        let without: Vec<Case> = cases
            .into_iter()
            .filter(|c| c.fault.name() != "vip-not-translated")
            .collect();
        assert!(
            unproved(&without).is_empty(),
            "another fault gives that code too"
        );
        let without: Vec<Case> = without
            .into_iter()
            .filter(|c| !c.fault.name().starts_with("vip-not-translated"))
            .collect();
        assert_eq!(unproved(&without), ["vip-not-translated"]);
    }
}
