//! An unpacked kernel in the cache: `vmlinuz`, the modules that a network can use, and the version of its package.

use super::archive::Suite;

use super::line::Line;
use super::modules::{self, Modules};
use crate::cache::{self, Lock};
use crate::process;
use crate::timing::Took;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its line: `6.12`.
    pub line: &'static str,
    /// What `uname -r` says in it.
    pub release: String,
    /// The version of its Debian package.
    pub version: String,
    dir: PathBuf,
}

const VMLINUZ: &str = "vmlinuz";
const VERSION: &str = "version";

impl Image {
    /// The line's kernel; fetched unless it is in the cache.
    pub fn get(line: &'static Line) -> Result<Image> {
        if let Some(image) = Image::cached(line)? {
            return Ok(image);
        }
        let _lock = Lock::take()?;
        if let Some(image) = Image::cached(line)? {
            return Ok(image);
        }
        fetch(line)?;
        Image::cached(line)?.with_context(|| format!("kernel {} was not unpacked", line.name))
    }

    /// The line's kernel if it is in the cache. The cache is keyed by the pinned release, even where another had to
    /// stand in, so that a new pin is followed.
    pub fn cached(line: &'static Line) -> Result<Option<Image>> {
        let dir = cache::kernels()?.join(line.pinned);
        let Ok(version) = fs::read_to_string(dir.join(VERSION)) else {
            return Ok(None);
        };
        let (release, version) = version
            .trim()
            .split_once(' ')
            .with_context(|| format!("{}: not as we wrote it", dir.display()))?;
        Ok(Some(Image {
            line: line.name,
            release: release.to_owned(),
            version: version.to_owned(),
            dir,
        }))
    }

    /// The compressed kernel.
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join(VMLINUZ)
    }

    /// What belongs at /lib/modules.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }

    /// Its modules and what they depend on.
    pub fn index(&self) -> Result<Modules> {
        Modules::read(&self.modules().join(&self.release))
    }
}

fn fetch(line: &'static Line) -> Result<()> {
    let began = Instant::now();
    let kernels = cache::kernels()?;
    // on the same file system, so that it can be renamed
    let work = kernels.join(format!("{}.partial", line.pinned));
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    let debs = work.join("debs");
    fs::create_dir_all(&debs).with_context(|| debs.display().to_string())?;
    let (suite, release) = find(line, &work.join("apt"))?;
    let image = format!("linux-image-{release}");
    let version = suite.version(&image)?;
    eprintln!(
        "vm: kernel {}: fetching {release} {version}{}",
        line.name,
        if release == line.pinned {
            String::new()
        } else {
            format!(
                ", the newest of its line: the archive has no {}",
                line.pinned
            )
        }
    );
    // from 7.x on linux-image is empty and depends on what it held
    let mut packages = suite.parts(&image, &release)?;
    packages.push(image);
    suite.download(&packages, &debs)?;
    let ready = work.join("image");
    unpack(&debs, &release, &work.join("unpacked"), &ready)?;
    fs::write(ready.join(VERSION), format!("{release} {version}\n"))?;
    let dir = kernels.join(line.pinned);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    fs::rename(&ready, &dir).with_context(|| dir.display().to_string())?;
    fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    eprintln!(
        "vm: kernel {}: unpacked in {}",
        line.name,
        Took(began.elapsed())
    );
    Ok(())
}

/// The suite that has the pinned release, else the newest of the line among all.
fn find(line: &'static Line, dir: &Path) -> Result<(Suite, String)> {
    let mut best: Option<(Suite, String)> = None;
    let mut failed = None;
    for name in line.suites {
        let suite = match Suite::fetch(name, dir) {
            Ok(suite) => suite,
            // a suite that is gone does not hide the others
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let packages = suite.packages(&format!("linux-image-{}.", line.name))?;
        let before = best
            .as_ref()
            .map(|(_, release)| format!("linux-image-{release}"));
        let candidates = packages.iter().chain(&before).map(String::as_str);
        let Some(release) = line.choose(candidates) else {
            continue;
        };
        if best.as_ref().is_none_or(|(_, before)| before != release) {
            best = Some((suite, release.to_owned()));
        }
        if best
            .as_ref()
            .is_some_and(|(_, release)| release == line.pinned)
        {
            break;
        }
    }
    match (best, failed) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(error),
        (None, None) => bail!(
            "no suite of {} has a kernel {}",
            line.suites.join(", "),
            line.name
        ),
    }
}

/// Takes out of the packages what an image holds.
fn unpack(debs: &Path, release: &str, unpacked: &Path, image: &Path) -> Result<()> {
    for deb in fs::read_dir(debs)? {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("-x").arg(deb?.path()).arg(unpacked);
        process::run(&mut dpkg)?;
    }
    // Debian moved both under /usr, and vmlinuz beside the modules
    let first = |places: [String; 2]| {
        places
            .iter()
            .map(|place| unpacked.join(place))
            .find(|path| path.exists())
            .with_context(|| {
                format!(
                    "the packages of {release} hold none of {}",
                    places.join(", ")
                )
            })
    };
    let tree = first([
        format!("usr/lib/modules/{release}"),
        format!("lib/modules/{release}"),
    ])?;
    let vmlinuz = first([
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ])?;
    let kept = image.join("lib/modules").join(release);
    fs::create_dir_all(&kept).with_context(|| kept.display().to_string())?;
    fs::rename(&vmlinuz, image.join(VMLINUZ)).context("vmlinuz")?;
    keep(&tree, &kept)?;
    let mut depmod = Command::new(process::find("depmod").context("depmod (package kmod)")?);
    depmod.arg("-b").arg(image).arg(release);
    process::run(&mut depmod)
}

/// Moves the modules that are wanted, and what depmod reads; unpacks the modules, which an emulated CPU would do
/// each time.
fn keep(tree: &Path, kept: &Path) -> Result<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("modules.") {
            fs::rename(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    let kernel = tree.join("kernel");
    let mut packed = Vec::new();
    for module in modules::wanted(&kernel)? {
        let to = kept.join("kernel").join(&module);
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::rename(kernel.join(&module), &to).with_context(|| to.display().to_string())?;
        if to.extension() == Some(OsStr::new("xz")) {
            packed.push(to);
        }
    }
    if packed.is_empty() {
        return Ok(());
    }
    process::run(Command::new("xz").arg("--decompress").args(&packed))
}
