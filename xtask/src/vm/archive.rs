//! Debian's archive, other suites than the machine's own: through apt, with lists and cache of our own, so that the
//! machine's stay as they are.

use crate::process;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The archive as seen through one suite.
pub struct Suite {
    name: &'static str,
    dir: PathBuf,
}

impl Suite {
    /// Fetches the suite's index of packages into `dir`.
    pub fn fetch(name: &'static str, dir: &Path) -> Result<Suite> {
        let suite = Suite {
            name,
            dir: dir.join(name),
        };
        for dir in ["lists/partial", "archives/partial"] {
            let dir = suite.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let Suite { name, dir } = &suite;
        let mirror = Mirror::of_this_machine()?;
        let list = source(&mirror, name);
        let path = dir.join("sources.list");
        fs::write(&path, list).with_context(|| path.display().to_string())?;
        process::run(&mut suite.apt("apt-get", &["-qq", "update"]))?;
        Ok(suite)
    }

    /// Names of the packages that begin with `prefix`.
    pub fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::read(&mut self.apt("apt-cache", &["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The version that the suite has of a package.
    pub fn version(&self, package: &str) -> Result<String> {
        let shown =
            process::read(&mut self.apt("apt-cache", &["show", "--no-all-versions", package]))?;
        field(&shown, "Version")
            .map(str::to_owned)
            .with_context(|| format!("{package} has no version in {}", self.name))
    }

    /// The packages that `package` depends on and whose name holds `text`.
    pub fn parts(&self, package: &str, text: &str) -> Result<Vec<String>> {
        let shown =
            process::read(&mut self.apt("apt-cache", &["show", "--no-all-versions", package]))?;
        let depends = field(&shown, "Depends").unwrap_or_default();
        Ok(names(depends)
            .filter(|name| name.contains(text))
            .map(str::to_owned)
            .collect())
    }

    /// Downloads packages into `dir`.
    pub fn download(&self, packages: &[String], dir: &Path) -> Result<()> {
        let mut apt = self.apt("apt-get", &["-q", "download"]);
        apt.args(packages).current_dir(dir);
        // stdout belongs to the command that is to run
        apt.stdout(std::io::stderr());
        process::run(&mut apt)
    }

    /// The machine's own settings (a proxy, say) stay in force; its sources and state do not.
    fn apt(&self, program: &str, args: &[&str]) -> Command {
        let Suite { name: _, dir } = self;
        let mut apt = Command::new(program);
        for (setting, path) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", ""),
        ] {
            let path = dir.join(path);
            apt.arg("-o").arg(format!("{setting}={}", path.display()));
        }
        // the cache is the caller's, who may be root; then apt's own user could not write there
        apt.args(["-o", "APT::Sandbox::User="]);
        apt.args(args);
        apt
    }
}

/// Where the machine gets its own packages.
struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    fn of_this_machine() -> Result<Mirror> {
        let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
        let Some(codename) = codename(&release) else {
            bail!("kernels come from Debian's archive, and this machine is no Debian");
        };
        let targets = process::read(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        Mirror::among(&targets, codename)
            .with_context(|| format!("apt has no source for {codename} and its security suite"))
    }

    /// Picks them from lines of `RELEASE URI`.
    fn among(targets: &str, codename: &str) -> Option<Mirror> {
        let uri = |release: &str| {
            targets
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find_map(|(name, uri)| (name == release).then(|| uri.to_owned()))
        };
        Some(Mirror {
            main: uri(codename)?,
            security: uri(&format!("{codename}-security"))?,
        })
    }
}

/// The codename in an os-release(5) file, if that is Debian's.
fn codename(os_release: &str) -> Option<&str> {
    let value = |key: &str| {
        os_release
            .lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(name, value)| (name == key).then(|| value.trim_matches('"')))
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// Debian's keys, where a machine has them apart from those that apt trusts for everything.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A sources.list(5) line for the index of packages alone, without translations and the like.
fn source(mirror: &Mirror, suite: &str) -> String {
    let Mirror { main, security } = mirror;
    let uri = if suite.ends_with("-security") {
        security
    } else {
        main
    };
    let signed = KEYRINGS
        .iter()
        .find(|keyring| Path::new(keyring).is_file())
        .map(|keyring| format!(" signed-by={keyring}"))
        .unwrap_or_default();
    format!("deb [arch=amd64 target=Packages{signed}] {uri} {suite} main\n")
}

/// A field of the first paragraph of deb-control(5) text.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// The names in `a (= 1), b | c`.
fn names(depends: &str) -> impl Iterator<Item = &str> {
    depends
        .split([',', '|'])
        .filter_map(|one| one.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets =
            "stable uri-a\nbookworm uri-b\nbookworm-updates uri-c\nbookworm-security uri-d\n";
        let mirror = Mirror::among(targets, "bookworm");
        assert!(mirror.is_some_and(|m| m.main == "uri-b" && m.security == "uri-d"));
        assert!(Mirror::among("bookworm uri-b\n", "bookworm").is_none());
    }

    #[test]
    fn a_source_line_names_the_archive_of_its_suite() {
        let mirror = Mirror {
            main: "uri-b".to_owned(),
            security: "uri-d".to_owned(),
        };
        assert!(source(&mirror, "sid").ends_with("] uri-b sid main\n"));
        assert!(source(&mirror, "trixie-security").ends_with("] uri-d trixie-security main\n"));
    }

    #[test]
    fn only_debian_has_a_codename_here() {
        let debian = "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(codename(debian), Some("bookworm"));
        let other = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=jammy\n";
        assert_eq!(codename(other), None);
        assert_eq!(codename(""), None);
    }

    #[test]
    fn fields_are_those_of_the_first_version() {
        let text = "Package: a\nVersion: 2\nDepends: kmod, x-1 (= 2), y | z-1 (>= 3)\n\nPackage: a\nVersion: 1\n";
        assert_eq!(field(text, "Version"), Some("2"));
        assert_eq!(field(text, "Section"), None);
        let depends: Vec<&str> = names(field(text, "Depends").unwrap_or_default()).collect();
        assert_eq!(depends, ["kmod", "x-1", "y", "z-1"]);
    }
}
