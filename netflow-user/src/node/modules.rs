//! Whether asking the kernel for something would make it load a module.
//!
//! Opening a netlink family or asking for a kind of diagnosis that nobody serves makes the kernel run `modprobe`
//! (`request_module` in `net/netlink/af_netlink.c`, `net/core/sock_diag.c` and `net/netfilter/nfnetlink.c`, v6.18). netflow
//! only looks, so it asks for nothing that is not there already.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A part of the kernel that may be a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Name of the module.
    pub module: &'static str,
    /// Functions of it, any of which shows that it is built in: a name may change from kernel to kernel.
    pub functions: &'static [&'static str],
}

/// Conntrack over netlink.
pub const CTNETLINK: Part = Part {
    module: "nf_conntrack_netlink",
    functions: &["ctnetlink_dump_table", "ctnetlink_get_conntrack"],
};
/// Diagnosis of TCP sockets.
pub const TCP_DIAG: Part = Part {
    module: "tcp_diag",
    functions: &["tcp_diag_dump", "tcp_diag_get_info"],
};
/// Diagnosis of UDP sockets.
pub const UDP_DIAG: Part = Part {
    module: "udp_diag",
    functions: &["udp_diag_dump", "udp_diag_get_info"],
};
/// nftables.
pub const NF_TABLES: Part = Part {
    module: "nf_tables",
    functions: &["nft_do_chain", "nf_tables_dump_rules"],
};

impl Part {
    /// Whether the part may be used without a module being loaded for it.
    pub fn is_present(self) -> bool {
        !modules_load_on_demand()
            || is_loaded(self.module)
            || self.functions.iter().any(|f| is_built_in(f))
    }
}

/// Whether this kernel loads modules by itself at all.
fn modules_load_on_demand() -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Path::new("/proc/modules").exists()
        && read("/proc/sys/kernel/modules_disabled").trim() != "1"
        && !read("/proc/sys/kernel/modprobe").trim().is_empty()
}

fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
        || fs::read_to_string("/proc/modules").is_ok_and(|list| lists(&list, module))
}

fn lists(modules: &str, module: &str) -> bool {
    modules
        .lines()
        .any(|line| line.split_ascii_whitespace().next() == Some(module))
}

/// BTF of the kernel itself names the functions that are built in. It does not change while the kernel runs.
fn is_built_in(function: &'static str) -> bool {
    static KNOWN: Mutex<BTreeMap<&'static str, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(function).or_insert_with(|| {
        fs::read("/sys/kernel/btf/vmlinux").is_ok_and(|btf| holds_name(&btf, function))
    })
}

/// Looks for a whole zero-terminated name in a string table.
fn holds_name(bytes: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    bytes.split(|b| *b == 0).any(|s| s == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        let table = b"\0tcp_diag_dump_one\0tcp_diag_dump\0";
        assert!(holds_name(table, "tcp_diag_dump"));
        assert!(!holds_name(table, "tcp_diag"));
        let modules = "nf_conntrack_netlink 57344 0 - Live 0x0\ntcp_diag 1 0 - Live 0x0\n";
        assert!(lists(modules, "tcp_diag"));
        assert!(!lists(modules, "nf_conntrack"));
    }

    #[test]
    fn the_running_kernel_is_searched() {
        assert!(is_built_in("netlink_rcv_skb"));
        assert!(!is_built_in("no_function_has_this_name"));
    }
}
