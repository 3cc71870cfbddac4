//! The table of scenarios.

use crate::faults::{self, At, Vantage};
use crate::matrix::Case;
use crate::scenario::Row;
use std::collections::BTreeSet;

const WIDTHS: [usize; 9] = [32, 16, 6, 9, 7, 7, 6, 24, 6];

fn line(cells: [&str; 9], last: &str) -> String {
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
            "scenario", "proxy", "where", "traffic", "family", "network", "tier", "says", "s",
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
        tiers: _,
        wrong,
        late,
    } = row;
    let seconds = format!("{:.1}", took.as_secs_f64());
    let result = if row.is_right() {
        "ok".to_owned()
    } else {
        let said: Vec<&str> = wrong.iter().chain(late).map(String::as_str).collect();
        format!("FAIL (seed {}) {}", case.seed, said.join("; "))
    };
    line(
        [
            case.fault.name(),
            case.mode.name(),
            case.placement.name(),
            case.form.name(),
            case.family.name(),
            case.network.name(),
            case.tier.name(),
            top,
            &seconds,
        ],
        &result,
    )
}

/// The tiers on which capabilities ran, a line for each way they were combined.
pub fn tiers(rows: &[Row]) -> BTreeSet<String> {
    rows.iter()
        .filter(|row| !row.tiers.is_empty())
        .map(|row| {
            let tiers = row.tiers.iter();
            let words: Vec<String> = tiers.map(|(what, tier)| format!("{what}={tier}")).collect();
            format!("tiers {}", words.join(" "))
        })
        .collect()
}

/// Codes that a case proves.
pub fn proved(case: &Case) -> BTreeSet<&'static str> {
    let Case {
        fault,
        mode,
        placement,
        form,
        family,
        network,
        tier: _,
        seed: _,
    } = case;
    let mut proved = BTreeSet::new();
    for vantage in [Vantage::Client, Vantage::Backend, Vantage::Together] {
        let expect = fault.expect(At {
            vantage,
            placement: *placement,
            mode: *mode,
            form: *form,
            family: *family,
            network: *network,
        });
        // Only what must be said proves a code, not what may be.
        if expect.firm && expect.codes.len() == 1 {
            proved.extend(expect.codes);
        }
        proved.extend(expect.info);
    }
    proved
}

/// Codes of the catalogue that no case expects.
pub fn unproved(cases: &[Case]) -> Vec<&'static str> {
    let expected: BTreeSet<_> = cases.iter().flat_map(proved).collect();
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
            .filter(|c| !proved(c).contains("vip-not-translated"))
            .collect();
        assert!(unproved(&without).contains(&"vip-not-translated"));
    }
}
