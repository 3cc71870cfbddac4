//! From connections and facts to the proved cause.

pub mod codes;
pub mod endpoints;
pub mod pods;
pub mod policy;
pub mod selector;
