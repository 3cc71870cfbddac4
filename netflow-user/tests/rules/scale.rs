//! Ten thousand Services are read and asked about in well under the time that an answer may take.

use super::netns::{Netns, Result};
use super::{ask, of, targets};
use netflow_user::node::rules;
use std::fmt::Write;
use std::time::Duration;

const SERVICES: u32 = 10_000;
/// Processor time of a debug build, in which another program's load does not count.
const LIMIT: Duration = Duration::from_secs(5);

fn vip(n: u32) -> String {
    format!("10.96.{}.{}", n >> 8, n & 255)
}

fn pod(n: u32) -> String {
    format!("10.200.{}.{}", n >> 8, n & 255)
}

fn iptables() -> Result<String> {
    let mut text = String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
    for n in 0..SERVICES {
        writeln!(text, ":KUBE-SVC-{n:016} - [0:0]\n:KUBE-SEP-{n:016} - [0:0]")?;
    }
    writeln!(
        text,
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES"
    )?;
    for n in 0..SERVICES {
        let (vip, pod) = (vip(n), pod(n));
        writeln!(
            text,
            "-A KUBE-SERVICES -m comment --comment \"ns/svc-{n} cluster IP\" -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{n:016}
-A KUBE-SVC-{n:016} ! -s 10.200.0.0/16 -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-{n:016} -j KUBE-SEP-{n:016}
-A KUBE-SEP-{n:016} -s {pod}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-{n:016} -p tcp -m tcp -j DNAT --to-destination {pod}:8080"
        )?;
    }
    writeln!(text, "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\nCOMMIT")?;
    Ok(text)
}

fn nftables() -> Result<String> {
    let mut text = String::from("table ip kube-proxy {\n");
    writeln!(
        text,
        "chain mark-masq {{ meta mark set meta mark or 0x4000; }}"
    )?;
    let mut elements = Vec::new();
    for n in 0..SERVICES {
        let (vip, pod) = (vip(n), pod(n));
        writeln!(
            text,
            "chain endpoint-{n} {{ ip saddr {pod} jump mark-masq; meta l4proto tcp dnat to {pod}:8080; }}
chain service-{n} {{ ip daddr {vip} tcp dport 80 ip saddr != 10.200.0.0/16 jump mark-masq; numgen random mod 1 vmap {{ 0 : goto endpoint-{n} }}; }}"
        )?;
        elements.push(format!("{vip} . tcp . 80 : goto service-{n}"));
    }
    writeln!(
        text,
        "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }} }}
chain pre {{ type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @service-ips; }}
}}",
        elements.join(", ")
    )?;
    Ok(text)
}

/// Processor time that this thread has used.
fn used() -> std::io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    Ok(Duration::from_nanos(first.unwrap_or(u64::MAX)))
}

fn check(program: &str, rules: &str) -> Result<()> {
    let netns = Netns::new()?;
    netns.run(program, rules)?;
    let last = vip(SERVICES - 1);
    let asked = ask(&[(&last, 80), (&vip(0), 80)], &[30080])?;
    let (read, took) = netns.within(|| {
        let begin = used();
        let read = rules::everything(&asked);
        (
            read,
            begin.and_then(|begin| Ok(used()?.saturating_sub(begin))),
        )
    })?;
    let ((read, unread), took) = (read, took?);
    let (found, firewall) = (read.proxy, read.firewall);
    println!("{program}: {SERVICES} Services in {took:?} of processor time");
    // Of the maps that choose a backend only the first are searched for drops.
    let by_chance = unread.iter().filter(|u| u.why.contains("by chance"));
    assert_eq!(by_chance.count(), unread.len(), "{unread:?}");
    assert_eq!(firewall, []);
    assert_eq!(found.rules, u64::from(SERVICES));
    let row = of(&found, &last, 80)?.ok_or("no row")?;
    assert_eq!(row.backends, targets(&[&pod(SERVICES - 1)], 8080)?);
    assert!(took < LIMIT, "{program}: {took:?}");
    Ok(())
}

#[test]
fn ten_thousand_services_in_iptables() -> Result<()> {
    let rules = iptables()?;
    check("iptables-legacy-restore", &rules)?;
    check("iptables-nft-restore", &rules)
}

#[test]
fn ten_thousand_services_in_nftables() -> Result<()> {
    check("nft -f -", &nftables()?)
}
