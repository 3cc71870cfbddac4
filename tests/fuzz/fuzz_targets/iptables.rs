//! The rules of iptables-legacy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netflow_user::fuzz::iptables(data));
