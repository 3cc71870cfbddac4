//! The rules, one file per family of faults.
//!
//! A rule states which attempts it explains and from which records, and how it says so. They run in the order of
//! precedence: what an earlier rule explains, a later one does not see.

use super::case::Case;
use super::report::Report;

mod agents;
mod beyond;
mod checksum;
mod clients;
mod conntrack;
mod dns;
mod filter;
mod kind;
mod lag;
mod listener;
mod mtu;
mod nat;
mod neighbor;
mod overlay;
mod proxy;
mod readiness;
mod refusals;
mod route;
mod scope;
mod service;
mod slices;
mod unrouted;

/// A rule.
type Rule = fn(&Case<'_>, &mut Report);

/// In order of precedence.
const RULES: &[Rule] = &[
    kind::external_name,
    dns::unresolved,
    unrouted::clients,
    service::port_undefined,
    service::no_endpoints,
    proxy::no_local_endpoint,
    lag::behind,
    proxy::vip_not_translated,
    proxy::rules_stale,
    conntrack::stale,
    conntrack::full,
    nat::snat_exhausted,
    conntrack::clash,
    nat::hairpin,
    slices::stale,
    filter::policy_denied,
    filter::firewall_reject,
    filter::firewall_drop,
    proxy::backend_gone,
    neighbor::stale,
    neighbor::failed,
    route::forwarding_disabled,
    route::missing,
    route::asymmetric_return,
    checksum::bad,
    nat::reply_bypasses,
    conntrack::invalid,
    listener::loopback_only,
    listener::target_port_mismatch,
    readiness::terminating,
    readiness::published,
    listener::missing,
    mtu::ignored,
    mtu::mismatch,
    mtu::blackhole,
    overlay::port_blocked,
    beyond::node_down,
    overlay::peer_lost,
    scope::one_bad_endpoint,
    beyond::never_arrived,
    clients::some_fail,
    beyond::lost_beyond_node,
    agents::proxy_unhealthy,
    agents::cni_unhealthy,
    mtu::pmtu_learned,
    mtu::fragmentation,
    kind::headless_not_ready,
    kind::load_balancer_pending,
    conntrack::pressure,
    nat::source_masqueraded,
    proxy::mode,
];

/// Runs all rules.
pub fn run(case: &Case<'_>, report: &mut Report) {
    for rule in RULES {
        rule(case, report);
    }
    // Direct attempts show where the shared part of the path breaks; that the Service fails, only its own traffic shows.
    let of_service = |i: &usize| case.counts(&case.attempts[*i]);
    report
        .found
        .retain(|f| f.attempts.is_empty() || f.attempts.iter().any(of_service));
}

pub use service::not_found;
