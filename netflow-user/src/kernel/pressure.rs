//! How full the BPF maps of this machine are: one that is full makes its owner (a service proxy, a CNI) lose what it should
//! remember.
//!
//! Entries are counted by reading them, which the kernel does without marking them as used (`__htab_map_lookup_and_delete_batch`
//! in `kernel/bpf/hashtab.c`, v6.18). What is too big to be read, or of a kind without a number of entries, is told as such.

use super::sys::BatchLookup;
use aya::maps::{MapInfo, MapType, loaded_maps};
use serde::Serialize;
use std::os::fd::AsFd;

/// Bytes of keys and values that are read of one map at most.
const BYTES: u64 = 64 << 20;

/// Percent from which a map is nearly full.
pub const NEARLY_FULL: u64 = 90;

/// One map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fill {
    /// The kernel's id.
    pub id: u32,
    /// Name, as the kernel keeps it.
    pub name: String,
    /// `hash`, `lru-hash`, …
    pub kind: String,
    /// Entries, where they can be counted.
    pub entries: Option<u64>,
    /// Entries that fit.
    pub max: u32,
    /// Why they cannot be counted, else empty.
    pub uncounted: String,
}

impl Fill {
    /// Percent of what fits.
    pub fn percent(&self) -> Option<u64> {
        self.entries.map(|n| n * 100 / u64::from(self.max.max(1)))
    }

    /// Whether the next new entry may not fit: an LRU map makes room instead.
    pub fn is_nearly_full(&self) -> bool {
        !self.kind.starts_with("lru") && self.percent().is_some_and(|p| p >= NEARLY_FULL)
    }
}

/// Every map there is, fullest first.
pub fn maps() -> Vec<Fill> {
    // A map that went away meanwhile, or that may not be looked at, is left out.
    let mut all: Vec<Fill> = loaded_maps().flatten().filter_map(|m| fill(&m)).collect();
    all.sort_by_key(|f| (std::cmp::Reverse(f.percent()), f.id));
    all
}

fn fill(map: &MapInfo) -> Option<Fill> {
    let kind = map.map_type().ok()?;
    let counted = count(map, kind);
    Some(Fill {
        id: map.id(),
        name: map.name_as_str().unwrap_or_default().to_owned(),
        kind: name(kind),
        entries: counted.as_ref().ok().copied(),
        max: map.max_entries(),
        uncounted: counted.err().unwrap_or_default(),
    })
}

fn count(map: &MapInfo, kind: MapType) -> Result<u64, String> {
    let value = match kind {
        MapType::Hash | MapType::LruHash | MapType::LpmTrie => u64::from(map.value_size()),
        MapType::PerCpuHash | MapType::LruPerCpuHash => {
            let cpus = aya::util::nr_cpus().map_err(|(file, e)| format!("{file}: {e}"))?;
            u64::from(map.value_size()).next_multiple_of(8) * cpus as u64
        }
        // The value read is the inner map's id.
        MapType::HashOfMaps => 4,
        MapType::Array
        | MapType::PerCpuArray
        | MapType::ArrayOfMaps
        | MapType::ProgramArray
        | MapType::PerfEventArray
        | MapType::CgroupArray => return Err("an array has all its entries".to_owned()),
        _ => return Err("the kernel tells no number of entries for this kind".to_owned()),
    };
    let key = u64::from(map.key_size());
    if u64::from(map.max_entries()) * (key + value) > BYTES {
        return Err("too big to be read".to_owned());
    }
    let fd = map.fd().map_err(|e| e.to_string())?;
    let mut entries = 0;
    BatchLookup::new(key as usize, value as usize)
        .for_each(fd.as_fd(), |_, _| entries += 1)
        .map_err(|e| format!("not readable: {e}"))?;
    Ok(entries)
}

/// `LruPerCpuHash` → `lru-per-cpu-hash`.
fn name(kind: MapType) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(kind: &str, entries: u64, max: u32) -> Fill {
        Fill {
            id: 1,
            name: "cilium_ct4".to_owned(),
            kind: kind.to_owned(),
            entries: Some(entries),
            max,
            uncounted: String::new(),
        }
    }

    #[test]
    fn a_full_hash_refuses_and_a_full_lru_makes_room() {
        assert!(hash("hash", 90, 100).is_nearly_full());
        assert!(!hash("hash", 89, 100).is_nearly_full());
        assert!(!hash("lru-hash", 100, 100).is_nearly_full());
        assert_eq!(hash("hash", 0, 0).percent(), Some(0));
    }

    #[test]
    fn kinds_are_spelt_as_elsewhere() {
        assert_eq!(name(MapType::LruPerCpuHash), "lru-per-cpu-hash");
        assert_eq!(name(MapType::RingBuf), "ring-buf");
    }
}
