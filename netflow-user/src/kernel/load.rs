//! Loads the BPF object and its programs, each for itself: one that the kernel refuses costs its capability only.

use super::tc::Programs;
use crate::causes::causes;
use aya::maps::Map;
use aya::programs::kprobe::KProbeLinkId;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, KProbe, Program, ProgramError, RawTracePoint, SchedClassifier};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use netflow_ebpf::{HookInfo, Layout, Plain, Probe, TC_PROGRAMS, map};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};

/// The object, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netflow"));

/// Why the object, or something in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The maps could not be created, or the object is not one.
    #[error("loading the BPF object: {}", chain(.0))]
    Object(#[from] EbpfError),
    /// A program or map of the ABI is not in the object.
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
    /// The kernel refused a program.
    #[error("{program}: {why}")]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// The decisive line.
        why: String,
    },
}

/// What the object is loaded with.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// Offsets and switches, frozen.
    pub layout: &'a Layout,
    /// Types that BTF tracepoints are looked up in.
    pub btf: &'a Btf,
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// Whether the programs' own log is wanted.
    pub verbose_log: bool,
    /// What the verifier shall say of a program that is refused.
    pub verifier_log: VerifierLogLevel,
}

/// Creates the maps and freezes the layout.
pub fn object(parameters: Parameters<'_>) -> Result<Ebpf, LoadError> {
    let Parameters {
        layout,
        btf,
        ring_bytes,
        verbose_log,
        verifier_log,
    } = parameters;
    // Frozen before the programs are loaded, so that the verifier removes the logging when it is off.
    let log_level = u8::from(verbose_log) * 5;
    let ebpf = EbpfLoader::new()
        .btf(Some(btf))
        .override_global(map::LAYOUT, layout.bytes(), true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .map_max_entries(map::RECORDS, ring_bytes)
        .verifier_log_level(verifier_log)
        .load(OBJECT)?;
    Ok(ebpf)
}

/// Takes a map out of the object.
pub fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

/// Loads the tc programs.
pub fn tc_programs(ebpf: &mut Ebpf) -> Result<Programs, LoadError> {
    Ok(Programs {
        ingress: tc_program(ebpf, false, true)?,
        egress: tc_program(ebpf, true, true)?,
        ingress_l3: tc_program(ebpf, false, false)?,
        egress_l3: tc_program(ebpf, true, false)?,
    })
}

fn tc_program(ebpf: &mut Ebpf, egress: bool, ethernet: bool) -> Result<OwnedFd, LoadError> {
    let name = TC_PROGRAMS
        .iter()
        .find(|p| p.egress == egress && p.ethernet == ethernet)
        .ok_or(LoadError::Missing("tc program"))?
        .name;
    let refused = |e: ProgramError| refused(name, &e);
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(refused)?;
    program.load().map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|e| refused(ProgramError::IOError(e)))
}

/// Loads a hook's program of type tracing.
pub fn load_tp_btf(ebpf: &mut Ebpf, hook: &HookInfo, btf: &Btf) -> Result<(), LoadError> {
    let program = tp_btf(ebpf, hook)?;
    let loaded = program.load(hook.tracepoint, btf);
    loaded.map_err(|e| refused(hook.tp_btf, &e))
}

/// Loads a hook's program of type raw tracepoint.
pub fn load_raw_tp(ebpf: &mut Ebpf, hook: &HookInfo) -> Result<(), LoadError> {
    let loaded = raw_tp(ebpf, hook)?.load();
    loaded.map_err(|e| refused(hook.raw_tp, &e))
}

/// A hook's program that is attached.
#[derive(Debug)]
pub enum HookLink {
    /// The one of type tracing.
    TpBtf(BtfTracePointLinkId),
    /// The raw tracepoint.
    RawTp(RawTracePointLinkId),
}

/// Attaches that of a hook's programs which is loaded.
pub fn attach_hook(ebpf: &mut Ebpf, hook: &HookInfo) -> Result<HookLink, LoadError> {
    let program = tp_btf(ebpf, hook)?;
    if program.fd().is_ok() {
        let link = program.attach().map_err(|e| refused(hook.tp_btf, &e))?;
        return Ok(HookLink::TpBtf(link));
    }
    let link = raw_tp(ebpf, hook)?.attach(hook.tracepoint);
    Ok(HookLink::RawTp(link.map_err(|e| refused(hook.raw_tp, &e))?))
}

/// Detaches it again; it stays loaded.
pub fn detach_hook(ebpf: &mut Ebpf, hook: &HookInfo, link: HookLink) {
    // The kernel cannot refuse; aya can only not know the link.
    match link {
        HookLink::TpBtf(id) => {
            let _ = tp_btf(ebpf, hook).map(|program| program.detach(id));
        }
        HookLink::RawTp(id) => {
            let _ = raw_tp(ebpf, hook).map(|program| program.detach(id));
        }
    }
}

fn tp_btf<'a>(ebpf: &'a mut Ebpf, hook: &HookInfo) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = ebpf.program_mut(hook.tp_btf);
    let program = program.ok_or(LoadError::Missing(hook.tp_btf))?;
    program.try_into().map_err(|e| refused(hook.tp_btf, &e))
}

fn raw_tp<'a>(ebpf: &'a mut Ebpf, hook: &HookInfo) -> Result<&'a mut RawTracePoint, LoadError> {
    let program = ebpf.program_mut(hook.raw_tp);
    let program = program.ok_or(LoadError::Missing(hook.raw_tp))?;
    program.try_into().map_err(|e| refused(hook.raw_tp, &e))
}

/// A program attached to a function.
#[derive(Debug)]
pub struct KprobeLink {
    program: &'static str,
    id: KProbeLinkId,
}

/// Loads the programs of a function, if they are not yet: functions may share them.
pub fn kprobes(ebpf: &mut Ebpf, probe: &Probe) -> Result<(), LoadError> {
    for name in programs_of(probe) {
        let program = kprobe(ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(|e| refused(name, &e))?;
        }
    }
    Ok(())
}

/// Attaches the programs of a function to it. The one on return comes first: without it a call that is noted would never end.
pub fn attach_kprobes(
    ebpf: &mut Ebpf,
    probe: &Probe,
    function: &str,
) -> Result<Vec<KprobeLink>, LoadError> {
    let mut links = Vec::new();
    for name in programs_of(probe) {
        match kprobe(ebpf, name)?.attach(function, 0) {
            Ok(id) => links.push(KprobeLink { program: name, id }),
            Err(e) => {
                for link in links {
                    detach_kprobe(ebpf, link);
                }
                return Err(refused(name, &e));
            }
        }
    }
    Ok(links)
}

/// Detaches one again.
pub fn detach_kprobe(ebpf: &mut Ebpf, link: KprobeLink) {
    if let Ok(program) = kprobe(ebpf, link.program) {
        // The kernel cannot refuse; aya can only not know the link.
        let _ = program.detach(link.id);
    }
}

fn programs_of(probe: &Probe) -> impl Iterator<Item = &'static str> {
    probe.ret.into_iter().chain([probe.entry])
}

fn kprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut KProbe, LoadError> {
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|e| refused(name, &e))
}

/// Takes a hook's program away for good.
pub fn unload_hook(ebpf: &mut Ebpf, hook: &HookInfo) {
    // The one that is not loaded has nothing to detach.
    if let Some(Program::BtfTracePoint(program)) = ebpf.program_mut(hook.tp_btf) {
        let _ = program.unload();
    }
    if let Some(Program::RawTracePoint(program)) = ebpf.program_mut(hook.raw_tp) {
        let _ = program.unload();
    }
}

fn refused(program: &'static str, error: &ProgramError) -> LoadError {
    let why = why(error);
    LoadError::Refused { program, why }
}

/// Why the kernel refused a program, in one line.
pub fn why(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => match decisive_line(&verifier_log.to_string()) {
            Some(line) => format!("{io_error}: {line}"),
            None => io_error.to_string(),
        },
        other => chain(other),
    }
}

/// How the lines begin that the verifier adds behind its verdict.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "peak_states"];

/// The line of a verifier log that says why: the last one above its statistics.
fn decisive_line(log: &str) -> Option<&str> {
    log.lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("processed "))
        .filter(|line| !line.is_empty() && !STATISTICS.iter().any(|s| line.starts_with(s)))
        .last()
}

/// An error and what it comes from, in one line.
pub fn chain(error: &dyn Error) -> String {
    causes(error).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why() {
        let log = "\
func#0 @0
0: R1=ctx() R10=fp0
1: (61) r0 = *(u32 *)(r1 +200)
invalid bpf_context access off=200 size=4
verification time 33 usec
stack depth 0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0
";
        let cut: String = log.replace("stack depth 0\n", "");
        assert_eq!(
            decisive_line(&cut),
            Some("invalid bpf_context access off=200 size=4")
        );
        assert_eq!(
            decisive_line(log),
            Some("invalid bpf_context access off=200 size=4")
        );
        assert_eq!(decisive_line(""), None);
        assert_eq!(decisive_line("processed 0 insns"), None);
    }
}
