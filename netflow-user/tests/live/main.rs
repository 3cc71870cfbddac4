//! The real binary on the real kernel, in network namespaces made for it. Needs root.

mod attached;
mod canary;
mod harmless;
mod maps;
mod netflow;
mod netns;
mod search;
