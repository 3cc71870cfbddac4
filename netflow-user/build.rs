//! Builds the BPF object into `OUT_DIR/netflow`, from where `kernel/` embeds it, and the messages of `proto/`.
//!
//! The object is built by the same pinned stable toolchain as everything else: `core` for the BPF target comes from
//! rust-src by `-Z build-std`, which a stable cargo takes when `RUSTC_BOOTSTRAP=1`. Only the nested cargo sees
//! that variable.

use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

fn main() -> ExitCode {
    println!("cargo:rerun-if-env-changed=PATH");
    tell_commit();
    match messages().and_then(|()| build()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

/// What agents are asked, and answer.
fn messages() -> Result<(), String> {
    const DIRECTORY: &str = "proto";
    const FILE: &str = "proto/netflow/v1/evidence.proto";
    println!("cargo:rerun-if-changed={FILE}");
    let files = protox::compile([FILE], [DIRECTORY]).map_err(|e| format!("{FILE}: {e}"))?;
    tonic_prost_build::configure()
        .compile_fds(files)
        .map_err(|e| format!("{FILE}: {e}"))
}

fn build() -> Result<(), String> {
    let skip = env::var("AYA_BUILD_SKIP").is_ok_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
    if !skip {
        check_tools()?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netflow-ebpf");
    let root = root
        .to_str()
        .ok_or("the path to this checkout is not UTF-8")?;
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".into());
    #[expect(
        unsafe_code,
        reason = "no other thread of this build script exists yet"
    )]
    // SAFETY: as the reason says.
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build shows every line of the nested cargo as a warning: only real ones, please.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "netflow-ebpf",
            root_dir: root,
            ..Default::default()
        }],
        aya_build::Toolchain::Custom(&toolchain),
    )
    .map_err(|e| format!("{e:#}").replace('\n', " "))?;
    if skip {
        return Ok(());
    }
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let object = Path::new(&out).join("netflow");
    strip(&object).map_err(|e| format!("{}: {e}", object.display()))
}

/// Takes DWARF out of the object, from which the linker made BTF: the kernel reads that alone, and the rest would be most of the
/// object, with the directories of who built it.
fn strip(file: &Path) -> Result<(), Box<dyn Error>> {
    let content = fs::read(file)?;
    let mut object = Builder::read(&*content)?;
    for section in &mut object.sections {
        let relocated = section.name.strip_prefix(b".rel".as_slice());
        section.delete = relocated.unwrap_or(&section.name).starts_with(b".debug_");
    }
    object.delete_orphans();
    // LLVM keeps names of sections and of symbols in one table, which is written as the symbols' here.
    let names = object.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    fs::write(file, stripped)?;
    Ok(())
}

/// Puts the commit into the binary, where there is a checkout to ask.
fn tell_commit() {
    // Written at each commit and checkout.
    println!("cargo:rerun-if-changed=../.git/logs/HEAD");
    let asked = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    let commit = asked.ok().filter(|o| o.status.success());
    if let Some(commit) = commit.and_then(|o| String::from_utf8(o.stdout).ok()) {
        println!("cargo:rustc-env=NETFLOW_COMMIT={}", commit.trim());
    }
}

/// What the nested build cannot do without, so that a missing tool is one line and not a page of backtrace.
fn check_tools() -> Result<(), String> {
    if find_in_path("bpf-linker").is_none() {
        return Err("bpf-linker is not installed: run `cargo xtask setup` (or `cargo install bpf-linker --version 0.10.4 --locked`)".into());
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| format!("{}: {e}", rustc.display()))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout);
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if fs::metadata(core).is_err() {
        return Err(
            "rust-src is not installed: run `cargo xtask setup` (or `rustup component add rust-src`)"
                .into(),
        );
    }
    Ok(())
}

fn find_in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
