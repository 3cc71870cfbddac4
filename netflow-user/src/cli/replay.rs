//! `--replay`: recordings, one per node, as if they were live.

use super::failure::Failure;
use super::output::Output;
use crate::explain::Explainer;
use crate::model::Input;
use crate::model::query::Query;
use crate::model::recording::Reader;
use std::path::{Path, PathBuf};

/// Feeds the recordings, in the order given, and returns the query they answer: `asked`, else the first recording's own.
pub fn feed(
    files: &[PathBuf],
    asked: Option<&Query>,
    explainer: &mut Explainer,
    output: &Output,
) -> Result<Query, Failure> {
    let mut answered = asked.cloned();
    for (index, path) in files.iter().enumerate() {
        let mut reader = Reader::open(path)?;
        let mut any = false;
        for mut input in &mut reader {
            if let Input::Start(start) = &mut input {
                any = true;
                start.query = answered.get_or_insert_with(|| start.query.clone()).clone();
            }
            explainer.feed(index, &input);
        }
        tell_gaps(&reader, path, output);
        if !any {
            return Err(Failure::new(
                "recording-empty",
                format!("{} ends before it says anything", path.display()),
                "record again, for longer",
            ));
        }
    }
    answered.ok_or_else(|| Failure::new("usage", "no recording given", ""))
}

fn tell_gaps(reader: &Reader, path: &Path, output: &Output) {
    match reader.lost_tail() {
        Some(0) => output.notice(format_args!(
            "{} is cut short: what came after its last whole part is lost",
            path.display()
        )),
        Some(bytes) => output.notice(format_args!(
            "{} is cut short: its last {bytes} bytes could not be read",
            path.display()
        )),
        None => {}
    }
    if reader.skipped() > 0 {
        output.notice(format_args!(
            "{}: {} entries of a newer netflow were left out",
            path.display(),
            reader.skipped()
        ));
    }
}
