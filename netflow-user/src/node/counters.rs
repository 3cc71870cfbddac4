//! Protocol counters of the thread's network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// `/proc/net` would show the namespace of the process's first thread.
const FILES: [&str; 2] = [
    "/proc/thread-self/net/netstat",
    "/proc/thread-self/net/snmp",
];

/// Counters that tell something about a failing connection.
const WANTED: &[&str] = &[
    // Ip
    "InAddrErrors",
    "InDiscards",
    "InHdrErrors",
    "OutDiscards",
    "OutNoRoutes",
    "ReasmFails",
    "FragFails",
    // Tcp
    "AttemptFails",
    "EstabResets",
    "InErrs",
    "OutRsts",
    "RetransSegs",
    // Udp
    "NoPorts",
    "RcvbufErrors",
    "SndbufErrors",
    // TcpExt
    "IPReversePathFilter",
    "ListenDrops",
    "ListenOverflows",
    "LockDroppedIcmps",
    "OutOfWindowIcmps",
    "PAWSActive",
    "PAWSEstab",
    "PAWSOldAck",
    "PFMemallocDrop",
    "SyncookiesFailed",
    "SyncookiesRecv",
    "SyncookiesSent",
    "TCPAbortOnTimeout",
    "TCPBacklogDrop",
    "TCPMTUPFail",
    "TCPMTUPSuccess",
    "TCPReqQFullDoCookies",
    "TCPReqQFullDrop",
    "TCPSynRetrans",
    "TCPTimeouts",
    // IpExt
    "InCsumErrors",
    "InNoRoutes",
    "InTruncatedPkts",
];

/// Reads the counters that matter.
pub fn read() -> io::Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for file in FILES {
        collect(&fs::read_to_string(file)?, &mut all);
    }
    Ok(all)
}

/// Lines come in pairs, `TcpExt: NAME NAME …` and `TcpExt: 1 2 …`. A name that several groups have is summed.
fn collect(text: &str, into: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let pairs = names
            .split_ascii_whitespace()
            .zip(values.split_ascii_whitespace())
            .skip(1);
        for (name, value) in pairs {
            if let Ok(value) = value.parse::<u64>()
                && WANTED.contains(&name)
            {
                *into.entry(name.to_owned()).or_insert(0) += value;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_paired() {
        let mut all = BTreeMap::new();
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops Unwanted\n\
                    TcpExt: 0 24 25 9\n\
                    Tcp: MaxConn RetransSegs\nTcp: -1 7\n\
                    Udp: InCsumErrors\nUdp: 2\nTcp: InCsumErrors\nTcp: 3\nIp: odd\n";
        collect(text, &mut all);
        assert_eq!(all["ListenOverflows"], 24);
        assert_eq!(all["ListenDrops"], 25);
        assert_eq!(all["RetransSegs"], 7);
        assert_eq!(all["InCsumErrors"], 5);
        assert!(!all.contains_key("Unwanted"));
    }

    #[test]
    fn this_namespace_counts() {
        let all = read().unwrap();
        assert!(all.contains_key("ListenOverflows") && all.contains_key("OutNoRoutes"));
    }
}
