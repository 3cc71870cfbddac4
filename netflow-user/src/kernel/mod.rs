//! The kernel side seen from user space: load, attach, tiers, BTF layout, ring reader.
//!
//! The only module of this crate with `unsafe` code, and only in the files that say so.

pub mod btf;
pub mod kallsyms;
pub mod layout;
pub mod links;
pub mod owner;
pub mod reasons;
pub mod rtnl;
pub mod sys;
