//! `netflow cleanup`.

use super::args::Format;
use super::failure::Failure;
use super::output::Output;
use crate::kernel;
use clap::Args;

/// Remove what a killed netflow left attached
#[derive(Debug, Args)]
#[command(
    after_help = "Only filters of netflow's own whose process is dead are removed, in this network namespace.
With TCX nothing is ever left: the kernel detaches such programs with their process."
)]
pub struct Cleanup {}

/// Runs it.
pub fn run(_: &Cleanup, output: &Output, format: Format) -> Result<u8, Failure> {
    super::live::check_rights()?;
    let removed = kernel::cleanup()?;
    let text = if format.is_json() {
        let document = serde_json::json!({ "schema": "netflow.cleanup/v1", "removed": removed });
        format!("{document}\n")
    } else if removed.is_empty() {
        "nothing was left\n".to_owned()
    } else {
        format!("removed {}\n", removed.join("\nremoved "))
    };
    super::print(output, &text)?;
    Ok(0)
}
