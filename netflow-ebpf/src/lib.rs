//! The ABI between the BPF programs (this package's binary) and user space: keys, values, ring records, the frozen
//! [`Layout`] of kernel offsets, the lost counters and the names of programs and maps.
//!
//! Everything here is `repr(C)` without implicit padding, in the byte order of the machine unless said otherwise, and
//! checked for its size at compile time. [`VERSION`] changes with every change of these.
//!
//! [`parse`] is here too, so that its tests run on the host.
#![no_std]
#![expect(
    unsafe_code,
    reason = "plain structs are read from and written to bytes that the kernel hands over, and packets by address"
)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows packet bounds within a function only, and the hot path pays for calls"
)]

pub mod abi;
pub mod parse;

pub use abi::*;
