//! One live look at a node: objects, facts and records are gathered, each is written to the recording and given to the
//! path walk.
//!
//! The session knows sources by their traits only, so it runs against made-up ones as well.

use super::interrupt::Interrupts;
use super::output::Output;
use crate::explain::{Clients, Explainer};
use crate::model::feed::Start;
use crate::model::node::NodeFacts;
use crate::model::objects::Objects;
use crate::model::record::{Event, Record};
use crate::model::recording::{RecordingError, Writer};
use crate::model::source::{ObjectSource, SourceError};
use crate::model::{Input, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often records are fetched.
const PERIOD: Duration = Duration::from_millis(60);
/// How often the node is read again. Tests count readings, and a machine that stalls is to make none.
const FACTS_PERIOD: Duration = Duration::from_millis(if cfg!(test) { 600_000 } else { 1500 });
/// A node with many rules or connections takes long to read: for so many times as long it is left alone afterwards.
const FACTS_REST: u32 = 5;
/// Objects of a big cluster take long to take in: for so many times as long no newer ones are asked for.
const OBJECTS_REST: u32 = 10;
/// Reading that takes longer than this (a conntrack table of 100,000s of entries) is not done once more for the answer.
const DEAR: Duration = Duration::from_millis(400);
/// A client that was not looked into yet is worth a reading, unless that takes longer than this.
const WORTH: Duration = Duration::from_secs(2);
/// Longest silence towards the path walk: it has no clock but what it is fed.
const TICK: Duration = Duration::from_millis(250);
/// Records that waited for longer than this are told in pieces, as they would have come.
const PIECE: Duration = Duration::from_millis(500);

/// The node that is looked at.
pub trait Node {
    /// Takes in which objects there are: what to ask for, and whose packets to keep. Says whether that is something else than before.
    fn aim(&mut self, objects: &Objects) -> bool;

    /// Takes in which clients were seen: those on this node are looked into too. Says whether one is new.
    fn meet(&mut self, clients: &Clients) -> bool;

    /// The node's state now.
    fn facts(&mut self) -> Result<NodeFacts, SourceError>;

    /// What the kernel has told since the call before.
    fn drain(&mut self) -> Result<Vec<Input>, SourceError>;

    /// All that the kernel has told, counters included, before the look ends.
    fn finish(&mut self) -> Result<Vec<Input>, SourceError>;
}

/// Told after each step.
pub trait Observer {
    /// Looks at how things stand; may end the look.
    fn step(&mut self, explainer: &mut Explainer, elapsed: Duration) -> ControlFlow<()>;
}

/// Who may end a look.
pub struct Limits<'a> {
    /// Longest look; `None` = until somebody ends it.
    pub window: Option<Duration>,
    /// Signals.
    pub interrupts: &'a Interrupts,
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The window closed, the observer had seen enough, or a first signal asked for the answer.
    Closed,
    /// A second signal asked for the door.
    Quit,
}

/// Takes every input: to the recording of its node, then to the path walk.
pub struct Feed<'a> {
    explainer: &'a mut Explainer,
    recordings: BTreeMap<usize, Writer>,
    output: &'a Output,
    last: Time,
}

impl<'a> Feed<'a> {
    /// Feeds `explainer`, and `recording`, if there is one, with what the only node tells.
    pub fn new(
        explainer: &'a mut Explainer,
        recording: Option<Writer>,
        output: &'a Output,
    ) -> Feed<'a> {
        Feed {
            explainer,
            recordings: recording.into_iter().map(|r| (0, r)).collect(),
            output,
            last: Time(0),
        }
    }

    /// What node `index` tells from now on goes to `recording` too.
    pub fn record(&mut self, index: usize, recording: Writer) {
        self.recordings.insert(index, recording);
    }

    /// Takes one input of the only node.
    pub fn give(&mut self, input: &Input) {
        self.give_of(0, input);
    }

    /// Takes one input of node `index`. A recording that cannot be written on is given up; the answer is not.
    pub fn give_of(&mut self, index: usize, input: &Input) {
        if let Some(writer) = self.recordings.get_mut(&index)
            && let Err(e) = writer.write(input)
        {
            self.recordings.remove(&index);
            self.tell(&e);
        }
        self.last = time_of(input).unwrap_or(self.last);
        self.explainer.feed(index, input);
    }

    /// What it is fed to.
    pub fn explainer(&mut self) -> &mut Explainer {
        self.explainer
    }

    /// Takes what the kernel of node `index` told. Records that piled up while the node was read are gone through as if they had come in time:
    /// the cause that they show has stood on top since then, and nobody waits for it once more.
    pub fn catch_up(&mut self, index: usize, input: Input) {
        let Input::Records { mut records } = input else {
            return self.give_of(index, &input);
        };
        loop {
            let first = records.first().map_or(Time(0), |r| r.time);
            let later = |r: &Record| r.time.since(first) > PIECE;
            let end = records.iter().position(later).unwrap_or(records.len());
            let after = records.split_off(end);
            self.give_of(index, &Input::Records { records });
            if after.is_empty() {
                return;
            }
            self.explainer.settled();
            records = after;
        }
    }

    /// Finishes the recordings.
    pub fn finish(mut self) {
        for writer in std::mem::take(&mut self.recordings).into_values() {
            if let Err(e) = writer.finish() {
                self.tell(&e);
            }
        }
    }

    fn tell(&self, e: &RecordingError) {
        self.output.notice(e);
        self.output.notice(format_args!("hint: {}", e.hint()));
    }
}

/// The moment an input speaks of, where it speaks of one.
fn time_of(input: &Input) -> Option<Time> {
    match input {
        Input::Start(s) => Some(s.time),
        Input::Objects(_) | Input::Lost { .. } | Input::Clock(_) | Input::Silent(_) => None,
        Input::Node(n) => Some(n.time),
        Input::Records { records } => records.last().map(|r| r.time),
        Input::Flows { time, .. } | Input::Tick { time } | Input::End { time } => Some(*time),
    }
}

/// The wall clock.
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Looks until the window closes. `objects` are those read before anything was attached, `source` tells of later ones.
pub fn look(
    start: Start,
    objects: Objects,
    source: &mut dyn ObjectSource,
    node: &mut dyn Node,
    feed: &mut Feed<'_>,
    limits: &Limits<'_>,
    observer: &mut dyn Observer,
) -> Result<End, SourceError> {
    let began = Instant::now();
    node.aim(&objects);
    feed.give(&Input::Start(Box::new(start)));
    feed.give(&Input::Objects(Box::new(objects)));
    let mut pace = Pace::new();
    pace.read(node, feed)?;
    let mut next_objects = Instant::now();
    loop {
        if limits.interrupts.count() > 1 {
            return Ok(End::Quit);
        }
        pass_on(node, feed, &mut pace)?;
        let changed = (Instant::now() >= next_objects).then(|| newer(source, feed));
        if let Some(objects) = changed.flatten() {
            let began = Instant::now();
            // In a big cluster something changes all the time, most of it far from here.
            if node.aim(&objects) {
                pace.hurry();
            }
            feed.give(&Input::Objects(Box::new(objects)));
            next_objects = Instant::now() + began.elapsed() * OBJECTS_REST;
        }
        let closed = limits.interrupts.count() > 0
            || limits.window.is_some_and(|w| began.elapsed() >= w)
            || step(feed, observer, began).is_break();
        let due = pace.is_due() || closed && !pace.is_dear();
        let met = (due || pace.asks(closed)) && node.meet(&feed.explainer.clients());
        if due || met {
            pace.read(node, feed)?;
        }
        if closed {
            break;
        }
        limits.interrupts.wait(PERIOD);
    }
    // Reading the node took a moment, in which more may have come.
    for input in node.finish()? {
        feed.give(&input);
    }
    feed.give(&Input::End { time: now() });
    Ok(End::Closed)
}

/// When the node is read again.
struct Pace {
    next: Instant,
    /// When it is next asked whether somebody new is worth a reading before that.
    ask: Instant,
    took: Duration,
    /// Namespaces in which a route was looked for in vain.
    unrouted: BTreeSet<u32>,
}

impl Pace {
    fn new() -> Pace {
        Pace {
            next: Instant::now(),
            ask: Instant::now(),
            took: Duration::ZERO,
            unrouted: BTreeSet::new(),
        }
    }

    /// Of a client without a route no packet follows: whether there is one is asked at once, for each namespace once.
    fn notice(&mut self, input: &Input) {
        let Input::Records { records } = input else {
            return;
        };
        let is_failed = |r: &&Record| matches!(r.event, Event::FibError { .. });
        for record in records.iter().filter(is_failed) {
            if self.unrouted.insert(record.netns) {
                self.ask = Instant::now();
            }
        }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// It was read a moment ago, and that takes so long that the answer would be late for it.
    fn is_dear(&self) -> bool {
        self.took > DEAR && !self.is_due()
    }

    /// Whether to ask now who is new; before the answer in any case.
    fn asks(&mut self, closed: bool) -> bool {
        let now = Instant::now();
        let asks = self.took <= WORTH && (closed || now >= self.ask);
        if asks {
            self.ask = now + FACTS_PERIOD;
        }
        asks
    }

    fn hurry(&mut self) {
        self.next = Instant::now();
    }

    fn read(&mut self, node: &mut dyn Node, feed: &mut Feed<'_>) -> Result<(), SourceError> {
        let began = Instant::now();
        feed.give(&Input::Node(Box::new(node.facts()?)));
        // What was dear once may be cheap the next time: a long list of connections is kept for a while.
        let before = std::mem::replace(&mut self.took, began.elapsed());
        let rest = before.min(self.took) * FACTS_REST;
        self.next = Instant::now() + FACTS_PERIOD.max(rest);
        self.ask = Instant::now() + FACTS_PERIOD.max(self.took);
        Ok(())
    }
}

fn pass_on(node: &mut dyn Node, feed: &mut Feed<'_>, pace: &mut Pace) -> Result<(), SourceError> {
    for input in node.drain()? {
        pace.notice(&input);
        feed.catch_up(0, input);
    }
    Ok(())
}

/// One look at how things stand, after a tick if nothing else told the time.
fn step(feed: &mut Feed<'_>, observer: &mut dyn Observer, began: Instant) -> ControlFlow<()> {
    let now = now();
    if now.since(feed.last) >= TICK {
        feed.give(&Input::Tick { time: now });
    }
    observer.step(feed.explainer, began.elapsed())
}

/// Objects that changed. What cannot be read, as while it is being written, keeps its last version.
fn newer(source: &mut dyn ObjectSource, feed: &Feed<'_>) -> Option<Objects> {
    source.poll().unwrap_or_else(|e| {
        feed.output
            .notice(format_args!("{e}; the version before it stays in use"));
        None
    })
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is a failed test"
)]
mod tests {
    use super::*;
    use crate::cli::args::Global;
    use crate::cluster::identity::Identities;
    use crate::model::objects::Pod;
    use crate::model::record::Event;
    use crate::model::recording::Reader;

    fn record(ms: u64) -> Record {
        Record {
            time: Time(ms * 1_000_000),
            netns: 1,
            ifindex: 1,
            tuple: None,
            event: Event::CtFull,
        }
    }

    /// Tells one tick a drain.
    #[derive(Default)]
    struct Fake {
        aimed: u32,
        read: u64,
        takes: Duration,
        somebody_new: bool,
        /// Milliseconds of records that wait to be drained.
        waiting: Vec<u64>,
    }

    impl Node for Fake {
        fn aim(&mut self, objects: &Objects) -> bool {
            self.aimed += 1;
            !objects.pods.is_empty()
        }

        fn meet(&mut self, _clients: &Clients) -> bool {
            std::mem::take(&mut self.somebody_new)
        }

        fn facts(&mut self) -> Result<NodeFacts, SourceError> {
            self.read += 1;
            std::thread::sleep(self.takes);
            Ok(NodeFacts {
                time: Time(self.read),
                ..NodeFacts::default()
            })
        }

        fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
            let mut inputs = vec![Input::Tick {
                time: Time(1_000 + self.read),
            }];
            let records: Vec<Record> = self.waiting.drain(..).map(record).collect();
            if !records.is_empty() {
                inputs.push(Input::Records { records });
            }
            Ok(inputs)
        }

        fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
            self.drain()
        }
    }

    /// Tells what it holds, one a call; then nothing, or an error.
    struct Versions(Vec<Result<Objects, ()>>);

    impl ObjectSource for Versions {
        fn poll(&mut self) -> Result<Option<Objects>, SourceError> {
            match self.0.pop() {
                None => Ok(None),
                Some(Ok(objects)) => Ok(Some(objects)),
                Some(Err(())) => Err(SourceError {
                    what: "a.yaml".into(),
                    why: "half written".into(),
                    hint: String::new(),
                }),
            }
        }
    }

    /// Ends the look after some steps.
    struct Steps(u32);

    impl Observer for Steps {
        fn step(&mut self, _explainer: &mut Explainer, _elapsed: Duration) -> ControlFlow<()> {
            self.0 -= 1;
            if self.0 == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }

    fn recorded(steps: u32, versions: Versions) -> (Vec<Input>, Fake) {
        recorded_of(Fake::default(), steps, versions)
    }

    fn recorded_of(node: Fake, steps: u32, versions: Versions) -> (Vec<Input>, Fake) {
        let Fake {
            takes,
            somebody_new,
            ..
        } = node;
        let path = std::env::temp_dir().join(format!(
            "netflow-session-{}-{steps}-{}-{somebody_new}.nfr",
            std::process::id(),
            takes.as_millis()
        ));
        let output = Output::new(&Global::default());
        let interrupts = Interrupts::listen().unwrap();
        let mut explainer = Explainer::new(Box::new(Identities::new()));
        let mut feed = Feed::new(
            &mut explainer,
            Some(Writer::create(&path).unwrap()),
            &output,
        );
        let (mut node, mut versions) = (node, versions);
        let end = look(
            Start::default(),
            Objects::default(),
            &mut versions,
            &mut node,
            &mut feed,
            &Limits {
                window: None,
                interrupts: &interrupts,
            },
            &mut Steps(steps),
        );
        assert_eq!(end.expect("fakes do not fail"), End::Closed);
        feed.finish();
        let reader = Reader::open(&path).unwrap();
        let inputs = reader.collect();
        std::fs::remove_file(&path).unwrap();
        (inputs, node)
    }

    #[test]
    fn starts_with_objects_and_facts_and_ends_with_fresh_facts() {
        let (inputs, node) = recorded(1, Versions(vec![]));
        assert!(matches!(inputs[0], Input::Start(_)));
        assert!(matches!(inputs[1], Input::Objects(_)));
        assert!(matches!(&inputs[2], Input::Node(n) if n.time == Time(1)));
        assert!(matches!(inputs.last(), Some(Input::End { .. })));
        let last_facts = inputs.iter().rposition(|i| matches!(i, Input::Node(_)));
        assert_eq!(last_facts, Some(inputs.len() - 3), "{inputs:?}");
        assert_eq!((node.aimed, node.read), (1, 2));
    }

    #[test]
    fn records_that_waited_are_told_in_pieces() {
        let node = Fake {
            waiting: vec![2000, 2400, 2501, 3001, 3002, 2999],
            ..Fake::default()
        };
        let (inputs, _) = recorded_of(node, 1, Versions(vec![]));
        let pieces: Vec<Vec<u64>> = inputs
            .iter()
            .filter_map(|i| match i {
                Input::Records { records } => Some(records),
                _ => None,
            })
            .map(|records| records.iter().map(|r| r.time.0 / 1_000_000).collect())
            .collect();
        assert_eq!(
            pieces,
            [vec![2000, 2400], vec![2501, 3001], vec![3002, 2999]]
        );
    }

    #[test]
    fn a_node_that_is_dear_to_read_is_read_again_only_for_a_client_that_is_new() {
        let reads = |somebody_new| {
            let takes = DEAR + Duration::from_millis(20);
            let node = Fake {
                takes,
                somebody_new,
                ..Fake::default()
            };
            recorded_of(node, 1, Versions(vec![])).1.read
        };
        assert_eq!((reads(false), reads(true)), (1, 2));
    }

    /// What is fed after a newer version, ticks apart; and how often the node was aimed at and read.
    fn after_newer(pods: Vec<Pod>) -> (bool, (u32, u64)) {
        let newer = Objects {
            time: Time(7),
            pods: pods.into(),
            ..Objects::default()
        };
        let (inputs, node) = recorded(3, Versions(vec![Ok(newer), Err(())]));
        let at = inputs
            .iter()
            .rposition(|i| matches!(i, Input::Objects(o) if o.time == Time(7)))
            .expect("the newer objects are fed");
        let mut rest = inputs[at + 1..].iter();
        let next = rest.find(|i| !matches!(i, Input::Tick { .. }));
        (
            matches!(next, Some(Input::Node(_))),
            (node.aimed, node.read),
        )
    }

    #[test]
    fn newer_objects_that_aim_elsewhere_are_followed_by_facts() {
        assert_eq!(after_newer(vec![Pod::default()]), (true, (2, 3)));
        // The last reading is that before the answer.
        assert_eq!(after_newer(Vec::new()).1, (2, 2));
    }
}
