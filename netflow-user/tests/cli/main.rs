//! The `netflow` binary from outside. Some of it needs root and the Debian packages iproute2 and util-linux.
#![expect(clippy::expect_used, reason = "a panic is a failed test")]

mod live;
mod replay;
mod run;
mod usage;
