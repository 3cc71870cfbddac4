//! The recording codec: what the pure part was fed, as a file that survives a killed writer.
//!
//! ```text
//! header   magic (8 bytes) · version (u16) · minor (u16)
//! chunk    packed length (u32) · plain length (u32) · CRC-32 of the packed bytes (u32) · packed bytes (zlib)
//! …
//! end      a chunk of length 0
//! ```
//!
//! Integers are big-endian. A chunk unpacks to lines of JSON, one [`Input`](super::Input) each. A reader takes every
//! whole chunk; what follows the first one that is cut off or damaged is lost, and counted. Within a version, a later
//! minor may add inputs, events and fields: readers skip and count what they do not know.

mod chunk;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use std::io;
use std::path::PathBuf;

/// First bytes of a recording. Not text, so that a transfer that mangles line ends shows at once.
const MAGIC: [u8; 8] = *b"\x8fNFREC\r\n";

/// Version of the format that is written, and the newest that is read.
pub const VERSION: u16 = 1;

/// Minor version: what this netflow may write that an older one of the same version skips.
pub const MINOR: u16 = 0;

/// Length of the header.
const HEADER: usize = MAGIC.len() + 4;

/// A recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not begin as a recording does.
    #[error("{} is not a netflow recording", path.display())]
    NotARecording {
        /// The file.
        path: PathBuf,
    },
    /// Its format is newer than this netflow.
    #[error(
        "{} was recorded in format {version}; this netflow reads formats up to {VERSION}",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// It cannot be created.
    #[error("cannot create {}: {source}", path.display())]
    NotCreated {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written on; what was written before stands.
    #[error("recording into {} stopped: {source}", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RecordingError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RecordingError::Unreadable { .. } => {
                "give the path of a file made by `netflow explain --record FILE`"
            }
            RecordingError::NotARecording { .. } => {
                "recordings are made by `netflow explain --record FILE`; was this one transferred as text or compressed?"
            }
            RecordingError::Newer { .. } => {
                "replay it with the netflow that made it, or a newer one"
            }
            RecordingError::NotCreated { .. } => {
                "choose a directory that exists and can be written to"
            }
            RecordingError::Stopped { .. } => {
                "make room on that file system or record elsewhere; the answer does not depend on it"
            }
        }
    }
}

/// A whole recording of these lines, in one chunk.
#[cfg(any(test, fuzzing))]
pub fn of_lines(lines: &[u8]) -> io::Result<Vec<u8>> {
    let (version, minor) = (VERSION.to_be_bytes(), MINOR.to_be_bytes());
    let mut end = bytes::BytesMut::new();
    chunk::Head::END.put(&mut end);
    Ok([&MAGIC[..], &version, &minor, &chunk::pack(lines)?, &end].concat())
}

#[cfg(test)]
mod tests;
