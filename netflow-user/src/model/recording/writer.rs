//! Writing a recording.

use super::chunk::{self, Head};
use super::{HEADER, MAGIC, MINOR, RecordingError, VERSION};
use crate::model::{Input, Time};
use bytes::{BufMut, BytesMut};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A chunk is written when it holds so many bytes …
const CHUNK: usize = 1 << 18;
/// … or so much time, so that a killed run loses no more.
const SPAN: Duration = Duration::from_secs(1);

/// A recording being written. Only its owner can read the file.
///
/// A disk that is full stops the recording, not the run: the call that meets it returns the error, later ones do
/// nothing, and the file ends with its last whole chunk.
pub struct Writer {
    /// The file, or what a stream is called.
    path: PathBuf,
    /// `None` once stopped.
    pub(super) sink: Option<Sink>,
    /// Bytes of it that are whole chunks.
    whole: u64,
    /// Kept from chunk to chunk: room that is taken once need not be faulted in again.
    lines: Vec<u8>,
    /// When the oldest input among `lines` happened.
    since: Option<Time>,
    /// Met when the file was created, for the first write to return.
    pending: Option<RecordingError>,
}

/// Where a recording goes.
pub(super) enum Sink {
    File(File),
    /// To somebody who reads along.
    Stream(Box<dyn Write + Send>),
}

impl Writer {
    /// Creates the file, or replaces it. A full disk shows at the first write.
    pub fn create(path: impl AsRef<Path>) -> Result<Writer, RecordingError> {
        let path = path.as_ref().to_path_buf();
        match open(&path) {
            Ok(file) => Ok(Writer::begin(path, Sink::File(file))),
            Err(source) => Err(RecordingError::NotCreated { path, source }),
        }
    }

    /// To somebody who reads along, `name` in messages. Each input goes out at once, as a chunk of its own.
    pub fn stream(to: impl Write + Send + 'static, name: &str) -> Writer {
        Writer::begin(PathBuf::from(name), Sink::Stream(Box::new(to)))
    }

    fn begin(path: PathBuf, sink: Sink) -> Writer {
        let mut writer = Writer {
            path,
            sink: Some(sink),
            whole: 0,
            lines: Vec::new(),
            since: None,
            pending: None,
        };
        let mut header = BytesMut::with_capacity(HEADER);
        header.put_slice(&MAGIC);
        header.put_u16(VERSION);
        header.put_u16(MINOR);
        writer.pending = writer.append(&header).err();
        writer
    }

    /// Appends an input.
    pub fn write(&mut self, input: &Input) -> Result<(), RecordingError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let Some(sink) = &self.sink else {
            return Ok(());
        };
        let read_along = matches!(sink, Sink::Stream(_));
        let before = self.lines.len();
        if let Err(error) = serde_json::to_writer(&mut self.lines, input) {
            self.lines.truncate(before);
            return Err(self.stop(error.into()));
        }
        self.lines.push(b'\n');
        let now = input.time();
        let since = *self.since.get_or_insert(now.unwrap_or_default());
        // Who speaks stands in the file at once, so that one that ends early says at least what was asked.
        let due = read_along
            || matches!(input, Input::Start(_))
            || now.is_some_and(|now| now.since(since) >= SPAN);
        if due || self.lines.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes out what is buffered, as a chunk.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        if self.sink.is_none() || self.lines.is_empty() {
            return Ok(());
        }
        self.since = None;
        let chunk = chunk::pack(&self.lines).map_err(|e| self.stop(e))?;
        self.lines.clear();
        self.append(&chunk)
    }

    /// Writes the rest and the end mark.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        self.flush()?;
        let mut end = BytesMut::new();
        Head::END.put(&mut end);
        self.append(&end)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        let written = match &mut self.sink {
            Some(Sink::File(file)) => file.write_all(bytes),
            Some(Sink::Stream(stream)) => stream.write_all(bytes),
            None => return Ok(()),
        };
        match written {
            Ok(()) => {
                self.whole += bytes.len() as u64;
                Ok(())
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    /// Gives up, leaving whole chunks only.
    fn stop(&mut self, source: io::Error) -> RecordingError {
        if let Some(Sink::File(file)) = self.sink.take() {
            // Where it cannot be cut, the reader skips the broken chunk.
            let _ = file.set_len(self.whole);
        }
        self.lines = Vec::new();
        RecordingError::Stopped {
            path: self.path.clone(),
            source,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // `mode` is for new files only.
    if file.metadata()?.is_file() {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
