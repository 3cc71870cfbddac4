//! From connections and facts to the proved cause.

pub mod codes;
pub mod policy;
pub mod selector;
