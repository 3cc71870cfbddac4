//! Kubernetes objects from files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netflow_user::fuzz::manifests(data));
