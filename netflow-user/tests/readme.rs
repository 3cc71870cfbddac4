//! The README says what the program says.

use anyhow::{Context, Result};
use netflow_user::explain::codes;
use std::fmt::Write;

const README: &str = include_str!("../../README.md");

/// What stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn block<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let (_, rest) = text
        .split_once(&format!("<!-- {name} -->\n"))
        .with_context(|| format!("the README has no block {name}"))?;
    let (block, _) = rest
        .split_once(&format!("<!-- /{name} -->"))
        .with_context(|| format!("the README's block {name} has no end"))?;
    Ok(block)
}

#[test]
fn the_table_of_codes_is_that_of_the_registry() -> Result<()> {
    let mut table = String::from("| code | hop | severity | says |\n|---|---|---|---|\n");
    for code in codes::ALL {
        let severity = serde_json::to_value(code.severity)?;
        let severity = severity.as_str().context("severity is a word")?;
        writeln!(
            table,
            "| `{}` | {} | {severity} | {} |",
            code.code,
            code.hop.name(),
            code.title
        )?;
    }
    assert_eq!(block(README, "codes")?, table, "put this in:\n{table}");
    Ok(())
}

#[test]
fn blocks_need_both_ends() {
    assert_eq!(
        block("a\n<!-- x -->\nb\n<!-- /x -->\n", "x").ok(),
        Some("b\n")
    );
    assert!(block("<!-- x -->\nb\n", "x").is_err());
    assert!(block("b\n<!-- /x -->\n", "x").is_err());
}
