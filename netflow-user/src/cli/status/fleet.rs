//! How the agents of a cluster are, all of them.

use super::{AGAIN_AFTER, Report, report};
use crate::cli::args::Format;
use crate::cli::failure::Failure;
use crate::cli::fleet::{Fleet, Surveyed};
use crate::cli::output::Output;
use crate::cli::remote::none_answers;
use crate::cli::render;
use crate::cluster::access::Access;
use crate::cluster::agents::AgentsError;
use crate::model::feed::Clock;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// Value of `schema`.
const SCHEMA: &str = "netflow.fleet/v1";

/// How they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// One of them does not answer, is missing or is degraded.
    pub degraded: bool,
    /// How many there should be; `None` where that may not be read.
    pub wanted: Option<usize>,
    /// Each.
    pub nodes: Vec<NodeReport>,
}

/// How that of one node is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// The agent's Pod.
    pub pod: String,
    /// What it says of itself; `None` if it does not answer.
    pub agent: Option<Report>,
    /// Why it does not answer.
    pub why: Option<String>,
    /// By how much its clock is ahead of ours, ms.
    pub clock_offset_ms: Option<f64>,
    /// How far off that may be, ms.
    pub clock_within_ms: Option<f64>,
}

/// Asks all, and says how they are.
pub fn run(
    fleet: Fleet,
    access: &Access,
    wait: Duration,
    output: &Output,
    format: Format,
) -> Result<u8, Failure> {
    let (wanted, surveyed) = survey(fleet, access, wait, output)?;
    let report = report_of(wanted, surveyed)?;
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        Format::Jsonl => serde_json::to_string(&report).unwrap_or_default() + "\n",
        Format::Text | Format::Wide => render::fleet(&report, output.width()),
    };
    crate::cli::print(output, &text)?;
    Ok(u8::from(report.degraded))
}

/// Asks until all answer that should, or until it was waited for long enough.
fn survey(
    mut fleet: Fleet,
    access: &Access,
    wait: Duration,
    output: &Output,
) -> Result<(Option<usize>, Vec<Surveyed>), AgentsError> {
    let until = Instant::now() + wait;
    let mut told = false;
    loop {
        let wanted = fleet.wanted();
        let surveyed = fleet.survey();
        let all = wanted.is_none_or(|wanted| surveyed.len() >= wanted);
        if all && surveyed.iter().all(|s| s.answer.is_ok()) || Instant::now() >= until {
            return Ok((wanted, surveyed));
        }
        if !told {
            output.notice("waiting for the agents of all nodes");
            told = true;
        }
        thread::sleep(AGAIN_AFTER);
        fleet = Fleet::find(access)?;
    }
}

/// If one of them answers.
fn report_of(wanted: Option<usize>, surveyed: Vec<Surveyed>) -> Result<FleetReport, Failure> {
    if surveyed.iter().all(|s| s.answer.is_err()) {
        let failures = surveyed.into_iter().filter_map(|s| {
            Some((
                s.member.address().agent(),
                Some(s.member.node),
                s.answer.err()?,
            ))
        });
        return Err(none_answers(failures.collect()));
    }
    let missing = wanted.is_some_and(|wanted| surveyed.len() < wanted);
    let nodes: Vec<NodeReport> = surveyed.into_iter().map(node_report).collect();
    let poor = |n: &NodeReport| n.agent.as_ref().is_none_or(|a| a.degraded);
    Ok(FleetReport {
        schema: SCHEMA,
        degraded: missing || nodes.iter().any(poor),
        wanted,
        nodes,
    })
}

fn node_report(surveyed: Surveyed) -> NodeReport {
    let Surveyed { member, answer } = surveyed;
    let (agent, clock, why) = match answer {
        Ok((status, clock)) => (Some(report(status)), Some(clock), None),
        Err(e) => (None, None, Some(e.message)),
    };
    NodeReport {
        node: member.node,
        pod: member.pod,
        agent,
        why,
        clock_offset_ms: clock.as_ref().map(Clock::ahead_ms),
        clock_within_ms: clock.as_ref().map(Clock::within_ms),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::api::v1::StatusResponse;
    use crate::cluster::agents::Member;
    use serde_json::Value;

    /// How many there should be is `wanted`; the last of the nodes does not answer.
    fn surveyed(nodes: &[&str]) -> Vec<Surveyed> {
        let all = nodes.iter().enumerate().map(|(n, node)| {
            let member = Member {
                node: (*node).to_owned(),
                pod: format!("netflow-agent-{node}"),
                idle: None,
            };
            let name = member.address().agent();
            let status = StatusResponse {
                node: (*node).to_owned(),
                version: "0.1.0".into(),
                ..StatusResponse::default()
            };
            let clock = Clock {
                ahead: 1_500_000,
                within: 200_000,
            };
            let answer = if n + 1 == nodes.len() {
                let why = format!("{name}: no answer within 5s");
                Err(Failure::new("agent-unreachable", why, "ask again"))
            } else {
                Ok((status, clock))
            };
            Surveyed { member, answer }
        });
        all.collect()
    }

    #[test]
    fn one_that_does_not_answer_is_listed_with_its_reason() {
        let report = report_of(Some(2), surveyed(&["n1", "n2"])).unwrap();
        assert!(report.degraded);
        let text = render::fleet(&report, 100);
        let text = anstream::adapter::strip_str(&text).to_string();
        let wanted = "\
1 of 2 agents answer

NODE  STATE       VERSION   UP          LOST      CLOCK
n1    well        0.1.0     0 s         0         +1.5 ms ± 0.2
n2    no answer   the agent on node n2 (Pod netflow/netflow-agent-n2): no answer within 5s
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_is_missing_is_no_good_sign() {
        let mut all = surveyed(&["n1", "n2"]);
        all.pop();
        assert!(report_of(Some(2), all).unwrap().degraded);
        let mut all = surveyed(&["n1", "n2"]);
        all.pop();
        assert!(!report_of(None, all).unwrap().degraded);
    }

    #[test]
    fn where_none_answers_nothing_is_listed() {
        let error = report_of(None, surveyed(&["n1"])).unwrap_err();
        assert_eq!(
            error.message,
            "none of 1 agents answers: n1: no answer within 5s"
        );
    }

    #[test]
    fn what_is_printed_fits_its_schema() {
        let schema = |text: &str| jsonschema::validator_for(&serde_json::from_str(text).unwrap());
        let fleet = schema(include_str!("../../../../docs/schema/fleet.v1.json")).unwrap();
        let status = schema(include_str!("../../../../docs/schema/status.v1.json")).unwrap();
        let report = report_of(Some(2), surveyed(&["n1", "n2"])).unwrap();
        let value: Value = serde_json::to_value(&report).unwrap();
        fleet.validate(&value).map_err(|e| e.to_string()).unwrap();
        let agent = &value["nodes"][0]["agent"];
        status.validate(agent).map_err(|e| e.to_string()).unwrap();
    }
}
