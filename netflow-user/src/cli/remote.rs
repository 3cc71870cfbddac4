//! The looks of agents instead of one of our own: what each tells is fed as if it were seen here.

use super::failure::Failure;
use super::fleet::NOT_ALLOWED;
use super::interrupt::Interrupts;
use super::output::Output;
use super::session::{End, Feed, Observer};
use crate::api::Address;
use crate::api::client::{Agent, AskError, Collecting};
use crate::api::dial::DialError;
use crate::explain::Explainer;
use crate::model::Input;
use crate::model::feed::{Clock, Silence, Silent};
use crate::model::query::Query;
use crate::model::recording::{Reader, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often the observer looks though nothing is told.
const PERIOD: Duration = Duration::from_millis(60);
/// An agent tells the time several times a second, unless it is reading its node, which may take long. Whether it lives at all
/// the connection tells. One that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_mins(1);
/// One of many is given up sooner once the rest is asked for: the others have the answer.
const REST: Duration = Duration::from_secs(5);
/// Nothing is decided before all have told of their nodes, unless some take longer than this.
const GRACE: Duration = Duration::from_secs(5);
/// From when on whoever waits is told for whom.
const PATIENCE: Duration = Duration::from_secs(2);
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
    /// A recording of what is told; of several nodes one each.
    pub record: Option<&'a Path>,
}

/// An agent that is to tell.
pub struct Source {
    /// What messages call it.
    pub name: String,
    /// Its node, where it is one of many.
    pub node: Option<String>,
    /// Brings it to tell of a question; on a thread of its own.
    pub begin: Box<dyn FnOnce(String) -> Result<Begun, Failure> + Send>,
}

/// One that tells.
pub struct Begun {
    /// What it tells.
    pub collecting: Collecting,
    /// How its clock stands to ours, if that was measured.
    pub clock: Option<Clock>,
}

impl Source {
    /// The only one.
    pub fn only(agent: Agent) -> Source {
        Source {
            name: agent.address().agent(),
            node: None,
            begin: Box::new(|query| {
                Ok(Begun {
                    collecting: agent.collect(query)?,
                    clock: None,
                })
            }),
        }
    }
}

/// Lets the agents look, all at the same time.
pub fn run(
    sources: Vec<Source>,
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
    let mut crowd = Crowd::ask(sources, &query)?;
    let mut feed = Feed::new(explainer, None, output);
    let began = Instant::now();
    while crowd.is_telling() {
        match crowd.told.recv_timeout(PERIOD) {
            Ok((index, told)) => crowd.take(index, told, request, &mut feed)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if interrupts.count() > 1 {
            return Ok(End::Quit);
        }
        let elapsed = began.elapsed();
        let over = interrupts.count() > 0 || request.window.is_some_and(|w| elapsed >= w);
        let mut seen = || {
            let known = crowd.is_known() || crowd.has_told() && elapsed >= GRACE;
            known && observer.step(feed.explainer(), elapsed).is_break()
        };
        if crowd.closed.is_none() && (over || seen()) {
            crowd.close();
        }
        if !crowd.is_known() && elapsed >= PATIENCE {
            crowd.tell_who_is_waited_for(request, output);
        }
        crowd.give_up();
        crowd.name_the_silent(&mut feed, output);
    }
    crowd.name_the_silent(&mut feed, output);
    crowd.finish(feed, output)
}

/// What one of them tells.
enum Told {
    /// It begins.
    Begun(Begun),
    /// What a recording would hold.
    Input(Box<Input>),
    /// Nothing more comes; why, if nothing came.
    Ended(Option<Failure>),
}

/// Those that are asked.
struct Crowd {
    tellers: Vec<Teller>,
    told: Receiver<(usize, Told)>,
    /// When the rest was asked for.
    closed: Option<Instant>,
    /// What was not named yet.
    silent: Vec<Silent>,
    /// Why those that told nothing did not.
    failures: Vec<Nothing>,
    recorded: Vec<PathBuf>,
}

/// How far one of them is.
struct Teller {
    name: String,
    node: Option<String>,
    collecting: Option<Collecting>,
    clock: Option<Clock>,
    stage: Stage,
    /// Nothing more is waited for.
    done: bool,
    /// When it told something last.
    last: Instant,
}

/// What it has told, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing.
    Asked,
    /// Who it is.
    Started,
    /// Its node: without it, and the objects, everything looks as if it were not there.
    Known,
    /// All.
    Ended,
}

impl Teller {
    fn has_started(&self) -> bool {
        self.stage >= Stage::Started
    }

    fn is_known(&self) -> bool {
        self.stage >= Stage::Known
    }
}

impl Crowd {
    fn ask(sources: Vec<Source>, query: &str) -> Result<Crowd, Failure> {
        let (to, told) = sync_channel(WAITING);
        let mut tellers = Vec::new();
        for (index, source) in sources.into_iter().enumerate() {
            let Source { name, node, begin } = source;
            let (to, query, title) = (to.clone(), query.to_owned(), name.clone());
            let listen = move || listen(index, begin, query, &title, &to);
            let begun = thread::Builder::new().name("reader".into()).spawn(listen);
            begun.map_err(|e| {
                Failure::new("thread", format!("no thread can be started: {e}"), "")
            })?;
            tellers.push(Teller {
                name,
                node,
                collecting: None,
                clock: None,
                stage: Stage::Asked,
                done: false,
                last: Instant::now(),
            });
        }
        Ok(Crowd {
            tellers,
            told,
            closed: None,
            silent: Vec::new(),
            failures: Vec::new(),
            recorded: Vec::new(),
        })
    }

    fn is_telling(&self) -> bool {
        self.tellers.iter().any(|t| !t.done)
    }

    fn is_known(&self) -> bool {
        self.has_told() && self.tellers.iter().all(|t| t.is_known() || t.done)
    }

    fn has_told(&self) -> bool {
        self.tellers.iter().any(Teller::is_known)
    }

    fn is_one_of_many(&self) -> bool {
        self.tellers.iter().any(|t| t.node.is_some())
    }

    fn take(
        &mut self,
        index: usize,
        told: Told,
        request: &Request<'_>,
        feed: &mut Feed<'_>,
    ) -> Result<(), Failure> {
        let closed = self.closed.is_some();
        let teller = &mut self.tellers[index];
        if teller.done {
            return Ok(());
        }
        teller.last = Instant::now();
        match told {
            Told::Begun(Begun {
                mut collecting,
                clock,
            }) => {
                if closed {
                    collecting.close();
                }
                teller.collecting = Some(collecting);
                teller.clock = clock;
            }
            Told::Input(input) => self.pass_on(index, *input, request, feed)?,
            Told::Ended(failure) => self.ended(index, failure),
        }
        Ok(())
    }

    fn pass_on(
        &mut self,
        index: usize,
        mut input: Input,
        request: &Request<'_>,
        feed: &mut Feed<'_>,
    ) -> Result<(), Failure> {
        let teller = &mut self.tellers[index];
        if let Input::Start(start) = &input
            && request.query.since_ms.is_some()
            && start.kept.is_none()
        {
            let too_old = too_old(&teller.name, &start.version);
            self.ended(index, Some(too_old));
            return Ok(());
        }
        let starts = matches!(input, Input::Start(_));
        // Commands are for whoever reads the answer, who has a kubeconfig of their own.
        if let Input::Start(start) = &mut input {
            request.context.clone_into(&mut start.context);
            // An agent that has nothing to tell costs no older recording.
            if let Some(path) = request.record {
                let path = beside(path, teller.node.as_deref());
                feed.record(index, Writer::create(&path)?);
                self.recorded.push(path);
            }
        }
        teller.stage = teller.stage.max(match input {
            Input::Start(_) => Stage::Started,
            Input::Node(_) => Stage::Known,
            Input::End { .. } => Stage::Ended,
            _ => Stage::Asked,
        });
        if request.query.since_ms.is_some() {
            feed.give_of(index, &input);
        } else {
            feed.catch_up(index, input);
        }
        if let Some(clock) = teller.clock.filter(|_| starts) {
            feed.give_of(index, &Input::Clock(clock));
        }
        Ok(())
    }

    fn ended(&mut self, index: usize, failure: Option<Failure>) {
        let teller = &mut self.tellers[index];
        teller.done = true;
        teller.collecting = None;
        if teller.stage == Stage::Ended {
            return;
        }
        let cut = || {
            let why = format!(
                "{} ended, or fell silent, before it had told all",
                teller.name
            );
            Failure::new(
                "agent-unreachable",
                why,
                "ask again; --standalone does without it",
            )
        };
        let failure = failure.unwrap_or_else(cut);
        self.silent.push(Silent {
            node: teller.node.clone().unwrap_or_default(),
            kind: Silence::Timeout,
            why: failure.message.clone(),
        });
        if !teller.has_started() {
            let nothing = (teller.name.clone(), teller.node.clone(), failure);
            self.failures.push(nothing);
        }
    }

    /// Asks for the rest. Who has told nothing till now has nothing that would not be late.
    fn close(&mut self) {
        self.closed = Some(Instant::now());
        let others = self.has_told();
        for index in 0..self.tellers.len() {
            match &mut self.tellers[index].collecting {
                Some(collecting) => collecting.close(),
                None if others => self.too_late(index, "had not answered by the end"),
                None => {}
            }
        }
    }

    /// Waits no longer for those that say nothing.
    fn give_up(&mut self) {
        let patience = match self.closed {
            Some(_) if self.is_one_of_many() => REST,
            _ => SILENCE,
        };
        for index in 0..self.tellers.len() {
            let last = self.tellers[index].last;
            if self.closed.map_or(last, |at| at.max(last)).elapsed() > patience {
                self.too_late(index, "fell silent before it had told all");
            }
        }
    }

    fn too_late(&mut self, index: usize, how: &str) {
        let teller = &self.tellers[index];
        if !teller.done {
            let why = format!("{} {how}", teller.name);
            let hint = "ask again; --standalone does without it";
            self.ended(index, Some(Failure::new("agent-unreachable", why, hint)));
        }
    }

    /// Says who tells nothing, or nothing more: at once, and in the answer, which is from what others tell.
    fn name_the_silent(&mut self, feed: &mut Feed<'_>, output: &Output) {
        let Some(first) = self.tellers.iter().position(Teller::has_started) else {
            return;
        };
        for silent in self.silent.drain(..) {
            output.notice(format_args!("{}: what was told stands", silent.why));
            if !silent.node.is_empty() {
                feed.give_of(first, &Input::Silent(silent));
            }
        }
    }

    fn tell_who_is_waited_for(&self, request: &Request<'_>, output: &Output) {
        let late = self.tellers.iter().filter(|t| !t.is_known() && !t.done);
        let nodes: Vec<&str> = late.filter_map(|t| t.node.as_deref()).collect();
        if !nodes.is_empty() {
            output.progress(&format!("waiting for the agents of {}", few(&nodes)));
        } else if request.query.since_ms.is_some() {
            output.progress("reading what the agent has kept");
        }
    }

    /// Names the nodes that have no agent, as far as the others know them, and ends the recordings.
    fn finish(mut self, mut feed: Feed<'_>, output: &Output) -> Result<End, Failure> {
        let Some(first) = self.tellers.iter().position(Teller::has_started) else {
            return Err(none_answers(self.failures));
        };
        if self.is_one_of_many() {
            let asked: BTreeSet<&str> = self
                .tellers
                .iter()
                .filter_map(|t| t.node.as_deref())
                .collect();
            let nodes = feed.explainer().objects().nodes.iter();
            let others = nodes.filter(|n| !asked.contains(&*n.name));
            let others: Vec<Silent> = others.map(|n| without_agent(&n.name)).collect();
            for silent in others {
                feed.give_of(first, &Input::Silent(silent));
            }
        }
        feed.finish();
        if self.is_one_of_many() && !self.recorded.is_empty() {
            self.recorded.sort();
            let names = self.recorded.iter().map(|path| path.display().to_string());
            let names: Vec<String> = names.collect();
            output.notice(format_args!("recorded: {}", names.join(" ")));
        }
        Ok(End::Closed)
    }
}

/// Brings one to tell, and passes on what it tells.
fn listen(
    index: usize,
    begin: Box<dyn FnOnce(String) -> Result<Begun, Failure> + Send>,
    query: String,
    name: &str,
    to: &SyncSender<(usize, Told)>,
) {
    // Nobody listens any more, if it cannot be sent.
    let tell = |told| to.send((index, told)).is_ok();
    let read = || {
        let mut begun = begin(query)?;
        let recording = begun.collecting.recording();
        tell(Told::Begun(begun));
        for input in Reader::new(recording, Path::new(name))? {
            if !tell(Told::Input(Box::new(input))) {
                break;
            }
        }
        Ok(())
    };
    tell(Told::Ended(read().err()));
}

/// The file for a node's recording: that which was named, with the node's name before its extension.
fn beside(path: &Path, node: Option<&str>) -> PathBuf {
    let Some(node) = node else {
        return path.to_path_buf();
    };
    let mut name: OsString = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(node);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// It understood half of the question, and tells what happens from now on.
fn too_old(name: &str, version: &str) -> Failure {
    Failure::new(
        "agent-too-old",
        format!("{name} is netflow {version}, which keeps nothing of the past"),
        "run this version of netflow there, or ask without --since",
    )
}

fn without_agent(node: &str) -> Silent {
    Silent {
        node: node.to_owned(),
        kind: Silence::Absent,
        why: format!("no agent runs on {node}"),
    }
}

/// An agent by its name in messages, its node, and why it told nothing.
pub type Nothing = (String, Option<String>, Failure);

/// Why nobody told anything; the same reason is given once.
pub fn none_answers(mut failures: Vec<Nothing>) -> Failure {
    failures.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
    // One that is alone speaks for itself, and what the API does not let us do it lets us do nowhere.
    let alike = |(_, node, f): &Nothing| node.is_none() || f.code == NOT_ALLOWED;
    let alike = failures.iter().all(alike);
    let of = failures.len();
    let mut nodes_by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut first: Option<Failure> = None;
    for (name, node, failure) in failures {
        if alike {
            return failure;
        }
        let reason = failure.message.replace(&name, "the agent");
        let reason = reason.strip_prefix("the agent: ").unwrap_or(&reason);
        let nodes = nodes_by_reason.entry(reason.to_owned()).or_default();
        nodes.push(node.unwrap_or_default());
        first.get_or_insert(failure);
    }
    let reasons = nodes_by_reason.iter().map(|(why, nodes)| {
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        format!("{}: {why}", few(&nodes))
    });
    let reasons: Vec<String> = reasons.collect();
    let message = format!("none of {of} agents answers: {}", reasons.join("; "));
    let (code, hint) = first.map_or(("no-agent", String::new()), |f| (f.code, f.hint));
    Failure::new(code, message, hint)
}

/// Names, where there may be many of them.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

impl From<AskError> for Failure {
    fn from(e: AskError) -> Failure {
        match e {
            AskError::Problem(problem) => {
                // Those that programs know; an agent of another version may have more.
                let known = [
                    "no-services",
                    "busy",
                    "bad-query",
                    "source-unreadable",
                    "no-history",
                ];
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests;
