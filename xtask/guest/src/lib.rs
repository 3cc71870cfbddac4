//! What the virtual machine and the one who started it say to each other.

mod report;
mod request;

pub use report::{Report, UnknownReport};
pub use request::Request;

/// Name of the virtio port that carries [`Report`]s.
pub const REPORT: &str = "netflow.report";
/// Name of the virtio port that carries the command's stdout.
pub const STDOUT: &str = "netflow.stdout";
/// Name of the virtio port that carries the command's stderr.
pub const STDERR: &str = "netflow.stderr";
/// The 9p mount tag of the host's file system.
pub const HOST: &str = "host";
/// Where the guest's kernel modules lie in the initrd, each under its place in the order of loading.
pub const MODULES: &str = "modules";
