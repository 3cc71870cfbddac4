//! Reading a recording.

use super::chunk::{self, HEAD, Head};
use super::{HEADER, MAGIC, RecordingError, VERSION};
use crate::model::Input;
use crate::model::record::Record;
use bytes::{Buf, Bytes};
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// A recording being read: an iterator over its inputs.
pub struct Reader {
    file: Box<dyn Read + Send>,
    /// Lines of the current chunk that are still to come.
    lines: Bytes,
    /// No chunk follows.
    ended: bool,
    /// Bytes that could not be used, where the end mark was not met.
    lost: Option<u64>,
    skipped: u64,
}

impl Reader {
    /// Opens a recording and checks that it can be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader, RecordingError> {
        let path = path.as_ref();
        match File::open(path) {
            Ok(file) => Reader::new(BufReader::new(file), path),
            Err(source) => Err(RecordingError::Unreadable {
                path: path.to_path_buf(),
                source,
            }),
        }
    }

    /// As [`Reader::open`], from any stream; `path` is for messages.
    pub fn new(
        mut file: impl Read + Send + 'static,
        path: &Path,
    ) -> Result<Reader, RecordingError> {
        let unreadable = |source| RecordingError::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        let mut header = [0; HEADER];
        let length = fill(&mut file, &mut header).map_err(unreadable)?;
        let (magic, mut versions) = header.split_at(MAGIC.len());
        if length < HEADER || magic != MAGIC {
            return Err(RecordingError::NotARecording {
                path: path.to_path_buf(),
            });
        }
        let version = versions.get_u16();
        if version == 0 {
            return Err(RecordingError::NotARecording {
                path: path.to_path_buf(),
            });
        }
        if version > VERSION {
            return Err(RecordingError::Newer {
                path: path.to_path_buf(),
                version,
            });
        }
        Ok(Reader {
            file: Box::new(file),
            lines: Bytes::new(),
            ended: false,
            lost: None,
            skipped: 0,
        })
    }

    /// Once all inputs were taken: bytes at the end that could not be used. `None` = the recording is whole;
    /// `Some(0)` = it stops between two chunks, so nothing says how much is missing.
    pub fn lost_tail(&self) -> Option<u64> {
        self.lost
    }

    /// Inputs and events so far that a later netflow recorded and this one does not know.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next line of the current chunk.
    fn line(&mut self) -> Option<Bytes> {
        if self.lines.is_empty() {
            return None;
        }
        let length = self.lines.iter().position(|b| *b == b'\n');
        let line = self.lines.split_to(length.unwrap_or(self.lines.len()));
        self.lines.advance(usize::from(length.is_some()));
        Some(line)
    }

    /// Loads the next chunk; false at the end.
    fn load(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let mut head = [0; HEAD];
        let got = fill(&mut self.file, &mut head).unwrap_or(0);
        let Some(parsed) = Head::parse(&head[..got]) else {
            return self.stop(got as u64);
        };
        if parsed == Head::END {
            self.ended = true;
            return false;
        }
        let mut packed = Vec::new();
        let read = self
            .file
            .by_ref()
            .take(u64::from(parsed.packed))
            .read_to_end(&mut packed);
        let whole = read.is_ok() && packed.len() == parsed.packed as usize;
        match chunk::unpack(parsed, &packed) {
            Some(lines) if whole => {
                self.lines = lines;
                true
            }
            _ => self.stop((HEAD + packed.len()) as u64),
        }
    }

    /// Nothing more can be used: `lost` bytes already read, and whatever follows.
    fn stop(&mut self, lost: u64) -> bool {
        let rest = io::copy(&mut self.file, &mut io::sink()).unwrap_or(0);
        self.ended = true;
        self.lost = Some(lost + rest);
        false
    }

    /// Parses a line; what a later netflow added is left out and counted.
    fn parse(&mut self, line: &[u8]) -> Option<Input> {
        if let Ok(input) = serde_json::from_slice(line) {
            return Some(input);
        }
        let records = match serde_json::from_slice(line) {
            Ok(Value::Object(mut fields)) if fields.get("input") == Some(&"records".into()) => {
                fields.remove("records")
            }
            _ => None,
        };
        let Some(Value::Array(records)) = records else {
            self.skipped += 1;
            return None;
        };
        let all = records.len();
        let known: Vec<Record> = records
            .into_iter()
            .filter_map(|r| serde_json::from_value(r).ok())
            .collect();
        self.skipped += (all - known.len()) as u64;
        Some(Input::Records { records: known })
    }
}

impl Iterator for Reader {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        loop {
            while let Some(line) = self.line() {
                if let Some(input) = self.parse(&line) {
                    return Some(input);
                }
            }
            if !self.load() {
                return None;
            }
        }
    }
}

/// Reads until `into` is full or the file ends.
fn fill(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
