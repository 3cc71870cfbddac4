//! The programs of a cluster, built from Go modules that tests/cluster pins, once for each pin.

use crate::cache::{self, Lock};
use crate::process;
use crate::timing::Took;
use crate::workspace;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A program and the Go package that it is.
struct Program {
    name: &'static str,
    package: &'static str,
    /// Whether a control plane without nodes has it.
    control: bool,
}

/// A Go module of ours, which pins one of theirs and all that it depends on.
struct Module {
    /// Its directory in tests/cluster.
    dir: &'static str,
    /// What it pins.
    pins: &'static str,
    /// Where the program keeps its version, which the linker writes there.
    version: &'static [&'static str],
    programs: &'static [Program],
}

const MODULES: [Module; 3] = [
    Module {
        dir: "etcd",
        pins: "go.etcd.io/etcd/server/v3",
        version: &[],
        programs: &[Program::control("etcd", "go.etcd.io/etcd/server/v3")],
    },
    Module {
        dir: "kubernetes",
        pins: "k8s.io/kubernetes",
        version: &[
            "k8s.io/component-base/version.gitVersion",
            "k8s.io/client-go/pkg/version.gitVersion",
        ],
        programs: &[
            Program::control("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            Program::control("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            Program::control(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            Program::control("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            Program::node("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            Program::node("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ],
    },
    Module {
        dir: "coredns",
        pins: "github.com/coredns/coredns",
        version: &[],
        programs: &[Program::node("coredns", "github.com/coredns/coredns")],
    },
];

/// How all of them are built: small, static, and the same wherever the sources lie.
const FLAGS: [&str; 3] = ["-trimpath", "-buildvcs=false", "-mod=readonly"];

impl Program {
    const fn control(name: &'static str, package: &'static str) -> Program {
        Program {
            name,
            package,
            control: true,
        }
    }

    const fn node(name: &'static str, package: &'static str) -> Program {
        Program {
            name,
            package,
            control: false,
        }
    }
}

/// Where the programs are.
pub fn path(program: &str) -> Result<PathBuf> {
    let module = MODULES
        .iter()
        .find(|module| module.programs.iter().any(|it| it.name == program))
        .with_context(|| format!("{program} is no program of a cluster"))?;
    Ok(module.cached()?.join(program))
}

/// Builds what is not built yet: all of it, or what a control plane without nodes needs.
pub fn ensure(nodes: bool) -> Result<()> {
    let wanted = |program: &&Program| nodes || program.control;
    let mut missing = Vec::new();
    for module in &MODULES {
        let dir = module.cached()?;
        let absent = |program: &&Program| !dir.join(program.name).is_file();
        let programs = module.programs.iter().filter(wanted).filter(absent);
        missing.extend(programs.map(|program| (module, program)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let _lock = Lock::take()?;
    let began = Instant::now();
    eprintln!(
        "cluster: {} to be built from Go modules, once: the first takes minutes, what follows shares with it",
        count(missing.len())
    );
    let all = missing.len();
    for (at, (module, program)) in missing.into_iter().enumerate() {
        let (at, name, began) = (at + 1, program.name, Instant::now());
        eprintln!("cluster: {at} of {all}: building {name}");
        module.build(program)?;
        eprintln!("cluster: {name} … {}", Took(began.elapsed()));
    }
    eprintln!("cluster: built in {}", Took(began.elapsed()));
    Ok(())
}

fn count(programs: usize) -> String {
    match programs {
        1 => "1 program is".to_owned(),
        n => format!("{n} programs are"),
    }
}

/// The versions that are pinned, for people.
pub fn versions() -> Result<Vec<(&'static str, String)>> {
    MODULES
        .iter()
        .map(|module| Ok((module.dir, pinned(&module.text("go.mod")?, module.pins)?)))
        .collect()
}

impl Module {
    fn dir(&self) -> PathBuf {
        workspace::root().join("tests/cluster").join(self.dir)
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.dir().join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The directory of what is built from this pin with these flags: another pin has another one.
    fn cached(&self) -> Result<PathBuf> {
        let go_mod = self.text("go.mod")?;
        let version = pinned(&go_mod, self.pins)?;
        let linked = self.linked(&version);
        let parts = [go_mod.as_str(), &self.text("go.sum")?, &linked];
        let key = key(parts.into_iter().chain(FLAGS));
        Ok(cache::cluster()?.join(format!("{}-{version}-{key}", self.dir)))
    }

    /// What the linker is told.
    fn linked(&self, version: &str) -> String {
        let mut flags = "-s -w".to_owned();
        for variable in self.version {
            // nothing fails to be written to a String
            let _ = write!(flags, " -X {variable}={version}");
        }
        flags
    }

    fn build(&self, program: &Program) -> Result<()> {
        let dir = self.cached()?;
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        // what stands there under its own name is whole
        let partial = dir.join(format!("{}.partial", program.name));
        let version = pinned(&self.text("go.mod")?, self.pins)?;
        process::run(&mut self.command(program.package, &self.linked(&version), &partial))?;
        fs::rename(&partial, dir.join(program.name)).with_context(|| partial.display().to_string())
    }

    fn command(&self, package: &str, linked: &str, to: &Path) -> Command {
        let mut go = Command::new("go");
        go.current_dir(self.dir())
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .arg("build")
            .args(FLAGS)
            .args(["-ldflags", linked, "-o"])
            .arg(to)
            .arg(package);
        go
    }
}

/// The version that a go.mod requires of a module.
fn pinned(go_mod: &str, module: &str) -> Result<String> {
    go_mod
        .lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .find_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            let version = rest.split_whitespace().next()?;
            (name == module && version.starts_with('v')).then(|| version.to_owned())
        })
        .with_context(|| format!("go.mod does not require {module}"))
}

fn key<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        // so that no part runs into the next
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(6)
        .fold(String::new(), |key, b| key + &format!("{b:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_a_tool_of_its_pinned_module() -> Result<()> {
        for module in &MODULES {
            let go_mod = module.text("go.mod")?;
            assert!(pinned(&go_mod, module.pins)?.starts_with('v'));
            for program in module.programs {
                let line = |line: &str| line.trim().trim_start_matches("tool ") == program.package;
                assert!(go_mod.lines().any(line), "{}", program.name);
                assert!(path(program.name)?.ends_with(program.name));
            }
        }
        assert!(path("kubeadm").is_err());
        Ok(())
    }

    #[test]
    fn the_version_is_that_of_the_required_module_not_of_a_replacement() -> Result<()> {
        let go_mod = "tool a.io/b\n\nrequire a.io/b v1.2.3\n\nrequire (\n\ta.io/b/c v0.4.0 // indirect\n)\n\nreplace a.io/b => a.io/d v0.5.0\n";
        assert_eq!(pinned(go_mod, "a.io/b")?, "v1.2.3");
        assert_eq!(pinned(go_mod, "a.io/b/c")?, "v0.4.0");
        assert!(pinned(go_mod, "a.io/d").is_err());
        Ok(())
    }

    #[test]
    fn another_pin_is_another_key() {
        let one = key(["a", "b"].into_iter());
        assert_eq!(one.len(), 12);
        assert_ne!(one, key(["ab", ""].into_iter()));
        assert_ne!(one, key(["a", "c"].into_iter()));
    }
}
