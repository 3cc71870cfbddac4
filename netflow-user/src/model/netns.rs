//! Which network namespace.

use serde::{Deserialize, Serialize};

/// A network namespace on this kernel. The inode number is what `/proc/PID/ns/net` shows, but the kernel hands it out
/// again as soon as a namespace is gone; the cookie is never reused (Linux 5.14, `SO_NETNS_COOKIE`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NetnsId {
    /// Inode number of the nsfs file.
    pub inum: u32,
    /// `net->net_cookie`, 0 where the kernel has none.
    #[serde(default)]
    pub cookie: u64,
}
