//! `netflow watch`: a screen, or lines as paths and findings change.

use super::args::{CaptureArgs, Format, ObjectArgs, TargetArgs};
use super::changes::between;
use super::failure::Failure;
use super::look::Look;
use super::output::Output;
use super::screen::Screen;
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

/// Follow a Service live: its path, findings and connections, on a screen or as lines
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow watch --svc app/web-api
  netflow watch web-api.app --manifests objects.yaml --from ns/shop --for 10m -o jsonl

On a terminal it is a screen: path, findings, connections; ? says what the keys do. Elsewhere, and with
TERM=dumb or -vv, it writes lines; with -o json or jsonl one event each, for programs

It ends with --for, q or Ctrl-C. Exit status: 0, or 2 if it could not run")]
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
    let mut screen = Screen::new(output);
    let observer: &mut dyn Observer = if output.has_screen() && !format.is_json() {
        &mut screen
    } else {
        &mut lines
    };
    let look = Look {
        target: &target,
        files: &files,
        capture: &args.capture,
        window: args.window,
        ago: None,
    };
    let looked = look.run(&mut explainer, output, observer);
    let was_screen = screen.close();
    let (end, _) = looked?;
    let failed = screen.failed();
    if end == End::Closed && !was_screen && failed.is_none() && lines.failed.is_none() {
        let _ = lines.report(explainer.answer());
    }
    failed.or(lines.failed).map_or(Ok(0), Err)
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
