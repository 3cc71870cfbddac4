//! When this process began, as the kernel has it (`proc_pid_stat(5)`).

use std::fs;

/// Ticks of a second in what the kernel tells user space (`USER_HZ`), the same on all architectures that netflow runs on.
const TICKS: u64 = 100;

/// Seconds since the epoch; `None` where procfs does not tell.
pub fn started() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    parse(&own, &machine)
}

fn parse(own: &str, machine: &str) -> Option<u64> {
    // The name before it, in parentheses, may hold anything.
    let (_, fields) = own.rsplit_once(')')?;
    // `starttime` is the 22nd of all, the 20th after the name.
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let booted = machine.lines().find_map(|l| l.strip_prefix("btime "))?;
    Some(booted.trim().parse::<u64>().ok()? + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_from_its_own_start() {
        let own = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 5 0 12345 9 8";
        let machine = "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n";
        assert_eq!(parse(own, machine), Some(1_700_000_123));
        assert_eq!(parse("7 (a) S 1", machine), None);
        assert_eq!(parse(own, "cpu 1 2 3\n"), None);
    }

    #[test]
    fn this_process_has_begun() {
        assert!(started().is_some_and(|s| s > 1_500_000_000));
    }
}
