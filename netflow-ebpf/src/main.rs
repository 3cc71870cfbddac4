//! The BPF programs. On any other target this is an empty program, so that the whole workspace can be checked on the host.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "BPF programs read kernel memory by address, which the verifier checks"
    ),
    expect(
        clippy::inline_always,
        reason = "the verifier follows packet bounds within a function only, and the hot path pays for calls"
    ),
    expect(
        clippy::needless_pass_by_value,
        reason = "the program macros hand the context over by value"
    ),
    expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a key or value passed by value would be copied on the small stack"
    )
)]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
