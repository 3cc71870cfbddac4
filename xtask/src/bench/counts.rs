//! Counts of verified instructions, by program and kernel, and the table of them in a page.

use super::page::Block;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// More than this of a program is too much: half of what the oldest kernel accepts (`BPF_COMPLEXITY_LIMIT_INSNS`,
/// <https://elixir.bootlin.com/linux/v5.10/source/include/linux/bpf.h>), so that a change in a compiler or kernel does not lose it.
const MOST: u32 = 500_000;

/// Growth above this, in percent, is told.
const GROWTH: u32 = 20;

/// Where the table stands in the page.
pub const BLOCK: Block = Block {
    begin: "<!-- counts: cargo xtask bench programs --write -->",
    end: "<!-- end of counts -->",
};

/// What a kernel said of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Accepted after so many instructions.
    Accepted(u32),
    /// Refused after so many.
    Refused(u32),
    /// The kernel does not have what it attaches to.
    Absent,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Accepted(number) => write!(f, "{number}"),
            Count::Refused(number) => write!(f, "refused at {number}"),
            Count::Absent => f.write_str("–"),
        }
    }
}

impl Count {
    fn of_cell(cell: &str) -> Option<Count> {
        if cell == "–" {
            return Some(Count::Absent);
        }
        match cell.strip_prefix("refused at ") {
            Some(number) => number.parse().ok().map(Count::Refused),
            None => cell.parse().ok().map(Count::Accepted),
        }
    }
}

/// Program → kernel → count.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, BTreeMap<Kernel, Count>>);

/// A kernel's line, which sorts by its numbers.
type Kernel = (u32, u32);

fn kernel(name: &str) -> Option<Kernel> {
    let (major, minor) = name.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Counts {
    /// Adds what a kernel said.
    pub fn add(&mut self, name: &str, said: Vec<(String, Count)>) {
        let Some(kernel) = kernel(name) else { return };
        for (program, count) in said {
            self.0.entry(program).or_default().insert(kernel, count);
        }
    }

    fn kernels(&self) -> BTreeSet<Kernel> {
        self.0.values().flat_map(BTreeMap::keys).copied().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// What is wrong with them: programs that are refused or near it, and those that have grown since `before`.
    pub fn complaints(&self, before: &Counts) -> Vec<String> {
        let mut complaints = Vec::new();
        for (program, by_kernel) in &self.0 {
            for (kernel, count) in by_kernel {
                let (major, minor) = kernel;
                let place = format!("{program} on {major}.{minor}");
                let was = before.0.get(program).and_then(|was| was.get(kernel));
                let number = match count {
                    Count::Accepted(number) => *number,
                    Count::Refused(number) => {
                        complaints.push(format!("{place}: refused after {number} instructions"));
                        continue;
                    }
                    Count::Absent => {
                        if let Some(Count::Accepted(_)) = was {
                            complaints.push(format!("{place}: does not load any more"));
                        }
                        continue;
                    }
                };
                if number > MOST {
                    complaints.push(format!("{place}: {number} instructions, more than {MOST}"));
                }
                match was {
                    Some(Count::Accepted(was)) if grown(*was, number) => complaints.push(format!(
                        "{place}: {number} instructions, {was} when last written down (`cargo xtask bench programs --write` writes them)"
                    )),
                    _ => {}
                }
            }
        }
        complaints
    }

    /// Those of a table as it is printed.
    pub fn of_table(table: &str) -> Option<Counts> {
        let mut lines = table.lines().map(cells);
        let heads = lines.next()?;
        let kernels: Vec<Kernel> = heads.iter().skip(1).filter_map(|h| kernel(h)).collect();
        let mut counts = Counts::default();
        for row in lines.skip(1) {
            let Some((program, values)) = row.split_first() else {
                continue;
            };
            let by_kernel = kernels.iter().zip(values);
            counts.0.insert(
                program.trim_matches('`').to_owned(),
                by_kernel
                    .filter_map(|(kernel, cell)| Some((*kernel, Count::of_cell(cell)?)))
                    .collect(),
            );
        }
        Some(counts)
    }

    /// These, and of `before` what kernels that were not asked have said.
    pub fn over(mut self, before: Counts) -> Counts {
        let asked = self.kernels();
        for (program, by_kernel) in before.0 {
            let Some(known) = self.0.get_mut(&program) else {
                continue;
            };
            known.extend(
                by_kernel
                    .into_iter()
                    .filter(|(kernel, _)| !asked.contains(kernel)),
            );
        }
        self
    }
}

fn grown(was: u32, is: u32) -> bool {
    u64::from(is) * 100 > u64::from(was) * u64::from(100 + GROWTH)
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_matches('|');
    line.split('|').map(str::trim).collect()
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.kernels();
        write!(f, "| program |")?;
        for (major, minor) in &kernels {
            write!(f, " {major}.{minor} |")?;
        }
        writeln!(f, "\n|---|{}", "--:|".repeat(kernels.len()))?;
        for (program, by_kernel) in &self.0 {
            write!(f, "| `{program}` |")?;
            for kernel in &kernels {
                match by_kernel.get(kernel) {
                    Some(count) => write!(f, " {count} |")?,
                    None => write!(f, "  |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(kernel: &str, program: &str, count: Count) -> Counts {
        let mut counts = Counts::default();
        counts.add(kernel, vec![(program.to_owned(), count)]);
        counts
    }

    #[test]
    fn a_table_gives_its_counts_back() {
        let mut all = counts("5.10", "netflow_a", Count::Absent);
        all.add("6.1", vec![("netflow_a".to_owned(), Count::Refused(9))]);
        all.add("6.18", vec![("netflow_a".to_owned(), Count::Accepted(7))]);
        let table = all.to_string();
        assert!(
            table.starts_with("| program | 5.10 | 6.1 | 6.18 |\n"),
            "{table}"
        );
        assert_eq!(Counts::of_table(&table), Some(all));
        assert_eq!(Counts::of_table(""), None);
    }

    #[test]
    fn kernels_that_were_not_asked_keep_their_counts() {
        let mut before = counts("6.1", "netflow_a", Count::Accepted(1));
        before.add("6.18", vec![("netflow_a".to_owned(), Count::Accepted(2))]);
        let now = counts("6.18", "netflow_a", Count::Accepted(3)).over(before);
        let mut expected = counts("6.1", "netflow_a", Count::Accepted(1));
        expected.add("6.18", vec![("netflow_a".to_owned(), Count::Accepted(3))]);
        assert_eq!(now, expected);
    }

    #[test]
    fn what_is_refused_too_much_or_grown_is_told() {
        let before = counts("6.1", "netflow_a", Count::Accepted(100));
        let said = |count| counts("6.1", "netflow_a", count).complaints(&before);
        assert_eq!(said(Count::Accepted(120)), Vec::<String>::new());
        assert!(said(Count::Absent)[0].contains("does not load any more"));
        let absent = counts("6.1", "netflow_b", Count::Absent);
        assert!(absent.complaints(&absent).is_empty());
        assert!(said(Count::Accepted(121))[0].contains("121 instructions, 100 when"));
        assert!(said(Count::Refused(7))[0].contains("refused after 7"));
        assert!(said(Count::Accepted(MOST + 1))[0].contains("more than 500000"));
        let other = counts("6.12", "netflow_a", Count::Accepted(900));
        assert!(other.complaints(&before).is_empty());
    }
}
