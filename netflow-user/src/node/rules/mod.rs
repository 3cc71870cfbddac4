//! What the rule systems of the calling thread's network namespace do with packets: nftables, iptables-nft and
//! iptables-legacy, IPv4 and IPv6.
//!
//! Read only and without looking changing anything: netlink dumps and `getsockopt`, no external program, no module
//! loaded, no table created. All systems are decoded into one form ([`ruleset`]); a packet that does not exist is then
//! followed through it ([`walk`]). What was not understood is named in the result, never guessed.

mod eval;
mod firewall;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod ipvs;
mod legacy;
mod nft;
mod nl;
mod ruleset;
mod services;
mod text;
mod walk;
mod xt;

use crate::model::Proto;
use crate::model::node::{FirewallRule, Flowtable, ProxyRules, ProxyService, Unread};
use crate::model::source::Ask;
use crate::node::modules;
use eval::Packet;
use nl::{Nftables, NlError};
use ruleset::{Elements, Fetched, Mode, Ruleset, SetRef};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use walk::Fate;

/// The proxy that uses no rules.
const IPVS: &str = "ipvs";

/// How often rules are read again when they change meanwhile.
const TRIES: usize = 5;

/// What the Service proxy would do with the addresses and `NodePort`s asked about.
pub fn proxy(ask: &Ask) -> (ProxyRules, Vec<Unread>) {
    read(|rules, unread| rules.proxy(ask, unread))
}

/// Every rule and policy that can drop or reject.
pub fn firewall() -> (Vec<FirewallRule>, Vec<Unread>) {
    read(|rules, unread| firewall::list(rules.ruleset, rules.elements, unread))
}

/// What the rules of one namespace come to, from one reading.
#[derive(Debug)]
pub struct Everything {
    /// As [`proxy`] has it.
    pub proxy: ProxyRules,
    /// As [`firewall`] has it.
    pub firewall: Vec<FirewallRule>,
    /// Flowtables, by which packets get past the rules.
    pub flowtables: Vec<Flowtable>,
}

/// Everything from one reading.
pub fn everything(ask: &Ask) -> (Everything, Vec<Unread>) {
    read(|rules, unread| Everything {
        firewall: firewall::list(rules.ruleset, rules.elements, unread),
        proxy: rules.proxy(ask, unread),
        flowtables: rules.ruleset.flowtables.clone(),
    })
}

/// Reads the rules and works on them, again if they changed before the work was done.
fn read<T>(work: impl Fn(&Rules<'_>, &mut Vec<Unread>) -> T) -> (T, Vec<Unread>) {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut unread = Vec::new();
        let mut ruleset = Ruleset::default();
        legacy::read(&mut ruleset.tables, &mut unread);
        let worked = if modules::NF_TABLES.is_present() {
            match with_nftables(&mut ruleset, &mut unread, &work) {
                Ok((worked, stable)) if stable || tries == TRIES => {
                    if !stable {
                        unread.push(changing());
                    }
                    Some(worked)
                }
                Ok(_) => continue,
                Err(NlError::Interrupted) if tries < TRIES => continue,
                Err(e) => {
                    unread.push(Unread {
                        what: "nftables".to_owned(),
                        why: e.to_string(),
                    });
                    // What of it was read is not whole.
                    ruleset.tables.retain(|t| t.mode == Mode::IptablesLegacy);
                    ruleset.sets.clear();
                    ruleset.flowtables.clear();
                    None
                }
            }
        } else {
            // no module, no rules
            None
        };
        let worked = worked.unwrap_or_else(|| {
            let rules = Rules {
                ruleset: &ruleset,
                elements: &NoElements,
            };
            work(&rules, &mut unread)
        });
        return (worked, unread);
    }
}

fn changing() -> Unread {
    Unread {
        what: "nftables".to_owned(),
        why: "rules changed each time they were read".to_owned(),
    }
}

/// Adds nftables and works; also says whether the rules were the same from beginning to end.
fn with_nftables<T>(
    ruleset: &mut Ruleset,
    unread: &mut Vec<Unread>,
    work: &impl Fn(&Rules<'_>, &mut Vec<Unread>) -> T,
) -> Result<(T, bool), NlError> {
    let mut netlink = Nftables::open()?;
    let before = netlink.generation()?;
    let index = nft::read(&mut netlink, ruleset)?;
    let worked = {
        let live = nft::Live::new(&mut netlink, ruleset, &index);
        let rules = Rules {
            ruleset,
            elements: &live,
        };
        work(&rules, unread)
    };
    Ok((worked, netlink.generation()? == before))
}

/// Rules of one namespace, at a moment.
struct Rules<'a> {
    ruleset: &'a Ruleset,
    elements: &'a dyn Elements,
}

impl Rules<'_> {
    fn proxy(&self, ask: &Ask, unread: &mut Vec<Unread>) -> ProxyRules {
        let counts = services::count(self.ruleset, self.elements);
        let mut modes: BTreeSet<Mode> = counts.keys().copied().collect();
        let mut services = Vec::new();
        let local = local_addresses(unread);
        let vips: BTreeSet<_> = ask.vips.iter().copied().collect();
        for (ip, port, proto) in vips {
            let packet = to_address(ip, port, proto, &local);
            let fates = self.fates(&[packet], &format!("{ip} port {port}/{proto}"), unread);
            modes.extend(fates.keys());
            services.extend(rows(fates, Some(ip), port, proto));
        }
        let node_ports: BTreeSet<_> = ask.node_ports.iter().copied().collect();
        for (port, proto) in node_ports {
            let packets = [false, true].map(|v6| to_node_port(v6, port, proto, &local));
            let fates = self.fates(&packets, &format!("NodePort {port}/{proto}"), unread);
            modes.extend(fates.keys());
            services.extend(rows(fates, None, port, proto));
        }
        let mut rules = ProxyRules {
            modes: modes.iter().map(|mode| mode.name().to_owned()).collect(),
            services,
            rules: counts.values().sum(),
        };
        match ipvs::read() {
            Ok(servers) => add_ipvs(&mut rules, &servers, ask, &local),
            Err(e) => unread.push(Unread {
                what: IPVS.to_owned(),
                why: e.to_string(),
            }),
        }
        rules
    }

    fn fates(
        &self,
        packets: &[Packet],
        what: &str,
        unread: &mut Vec<Unread>,
    ) -> BTreeMap<Mode, Fate> {
        let mut fates: BTreeMap<Mode, Fate> = BTreeMap::new();
        for packet in packets {
            let walked = walk::walk(self.ruleset, self.elements, packet);
            for (mode, fate) in walked.fates {
                fates.entry(mode).or_default().merge(fate);
            }
            unread.extend(walked.doubts.into_iter().map(|why| Unread {
                what: format!("proxy rules of {what}"),
                why,
            }));
        }
        fates
    }
}

/// Adds the virtual servers of IPVS. One without a real server answers every packet with an ICMP error
/// (`ip_vs_leave`, `net/netfilter/ipvs/ip_vs_core.c`, v6.18).
fn add_ipvs(rules: &mut ProxyRules, servers: &[ipvs::Server], ask: &Ask, local: &[IpAddr]) {
    if servers.is_empty() {
        return;
    }
    rules.modes.push(IPVS.to_owned());
    rules.rules += servers.len() as u64;
    for server in servers {
        let (ip, port) = (server.at.ip(), server.at.port());
        let vip = ask.vips.contains(&(ip, port, server.proto));
        let node_port = ask.node_ports.contains(&(port, server.proto)) && local.contains(&ip);
        if vip || node_port {
            rules.services.push(ProxyService {
                mode: IPVS.to_owned(),
                ip: vip.then_some(ip),
                port,
                proto: server.proto,
                backends: server.backends.iter().copied().collect(),
                reject: server.backends.is_empty(),
                drop: false,
                place: format!("virtual server {}", server.at),
            });
        }
    }
}

fn rows(
    fates: BTreeMap<Mode, Fate>,
    ip: Option<IpAddr>,
    port: u16,
    proto: Proto,
) -> impl Iterator<Item = ProxyService> {
    fates.into_iter().map(move |(mode, fate)| ProxyService {
        mode: mode.name().to_owned(),
        ip,
        port,
        proto,
        backends: fate.backends.into_iter().collect(),
        reject: fate.reject,
        drop: fate.drop,
        place: fate.place,
    })
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn to_address(ip: IpAddr, port: u16, proto: Proto, local: &[IpAddr]) -> Packet {
    Packet {
        v6: ip.is_ipv6(),
        daddr: vec![bits(ip)],
        local: local.contains(&ip),
        dport: port,
        proto,
        node_port: false,
    }
}

/// A `NodePort` answers on the machine's addresses; on loopback only in some modes, which is not asked here.
fn to_node_port(v6: bool, port: u16, proto: Proto, local: &[IpAddr]) -> Packet {
    Packet {
        v6,
        daddr: local
            .iter()
            .filter(|ip| ip.is_ipv6() == v6 && !ip.is_loopback())
            .map(|ip| bits(*ip))
            .collect(),
        local: true,
        dport: port,
        proto,
        node_port: true,
    }
}

/// Addresses of this machine, as rules that ask for «local» see them.
fn local_addresses(unread: &mut Vec<Unread>) -> Vec<IpAddr> {
    let addresses = match nix::ifaddrs::getifaddrs() {
        Ok(addresses) => addresses,
        Err(e) => {
            unread.push(Unread {
                what: "local addresses".to_owned(),
                why: e.to_string(),
            });
            return Vec::new();
        }
    };
    addresses
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// Where there is no nftables there are no sets.
struct NoElements;

impl Elements for NoElements {
    fn of(&self, _: SetRef) -> Fetched {
        Ok(Rc::default())
    }
}
