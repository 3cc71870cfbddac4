//! Texts at 80 and 160 columns against the files in `expected/`. After an intended change run the tests once with
//! `NETFLOW_BLESS=1` and read the difference.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::samples::{healthy, mismatch, silent};
use super::*;
use crate::explain::codes;
use crate::model::answer::{Answer, Severity};
use std::fs;
use std::path::Path as File;

fn compare(name: &str, styled: &str, width: usize) {
    let text = anstream::adapter::strip_str(styled).to_string();
    for line in text.lines().filter(|l| l.contains(' ')) {
        let single_word = !line.trim_start().contains(' ');
        assert!(
            line.chars().count() <= width || single_word,
            "wider than {width}: {line}"
        );
        assert!(!line.ends_with(' '), "blank at the end: {line:?}");
    }
    let file = File::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/render/expected")
        .join(format!("{name}.txt"));
    if std::env::var_os("NETFLOW_BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(expected == text, "{name} is now\n{text}");
}

fn at_width(answer: &Answer, width: usize, wide: bool) -> String {
    explain(answer, "app", Layout { width, wide })
}

#[test]
fn a_fault_at_80_columns() {
    compare("fault-80", &at_width(&mismatch(), 80, false), 80);
}

#[test]
fn a_fault_at_160_columns() {
    compare("fault-160", &at_width(&mismatch(), 160, false), 160);
}

#[test]
fn a_fault_in_full() {
    compare("fault-wide", &at_width(&mismatch(), 160, true), 160);
}

#[test]
fn a_healthy_service() {
    compare("healthy-80", &at_width(&healthy(), 80, false), 80);
}

#[test]
fn silence_says_what_to_run() {
    compare("silent-80", &at_width(&silent(), 80, false), 80);
}

#[test]
fn silence_says_whom_to_ask_where_objects_come_from_the_api() {
    let mut answer = silent();
    answer.cluster.server = "https://10.96.0.1".into();
    let here = "netflow explain --svc app/web-api --for 60s";
    let all = "netflow explain --svc app/web-api --cluster --for 60s";
    let text = at_width(&answer, 80, false);
    assert!(text.contains(here) && text.contains(all), "{text}");
    let other = answer.nodes[0].clone();
    answer.nodes.push(other);
    let text = at_width(&answer, 80, false);
    assert!(!text.contains(here) && text.contains(all), "{text}");
}

#[test]
fn an_alias_has_no_ports() {
    let mut answer = silent();
    let service = answer.service.as_mut().unwrap();
    service.kind = "ExternalName".into();
    service.cluster_ips.clear();
    service.ports.clear();
    let styled = at_width(&answer, 80, false);
    let text = anstream::adapter::strip_str(&styled).to_string();
    let line = "app/web-api  ExternalName without cluster IP\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_breaks_nothing_is_not_told_as_the_cause() {
    let mut answer = mismatch();
    let info = &mut answer.findings[0];
    info.severity = Severity::Info;
    info.summary = "Only told beside".into();
    let text = at_width(&answer, 80, false);
    let (head, also) = text.split_once("Also").unwrap();
    assert!(head.contains("nothing that was seen says"), "{text}");
    assert!(!head.contains("Only told beside") && also.contains("Only told beside"));
    assert!(also.contains("Ask again while a client tries"), "{text}");
}

#[test]
fn narrow_terminals_are_not_overrun() {
    for width in [40, 50, 60, 70] {
        for line in anstream::adapter::strip_str(&at_width(&mismatch(), width, true))
            .to_string()
            .lines()
            .filter(|l| l.starts_with("  ") && !l.contains("namespace/"))
        {
            let longest_word = line.split(' ').map(|w| w.chars().count()).max();
            let limit = width.max(longest_word.unwrap_or(0) + 12);
            assert!(line.chars().count() <= limit, "at {width}: {line}");
        }
    }
}

#[test]
fn a_code_and_the_list_of_codes() {
    let found = codes::find("target-port-mismatch").unwrap();
    compare("code-80", &code(found, 80), 80);
    compare("codes-80", &codes(codes::ALL, 80), 80);
    compare("codes-160", &codes(codes::ALL, 160), 160);
}

#[test]
fn the_preview_holds_what_objects_prove() {
    let text = preview(&mismatch(), 80);
    let text = anstream::adapter::strip_str(&text).to_string();
    assert!(text.starts_with("so far: The Service sends"), "{text}");
    assert!(!text.contains("pmtu"), "info is no news: {text}");
    assert_eq!(preview(&healthy(), 80), "");
}
