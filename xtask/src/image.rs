//! `cargo xtask image`: the image of netflow, without a container engine and without a registry.

pub mod oci;
mod tar;

use crate::build_ebpf::Output;
use crate::setup;
use crate::workspace;
use anyhow::{Context, Result, bail};
use cargo_metadata::Metadata;
use object::Endianness;
use object::elf::PT_INTERP;
use object::read::elf::{ElfFile64, ProgramHeader};
use serde_json::json;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the binary may have (the budgets of docs/bench.md).
const LARGEST: u64 = 25 << 20;

/// Build netflow as it is shipped, and put it into an image: one static binary, nothing else.
///
/// The archive is of the OCI image layout, as `ctr images import` reads it. The first build takes a quarter of an hour: the whole
/// program is optimised at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask image                                  target/netflow-image.tar
  cargo xtask image --name registry.example/netflow:1.2 --to netflow.tar
  ctr --namespace k8s.io images import target/netflow-image.tar")]
pub struct Args {
    /// Name of the image, with a tag [default: localhost/netflow:VERSION]
    #[arg(long)]
    name: Option<String>,
    /// Where the archive is written [default: target/netflow-image.tar]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// How to print what was made
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::For::Shipping)?;
    let program = shipped()?;
    let size = fs::metadata(&program)
        .with_context(|| program.display().to_string())?
        .len();
    let metadata = workspace::metadata()?;
    let version = version(&metadata)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(&version),
    };
    let image = of(&program, &name, version)?;
    let to = match &args.to {
        Some(to) => to.clone(),
        None => metadata.target_directory.join("netflow-image.tar").into(),
    };
    fs::write(&to, &image.archive).with_context(|| to.display().to_string())?;
    print(args.output, &name, &image.digest, &to, size);
    if size > LARGEST {
        eprintln!("the binary has more than the {LARGEST} bytes that it may have");
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// The image of another static netflow, under the same name.
pub fn unshipped(program: &Path) -> Result<oci::Image> {
    let version = version(&workspace::metadata()?)?;
    of(program, &default_name(&version), version)
}

/// As the objects of `netflow install` have it.
fn default_name(version: &str) -> String {
    format!("localhost/netflow:{version}")
}

fn of(program: &Path, name: &str, version: String) -> Result<oci::Image> {
    oci::Recipe {
        name,
        program,
        args: &["agent"],
        directories: &["run/", "run/netflow/"],
        labels: labels(version),
    }
    .image()
}

fn print(output: Output, name: &str, digest: &str, to: &Path, size: u64) {
    match output {
        Output::Text => println!(
            "{name}\n{digest}\n{}\nbinary {size} bytes (at most {LARGEST})",
            to.display()
        ),
        Output::Json => println!(
            "{}",
            json!({"name": name, "digest": digest, "archive": to, "binary_bytes": size})
        ),
    }
}

/// Builds the binary that is shipped: static, for musl, and without the paths of who built it.
pub fn shipped() -> Result<PathBuf> {
    let target = setup::static_target();
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--profile", "dist"])
        .args(["--package", "netflow-user", "--bin", "netflow"])
        .args(["--target", &target, workspace::MESSAGES])
        .env("RUSTFLAGS", remapped()?)
        // What is written in C is for no C library: the machine's compiler does.
        .env(format!("CC_{}", target.replace('-', "_")), "cc");
    let program = workspace::built(&mut cargo)?.executable("netflow")?;
    if is_dynamic(&program)? {
        bail!("{} is not linked statically", program.display());
    }
    Ok(program)
}

/// Flags that leave the directories of this machine out of panics' places.
fn remapped() -> Result<String> {
    let home = |name: &str, dir: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .or_else(|| Some(env::home_dir()?.join(dir)))
            .with_context(|| format!("neither {name} nor HOME is set"))
    };
    let pairs = [
        (workspace::root().to_owned(), "netflow"),
        (home("CARGO_HOME", ".cargo")?, "cargo"),
        (home("RUSTUP_HOME", ".rustup")?, "rustup"),
    ];
    let flags = pairs.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    Ok(flags.join(" "))
}

/// Whether an ELF asks for a loader (`PT_INTERP`).
fn is_dynamic(program: &Path) -> Result<bool> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let file = ElfFile64::<Endianness>::parse(&*bytes)?;
    let endian = file.endian();
    let mut headers = file.elf_program_headers().iter();
    Ok(headers.any(|header| header.p_type(endian) == PT_INTERP))
}

/// netflow's version.
fn version(metadata: &Metadata) -> Result<String> {
    let mut packages = metadata.packages.iter();
    let netflow = packages.find(|package| package.name == "netflow-user");
    Ok(netflow
        .context("no package netflow-user")?
        .version
        .to_string())
}

/// The usual ones (<https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md>).
fn labels(version: String) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title", "netflow".to_owned()),
        ("org.opencontainers.image.version", version),
        (
            "org.opencontainers.image.licenses",
            "Apache-2.0 OR MIT".to_owned(),
        ),
    ]);
    let revision = |commit| ("org.opencontainers.image.revision", commit);
    labels.extend(workspace::commit().map(revision));
    labels
}
