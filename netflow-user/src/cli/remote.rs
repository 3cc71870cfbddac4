//! An agent's look instead of one of our own: what it tells is fed as if it were seen here.

use super::args::{CaptureArgs, ObjectArgs};
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::output::Output;
use super::session::{End, Feed, Observer};
use crate::api::client::{Agent, AskError};
use crate::api::dial::DialError;
use crate::api::{Address, SOCKET};
use crate::explain::Explainer;
use crate::model::Input;
use crate::model::query::Query;
use crate::model::recording::{Reader, Writer};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often the observer looks though nothing is told.
const PERIOD: Duration = Duration::from_millis(60);
/// An agent tells the time several times a second, unless it is reading its node, which may take long. Whether it lives at all
/// the connection tells. One that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_mins(1);
/// Inputs on their way.
const WAITING: usize = 256;

/// What to ask.
pub struct Request<'a> {
    /// What was asked.
    pub query: &'a Query,
    /// Longest look; `None` = until somebody ends it.
    pub window: Option<Duration>,
    /// The asker's kube context; empty if there is none.
    pub context: &'a str,
    /// A recording of what is told.
    pub record: Option<&'a Path>,
}

/// The agent that is to look: the one that is named, or that of this node where nothing of the command asks for a look of its
/// own.
pub fn agent(
    objects: &ObjectArgs,
    capture: &CaptureArgs,
    output: &Output,
) -> Result<Option<Agent>, Failure> {
    if let Some(server) = &capture.server {
        return Ok(Some(Agent::connect(
            server,
            capture.identity.identity()?.as_ref(),
        )?));
    }
    if capture.standalone || capture.tiers.is_chosen() || objects.is_chosen() {
        return Ok(None);
    }
    match Agent::connect(&Address::Socket(SOCKET.into()), None) {
        Ok(agent) => Ok(Some(agent)),
        Err(AskError::Absent(_)) => Ok(None),
        Err(e) => {
            output.notice(format_args!("{e}: this command looks itself"));
            Ok(None)
        }
    }
}

/// Lets the agent look.
pub fn run(
    agent: Agent,
    request: &Request<'_>,
    explainer: &mut Explainer,
    output: &Output,
    observer: &mut dyn Observer,
) -> Result<End, Failure> {
    let interrupts = Interrupts::listen()
        .map_err(|e| Failure::new("signals", format!("signals cannot be taken over: {e}"), ""))?;
    // Nothing of ours is attached: a second signal may end it at once.
    interrupts.detached();
    let query = serde_json::to_string(request.query).unwrap_or_default();
    let name = agent.address().to_string();
    let mut collecting = agent.collect(query)?;
    // An agent that has nothing to tell costs no older recording.
    let recording = request.record.map(Writer::create).transpose()?;
    let mut feed = Feed::new(explainer, recording, output);
    let inputs = read(collecting.recording(), Path::new(&name))?;
    let mut closed = false;
    let mut ended = false;
    // Without the objects and the node everything looks as if it were not there.
    let mut known = false;
    let mut told = Instant::now();
    let began = Instant::now();
    loop {
        match inputs.recv_timeout(PERIOD) {
            Ok(mut input) => {
                told = Instant::now();
                // Commands are for whoever reads the answer, who has a kubeconfig of their own.
                if let Input::Start(start) = &mut input {
                    request.context.clone_into(&mut start.context);
                }
                ended = matches!(input, Input::End { .. });
                known |= matches!(input, Input::Node(_));
                feed.catch_up(input);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if interrupts.count() > 1 {
            return Ok(End::Quit);
        }
        let elapsed = began.elapsed();
        let over = interrupts.count() > 0 || request.window.is_some_and(|w| elapsed >= w);
        if !closed && (over || known && observer.step(feed.explainer(), elapsed).is_break()) {
            closed = true;
            collecting.close();
        }
        if told.elapsed() > SILENCE {
            break;
        }
    }
    feed.finish();
    if !ended {
        output.notice(format_args!(
            "the agent at {name} ended, or fell silent, before it had told all: what it told stands"
        ));
    }
    Ok(End::Closed)
}

/// Reads what is told, on a thread of its own: signals are not to wait for it.
fn read(
    recording: impl std::io::Read + Send + 'static,
    name: &Path,
) -> Result<Receiver<Input>, Failure> {
    let reader = Reader::new(recording, name)?;
    let (to, inputs) = sync_channel(WAITING);
    let begun = thread::Builder::new().name("reader".into()).spawn(move || {
        for input in reader {
            if to.send(input).is_err() {
                return;
            }
        }
    });
    begun.map_err(|e| Failure::new("thread", format!("no thread can be started: {e}"), ""))?;
    Ok(inputs)
}

impl From<AskError> for Failure {
    fn from(e: AskError) -> Failure {
        match e {
            AskError::Problem(problem) => {
                // Those that programs know; an agent of another version may have more.
                let known = ["no-services", "busy", "bad-query", "source-unreadable"];
                let code = known.into_iter().find(|code| *code == problem.code);
                Failure::new(code.unwrap_or("agent"), problem.message, problem.hint)
            }

            AskError::NotAllowed(_) => Failure::new(
                "agent-not-allowed",
                e.to_string(),
                "ask as root, or as a member of the group that owns the socket",
            ),
            AskError::Absent(Address::Socket(_)) => Failure::new(
                "no-agent",
                e.to_string(),
                "`netflow agent` starts one; --standalone does without",
            ),
            AskError::Absent(Address::Pod { .. }) => Failure::new(
                "no-agent",
                e.to_string(),
                "it answers once it has attached everything: `netflow status --cluster --wait`",
            ),
            AskError::Absent(Address::Tls { .. }) => Failure::new(
                "no-agent",
                e.to_string(),
                "`netflow agent --listen` with this port, on that node, answers there",
            ),
            AskError::Dial(e) => e.into(),
            AskError::Broken { .. } | AskError::Io(_) => Failure::new(
                "agent-unreachable",
                e.to_string(),
                "ask again; --standalone does without it",
            ),
        }
    }
}

impl From<DialError> for Failure {
    fn from(e: DialError) -> Failure {
        let hint = match &e {
            DialError::Tls(_) => return certificates(&e, "--tls-cert, --tls-key and --ca"),
            DialError::BadName(_) => {
                "--tls-name gives a name, or an IP address, in the agent's certificate"
            }
            DialError::NoIdentity(_) => {
                "give --tls-cert and --tls-key, signed by the agent's --client-ca, and --ca, which signed the agent's"
            }
            DialError::Needless(_) => "leave --tls-cert, --tls-key, --ca and --tls-name away",
            DialError::Stranger { .. } => {
                "--ca names the authority that signed the agent's --tls-cert; if it does, somebody else answers there"
            }
            DialError::OtherName { .. } => {
                "--tls-name gives the name in the agent's certificate, where it differs from the address"
            }
            DialError::Invalid { .. } => "give the agent a valid --tls-cert; it needs no restart",
            DialError::Refused { .. } => {
                "--tls-cert and --tls-key name a client's certificate that the agent's --client-ca signed"
            }
        };
        Failure::new("agent-certificate", e.to_string(), hint)
    }
}

/// Certificates of one's own that cannot be used.
pub(super) fn certificates(e: &dyn std::error::Error, options: &str) -> Failure {
    let hint = format!(
        "{options} name PEM files that this user may read, a certificate and its own key among them"
    );
    Failure::new("certificate", e.to_string(), hint)
}
