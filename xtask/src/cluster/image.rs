//! Images of containers, made of static programs: archives as `docker save` writes them, which no registry ever had.

use super::build;
use super::tar::Archive;
use crate::workspace;
use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Client, server, and what holds a Pod's namespaces open: the lab's traffic program.
pub const TRAFFIC: &str = "localhost/netflow-traffic:1";

/// The name server.
const COREDNS: &str = "localhost/coredns:1";

/// Builds the lab's traffic program for an image, in which nothing else is: linked statically.
pub fn build_traffic() -> Result<PathBuf> {
    let name = "netflow-traffic";
    workspace::compile(
        "rustc",
        &[
            "--quiet",
            "--package",
            "netflow-tests",
            "--bin",
            name,
            "--profile",
            "lab",
        ],
        &["-C", "target-feature=+crt-static", "-C", "strip=symbols"],
    )?
    .executable(name)
}

/// Writes the image of the traffic program. Without arguments it waits, as what holds a Pod has to.
pub fn traffic(program: &Path, to: &Path) -> Result<()> {
    write(TRAFFIC, program, &["pause"], to)
}

/// The image of the name server: beside the program, once for each.
pub fn coredns() -> Result<PathBuf> {
    let program = build::path("coredns")?;
    let to = program.with_extension("tar");
    if !to.exists() {
        let partial = program.with_extension("tar.partial");
        write(COREDNS, &program, &[], &partial)?;
        fs::rename(&partial, &to).with_context(|| to.display().to_string())?;
    }
    Ok(to)
}

fn write(name: &str, program: &Path, args: &[&str], to: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| program.display().to_string())?;
    let file = program.file_name().context("a program's name")?;
    let image = image(name, &file.to_string_lossy(), &content, args)?;
    fs::write(to, image).with_context(|| to.display().to_string())
}

/// An image of one program in one layer.
fn image(name: &str, program: &str, content: &[u8], args: &[&str]) -> Result<Vec<u8>> {
    let layer = layer(program, content);
    let digest = digest(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{program}")],
            "Cmd": args,
            "WorkingDir": "/",
            "Env": ["PATH=/"],
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    }))?;
    let config_file = format!("{}.json", self::digest(&config));
    let layer_file = format!("{digest}.tar");
    let manifest = serde_json::to_vec(&json!([
        {"Config": config_file, "RepoTags": [name], "Layers": [layer_file]},
    ]))?;
    let mut archive = Archive::default();
    archive.file(&config_file, 0o644, &config);
    archive.file(&layer_file, 0o644, &layer);
    archive.file("manifest.json", 0o644, &manifest);
    Ok(archive.finish())
}

/// The program, and what a runtime mounts upon.
fn layer(program: &str, content: &[u8]) -> Vec<u8> {
    let mut layer = Archive::default();
    for dir in ["dev/", "etc/", "proc/", "sys/"] {
        layer.directory(dir, 0o755);
    }
    layer.directory("tmp/", 0o1777);
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n",
    );
    layer.file(program, 0o755, content);
    layer.finish()
}

fn digest(bytes: &[u8]) -> String {
    let bytes = Sha256::digest(bytes);
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_what_the_archive_holds() -> Result<()> {
        let image = image("localhost/x:1", "x", b"program", &["wait"])?;
        let text = String::from_utf8_lossy(&image);
        let layer = digest(&layer("x", b"program"));
        assert!(text.contains(&format!("\"Layers\":[\"{layer}.tar\"]")));
        assert!(text.contains(&format!("sha256:{layer}")));
        assert!(text.contains("\"RepoTags\":[\"localhost/x:1\"]"));
        Ok(())
    }
}
