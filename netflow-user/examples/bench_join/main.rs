//! Records into named connections, measured: `cargo xtask bench join`.
//!
//! The bytes are as the ring gives them. They are decoded, joined and named on one core, in rounds of which the median counts; what the
//! connections and the objects take of memory is read from `/proc/self/status` before and after.

mod objects;
mod records;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use netflow_user::cluster::identity::Identities;
use netflow_user::flows::{RecordId, Table, TableLimits};
use netflow_user::kernel::clock::Clock;
use netflow_user::kernel::decode::{self, Names};
use netflow_user::kernel::kallsyms::Kallsyms;
use netflow_user::kernel::reasons::DropReasons;
use netflow_user::model::identity::Identity as _;
use netflow_user::model::record::Record;
use records::{CONNECTIONS, Ring};
use serde::Serialize;
use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

/// Records decoded at a time.
const BATCH: usize = 1 << 14;
/// Rounds, of which the median counts.
const ROUNDS: usize = 5;
/// Budgets: records a second on one core, and bytes.
const RECORDS: f64 = 1_000_000.0;
const CONNECTION: f64 = 1024.0;

/// Measures decode, join and naming against their budgets; exit 1 if one is missed.
#[derive(Parser)]
struct Args {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print the result.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    /// Records decoded, joined and named in a second: median of the rounds.
    records_per_second: f64,
    /// Nanoseconds of a record in that round, by what was done.
    ns_decode: f64,
    ns_join: f64,
    ns_name: f64,
    /// Bytes that a connection of the first round takes.
    bytes_per_connection: f64,
    /// MiB that knowing the objects takes.
    mib_of_objects: f64,
    /// Whether both budgets are kept.
    pass: bool,
}

fn main() -> Result<ExitCode> {
    let Args { output } = Args::parse();
    // Kept to the end, so that neither figure of memory holds what it leaves.
    let cluster = objects::cluster();
    let before = anonymous()?;
    let mut identities = Identities::new();
    identities.learn(&cluster);
    let mib_of_objects = (anonymous()? - before) / (1024.0 * 1024.0);
    let ring = Ring::fill();
    let mut rates = Vec::new();
    let mut bytes_per_connection = 0.0;
    for _ in 0..ROUNDS {
        let before = anonymous()?;
        let (table, spent) = round(&ring, &identities)?;
        rates.push((f64::from(ring.len()) / spent.all(), spent));
        // Later rounds are given the memory that this one leaves.
        if rates.len() == 1 {
            bytes_per_connection = (anonymous()? - before) / f64::from(CONNECTIONS);
        }
        let joined = table.connections().filter(|c| c.is_dnat()).count();
        ensure!(
            joined == CONNECTIONS as usize,
            "{joined} of {CONNECTIONS} connections have their translation"
        );
    }
    rates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (records_per_second, spent) = &rates[ROUNDS / 2];
    let nanoseconds = |seconds: f64| seconds * 1e9 / f64::from(ring.len());
    let records_per_second = *records_per_second;
    drop(cluster);
    let report = Report {
        records_per_second,
        ns_decode: nanoseconds(spent.decode),
        ns_join: nanoseconds(spent.join),
        ns_name: nanoseconds(spent.name),
        bytes_per_connection,
        mib_of_objects,
        pass: records_per_second >= RECORDS && bytes_per_connection <= CONNECTION,
    };
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print(&report),
    }
    Ok(ExitCode::from(u8::from(!report.pass)))
}

/// Seconds of a round, by what was done.
#[derive(Default)]
struct Spent {
    decode: f64,
    join: f64,
    name: f64,
}

impl Spent {
    fn all(&self) -> f64 {
        let Spent { decode, join, name } = self;
        decode + join + name
    }
}

/// Everything once, in batches as the ring's reader takes them: decoded, joined, and each end of each record named.
fn round(ring: &Ring, identities: &Identities) -> Result<(Table, Spent)> {
    let (reasons, symbols) = (DropReasons::default(), Kallsyms::default());
    let names = Names {
        clock: Clock::with_offset(0),
        reasons: &reasons,
        symbols: &symbols,
    };
    let mut table = Table::new(TableLimits {
        connections: CONNECTIONS as usize,
    });
    table.watch(objects::servers());
    let mut spent = Spent::default();
    let all: Vec<&[u8]> = ring.records().collect();
    for (input, batch) in all.chunks(BATCH).enumerate() {
        let began = Instant::now();
        let decoded: Result<Vec<Record>, _> = batch
            .iter()
            .map(|bytes| decode::record(bytes, names))
            .collect();
        let records = decoded?;
        spent.decode += began.elapsed().as_secs_f64();
        let began = Instant::now();
        for (item, record) in records.iter().enumerate() {
            let (input, item) = (input as u32, item as u32);
            table.record(RecordId { input, item }, record);
        }
        spent.join += began.elapsed().as_secs_f64();
        let began = Instant::now();
        for record in &records {
            let tuple = record.tuple.context("a record without a tuple")?;
            black_box(identities.holder(tuple.src, record.time));
            black_box(identities.holder(tuple.dst, record.time));
        }
        spent.name += began.elapsed().as_secs_f64();
    }
    Ok((table, spent))
}

/// Bytes of anonymous memory of this process.
fn anonymous() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("no RssAnon in /proc/self/status")?;
    Ok(kib.trim().parse::<f64>()? * 1024.0)
}

fn print(report: &Report) {
    let Report {
        records_per_second,
        ns_decode,
        ns_join,
        ns_name,
        bytes_per_connection,
        mib_of_objects,
        pass,
    } = report;
    println!(
        "decode + join + name  {records_per_second:>12.0} records/s on one core  (at least {RECORDS:.0})"
    );
    println!("  decode              {ns_decode:>12.0} ns of a record");
    println!("  join                {ns_join:>12.0} ns of a record");
    println!("  name both ends      {ns_name:>12.0} ns of a record");
    println!(
        "live connection       {bytes_per_connection:>12.0} bytes                (at most {CONNECTION:.0})"
    );
    println!(
        "{} Pods, {} Services {mib_of_objects:>9.1} MiB",
        objects::PODS,
        objects::SERVICES
    );
    println!("{}", if *pass { "pass" } else { "missed" });
}
