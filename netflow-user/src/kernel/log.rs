//! Shows what the programs log of rare events.

use log::{Level, Log, Metadata, Record};

/// Writes to standard error, one line each.
#[derive(Debug, Clone, Copy)]
pub struct StderrLog;

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("netflow: kernel: {}", record.args());
        }
    }

    fn flush(&self) {}
}
