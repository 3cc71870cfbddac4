//! `cargo xtask setup`: what a fresh machine misses.

mod go;
mod linker;
mod packages;
mod target;
mod toolchain;

pub use target::name as static_target;

use crate::timing::Took;
use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use std::time::Instant;

/// Install what is missing: the pinned toolchain, bpf-linker, Debian packages.
///
/// Changes nothing that is already right; a second run takes less than a second. The other commands do this
/// themselves before they start.
#[derive(clap::Args)]
pub struct Args {
    /// Only report; exit 1 if something is missing
    #[arg(long)]
    check: bool,
}

/// Something that has to be on the machine.
trait Need {
    /// What it is, with its version where that is pinned.
    fn name(&self) -> String;
    /// Whether it is there.
    fn check(&self) -> Result<State>;
    /// Installs it.
    fn install(&self) -> Result<()>;
    /// The command that installs it, for people.
    fn command(&self) -> String;
}

/// Whether something is there.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It is.
    Present,
    /// It is not: what exactly.
    Missing(String),
}

/// What a command cannot do without.
#[derive(Clone, Copy)]
pub enum For {
    /// Building, also the BPF object.
    Building,
    /// Building, and the tools that make up the lab's nodes.
    Lab,
    /// The same, and the emulator with what unpacks its kernels.
    Guests,
    /// The same as the lab, and Go with what runs containers.
    Cluster,
    /// Building what is shipped.
    Shipping,
    /// Building, C++ included.
    Fuzzing,
    /// Whatever any command needs, but a cluster's, which brings a daemon, and what only shipping needs: only those who do so have it.
    Everything,
}

fn needs(scope: For) -> Vec<Box<dyn Need>> {
    let mut needs: Vec<Box<dyn Need>> =
        vec![Box::new(toolchain::Toolchain), Box::new(linker::Linker)];
    let packages: &[packages::Packages] = match scope {
        For::Building => &[],
        For::Lab => &[packages::LAB],
        For::Guests => &[packages::LAB, packages::GUESTS],
        For::Cluster => {
            needs.push(Box::new(go::Go));
            &[packages::LAB, packages::CLUSTER]
        }
        For::Shipping => {
            needs.push(Box::new(target::Target));
            &[]
        }
        For::Fuzzing => &[packages::FUZZING],
        For::Everything => &[packages::LAB, packages::GUESTS, packages::FUZZING],
    };
    needs.extend(
        packages
            .iter()
            .map(|packages| -> Box<dyn Need> { Box::new(*packages) }),
    );
    needs
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let mut missing = 0;
    for need in needs(For::Everything) {
        match need.check()? {
            State::Present => println!("{}: present", need.name()),
            State::Missing(what) if args.check => {
                missing += 1;
                println!(
                    "{}: missing: {what}; install: {}",
                    need.name(),
                    need.command()
                );
            }
            State::Missing(what) => install(need.as_ref(), &what)?,
        }
    }
    if missing > 0 {
        return Ok(ExitCode::from(1));
    }
    println!("setup: ready ({})", Took(began.elapsed()));
    Ok(ExitCode::SUCCESS)
}

/// Installs what `scope` misses; silent when nothing does.
pub fn ensure(scope: For) -> Result<()> {
    for need in needs(scope) {
        if let State::Missing(what) = need.check()? {
            install(need.as_ref(), &what)?;
        }
    }
    Ok(())
}

/// Installs one and makes sure that it is there now. The installer's own output is the progress.
fn install(need: &dyn Need, what: &str) -> Result<()> {
    let began = Instant::now();
    eprintln!(
        "setup: {}: missing: {what}; running {}",
        need.name(),
        need.command()
    );
    need.install()
        .with_context(|| format!("{} could not be installed", need.name()))?;
    if let State::Missing(what) = need.check()? {
        bail!(
            "{} was installed, and still is missing: {what}",
            need.name()
        );
    }
    eprintln!(
        "setup: {}: installed in {}",
        need.name(),
        Took(began.elapsed())
    );
    Ok(())
}
