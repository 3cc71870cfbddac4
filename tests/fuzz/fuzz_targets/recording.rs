//! Recordings, and the answer to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netflow_user::fuzz::recording(data));
