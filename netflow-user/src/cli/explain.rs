//! `netflow explain`.

use super::args::{CaptureArgs, Format, ObjectArgs, TargetArgs, WindowArgs};
use super::failure::Failure;
use super::look::Look;
use super::objects;
use super::output::Output;
use super::render::{self, Layout};
use super::replay;
use super::session::{End, Observer, now};
use super::since::{self, Since};
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::model::answer::Answer;
use crate::model::query::Query;
use clap::Args;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Exit status after a second signal, as shells report a death by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
/// From when on whoever waits is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is asked whether the cause is proved.
const CHECK_PERIOD: Duration = Duration::from_millis(250);

/// Look at the packets to a Service and say which hop is broken, why, and what proves it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow explain --svc app/web-api
      watch the packets to the Service on this node (root), with names from the cluster of the current context, and name the broken hop
  netflow explain --cluster --svc app/web-api
      what the agents of all nodes see, as one answer: through the API server, from anywhere, without root
  netflow explain web-api.app --manifests objects.yaml
      on this node, without an API server: kubectl get svc,endpointslices,pods,nodes,ns,netpol -A -o yaml > objects.yaml
  netflow explain 10.96.12.7:8080 --manifests objects/ --from deploy/frontend --for 30s -o json
      by address, one client only, as JSON
  netflow explain --svc app/web-api --since 10m
      what was wrong in the last ten minutes, also if nobody looked and it is over: agents keep a history
  netflow explain --svc app/web-api --manifests objects.yaml --record worker-1.nfr
  netflow explain --replay worker-1.nfr worker-2.nfr
      record on each node, then join the recordings anywhere, without root

Exit status: 0 healthy, 1 a fault, 2 could not run, 3 not enough evidence")]
pub struct Explain {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// Explain what happened from then on till now, as agents have kept it: so long ago (10m), or a time (2026-11-30T16:04:00Z)
    #[arg(long, value_name = "TIME", value_parser = since::parse, conflicts_with = "window")]
    since: Option<Since>,
    #[command(flatten)]
    capture: CaptureArgs,
    /// Answer from recordings, one per node, instead of from this node
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        conflicts_with_all = ["manifests", "lenient", "kubeconfig", "context", "act_as", "standalone", "cluster", "server", "record", "tc", "btf", "window"]
    )]
    replay: Vec<PathBuf>,
}

impl Explain {
    /// How long ago that begins which is to be explained, if it is not to begin now.
    fn ago(&self) -> Result<Option<Duration>, Failure> {
        let Some(since) = self.since else {
            return Ok(None);
        };
        let capture = &self.capture;
        if capture.standalone || capture.tiers.is_chosen() || !self.objects.manifests.is_empty() {
            return Err(Failure::new(
                "no-past",
                "--since asks for what happened before, which only an agent that ran then has kept",
                "leave away --standalone, --manifests and what says how to look; --server and --cluster say which agents are asked",
            ));
        }
        let ago = since.ago(now()).ok_or_else(|| {
            let why = "--since names a time that is still to come";
            Failure::new("no-past", why, "--for looks from now on")
        });
        ago.map(Some)
    }
}

/// Runs it.
pub fn run(args: &Explain, output: &Output, format: Format) -> Result<u8, Failure> {
    let mut target = args.target.clone();
    let mut files = args.objects.clone();
    objects::target_among_files(&mut target, &mut files);
    let mut explainer = Explainer::new(Box::new(Identities::new()));
    let query = if args.replay.is_empty() {
        let ago = args.ago()?;
        let mut observer = Waiting {
            looks_back: ago.is_some(),
            output,
            window: args.window.window,
            preview: !format.is_json(),
            said: 0,
            next_check: Duration::ZERO,
        };
        let look = Look {
            target: &target,
            files: &files,
            capture: &args.capture,
            window: Some(args.window.window),
            ago,
        };
        let looked = look.run(&mut explainer, output, &mut observer);
        output.progress("");
        match looked? {
            (End::Closed, query) => query,
            (End::Quit, _) => return Ok(EXIT_INTERRUPTED),
        }
    } else if args.since.is_some() {
        return Err(Failure::new(
            "no-past",
            "a recording tells of its own window and of nothing before it",
            "leave --since away; what was recorded with --since is replayed without it",
        ));
    } else {
        let query = target.query(objects::FILES_NAMESPACE)?;
        replay::feed(&args.replay, query.as_ref(), &mut explainer, output)?
    };
    let answer = explainer.answer();
    super::print(output, &written(&answer, &query, output, format)?)?;
    Ok(answer.verdict.exit_code())
}

/// Without a target there is nothing to explain.
pub fn no_target() -> Failure {
    Failure::new(
        "no-target",
        "no Service is named",
        "name one: `netflow explain --svc NAMESPACE/NAME`",
    )
}

fn written(
    answer: &Answer,
    query: &Query,
    output: &Output,
    format: Format,
) -> Result<String, Failure> {
    let json = |r: serde_json::Result<String>| {
        r.map(|text| text + "\n")
            .map_err(|e| Failure::new("output", format!("the answer has no JSON form: {e}"), ""))
    };
    match format {
        Format::Json => json(serde_json::to_string_pretty(answer)),
        Format::Jsonl => json(serde_json::to_string(answer)),
        Format::Text | Format::Wide => {
            let layout = Layout {
                width: output.width(),
                wide: format == Format::Wide,
            };
            Ok(render::explain(answer, &query.namespace, layout))
        }
    }
}

/// Ends the look once a cause is proved, and tells whoever waits at a terminal how it goes.
struct Waiting<'a> {
    output: &'a Output,
    /// What is told is over: there is nothing to wait for.
    looks_back: bool,
    window: Duration,
    preview: bool,
    said: u64,
    next_check: Duration,
}

impl Observer for Waiting<'_> {
    fn step(&mut self, explainer: &mut Explainer, elapsed: Duration) -> ControlFlow<()> {
        if self.looks_back {
            return ControlFlow::Continue(());
        }
        if elapsed >= self.next_check {
            let began = Instant::now();
            let settled = explainer.settled();
            // The thread that looks also drains the ring: it looks a fifth of the time at most.
            self.next_check = elapsed + CHECK_PERIOD.max(began.elapsed() * 5);
            if settled {
                return ControlFlow::Break(());
            }
        }
        if std::mem::take(&mut self.preview) && self.output.is_attended() {
            let answer = explainer.answer();
            self.output
                .aside(&render::preview(&answer, self.output.width()));
        }
        let second = elapsed.as_secs();
        if elapsed >= PATIENCE && second > self.said && self.output.is_attended() {
            self.said = second;
            let answer = explainer.answer();
            let (tried, failed) = answer.paths.iter().fold((0, 0), |(tried, failed), p| {
                (tried + p.outcomes.attempts, failed + p.outcomes.failed())
            });
            self.output.progress(&format!(
                "watching for {second} of at most {} s: {tried} attempts, {failed} failed (Ctrl-C answers now)",
                self.window.as_secs()
            ));
        }
        ControlFlow::Continue(())
    }
}
