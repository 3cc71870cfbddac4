//! A kernel's modules: which are kept, and in which order they load.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories below `kernel/` that are kept with all that is in them.
const TREES: [&str; 15] = [
    "net",
    "lib",
    "crypto",
    "arch/x86/crypto",
    "drivers/virtio",
    "drivers/net/bonding",
    "drivers/net/ipvlan",
    "drivers/net/netdevsim",
    "drivers/net/vxlan",
    "drivers/net/wireguard",
    "fs/9p",
    "fs/fscache",
    "fs/netfs",
    "fs/overlayfs",
    "fs/nls",
];

/// Directories of which only the modules directly in them are kept.
const FLAT: [&str; 2] = ["drivers/net", "drivers/char"];

/// The modules below `kernel` that a network in a virtual machine can use, by their path in it.
pub fn wanted(kernel: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for tree in TREES {
        walk(kernel, Path::new(tree), true, &mut found)?;
    }
    for dir in FLAT {
        walk(kernel, Path::new(dir), false, &mut found)?;
    }
    Ok(found)
}

fn walk(kernel: &Path, dir: &Path, deep: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let full = kernel.join(dir);
    // no kernel has them all
    if !full.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&full).with_context(|| full.display().to_string())? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            found.push(path);
        } else if deep {
            walk(kernel, &path, deep, found)?;
        }
    }
    Ok(())
}

/// modules.dep(5): what has to be loaded before what.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    needs: HashMap<String, (String, Vec<String>)>,
}

impl Modules {
    /// Reads that of /lib/modules/RELEASE.
    pub fn read(dir: &Path) -> Result<Modules> {
        let path = dir.join("modules.dep");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Modules::parse(dir, &text))
    }

    fn parse(dir: &Path, text: &str) -> Modules {
        let needs = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                (name(file), (file.to_owned(), needs))
            })
            .collect();
        Modules {
            dir: dir.to_owned(),
            needs,
        }
    }

    /// The files of `names` and of all they need, in the order of loading. A name that is not there is built in.
    pub fn order(&self, names: &[&str]) -> Vec<PathBuf> {
        let mut order: Vec<&String> = Vec::new();
        for (file, needs) in names.iter().filter_map(|name| self.needs.get(*name)) {
            // modules.dep lists everything below a module, the nearest first
            for file in needs.iter().rev().chain([file]) {
                if !order.contains(&file) {
                    order.push(file);
                }
            }
        }
        order.iter().map(|file| self.dir.join(file)).collect()
    }
}

/// `kernel/net/9p/9pnet_virtio.ko` is `9pnet_virtio`; the kernel takes - and _ for the same.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split('.').next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio-pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
";

    #[test]
    fn modules_load_after_what_they_need_and_once() {
        let modules = Modules::parse(Path::new("/m"), DEP);
        let order = modules.order(&["virtio_pci", "9pnet_virtio", "built_in"]);
        let names: Vec<String> = order
            .iter()
            .map(|path| name(&path.to_string_lossy()))
            .collect();
        assert_eq!(
            names,
            [
                "virtio",
                "virtio_ring",
                "virtio_pci",
                "9pnet",
                "9pnet_virtio"
            ]
        );
        assert!(order.iter().all(|path| path.starts_with("/m/kernel")));
    }

    #[test]
    fn names_are_as_the_kernel_takes_them() {
        assert_eq!(name("kernel/a/nf-x.ko.xz"), "nf_x");
        assert_eq!(name("plain.ko"), "plain");
    }

    #[test]
    fn drivers_of_real_cards_are_left_out() -> Result<()> {
        let kernel = std::env::temp_dir().join(format!("netflow-modules-{}", std::process::id()));
        for file in [
            "net/netfilter/ipvs/ip_vs.ko",
            "drivers/net/veth.ko",
            "drivers/net/ethernet/big.ko",
            "drivers/gpu/bigger.ko",
        ] {
            let path = kernel.join(file);
            fs::create_dir_all(path.parent().context("a parent")?)?;
            fs::write(path, "")?;
        }
        let found = wanted(&kernel);
        fs::remove_dir_all(&kernel)?;
        assert_eq!(
            found?,
            ["net/netfilter/ipvs/ip_vs.ko", "drivers/net/veth.ko"].map(PathBuf::from)
        );
        Ok(())
    }
}
