//! The rules on hand-made records: what each code needs, and what it must not be taken for.

mod agents;
mod codes;
mod conntrack;
mod dns;
mod doubts;
mod endings;
mod filter;
mod flowtable;
mod foreign;
mod ipvs;
mod kind;
mod listener;
mod named_port;
mod nat;
mod node_down;
mod overlay;
mod proxy;
mod readiness;
mod rewriting;
mod route;
mod seed;
mod silent;
mod slices;
mod sockets;
mod story;
mod unrouted;
