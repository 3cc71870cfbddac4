//! The BPF object as the loader will see it: programs, maps, licence.

use crate::workspace;
use anyhow::{Context, Result};
use aya_obj::{Map, Object as Parsed, ProgramSection};
use object::{Object as _, ObjectSection as _, SectionIndex};
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

/// `enum bpf_map_type` (include/uapi/linux/bpf.h), in its order.
const MAP_TYPES: [&str; 34] = [
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
];

/// What an object holds.
#[derive(Serialize)]
pub struct Object {
    /// Its `license` section.
    pub license: String,
    /// Programs by name.
    pub programs: Vec<ProgramRow>,
    /// Maps by name.
    pub maps: Vec<MapRow>,
}

/// A program.
#[derive(Serialize)]
pub struct ProgramRow {
    /// Name.
    pub name: String,
    /// Program type.
    #[serde(rename = "type")]
    pub kind: String,
    /// ELF section.
    pub section: String,
    /// Instructions, with the subprograms it calls.
    pub instructions: usize,
}

/// A map, as the object defines it; the loader may give it more or fewer entries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapRow {
    /// Name.
    pub name: String,
    /// Map type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries; bytes where it is a ring.
    pub max_entries: u32,
    /// Bytes of all keys and values when full (values once per CPU where they are), without the kernel's own overhead.
    pub bytes: u64,
}

/// Builds the object the way `cargo build` does, by netflow-user's build script, and says where it is.
pub fn build() -> Result<PathBuf> {
    let built = workspace::build(&["--package", "netflow-user", "--lib"])?;
    Ok(built.out_dir("netflow-user")?.join("netflow"))
}

/// Builds the object and reads it.
pub fn built() -> Result<Object> {
    let path = build()?;
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    Object::parse(&bytes, possible_cpus()).with_context(|| path.display().to_string())
}

impl Object {
    fn parse(bytes: &[u8], cpus: u64) -> Result<Object> {
        let mut parsed = Parsed::parse(bytes)?;
        // instruction counts before linking would leave out the subprograms
        let text: HashSet<usize> = parsed
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        parsed.relocate_calls(&text)?;
        let elf = object::File::parse(bytes)?;

        let mut programs = Vec::new();
        for (name, program) in &parsed.programs {
            let key = (program.section_index, program.address);
            let function = parsed
                .functions
                .get(&key)
                .with_context(|| format!("{name} has no code"))?;
            let section = elf.section_by_index(SectionIndex(program.section_index))?;
            programs.push(ProgramRow {
                name: name.clone(),
                kind: program_type(&program.section),
                section: section.name()?.to_owned(),
                instructions: function.instructions.len(),
            });
        }
        programs.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));

        let mut maps: Vec<MapRow> = parsed
            .maps
            .iter()
            .map(|(name, map)| MapRow::new(name, map, cpus))
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));

        Ok(Object {
            license: parsed.license.to_string_lossy().into_owned(),
            programs,
            maps,
        })
    }
}

impl MapRow {
    fn new(name: &str, map: &Map, cpus: u64) -> MapRow {
        let kind = usize::try_from(map.map_type())
            .ok()
            .and_then(|number| MAP_TYPES.get(number))
            .map_or_else(
                || format!("type {}", map.map_type()),
                |name| (*name).to_owned(),
            );
        MapRow {
            name: name.to_owned(),
            bytes: bytes(
                &kind,
                map.key_size(),
                map.value_size(),
                map.max_entries(),
                cpus,
            ),
            kind,
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
        }
    }
}

/// The kernel keeps keys and values at multiples of eight bytes (`htab_map_alloc`, `array_map_alloc`;
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/hashtab.c>); array keys are not stored.
fn bytes(kind: &str, key: u32, value: u32, entries: u32, cpus: u64) -> u64 {
    let padded = |size: u32| u64::from(size).next_multiple_of(8);
    let entries = u64::from(entries);
    if kind.contains("ringbuf") {
        return entries;
    }
    let key = if kind.ends_with("array") {
        0
    } else {
        padded(key)
    };
    let value = if kind.contains("percpu") {
        padded(value) * cpus
    } else {
        padded(value)
    };
    entries * (key + value)
}

fn program_type(section: &ProgramSection) -> String {
    match section {
        ProgramSection::SchedClassifier => "sched_cls".to_owned(),
        ProgramSection::BtfTracePoint => "tp_btf".to_owned(),
        ProgramSection::RawTracePoint => "raw_tp".to_owned(),
        ProgramSection::TracePoint => "tracepoint".to_owned(),
        ProgramSection::KProbe => "kprobe".to_owned(),
        ProgramSection::KRetProbe => "kretprobe".to_owned(),
        ProgramSection::FEntry { .. } => "fentry".to_owned(),
        ProgramSection::FExit { .. } => "fexit".to_owned(),
        other => format!("{other:?}"),
    }
}

/// CPUs that per-CPU maps keep a value for.
fn possible_cpus() -> u64 {
    fs::read_to_string("/sys/devices/system/cpu/possible")
        .ok()
        .and_then(|list| count(list.trim()))
        .unwrap_or(1)
}

/// How many numbers `0-3,8` names.
fn count(list: &str) -> Option<u64> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        for (list, cpus) in [
            ("0", Some(1)),
            ("0-1", Some(2)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
            ("a-b", None),
        ] {
            assert_eq!(count(list), cpus, "{list}");
        }
    }

    #[test]
    fn bytes_follow_the_map_type() {
        assert_eq!(bytes("lru_hash", 37, 100, 10, 4), 10 * (40 + 104));
        assert_eq!(bytes("array", 4, 12, 3, 4), 3 * 16);
        assert_eq!(bytes("percpu_array", 4, 8, 2, 4), 2 * 8 * 4);
        assert_eq!(bytes("percpu_hash", 4, 8, 2, 4), 2 * (8 + 32));
        assert_eq!(bytes("ringbuf", 0, 0, 1 << 20, 4), 1 << 20);
    }

    #[test]
    fn map_types_are_numbered_as_the_kernel_numbers_them() {
        use aya_obj::generated::bpf_map_type as kernel;
        for (number, name) in [
            (kernel::BPF_MAP_TYPE_LRU_HASH, "lru_hash"),
            (kernel::BPF_MAP_TYPE_HASH_OF_MAPS, "hash_of_maps"),
            (kernel::BPF_MAP_TYPE_RINGBUF, "ringbuf"),
            (kernel::BPF_MAP_TYPE_ARENA, "arena"),
        ] {
            assert_eq!(MAP_TYPES.get(number as usize), Some(&name));
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert!(Object::parse(b"\x7fELF, but no more", 1).is_err());
    }
}
