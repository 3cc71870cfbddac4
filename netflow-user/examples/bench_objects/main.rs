//! What knowing a big cluster costs: `cargo xtask bench objects`.
//!
//! The objects come as the agent gets them: listed in pages and then watched, by its own client, on one core. What it holds is read from
//! `/proc/self/status`, what it does from its CPU time.

mod api;
mod objects;

use anyhow::{Context, Result, ensure};
use api::{RATE, Server};
use clap::Parser;
use netflow_user::cluster::access::{Access, Wish};
use netflow_user::cluster::ask::{pods_of, this_node};
use netflow_user::cluster::identity::Identities;
use netflow_user::cluster::live::LiveSource;
use netflow_user::cluster::versions::Versions;
use netflow_user::model::Time;
use netflow_user::model::identity::Identity as _;
use netflow_user::model::objects::{Objects, Pod};
use netflow_user::model::source::ObjectSource as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use objects::{Size, pod_ip};
use serde::Serialize;
use std::hint::black_box;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

/// How often the agent looks for changes, and the bytes that it keeps of earlier versions.
const POLL: Duration = Duration::from_millis(60);
const HISTORY: usize = 8 << 20;
/// Seconds for which Pods change.
const CHANGING: u32 = 10;
/// Addresses that are looked up.
const LOOKUPS: u32 = 1_000_000;
/// Budgets: MiB, seconds, and nanoseconds of a lookup.
const MEMORY: f64 = 200.0;
const SYNC: f64 = 60.0;
const LAG: f64 = 1.0;
const LOOKUP: f64 = 200.0;

/// Measures memory, first sync, following and lookup against their budgets; exit 1 if one is missed.
#[derive(Parser)]
struct Args {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    size: Size,
    /// Be the server
    #[arg(long, hide = true)]
    serve: bool,
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
    pods: u32,
    services: u32,
    endpoints: u32,
    /// Seconds until the first version was there, and of CPU time in it.
    sync_seconds: f64,
    sync_cpu_seconds: f64,
    /// MiB that the first version takes, and bytes of that by Pod.
    mib_after_sync: f64,
    bytes_per_pod: f64,
    /// MiB at the most while it was read.
    mib_peak_of_sync: f64,
    /// Pods that changed, versions that told of them, seconds from change to version at the worst, CPU time of a change.
    changes: u32,
    versions: u32,
    worst_lag_seconds: f64,
    cpu_micros_per_change: f64,
    /// MiB when they had changed.
    mib_after_changes: f64,
    /// What finding addresses takes while somebody looks: seconds and MiB to know them all, nanoseconds of a lookup.
    index_seconds: f64,
    mib_of_index: f64,
    ns_per_lookup: f64,
    /// MiB at the most, ever.
    mib_peak: f64,
    /// Whether all budgets are kept.
    pass: bool,
}

fn main() -> Result<ExitCode> {
    let Args {
        output,
        size,
        serve,
    } = Args::parse();
    if serve {
        api::serve(size)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = measure(size)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print(&report),
    }
    Ok(ExitCode::from(u8::from(!report.pass)))
}

fn measure(size: Size) -> Result<Report> {
    let mut server = Server::start(size)?;
    stay_on_one_core()?;
    let directory = tempfile::tempdir()?;
    let access = access(directory.path(), &server)?;
    let before = mib("RssAnon")?;
    let (began, cpu) = (Instant::now(), cpu_time()?);
    let mut source = LiveSource::open(&access, &[])?;
    let objects = source.poll()?.context("the first version")?;
    let sync_seconds = began.elapsed().as_secs_f64();
    let sync_cpu_seconds = cpu_time()? - cpu;
    ensure!(objects.pods.len() == size.pods as usize, "Pods are missing");
    let mib_after_sync = mib("RssAnon")? - before;
    let mib_peak_of_sync = mib("VmHWM")?;

    let mut agent = Agent::new(objects);
    let cpu = cpu_time()?;
    server.change(CHANGING)?;
    let changes = RATE * CHANGING;
    while agent.changed < changes {
        ensure!(
            began.elapsed() < Duration::from_mins(5),
            "changes are missing"
        );
        thread::sleep(POLL);
        if let Some(objects) = source.poll()? {
            agent.take(objects)?;
        }
    }
    let cpu_micros_per_change = (cpu_time()? - cpu) * 1e6 / f64::from(changes);
    let mib_after_changes = mib("RssAnon")? - before;

    let unindexed = mib("RssAnon")?;
    let began = Instant::now();
    let mut identities = Identities::new();
    identities.learn(&agent.objects);
    let index_seconds = began.elapsed().as_secs_f64();
    let mib_of_index = mib("RssAnon")? - unindexed;
    let ns_per_lookup = lookups(&identities, size, agent.objects.time)?;
    let mib_peak = mib("VmHWM")?;
    Ok(Report {
        pods: size.pods,
        services: size.services,
        endpoints: size.endpoints(),
        sync_seconds,
        sync_cpu_seconds,
        mib_after_sync,
        bytes_per_pod: mib_after_sync * 1024.0 * 1024.0 / f64::from(size.pods),
        mib_peak_of_sync,
        changes: agent.changed,
        versions: agent.versions_taken,
        worst_lag_seconds: agent.worst_lag.as_secs_f64(),
        cpu_micros_per_change,
        mib_after_changes,
        index_seconds,
        mib_of_index,
        ns_per_lookup,
        mib_peak,
        pass: mib_peak <= MEMORY
            && sync_seconds <= SYNC
            && agent.worst_lag.as_secs_f64() < LAG
            && ns_per_lookup <= LOOKUP,
    })
}

/// What the agent does with each version.
struct Agent {
    objects: Arc<Objects>,
    earlier: Versions,
    changed: u32,
    versions_taken: u32,
    worst_lag: Duration,
}

impl Agent {
    fn new(objects: Objects) -> Agent {
        Agent {
            earlier: Versions::new(objects.time, HISTORY),
            objects: Arc::new(objects),
            changed: 0,
            versions_taken: 0,
            worst_lag: Duration::ZERO,
        }
    }

    fn take(&mut self, objects: Objects) -> Result<()> {
        let before = std::mem::replace(&mut self.objects, Arc::new(objects));
        self.earlier.replace(&before, &self.objects);
        let node = this_node(&self.objects, &[]).unwrap_or_default();
        black_box(pods_of(&self.objects, &node));
        self.versions_taken += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        for (before, after) in before.pods.iter().zip(&self.objects.pods) {
            if !std::ptr::eq(before, after) {
                let lag = now.saturating_sub(changed_at(after)?);
                self.worst_lag = self.worst_lag.max(lag);
                self.changed += 1;
            }
        }
        Ok(())
    }
}

/// When the server sent a Pod that is not ready.
fn changed_at(pod: &Pod) -> Result<Duration> {
    let ready = pod.conditions.get("Ready").context("no condition Ready")?;
    Ok(Duration::from_micros(ready.reason.parse()?))
}

/// Nanoseconds of one, in no order that helps.
fn lookups(identities: &Identities, size: Size, at: Time) -> Result<f64> {
    let addresses: Vec<IpAddr> = (0..LOOKUPS)
        .map(|n| pod_ip(n.wrapping_mul(2_654_435_761) % size.pods).into())
        .collect();
    let began = Instant::now();
    let known = addresses
        .iter()
        .filter(|ip| identities.holder(**ip, at).is_some());
    let known = known.count();
    let spent = began.elapsed();
    ensure!(
        known == addresses.len(),
        "{known} of {LOOKUPS} addresses are known"
    );
    Ok(spent.as_nanos() as f64 / f64::from(LOOKUPS))
}

fn access(directory: &std::path::Path, server: &Server) -> Result<Access> {
    let path = directory.join("kubeconfig");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", server.at)}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "users": [{"name": "bench", "user": {}}]});
    fs::write(&path, config.to_string())?;
    Ok(Access::find(&Wish {
        kubeconfig: Some(path),
        timeout: Duration::from_secs(10),
        ..Wish::default()
    })?)
}

/// This process and the threads to come; the server stays where it is.
fn stay_on_one_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    one.set(first.context("a CPU")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Seconds of CPU time of this process.
fn cpu_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A line of `/proc/self/status`, in MiB.
fn mib(name: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .with_context(|| format!("no {name} in /proc/self/status"))?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

fn print(report: &Report) {
    let Report {
        pods,
        services,
        endpoints,
        sync_seconds,
        sync_cpu_seconds,
        mib_after_sync,
        bytes_per_pod,
        mib_peak_of_sync,
        changes,
        versions,
        worst_lag_seconds,
        cpu_micros_per_change,
        mib_after_changes,
        index_seconds,
        mib_of_index,
        ns_per_lookup,
        mib_peak,
        pass,
    } = report;
    println!("{pods} Pods, {services} Services, {endpoints} endpoints, on one core");
    println!(
        "first sync            {sync_seconds:>10.1} s, CPU {sync_cpu_seconds:.1} s  (at most {SYNC:.0})"
    );
    println!(
        "  objects             {mib_after_sync:>10.1} MiB, {bytes_per_pod:.0} bytes of them by Pod"
    );
    println!("  process at most     {mib_peak_of_sync:>10.1} MiB");
    println!("{changes} changes, {RATE}/s, in {versions} versions");
    println!("  worst lag           {worst_lag_seconds:>10.2} s  (less than {LAG:.0})");
    println!("  CPU time            {cpu_micros_per_change:>10.0} µs of a change");
    println!("  objects             {mib_after_changes:>10.1} MiB");
    println!("index                 {index_seconds:>10.2} s, {mib_of_index:.1} MiB more");
    println!("  lookup              {ns_per_lookup:>10.0} ns  (at most {LOOKUP:.0})");
    println!("process at most       {mib_peak:>10.1} MiB  (at most {MEMORY:.0})");
    println!("{}", if *pass { "pass" } else { "missed" });
}
