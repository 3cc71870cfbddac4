//! The `netflow` binary.

fn main() {}
