//! An image of one static program, as an archive of the OCI image layout
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).
//!
//! Nothing in it says when or by whom it was made: the same program is the same image.

use super::tar::Archive;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of.
pub struct Recipe<'a> {
    /// Its name, with a tag.
    pub name: &'a str,
    /// The program, linked statically; it lies in `/` under its file name.
    pub program: &'a Path,
    /// Arguments that it gets where nobody gives others.
    pub args: &'a [&'a str],
    /// Directories beside those that every image has, upon which something is mounted.
    pub directories: &'a [&'a str],
    /// Labels.
    pub labels: BTreeMap<&'a str, String>,
}

/// An image.
pub struct Image {
    /// The archive.
    pub archive: Vec<u8>,
    /// Digest of its manifest, which names the image wherever it goes.
    pub digest: String,
}

impl Recipe<'_> {
    /// Makes it.
    pub fn image(&self) -> Result<Image> {
        let content = fs::read(self.program).with_context(|| self.program.display().to_string())?;
        let file = self.program.file_name().context("a program's name")?;
        self.of(&file.to_string_lossy(), &content)
    }

    fn of(&self, program: &str, content: &[u8]) -> Result<Image> {
        let Recipe {
            name,
            program: _,
            args,
            directories,
            labels,
        } = self;
        let layer = layer(program, content, directories);
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": [format!("/{program}")],
                "Cmd": args,
                "WorkingDir": "/",
                "Env": ["PATH=/"],
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        }))?;
        let mut listed = descriptor(MANIFEST, &manifest);
        // The second is what containerd calls it when it imports the archive.
        listed["annotations"] = json!({
            "org.opencontainers.image.ref.name": name,
            "io.containerd.image.name": name,
        });
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [listed]}))?;
        let mut archive = Archive::default();
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.file("index.json", 0o644, &index);
        archive.directory("blobs/", 0o755);
        archive.directory("blobs/sha256/", 0o755);
        for blob in [&config, &layer, &manifest] {
            archive.file(&format!("blobs/sha256/{}", hex(blob)), 0o644, blob);
        }
        Ok(Image {
            archive: archive.finish(),
            digest: digest(&manifest),
        })
    }
}

/// As Go, and so the specification, calls this machine's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The program, and what a runtime mounts upon, where the root may be read-only.
fn layer(program: &str, content: &[u8], directories: &[&str]) -> Vec<u8> {
    let mut layer = Archive::default();
    for dir in ["dev/", "etc/", "proc/", "sys/"] {
        layer.directory(dir, 0o755);
    }
    layer.directory("tmp/", 0o1777);
    for dir in directories {
        layer.directory(dir, 0o755);
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n",
    );
    layer.file(program, 0o755, content);
    layer.finish()
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    let bytes = Sha256::digest(blob);
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use std::process::Command;

    fn recipe() -> Recipe<'static> {
        Recipe {
            name: "localhost/x:1",
            program: Path::new("/nowhere/x"),
            args: &["wait"],
            directories: &["run/", "run/x/"],
            labels: BTreeMap::from([("org.opencontainers.image.version", "1".to_owned())]),
        }
    }

    /// What tar finds in an archive under a name.
    fn member(archive: &Path, name: &str) -> Result<String> {
        process::read(Command::new("tar").arg("-xOf").arg(archive).arg(name))
    }

    #[test]
    fn every_digest_leads_to_a_blob_that_has_it() -> Result<()> {
        let image = recipe().of("x", b"program")?;
        let file = std::env::temp_dir().join(format!("netflow-oci-{}", std::process::id()));
        fs::write(&file, &image.archive)?;
        let blob = |descriptor: &Value| -> Result<String> {
            let digest = descriptor["digest"].as_str().context("a digest")?;
            member(&file, &format!("blobs/{}", digest.replace(':', "/")))
        };
        let read = || -> Result<(Value, Value, Value)> {
            let index: Value = serde_json::from_str(&member(&file, "index.json")?)?;
            let listed = &index["manifests"][0];
            let manifest: Value = serde_json::from_str(&blob(listed)?)?;
            let config = serde_json::from_str(&blob(&manifest["config"])?)?;
            Ok((listed.clone(), manifest, config))
        };
        let all = read();
        fs::remove_file(&file)?;
        let (listed, manifest, config) = all?;
        assert_eq!(listed["digest"], image.digest);
        assert_eq!(
            listed["annotations"]["io.containerd.image.name"],
            "localhost/x:1"
        );
        let layer = layer("x", b"program", &["run/", "run/x/"]);
        assert_eq!(manifest["layers"][0]["digest"], digest(&layer));
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(config["config"]["Entrypoint"][0], "/x");
        assert_eq!(config["config"]["Cmd"][0], "wait");
        Ok(())
    }

    #[test]
    fn the_same_program_is_the_same_image_and_another_is_another() -> Result<()> {
        let digest = |content: &[u8]| recipe().of("x", content).map(|image| image.digest);
        assert_eq!(digest(b"program")?, digest(b"program")?);
        assert_ne!(digest(b"program")?, digest(b"other")?);
        Ok(())
    }
}
