//! The first process of the virtual machine: makes the host's file system its root, runs one command and reports
//! how it ended.
//!
//! It stands alone in the initrd, so it is linked statically.

mod command;
mod modules;
mod mounts;
mod ports;

use anyhow::{Context, Result};
use netflow_guest::{Report, Request};
use nix::sys::reboot::{RebootMode, reboot};
use ports::Ports;
use std::convert::Infallible;
use std::path::Path;

/// Ends with the machine, and with an error only where the kernel does not let us end it.
fn main() -> Result<Infallible> {
    mounts::kernel(Path::new("/"))?;
    modules::load()?;
    let ports = Ports::open()?;
    let report = run(&ports).unwrap_or_else(|error| Report::Failed(format!("{error:#}")));
    ports.report(&report)?;
    reboot(RebootMode::RB_POWER_OFF).context("powering off")
}

fn run(ports: &Ports) -> Result<Report> {
    let request = Request::read(Path::new("/")).context("reading the request")?;
    mounts::root(&request.modules)?;
    command::loopback(&request)?;
    ports.keep_alive()?;
    ports.report(&Report::Ready)?;
    command::run(&request, ports)
}
