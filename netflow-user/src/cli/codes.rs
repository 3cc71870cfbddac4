//! `netflow codes`.

use super::failure::Failure;
use super::output::Output;
use super::{args::Format, render};
use crate::explain::codes::{ALL, Code, fill, find};
use crate::model::spelling::{alike, distance};
use clap::Args;
use serde_json::{Value, json};

/// List the codes that findings carry, or explain one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow codes                        all of them
  netflow codes target-port-mismatch   one: meaning, checks by hand, ways out")]
pub struct Codes {
    /// The code to explain
    code: Option<String>,
}

/// Runs it.
pub fn run(args: &Codes, output: &Output, format: Format) -> Result<u8, Failure> {
    let chosen: Vec<&Code> = match &args.code {
        Some(name) => vec![find(name).ok_or_else(|| unknown(name))?],
        None => ALL.to_vec(),
    };
    let text = match (format, &args.code) {
        (Format::Json, _) => pretty(&document(&chosen)),
        (Format::Jsonl, _) => chosen.iter().fold(String::new(), |out, c| {
            out + &document(&[*c]).to_string() + "\n"
        }),
        (_, Some(_)) => render::code(chosen[0], output.width()),
        (_, None) => render::codes(&chosen, output.width()),
    };
    super::print(output, &text)?;
    Ok(0)
}

fn unknown(name: &str) -> Failure {
    let mut names: Vec<&str> = ALL.iter().map(|c| c.code).collect();
    names.retain(|c| alike(name, c));
    names.sort_by_key(|c| distance(name, c));
    names.truncate(3);
    let hint = if names.is_empty() {
        "`netflow codes` lists them all".to_owned()
    } else {
        format!("did you mean {}?", names.join(", "))
    };
    Failure::new("unknown-code", format!("no code `{name}`"), hint)
}

fn pretty(v: &Value) -> String {
    format!("{v:#}\n")
}

/// `netflow.codes/v1`.
fn document(codes: &[&Code]) -> Value {
    json!({ "schema": "netflow.codes/v1", "codes": codes.iter().map(|c| item(c)).collect::<Vec<_>>() })
}

fn item(c: &Code) -> Value {
    let text = |template: &str| fill(template, "", &[]);
    let check: Vec<Value> = c
        .check
        .iter()
        .map(|s| json!({ "text": text(s.text), "command": text(s.command) }))
        .collect();
    let fix: Vec<Value> = c
        .mitigate
        .iter()
        .map(|s| json!({ "text": text(s.text), "command": text(s.command), "changes": s.changes }))
        .collect();
    json!({
        "code": c.code, "title": c.title, "severity": c.severity, "hop": c.hop, "family": c.family.name(),
        "meaning": c.meaning, "lookedAt": c.looked_at, "check": check, "fix": fix, "confusable": c.confusable,
    })
}
