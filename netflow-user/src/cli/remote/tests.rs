//! Agents of several nodes, all of them in this process.

use super::*;
use crate::api::server::{Desk, Look, Serving, Told as To};
use crate::api::v1::{Problem, StatusResponse};
use crate::cli::args::Global;
use crate::cli::replay;
use crate::cluster::identity::Identities;
use crate::model::Time;
use crate::model::answer::Answer;
use crate::model::feed::{Kept, Start};
use crate::model::objects::{Node, Objects, Service};
use crate::model::query::Target;
use std::ops::ControlFlow;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Nobody waits for it, unless something is broken.
const LONG: Duration = Duration::from_mins(2);

/// Tells of its node, and the end once it is asked for; of the past, by itself, if `keeps`.
struct Fake {
    node: &'static str,
    keeps: bool,
}

struct Closing(Mutex<Sender<()>>);

impl Desk for Fake {
    fn collect(&self, query: &str, to: To) -> Result<Arc<dyn Look>, Problem> {
        let Fake { node, keeps } = *self;
        let query: Query = serde_json::from_str(query).unwrap();
        let (close, closed) = channel();
        thread::spawn(move || {
            let mut writer = Writer::stream(to, node);
            let looks_back = query.since_ms.is_some() && keeps;
            for mut input in begin_of(node, query) {
                if let Input::Start(start) = &mut input {
                    start.kept = looks_back.then(Kept::default);
                }
                writer.write(&input).unwrap();
            }
            if !looks_back {
                // Whoever asks for the past goes away.
                let _ = closed.recv_timeout(LONG);
            }
            writer.write(&Input::End { time: Time(9) }).unwrap();
            writer.finish().unwrap();
        });
        Ok(Arc::new(Closing(Mutex::new(close))))
    }

    fn status(&self) -> Result<StatusResponse, Problem> {
        Ok(StatusResponse::default())
    }
}

impl Look for Closing {
    fn close(&self) {
        // It may have ended.
        let _ = self.0.lock().unwrap().send(());
    }

    fn abandon(&self) {
        self.close();
    }
}

fn begin_of(node: &str, query: Query) -> [Input; 3] {
    let start = Start {
        time: Time(1),
        node: node.into(),
        query,
        ..Start::default()
    };
    let objects = Objects {
        services: vec![Service {
            namespace: "app".into(),
            name: "web".into(),
            ..Service::default()
        }]
        .into(),
        nodes: ["n1", "n2", "n3", "n4"]
            .map(|name| Node {
                name: name.into(),
                ..Node::default()
            })
            .into_iter()
            .collect(),
        ..Objects::default()
    };
    [
        Input::Start(Box::new(start)),
        Input::Objects(Box::new(objects)),
        Input::Node(Box::default()),
    ]
}

/// Has seen enough when all have told of their nodes.
struct Content;

impl Observer for Content {
    fn step(&mut self, _: &mut Explainer, _: Duration) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Waits for all.
struct Patient;

impl Observer for Patient {
    fn step(&mut self, _: &mut Explainer, _: Duration) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

struct Place {
    dir: TempDir,
    agents: Vec<Serving>,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
            agents: Vec::new(),
        }
    }

    /// An agent that answers.
    fn answering(&mut self, node: &'static str) -> Source {
        self.keeping(node, true)
    }

    fn keeping(&mut self, node: &'static str, keeps: bool) -> Source {
        let socket = self.dir.path().join(format!("{node}.sock"));
        self.agents
            .push(Serving::start(&socket, None, Fake { node, keeps }).unwrap());
        let begin = move |query| {
            let agent = Agent::connect(&Address::Socket(socket), None)?;
            let collecting = agent.collect(query)?;
            let clock = Some(Clock {
                ahead: if node == "n2" { 5_000_000 } else { 0 },
                within: 1_000_000,
            });
            Ok(Begun { collecting, clock })
        };
        source(node, begin)
    }

    fn look(&self, sources: Vec<Source>, window: Duration) -> Result<Answer, Failure> {
        self.ask(sources, &query(), Some(window))
    }

    /// What was, of which nobody has to wait for more.
    fn look_back(&self, sources: Vec<Source>) -> Result<Answer, Failure> {
        let query = Query {
            since_ms: Some(60_000),
            ..query()
        };
        self.ask(sources, &query, None)
    }

    fn ask(
        &self,
        sources: Vec<Source>,
        query: &Query,
        window: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let mut explainer = Explainer::new(Box::new(Identities::new()));
        let record = self.dir.path().join("out.nfr");
        let request = Request {
            query,
            window,
            context: "test",
            record: Some(&record),
        };
        let mut content = Content;
        let mut patient = Patient;
        let observer: &mut dyn Observer = match window {
            Some(_) => &mut content,
            None => &mut patient,
        };
        let end = run(sources, &request, &mut explainer, &quiet(), observer)?;
        assert_eq!(end, End::Closed);
        Ok(explainer.answer())
    }
}

fn source(
    node: &str,
    begin: impl FnOnce(String) -> Result<Begun, Failure> + Send + 'static,
) -> Source {
    Source {
        name: format!("the agent on {node}"),
        node: Some(node.to_owned()),
        begin: Box::new(begin),
    }
}

/// One that cannot be reached.
fn broken(node: &str) -> Source {
    let why = format!("the agent on {node}: no answer");
    source(node, |_| Err(Failure::new("agent-unreachable", why, "")))
}

fn query() -> Query {
    Query {
        namespace: "app".into(),
        target: Target::Name("web".into()),
        ..Query::default()
    }
}

fn quiet() -> Output {
    Output::new(&Global::default())
}

fn states(answer: &Answer) -> Vec<(&str, &str)> {
    let nodes = answer.nodes.iter();
    nodes.map(|n| (&*n.name, &*n.state)).collect()
}

#[test]
fn all_are_one_answer_and_so_are_their_recordings() {
    let mut place = Place::new();
    let sources = vec![place.answering("n1"), place.answering("n2"), broken("n3")];
    let answer = place.look(sources, LONG).unwrap();
    let wanted = [
        ("n1", "answered"),
        ("n2", "answered"),
        ("n3", "timeout"),
        ("n4", "absent"),
    ];
    assert_eq!(states(&answer), wanted);
    assert_eq!(answer.cluster.context, "test");
    assert_eq!(answer.nodes[1].clock_offset_ms, Some(5.0));
    let blind: Vec<_> = answer.blind.iter().map(|b| (&*b.code, &*b.node)).collect();
    for told in [
        ("node-silent", "n3"),
        ("node-without-agent", "n4"),
        ("clocks-apart", "n2"),
    ] {
        assert!(blind.contains(&told), "{told:?} in {blind:?}");
    }

    let files = ["n1", "n2"].map(|node| place.dir.path().join(format!("out.{node}.nfr")));
    assert!(!place.dir.path().join("out.n3.nfr").exists());
    let mut replayed = Explainer::new(Box::new(Identities::new()));
    replay::feed(&files, None, &mut replayed, &quiet()).unwrap();
    assert_eq!(replayed.answer(), answer);
}

#[test]
fn one_that_hangs_is_named_once_the_window_is_over() {
    let mut place = Place::new();
    let (_hold, held) = channel::<()>();
    let hanging = source("n2", move |_| {
        let _ = held.recv_timeout(LONG);
        Err(Failure::new("agent-unreachable", "it is over", ""))
    });
    let began = Instant::now();
    let sources = vec![place.answering("n1"), hanging];
    let answer = place.look(sources, Duration::from_secs(1)).unwrap();
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(
        states(&answer)[..2],
        [("n1", "answered"), ("n2", "timeout")]
    );
    let silent = answer.blind.iter().find(|b| b.node == "n2").unwrap();
    assert!(silent.text.contains("had not answered"), "{}", silent.text);
}

#[test]
fn where_nobody_answers_each_reason_is_given_once() {
    let place = Place::new();
    let other = source("n4", |_| {
        Err(Failure::new("agent", "the agent is busy", ""))
    });
    let sources = vec![broken("n1"), broken("n2"), broken("n3"), other];
    let error = place.look(sources, LONG).unwrap_err();
    assert_eq!(error.code, "agent-unreachable");
    let wanted = "none of 4 agents answers: n1, n2, n3: no answer; n4: the agent is busy";
    assert_eq!(error.message, wanted);
}

#[test]
fn the_only_agent_says_itself_why_it_tells_nothing() {
    let place = Place::new();
    let only = Source {
        node: None,
        ..broken("n1")
    };
    let error = place.look(vec![only], LONG).unwrap_err();
    assert_eq!(error.message, "the agent on n1: no answer");
}

#[test]
fn a_nodes_recording_is_named_after_it() {
    let table = [
        ("out.nfr", Some("n1"), "out.n1.nfr"),
        ("/a.b/out", Some("n1"), "/a.b/out.n1"),
        ("out.nfr", None, "out.nfr"),
    ];
    for (path, node, wanted) in table {
        assert_eq!(beside(Path::new(path), node), Path::new(wanted));
    }
}

#[test]
fn of_many_names_a_few_are_shown() {
    assert_eq!(few(&["a", "b"]), "a, b");
    assert_eq!(few(&["a"; 7]), "a, a, a, a, a and 2 more");
}

#[test]
fn an_agent_that_tells_nothing_of_the_past_is_named() {
    let mut place = Place::new();
    let sources = vec![place.answering("n1"), place.keeping("n2", false)];
    let answer = place.look_back(sources).unwrap();
    assert_eq!(
        states(&answer)[..2],
        [("n1", "answered"), ("n2", "timeout")]
    );
    let silent = answer.blind.iter().find(|b| b.node == "n2").unwrap();
    assert!(silent.text.contains("keeps nothing"), "{}", silent.text);
    assert!(place.dir.path().join("out.n1.nfr").exists());
    assert!(!place.dir.path().join("out.n2.nfr").exists());

    let mut place = Place::new();
    let only = Source {
        node: None,
        ..place.keeping("n1", false)
    };
    let error = place.look_back(vec![only]).unwrap_err();
    assert_eq!(error.code, "agent-too-old");
}
