//! Running a program where a part of the cluster is.

use super::cgroup;
use super::plan::{self, Node};
use super::state::{Process, State};
use crate::process;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::setsid;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

/// Where a program runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Name of the network namespace, and of the cgroup.
    pub name: String,
    /// A process whose mounts and hostname are the node's.
    pub holder: Option<Process>,
}

impl Place {
    /// The control plane's.
    pub fn control() -> Place {
        Place {
            name: plan::CONTROL.to_owned(),
            holder: None,
        }
    }

    /// A node's, whose mounts and hostname `holder` has.
    pub fn node(node: Node, holder: Process) -> Place {
        Place {
            name: node.place(),
            holder: Some(holder),
        }
    }

    /// That of a node which is up, or of the control plane (`cp`).
    pub fn named(name: &str, state: &State) -> Result<Place> {
        if name == "cp" {
            return Ok(Place::control());
        }
        let names: Vec<String> = state.settings.nodes().map(Node::name).collect();
        let node = Node::named(name)
            .filter(|_| names.iter().any(|it| it == name))
            .with_context(|| {
                format!("there is no node {name}; there are: cp {}", names.join(" "))
            })?;
        let holder = state.holder(node).filter(|holder| holder.lives());
        let holder = holder.with_context(|| format!("node {name} is not up"))?;
        Ok(Place::node(node, holder))
    }

    /// A path as it is seen there.
    pub fn path(&self, path: &str) -> PathBuf {
        match self.holder {
            Some(Process { pid, .. }) => PathBuf::from(format!("/proc/{pid}/root{path}")),
            None => PathBuf::from(path),
        }
    }

    /// Has this process, which must have no other threads, go there.
    pub fn enter(&self) -> Result<()> {
        let Place { name, holder } = self;
        // all are opened first: their paths mean other things there
        let mut namespaces = vec![(network(name), CloneFlags::CLONE_NEWNET)];
        if let Some(Process { pid, .. }) = holder {
            let of = |kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
            namespaces.push((of("uts"), CloneFlags::CLONE_NEWUTS));
            namespaces.push((of("mnt"), CloneFlags::CLONE_NEWNS));
        }
        let open = |(path, kind): (PathBuf, CloneFlags)| {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            Ok((path, file, kind))
        };
        let opened: Vec<_> = namespaces.into_iter().map(open).collect::<Result<_>>()?;
        let dir = env::current_dir();
        for (path, file, kind) in opened {
            setns(file, kind).with_context(|| path.display().to_string())?;
        }
        // another mount namespace begins at its root; the directory may not be there
        if let Ok(dir) = dir {
            let _ = env::set_current_dir(dir);
        }
        Ok(())
    }

    /// Runs `work` on a thread in its network namespace.
    pub fn on_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = network(&self.name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        thread::scope(|scope| {
            let there = scope.spawn(|| setns(file, CloneFlags::CLONE_NEWNET).map(|()| work()));
            match there.join() {
                Ok(done) => done.with_context(|| path.display().to_string()),
                Err(_) => bail!("work in {} panicked", path.display()),
            }
        })
    }

    /// A command that this program runs there.
    pub fn command(&self, daemon: bool, program: &Path) -> Result<Command> {
        let Place { name, holder } = self;
        let mut inside = Command::new(env::current_exe().context("this program")?);
        inside.args(["cluster", "inside", "--place", name]);
        if let Some(Process { pid, start }) = holder {
            inside.args(["--holder", &pid.to_string(), "--start", &start.to_string()]);
        }
        if daemon {
            inside.arg("--daemon");
        }
        inside.arg("--").arg(program);
        Ok(inside)
    }
}

/// Where iproute2 keeps a network namespace.
pub fn network(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Become a program in a part of the cluster.
#[derive(clap::Args)]
pub struct Args {
    /// Network namespace and cgroup
    #[arg(long)]
    place: String,
    /// Process whose mounts and hostname are the node's
    #[arg(long, requires = "start")]
    holder: Option<i32>,
    /// Start time of that process
    #[arg(long)]
    start: Option<u64>,
    /// Join the cgroup, in a session of its own
    #[arg(long)]
    daemon: bool,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let holder = args.holder.zip(args.start);
    let place = Place {
        name: args.place.clone(),
        holder: holder.map(|(pid, start)| Process { pid, start }),
    };
    if place.holder.is_some_and(|holder| !holder.lives()) {
        bail!("{} is not up", place.name);
    }
    if args.daemon {
        cgroup::join(&place.name)?;
        setsid().context("a session of its own")?;
    }
    place.enter()?;
    turn_into(&args.command, None)
}

/// Becomes the program; those in `first` are found before all others.
pub fn turn_into(command: &[OsString], first: Option<&Path>) -> Result<ExitCode> {
    let (program, args) = command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(args);
    if let Some(first) = first {
        let path = env::var_os("PATH").unwrap_or_default();
        let rest = env::split_paths(&path);
        command.env(
            "PATH",
            env::join_paths(std::iter::once(first.to_owned()).chain(rest))?,
        );
    }
    let error = command.exec();
    Err(error).with_context(|| process::show(&command))
}
