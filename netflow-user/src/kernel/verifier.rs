//! What the kernel's verifier spends on each program.
//!
//! It walks every way through a program and gives up after so many instructions; how many it took differs from kernel to kernel, since
//! each knows other ways to be sure that it has been somewhere before. The count stands in its statistics, which the kernel has told of
//! loaded programs since 5.16 only and aya keeps of refused ones only. So every program is loaded while no file can be opened: the
//! kernel verifies it, has no descriptor to give, and the statistics come back with that error (`bpf_prog_load`,
//! <https://elixir.bootlin.com/linux/v5.10/source/kernel/bpf/syscall.c>).

use super::load::{self, Parameters};
use super::{KernelError, Options, aya_btf, check_privileges, read_kernel, sys};
use aya::programs::{Program, ProgramError};
use aya::{Btf, VerifierLogLevel};
use netflow_ebpf::HOOKS;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// The instructions that the verifier goes through at most (`BPF_COMPLEXITY_LIMIT_INSNS`,
/// <https://elixir.bootlin.com/linux/v5.10/source/include/linux/bpf.h>).
pub const LIMIT: u32 = 1_000_000;

/// What a program took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effort {
    /// Its name in the object.
    pub program: String,
    /// Instructions that the verifier went through, all that it calls included; `None` if it did not get as far as counting.
    pub instructions: Option<u32>,
    /// Why the kernel refused it.
    pub refused: Option<String>,
}

/// Has the kernel verify every program, with the offsets and switches that it would run with. Nothing is attached.
pub fn efforts(options: &Options) -> Result<Vec<Effort>, KernelError> {
    check_privileges()?;
    let own = sys::current_netns().map_err(KernelError::io("own network namespace"))?;
    let mut layout = read_kernel(options.btf.as_deref(), own)?.filled.layout;
    layout.ring_limit = options.ring_bytes / 4 * 3;
    let btf = aya_btf(options.btf.as_deref())?;
    let mut ebpf = load::object(Parameters {
        layout: &layout,
        btf: &btf,
        ring_bytes: options.ring_bytes,
        verbose_log: options.verbose_log,
        verifier_log: VerifierLogLevel::STATS,
    })?;
    let no_files = NoFiles::begin().map_err(KernelError::io("RLIMIT_NOFILE"))?;
    let mut efforts: Vec<Effort> = ebpf
        .programs_mut()
        .map(|(name, program)| effort(name, verify(name, program, &btf)))
        .collect();
    drop(no_files);
    efforts.sort_by(|a, b| a.program.cmp(&b.program));
    Ok(efforts)
}

fn verify(name: &str, program: &mut Program, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::KProbe(program) => program.load(),
        Program::BtfTracePoint(program) => {
            let hook = HOOKS.iter().find(|hook| hook.tp_btf == name);
            program.load(hook.map_or(name, |hook| hook.tracepoint), btf)
        }
        // The object has no others; one that comes to it shall be seen here.
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn effort(name: &str, loaded: Result<(), ProgramError>) -> Effort {
    let program = name.to_owned();
    let Err(error) = loaded else {
        return Effort {
            program,
            instructions: None,
            refused: None,
        };
    };
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = &error
    else {
        return Effort {
            program,
            instructions: None,
            refused: Some(load::chain(&error)),
        };
    };
    let accepted = io_error.raw_os_error() == Some(Errno::EMFILE as i32);
    Effort {
        program,
        instructions: instructions(&verifier_log.to_string()),
        refused: (!accepted).then(|| load::why(&error)),
    }
}

/// The count in the verifier's statistics.
fn instructions(log: &str) -> Option<u32> {
    log.lines()
        .find_map(|line| line.strip_prefix("processed "))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|count| count.parse().ok())
}

/// For as long as it lives this process can open no file.
struct NoFiles {
    soft: u64,
    hard: u64,
}

impl NoFiles {
    fn begin() -> Result<NoFiles, std::io::Error> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard)?;
        Ok(NoFiles { soft, hard })
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        // What was the limit before cannot be refused.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_in_the_statistics() {
        let log = "\
verification time 2 usec
stack depth 8
processed 1234 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 2
";
        assert_eq!(instructions(log), Some(1234));
        assert_eq!(instructions("stack depth 8"), None);
    }
}
