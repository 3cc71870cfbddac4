//! Settings that decide a packet's fate, and a few that explain numbers.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file (`net_ctl_header_lookup`,
//! `net/sysctl_net.c`, v6.18), unlike `/proc/net`, which shows that of the process's first thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const ROOT: &str = "/proc/sys/net";

/// Settings of the namespace as a whole, by path below `/proc/sys/net`. Those that the kernel does not have are left
/// out.
const GLOBAL: &[&str] = &[
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-iptables",
    "core/somaxconn",
    "ipv4/fwmark_reflect",
    "ipv4/icmp_echo_ignore_all",
    "ipv4/icmp_ratelimit",
    "ipv4/icmp_ratemask",
    "ipv4/ip_forward",
    "ipv4/ip_forward_use_pmtu",
    "ipv4/ip_local_port_range",
    "ipv4/ip_local_reserved_ports",
    "ipv4/ip_no_pmtu_disc",
    "ipv4/ip_nonlocal_bind",
    "ipv4/neigh/default/gc_thresh1",
    "ipv4/neigh/default/gc_thresh2",
    "ipv4/neigh/default/gc_thresh3",
    "ipv4/route/min_pmtu",
    "ipv4/route/mtu_expires",
    "ipv4/tcp_base_mss",
    "ipv4/tcp_max_syn_backlog",
    "ipv4/tcp_mtu_probing",
    "ipv4/tcp_syncookies",
    "ipv4/tcp_tw_reuse",
    "ipv4/vs/conn_reuse_mode",
    "ipv4/vs/conntrack",
    "ipv4/vs/expire_nodest_conn",
    "ipv6/bindv6only",
    "ipv6/icmp/ratelimit",
    "ipv6/neigh/default/gc_thresh3",
    "ipv6/route/mtu_expires",
    "netfilter/nf_conntrack_acct",
    "netfilter/nf_conntrack_buckets",
    "netfilter/nf_conntrack_checksum",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_events",
    "netfilter/nf_conntrack_generic_timeout",
    "netfilter/nf_conntrack_log_invalid",
    "netfilter/nf_conntrack_max",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_tcp_ignore_invalid_rst",
    "netfilter/nf_conntrack_tcp_loose",
    "netfilter/nf_conntrack_tcp_timeout_close_wait",
    "netfilter/nf_conntrack_tcp_timeout_established",
    "netfilter/nf_conntrack_tcp_timeout_syn_sent",
    "netfilter/nf_conntrack_tcp_timeout_time_wait",
    "netfilter/nf_conntrack_timestamp",
    "netfilter/nf_conntrack_udp_timeout",
    "netfilter/nf_conntrack_udp_timeout_stream",
];

/// Settings of each interface, and of `all` and `default`.
const PER_INTERFACE: &[(&str, &[&str])] = &[
    (
        "ipv4/conf",
        &[
            "accept_local",
            "arp_ignore",
            "disable_policy",
            "forwarding",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
            "src_valid_mark",
        ],
    ),
    (
        "ipv6/conf",
        &["accept_ra", "disable_ipv6", "forwarding", "proxy_ndp"],
    ),
];

/// The settings of the thread's network namespace, by dotted name.
pub fn read() -> BTreeMap<String, String> {
    read_below(Path::new(ROOT))
}

fn read_below(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut take = |path: String| {
        if let Ok(value) = fs::read_to_string(root.join(&path)) {
            let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            found.insert(dotted(&path), value);
        }
    };
    for path in GLOBAL {
        take((*path).to_owned());
    }
    for (group, names) in PER_INTERFACE {
        let Ok(interfaces) = fs::read_dir(root.join(group)) else {
            continue;
        };
        for interface in interfaces.flatten() {
            let interface = interface.file_name();
            for name in *names {
                take(format!("{group}/{}/{name}", interface.to_string_lossy()));
            }
        }
    }
    found
}

/// As sysctl(8) writes it. A dot in the name of an interface stays a dot.
fn dotted(path: &str) -> String {
    format!("net.{}", path.replace('/', "."))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_has_settings() {
        let all = read();
        assert!(["0", "1"].contains(&all["net.ipv4.ip_forward"].as_str()));
        assert!(all.contains_key("net.ipv4.conf.lo.rp_filter"));
        assert_eq!(all["net.ipv4.ip_local_port_range"].split(' ').count(), 2);
    }

    #[test]
    fn what_the_kernel_lacks_is_left_out() {
        let root = std::env::temp_dir().join(format!("netflow-sysctl-{}", std::process::id()));
        fs::create_dir_all(root.join("ipv4/conf/eth0.100")).unwrap();
        fs::write(root.join("ipv4/conf/eth0.100/forwarding"), "0\n").unwrap();
        fs::write(root.join("ipv4/ip_local_port_range"), "32768\t60999\n").unwrap();
        let all: Vec<_> = read_below(&root).into_iter().collect();
        fs::remove_dir_all(&root).unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            all,
            [
                pair("net.ipv4.conf.eth0.100.forwarding", "0"),
                pair("net.ipv4.ip_local_port_range", "32768 60999"),
            ]
        );
    }
}
