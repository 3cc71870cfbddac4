//! The kernel's types.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netflow_user::fuzz::btf(data));
