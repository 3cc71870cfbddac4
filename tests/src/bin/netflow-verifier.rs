//! Has this kernel verify every BPF program and prints what each took, as JSON. Nothing is attached.

use anyhow::{Context, Result};
use netflow_user::kernel::{Options, verifier};

fn main() -> Result<()> {
    let efforts = verifier::efforts(&Options::default()).context("loading the BPF programs")?;
    println!("{}", serde_json::to_string(&efforts)?);
    Ok(())
}
