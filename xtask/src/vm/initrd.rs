//! The guest's first root: our own first process, the modules it needs to reach the host's file system, and what it
//! is to run.

use super::cpio::Archive;
use super::image::Image;
use crate::workspace;
use anyhow::{Context, Result};
use netflow_guest::{MODULES, Request};
use std::fs;
use std::path::PathBuf;

/// What is not built into Debian's kernels on the way to the host's file system and to our ports.
const NEEDED: [&str; 5] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// Builds the first process of the guest, linked statically: nothing else is there when it starts.
pub fn build() -> Result<PathBuf> {
    workspace::compile(
        "rustc",
        &[
            "--quiet",
            "--package",
            "netflow-guest",
            "--bin",
            "netflow-guest",
        ],
        &["-C", "target-feature=+crt-static", "-C", "strip=symbols"],
    )?
    .executable("netflow-guest")
}

/// The archive for one run.
pub fn pack(init: &[u8], image: &Image, request: &Request) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("dev");
    // the kernel opens it as the first process's stdin, stdout and stderr (init/main.c, v5.10 to v7.2)
    archive.device("dev/console", 5, 1);
    archive.program("init", init);
    archive.directory(MODULES);
    for (at, path) in image.index()?.order(&NEEDED).iter().enumerate() {
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        let name = path.file_name().context("a module's name")?;
        let name = name.to_string_lossy();
        archive.file(&format!("{MODULES}/{at:02}-{name}"), &content);
    }
    for (name, content) in request.files() {
        archive.file(name, &content);
    }
    Ok(archive.finish())
}
