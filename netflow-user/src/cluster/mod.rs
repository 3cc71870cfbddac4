//! Kubernetes objects: read from files, and what they say about addresses and Services.

pub mod ask;
pub mod identity;
pub mod manifests;
pub mod reduce;
