//! `cargo xtask build-ebpf`: the BPF object and what is in it.

use crate::object::{self, MapRow, Object, ProgramRow};
use crate::setup;
use crate::table::{self, Align};
use anyhow::Result;
use std::process::ExitCode;

/// Build the BPF object and list its programs and maps.
///
/// It is the object that `cargo build` puts into the netflow binary, built the same way.
#[derive(clap::Args)]
pub struct Args {
    /// How to print the list
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How a command prints its answer.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::For::Building)?;
    let object = object::built()?;
    match args.output {
        Output::Text => print!("{}", text(&object)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&object)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(object: &Object) -> String {
    let Object {
        license,
        programs,
        maps,
    } = object;
    let program_rows: Vec<_> = programs.iter().map(program_row).collect();
    let map_rows: Vec<_> = maps.iter().map(map_row).collect();
    let instructions: usize = programs.iter().map(|program| program.instructions).sum();
    let bytes: u64 = maps.iter().map(|map| map.bytes).sum();
    format!(
        "{}\n{}\n{} programs, {instructions} instructions; {} maps, {bytes} bytes when full; licence {license}\n",
        table::render(
            [
                ("program", Align::Left),
                ("type", Align::Left),
                ("section", Align::Left),
                ("instructions", Align::Right),
            ],
            &program_rows,
        ),
        table::render(
            [
                ("map", Align::Left),
                ("type", Align::Left),
                ("key", Align::Right),
                ("value", Align::Right),
                ("max entries", Align::Right),
                ("bytes", Align::Right),
            ],
            &map_rows,
        ),
        programs.len(),
        maps.len(),
    )
}

fn program_row(program: &ProgramRow) -> [String; 4] {
    let ProgramRow {
        name,
        kind,
        section,
        instructions,
    } = program;
    [
        name.clone(),
        kind.clone(),
        section.clone(),
        instructions.to_string(),
    ]
}

fn map_row(map: &MapRow) -> [String; 6] {
    let MapRow {
        name,
        kind,
        key_size,
        value_size,
        max_entries,
        bytes,
    } = map;
    [
        name.clone(),
        kind.clone(),
        key_size.to_string(),
        value_size.to_string(),
        max_entries.to_string(),
        bytes.to_string(),
    ]
}
