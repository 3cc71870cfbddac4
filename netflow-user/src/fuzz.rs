//! What `cargo xtask fuzz` drives: every reader of bytes that others write, under the name of its target.
//!
//! A target in `tests/fuzz/` is one call of these. Any bytes may be given: an error is fine; a panic, a walk without end or
//! memory by a length that nobody checked is not. What is found becomes a test beside the reader. The tests of this file
//! give every reader the seeds that the fuzzer begins with.

use crate::cluster::identity::Identities;
use crate::cluster::manifests;
use crate::explain::Explainer;
use crate::flows::{RecordId, Table, TableLimits};
use crate::model::recording::{self, Reader};
use crate::{kernel, node};
use std::io::Cursor;
use std::path::Path;

/// The kernel's types, and all that is asked of them.
pub fn btf(data: &[u8]) {
    kernel::fuzz::btf(data);
}

/// Records as they lie in the ring, one behind the other, and the join of what they say.
pub fn ring(data: &[u8]) {
    let mut table = Table::new(TableLimits::default());
    for (item, record) in (0..).zip(kernel::fuzz::ring(data)) {
        table.record(RecordId { input: 0, item }, &record);
    }
}

/// A recording, or its lines alone (the check sums of a whole one keep a fuzzer out), and what is explained by it.
pub fn recording(data: &[u8]) {
    let lines = if data.starts_with(b"{") {
        recording::of_lines(data).ok()
    } else {
        None
    };
    let file = Cursor::new(lines.unwrap_or_else(|| data.to_vec()));
    let Ok(reader) = Reader::new(file, Path::new("fuzz.nfr")) else {
        return;
    };
    let mut explainer = Explainer::new(Box::new(Identities::new()));
    for input in reader {
        explainer.feed(0, &input);
    }
    explainer.settled();
    explainer.answer();
}

/// Kubernetes objects in YAML or JSON.
pub fn manifests(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        for name in ["fuzz.yaml", "fuzz.json"] {
            manifests::read_text(Path::new(name), text);
        }
    }
}

/// Datagrams of rtnetlink, conntrack and `sock_diag`.
pub fn netlink(data: &[u8]) {
    kernel::fuzz::netlink(data);
    node::fuzz::netlink(data);
}

/// Datagrams with the tables, chains, sets and rules of nftables, and what becomes of packets by them.
pub fn nftables(data: &[u8]) {
    node::rules::fuzz::nftables(data);
}

/// A table of iptables-legacy, and what becomes of packets by it.
pub fn iptables(data: &[u8]) {
    node::rules::fuzz::iptables(data);
}

/// Text of `/proc` and of the kernel's announcements.
pub fn proc(data: &[u8]) {
    kernel::fuzz::text(data);
    if let Ok(text) = str::from_utf8(data) {
        node::fuzz::text(text);
    }
}

/// Compares a seed that the code can make with the one that is kept; with `NETFLOW_WRITE_SEEDS` set, after a change of what
/// it holds, keeps it.
#[cfg(test)]
pub(crate) fn keep(path: &Path, seed: &[u8]) -> std::io::Result<()> {
    if std::env::var_os("NETFLOW_WRITE_SEEDS").is_some() {
        return std::fs::write(path, seed);
    }
    assert!(
        std::fs::read(path)? == seed,
        "{} is not what is made now: NETFLOW_WRITE_SEEDS=1 cargo test -p netflow-user --lib seed",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io;

    /// A reader by the name of its target.
    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 8] = [
        ("btf", btf),
        ("ring", ring),
        ("recording", recording),
        ("manifests", manifests),
        ("netlink", netlink),
        ("nftables", nftables),
        ("iptables", iptables),
        ("proc", proc),
    ];

    fn seeds(target: &str) -> io::Result<Vec<Vec<u8>>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fuzz/seeds")
            .join(target);
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| fs::read(entry?.path())).collect()
    }

    #[test]
    fn every_reader_takes_its_seeds_cut_and_damaged() -> io::Result<()> {
        for (name, read) in TARGETS {
            let seeds = seeds(name)?;
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                read(&seed);
                for part in 1..16 {
                    let at = seed.len() * part / 16;
                    read(&seed[..at]);
                    let mut damaged = seed.clone();
                    damaged[at] ^= 0xff;
                    read(&damaged);
                }
            }
        }
        Ok(())
    }
}
