//! Images of the cluster's containers, made of static programs, which no registry ever had.

use super::build;
use crate::image::oci::Recipe;
use crate::workspace;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
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
    let to = program.with_extension("oci.tar");
    if !to.exists() {
        let partial = program.with_extension("oci.tar.partial");
        write(COREDNS, &program, &[], &partial)?;
        fs::rename(&partial, &to).with_context(|| to.display().to_string())?;
    }
    Ok(to)
}

fn write(name: &str, program: &Path, args: &[&str], to: &Path) -> Result<()> {
    let recipe = Recipe {
        name,
        program,
        args,
        directories: &[],
        labels: BTreeMap::new(),
    };
    fs::write(to, recipe.image()?.archive).with_context(|| to.display().to_string())
}
