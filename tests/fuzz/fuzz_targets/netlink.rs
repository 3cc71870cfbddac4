//! What rtnetlink, conntrack and sock_diag answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netflow_user::fuzz::netlink(data));
