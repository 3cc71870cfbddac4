//! The text of one file → its documents.

use super::document::{Contents, Document};
use super::located::Misread;
use super::problem::Problem;
use super::whole::Whole;
use serde::de::DeserializeSeed;
use std::path::Path;

/// Everything a file holds, and what could not be read of it.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub documents: Vec<Contents>,
    pub problems: Vec<Problem>,
}

impl Text {
    /// Reads a file's text. Broken documents are problems, the others are read.
    pub fn read(path: &Path, text: &str) -> Text {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let named_json = path.extension().is_some_and(|e| e == "json");
        if named_json || text.trim_start().starts_with('{') {
            let json = Text::json(path, text);
            // A flow mapping of YAML begins like JSON.
            if named_json || json.problems.is_empty() {
                return json;
            }
        }
        Text::yaml(path, text)
    }

    fn yaml(path: &Path, text: &str) -> Text {
        let mut found = Text::default();
        for (line, document) in split(text) {
            let mut problem = |at: Option<usize>, what: &str| {
                let offset = at.unwrap_or(1).max(1) - 1;
                found.problems.push(Problem {
                    path: path.to_path_buf(),
                    line: line + offset,
                    what: message(what) + &quoted(document, offset),
                });
            };
            match read_yaml(document) {
                Ok(contents) => {
                    for Misread { line, what } in &contents.broken {
                        problem(*line, what);
                    }
                    found.documents.push(contents);
                }
                Err(error) => {
                    let place = error.location();
                    let place = place.and_then(|p| usize::try_from(p.line()).ok());
                    problem(place, &error.without_snippet().to_string());
                }
            }
        }
        found
    }

    /// JSON documents, one after the other.
    fn json(path: &Path, text: &str) -> Text {
        let mut found = Text::default();
        if let Err(error) = read_json(text, Document::default, &mut found.documents) {
            found.problems.push(Problem {
                path: path.to_path_buf(),
                line: error.line(),
                what: message(&error.to_string()) + &quoted(text, error.line().max(1) - 1),
            });
            // Of a list, the whole items are still of use to who wants them; the first broken one has been named with its line.
            let mut whole = Vec::new();
            if read_json(text, Whole::default, &mut whole).is_ok() {
                let broken = whole.iter().flat_map(|contents| &contents.broken);
                found.problems.extend(broken.skip(1).map(|error| Problem {
                    path: path.to_path_buf(),
                    line: 1,
                    what: error.what.clone(),
                }));
                found.documents = whole;
            }
        }
        found
    }
}

fn read_yaml(text: &str) -> Result<Contents, serde_saphyr::Error> {
    // The budget stops hostile input; these files are the caller's own and may be large. What aliases can multiply
    // stays limited.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
            max_buffered_comment_events: usize::MAX,
        },
        with_snippet: false,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |from| {
        Whole::default().deserialize(from)
    })
}

fn read_json<'a, S: DeserializeSeed<'a, Value = Contents>>(
    text: &'a str,
    seed: impl Fn() -> S,
    into: &mut Vec<Contents>,
) -> Result<(), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_str(text);
    while from.end().is_err() {
        into.push(seed().deserialize(&mut from)?);
    }
    Ok(())
}

/// Documents of a YAML stream with the line at which each begins, from 1. `---` at the start of a line always is a
/// document marker, inside block scalars too (YAML 1.2.2, rule `c-forbidden`).
fn split(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut documents = vec![(1, 0)];
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            documents.push((number + 1, at));
        }
        at += line.len();
    }
    let ends: Vec<_> = documents.iter().skip(1).map(|d| d.1).collect();
    documents
        .into_iter()
        .zip(ends.into_iter().chain([text.len()]))
        .map(|((line, start), end)| (line, &text[start..end]))
        .filter(|(_, document)| !is_blank(document))
}

/// Nothing but comments, markers and directives.
fn is_blank(document: &str) -> bool {
    document.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "..."
    })
}

/// A parser's message without the place that is told apart.
fn message(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let end = [" at line ", " (line "]
        .iter()
        .filter_map(|mark| first.rfind(mark))
        .min();
    first[..end.unwrap_or(first.len())].trim_end().to_owned()
}

/// The line that a message is about, shortened.
fn quoted(text: &str, line: usize) -> String {
    const LONGEST: usize = 60;
    match text.lines().nth(line).map(str::trim) {
        None | Some("" | "---") => String::new(),
        Some(line) => {
            let short: String = line.chars().take(LONGEST).collect();
            let more = if short.len() < line.len() { "…" } else { "" };
            format!(", at `{short}{more}`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_markers_only() {
        let text = "# head\n---\na: 1\n--- # second\nb: |\n  --- no\n  text\n---x: 1\n---\n...\n--- {c: 1}\n";
        let found: Vec<_> = split(text).map(|(line, d)| (line, d.trim_end())).collect();
        let wanted = [
            (2, "---\na: 1"),
            (4, "--- # second\nb: |\n  --- no\n  text\n---x: 1"),
            (11, "--- {c: 1}"),
        ];
        assert_eq!(found, wanted);
    }
}
