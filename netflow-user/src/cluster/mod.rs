//! Kubernetes objects: watched in the API or read from files, and what they say about addresses and Services.

pub mod access;
pub mod agents;
pub mod ask;
pub mod identity;
pub mod live;
pub mod manifests;
mod object;
mod pool;
pub mod reduce;
pub mod versions;
