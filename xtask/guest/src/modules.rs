//! The kernel modules without which the host's file system cannot be mounted.

use anyhow::{Context, Result};
use netflow_guest::MODULES;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::{self, File};
use std::path::Path;

/// Loads those of the initrd in the order of their names, which is that of their dependencies.
pub fn load() -> Result<()> {
    let mut files = fs::read_dir(Path::new("/").join(MODULES))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    for path in files {
        let file = File::open(&path)?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(())
}
