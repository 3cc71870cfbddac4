//! The agent's life: who it answers, how it ends, what it leaves. That it sees what a netflow of one's own sees is in the
//! scenarios (tier `agent`). Needs root.

use anyhow::{Context, Result, ensure};
use netflow_tests::agent::{self, Agent};
use netflow_tests::answer::Answer;
use netflow_tests::faults::{self, Fault};
use netflow_tests::lab::plan::{Family, Network, Placement, Plan, Shape};
use netflow_tests::lab::{Lab, Life, need_root, netns};
use netflow_tests::netflow::{Means, Running, binary};
use netflow_tests::proxy::Mode;
use netflow_tests::traffic::{App, Line, Outcome};
use netflow_tests::world::World;
use netflow_user::model::Time;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For what takes a moment.
const LIMIT: Duration = Duration::from_secs(20);

/// So long after its endpoint has left an attempt may still meet it (`PROXY_LAG`), and twice that.
const LEAVING: Duration = Duration::from_secs(6);

/// A lab with one thing broken, and a client of its Service.
struct Broken {
    lab: Lab,
    world: World,
    client: App,
}

fn broken(seed: u64) -> Result<Broken> {
    need_root()?;
    let fault: &dyn Fault = faults::find("target-port-mismatch").context("no such fault")?;
    let shape = Shape {
        placement: Placement::Same,
        family: Family::Ipv4,
        network: Network::Bridge,
    };
    let plan = Plan::draw(seed, shape);
    let mut world = World::healthy(&plan, Mode::Nftables);
    fault.inflict(&plan, &mut world)?;
    let mut lab = Lab::up(plan, Mode::Nftables, Life::Owned)?;
    lab.apply(&world)?;
    let client = App::dial(&lab, &lab.party(world.client), &world.via_vip[0])?;
    Ok(Broken { lab, world, client })
}

impl Broken {
    fn explain(&self, agent: &Agent, seconds: u64, name: &str) -> Result<Running> {
        let recording = self.lab.dir().join(name);
        let means = Means::Agent(agent.socket());
        Running::start(
            &self.lab,
            0,
            &self.world.asked,
            means,
            &[],
            seconds,
            recording,
        )
    }

    /// Attempts of the client that are over.
    fn wait_attempts(&self, count: usize) -> Result<()> {
        let over = |lines: &[Line]| {
            let over = lines.iter().filter(|l| matches!(l, Line::Attempt(_)));
            over.count() >= count
        };
        ensure!(self.client.wait(LIMIT, over), "the client does not go on");
        Ok(())
    }
}

fn netflow(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).args(args).output()?)
}

fn status(socket: &Path) -> Result<(Value, Option<i32>)> {
    let server = format!("unix://{}", socket.display());
    let output = netflow(&["status", "--server", &server, "-o", "json"])?;
    Ok((
        serde_json::from_slice(&output.stdout)?,
        output.status.code(),
    ))
}

#[test]
fn it_counts_only_what_happens_while_somebody_looks() -> Result<()> {
    let broken = broken(61)?;
    let agent = Agent::start(&broken.lab, 0, LIMIT)?;
    broken.wait_attempts(10)?;
    let before = broken.client.tally().attempts;
    let ended = broken.explain(&agent, 8, "one.nfr")?.finish(LIMIT)?;
    let answer = ended.answer()?;
    ensure!(answer.headline() == "target-port-mismatch", "{answer:?}");
    let during = broken.client.tally().attempts - before;
    let json: Value = serde_json::from_slice(&ended.stdout)?;
    let paths = json["paths"].as_array().context("no paths")?;
    let attempts = paths.iter().filter_map(|p| p["attempts"].as_u64());
    let counted: u64 = attempts.sum();
    // One may have begun before and ended in it.
    ensure!(
        counted > 0 && counted <= u64::from(during) + 1,
        "{counted} attempts, {during} while it looked, {before} before"
    );
    // The next who asks finds it as the first did.
    let again = broken.explain(&agent, 8, "two.nfr")?.finish(LIMIT)?;
    ensure!(again.answer()?.headline() == "target-port-mismatch");
    agent.stop(LIMIT)?;
    Ok(())
}

#[test]
fn it_ends_after_it_has_told_the_rest() -> Result<()> {
    let broken = broken(62)?;
    let agent = Agent::start(&broken.lab, 0, LIMIT)?;
    let socket = agent.socket().to_owned();
    // Longer than the agent lives, whatever is proved: nobody but the agent ends it.
    let mut asked = Command::new(binary()?);
    asked
        .args([
            "watch",
            "--svc",
            &format!("{}/{}", broken.world.asked.0, broken.world.asked.1),
        ])
        .args([
            "--server",
            &format!("unix://{}", socket.display()),
            "-o",
            "jsonl",
        ]);
    let mut watching = asked
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    // It prints as soon as it has seen something.
    let stdout = watching.stdout.take().context("no stdout")?;
    let mut stdout = BufReader::new(stdout);
    let mut said = String::new();
    stdout.read_line(&mut said)?;
    let (report, _) = status(&socket)?;
    ensure!(report["looks"] == 1, "{report}");
    let before = usize::try_from(broken.client.tally().attempts)?;
    broken.wait_attempts(before + 6)?;
    ensure!(
        report["node"] == broken.lab.plan.nodes[0].name.as_str(),
        "{report}"
    );
    let ended = agent.stop(LIMIT)?;
    ensure!(ended.success(), "{ended}");
    stdout.read_to_string(&mut said)?;
    let output = watching.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(said.contains("target-port-mismatch"), "{said}");
    ensure!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Whoever asks now is told that there is none.
    let server = format!("unix://{}", socket.display());
    let none = netflow(&["status", "--server", &server])?;
    ensure!(none.status.code() == Some(2), "{none:?}");
    Ok(())
}

#[test]
fn a_killed_one_says_so_and_gives_way() -> Result<()> {
    let broken = broken(63)?;
    let agent = Agent::start(&broken.lab, 0, LIMIT)?;
    let second = agent::command(&broken.lab, 0, agent.socket())?.output()?;
    ensure!(second.status.code() == Some(2), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(said.contains("answers at"), "{said}");
    let mut running = broken.explain(&agent, 30, "cut.nfr")?;
    ensure!(running.wait_node_read(LIMIT), "the look does not begin");
    let socket = agent.kill()?;
    ensure!(socket.exists(), "who was killed cannot have tidied up");
    let cut = running.finish(LIMIT)?;
    ensure!(
        cut.stderr.contains("before it had told all"),
        "{}",
        cut.stderr
    );
    let _: Answer = cut.answer()?;
    let fresh = Agent::start(&broken.lab, 0, LIMIT)?;
    ensure!(fresh.socket() == socket);
    let answer = broken
        .explain(&fresh, 8, "fresh.nfr")?
        .finish(LIMIT)?
        .answer()?;
    ensure!(answer.headline() == "target-port-mismatch", "{answer:?}");
    Ok(())
}

#[test]
fn what_it_cannot_answer_it_says() -> Result<()> {
    let broken = broken(64)?;
    let agent = Agent::start(&broken.lab, 0, LIMIT)?;
    let server = format!("unix://{}", agent.socket().display());
    let mistyped = netflow(&[
        "explain", "--svc", "no/such", "--server", &server, "-o", "json",
    ])?;
    let answer: Answer = serde_json::from_slice(&mistyped.stdout)?;
    ensure!(answer.headline() == "service-not-found", "{answer:?}");
    ensure!(mistyped.status.code() == Some(1));
    Ok(())
}

/// `netflow explain --since`, and its recording.
fn look_back(
    broken: &Broken,
    agent: &Agent,
    since: &str,
    name: &str,
) -> Result<(Value, Output, PathBuf)> {
    let recording = broken.lab.dir().join(name);
    let server = format!("unix://{}", agent.socket().display());
    let service = format!("{}/{}", broken.world.asked.0, broken.world.asked.1);
    let recorded = recording.display().to_string();
    let output = netflow(&[
        "explain", "--svc", &service, "--server", &server, "--since", since, "--record", &recorded,
        "-o", "json",
    ])?;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.with_context(|| format!("{output:?}"))?;
    Ok((answer, output, recording))
}

fn blind<'a>(answer: &'a Value, code: &str) -> Option<&'a Value> {
    let mut rows = answer["blind"].as_array()?.iter();
    rows.find(|row| row["code"] == code)
}

/// Nanoseconds since the epoch of a time in an answer.
fn time(text: &Value) -> Result<u64> {
    let text = text
        .as_str()
        .with_context(|| format!("{text} is no time"))?;
    let time: Time = text.parse()?;
    Ok(time.0)
}

#[test]
fn it_tells_of_what_is_over_and_nobody_saw() -> Result<()> {
    let mut broken = broken(67)?;
    let agent = Agent::start(&broken.lab, 0, LIMIT)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    // What meets an endpoint that is just leaving is no fault: some is to be older than that by the time it is healed.
    let old = u64::try_from(started)? + LEAVING.as_nanos() as u64;
    let is_old = |line: &Line| matches!(line, Line::Start { start, .. } if *start > old);
    let fails = broken.client.wait(LIMIT, |lines| lines.iter().any(is_old));
    let failed = broken.client.tally();
    ensure!(fails && failed.ok == 0, "{failed:?}");
    // Nobody has looked, and now it is healed.
    let healthy = World::healthy(&broken.lab.plan, Mode::Nftables);
    broken.lab.apply(&healthy)?;
    let healed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let is_ok = |line: &&Line| matches!(line, Line::Attempt(a) if a.outcome == Outcome::Ok);
    let served = broken
        .client
        .wait(LIMIT, |lines| lines.iter().filter(is_ok).count() >= 10);
    ensure!(served, "it is not healed");
    let (answer, output, recording) = look_back(&broken, &agent, "2m", "past.nfr")?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(answer["verdict"] == "degraded", "{answer:#}");
    let finding = &answer["findings"][0];
    ensure!(finding["code"] == "target-port-mismatch", "{answer:#}");
    let healed = u64::try_from(healed.as_nanos())?;
    ensure!(time(&finding["until"])? <= healed, "{finding:#}");
    ensure!(
        time(&finding["from"])? <= time(&finding["until"])?,
        "{finding:#}"
    );
    ensure!(
        finding["affected"]["attempts"].as_u64() >= Some(3),
        "{finding:#}"
    );
    // It says from when on it knows: the agent has not been there for two minutes.
    let node = &broken.lab.plan.nodes[0].name;
    let short = blind(&answer, "history-short").context("it does not say so")?;
    ensure!(short["node"] == node.as_str(), "{short}");
    let (report, _) = status(agent.socket())?;
    ensure!(
        answer["window"]["from"] == report["since"],
        "{report} {answer:#}"
    );
    ensure!(blind(&answer, "node-state-of-now").is_some(), "{answer:#}");
    ensure!(
        report["history"]["connections"].as_u64() > Some(0),
        "{report}"
    );
    ensure!(report["history"]["healthyEvicted"] == 0, "{report}");
    // The recording is the answer.
    let replayed = netflow(&[
        "explain",
        "--replay",
        &recording.display().to_string(),
        "-o",
        "json",
    ])?;
    ensure!(
        replayed.stdout == output.stdout,
        "{}",
        String::from_utf8_lossy(&replayed.stdout)
    );
    ensure!(agent.stop(LIMIT)?.success());
    Ok(())
}

#[test]
fn its_history_is_bounded_and_may_be_none() -> Result<()> {
    let broken = broken(68)?;
    let more = ["--history", "64KiB", "--metrics", "127.0.0.1:0"];
    let agent = Agent::start_with(&broken.lab, 0, &more, LIMIT)?;
    let attempts = usize::try_from(broken.client.tally().attempts)?;
    broken.wait_attempts(attempts + 60)?;
    let metrics = get(&broken, &agent, "/metrics")?;
    let limit = number(&metrics, "netflow_history_limit_bytes")?;
    let held = number(&metrics, "netflow_history_bytes")?;
    ensure!(held > 0 && held <= limit && limit == 64 << 10, "{metrics}");
    let gone = number(&metrics, "netflow_history_evicted_total{state=\"failing\"}")?;
    ensure!(gone > 0, "{metrics}");
    let (answer, ..) = look_back(&broken, &agent, "1h", "small.nfr")?;
    ensure!(
        answer["findings"][0]["code"] == "target-port-mismatch",
        "{answer:#}"
    );
    let short = blind(&answer, "history-short").context("it does not say so")?;
    let text = short["text"].as_str().unwrap_or_default();
    ensure!(text.contains("history is full"), "{text}");
    ensure!(agent.stop(LIMIT)?.success());

    let agent = Agent::start_with(&broken.lab, 0, &["--history", "0"], LIMIT)?;
    let server = format!("unix://{}", agent.socket().display());
    let none = netflow(&[
        "explain", "app/web", "--server", &server, "--since", "1m", "-o", "json",
    ])?;
    ensure!(none.status.code() == Some(2), "{none:?}");
    let error: Value = serde_json::from_slice(&none.stdout)?;
    ensure!(error["code"] == "no-history", "{error}");
    ensure!(agent.stop(LIMIT)?.success());
    Ok(())
}

/// What is told at a path of the agent's metrics' address.
fn get(broken: &Broken, agent: &Agent, path: &str) -> Result<String> {
    let address = agent.metrics()?;
    netns::within(&broken.lab.node(0), || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// A number among the metrics.
fn number(metrics: &str, series: &str) -> Result<u64> {
    let mut lines = metrics.lines();
    let number = lines.find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    let number = number.with_context(|| format!("no {series} in {metrics}"))?;
    Ok(number.parse()?)
}

#[test]
fn it_counts_what_the_kernel_tells() -> Result<()> {
    let broken = broken(65)?;
    let more = ["--metrics", "127.0.0.1:0"];
    let agent = Agent::start_with(&broken.lab, 0, &more, LIMIT)?;
    let health = get(&broken, &agent, "/healthz")?;
    ensure!(health.ends_with("\r\n\r\nok\n"), "{health}");
    let before = get(&broken, &agent, "/metrics")?;
    let syns = "netflow_records_total{kind=\"syn\"}";
    let resets = "netflow_records_total{kind=\"rst\"}";
    let attempts = usize::try_from(broken.client.tally().attempts)?;
    // The last few need not have been read yet.
    broken.wait_attempts(attempts + 10)?;
    let after = get(&broken, &agent, "/metrics")?;
    for series in [syns, resets] {
        let grown = number(&after, series)? - number(&before, series)?;
        ensure!(grown >= 5, "{series} grew by {grown} only");
    }
    ensure!(number(&after, "netflow_map_entries{map=\"flows\"}")? > 0);
    ensure!(number(&after, "netflow_looks")? == 0, "{after}");
    // Whoever wants the same address is told so, and leaves nothing.
    let other = broken.lab.dir().join("other.sock");
    let mut second = agent::command(&broken.lab, 0, &other)?;
    let address = agent.metrics()?.to_string();
    let second = second.args(["--metrics", &address]).output()?;
    ensure!(second.status.code() == Some(2), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(
        said.contains(&address) && said.contains("ss -ltnp"),
        "{said}"
    );
    ensure!(!other.exists());
    let ended = agent.stop(LIMIT)?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

/// An authority in files.
struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Authority {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Options that name a new certificate, and this authority as `ca`.
    fn identity(&self, subject: &str, ca: &str) -> Result<[String; 6]> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![subject.to_owned()])?;
        let (cert, private) = (format!("{subject}.crt"), format!("{subject}.key"));
        let signed = params.signed_by(&key, &self.issuer)?;
        fs::write(self.dir.join(&cert), signed.pem())?;
        fs::write(self.dir.join(&private), key.serialize_pem())?;
        Ok([
            "--tls-cert".to_owned(),
            self.file(&cert),
            "--tls-key".to_owned(),
            self.file(&private),
            ca.to_owned(),
            self.file("ca.crt"),
        ])
    }
}

/// Of the node's address, from the other node.
#[test]
fn who_shows_a_certificate_is_answered_on_another_node() -> Result<()> {
    let broken = broken(66)?;
    let (own, other) = (&broken.lab.plan.nodes[0].ip, broken.lab.node(1));
    let authority = Authority::new(&broken.lab.dir())?;
    let listen = ["--listen".to_owned(), format!("{own}:4250")];
    let identity = authority.identity(&own.to_string(), "--client-ca")?;
    let more: Vec<&str> = listen.iter().chain(&identity).map(String::as_str).collect();
    let agent = Agent::start_with(&broken.lab, 0, &more, LIMIT)?;
    let ask = |what: &[&str], identity: &[String]| -> Result<Output> {
        let mut asked = Command::new("ip");
        asked.args(["netns", "exec", &other]).arg(binary()?);
        asked.args(what).args(["-o", "json"]);
        asked.args(["--server", &format!("https://{own}:4250")]);
        Ok(asked.args(identity).output()?)
    };
    let client = authority.identity("somebody", "--ca")?;
    let status = ask(&["status"], &client)?;
    let (near, code) = self::status(agent.socket())?;
    ensure!(status.status.code() == code, "{status:?}");
    let far: Value = serde_json::from_slice(&status.stdout)?;
    ensure!(
        far["node"].is_string() && far["node"] == near["node"],
        "{far}"
    );
    let service = format!("{}/{}", broken.world.asked.0, broken.world.asked.1);
    let answer = ask(&["explain", "--svc", &service, "--for", "8s"], &client)?;
    let answer: Answer = serde_json::from_slice(&answer.stdout)?;
    ensure!(answer.headline() == "target-port-mismatch", "{answer:?}");
    // Whoever cannot show one of this authority's is not, and is told why.
    let stranger = broken.lab.dir().join("stranger");
    fs::create_dir(&stranger)?;
    let mut stranger = Authority::new(&stranger)?.identity("somebody", "--ca")?;
    stranger[5] = authority.file("ca.crt");
    let refused = ask(&["status"], &stranger)?;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("client-ca"), "{said}");
    ensure!(agent.stop(LIMIT)?.success());
    Ok(())
}
