//! What we depend on: licences, sources, duplicate versions. Needs no network.

use crate::object;
use crate::tally::Tally;
use crate::workspace;
use anyhow::{Context, Result};
use cargo_metadata::{Metadata, Package};
use std::collections::{BTreeMap, BTreeSet};

/// Licences that may be linked into an Apache-2.0 OR MIT program without asking for more than a notice.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Our own crates are offered under both.
const OURS: &str = "Apache-2.0 OR MIT";

/// What the kernel is told, so that GPL-only helpers may be called.
const OBJECT_LICENCE: &str = "Dual MIT/GPL";

/// Where crates may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that may be there in more than one version, and why.
const DUPLICATES: [(&str, &str); 11] = [
    ("base64", "serde-saphyr is ahead of kube"),
    (
        "bit-vec",
        "jsonschema, which only tests use, is behind yasna, of rcgen",
    ),
    (
        "convert_case",
        "derive_more 0.99, of netlink-packet-netfilter, is behind that of crossterm; none is in a binary",
    ),
    ("derive_more", "netlink-packet-netfilter still uses 0.99"),
    (
        "foldhash",
        "hashbrown 0.15, of petgraph, with which prost-build orders messages, uses 0.1",
    ),
    (
        "getrandom",
        "ring stays with 0.2, and ahash, of jsonschema, which only tests use, with 0.3",
    ),
    ("hashbrown", "kube-runtime has not moved to 0.17"),
    (
        "itertools",
        "ratatui stays with 0.14, prost-build and others have moved on",
    ),
    (
        "prettyplease",
        "tonic-build is behind prost-build; none is in a binary",
    ),
    (
        "syn",
        "procedural macros are moving from 2 to 3; none is in a binary",
    ),
    (
        "unicode-width",
        "miette, with which protox words its errors, stays with 0.1",
    ),
];

/// All of it; complaints go to stderr, one line each.
pub fn check() -> Result<Tally> {
    let metadata = workspace::metadata()?;
    let graph = graph(&metadata)?;
    println!("{} crates", graph.len());
    let object = object::built()?.license;
    let parts = [
        ("licences", licences(&graph)),
        ("sources", sources(&graph)),
        (
            "duplicate versions",
            duplicates(&versions(&graph), &DUPLICATES),
        ),
        ("licence of the BPF object", object_licence(&object)),
    ];
    let mut tally = Tally::default();
    for (name, complaints) in parts {
        if complaints.is_empty() {
            println!("{name}: ok");
            tally = tally + Tally::PASSED;
        } else {
            for complaint in complaints {
                eprintln!("{name}: {complaint}");
            }
            tally = tally + Tally::FAILED;
        }
    }
    Ok(tally)
}

/// Packages that are built for this platform, ours among them.
fn graph(metadata: &Metadata) -> Result<Vec<&Package>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata resolved nothing")?;
    let nodes: BTreeSet<_> = resolve.nodes.iter().map(|node| &node.id).collect();
    Ok(metadata
        .packages
        .iter()
        .filter(|package| nodes.contains(&package.id))
        .collect())
}

fn licences(graph: &[&Package]) -> Vec<String> {
    graph
        .iter()
        .filter_map(|package| {
            let expression = package.license.as_deref().unwrap_or_default();
            let fine = if package.source.is_none() {
                expression == OURS
            } else {
                allowed(expression)
            };
            (!fine).then(|| {
                format!(
                    "{} {} is under {expression:?}",
                    package.name, package.version
                )
            })
        })
        .collect()
}

/// Whether an SPDX expression can be met with [`LICENCES`] alone. `MIT/Apache-2.0` is an old spelling of OR.
fn allowed(expression: &str) -> bool {
    let Ok(parsed) = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX) else {
        return false;
    };
    parsed.evaluate(|requirement| {
        let id = requirement.license.id().map(|id| id.name);
        id.is_some_and(|id| LICENCES.contains(&id))
    })
}

fn sources(graph: &[&Package]) -> Vec<String> {
    graph
        .iter()
        .filter_map(|package| {
            let source = package.source.as_ref()?;
            (source.repr != REGISTRY).then(|| format!("{} comes from {source}", package.name))
        })
        .collect()
}

fn versions(graph: &[&Package]) -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in graph {
        versions
            .entry(package.name.to_string())
            .or_default()
            .insert(package.version.to_string());
    }
    versions
}

/// Duplicates nobody gave a reason for, and reasons for duplicates that are gone.
fn duplicates(
    versions: &BTreeMap<String, BTreeSet<String>>,
    reasons: &[(&str, &str)],
) -> Vec<String> {
    let unexplained = versions
        .iter()
        .filter(|(name, found)| found.len() > 1 && !reasons.iter().any(|(known, _)| known == name))
        .map(|(name, found)| {
            let found: Vec<_> = found.iter().map(String::as_str).collect();
            format!(
                "{name} is there as {}: find out with `cargo tree -d` who wants which",
                found.join(" and ")
            )
        });
    let stale = reasons
        .iter()
        .filter(|(name, _)| versions.get(*name).is_none_or(|found| found.len() < 2))
        .map(|(name, reason)| format!("{name} is no duplicate any more (it was: {reason})"));
    unexplained.chain(stale).collect()
}

fn object_licence(found: &str) -> Vec<String> {
    if found == OBJECT_LICENCE {
        Vec::new()
    } else {
        vec![format!("it declares {found:?}, not {OBJECT_LICENCE:?}")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_evaluated() {
        for (expression, fine) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-2.0-only OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT AND GPL-2.0-only", false),
            ("LGPL-2.1-or-later", false),
            ("MPL-2.0", false),
            ("", false),
            ("no licence at all", false),
        ] {
            assert_eq!(allowed(expression), fine, "{expression}");
        }
    }

    #[test]
    fn duplicates_need_a_reason_and_reasons_a_duplicate() {
        let set = |versions: &[&str]| versions.iter().map(|v| (*v).to_owned()).collect();
        let versions = BTreeMap::from([
            ("one".to_owned(), set(&["1.0.0"])),
            ("two".to_owned(), set(&["1.0.0", "2.0.0"])),
        ]);
        assert!(duplicates(&versions, &[("two", "why")]).is_empty());
        let complaints = duplicates(&versions, &[("one", "why")]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("1.0.0 and 2.0.0"), "{complaints:?}");
    }

    #[test]
    fn the_object_must_say_what_it_is() {
        assert!(object_licence("Dual MIT/GPL").is_empty());
        assert_eq!(object_licence("GPL").len(), 1);
    }
}
