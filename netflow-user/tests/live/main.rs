//! The real binary on the real kernel, in network namespaces made for it. Needs root.

mod attached;
mod beside;
mod canary;
mod foreign;
mod harmless;
mod killed;
mod maps;
mod netflow;
mod netns;
mod screen;
mod search;
mod sockets;
