//! What needs root, and how it gets it.

use crate::process;
use anyhow::{Result, bail};
use nix::unistd::Uid;
use std::path::Path;
use std::process::Command;

/// How a program is run as root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// We are root, or the program does not have to be.
    AsIs,
    /// Through sudo; building stays with the user, so `target/` keeps its owner.
    Sudo,
}

/// Says that `what` needs root for `why` and finds out how to get it. Called before anything starts.
pub fn need(what: &str, why: &str) -> Result<Root> {
    if is() {
        return Ok(Root::AsIs);
    }
    if process::find("sudo").is_none() {
        bail!(
            "{what} needs root ({why}) and there is no sudo; run it as root: su -c '{}'",
            typed()
        );
    }
    eprintln!("{what} needs root ({why}): it is built as you and run through sudo");
    Ok(Root::Sudo)
}

/// Whether we are root.
pub fn is() -> bool {
    Uid::effective().is_root()
}

/// The command line of this xtask as it was typed.
fn typed() -> String {
    let mut typed = Command::new("cargo");
    typed.arg("xtask").args(std::env::args_os().skip(1));
    process::show(&typed)
}

impl Root {
    /// `program`, as root.
    pub fn command(self, program: &Path) -> Command {
        match self {
            Root::AsIs => Command::new(program),
            Root::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg("-E").arg(program);
                sudo
            }
        }
    }

    /// Lets the programs that a cargo command runs (tests, examples) run as root.
    pub fn runner(self, cargo: &mut Command) {
        match self {
            Root::AsIs => {}
            Root::Sudo => {
                cargo.args(["--config", "target.'cfg(all())'.runner=['sudo', '-E']"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_keeps_the_environment_and_the_program() {
        let command = Root::Sudo.command(Path::new("/bin/true"));
        assert_eq!(process::show(&command), "sudo -E /bin/true");
        assert_eq!(
            process::show(&Root::AsIs.command(Path::new("/bin/true"))),
            "/bin/true"
        );
    }
}
