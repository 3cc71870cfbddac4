//! Raises labs, breaks one thing in them, and proves what netflow says about it.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use netflow_tests::lab::draw::Draw;
use netflow_tests::lab::plan::{Family, Network, Placement, Plan, Shape};
use netflow_tests::lab::state::{self, State};
use netflow_tests::lab::{self, Lab, Life, modules, netns};
use netflow_tests::proxy::Mode;
use netflow_tests::scenario::{self, Row};
use netflow_tests::world::World;
use netflow_tests::{demo, faults, matrix, overhead, pace, parallel, report};
use nix::sys::signal::{SigSet, Signal};
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Prints a line; a reader that has seen enough is no error.
fn say(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{text}"));
}

macro_rules! say {
    ($($part:tt)*) => { say(&format!($($part)*)) };
}

#[derive(Parser)]
#[command(
    name = "netflow-lab",
    about = "Labs of namespaces as nodes and Pods, their faults and scenarios"
)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Raises a lab that stays.
    Up {
        /// What to break in it.
        #[arg(long)]
        fault: Option<String>,
        /// How Services are proxied.
        #[arg(long, value_enum, default_value = "nftables")]
        proxy: Mode,
        /// Draws names, addresses and ports; printed, so that the same lab can be raised again.
        #[arg(long)]
        seed: Option<u64>,
        /// Backends on the client's node.
        #[arg(long)]
        same_node: bool,
        /// Which addresses there are.
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
        /// How Pods are connected.
        #[arg(long, value_enum, default_value = "bridge")]
        network: Network,
    },
    /// Takes every lab down that stays, and leftovers.
    Down,
    /// Shows labs that are up.
    Status,
    /// Raises a lab, breaks one thing, lets netflow explain it, takes everything down.
    Demo {
        /// What to break.
        #[arg(default_value = "target-port-mismatch")]
        fault: String,
        /// How Services are proxied.
        #[arg(long, value_enum, default_value = "nftables")]
        proxy: Mode,
        /// Lists the faults and stops.
        #[arg(long)]
        list: bool,
        /// Draws the lab.
        #[arg(long)]
        seed: Option<u64>,
        /// Which addresses there are.
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
    },
    /// Proves every code on real packets and prints a table.
    Scenarios {
        /// Every combination instead of a subset that meets every pair.
        #[arg(long)]
        full: bool,
        /// Those that prove a kernel: one of each fault whose evidence is another from kernel to kernel.
        #[arg(long, conflicts_with_all = ["full", "only"])]
        kernel: bool,
        /// Those that prove a kernel in every test run: twenty-one of them.
        #[arg(long, conflicts_with_all = ["full", "only", "kernel"])]
        few: bool,
        /// Everything may take so many times as long: on an emulated machine.
        #[arg(long, default_value_t = 1)]
        pace: u32,
        /// Only scenarios whose name FAULT/PROXY/WHERE/TRAFFIC/FAMILY/NETWORK/TIER contains this.
        #[arg(long)]
        only: Option<String>,
        /// Draws every lab.
        #[arg(long)]
        seed: Option<u64>,
        /// Labs side by side [default: three for each CPU, since most of a scenario is waiting].
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Measures what each encapsulation adds to a packet, beside what netflow reckons with (docs/mtu.md).
    Overhead,
    /// Lists the faults.
    List,
    /// Runs a command in a node, a Pod, `router` or `outside`.
    Exec {
        /// Name of a node or Pod.
        place: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Action::List | Action::Demo { list: true, .. }) {
        list();
        return ExitCode::SUCCESS;
    }
    if let Err(e) = lab::need_root() {
        eprintln!("netflow-lab: {e}");
        return ExitCode::from(2);
    }
    let done = catch_signals().and_then(|()| run(cli.command));
    while ENDING.load(Ordering::SeqCst) {
        // Its lab was taken away under it: what it says of that is no result, and the other thread ends the process.
        thread::park();
    }
    match done {
        Ok(code) => code,
        Err(e) => {
            eprintln!("netflow-lab: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// A signal was caught: labs are being taken down.
static ENDING: AtomicBool = AtomicBool::new(false);

/// On SIGINT and SIGTERM, takes the labs of this process down and ends. Blocks both signals for all threads started
/// later, so that one thread gets them. Children inherit that: netflow takes its signals out again.
fn catch_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            ENDING.store(true, Ordering::SeqCst);
            eprintln!("netflow-lab: {signal}, taking the lab down");
            lab::take_all_down();
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}

fn run(action: Action) -> Result<ExitCode> {
    if !matches!(action, Action::Exec { .. } | Action::Status) {
        let removed = state::remove_leftovers()?;
        if removed > 0 {
            eprintln!("removed {removed} labs whose owner is dead");
        }
    }
    match action {
        Action::Up {
            fault,
            proxy,
            seed,
            same_node,
            family,
            network,
        } => {
            let placement = if same_node {
                Placement::Same
            } else {
                Placement::Cross
            };
            let shape = Shape {
                placement,
                family,
                network,
            };
            up(fault.as_deref(), proxy, seed, shape)?;
        }
        Action::Down => down()?,
        Action::Status => status()?,
        Action::Exec { place, command } => return exec(&place, &command),
        Action::Demo {
            fault,
            proxy,
            seed,
            family,
            ..
        } => {
            let seed = seed.unwrap_or_else(Draw::fresh_seed);
            let right = demo::run(&fault, proxy, family, seed)?;
            return Ok(ExitCode::from(u8::from(!right)));
        }
        Action::Scenarios {
            full,
            kernel,
            few,
            pace,
            only,
            seed,
            jobs,
        } => {
            pace::set(pace);
            let which = match only {
                Some(only) => Which::Named { only, full },
                None if full => Which::Full,
                None if kernel => Which::Kernel,
                None if few => Which::Few,
                None => Which::Pairwise,
            };
            let jobs = jobs.map_or_else(three_for_each_cpu, Ok)?;
            let passed = scenarios(&which, seed, jobs);
            return Ok(ExitCode::from(u8::from(!passed)));
        }
        Action::Overhead => return overhead(),
        Action::List => list(),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    for fault in faults::all() {
        say!("{:<32} {}", fault.name(), fault.breaks());
    }
}

fn overhead() -> Result<ExitCode> {
    let rows = overhead::measure(|_| true)?;
    say!("{}", overhead::HEAD);
    for row in &rows {
        say!("{row}");
    }
    let wrong = rows.iter().filter(|row| !row.is_right()).count();
    if wrong > 0 {
        say!("\n{wrong} differ");
    }
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

/// Which scenarios are run.
enum Which {
    /// Every one.
    Full,
    /// So few that every pair of values is met.
    Pairwise,
    /// Those that prove a kernel.
    Kernel,
    /// So few of them that every test run has time for them.
    Few,
    /// Of those whose name contains `only` every one, or so few that every pair of their values is met.
    Named { only: String, full: bool },
}

/// Runs scenarios; says whether all passed and every code was proved.
fn scenarios(which: &Which, seed: Option<u64>, jobs: usize) -> bool {
    let seed = seed.unwrap_or_else(Draw::fresh_seed);
    let mut cases = matrix::full(seed);
    match which {
        Which::Full => {}
        Which::Pairwise => cases = matrix::pairwise(&cases, seed),
        Which::Kernel => {
            let tunnels = matrix::through_tunnels(&cases, seed);
            cases = matrix::of_a_kernel(&cases, seed);
            cases.extend(tunnels);
            cases.extend(matrix::of_a_kernels_ipvs(&with_ipvs(seed), seed));
        }
        Which::Few => {
            let tunnels = matrix::through_tunnels(&cases, seed);
            let services = matrix::of_a_kernels_ipvs(&with_ipvs(seed), seed);
            cases = matrix::few_of_a_kernel(&cases, &[tunnels, services], seed);
        }
        Which::Named { only, full } => {
            // Not every kernel has them: they must be asked for.
            if Network::BY_MODULE.iter().any(|n| only.contains(n.name())) {
                cases.extend(matrix::through_tunnels(&cases, seed));
            }
            // From everything, or what it names might not be in the subset.
            if only.contains("ipvs") {
                cases.extend(with_ipvs(seed));
            }
            cases.retain(|c| c.name().contains(only.as_str()));
            if !full {
                cases = matrix::pairwise(&cases, seed);
            }
        }
    }
    // In an order of chance: the dear ones of one fault, side by side, would make each other late.
    cases.sort_by_key(|case| case.seed);
    say!("seed {seed}, {} scenarios, {jobs} at a time", cases.len());
    say!("{}", report::head());
    let mut rows = parallel::map(&cases, jobs, |case| {
        let row = scenario::run(*case);
        say!("{}", report::row(&row));
        row
    });
    let again = if jobs > 1 && rows.len() > 1 {
        measure_alone(&mut rows)
    } else {
        0
    };
    let failed: Vec<_> = rows.iter().filter(|row| !row.is_right()).collect();
    if !failed.is_empty() {
        // Once more at the end: a reader of a long log begins there.
        say!("\nfailed:");
    }
    for row in &failed {
        say!("{}", report::row(row));
    }
    for tiers in report::tiers(&rows) {
        say!("{tiers}");
    }
    let unproved = match which {
        Which::Full | Which::Pairwise => report::unproved(&cases),
        Which::Kernel | Which::Few | Which::Named { .. } => Vec::new(),
    };
    for code in &unproved {
        say!("FAIL no scenario proves {code}");
    }
    if again > 0 {
        say!("{again} late among others and measured again alone");
    }
    let good = rows.len() - failed.len();
    let bad = failed.len() + unproved.len();
    say!("{good} passed, {bad} failed");
    bad == 0
}

fn three_for_each_cpu() -> Result<usize> {
    let cpus = thread::available_parallelism().context("how many CPUs there are")?;
    Ok(3 * cpus.get())
}

/// Of so many scenarios one may be late for what runs beside it; when more are, netflow is slow.
const LATE: usize = 50;

/// Runs what was only late again, with the machine to itself; that result counts. Returns how many there were.
fn measure_alone(rows: &mut [Row]) -> usize {
    let most = rows.len().div_ceil(LATE);
    let late: Vec<&mut Row> = rows.iter_mut().filter(|r| r.is_only_late()).collect();
    let count = late.len();
    if count == 0 || count > most {
        return 0;
    }
    say!("\nlate among others, alone:");
    for row in late {
        *row = scenario::run(row.case);
        say!("{}", report::row(row));
    }
    count
}

/// Every case with IPVS, where the kernel has it.
fn with_ipvs(seed: u64) -> Vec<matrix::Case> {
    match modules::load_ipvs() {
        Ok(()) => {
            let mut cases = matrix::ipvs(seed);
            if !modules::are_described() {
                say!(
                    "IPVS with conntrack only: this kernel describes no types of its modules, so where it sends without is not seen"
                );
                for case in &mut cases {
                    case.mode = Mode::Ipvs;
                }
            }
            cases
        }
        Err(e) => {
            say!("no scenarios with IPVS, which this kernel lacks: {e:#}");
            Vec::new()
        }
    }
}

fn up(fault: Option<&str>, mode: Mode, seed: Option<u64>, shape: Shape) -> Result<()> {
    let seed = seed.unwrap_or_else(Draw::fresh_seed);
    let plan = Plan::draw(seed, shape);
    let mut world = World::healthy(&plan, mode);
    if let Some(name) = fault {
        let fault = faults::find(name).with_context(|| demo::unknown(name))?;
        fault.inflict(&plan, &mut world)?;
    }
    let mut lab = Lab::up(plan, mode, Life::Stays)?;
    lab.note_fault(fault.unwrap_or("none"))?;
    lab.apply(&world)?;
    show(&lab);
    lab.leave();
    Ok(())
}

fn show(lab: &Lab) {
    let plan = &lab.plan;
    say!(
        "seed {}  proxy {}  manifests {}",
        plan.seed,
        lab.mode,
        lab.manifests().display()
    );
    for (n, node) in plan.nodes.iter().enumerate() {
        let ips = words(node.nets().map(|net| net.ip));
        say!("node {}  {ips}  netns {}", node.name, lab.node(n));
        for pod in plan.pods().filter(|p| p.node == n) {
            let ips = words(pod.ips());
            say!("  pod {}/{}  {ips}", pod.namespace, pod.name);
        }
    }
    for service in [&plan.service, &plan.second] {
        for port in &service.ports {
            let (ns, name) = (&service.namespace, &service.name);
            let (vips, port, target) = (words(service.vips()), port.port, port.target);
            say!("service {ns}/{name}  {vips} port {port} -> {target}");
        }
    }
    say!("client {}", plan.client.name);
}

fn words(ips: impl Iterator<Item = IpAddr>) -> String {
    ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
}

fn down() -> Result<()> {
    for state in State::all().into_iter().filter(|s| s.owner.is_none()) {
        state.remove()?;
        say!("{} is down", state.prefix);
    }
    Ok(())
}

fn status() -> Result<()> {
    let states = State::all();
    if states.is_empty() {
        say!("no lab is up");
    }
    for state in states {
        say!(
            "{}{}",
            state.prefix,
            if state.owner.is_some() {
                " (of a running test)"
            } else {
                ""
            }
        );
        show(&Lab::reopen(&state)?);
    }
    Ok(())
}

fn exec(place: &str, command: &[String]) -> Result<ExitCode> {
    let labs: Vec<Lab> = State::all()
        .iter()
        .map(Lab::reopen)
        .collect::<Result<_>>()?;
    let Some(ns) = labs.iter().find_map(|lab| lab.find(place)) else {
        bail!("no node or Pod {place} in a lab that is up; `netflow-lab status` shows them");
    };
    let own = std::env::current_exe()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", own.parent().unwrap_or(&own).display());
    let status = netns::within(&ns, || {
        Command::new(&command[0])
            .args(&command[1..])
            .env("PATH", &path)
            .status()
            .with_context(|| command[0].clone())
    })?;
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
