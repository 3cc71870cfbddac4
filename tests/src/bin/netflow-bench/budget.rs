//! Figures, and the budgets that they have.

use serde::Serialize;
use std::fmt;

/// Two-sided 95 % of Student's t for 1 to 10 degrees of freedom.
const T: [f64; 10] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
];

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// Half the width of its 95 % confidence interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
}

impl Figure {
    /// Without a budget.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            what: what.into(),
            value,
            unit,
            interval: None,
            at_most: None,
            at_least: None,
        }
    }

    /// More would be too much.
    pub fn at_most(self, most: f64) -> Figure {
        Figure {
            at_most: Some(most),
            ..self
        }
    }

    /// Less would be too little.
    pub fn at_least(self, least: f64) -> Figure {
        Figure {
            at_least: Some(least),
            ..self
        }
    }

    fn is_missed(&self) -> bool {
        self.at_most.is_some_and(|most| self.value > most)
            || self.at_least.is_some_and(|least| self.value < least)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure {
            what,
            value,
            unit,
            interval,
            at_most,
            at_least,
        } = self;
        let digits = match value.abs() {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 3,
        };
        write!(f, "{what:<46} {value:>9.digits$} {unit:<5}")?;
        if let Some(interval) = interval {
            write!(f, " ± {interval:.digits$}")?;
        }
        if let Some(most) = at_most {
            write!(f, "  at most {most}")?;
        }
        if let Some(least) = at_least {
            write!(f, "  at least {least}")?;
        }
        if self.is_missed() {
            write!(f, "  MISSED")?;
        }
        Ok(())
    }
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    figures: Vec<Figure>,
    /// How many budgets were missed.
    pub missed: usize,
}

impl Figures {
    /// Counts what was missed.
    pub fn new(figures: Vec<Figure>) -> Figures {
        let missed = figures.iter().filter(|f| f.is_missed()).count();
        Figures { figures, missed }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in &self.figures {
            writeln!(f, "{}", figure.to_string().trim_end())?;
        }
        let has_budget = |f: &&Figure| f.at_most.is_some() || f.at_least.is_some();
        let budgets = self.figures.iter().filter(has_budget).count();
        writeln!(f, "{} of {budgets} budgets missed", self.missed)
    }
}

/// A measure without netflow and with it, round by round.
pub struct Ratios {
    without: Vec<f64>,
    with: Vec<f64>,
}

impl Ratios {
    /// Rounds in the order in which they ran.
    pub fn new(without: impl Iterator<Item = f64>, with: impl Iterator<Item = f64>) -> Ratios {
        Ratios {
            without: without.collect(),
            with: with.collect(),
        }
    }

    /// The mean of each.
    pub fn figures(&self, what: &str, unit: &'static str) -> [Figure; 2] {
        [
            mean_of(format!("{what}, without netflow"), &self.without, unit),
            self.with(&format!("{what}, with it"), unit),
        ]
    }

    /// The mean with netflow.
    pub fn with(&self, what: &str, unit: &'static str) -> Figure {
        mean_of(what.to_owned(), &self.with, unit)
    }

    /// Each round with netflow to the round before it without: the mean.
    pub fn ratio(&self, what: &str) -> Figure {
        let pairs = self.without.iter().zip(&self.with);
        let ratios: Vec<f64> = pairs.map(|(without, with)| with / without).collect();
        mean_of(format!("{what}, with to without"), &ratios, "×")
    }
}

fn mean_of(what: String, values: &[f64], unit: &'static str) -> Figure {
    let (mean, interval) = mean(values);
    Figure {
        interval: Some(interval),
        ..Figure::new(what, mean, unit)
    }
}

/// Mean, and half the width of its 95 % confidence interval.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let Some(t) = values.len().checked_sub(2).and_then(|n| T.get(n)) else {
        return (mean, f64::NAN);
    };
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, t * (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_interval_of_its_rounds() {
        let (mean, interval) = mean(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-9);
        // t 4.303 × deviation 1 ÷ √3
        assert!((interval - 2.484).abs() < 1e-3, "{interval}");
    }

    #[test]
    fn a_budget_that_is_missed_is_told() {
        let figures = Figures::new(vec![
            Figure::new("a", 1.0, "×").at_most(1.08),
            Figure::new("b", 1.1, "×").at_most(1.08),
            Figure::new("c", 0.9, "×").at_least(0.95),
            Figure::new("d", 0.1, "×"),
        ]);
        assert_eq!(figures.missed, 2);
        let text = figures.to_string();
        assert_eq!(text.matches("MISSED").count(), 2);
        assert!(text.ends_with("2 of 3 budgets missed\n"));
    }
}
