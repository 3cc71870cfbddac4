//! Ratios against budgets.

use crate::measure::Cost;
use serde::Serialize;
use std::fmt;

/// What was measured.
#[derive(Serialize)]
pub struct Report {
    rows: Vec<Row>,
    /// How many budgets were missed.
    pub missed: usize,
}

/// One ratio.
#[derive(Serialize)]
pub struct Row {
    name: String,
    nanoseconds: f64,
    of: f64,
    ratio: f64,
    budget: f64,
    pass: bool,
}

impl Report {
    /// Of these rows.
    pub fn new(rows: Vec<Row>) -> Report {
        let missed = rows.iter().filter(|row| !row.pass).count();
        Report { rows, missed }
    }
}

impl Row {
    /// From measurements taken in turns.
    pub fn new(name: String, cost: &Cost, of: &Cost, budget: f64) -> Row {
        Row::with(name, cost, of, cost.ratio(of), budget)
    }

    /// From measurements of single packets.
    pub fn of_medians(name: String, cost: &Cost, of: &Cost, budget: f64) -> Row {
        Row::with(name, cost, of, cost.median() / of.median(), budget)
    }

    fn with(name: String, cost: &Cost, of: &Cost, ratio: f64, budget: f64) -> Row {
        Row {
            name,
            nanoseconds: cost.median(),
            of: of.median(),
            ratio,
            budget,
            pass: ratio <= budget,
        }
    }

    fn verdict(&self) -> String {
        if self.pass {
            "pass".to_owned()
        } else {
            format!("miss by {:.0} %", (self.ratio / self.budget - 1.0) * 100.0)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max();
        let width = width.unwrap_or_default();
        writeln!(
            f,
            "{:width$}  {:>8}  {:>8}  {:>6}  {:>6}",
            "what : compared with", "ns", "of ns", "ratio", "budget"
        )?;
        for row in &self.rows {
            let Row {
                name,
                nanoseconds,
                of,
                ratio,
                budget,
                pass: _,
            } = row;
            let verdict = row.verdict();
            writeln!(
                f,
                "{name:width$}  {nanoseconds:>8.1}  {of:>8.1}  {ratio:>6.2}  {budget:>6.2}  {verdict}"
            )?;
        }
        writeln!(f, "{} of {} budgets missed", self.missed, self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(nanoseconds: f64) -> Cost {
        let mut cost = Cost::default();
        cost.push(nanoseconds);
        cost
    }

    #[test]
    fn a_missed_budget_says_by_how_much() {
        let report = Report::new(vec![
            Row::new("a : b".to_owned(), &cost(40.0), &cost(10.0), 4.0),
            Row::new("c : d".to_owned(), &cost(45.0), &cost(10.0), 3.0),
        ]);
        let text = report.to_string();
        assert!(text.contains("4.00    4.00  pass"), "{text}");
        assert!(text.contains("4.50    3.00  miss by 50 %"), "{text}");
        assert!(text.ends_with("1 of 2 budgets missed\n"), "{text}");
    }
}
