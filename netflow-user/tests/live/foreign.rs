//! A tc program of somebody else's.

use crate::netns::Lab;
use anyhow::{Context, Result};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

/// How it is attached.
#[derive(Clone, Copy)]
pub enum Place {
    /// TCX, before all others.
    First,
    /// TCX, after all others.
    Last,
    /// A clsact filter.
    Clsact,
}

/// Passes every packet on and has the kernel count how often it ran.
pub struct Foreign(Ebpf);

/// A program that does nothing: the one that the benchmark compares with.
const NAME: &str = "bench_empty";

impl Foreign {
    /// Attaches it to the ingress of an interface of the node.
    pub fn attach(lab: &Lab, device: &str, place: Place) -> Result<Foreign> {
        lab.inside("node", || {
            let mut ebpf = EbpfLoader::new().load(aya::include_bytes_aligned!(concat!(
                env!("OUT_DIR"),
                "/netflow"
            )))?;
            let program = ebpf.program_mut(NAME).context(NAME)?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
            let options = match place {
                Place::First => TcAttachOptions::TcxOrder(LinkOrder::first()),
                Place::Last => TcAttachOptions::TcxOrder(LinkOrder::last()),
                Place::Clsact => {
                    aya::programs::tc::qdisc_add_clsact(device)?;
                    TcAttachOptions::Netlink(NlOptions {
                        priority: 7,
                        ..NlOptions::default()
                    })
                }
            };
            program.attach_with_options(device, TcAttachType::Ingress, options)?;
            Ok(Foreign(ebpf))
        })
    }

    /// How often it ran while the kernel's statistics were on.
    pub fn packets(&self) -> Result<u64> {
        let program: &SchedClassifier = self.0.program(NAME).context(NAME)?.try_into()?;
        Ok(program.info()?.run_count())
    }
}
