//! The programs, loaded and attached nowhere.

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, MapData, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use netflow_ebpf::map::{FLOWS, RECORDS};
use netflow_ebpf::{FlowKey, FlowValue};

/// What every tc program returns: it decides nothing.
const NEXT: u32 = u32::MAX;

/// The loaded object.
pub struct Programs(Ebpf);

impl Programs {
    /// Loads the object and its classifiers.
    pub fn load() -> Result<Programs> {
        let mut ebpf = EbpfLoader::new().load(aya::include_bytes_aligned!(concat!(
            env!("OUT_DIR"),
            "/netflow"
        )))?;
        for name in [
            "netflow_in",
            "netflow_out",
            "bench_empty",
            "bench_reference",
        ] {
            let program = ebpf
                .program_mut(name)
                .with_context(|| format!("no program {name}"))?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
        }
        Ok(Programs(ebpf))
    }

    /// Runs a program on a packet; the kernel's figure for one run, in nanoseconds.
    pub fn run(&self, name: &str, packet: &[u8], repeat: u32) -> Result<f64> {
        let program = self
            .0
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        let program: &SchedClassifier = program.try_into()?;
        let ran = program.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat,
            ..TestRunOptions::default()
        })?;
        if ran.return_value != NEXT {
            bail!("{name} returned {}, not -1", ran.return_value.cast_signed());
        }
        Ok(ran.duration.as_secs_f64() * 1e9)
    }

    /// Takes the records out of the ring: a full one would make new flows cheaper than they are.
    pub fn drain(&mut self) -> Result<()> {
        let map = self
            .0
            .map_mut(RECORDS)
            .with_context(|| format!("no map {RECORDS}"))?;
        let mut records = RingBuf::try_from(map)?;
        while records.next().is_some() {}
        Ok(())
    }

    /// Entries in the flow map.
    pub fn flows(&self) -> Result<usize> {
        let map = self
            .0
            .map(FLOWS)
            .with_context(|| format!("no map {FLOWS}"))?;
        let flows: HashMap<&MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowValue>()]> =
            map.try_into()?;
        let mut entries = 0;
        for key in flows.keys() {
            key?;
            entries += 1;
        }
        Ok(entries)
    }
}
