//! `netflow watch`: lines as paths and findings change.

use super::args::{CaptureArgs, Format, ObjectArgs, TargetArgs};
use super::changes::between;
use super::failure::Failure;
use super::look::Look;
use super::output::Output;
use super::session::{End, Observer};
use super::{duration, objects};
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::model::answer::Answer;
use clap::Args;
use std::ops::ControlFlow;
use std::time::Duration;

/// How often the answer is worked out anew.
const PERIOD: Duration = Duration::from_millis(500);

/// Report paths and findings of a Service as they change
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow watch --svc app/web-api
  netflow watch web-api.app --manifests objects.yaml --from ns/shop --for 10m -o jsonl

It ends with --for or Ctrl-C. Exit status: 0, or 2 if it could not run")]
pub struct Watch {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    capture: CaptureArgs,
    /// Stop after so long [default: until Ctrl-C]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    window: Option<Duration>,
}

/// Runs it.
pub fn run(args: &Watch, output: &Output, format: Format) -> Result<u8, Failure> {
    let mut target = args.target.clone();
    let mut files = args.objects.clone();
    objects::target_among_files(&mut target, &mut files);
    let mut explainer = Explainer::new(Box::new(Identities::new()));
    let mut lines = Lines {
        output,
        json: format.is_json(),
        shown: None,
        next: Duration::ZERO,
        failed: None,
    };
    let look = Look {
        target: &target,
        files: &files,
        capture: &args.capture,
        window: args.window,
    };
    let (end, _) = look.run(&mut explainer, output, &mut lines)?;
    if end == End::Closed && lines.failed.is_none() {
        let _ = lines.report(explainer.answer());
    }
    lines.failed.map_or(Ok(0), Err)
}

/// Writes what changed since the lines before.
struct Lines<'a> {
    output: &'a Output,
    json: bool,
    shown: Option<Answer>,
    next: Duration,
    failed: Option<Failure>,
}

impl Lines<'_> {
    fn report(&mut self, answer: Answer) -> ControlFlow<()> {
        let mut text = String::new();
        for event in between(self.shown.as_ref(), &answer) {
            let line = if self.json {
                serde_json::to_string(&event).unwrap_or_default()
            } else {
                event.line()
            };
            text += &line;
            text.push('\n');
        }
        self.shown = Some(answer);
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        match super::print(self.output, &text) {
            Ok(true) => ControlFlow::Continue(()),
            // Nobody reads the lines any more.
            Ok(false) => ControlFlow::Break(()),
            Err(e) => {
                self.failed = Some(e);
                ControlFlow::Break(())
            }
        }
    }
}

impl Observer for Lines<'_> {
    fn step(&mut self, explainer: &mut Explainer, elapsed: Duration) -> ControlFlow<()> {
        if elapsed < self.next {
            return ControlFlow::Continue(());
        }
        self.next = elapsed + PERIOD;
        self.report(explainer.answer())
    }
}
