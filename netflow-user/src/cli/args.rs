//! Options that several subcommands share.

use super::duration;
use super::failure::Failure;
use super::target;
use crate::api::Address;
use crate::api::dial::{DialError, Identity};
use crate::api::tls::Files;
use crate::model::query::{From, Query};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For a reader.
    #[default]
    Text,
    /// For a reader with a wide screen: every path and all evidence.
    Wide,
    /// One JSON document.
    Json,
    /// JSON, one line per item.
    Jsonl,
}

impl Format {
    /// Whether a program reads it.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }
}

/// Options of every subcommand.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// How to write the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    pub output: Format,
    /// No colours, also on a terminal
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Say more on stderr; twice: what the kernel part says too
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// Which Service, which clients.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// Service: NAME, svc/NAME, NS/NAME, NAME.NS[.svc…] or its address, each with :PORT if need be
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// The same; here svc/NAME is a Service of the namespace svc
    #[arg(long, value_name = "[NS/]NAME", conflicts_with = "target")]
    pub svc: Option<String>,
    /// Only this port of the Service
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only these clients: pod/NAME, deploy/NAME, ns/NAME, node/NAME, external or an address
    #[arg(long, value_name = "CLIENT")]
    pub from: Option<String>,
    /// Namespace, where the target names none [default: the context's, with --manifests `default`]
    #[arg(short, long)]
    pub namespace: Option<String>,
}

impl TargetArgs {
    /// The query; `None` if no target was named. `namespace` is meant where nothing names one.
    pub fn query(&self, namespace: &str) -> Result<Option<Query>, Failure> {
        let named = match (&self.target, &self.svc) {
            (Some(typed), _) => target::parse(typed)?,
            (None, Some(typed)) => target::parse_svc(typed)?,
            (None, None) => return Ok(None),
        };
        let from = self.from.as_deref().map(target::parse_from).transpose()?;
        Ok(Some(target::query(
            named,
            self.namespace.as_deref().unwrap_or(namespace),
            self.port,
            from,
        )?))
    }

    /// Whether a Service was named.
    pub fn is_named(&self) -> bool {
        self.target.is_some() || self.svc.is_some()
    }

    /// `--from`, parsed.
    pub fn client(&self) -> Result<Option<From>, Failure> {
        Ok(self.from.as_deref().map(target::parse_from).transpose()?)
    }
}

/// Where Kubernetes objects come from.
#[derive(Debug, Clone, Default, Args)]
pub struct ObjectArgs {
    /// Kubernetes objects from files: YAML or JSON, a directory of them, or - for stdin; may be repeated
    #[arg(long, value_name = "DIR|FILE|-", num_args = 1.., conflicts_with_all = ["kubeconfig", "context", "act_as"])]
    pub manifests: Vec<PathBuf>,
    /// Use what can be read of the manifests where a part is broken
    #[arg(long)]
    pub lenient: bool,
    /// The API server, where no manifests are given.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Which API server is asked, and as whom.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// Kubeconfig of the cluster, instead of $KUBECONFIG or ~/.kube/config; in a Pod its service account is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of the current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// User to act as
    #[arg(long = "as", value_name = "USER")]
    pub act_as: Option<String>,
    /// How long the API server may take to answer, or to go on with a list
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub request_timeout: Duration,
}

impl ApiArgs {
    /// Whether a cluster is named: an agent has its own.
    pub fn is_chosen(&self) -> bool {
        let ApiArgs {
            kubeconfig,
            context,
            act_as,
            request_timeout: _,
        } = self;
        kubeconfig.is_some() || context.is_some() || act_as.is_some()
    }
}

impl Default for ApiArgs {
    fn default() -> ApiArgs {
        ApiArgs {
            kubeconfig: None,
            context: None,
            act_as: None,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// How the node is looked at.
#[derive(Debug, Clone, Default, Args)]
pub struct CaptureArgs {
    /// Load the programs for as long as this command runs (root, on the node); what is done anyway where no agent runs
    #[arg(long)]
    pub standalone: bool,
    /// Ask the agents of all nodes, through the API server; what is done anyway where no agent runs on this node
    #[arg(
        long,
        conflicts_with_all = ["standalone", "server", "manifests", "tc", "btf", "without", "ring"]
    )]
    pub cluster: bool,
    /// Ask the agent at this socket (`unix:///PATH`) or address (`https://HOST:PORT`, with --tls-cert, --tls-key and --ca),
    /// instead of the one of this node if there is one
    #[arg(
        long,
        value_name = "ADDR",
        conflicts_with_all = ["standalone", "manifests", "kubeconfig", "context", "act_as", "tc", "btf", "without", "ring"]
    )]
    pub server: Option<Address>,
    /// Who asks, where the agent is not on this node.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// Write what was seen to FILE, for --replay
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Which tiers may be used.
    #[command(flatten)]
    pub tiers: TierArgs,
}

/// Who asks an agent that is not on this node.
#[derive(Debug, Clone, Default, Args)]
pub struct IdentityArgs {
    /// With --server https://…: the certificate to show the agent (PEM), signed by its --client-ca
    #[arg(long, value_name = "FILE", requires_all = ["server", "tls_key", "ca"])]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificates (PEM) of the authorities one of which has signed the agent's
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub ca: Option<PathBuf>,
    /// Name or address in the agent's certificate, where it is not HOST
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    pub tls_name: Option<String>,
}

impl IdentityArgs {
    /// What was given, read.
    pub fn identity(&self) -> Result<Option<Identity>, DialError> {
        let IdentityArgs {
            tls_cert,
            tls_key,
            ca,
            tls_name,
        } = self.clone();
        let (Some(cert), Some(key), Some(ca)) = (tls_cert, tls_key, ca) else {
            return Ok(None);
        };
        let pems = Files { cert, key, ca }.read()?;
        let name = tls_name;
        Ok(Some(Identity { pems, name }))
    }
}

/// How the programs are loaded and attached.
#[derive(Debug, Clone, Default, Args)]
pub struct TierArgs {
    /// Attach the packet programs this way only
    #[arg(long, value_enum, value_name = "TIER")]
    pub tc: Option<TcTier>,
    /// Type information of the kernel, where it is not in /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "PATH")]
    pub btf: Option<PathBuf>,
    /// Do without a means that the kernel has: what is seen then, and what is lost
    #[arg(long, value_enum, value_name = "MEANS", hide = true)]
    pub without: Vec<Means>,
    /// Bytes of the ring between the kernel and netflow: what a small one loses
    #[arg(long, value_name = "BYTES", hide = true)]
    pub ring: Option<u32>,
}

impl TierArgs {
    /// Whether anything is asked for, which a program that is loaded already cannot heed.
    pub fn is_chosen(&self) -> bool {
        let TierArgs {
            tc,
            btf,
            without,
            ring,
        } = self;
        tc.is_some() || btf.is_some() || !without.is_empty() || ring.is_some()
    }
}

/// What the kernel may offer and netflow can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Means {
    /// Programs on functions of the kernel
    Kprobe,
    /// Tracepoint programs that read the kernel's types
    TpBtf,
    /// The tracepoint at which a connection's first packet shows its translation
    NatTracepoint,
}

/// Ways to attach a tc program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TcTier {
    /// TCX links (Linux 6.6)
    Tcx,
    /// A filter in the clsact qdisc
    Clsact,
}

/// The window to look at.
#[derive(Debug, Clone, Args)]
pub struct WindowArgs {
    /// Look for at most so long; a proved cause ends it earlier
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub window: Duration,
}
