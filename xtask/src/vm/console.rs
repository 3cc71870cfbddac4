//! What the guest's kernel says, and whether it is the last thing it says.

use std::collections::VecDeque;

/// How many lines are kept for a report.
const KEPT: usize = 60;

/// The end of the console.
#[derive(Default)]
pub struct Console {
    lines: VecDeque<String>,
}

/// What a kernel says when it cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It has given up.
    Panic,
    /// A CPU does not get on.
    Stall,
}

/// The words, as kernels from v5.10 to v7.2 print them: `kernel/panic.c`, `kernel/watchdog.c`,
/// `kernel/rcu/tree_stall.h`.
const WORDS: [(&str, Trouble); 5] = [
    ("Kernel panic - not syncing", Trouble::Panic),
    ("watchdog: BUG: soft lockup", Trouble::Stall),
    ("Watchdog detected hard LOCKUP", Trouble::Stall),
    ("self-detected stall", Trouble::Stall),
    ("detected stalls on CPUs", Trouble::Stall),
];

impl Console {
    /// Takes one line.
    pub fn hear(&mut self, line: &str) -> Option<Trouble> {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line.trim_end().to_owned());
        WORDS
            .into_iter()
            .find_map(|(words, trouble)| line.contains(words).then_some(trouble))
    }

    /// The last lines, each set in, for people.
    pub fn end(&self) -> String {
        if self.lines.is_empty() {
            return "  (nothing was on the console)".to_owned();
        }
        let lines: Vec<String> = self.lines.iter().map(|line| format!("  {line}")).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_last_words_are_known() {
        let table = [
            (
                "[    9.1] Kernel panic - not syncing: sysrq triggered crash",
                Some(Trouble::Panic),
            ),
            (
                "[   61.2] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [sh:123]",
                Some(Trouble::Stall),
            ),
            (
                "[   81.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
                Some(Trouble::Stall),
            ),
            (
                "[   81.0] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
                Some(Trouble::Stall),
            ),
            ("[    0.0] Linux version 6.12", None),
            ("[    1.0] rcu: Hierarchical RCU implementation.", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(Console::default().hear(line), expected, "{line}");
        }
    }

    #[test]
    fn the_end_is_what_came_last() {
        let mut console = Console::default();
        assert!(console.end().contains("nothing"));
        for n in 0..KEPT + 5 {
            console.hear(&format!("line {n}\r"));
        }
        let end = console.end();
        assert_eq!(end.lines().count(), KEPT);
        assert!(end.starts_with("  line 5\n"), "{end}");
        assert!(end.ends_with(&format!("  line {}", KEPT + 4)));
    }
}
