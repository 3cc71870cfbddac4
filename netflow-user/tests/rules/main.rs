//! The readers of proxy and firewall rules against real rule sets in network namespaces. Needs root.

mod kube;
mod netns;
mod scale;

use kube::Kube;
use netflow_user::model::Proto;
use netflow_user::model::node::{FirewallRule, ProxyRules, ProxyService, RuleMatch};
use netflow_user::model::record::NfHook;
use netflow_user::model::source::Ask;
use netflow_user::node::rules;
use netns::{Netns, Result};
use std::net::{SocketAddr, UdpSocket};

const TCP: Proto = Proto::TCP;

fn ask(vips: &[(&str, u16)], node_ports: &[u16]) -> Result<Ask> {
    let mut ask = Ask::default();
    for (ip, port) in vips {
        ask.vips.push((ip.parse()?, *port, TCP));
    }
    ask.node_ports = node_ports.iter().map(|port| (*port, TCP)).collect();
    Ok(ask)
}

/// What the rules of the namespace do; nothing may stay unread.
fn proxy(netns: &Netns, ask: &Ask) -> Result<ProxyRules> {
    let (rules, unread) = netns.within(|| rules::proxy(ask))?;
    assert_eq!(unread, []);
    Ok(rules)
}

fn firewall(netns: &Netns) -> Result<Vec<FirewallRule>> {
    let (rules, unread) = netns.within(rules::firewall)?;
    assert_eq!(unread, []);
    Ok(rules)
}

fn of<'a>(rules: &'a ProxyRules, ip: &str, port: u16) -> Result<Option<&'a ProxyService>> {
    let ip = ip.parse()?;
    Ok(rules
        .services
        .iter()
        .find(|s| s.ip == Some(ip) && s.port == port))
}

fn targets(addresses: &[&str], port: u16) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for address in addresses {
        all.push(SocketAddr::new(address.parse()?, port));
    }
    Ok(all)
}

/// What every form of kube-proxy's rules must give.
fn check_kube(netns: &Netns, kube: &Kube, mode: &str) -> Result<()> {
    let asked = ask(
        &[
            (kube.vip(), 80),
            (kube.empty(), 80),
            (kube.balancer(), 80),
            (kube.vip(), 81),
            (kube.unused(), 80),
        ],
        &[30080, 30081, 30082],
    )?;
    let rules = proxy(netns, &asked)?;
    assert_eq!(rules.modes, [mode]);
    assert_eq!(rules.rules, 1, "{rules:?}");

    let web = of(&rules, kube.vip(), 80)?.ok_or("no row for the VIP")?;
    assert_eq!(web.mode, mode);
    assert_eq!(web.backends, targets(&kube.endpoints(), 8080)?);
    assert!(!web.reject && !web.drop, "{web:?}");
    assert!(
        web.place.contains("WEBAPI") || web.place.contains("service-X-app/web-api"),
        "{web:?}"
    );

    let empty = of(&rules, kube.empty(), 80)?.ok_or("no row for the empty Service")?;
    assert!(empty.reject && empty.backends.is_empty(), "{empty:?}");
    let far = of(&rules, kube.balancer(), 80)?.ok_or("no row for the load balancer")?;
    assert!(
        far.drop && !far.reject && far.backends.is_empty(),
        "{far:?}"
    );

    let node_port = |port| {
        rules
            .services
            .iter()
            .find(|s| s.ip.is_none() && s.port == port)
    };
    let open = node_port(30080).ok_or("no row for the NodePort")?;
    assert_eq!(open.backends, web.backends);
    let closed = node_port(30081).ok_or("no row for the empty NodePort")?;
    assert!(closed.reject && closed.backends.is_empty(), "{closed:?}");
    assert_eq!(node_port(30082), None);

    let wrong_port = of(&rules, kube.vip(), 81)?;
    let unused = of(&rules, kube.unused(), 80)?;
    if mode == "nftables" {
        // cluster-ips: what has no such port is rejected, what is no Service dropped
        assert!(wrong_port.is_some_and(|s| s.reject && s.backends.is_empty()));
        assert!(unused.is_some_and(|s| s.drop && !s.reject));
    } else {
        assert_eq!((wrong_port, unused), (None, None));
    }
    Ok(())
}

#[test]
fn kube_proxy_iptables() -> Result<()> {
    for (back_end, mode) in [("legacy", "iptables-legacy"), ("nft", "iptables-nft")] {
        for v6 in [false, true] {
            let kube = Kube { v6 };
            let netns = Netns::new()?;
            let program = if v6 { "ip6tables" } else { "iptables" };
            netns.run(&format!("{program}-{back_end}-restore"), &kube.iptables())?;
            let before = netns.tables()?;
            check_kube(&netns, &kube, mode).map_err(|e| format!("{mode} v6={v6}: {e}"))?;
            assert_eq!(netns.tables()?, before, "looking must create no table");
        }
    }
    Ok(())
}

#[test]
fn kube_proxy_nftables() -> Result<()> {
    for per_endpoint in [false, true] {
        for v6 in [false, true] {
            let kube = Kube { v6 };
            let netns = Netns::new()?;
            netns.run("nft -f -", &kube.nftables(per_endpoint))?;
            let before = netns.tables()?;
            check_kube(&netns, &kube, "nftables")
                .map_err(|e| format!("per endpoint {per_endpoint}, v6 {v6}: {e}"))?;
            assert_eq!(netns.tables()?, before);
        }
    }
    Ok(())
}

#[test]
fn an_empty_namespace_stays_empty() -> Result<()> {
    let netns = Netns::new()?;
    let asked = ask(&[("10.96.0.10", 80), ("fd00::1", 80)], &[30080])?;
    assert_eq!(proxy(&netns, &asked)?, ProxyRules::default());
    assert_eq!(firewall(&netns)?, []);
    assert_eq!(netns.tables()?, Vec::<String>::new());
    Ok(())
}

/// Rules that no proxy of Kubernetes writes; nothing may depend on names.
#[test]
fn free_forms_of_nftables() -> Result<()> {
    let netns = Netns::new()?;
    netns.run(
        "nft -f -",
        r"
table ip nat {
  map pool { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 10.9.0.5 . 443 : 10.1.0.5 . 8443, 10.9.0.6 . 443 : 10.1.0.6 . 8443 } }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.9.0.1 tcp dport 80 dnat to 10.1.0.1:8080
    ip daddr 10.9.0.2 tcp dport { 80, 90-99 } dnat to 10.1.0.2
    ip daddr { 10.9.0.3, 10.9.0.4 } tcp dport 80 dnat to jhash ip saddr mod 2 map { 0 : 10.1.0.3, 1 : 10.1.0.4 }
    dnat ip to ip daddr . tcp dport map @pool
    ip daddr 10.9.0.7 udp dport 53 dnat to 10.1.0.7-10.1.0.9
    ip daddr 10.9.1.0/24 tcp dport 80 meta mark 0x10 dnat to 10.1.1.1:80
    ip daddr 10.9.0.8 tcp dport 1000-2000 counter jump eight
  }
  chain eight { ip saddr 10.0.0.0/8 return; meta l4proto tcp dnat to 10.1.0.8:80; }
}
table inet lb {
  chain pre {
    type nat hook prerouting priority dstnat - 5;
    ip6 daddr fd00:9::1 tcp dport 80 dnat ip6 to [fd00:1::1]:8080
    meta nfproto ipv4 ip daddr 10.9.0.9 th dport 80 meta l4proto { tcp, udp } dnat ip to 10.1.0.9:80
  }
  chain out {
    type nat hook output priority -100;
    ip daddr 10.9.0.10 tcp dport 80 dnat ip to 10.1.0.10:80
  }
  chain forward {
    type filter hook forward priority 0;
    ip daddr 10.9.0.11 tcp dport vmap { 80 : drop, 81 : accept }
    ip daddr 10.9.0.12 tcp dport != 80 reject
    tcp dport 9999 drop
  }
}
",
    )?;
    let one = |ip: &str, port: u16| -> Result<Option<ProxyService>> {
        let rules = proxy(&netns, &ask(&[(ip, port)], &[])?)?;
        Ok(of(&rules, ip, port)?.cloned())
    };
    let backends = |ip: &str, port: u16| -> Result<Vec<String>> {
        let found = one(ip, port)?;
        let all = found.iter().flat_map(|s| &s.backends);
        Ok(all.map(ToString::to_string).collect())
    };
    assert_eq!(backends("10.9.0.1", 80)?, ["10.1.0.1:8080"]);
    assert_eq!(one("10.9.0.1", 81)?, None);
    assert_eq!(backends("10.9.0.2", 95)?, ["10.1.0.2:95"]);
    assert_eq!(one("10.9.0.2", 100)?, None);
    assert_eq!(backends("10.9.0.3", 80)?, ["10.1.0.3:80", "10.1.0.4:80"]);
    assert_eq!(backends("10.9.0.6", 443)?, ["10.1.0.6:8443"]);
    assert_eq!(one("10.9.0.7", 53)?, None, "asked for TCP");
    assert_eq!(one("10.9.1.7", 80)?, None, "nothing sets that mark");
    assert_eq!(backends("10.9.0.8", 1500)?, ["10.1.0.8:80"]);
    assert_eq!(backends("fd00:9::1", 80)?, ["[fd00:1::1]:8080"]);
    assert_eq!(backends("10.9.0.9", 80)?, ["10.1.0.9:80"]);
    assert_eq!(backends("10.9.0.10", 80)?, ["10.1.0.10:80"]);
    let dropped = one("10.9.0.11", 80)?.ok_or("no drop")?;
    assert!(
        dropped.drop && dropped.place == "inet lb/forward",
        "{dropped:?}"
    );
    assert_eq!(one("10.9.0.11", 81)?, None);
    assert!(one("10.9.0.12", 81)?.is_some_and(|s| s.reject));
    assert_eq!(one("10.9.0.12", 80)?, None);
    assert_eq!(
        one("10.9.0.13", 9999)?,
        None,
        "a firewall's, not a Service's"
    );

    let mut dns = Ask::default();
    dns.vips.push(("10.9.0.7".parse()?, 53, Proto::UDP));
    let rules = proxy(&netns, &dns)?;
    assert_eq!(
        rules.services.first().map(|s| s.backends.clone()),
        Some(targets(&["10.1.0.7", "10.1.0.8", "10.1.0.9"], 53)?)
    );
    Ok(())
}

/// Marks carry a decision from one table to another, as older proxies do it.
#[test]
fn a_mark_that_drops() -> Result<()> {
    for back_end in ["legacy", "nft"] {
        let netns = Netns::new()?;
        netns.run(
            &format!("iptables-{back_end}-restore"),
            "*nat
:MARK-DROP - [0:0]
:FW - [0:0]
-A PREROUTING -d 10.9.0.1/32 -p tcp --dport 80 -j FW
-A FW -s 198.51.100.0/24 -p tcp -j DNAT --to-destination 10.1.0.1:80
-A FW -j MARK-DROP
-A MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*filter
-A FORWARD -m mark --mark 0x8000/0x8000 -j DROP
-A INPUT -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
*raw
-A PREROUTING -d 10.9.0.2/32 -p tcp --dport 80 -j NOTRACK
COMMIT
",
        )?;
        let rules = proxy(&netns, &ask(&[("10.9.0.1", 80), ("10.9.0.3", 80)], &[])?)?;
        let row = of(&rules, "10.9.0.1", 80)?.ok_or("no row")?;
        assert_eq!(row.backends, targets(&["10.1.0.1"], 80)?);
        assert!(row.drop, "{row:?}");
        assert_eq!(of(&rules, "10.9.0.3", 80)?, None);
    }
    Ok(())
}

/// A translation that shadows another, and one that packets never reach.
#[test]
fn the_first_translation_wins() -> Result<()> {
    let netns = Netns::new()?;
    netns.run(
        "nft -f -",
        "table ip a {
  chain pre { type nat hook prerouting priority -110; ip daddr 10.9.0.1 tcp dport 80 dnat to 10.1.0.1:80; }
}
table ip b {
  chain pre { type nat hook prerouting priority -100; ip daddr 10.9.0.1 tcp dport 80 dnat to 10.1.0.2:80; }
}
table ip c {
  flags dormant
  chain pre { type nat hook prerouting priority -120; ip daddr 10.9.0.1 tcp dport 80 dnat to 10.1.0.3:80; }
}
table ip d {
  chain raw { type filter hook prerouting priority -300; ip daddr 10.9.0.4 notrack; }
  chain pre { type nat hook prerouting priority -100; ip daddr 10.9.0.4 tcp dport 80 dnat to 10.1.0.4:80; }
}
",
    )?;
    let rules = proxy(&netns, &ask(&[("10.9.0.1", 80), ("10.9.0.4", 80)], &[])?)?;
    let row = of(&rules, "10.9.0.1", 80)?.ok_or("no row")?;
    assert_eq!(row.backends, targets(&["10.1.0.1"], 80)?);
    assert_eq!(
        of(&rules, "10.9.0.4", 80)?,
        None,
        "not tracked, not translated"
    );
    Ok(())
}

/// What is not understood on the way is said, and no match is claimed.
#[test]
fn what_is_not_understood_is_said() -> Result<()> {
    for back_end in ["legacy", "nft"] {
        let netns = Netns::new()?;
        netns.run(
            &format!("iptables-{back_end}-restore"),
            "*nat
-A PREROUTING -d 10.9.0.1/32 -p tcp --dport 80 -m u32 --u32 0=0 -j DNAT --to-destination 10.1.0.1:80
-A PREROUTING -d 10.9.0.2/32 -p tcp --dport 80 -j DNAT --to-destination 10.1.0.2:80
COMMIT
*filter
-A FORWARD -d 10.1.0.1/32 -m u32 --u32 0=0 -j DROP
COMMIT
",
        )?;
        let asked = ask(&[("10.9.0.1", 80)], &[])?;
        let (rules, unread) = netns.within(|| rules::proxy(&asked))?;
        assert!(of(&rules, "10.9.0.1", 80)?.is_some());
        assert!(
            unread.len() == 1
                && unread[0].why.contains("u32")
                && unread[0].what.contains("10.9.0.1"),
            "{unread:?}"
        );
        let asked = ask(&[("10.9.0.2", 80)], &[])?;
        let sure = proxy(&netns, &asked)?;
        assert!(of(&sure, "10.9.0.2", 80)?.is_some());
        let all = firewall(&netns)?;
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].matches, None);
        assert!(all[0].text.contains("10.1.0.1"), "{all:?}");
    }
    Ok(())
}

fn find<'a>(rules: &'a [FirewallRule], chain: &str, text: &str) -> Result<&'a FirewallRule> {
    rules
        .iter()
        .find(|rule| rule.chain == chain && rule.text == text)
        .ok_or_else(|| format!("no «{text}» in {chain}: {rules:#?}").into())
}

#[test]
fn firewall_rules_of_iptables() -> Result<()> {
    for (back_end, mode) in [("legacy", "iptables-legacy"), ("nft", "iptables-nft")] {
        let netns = Netns::new()?;
        netns.run(
            &format!("iptables-{back_end}-restore"),
            r#"*filter
:FORWARD DROP [0:0]
:POLICY - [0:0]
:UNUSED - [0:0]
-A FORWARD -s 10.0.0.0/24 -p tcp -m tcp --dport 8080 -m comment --comment "no web" -j DROP
-A FORWARD -d 10.244.1.5/32 -j POLICY
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD ! -s 10.0.0.0/8 -i eth+ -p udp -m multiport --dports 53,5000:5010 -j REJECT
-A POLICY -s 10.244.0.0/16 -p tcp -m tcp --dport 80 -j RETURN
-A POLICY -m conntrack --ctstate NEW -j DROP
-A UNUSED -j DROP
COMMIT
"#,
        )?;
        let all = firewall(&netns)?;
        assert_eq!(all.len(), 5, "{all:#?}");
        assert!(all.iter().all(|r| r.mode == mode && r.table == "filter"));
        assert!(all.iter().all(|r| r.hook == Some(NfHook::Forward)));

        let web = find(&all, "FORWARD", "ip saddr 10.0.0.0/24 tcp dport 8080")?;
        assert_eq!((web.verdict.as_str(), web.partial), ("drop", false));
        assert_eq!(web.comment.as_deref(), Some("no web"));
        assert_eq!(web.packets, Some(0));
        assert_eq!(
            web.matches,
            Some(RuleMatch {
                src: Some(("10.0.0.0".parse()?, 24)),
                proto: Some(TCP),
                dport: Some((8080, 8080)),
                ..RuleMatch::default()
            })
        );
        // the condition stands where the chain is jumped to
        let policy = find(&all, "POLICY", "ip daddr 10.244.1.5 ct state new")?;
        assert_eq!(
            policy.matches.as_ref().and_then(|m| m.dst),
            Some(("10.244.1.5".parse()?, 32))
        );
        assert!(!policy.partial);
        let invalid = find(&all, "FORWARD", "ct state invalid")?;
        assert_eq!((&invalid.matches, invalid.partial), (&None, true));
        let reject = all
            .iter()
            .find(|r| r.verdict == "reject")
            .ok_or("no reject")?;
        assert!(reject.partial);
        for part in [
            "ip saddr != 10.0.0.0/8",
            "iifname \"eth*\"",
            "udp dport { 53, 5000-5010 }",
        ] {
            assert!(reject.text.contains(part), "{}", reject.text);
        }
        let default = all.iter().find(|r| r.handle == 0).ok_or("no policy")?;
        assert_eq!(default.verdict, "policy drop");
    }
    Ok(())
}

#[test]
fn firewall_rules_of_nftables() -> Result<()> {
    let netns = Netns::new()?;
    netns.run(
        "nft -f -",
        r#"
table inet guard {
  counter blocked { }
  set bad { type ipv4_addr; elements = { 10.6.6.6, 10.6.6.7 } }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state vmap { invalid : drop, established : accept, related : accept }
    ip saddr @bad counter name "blocked" drop
    ip6 saddr fd00::/8 tcp dport 22-23 drop comment "no shell"
    udp dport { 53 } jump dns
    tcp dport vmap { 25 : drop, 80 : accept, 81 : jump web }
  }
  chain dns { ip saddr 10.0.0.0/8 accept; counter reject; }
  chain web { drop; }
}
table bridge l2 {
  chain bridged { type filter hook forward priority 0; ether type ip ip daddr 10.7.0.1 drop; }
}
"#,
    )?;
    let all = firewall(&netns)?;
    assert!(all.iter().all(|r| r.mode == "nftables"));
    let set = find(&all, "input", "ip saddr @bad")?;
    assert_eq!((set.packets, set.table.as_str()), (Some(0), "inet guard"));
    assert!(set.partial && set.matches.is_none());
    let shell = find(&all, "input", "ip6 saddr fd00::/8 tcp dport 22-23")?;
    assert_eq!(shell.comment.as_deref(), Some("no shell"));
    assert_eq!(
        shell.matches,
        Some(RuleMatch {
            src: Some(("fd00::".parse()?, 8)),
            proto: Some(TCP),
            dport: Some((22, 23)),
            ..RuleMatch::default()
        })
    );
    let dns = all.iter().find(|r| r.chain == "dns").ok_or("no dns")?;
    assert_eq!((dns.verdict.as_str(), dns.packets), ("reject", Some(0)));
    assert_eq!(
        dns.matches.as_ref().and_then(|m| m.dport),
        Some((53, 53)),
        "{dns:?}"
    );
    let smtp = all
        .iter()
        .find(|r| r.matches.as_ref().and_then(|m| m.dport) == Some((25, 25)));
    assert!(smtp.is_some_and(|r| r.verdict == "drop"), "{all:#?}");
    let web = all.iter().find(|r| r.chain == "web").ok_or("no web")?;
    assert_eq!(web.matches.as_ref().and_then(|m| m.dport), Some((81, 81)));
    let policy = all
        .iter()
        .find(|r| r.verdict == "policy drop")
        .ok_or("no policy")?;
    assert_eq!(policy.matches, Some(RuleMatch::default()));
    assert_eq!(policy.hook, Some(NfHook::Input));
    let bridged = all
        .iter()
        .find(|r| r.table == "bridge l2")
        .ok_or("no bridge")?;
    assert_eq!(
        bridged.matches.as_ref().and_then(|m| m.dst),
        Some(("10.7.0.1".parse()?, 32))
    );
    Ok(())
}

/// Counters rise with real packets.
#[test]
fn counters_rise() -> Result<()> {
    const SENT: u64 = 7;
    let restore = |program: &str| {
        (
            format!("{program}-restore"),
            "*filter\n-A INPUT -p udp -m udp --dport 4444 -j DROP\nCOMMIT\n".to_owned(),
        )
    };
    let cases = [
        restore("iptables-legacy"),
        restore("iptables-nft"),
        (
            "nft -f -".to_owned(),
            "table ip f {\n chain i { type filter hook input priority 0; udp dport 4444 counter drop; }\n}\n"
                .to_owned(),
        ),
    ];
    for (program, rules) in cases {
        let netns = Netns::new()?;
        netns.run(&program, &rules)?;
        assert_eq!(firewall(&netns)?[0].packets, Some(0), "{program}");
        netns.within(|| -> std::io::Result<()> {
            let socket = UdpSocket::bind("192.0.2.1:0")?;
            for _ in 0..SENT {
                socket.send_to(b"x", "192.0.2.1:4444")?;
            }
            Ok(())
        })??;
        let rule = &firewall(&netns)?[0];
        assert_eq!(rule.packets, Some(SENT), "{program}");
        assert_eq!(
            rule.matches.as_ref().and_then(|m| m.dport),
            Some((4444, 4444))
        );
    }
    Ok(())
}
