//! Kernel addresses to function names, and back, by `/proc/kallsyms`.
//!
//! The list has 100,000 and more lines and packets are dropped at a few dozen places, so it is read through when an
//! address comes up that is not known yet, for all such addresses at once, and only the answers are kept. That also
//! finds functions of modules that were loaded in the meantime.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

const PATH: &str = "/proc/kallsyms";

/// An address further than this behind the nearest symbol is not in that function.
const MAX_FUNCTION: u64 = 1 << 20;

/// Names kept at most; more distinct places than that means that addresses are not what we take them for.
const MAX_KNOWN: usize = 8192;

/// Names of the addresses met so far.
#[derive(Debug, Default)]
pub struct Kallsyms {
    known: HashMap<u64, String>,
}

impl Kallsyms {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes sure that every one of `addresses` has an answer, with at most one pass through the list. An address that
    /// no symbol holds, or all of them when the kernel hides addresses (`kernel.kptr_restrict`), is named in hex.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let mut unknown: Vec<u64> = addresses
            .into_iter()
            .filter(|a| !self.known.contains_key(a))
            .collect();
        if unknown.is_empty() {
            return;
        }
        unknown.sort_unstable();
        unknown.dedup();
        if self.known.len() + unknown.len() > MAX_KNOWN {
            self.known.clear();
        }
        let found = File::open(PATH)
            .and_then(|file| nearest(BufReader::with_capacity(1 << 16, file), &unknown))
            .unwrap_or_else(|_| vec![None; unknown.len()]);
        for (address, name) in unknown.into_iter().zip(found) {
            let name = name.unwrap_or_else(|| format!("{address:#x}"));
            self.known.insert(address, name);
        }
    }

    /// The function that holds `address`, in hex if that was not learnt.
    pub fn known(&self, address: u64) -> String {
        match self.known.get(&address) {
            Some(name) => name.clone(),
            None => format!("{address:#x}"),
        }
    }

    /// With these answers.
    #[cfg(any(test, fuzzing))]
    pub fn with(known: impl IntoIterator<Item = (u64, &'static str)>) -> Self {
        Kallsyms {
            known: known
                .into_iter()
                .map(|(address, name)| (address, name.to_owned()))
                .collect(),
        }
    }
}

/// Where functions lie, by name.
pub type Ranges = HashMap<String, Vec<Range<u64>>>;

/// Functions by name, and which modules have any.
#[derive(Debug, Default)]
pub struct Symbols {
    found: HashMap<String, Vec<String>>,
    ranges: Ranges,
    modules: HashSet<String>,
}

impl Symbols {
    /// Looks for these, in one pass: the kernel writes the list anew for each.
    pub fn read(names: &[&str]) -> io::Result<Self> {
        Self::of_list(BufReader::with_capacity(1 << 16, File::open(PATH)?), names)
    }

    pub(super) fn of_list(list: impl BufRead, names: &[&str]) -> io::Result<Self> {
        let names: HashSet<&str> = names.iter().copied().collect();
        let mut symbols = Symbols::default();
        let mut entries = Vec::new();
        // A module's functions stand together.
        let mut latest = String::new();
        for_each_line(
            list,
            |_| true,
            |line| {
                if let Some(module) = line.module
                    && module != latest
                {
                    module.clone_into(&mut latest);
                    symbols.modules.insert(latest.clone());
                }
                if line.address != 0 {
                    entries.push(line.address);
                }
                let name = strip_suffix(line.name);
                if !names.contains(name) {
                    return;
                }
                if !is_part(line.name) {
                    let found = symbols.found.entry(name.to_owned()).or_default();
                    found.push(line.name.to_owned());
                }
                if line.address != 0 {
                    let ranges = symbols.ranges.entry(name.to_owned()).or_default();
                    ranges.push(line.address..line.address);
                }
            },
        )?;
        for found in symbols.found.values_mut() {
            // The plain name first: that is the function itself.
            found.sort_by_key(String::len);
        }
        entries.sort_unstable();
        for range in symbols.ranges.values_mut().flatten() {
            let next = entries.partition_point(|&entry| entry <= range.start);
            range.end = entries
                .get(next)
                .map_or(MAX_FUNCTION, |next| (next - range.start).min(MAX_FUNCTION))
                .saturating_add(range.start);
        }
        Ok(symbols)
    }

    /// What the kernel calls the function, with the suffix that the compiler may have given it; several if there are several.
    pub fn of(&self, name: &str) -> &[String] {
        self.found.get(name).map_or(&[], Vec::as_slice)
    }

    /// The addresses of the functions, from the entry to the next function. A name that is absent or hidden is missing;
    /// one that exists several times (static functions, split-off `.cold` parts) has several ranges.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Whether the module is loaded.
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.contains(name)
    }
}

/// A piece that the compiler has taken out of a function: it is not called with its arguments.
fn is_part(name: &str) -> bool {
    name.contains(".part.") || name.contains(".cold")
}

/// For each of `addresses` (sorted) the name of the nearest function at or below it.
fn nearest(list: impl BufRead, addresses: &[u64]) -> io::Result<Vec<Option<String>>> {
    let mut best: Vec<(u64, Option<String>)> = vec![(0, None); addresses.len()];
    let held = |entry: u64| {
        let first = addresses.partition_point(|&a| a < entry);
        let end = entry.saturating_add(MAX_FUNCTION);
        first..first + addresses[first..].partition_point(|&a| a < end)
    };
    // Records wait meanwhile, and nearly every line is of a function that nobody asks about.
    let asked = |entry: u64| entry != 0 && !held(entry).is_empty();
    for_each_line(list, asked, |line| {
        for best in &mut best[held(line.address)] {
            if best.1.is_none() || best.0 < line.address {
                *best = (line.address, Some(strip_suffix(line.name).to_owned()));
            }
        }
    })?;
    Ok(best.into_iter().map(|(_, name)| name).collect())
}

/// A function of the list.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// 0 where it is hidden.
    address: u64,
    name: &'a str,
    module: Option<&'a str>,
}

/// Calls `each` for every line `ADDRESS TYPE NAME [MODULE]` of a function whose address is `asked` for.
fn for_each_line(
    mut list: impl BufRead,
    asked: impl Fn(u64) -> bool,
    mut each: impl FnMut(Line<'_>),
) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    loop {
        line.clear();
        if list.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some((address, rest)) = address(&line).filter(|(address, _)| asked(*address)) else {
            continue;
        };
        let Ok(text) = str::from_utf8(rest) else {
            continue;
        };
        let mut words = text.split_ascii_whitespace();
        let (Some("t" | "T" | "w" | "W"), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let module = words.next().and_then(|module| {
            let module = module.strip_prefix('[')?;
            module.strip_suffix(']')
        });
        each(Line {
            address,
            name,
            module,
        });
    }
}

/// The address that a line begins with, and what follows.
fn address(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (digits, rest) = line.split_at(end);
    let digits = str::from_utf8(digits).ok()?;
    Some((u64::from_str_radix(digits, 16).ok()?, rest))
}

/// The name as in the source: compilers append `.isra.0`, `.constprop.0`, `.part.0`, `.cold`.
fn strip_suffix(name: &str) -> &str {
    match name.find('.') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
0000000000000000 A hidden
ffffffff81000000 T _stext
ffffffff81000100 t ip_rcv_finish_core.isra.0
ffffffff81000200 T ip_forward
ffffffff81000200 T ip_forward_alias
ffffffff81000280 D some_data
ffffffff81000300 t static_twice
ffffffff81000400 t static_twice
not a line
ffffffffc0000040 t nft_do_chain\t[nf_tables]
ffffffffc0000010 t earlier_in_module\t[nf_tables]
";

    #[test]
    fn nearest_function_below() {
        let asked = [
            0x10,
            0xffff_ffff_8100_0100,
            0xffff_ffff_8100_01ff,
            0xffff_ffff_8100_0299,
            0xffff_ffff_8100_0401,
            0xffff_ffff_b000_0000,
            0xffff_ffff_c000_0039,
            0xffff_ffff_c000_0041,
        ];
        let names = nearest(LIST, &asked).unwrap();
        let names: Vec<_> = names.iter().map(Option::as_deref).collect();
        assert_eq!(
            names,
            [
                None,
                Some("ip_rcv_finish_core"),
                Some("ip_rcv_finish_core"),
                Some("ip_forward"),
                Some("static_twice"),
                None,
                Some("earlier_in_module"),
                Some("nft_do_chain"),
            ]
        );
    }

    #[test]
    fn ranges_by_name() {
        let names = ["static_twice", "ip_forward", "absent"];
        let symbols = Symbols::of_list(LIST, &names).unwrap();
        let found = symbols.ranges();
        let module = 0xffff_ffff_c000_0010;
        assert!(module - 0xffff_ffff_8100_0400 > MAX_FUNCTION);
        assert_eq!(
            found["static_twice"],
            [
                0xffff_ffff_8100_0300..0xffff_ffff_8100_0400,
                0xffff_ffff_8100_0400..0xffff_ffff_8100_0400 + MAX_FUNCTION,
            ]
        );
        assert_eq!(found["ip_forward"].len(), 1);
        assert_eq!(
            found["ip_forward"][0],
            0xffff_ffff_8100_0200..0xffff_ffff_8100_0300
        );
        assert!(!found.contains_key("absent"));
    }

    #[test]
    fn symbols_and_modules() {
        let list = b"\
0000000000000000 t nft_do_chain\t[nf_tables]
0000000000000000 t ip_fragment.constprop.0
0000000000000000 t ip_fragment.cold
0000000000000000 t twice
0000000000000000 t twice
";
        let symbols =
            Symbols::of_list(&list[..], &["nft_do_chain", "ip_fragment", "twice", "no"]).unwrap();
        assert_eq!(symbols.of("nft_do_chain"), ["nft_do_chain"]);
        assert_eq!(symbols.of("ip_fragment"), ["ip_fragment.constprop.0"]);
        assert_eq!(symbols.of("twice").len(), 2);
        assert!(symbols.of("no").is_empty());
        assert!(symbols.has_module("nf_tables") && !symbols.has_module("ip_vs"));
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        let list = b"0000000000000000 T ip_forward\n0000000000000000 t x [m]\n";
        assert_eq!(nearest(&list[..], &[0xffff]).unwrap(), [None]);
        let symbols = Symbols::of_list(&list[..], &["ip_forward"]).unwrap();
        assert!(symbols.ranges().is_empty());
    }

    #[test]
    fn the_running_kernel() {
        let found = Symbols::read(&["ip_forward"]).unwrap();
        let ip_forward = &found.ranges()["ip_forward"][0];
        let mut symbols = Kallsyms::new();
        symbols.learn([ip_forward.start + 4, 1, ip_forward.end - 1]);
        assert_eq!(symbols.known(ip_forward.start + 4), "ip_forward");
        assert_eq!(symbols.known(ip_forward.end - 1), "ip_forward");
        assert_eq!(symbols.known(1), "0x1");
    }
}
