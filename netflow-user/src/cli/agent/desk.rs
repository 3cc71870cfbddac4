//! Who answers at the agent's socket: each question is a look of its own, told as a recording.

use super::hub::{Health, Latest, Order};
use super::outcome::{Outcome, Outcomes};
use super::past::Past;
use super::seat::{Seat, ask};
use crate::api::server::{Desk, Look, Told};
use crate::api::v1::{History, Problem, StatusResponse, Tier, Unseen};
use crate::cli::COMMIT;
use crate::cli::failure::Failure;
use crate::cli::host;
use crate::cli::interrupt::Interrupts;
use crate::cli::live::{self, LiveNode};
use crate::cli::output::Output;
use crate::cli::session::{self, End, Feed, Limits, Observer, now};
use crate::cluster::ask::this_node;
use crate::cluster::identity::Identities;
use crate::explain::Explainer;
use crate::flows::Stock;
use crate::model::Time;
use crate::model::objects::{Away, Objects};
use crate::model::query::{Query, Target};
use crate::model::recording::Writer;
use crate::model::source::{ObjectSource, SourceError};
use crate::node::netns;
use std::ops::ControlFlow;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Looks at a time: each reads the node of its own.
const LOOKS: usize = 16;
/// Those of them that look back: each takes as much memory as it is told of the history, until it has passed that on.
const LOOKS_BACK: usize = 2;

/// Answers.
#[derive(Clone)]
pub struct Looks(Arc<Shared>);

struct Shared {
    orders: Sender<Order>,
    latest: Arc<Latest>,
    /// Kube context and API server.
    cluster: (String, String),
    output: Output,
    since: Time,
    /// Asks each look for its end.
    running: Mutex<Running>,
    ended: Outcomes,
}

/// The looks that go on.
#[derive(Default)]
struct Running {
    looks: Vec<Interrupts>,
    /// How many of them look back.
    back: usize,
    /// No more are begun.
    closing: bool,
}

impl Looks {
    /// Answers with what comes by way of `orders`.
    pub fn new(
        orders: Sender<Order>,
        latest: Arc<Latest>,
        cluster: (&str, &str),
        output: Output,
    ) -> Looks {
        Looks(Arc::new(Shared {
            orders,
            latest,
            cluster: (cluster.0.to_owned(), cluster.1.to_owned()),
            output,
            since: now(),
            running: Mutex::default(),
            ended: Outcomes::default(),
        }))
    }

    /// Lets all that are going on tell the rest, and begins no more.
    pub fn close(&self) {
        let mut running = self.0.running();
        running.closing = true;
        for look in &running.looks {
            look.close();
        }
    }

    /// How those ended that did.
    pub fn ended(&self) -> &Outcomes {
        &self.0.ended
    }

    /// How many are going on.
    pub fn count(&self) -> usize {
        self.0.running().looks.len()
    }
}

impl Desk for Looks {
    fn collect(&self, query: &str, to: Told) -> Result<Arc<dyn Look>, Problem> {
        let query: Query = serde_json::from_str(query).map_err(|e| Problem {
            code: "bad-query".into(),
            message: format!("the agent does not understand the question: {e}"),
            hint: "ask with a netflow of the agent's version".into(),
        })?;
        let Some(one) = One::begin(&self.0, query.since_ms.is_some()) else {
            self.0.ended.add(Outcome::Refused);
            return Err(Problem {
                code: "busy".into(),
                message: format!(
                    "the agent is ending, or {LOOKS} others look through it, or {LOOKS_BACK} look back"
                ),
                hint: "ask again in a moment, or with --standalone".into(),
            });
        };
        let interrupts = one.interrupts.clone();
        let begun = thread::Builder::new().name("look".into()).spawn(move || {
            let outcome = one.run(&query, to);
            one.shared.ended.add(outcome);
        });
        match begun {
            Ok(_) => Ok(Arc::new(interrupts)),
            Err(e) => {
                self.0.ended.add(Outcome::Failed);
                Err(Problem {
                    code: "agent".into(),
                    message: format!("the agent cannot start a thread: {e}"),
                    hint: String::new(),
                })
            }
        }
    }

    fn status(&self) -> Result<StatusResponse, Problem> {
        let shared = &self.0;
        let (_, objects) = shared.latest.get();
        let health = ask(&shared.orders, Order::Health).map_err(|e| problem(e.into()))?;
        Ok(status(&objects, health, shared.since))
    }
}

impl Look for Interrupts {
    fn close(&self) {
        // Once is enough, whoever else wants it: twice would be the door.
        if self.count() == 0 {
            self.raise();
        }
    }

    fn abandon(&self) {
        self.raise();
        self.raise();
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look.
struct One {
    shared: Arc<Shared>,
    looks_back: bool,
    interrupts: Interrupts,
}

impl One {
    /// Unless there are too many.
    fn begin(shared: &Arc<Shared>, looks_back: bool) -> Option<One> {
        let interrupts = Interrupts::default();
        let mut running = shared.running();
        let full = looks_back && running.back >= LOOKS_BACK;
        if running.closing || running.looks.len() >= LOOKS || full {
            return None;
        }
        running.back += usize::from(looks_back);
        running.looks.push(interrupts.clone());
        drop(running);
        Some(One {
            shared: shared.clone(),
            looks_back,
            interrupts,
        })
    }

    fn run(&self, query: &Query, to: Told) -> Outcome {
        match query.since_ms {
            None => self.look_from_now(query, to),
            Some(ago) => self.look_back(query, now() - Duration::from_millis(ago), to),
        }
    }

    /// Tells what was kept, and how the node is now. Whoever asked waits for all of it.
    fn look_back(&self, query: &Query, asked: Time, to: Told) -> Outcome {
        let Shared {
            orders,
            latest,
            cluster: (context, server),
            output,
            since,
            ..
        } = &*self.shared;
        let past = match Past::gather(orders, latest, query, asked) {
            Ok(Some(past)) => past,
            Ok(None) => {
                to.problem(Problem {
                    code: "no-history".into(),
                    message: "this agent keeps nothing of what happened before it is asked".into(),
                    hint: "start it without --history 0, or ask without --since".into(),
                });
                return Outcome::Failed;
            }
            Err(failure) => {
                to.problem(problem(failure));
                return Outcome::Failed;
            }
        };
        let title = format!("a look back at {}", name(query));
        output.detail(format_args!("{title} began"));
        let start = past.start(query, (context, server), *since);
        let mut writer = Writer::stream(to, &title);
        let told = past.tell(start, orders, |input| {
            // Whoever is gone has abandoned it.
            let _ = writer.write(input);
            self.interrupts.count() < 2
        });
        let _ = writer.finish();
        output.detail(format_args!("{title} ended"));
        match told {
            Ok(End::Closed) => Outcome::Answered,
            Ok(End::Quit) => Outcome::Abandoned,
            Err(e) => {
                output.notice(format_args!("{title}: {e}"));
                Outcome::Failed
            }
        }
    }

    fn look_from_now(&self, query: &Query, to: Told) -> Outcome {
        let (version, objects) = self.shared.latest.get();
        let objects = Objects::clone(&objects);
        if let Err(failure) = live::check_services(&objects) {
            to.problem(problem(failure));
            return Outcome::Failed;
        }
        let seat = match Seat::take(&self.shared.orders) {
            Ok(seat) => seat,
            Err(e) => {
                to.problem(problem(e.into()));
                return Outcome::Failed;
            }
        };
        let output = &self.shared.output;
        let title = format!("a look at {}", name(query));
        output.detail(format_args!("{title} began"));
        let mut explainer = Explainer::new(Box::new(Identities::new()));
        let mut feed = Feed::new(&mut explainer, Some(Writer::stream(to, &title)), output);
        let outcome = match self.look(query, objects, version, seat, &mut feed) {
            Ok(End::Closed) => Outcome::Answered,
            Ok(End::Quit) => Outcome::Abandoned,
            Err(e) => {
                output.notice(format_args!("{title}: {e}"));
                Outcome::Failed
            }
        };
        feed.finish();
        output.detail(format_args!("{title} ended"));
        outcome
    }

    fn look(
        &self,
        query: &Query,
        objects: Objects,
        version: u64,
        seat: Seat,
        feed: &mut Feed<'_>,
    ) -> Result<End, SourceError> {
        let (context, server) = &self.shared.cluster;
        let cluster = (context.as_str(), server.as_str());
        if live::decided_by_objects(query, &objects) {
            let start = live::start(query, cluster, &objects, 0, Vec::new());
            live::tell_objects(start, objects, feed);
            return Ok(End::Closed);
        }
        // Without its number a namespace is still told from others, by its node.
        let own = netns::own().map_or(0, |own| own.inum);
        let start = live::start(query, cluster, &objects, own, seat.tiers());
        let mut source = Newer {
            latest: self.shared.latest.clone(),
            version,
        };
        let mut node = LiveNode::new(seat, query.clone());
        let limits = Limits {
            window: None,
            interrupts: &self.interrupts,
        };
        session::look(
            start,
            objects,
            &mut source,
            &mut node,
            feed,
            &limits,
            &mut Everything,
        )
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut running = self.shared.running();
        running.looks.retain(|other| !other.is(&self.interrupts));
        running.back -= usize::from(self.looks_back);
    }
}

/// Whoever asked decides when it is enough.
struct Everything;

impl Observer for Everything {
    fn step(&mut self, _explainer: &mut Explainer, _elapsed: Duration) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// The agent's objects, for one look.
struct Newer {
    latest: Arc<Latest>,
    version: u64,
}

impl ObjectSource for Newer {
    fn poll(&mut self) -> Result<Option<Objects>, SourceError> {
        let (version, objects) = self.latest.get();
        if version == self.version {
            return Ok(None);
        }
        self.version = version;
        Ok(Some(Objects::clone(&objects)))
    }
}

fn name(query: &Query) -> String {
    match &query.target {
        Target::Name(name) => format!("{}/{name}", query.namespace),
        Target::Address(ip) => ip.to_string(),
    }
}

fn problem(failure: Failure) -> Problem {
    let Failure {
        code,
        message,
        hint,
    } = failure;
    Problem {
        code: code.to_owned(),
        message,
        hint,
    }
}

fn status(objects: &Objects, health: Health, since: Time) -> StatusResponse {
    let Health {
        tiers,
        lost,
        unseen,
        pods,
        flows,
        looks,
        counts: _,
        held: _,
        history,
    } = health;
    let limits = objects
        .limits
        .iter()
        .map(|l| format!("{}: {}", l.kind, l.why));
    let away = objects.away.iter().map(|Away { kind, why, .. }| {
        if kind.is_empty() {
            why.clone()
        } else {
            format!("{kind}: {why}")
        }
    });
    StatusResponse {
        node: this_node(objects, &host::addresses()).unwrap_or_else(host::name),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: COMMIT.into(),
        kernel: host::kernel(),
        since_ns: since.0,
        now_ns: now().0,
        tiers: tiers
            .into_iter()
            .map(|t| Tier {
                capability: t.capability.name().into(),
                tier: t.tier.unwrap_or_default(),
                best: t.best,
                reasons: t.reasons,
                lost: t.lost,
            })
            .collect(),
        lost: lost.into_iter().collect(),
        unseen: unseen
            .into_iter()
            .map(|(interface, why)| Unseen { interface, why })
            .collect(),
        objects: objects.source.clone(),
        limits: limits.chain(away).collect(),
        pods: u32::try_from(pods).unwrap_or(u32::MAX),
        flows: flows as u64,
        looks: u32::try_from(looks).unwrap_or(u32::MAX),
        history: history.map(|stock| kept(stock, since)),
    }
}

fn kept(stock: Stock, since: Time) -> History {
    let Stock {
        limit,
        bytes,
        connections,
        healthy_evicted,
        failing_evicted,
    } = stock;
    History {
        limit: limit as u64,
        bytes: bytes as u64,
        connections: connections as u64,
        failing_from_ns: failing_evicted.until.max(since).0,
        failing_evicted: failing_evicted.connections,
        healthy_from_ns: healthy_evicted.until.max(since).0,
        healthy_evicted: healthy_evicted.connections,
    }
}
