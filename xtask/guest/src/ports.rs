//! The virtio ports to the one who started the machine.

use anyhow::{Context, Result, bail};
use netflow_guest::{REPORT, Report, STDERR, STDOUT};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often the guest says that it lives.
const ALIVE: Duration = Duration::from_secs(1);
/// How long the devices may take to appear after their driver was loaded.
const APPEAR: Duration = Duration::from_mins(1);

/// The open ports.
pub struct Ports {
    report: File,
    /// Takes the command's stdout.
    pub stdout: File,
    /// Takes the command's stderr.
    pub stderr: File,
}

impl Ports {
    /// Opens them, as soon as they are there.
    pub fn open() -> Result<Ports> {
        Ok(Ports {
            report: wait_for(REPORT)?,
            stdout: wait_for(STDOUT)?,
            stderr: wait_for(STDERR)?,
        })
    }

    /// Sends one report.
    pub fn report(&self, report: &Report) -> Result<()> {
        send(&self.report, report)
    }

    /// Says from now on that the machine lives, while it does.
    pub fn keep_alive(&self) -> Result<()> {
        let port = self.report.try_clone()?;
        thread::spawn(move || {
            while send(&port, &Report::Alive).is_ok() {
                thread::sleep(ALIVE);
            }
        });
        Ok(())
    }
}

/// One write for one line, so that two threads do not mix theirs.
fn send(mut port: &File, report: &Report) -> Result<()> {
    port.write_all(format!("{report}\n").as_bytes())
        .with_context(|| format!("reporting {report}"))
}

fn wait_for(name: &str) -> Result<File> {
    let began = Instant::now();
    while began.elapsed() < APPEAR {
        if let Some(port) = find(name)? {
            return Ok(port);
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("no virtio port named {name}")
}

fn find(name: &str) -> Result<Option<File>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        // a port that has just appeared has no name yet
        let named = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if named.trim() == name {
            let device = Path::new("/dev").join(port.file_name());
            let file = File::options()
                .write(true)
                .open(&device)
                .with_context(|| device.display().to_string())?;
            return Ok(Some(file));
        }
    }
    Ok(None)
}
