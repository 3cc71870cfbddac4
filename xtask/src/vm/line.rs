//! The kernel lines that netflow is tested on, and which release of a line is taken.

use anyhow::{Result, bail};
use std::cmp::Ordering;
use std::str::FromStr;

/// A line of Debian kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// `6.12`.
    pub name: &'static str,
    /// What makes this line worth testing.
    pub why: &'static str,
    /// The release that is taken while the archive has it, as `uname -r` says it.
    pub pinned: &'static str,
    /// Suites of the Debian archive that carry the line, the smallest index first.
    pub suites: &'static [&'static str],
}

/// From the oldest to the newest.
pub const LINES: [Line; 4] = [
    Line {
        name: "5.10",
        why: "the oldest that netflow supports: no BTF of modules, no drop reasons, no TCX",
        pinned: "5.10.0-46-amd64",
        suites: &["bullseye-security", "bullseye"],
    },
    Line {
        name: "6.1",
        why: "drop reasons, still no TCX and no netfilter programs",
        pinned: "6.1.0-56-amd64",
        suites: &["bookworm-security", "bookworm"],
    },
    Line {
        name: "6.12",
        why: "TCX, every kind of hook",
        pinned: "6.12.118+deb13-amd64",
        suites: &["trixie-security", "trixie"],
    },
    Line {
        name: "7.2",
        why: "the newest that Debian builds",
        pinned: "7.2.13+deb14-amd64",
        suites: &["sid", "forky", "trixie-backports"],
    },
];

impl FromStr for &'static Line {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<&'static Line> {
        let Some(line) = LINES.iter().find(|line| line.name == name) else {
            let names = LINES.each_ref().map(|line| line.name).join(", ");
            bail!("there is no kernel {name}; there are {names}");
        };
        Ok(line)
    }
}

impl Line {
    /// The release that a package of this line holds: `6.12.118+deb13-amd64` of `linux-image-6.12.118+deb13-amd64`.
    ///
    /// Not those for clouds and for real time, and not a rebuild for an older Debian.
    fn release<'a>(&self, package: &'a str) -> Option<&'a str> {
        let release = package.strip_prefix("linux-image-")?;
        let patch = release.strip_prefix(self.name)?.strip_prefix('.')?;
        let build = patch.strip_suffix("-amd64")?;
        let plain = |c: char| c.is_ascii_digit() || ".+-".contains(c);
        build
            .replace("deb", "")
            .chars()
            .all(plain)
            .then_some(release)
    }

    /// The pinned release if it is among the packages, else the newest of the line.
    pub fn choose<'a>(&self, packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        packages
            .filter_map(|package| self.release(package))
            .max_by(|a, b| {
                let pinned = |release: &str| release == self.pinned;
                pinned(a).cmp(&pinned(b)).then_with(|| by_number(a, b))
            })
    }
}

/// Compares the numbers in two releases, in their order.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.trim_end_matches("-amd64")
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Result<&'static Line> {
        "6.12".parse()
    }

    #[test]
    fn the_pinned_release_is_of_its_own_line() {
        for line in &LINES {
            let package = format!("linux-image-{}", line.pinned);
            assert_eq!(line.release(&package), Some(line.pinned));
            assert!(!line.suites.is_empty() && !line.why.is_empty());
        }
        let error = "6.13"
            .parse::<&'static Line>()
            .map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("there is no kernel 6.13; there are 5.10, 6.1, 6.12, 7.2".to_owned())
        );
    }

    #[test]
    fn only_plain_packages_of_the_line_count() -> Result<()> {
        for (package, counts) in [
            ("linux-image-6.12.118+deb13-amd64", true),
            ("linux-image-6.12.90+deb13.1-amd64", true),
            ("linux-image-6.12.118+deb13-cloud-amd64", false),
            ("linux-image-6.12.118+deb13-rt-amd64", false),
            ("linux-image-6.12.118+deb13-amd64-unsigned", false),
            ("linux-image-6.12-amd64", false),
            ("linux-image-6.1.0-56-amd64", false),
            ("linux-headers-6.12.118+deb13-amd64", false),
        ] {
            assert_eq!(line()?.release(package).is_some(), counts, "{package}");
        }
        Ok(())
    }

    #[test]
    fn the_pinned_release_goes_before_newer_ones_and_the_newest_stands_in() -> Result<()> {
        let pinned = format!("linux-image-{}", line()?.pinned);
        let others = [
            "linux-image-6.12.9+deb13-amd64",
            "linux-image-6.12.200+deb13-amd64",
            "linux-image-6.12.200+deb13.1-amd64",
            "linux-image-6.1.0-900-amd64",
        ];
        let with = others.into_iter().chain([pinned.as_str()]);
        assert_eq!(line()?.choose(with), Some(line()?.pinned));
        assert_eq!(
            line()?.choose(others.into_iter()),
            Some("6.12.200+deb13.1-amd64")
        );
        assert_eq!(line()?.choose(std::iter::empty()), None);
        Ok(())
    }
}
