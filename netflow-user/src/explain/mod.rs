//! From connections and facts to the proved cause.

pub mod codes;
