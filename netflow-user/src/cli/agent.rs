//! `netflow agent`.

mod counts;
mod desk;
mod http;
mod hub;
mod metrics;
mod monitor;
mod outcome;
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
use crate::api::SOCKET;
use crate::api::server::Serving;
use crate::cluster::ask::this_node;
use crate::model::query::Query;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
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

Whoever may open the socket (root and its group) sees who talks to whom in all namespaces; payloads nobody sees.

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
    tiers: TierArgs,
}

/// Runs it.
pub fn run(args: &Agent, output: &Output, _format: Format) -> Result<u8, Failure> {
    live::check_rights()?;
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
    let mut hub = Hub::new(kernel, &mut *source, objects, output, to.clone());
    let looks = Looks::new(to.clone(), hub.latest(), place.cluster(), output.clone());
    let serving = Serving::start(&args.socket, looks.clone())?;
    let monitor = Monitor::new(to, looks.clone());
    let metrics = metrics.map(|bound| bound.serve(monitor)).transpose()?;
    if let Some(metrics) = &metrics {
        output.notice(format_args!(
            "metrics are at http://{}/metrics",
            metrics.address()
        ));
    }
    output.notice(format_args!(
        "the agent of {node} answers at {}",
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
