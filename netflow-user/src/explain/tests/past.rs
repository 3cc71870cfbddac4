//! What is told of the past: what is not known any more, and what the node of now says of it.

use super::codes::*;
use super::listener::{declared, listening, refusing};
use super::story::*;
use crate::model::answer::{Answer, Basis, Verdict};
use crate::model::feed::Kept;
use crate::model::node::NodeFacts;
use crate::model::{Input, Proto, Time};
use std::net::SocketAddr;

/// All of it was kept.
fn whole() -> Kept {
    let from = ms(0);
    Kept {
        asked: from,
        looking: Time(from.0 - 1),
        healthy_from: Time(from.0 - 1),
        failing_from: Time(from.0 - 1),
        objects_from: Time(from.0 - 1),
        ..Kept::default()
    }
}

/// As an agent tells it that is asked at `now`: the node comes last, and is that of now.
fn later(mut told: Vec<Input>, kept: Kept, now: Time) -> Vec<Input> {
    let Input::Start(start) = &mut told[0] else {
        panic!("{told:?}")
    };
    start.kept = Some(kept);
    start.time = kept.from();
    let Input::Node(facts) = told.remove(2) else {
        panic!("{told:?}")
    };
    told.pop();
    let time = now;
    told.push(Input::Node(Box::new(NodeFacts { time, ..*facts })));
    told.push(Input::End { time });
    told
}

/// The Service leads to a port at which nothing listens.
fn mistaken() -> Story {
    let mut all = objects(&[BACKEND]);
    all.pods[1].ports = vec![declared("app", 9000)].into();
    let facts = listening(Proto::TCP, &["0.0.0.0:9000"]);
    refusing(all, facts, 8080)
}

fn refused_at_another_port(kept: Kept, now: Time) -> Answer {
    let told = mistaken().told(ms(3000));
    explain(&[later(told, kept, now)])
}

fn blind(answer: &Answer) -> Vec<&str> {
    let of_past = |code: &&str| {
        code.starts_with("history") || code.ends_with("-now") || code.contains("-history-")
    };
    answer
        .blind
        .iter()
        .map(|b| &*b.code)
        .filter(of_past)
        .collect()
}

#[test]
fn what_the_node_is_now_proves_nothing_of_long_ago() {
    let soon = refused_at_another_port(whole(), ms(4000));
    assert_cause(&soon, "target-port-mismatch", Verdict::Failing);
    assert_eq!(soon.findings[0].basis, Basis::Observed);
    let late = refused_at_another_port(whole(), ms(600_000));
    assert_eq!(late.verdict, Verdict::Failing);
    let finding = &late.findings[0];
    assert_eq!(
        (finding.code, finding.basis),
        ("target-port-mismatch", Basis::Inferred)
    );
    let read = ms(600_000).to_string();
    assert!(finding.summary.contains(&read), "{}", finding.summary);
    assert_eq!(blind(&late), ["node-state-of-now"]);
    assert_eq!((late.window.from, late.window.to), (ms(0), ms(600_000)));
}

#[test]
fn what_was_not_kept_is_said() {
    let kept = Kept {
        asked: ms(0),
        looking: Time(ms(0).0 - 1),
        healthy_from: ms(8),
        healthy_evicted: 12,
        failing_from: ms(5),
        failing_evicted: 3,
        objects_from: ms(7),
    };
    let answer = refused_at_another_port(kept, ms(4000));
    assert_eq!(answer.window.from, ms(5));
    let codes = [
        "history-short",
        "history-evicted",
        "objects-history-short",
        "node-state-of-now",
    ];
    assert_eq!(blind(&answer), codes);
    assert!(
        answer
            .blind
            .iter()
            .filter(|b| b.code.starts_with("history"))
            .all(|b| b.node == "a")
    );
    let text = |code: &str| {
        let row = answer.blind.iter().find(|b| b.code == code);
        row.map(|b| b.text.clone()).unwrap_or_default()
    };
    assert!(
        text("history-short").contains("3 connections"),
        "{}",
        text("history-short")
    );
    assert!(
        text("history-evicted").contains("12 had to go"),
        "{}",
        text("history-evicted")
    );
    // An agent that has not been looking for so long has lost nothing.
    let young = Kept {
        looking: ms(5),
        healthy_from: ms(5),
        failing_from: ms(5),
        objects_from: ms(5),
        ..whole()
    };
    let answer = refused_at_another_port(young, ms(4000));
    assert_eq!(blind(&answer), ["history-short", "node-state-of-now"]);
    let row = answer.blind.iter().find(|b| b.code == "history-short");
    assert!(
        row.is_some_and(|b| b.text.contains("has been looking")),
        "{row:?}"
    );
}

#[test]
fn what_is_over_says_when_it_was_seen_last() {
    let mut story = mistaken();
    // The Service leads to the port at which the Pod listens.
    story.served(
        4002,
        SocketAddr::new(ip(BACKEND), 9000),
        BACKEND_VETH,
        ms(2000),
    );
    let answer = explain(&[later(story.told(ms(5000)), whole(), ms(600_000))]);
    let finding = answer
        .findings
        .iter()
        .find(|f| f.code == "target-port-mismatch");
    let until = finding.and_then(|f| f.until);
    assert!(until.is_some_and(|t| t < ms(1000)), "{answer:#?}");
}
