//! `netflow agent`.

mod counts;
mod desk;
mod http;
mod hub;
mod metrics;
mod monitor;
mod outcome;
mod past;
mod process;
mod seat;

use self::desk::Looks;
use self::http::Bound;
use self::hub::Hub;
use self::monitor::Monitor;
use super::args::{Format, ObjectArgs, TierArgs};
use super::failure::Failure;
use super::host;
use super::interrupt::Interrupts;
use super::live;
use super::objects::Place;
use super::output::Output;
use super::size;
use crate::api::SOCKET;
use crate::api::gate::{Gate, GateError, Trouble};
use crate::api::server::Serving;
use crate::api::tls::Files;
use crate::cluster::ask::this_node;
use crate::model::query::Query;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long those who look may take for the rest once the agent is to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Stay on this node, with the programs loaded, and answer whoever explains
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow agent
      in a Pod of the host's network: names come from the API with the service account
  netflow agent --kubeconfig agent.kubeconfig &
  netflow explain --svc app/web-api
      asks the agent, and loads nothing itself
  netflow agent --listen 10.0.0.7:4250 --tls-cert agent.crt --tls-key agent.key --client-ca ca.crt &
  netflow status --server https://10.0.0.7:4250 --tls-cert me.crt --tls-key me.key --ca ca.crt
      from anywhere, by those whose certificate ca.crt has signed

Whoever may open the socket (root and its group), or has a certificate of --client-ca, sees who talks to whom in all namespaces; payloads nobody sees.

It ends with SIGTERM or Ctrl-C: those who look are told the rest, and everything is detached.
Exit status: 0, or 2 if it could not run")]
pub struct Agent {
    #[command(flatten)]
    objects: ObjectArgs,
    /// Where to answer
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Tell metrics (`/metrics`, for Prometheus) and health (`/healthz`, for probes) there, by plain HTTP to whoever asks
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    listen: ListenArgs,
    /// Memory for what happened before somebody asks (`netflow explain --since`); 0: none
    ///
    /// When it is full, healthy connections go first, then those that failed, each time the oldest
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::parse)]
    history: usize,
    #[command(flatten)]
    tiers: TierArgs,
}

/// Who is answered that is not on this node.
#[derive(Debug, Args)]
struct ListenArgs {
    /// Answer over TCP too, with TLS, whoever shows a certificate that --client-ca has signed
    #[arg(long, value_name = "ADDR:PORT", requires_all = ["tls_cert", "tls_key", "client_ca"])]
    listen: Option<SocketAddr>,
    /// The agent's certificate (PEM) with the name or address it is asked by; read again when it changes, as the other two
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_key: Option<PathBuf>,
    /// Certificates (PEM) of the authorities: whoever has one of theirs sees the flows of all namespaces, so take one of its own
    #[arg(long, value_name = "FILE", requires = "listen")]
    client_ca: Option<PathBuf>,
}

impl ListenArgs {
    /// The gate, if there is to be one.
    fn open(&self, output: &Output) -> Result<Option<Gate>, GateError> {
        let ListenArgs {
            listen,
            tls_cert,
            tls_key,
            client_ca,
        } = self;
        let (Some(at), Some(cert), Some(key), Some(ca)) = (listen, tls_cert, tls_key, client_ca)
        else {
            return Ok(None);
        };
        let files = Files {
            cert: cert.clone(),
            key: key.clone(),
            ca: ca.clone(),
        };
        let output = output.clone();
        let notice = move |trouble: &Trouble| output.notice(trouble);
        Gate::open(*at, files, Arc::new(notice)).map(Some)
    }
}

/// Runs it.
pub fn run(args: &Agent, output: &Output, _format: Format) -> Result<u8, Failure> {
    live::check_rights()?;
    // Before anything is attached, or read that may take long.
    let gate = args.listen.open(output)?;
    let place = Place::of(&args.objects)?;
    let asked = Query {
        namespace: place.namespace().to_owned(),
        ..Query::default()
    };
    let (mut source, objects) = place.read(&args.objects, &asked, output)?;
    let interrupts = Interrupts::listen()
        .map_err(|e| Failure::new("signals", format!("signals cannot be taken over: {e}"), ""))?;
    let node = this_node(&objects, &host::addresses()).unwrap_or_else(host::name);
    // What cannot be had is said before anything is attached.
    let metrics = args.metrics.map(Bound::at).transpose()?;
    let kernel = live::attach(&args.tiers, output.is_chatty())?;
    let (to, orders) = channel();
    let mut hub = Hub::new(
        kernel,
        &mut *source,
        objects,
        output,
        args.history,
        to.clone(),
    );
    let looks = Looks::new(to.clone(), hub.latest(), place.cluster(), output.clone());
    let at = gate.as_ref().map(Gate::at);
    let serving = Serving::start(&args.socket, gate, looks.clone())?;
    let monitor = Monitor::new(to, looks.clone());
    let metrics = metrics.map(|bound| bound.serve(monitor)).transpose()?;
    if let Some(metrics) = &metrics {
        output.notice(format_args!(
            "metrics are at http://{}/metrics",
            metrics.address()
        ));
    }
    let there = at.map_or_else(String::new, |at| format!(", and at https://{at}"));
    output.notice(format_args!(
        "the agent of {node} answers at {}{there}",
        args.socket.display()
    ));
    let served = hub.run(&orders, || interrupts.count() == 0);
    // No new questions; those that were asked are told the rest.
    let ended = serving.stop();
    looks.close();
    let until = Instant::now() + DRAIN;
    let drained = hub.run(&orders, || {
        looks.count() > 0 && interrupts.count() < 2 && Instant::now() < until
    });
    drop(hub);
    interrupts.detached();
    // Whoever still asks is told that it ends.
    drop(orders);
    if interrupts.count() < 2 {
        ended.wait(until);
    }
    drop(metrics);
    served.and(drained)?;
    Ok(0)
}
