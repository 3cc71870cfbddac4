//! `cargo xtask vm`: other kernels than the machine's own.

mod archive;
mod console;
mod cpio;
mod guest;
mod image;
mod initrd;
mod line;
mod modules;
mod qemu;
mod watch;

use crate::cache;
use crate::lab;
use crate::setup;
use crate::table::{self, Align};
use crate::timing::Took;
use anyhow::{Context, Result};
pub use guest::Ended;
use guest::Guest;
pub use image::Image;
pub use line::{LINES, Line};
use netflow_guest::Request;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use watch::Limits;
pub use watch::Outcome;

/// Run a command on another kernel.
///
/// Debian's own kernels in an emulated machine (QEMU without KVM, so ten times slower than this one). A guest has
/// this machine's file system, read-only, with a layer in memory above it: every program here runs unchanged there,
/// and nothing that it writes remains.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  cargo xtask vm list                              the kernels
  cargo xtask vm run 6.12 -- uname -a
  cargo xtask vm run 6.12 -- netflow doctor
  cargo xtask vm run 6.1 -- sh -c 'ip netns add a && ip netns exec a nft list ruleset'

A kernel is fetched from Debian's archive through apt the first time it is used, unpacked into
$NETFLOW_CACHE (default: ~/.cache/netflow) and never installed. Removing that directory is safe.")]
pub enum Command {
    Run(Run),
    List(List),
}

/// Run a command in a guest; its exit code is the command's.
///
/// The command runs as root in the current directory with this environment, without stdin, and has the kernel's
/// modules (they load when they are needed), network namespaces, bpffs, tracefs, debugfs and cgroup2. Where it names
/// netflow or the lab's program, these are built first and found.
#[derive(clap::Args)]
#[command(after_help = "\
Exit codes besides the command's own (the shell's conventions):
  124      the command did not end within --limit
  125      the guest was lost: a panic, a stall, silence, no start; the end of its console is shown
  126, 127 the command could not be run, was not found
  128 + n  signal n ended the command")]
pub struct Run {
    /// Kernel: see `cargo xtask vm list`
    #[arg(value_name = "KERNEL")]
    line: &'static Line,
    /// How long the command may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    limit: u64,
    /// Memory of the guest, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MEMORY)]
    memory: u32,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// List the kernels, and which are fetched.
#[derive(clap::Args)]
pub struct List {}

/// Memory of a guest in MiB: what is written lies in it as well.
const MEMORY: u32 = 2560;

/// What a guest may take besides its command, on a host that is busy with other things.
const BOOT: Duration = Duration::from_mins(4);
const SILENCE: Duration = Duration::from_mins(1);

/// As timeout(1) and the shell have it.
const TOO_LONG: u8 = 124;
const LOST: u8 = 125;
const SIGNAL: u8 = 128;

/// The command.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run(run) => run_one(run),
        Command::List(List {}) => list(),
    }
}

fn run_one(run: &Run) -> Result<ExitCode> {
    let Run {
        line,
        limit,
        memory,
        command,
    } = run;
    setup::ensure(setup::For::Guests)?;
    let ours = lab::is_named(command).then(lab::build_optimized);
    let ours = ours.transpose()?;
    let init = init()?;
    let image = Image::get(line)?;
    let mut request = request(command.clone(), image.modules())?;
    if let Some(dir) = ours.as_deref().and_then(Path::parent) {
        find_first_in(&mut request, dir)?;
    }
    let Image {
        line,
        release,
        version,
        ..
    } = &image;
    eprintln!("vm: kernel {line}: {release} ({version})");
    let guest = Guest {
        image: &image,
        init: &init,
        request,
        memory: *memory,
        limits: Limits {
            boot: BOOT,
            silence: SILENCE,
            command: Duration::from_secs(*limit),
        },
    };
    let Ended {
        outcome,
        console,
        boot,
    } = guest.run(std::io::stdout(), std::io::stderr())?;
    if let Some(boot) = boot {
        eprintln!(
            "vm: kernel {line}: the command started {} after power on",
            Took(boot)
        );
    }
    Ok(ExitCode::from(match outcome {
        Outcome::Exited(code) => code,
        Outcome::Killed(signal) => {
            eprintln!("vm: signal {signal} ended the command");
            SIGNAL.saturating_add(signal)
        }
        Outcome::TooLong => {
            eprintln!("vm: the command did not end within {limit} s (--limit)\n{console}");
            TOO_LONG
        }
        Outcome::Lost(loss) => {
            eprintln!("vm: kernel {line}: {loss}; the end of its console:\n{console}");
            LOST
        }
    }))
}

/// The first process of every guest.
pub fn init() -> Result<Vec<u8>> {
    let path = initrd::build()?;
    fs::read(&path).with_context(|| path.display().to_string())
}

/// Runs a command in a guest as it would run here; what it prints goes to `stdout`, what it complains of to ours.
pub fn capture(
    image: &Image,
    init: &[u8],
    args: Vec<OsString>,
    limit: Duration,
    stdout: impl Write + Send,
) -> Result<Ended> {
    let guest = Guest {
        image,
        init,
        request: request(args, image.modules())?,
        memory: MEMORY,
        limits: Limits {
            boot: BOOT,
            silence: SILENCE,
            command: limit,
        },
    };
    guest.run(stdout, std::io::stderr())
}

/// The command as it would run here and now.
fn request(args: Vec<OsString>, modules: PathBuf) -> Result<Request> {
    Ok(Request {
        args,
        env: std::env::vars_os().collect(),
        cwd: std::env::current_dir().context("the current directory")?,
        modules,
    })
}

/// Programs in `dir` are found before all others.
fn find_first_in(request: &mut Request, dir: &Path) -> Result<()> {
    let paths = |(name, value): &(OsString, OsString)| {
        (name == "PATH").then(|| std::env::split_paths(value).collect::<Vec<_>>())
    };
    let rest = request.env.iter().find_map(paths).unwrap_or_default();
    let path = std::env::join_paths([vec![dir.to_owned()], rest].concat())?;
    request.env.retain(|(name, _)| name != "PATH");
    request.env.push(("PATH".into(), path));
    Ok(())
}

fn list() -> Result<ExitCode> {
    let mut rows = Vec::new();
    for line in &LINES {
        let (release, state) = match Image::cached(line)? {
            Some(image) => (image.release.clone(), format!("fetched, {}", image.version)),
            None => (line.pinned.to_owned(), "not fetched".to_owned()),
        };
        rows.push([line.name.to_owned(), release, state, line.why.to_owned()]);
    }
    let heads = ["kernel", "release", "package", "why"].map(|head| (head, Align::Left));
    print!("{}", table::render(heads, &rows));
    println!("in {}", cache::kernels()?.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_programs_are_found_first() -> Result<()> {
        let mut request = Request {
            args: Vec::new(),
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("HOME".into(), "/root".into()),
            ],
            cwd: PathBuf::new(),
            modules: PathBuf::new(),
        };
        find_first_in(&mut request, Path::new("/built"))?;
        let path = ("PATH".into(), "/built:/usr/bin:/bin".into());
        assert_eq!(request.env, [("HOME".into(), "/root".into()), path]);
        Ok(())
    }
}
