//! One scenario: a lab with a fault, traffic, the real netflow on the nodes, and everything that its answers must hold.

use crate::ablation;
use crate::agent::Agent;
use crate::answer::{Answer, plane_name};
use crate::faults::{At, Expect, Form, Turn, Vantage};
use crate::lab::plan::{Placement, Plan};
use crate::lab::{Lab, Life, netns};
use crate::matrix::{Case, Tier};
use crate::netflow::{self, Ended, Means, Running};
use crate::pace::{self, paced};
use crate::traffic::{App, Dial, Line, Outcome};
use crate::world::{Party, World};
use anyhow::{Context, Result, bail, ensure};
use netflow_user::model::Input;
use netflow_user::model::answer::{Basis, Severity, Verdict};
use netflow_user::model::capability::TierStatus;
use netflow_user::model::recording::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Seconds that netflow may look.
const WINDOW: u64 = 8;
/// Where the answer must come at the window's end, a shorter one does.
const SHORT: u64 = 5;
/// From the first failing attempt to the verdict (design: budgets).
const IN_TIME: Duration = Duration::from_secs(5);

/// How a scenario ended.
pub struct Row {
    /// The scenario.
    pub case: Case,
    /// Top code at the deciding vantage, or the verdict.
    pub top: String,
    /// How long the deciding answer took.
    pub took: Duration,
    /// Capability → tier that it ran on.
    pub tiers: BTreeMap<&'static str, String>,
    /// What was wrong; empty: nothing.
    pub wrong: Vec<String>,
    /// Verdicts that came too late. Time is netflow's budget on a node of its own: labs side by side share the processors,
    /// so what is late among others and right otherwise is measured again alone.
    pub late: Vec<String>,
}

impl Row {
    /// Whether all was as it must be, in time.
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.late.is_empty()
    }

    /// Whether nothing was wrong but the time.
    pub fn is_only_late(&self) -> bool {
        self.wrong.is_empty() && !self.late.is_empty()
    }
}

/// Runs a scenario.
pub fn run(case: Case) -> Row {
    let mut row = Row {
        case,
        top: "-".to_owned(),
        took: Duration::ZERO,
        tiers: BTreeMap::new(),
        wrong: Vec::new(),
        late: Vec::new(),
    };
    if let Err(e) = Scenario::new(case).and_then(|s| s.run(&mut row)) {
        row.wrong.push(format!("{e:#}"));
    }
    row
}

struct Scenario {
    case: Case,
    world: World,
    lab: Lab,
    /// By node, where they are asked instead of each netflow looking itself.
    agents: BTreeMap<usize, Agent>,
}

/// What one node's netflow said.
struct Heard {
    vantage: Vantage,
    node: usize,
    ended: Ended,
    answer: Answer,
    recording: PathBuf,
}

impl Heard {
    /// Whether it still looked at that time.
    fn looked_at(&self, time: u64) -> bool {
        let inputs = Reader::open(&self.recording).into_iter().flatten();
        let ends = inputs.filter_map(|input| match input {
            Input::End { time } => Some(time.0),
            _ => None,
        });
        ends.max().is_some_and(|end| end >= time)
    }

    /// When the first attempt failed that it can have seen.
    fn failing(&self, clients: &[App]) -> Option<u64> {
        let attached = attached(&self.recording)?;
        let now = netflow::now();
        let first = |c: &App| c.first_failing(attached, now);
        Some(clients.iter().filter_map(first).min()?.max(attached))
    }
}

impl Scenario {
    fn new(case: Case) -> Result<Scenario> {
        let plan = Plan::draw(case.seed, case.shape());
        let mut world = World::healthy(&plan, case.mode);
        case.fault.inflict(&plan, &mut world)?;
        let mut lab = Lab::up(plan, case.mode, Life::Owned)?;
        lab.apply(&world)?;
        Ok(Scenario {
            case,
            world,
            lab,
            agents: BTreeMap::new(),
        })
    }

    fn run(mut self, row: &mut Row) -> Result<()> {
        let mut clients = Vec::new();
        if self.case.form == Form::Retrying {
            clients = self.start_traffic()?;
            await_attempts(&clients);
        }
        if self
            .case
            .fault
            .beforehand(&self.lab.plan, &mut self.world)?
        {
            self.lab.apply(&self.world)?;
        }
        if self.case.tier == Tier::Agent {
            for (_, node) in self.vantages() {
                let agent = Agent::start(&self.lab, *node, paced(Duration::from_secs(20)))?;
                self.agents.insert(*node, agent);
            }
        }
        let window = self.window();
        let mut nodes = self.start_netflow(window)?;
        let mut second = self.start_second()?;
        for (_, _, running, _) in &mut nodes {
            running.wait_attached(paced(Duration::from_secs(20)));
        }
        if matches!(self.case.form, Form::Fresh | Form::VipOnly) {
            clients = self.start_traffic()?;
        }
        if self.case.fault.meanwhile(&self.lab.plan, &mut self.world) {
            self.lab.apply(&self.world)?;
        }
        if let Some(after) = self.case.fault.afterwards(&self.lab.plan, &mut self.world) {
            // It is the time itself that makes the fault.
            thread::sleep(after);
            self.lab.apply(&self.world)?;
        }
        let turned = self.follow_turns(&clients)?;
        let limit = Duration::from_secs(window) + paced(Duration::from_secs(30));
        let mut heard = Vec::new();
        for (vantage, node, running, recording) in nodes {
            let ended = running.finish(limit).with_context(|| vantage.name())?;
            let answer = ended.answer().with_context(|| vantage.name())?;
            heard.push(Heard {
                vantage,
                node,
                ended,
                answer,
                recording,
            });
        }
        let second = second
            .take()
            .map(|s| s.finish(limit).context("second Service"))
            .transpose()?;
        let of_service = &clients[..clients.len().min(self.world.via_vip.len())];
        let failing: Vec<_> = heard.iter().map(|h| h.failing(of_service)).collect();
        let mut wrong = Vec::new();
        note(&mut wrong, "the lab", self.check_unharmed(of_service));
        drop(clients);
        let early = turned.is_some_and(|turned| heard.iter().any(|h| !h.looked_at(turned)));
        if early {
            let late = "netflow had seen enough before the fault had taken its last turn";
            row.late.push(late.to_owned());
        } else {
            self.check_all(&heard, &failing, second.as_ref(), &mut wrong, row);
        }
        self.headline(&heard, row);
        row.tiers = heard
            .iter()
            .flat_map(|heard| tiers(&heard.recording))
            .collect();
        if !wrong.is_empty() || !row.late.is_empty() {
            keep_files(&self.lab.dir(), &self.case);
        }
        note(&mut wrong, "agents", self.stop_agents());
        row.wrong = wrong;
        self.lab.down()
    }

    fn at(&self, vantage: Vantage) -> At {
        let Case {
            mode,
            placement,
            form,
            family,
            network,
            ..
        } = self.case;
        At {
            vantage,
            placement,
            mode,
            form,
            family,
            network,
        }
    }

    fn expect(&self, vantage: Vantage) -> Expect {
        self.case.fault.expect(self.at(vantage))
    }

    /// Healthy answers come only at the end of the window, so it is short where one is expected.
    fn window(&self) -> u64 {
        let early = |v| self.expect(v).observed;
        let seconds = if early(Vantage::Client) || early(Vantage::Backend) {
            WINDOW
        } else {
            SHORT
        };
        (seconds + self.case.fault.takes()) * u64::from(pace::times())
    }

    fn vantages(&self) -> &'static [(Vantage, usize)] {
        match self.case.placement {
            Placement::Same => &[(Vantage::Client, 0)],
            Placement::Cross => &[(Vantage::Client, 0), (Vantage::Backend, 1)],
        }
    }

    fn means(&self, node: usize) -> Means<'_> {
        match self.agents.get(&node) {
            Some(agent) => Means::Agent(agent.socket()),
            None => Means::Own(self.case.tier.args()),
        }
    }

    /// An agent ends when it is told to, and leaves no socket.
    fn stop_agents(&mut self) -> Result<()> {
        for (_, agent) in std::mem::take(&mut self.agents) {
            let socket = agent.socket().to_owned();
            let status = agent.stop(paced(Duration::from_secs(10)))?;
            ensure!(status.success(), "the agent ended with {status}");
            ensure!(!socket.exists(), "the agent left its socket");
        }
        Ok(())
    }

    fn start_netflow(&self, window: u64) -> Result<Vec<(Vantage, usize, Running, PathBuf)>> {
        let from = self.world.from.iter();
        let from: Vec<&str> = from.flat_map(|from| ["--from", from]).collect();
        self.vantages()
            .iter()
            .map(|(vantage, node)| {
                let recording = self.lab.dir().join(format!("node-{node}.nfrec"));
                let running = Running::start(
                    &self.lab,
                    *node,
                    &self.world.asked,
                    self.means(*node),
                    &from,
                    window,
                    recording.clone(),
                )?;
                Ok((*vantage, *node, running, recording))
            })
            .collect()
    }

    fn check_all(
        &self,
        heard: &[Heard],
        failing: &[Option<u64>],
        second: Option<&Ended>,
        wrong: &mut Vec<String>,
        row: &mut Row,
    ) {
        for (heard, failing) in heard.iter().zip(failing) {
            self.check_node(heard, *failing, wrong, &mut row.late);
        }
        if let Some(second) = second {
            note(wrong, "second Service", check_healthy(second));
        }
        if self.case.placement == Placement::Cross {
            note(wrong, "both recordings", self.check_together(heard, row));
        }
    }

    /// Where nothing breaks, no client fails: otherwise a machine that is too slow for its labs is what netflow found.
    fn check_unharmed(&self, clients: &[App]) -> Result<()> {
        let allowed = self.case.fault.client_sees(&self.lab.plan, self.case.mode);
        for client in clients.iter().filter(|_| allowed == [Outcome::Ok]) {
            let tally = client.tally();
            ensure!(
                tally.ok == tally.attempts,
                "a client failed, and no fault is meant to do that: {tally:?}"
            );
        }
        Ok(())
    }

    /// Lets the fault take its turns; says when a client had felt the last.
    fn follow_turns(&mut self, clients: &[App]) -> Result<Option<u64>> {
        let mut turned = None;
        let mut well = false;
        for turn in self.case.fault.turns() {
            feel(clients, well, turned.unwrap_or_default())?;
            // Of the world only what is done to single machines turns: that is quick.
            self.world = World::healthy(&self.lab.plan, self.case.mode);
            well = *turn == Turn::Heals;
            if !well {
                self.case.fault.inflict(&self.lab.plan, &mut self.world)?;
            }
            self.lab.apply_tweaks(&self.world)?;
            turned = Some(netflow::now());
        }
        if let Some(since) = turned {
            feel(clients, well, since)?;
            turned = Some(netflow::now());
        }
        Ok(turned)
    }

    /// netflow for the second Service, where that one has a chance to be healthy.
    fn start_second(&self) -> Result<Option<Running>> {
        // Once per fault and proxy is enough, and on the machine's own kernel: that the Service next to a broken one is
        // told apart is the work of rules, and an emulated machine spends most of its time on what another netflow costs.
        let once = self.case.form == Form::Fresh && pace::times() == 1;
        if self.case.fault.is_node_wide() || !once {
            return Ok(None);
        }
        let second = &self.lab.plan.second;
        let asked = (second.namespace.clone(), second.name.clone());
        let recording = self.lab.dir().join("second.nfrec");
        Running::start(&self.lab, 0, &asked, self.means(0), &[], SHORT, recording).map(Some)
    }

    /// Clients: the Service's first, then Pods', then the second Service's and noise.
    fn start_traffic(&self) -> Result<Vec<App>> {
        let (plan, lab) = (&self.lab.plan, &self.lab);
        let client = lab.party(self.world.client);
        let mut dials: Vec<(String, Dial)> = Vec::new();
        for dial in &self.world.via_vip {
            dials.push((client.clone(), self.in_form(dial)));
        }
        if self.case.form != Form::VipOnly {
            dials.extend(
                self.world
                    .via_pod
                    .iter()
                    .map(|d| (client.clone(), self.in_form(d))),
            );
        }
        if !self.case.fault.is_node_wide() {
            let vip = plan.second.other_vip.unwrap_or(plan.second.vip);
            let to = SocketAddr::new(vip, plan.second.ports[0].port);
            dials.push((
                lab.party(Party::Client),
                Dial {
                    // Chosen at random among near and far backends: some go to the other node within any second.
                    interval: 250,
                    ..Dial::tcp(to)
                },
            ));
        }
        for (party, dial) in &self.world.noise {
            dials.push((lab.party(*party), dial.clone()));
        }
        for (_, dial) in &mut dials {
            dial.count = lasting(dial.count);
            dial.seconds *= u64::from(pace::times());
        }
        dials
            .iter()
            .map(|(ns, dial)| App::dial(lab, ns, dial))
            .collect()
    }

    /// Where clients retry, they are patient, so that SYNs are being retransmitted when netflow starts.
    fn in_form(&self, dial: &Dial) -> Dial {
        match self.case.form {
            Form::Retrying => Dial {
                connect_timeout: 6000,
                interval: 2 * dial.interval + 100,
                ..dial.clone()
            },
            _ => dial.clone(),
        }
    }

    fn check_node(
        &self,
        heard: &Heard,
        failing: Option<u64>,
        wrong: &mut Vec<String>,
        late: &mut Vec<String>,
    ) {
        let Heard {
            vantage,
            ended,
            answer,
            recording,
            ..
        } = heard;
        let expect = self.expect(*vantage);
        let place = vantage.name();
        note(wrong, place, self.check_answer(&expect, ended, answer));
        if expect.observed && !expect.codes.is_empty() {
            match failing {
                Some(since) => note(late, place, check_time(ended, since)),
                None => wrong.push(format!("{place}: no attempt failed while netflow looked")),
            }
            note(wrong, place, check_ablation(answer, &[recording]));
        }
        note(wrong, place, check_replay(ended, recording));
        note(wrong, place, self.check_own_packets(heard));
    }

    fn check_answer(&self, expect: &Expect, ended: &Ended, answer: &Answer) -> Result<()> {
        check_verdict(expect, ended, answer)?;
        check_codes(expect, answer)?;
        if let Some(info) = expect.info {
            let there = answer.findings.iter().any(|f| f.code == info);
            ensure!(there, "no finding {info}");
        }
        if !expect.firm {
            return Ok(());
        }
        check_citation(expect, answer)?;
        if let (Some(over), Some(top)) = (expect.over, answer.findings.first()) {
            ensure!(
                top.until.is_some() == over,
                "{} until {:?}, though it is {}over",
                top.code,
                top.until,
                if over { "" } else { "not " }
            );
        }
        let text = String::from_utf8_lossy(&ended.stdout);
        let mut names = self.case.fault.must_name(&self.lab.plan);
        names.retain(|name| !text.contains(name.as_str()));
        let decisive = expect.firm && expect.codes[0] != "lost-beyond-node";
        ensure!(
            !decisive || names.is_empty(),
            "the answer does not name {names:?}"
        );
        if decisive && self.case.fault.names_all_met() {
            check_all_met(answer)?;
        }
        Ok(())
    }

    fn check_together(&self, heard: &[Heard], row: &mut Row) -> Result<()> {
        let recordings: Vec<&Path> = heard.iter().map(|h| h.recording.as_path()).collect();
        let ended = netflow::replay(&recordings)?;
        let answer = ended.answer()?;
        row.top = answer.headline();
        let expect = self.expect(Vantage::Together);
        self.check_answer(&expect, &ended, &answer)?;
        if expect.observed && !expect.codes.is_empty() {
            check_ablation(&answer, &recordings)?;
        }
        Ok(())
    }

    /// A node sees itself and its Pods: no record may come from a namespace behind an uplink.
    fn check_own_packets(&self, heard: &Heard) -> Result<()> {
        let plan = &self.lab.plan;
        let inode = |ns: &str| fs::metadata(netns::path(ns)).map(|m| m.ino());
        let mut own = BTreeSet::from([0, inode(&self.lab.node(heard.node))?]);
        for pod in plan.pods().filter(|p| p.node == heard.node) {
            own.insert(inode(&self.lab.pod(pod))?);
        }
        for input in Reader::open(&heard.recording)? {
            if let Input::Records { records } = input
                && let Some(record) = records.iter().find(|r| !own.contains(&u64::from(r.netns)))
            {
                bail!("a record from a foreign namespace: {record:?}");
            }
        }
        Ok(())
    }

    /// What the table shows: the answer of the vantage that decides.
    fn headline(&self, heard: &[Heard], row: &mut Row) {
        let decides = |h: &&Heard| self.expect(h.vantage).observed;
        if let Some(h) = heard.iter().find(decides).or(heard.first()) {
            row.took = Duration::from_nanos(h.ended.answered.saturating_sub(h.ended.started));
            if self.case.placement == Placement::Same {
                row.top = h.answer.headline();
            }
        }
    }
}

/// Waits until the Service's client has been served, or has failed, in an attempt that began after `since`.
fn feel(clients: &[App], well: bool, since: u64) -> Result<()> {
    let felt = |line: &Line| match line {
        Line::Attempt(a) => a.start >= since && (a.outcome == Outcome::Ok) == well,
        _ => false,
    };
    let client = clients
        .first()
        .context("a fault with turns and no client")?;
    let limit = paced(Duration::from_secs(10));
    let came = client.wait(limit, |lines| lines.iter().any(felt));
    ensure!(came, "no attempt of the client shows a turn of the fault");
    Ok(())
}

fn note(wrong: &mut Vec<String>, place: &str, result: Result<()>) {
    if let Err(e) = result {
        wrong.push(format!("{place}: {e:#}"));
    }
}

/// How often a client dials that is to go on throughout: a look that may take longer needs more of it.
fn lasting(count: u32) -> u32 {
    if count < Dial::THROUGHOUT {
        count
    } else {
        count.saturating_mul(pace::times())
    }
}

/// Waits until the Service's clients have begun, and something has failed or is about to.
fn await_attempts(clients: &[App]) {
    let decided = |lines: &[Line]| lines.iter().any(|l| matches!(l, Line::Attempt(_)));
    let begun = Instant::now();
    for client in clients {
        let left = Duration::from_millis(1500).saturating_sub(begun.elapsed());
        client.wait(left, decided);
    }
}

fn check_verdict(expect: &Expect, ended: &Ended, answer: &Answer) -> Result<()> {
    ensure!(
        answer.schema == "netflow.explain/v1",
        "schema {}",
        answer.schema
    );
    ensure!(
        expect.verdicts.contains(&answer.verdict),
        "verdict {} ({}), expected {}",
        answer.verdict.name(),
        answer.headline(),
        expect
            .verdicts
            .iter()
            .map(|v| v.name())
            .collect::<Vec<_>>()
            .join(" or ")
    );
    let code = i32::from(answer.verdict.exit_code());
    ensure!(
        ended.code == Some(code),
        "exit code {:?} with {}",
        ended.code,
        answer.verdict.name()
    );
    Ok(())
}

fn check_codes(expect: &Expect, answer: &Answer) -> Result<()> {
    let critical: Vec<&str> = answer
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Critical)
        .map(|f| f.code.as_str())
        .collect();
    match answer.findings.first() {
        Some(first) if expect.firm => {
            ensure!(
                expect.codes.contains(&first.code.as_str()),
                "{} on top, expected {}",
                first.code,
                expect.codes.join(" or ")
            );
            let mut also = critical.get(1..).unwrap_or_default().to_vec();
            also.dedup();
            ensure!(
                also == expect.also,
                "also critical: {also:?}, expected {:?}",
                expect.also
            );
        }
        None if expect.firm => bail!("no finding"),
        _ => {}
    }
    let may_fail = |v: &Verdict| v.exit_code() == Verdict::Failing.exit_code();
    if !expect.verdicts.iter().any(may_fail) {
        ensure!(
            critical.is_empty(),
            "critical in a healthy lab: {}",
            critical.join(", ")
        );
    }
    let observed = answer
        .findings
        .iter()
        .find(|f| f.severity == Severity::Critical && f.basis == Basis::Observed);
    match observed {
        Some(f) if expect.codes.is_empty() => bail!("{} on observation", f.code),
        _ => Ok(()),
    }
}

fn check_citation(expect: &Expect, answer: &Answer) -> Result<()> {
    let Some(top) = answer.top() else {
        return Ok(());
    };
    ensure!(
        !expect.observed || top.basis == Basis::Observed,
        "basis {:?} instead of observed",
        top.basis
    );
    let cited: Vec<&str> = answer
        .cited(top)
        .iter()
        .map(|e| plane_name(e.plane))
        .collect();
    for group in &expect.planes {
        ensure!(
            group.iter().any(|plane| cited.contains(plane)),
            "cites {cited:?}, none of {group:?}"
        );
    }
    Ok(())
}

/// When everything was attached: what failed before could not be seen.
fn attached(recording: &Path) -> Option<u64> {
    match Reader::open(recording).ok()?.next()? {
        Input::Start(start) => Some(start.time.0),
        _ => None,
    }
}

/// Which tier each capability ran on.
fn tiers(recording: &Path) -> Vec<(&'static str, String)> {
    let first = Reader::open(recording).ok().and_then(|mut r| r.next());
    let Some(Input::Start(start)) = first else {
        return Vec::new();
    };
    let tier = |t: TierStatus| (t.capability.name(), t.tier.unwrap_or("none".to_owned()));
    start.tiers.into_iter().map(tier).collect()
}

fn check_time(ended: &Ended, since: u64) -> Result<()> {
    let took = Duration::from_nanos(ended.answered.saturating_sub(since));
    ensure!(
        took <= paced(IN_TIME),
        "verdict {:.1} s after the first failing attempt",
        took.as_secs_f64()
    );
    Ok(())
}

fn check_replay(ended: &Ended, recording: &Path) -> Result<()> {
    let again = netflow::replay(&[recording])?;
    ensure!(
        again.code == ended.code,
        "replay ends with {:?} instead of {:?}: {}",
        again.code,
        ended.code,
        again.stderr.trim()
    );
    ensure!(again.stdout == ended.stdout, "replay gives another answer");
    Ok(())
}

fn check_ablation(answer: &Answer, recordings: &[&Path]) -> Result<()> {
    let Some(top) = answer.top() else {
        return Ok(());
    };
    let mut taken = 0;
    let mut without = Vec::new();
    for recording in recordings {
        let to = recording.with_extension("ablated");
        taken += ablation::without_cited(answer, top, recording, &to)?;
        without.push(to);
    }
    ensure!(
        taken > 0,
        "{} cites nothing that is in the recording",
        top.code
    );
    let without: Vec<&Path> = without.iter().map(PathBuf::as_path).collect();
    let again = netflow::replay(&without)?
        .answer()
        .context("ablated replay")?;
    let stands = again
        .findings
        .iter()
        .any(|f| f.code == top.code && f.basis == Basis::Observed);
    ensure!(
        !stands,
        "{} stands as observed without the {taken} records it cites",
        top.code
    );
    Ok(())
}

/// The cause names each endpoint at which attempts failed, and there is one.
fn check_all_met(answer: &Answer) -> Result<()> {
    let top = answer.findings.first().context("no finding")?;
    let failed = answer.paths.iter().filter(|p| p.failed());
    let met: BTreeSet<&str> = failed.filter_map(|p| p.backend.as_deref()).collect();
    ensure!(!met.is_empty(), "no endpoint was met");
    for backend in met {
        ensure!(
            top.summary.contains(backend),
            "{} does not name {backend}",
            top.code
        );
    }
    Ok(())
}

fn check_healthy(ended: &Ended) -> Result<()> {
    let answer = ended.answer()?;
    check_verdict(&Expect::healthy(), ended, &answer)?;
    check_codes(&Expect::healthy(), &answer)
}

/// Where `NETFLOW_LAB_KEEP` names a directory, failed scenarios leave their recordings and manifests there.
fn keep_files(dir: &Path, case: &Case) {
    let Some(keep) = std::env::var_os("NETFLOW_LAB_KEEP") else {
        return;
    };
    let to = PathBuf::from(keep).join(case.name().replace('/', "_"));
    let copied = fs::create_dir_all(&to).and_then(|()| copy_tree(dir, &to));
    if let Err(e) = copied {
        eprintln!("keeping {}: {e}", to.display());
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            // An agent's socket cannot be copied.
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
