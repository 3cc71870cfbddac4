//! The bytes of every map that the running programs use, as the kernel has them.

use crate::attached;
use crate::netns::{Lab, TO_POD};
use anyhow::{Context, Result, anyhow, bail};
use aya::maps::{Map, MapData, MapInfo, MapType, RingBuf};
use aya::programs::loaded_programs;
use netflow_user::kernel::sys::BatchLookup;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

/// Raw contents by name: entries of maps, records that wait in rings.
pub fn contents(lab: &Lab) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for id in map_ids(lab)? {
        let name = MapInfo::from_id(id)?
            .name_as_str()
            .unwrap_or_default()
            .to_owned();
        let bytes = bytes(id).with_context(|| name.clone())?;
        all.insert(name, bytes);
    }
    Ok(all)
}

/// Maps of the programs attached to the node's interfaces, and of all programs that share one with them.
fn map_ids(lab: &Lab) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for program in attached::tcx_programs(lab, TO_POD)? {
        ids.extend(program.map_ids()?.unwrap_or_default());
    }
    let attached = ids.clone();
    for program in loaded_programs() {
        // one that ended meanwhile is not ours: ours is standing still
        let Ok(Some(maps)) = program.and_then(|program| program.map_ids()) else {
            continue;
        };
        if maps.iter().any(|id| attached.contains(id)) {
            ids.extend(maps);
        }
    }
    Ok(ids)
}

fn bytes(id: u32) -> Result<Vec<u8>> {
    let info = MapInfo::from_id(id)?;
    let value = usize::try_from(info.value_size())?;
    match info.map_type()? {
        MapType::RingBuf => ring(MapData::from_id(id)?),
        MapType::Hash | MapType::LruHash | MapType::Array => entries(&info, value),
        MapType::PerCpuHash | MapType::LruPerCpuHash | MapType::PerCpuArray => {
            let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
            entries(&info, value.next_multiple_of(8) * cpus)
        }
        other => bail!("a map of type {other:?}: this test has to learn to search it"),
    }
}

fn entries(info: &MapInfo, value: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    BatchLookup::new(usize::try_from(info.key_size())?, value).for_each(
        info.fd()?.as_fd(),
        |key, value| {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        },
    )?;
    Ok(bytes)
}

fn ring(data: MapData) -> Result<Vec<u8>> {
    let mut ring = RingBuf::try_from(Map::RingBuf(data))?;
    let mut bytes = Vec::new();
    while let Some(record) = ring.next() {
        bytes.extend_from_slice(&record);
    }
    Ok(bytes)
}
