//! Go, which the programs of a cluster are built with.

use super::{Need, State};
use crate::process;
use crate::workspace;
use anyhow::{Result, bail};
use std::process::Command;

/// A Go that can build them. Which one that is, the modules say.
pub struct Go;

const WANTED: &str = "https://go.dev/dl: the version that tests/cluster/kubernetes/go.mod names, or any from 1.21 on, which fetches that one itself";

impl Need for Go {
    fn name(&self) -> String {
        "Go".to_owned()
    }

    fn check(&self) -> Result<State> {
        if process::find("go").is_none() {
            return Ok(State::Missing("not in PATH".to_owned()));
        }
        // within a module it is that module's Go which answers, or says why it cannot
        let mut go = Command::new("go");
        go.arg("version")
            .current_dir(workspace::root().join("tests/cluster/kubernetes"));
        Ok(match process::read(&mut go) {
            Ok(_) => State::Present,
            Err(error) => State::Missing(format!("{error:#}")),
        })
    }

    fn install(&self) -> Result<()> {
        bail!("what Debian has may be too old; install it from {WANTED}");
    }

    fn command(&self) -> String {
        format!("see {WANTED}")
    }
}
