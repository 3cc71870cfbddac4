//! `cargo xtask cluster`: a real Kubernetes.

mod build;
mod cgroup;
mod control;
mod daemon;
mod down;
mod hold;
mod image;
mod inside;
mod kubectl;
mod network;
mod node;
mod pki;
mod plan;
mod proxy;
mod raise;
mod state;
mod status;

use crate::cache;
use crate::lab;
use crate::process;
use crate::root::{self, Root};
use crate::setup;
use crate::timing::Took;
use anyhow::{Context, Result, bail};
use inside::Place;
use plan::{Network, Proxy, Settings};
use state::State;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A real Kubernetes: etcd, control plane, nodes.
///
/// Each node is the real containerd, kubelet and kube-proxy in network, mount and UTS namespaces of its own; the machine's own
/// network and settings are not touched. Pods are on a bridge, CoreDNS knows their names, RBAC is on.
#[derive(clap::Subcommand)]
#[command(after_help = "\
An afternoon with it:
  cargo xtask cluster up --proxy nftables           two nodes; prints where the kubeconfig is
  cargo xtask cluster kubectl -- get pods -A        as administrator
  cargo xtask cluster exec n1 -- netflow doctor     any command on a node, or on the control plane: cp
  cargo xtask cluster down                          take it down; nothing remains

What Pods run is localhost/netflow-traffic:1 (imagePullPolicy: Never); its arguments: netflow-traffic --help.
The programs are built from Go modules that tests/cluster pins, once, into $NETFLOW_CACHE (default: ~/.cache/netflow).
Removing that directory is safe.")]
pub enum Command {
    Up(Up),
    Down(Down),
    Status(Status),
    Kubectl(Kubectl),
    Exec(Exec),
    Load(Load),
    Build(Build),
    #[command(hide = true)]
    Inside(inside::Args),
    #[command(hide = true)]
    Hold(hold::Args),
}

/// Raise a cluster; builds its programs the first time, which takes about half an hour on two cores.
///
/// Does nothing where the same one is up. What fails is named, with the end of its log, and all is taken down again.
#[derive(clap::Args)]
pub struct Up {
    /// Nodes n1, n2, …; 0: the control plane alone
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=i64::from(plan::MOST_NODES)))]
    nodes: u8,
    /// How Services are translated
    #[arg(long, value_enum, default_value_t = Proxy::Iptables)]
    proxy: Proxy,
    /// How Pods on two nodes reach each other
    #[arg(long, value_enum, default_value_t = Network::Routed)]
    network: Network,
    /// The program for Pods, built before by someone who is not root
    #[arg(long, hide = true)]
    traffic: Option<PathBuf>,
}

/// Take it down, also what a failed or killed `up` left.
#[derive(clap::Args)]
pub struct Down {}

/// Say what is up; exit 1 if nothing is, or not all of it.
#[derive(clap::Args)]
pub struct Status {
    /// How
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How something is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Run kubectl as administrator.
#[derive(clap::Args)]
pub struct Kubectl {
    /// Its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    args: Vec<OsString>,
}

/// Run a command on a node, with its network, mounts and hostname.
///
/// Where it names netflow or the lab's programs, these are built first and found.
#[derive(clap::Args)]
pub struct Exec {
    /// n1, n2, …, or cp: the control plane
    node: String,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Give every node images: there is no registry.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask image && cargo xtask cluster load target/netflow-image.tar")]
pub struct Load {
    /// Archives of the OCI image layout, or as `docker save` writes them
    #[arg(required = true, value_name = "FILE")]
    archives: Vec<PathBuf>,
}

/// Build the programs without raising a cluster.
#[derive(clap::Args)]
pub struct Build {}

pub use plan::DNS_IP;

/// Builds all that a cluster runs, and says where the program for Pods is.
pub fn build() -> Result<PathBuf> {
    build_all(true)?.context("nodes without Pods")
}

/// Runs `work` in the network namespace of a node of the cluster that is up.
pub fn on_node<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    Place::named(name, &standing()?)?.on_network(work)
}

/// The command.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Inside(args) => return inside::run(args),
        Command::Hold(args) => return hold::run(args),
        Command::Build(Build {}) => {
            build_all(true)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let root = root::need(
        "a cluster",
        "it makes namespaces and cgroups and runs containers",
    )?;
    if root == Root::Sudo {
        return as_root(root, command);
    }
    match command {
        Command::Up(args) => up(args),
        Command::Down(Down {}) => down(),
        Command::Status(args) => status(args.output),
        Command::Kubectl(args) => kubectl(&args.args),
        Command::Exec(args) => exec(args),
        Command::Load(args) => load(args),
        Command::Build(_) | Command::Inside(_) | Command::Hold(_) => Ok(ExitCode::SUCCESS),
    }
}

/// What `up` runs, built; the program for Pods where there are nodes.
fn build_all(nodes: bool) -> Result<Option<PathBuf>> {
    setup::ensure(setup::For::Cluster)?;
    build::ensure(nodes)?;
    nodes.then(image::build_traffic).transpose()
}

/// Builds as the user, and becomes the same command as root.
fn as_root(root: Root, command: &Command) -> Result<ExitCode> {
    let mut sudo = root.command(&std::env::current_exe().context("this program")?);
    sudo.args(std::env::args_os().skip(1));
    sudo.env("NETFLOW_CACHE", cache::dir()?);
    if let Command::Up(up) = command
        && let Some(traffic) = build_all(up.nodes > 0)?
    {
        sudo.arg("--traffic").arg(traffic);
    }
    let error = sudo.exec();
    Err(error).with_context(|| process::show(&sudo))
}

/// Held while a cluster is raised or taken down. The lock is on a directory that is there anyway: nothing must remain.
fn lock() -> Result<File> {
    let dir = plan::dir().parent().context("its parent")?;
    let file = File::open(dir).with_context(|| dir.display().to_string())?;
    if file.try_lock().is_err() {
        eprintln!("cluster: waiting for another command to be done");
        file.lock().with_context(|| dir.display().to_string())?;
    }
    Ok(file)
}

fn up(args: &Up) -> Result<ExitCode> {
    let settings = Settings {
        nodes: args.nodes,
        proxy: args.proxy,
        network: args.network,
    };
    if is_up(settings)? {
        return Ok(ExitCode::SUCCESS);
    }
    let traffic = match &args.traffic {
        Some(built) => Some(built.clone()),
        None => build_all(settings.nodes > 0)?,
    };
    let began = Instant::now();
    let _lock = lock()?;
    // Another command may have raised it while this one built or waited.
    if is_up(settings)? {
        return Ok(ExitCode::SUCCESS);
    }
    if down::down()? {
        eprintln!("cluster: what was left of another one is taken down");
    }
    if let Err(error) = raise::raise(settings, &traffic.unwrap_or_default()) {
        let left = down::down();
        left.with_context(|| format!("{error:#}\nand it could not be taken down"))?;
        return Err(error.context("the cluster did not come up, and is taken down again"));
    }
    eprintln!("cluster: up in {} ({settings})", Took(began.elapsed()));
    hints(settings);
    Ok(ExitCode::SUCCESS)
}

/// Whether it is up; an error if another one is.
fn is_up(settings: Settings) -> Result<bool> {
    let Some(state) = State::read().filter(State::stands) else {
        return Ok(false);
    };
    if state.settings != settings {
        bail!(
            "another one is up ({}): cargo xtask cluster down",
            state.settings
        );
    }
    eprintln!("cluster: is up already ({settings})");
    hints(settings);
    Ok(true)
}

fn hints(settings: Settings) {
    let pods = if settings.nodes == 0 {
        "get namespaces"
    } else {
        "get pods -A -o wide"
    };
    let place = if settings.nodes == 0 {
        "cp -- ip address"
    } else {
        "n1 -- netflow doctor"
    };
    println!(
        "kubeconfig: {}\nnext:\n  cargo xtask cluster kubectl -- {pods}\n  cargo xtask cluster exec {place}",
        plan::kubeconfig().display()
    );
}

fn down() -> Result<ExitCode> {
    let began = Instant::now();
    let _lock = lock()?;
    if down::down()? {
        eprintln!("cluster: down in {}", Took(began.elapsed()));
    } else {
        eprintln!("cluster: none is up");
    }
    Ok(ExitCode::SUCCESS)
}

fn status(output: Output) -> Result<ExitCode> {
    let state = State::read();
    let state = state.as_ref();
    match output {
        Output::Text => print!("{}", status::text(state)),
        Output::Json => println!("{:#}", status::json(state)?),
    }
    Ok(ExitCode::from(u8::from(!state.is_some_and(State::stands))))
}

/// What is up, or an error that says what to do.
fn standing() -> Result<State> {
    State::read().context("no cluster is up: cargo xtask cluster up")
}

fn kubectl(args: &[OsString]) -> Result<ExitCode> {
    standing()?;
    let mut command = vec![build::path("kubectl")?.into_os_string()];
    command.push("--kubeconfig".into());
    command.push(plan::kubeconfig().into_os_string());
    command.extend(args.iter().cloned());
    Place::control().enter()?;
    inside::turn_into(&command, None)
}

fn load(args: &Load) -> Result<ExitCode> {
    let state = standing()?;
    for archive in &args.archives {
        // A node's mounts are others: what it is given is there under its whole path.
        let archive = archive
            .canonicalize()
            .with_context(|| archive.display().to_string())?;
        for node in state.settings.nodes() {
            node::import(&Place::named(&node.name(), &state)?, &archive)?;
            eprintln!("cluster: {}: {}", node.name(), archive.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(args: &Exec) -> Result<ExitCode> {
    let place = Place::named(&args.node, &standing()?)?;
    let ours = lab::is_named(&args.command).then(lab::build_optimized);
    let ours = ours.transpose()?;
    place.enter()?;
    inside::turn_into(
        &args.command,
        ours.as_deref().and_then(std::path::Path::parent),
    )
}
