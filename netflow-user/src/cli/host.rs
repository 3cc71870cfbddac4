//! What this machine says about itself: names, rights, and what the kernel was built with.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Bits of `CapEff` that matter (include/uapi/linux/capability.h, v6.18).
const CAPABILITIES: [(u32, &str); 5] = [
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (34, "CAP_SYSLOG"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// First line of a file under `/proc` or `/sys`, empty if it cannot be read.
pub fn line(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}

/// `uname -r`.
pub fn kernel() -> String {
    line("/proc/sys/kernel/osrelease")
}

/// The host name, for a node that no Node object names.
pub fn name() -> String {
    line("/proc/sys/kernel/hostname")
}

/// Addresses of the interfaces of this network namespace.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ips: BTreeSet<IpAddr> = interfaces
        .filter_map(|i| i.address)
        .filter_map(|a| {
            a.as_sockaddr_in()
                .map(|a| IpAddr::V4(a.ip()))
                .or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect();
    ips.into_iter().collect()
}

/// Capabilities that matter and are not effective.
pub fn missing_capabilities() -> Vec<&'static str> {
    missing_of(effective())
}

/// Capabilities that matter and are effective.
pub fn held_capabilities() -> Vec<&'static str> {
    let missing = missing_capabilities();
    let names = CAPABILITIES.iter().map(|(_, name)| *name);
    names.filter(|name| !missing.contains(name)).collect()
}

fn effective() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn missing_of(effective: u64) -> Vec<&'static str> {
    let set = |bit: u32| effective & 1 << bit != 0;
    // CAP_SYS_ADMIN stands for what was split off from it in Linux 5.8.
    let held = |bit: u32| set(bit) || (bit >= 38 && set(21));
    CAPABILITIES
        .iter()
        .filter(|(bit, _)| !held(*bit))
        .map(|(_, name)| *name)
        .collect()
}

/// The lockdown mode in force: the bracketed word of `/sys/kernel/security/lockdown`, empty where there is none.
pub fn lockdown() -> String {
    bracketed(&line("/sys/kernel/security/lockdown")).to_owned()
}

fn bracketed(line: &str) -> &str {
    line.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(word, _)| word)
}

/// Modules that netflow looks into, those that are loaded and those of them whose types the kernel tells.
pub fn modules() -> (Vec<&'static str>, Vec<&'static str>) {
    const MODULES: [&str; 5] = ["nf_conntrack", "nf_nat", "nf_tables", "ip_tables", "ip_vs"];
    let text = fs::read_to_string("/proc/modules").unwrap_or_default();
    let names: BTreeSet<&str> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    let loaded: Vec<&str> = MODULES.into_iter().filter(|m| names.contains(m)).collect();
    let typed = |m: &&str| Path::new("/sys/kernel/btf").join(m).exists();
    let typed = loaded.iter().copied().filter(typed).collect();
    (loaded, typed)
}

/// Where a BPF file system is mounted.
pub fn bpffs() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().find_map(|l| {
        let mut fields = l.split(' ');
        let place = fields.nth(1)?;
        (fields.next() == Some("bpf")).then(|| place.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_for_what_was_split_off() {
        assert_eq!(missing_of(u64::MAX), Vec::<&str>::new());
        assert_eq!(missing_of(1 << 21 | 1 << 12), ["CAP_SYSLOG"]);
        assert_eq!(missing_of(1 << 21), ["CAP_NET_ADMIN", "CAP_SYSLOG"]);
        assert_eq!(
            missing_of(1 << 12 | 1 << 38 | 1 << 39),
            ["CAP_SYS_ADMIN", "CAP_SYSLOG"]
        );
        assert_eq!(missing_of(0).len(), CAPABILITIES.len());
    }

    #[test]
    fn the_lockdown_mode_is_in_brackets() {
        assert_eq!(bracketed("none [integrity] confidentiality"), "integrity");
        assert_eq!(bracketed(""), "");
    }
}
