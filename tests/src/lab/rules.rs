//! Rule sets of nodes and Pods, loaded as a whole.

use super::plan::{Networks, Plan, PodPlan};
use super::{Lab, ipvs, netns};
use crate::policy;
use crate::proxy::{self, Mode, ServicePort, iptables, nftables, service_ports};
use crate::world::{Filter, Spot, World};
use anyhow::Result;

/// Replaces every rule of node `n`.
pub fn node(lab: &Lab, world: &World, n: usize) -> Result<()> {
    let name = &lab.plan.nodes[n].name;
    let fences = if world.enforced {
        policy::fences(&world.objects, name)
    } else {
        Vec::new()
    };
    let filters = filters_at(world, &Spot::Node(n));
    let ns = lab.node(n);
    match world.mode {
        Mode::IptablesLegacy | Mode::IptablesNft | Mode::Ipvs | Mode::IpvsUntracked => {
            let mut all: Vec<ServicePort> = Vec::new();
            for networks in lab.plan.networks() {
                let v6 = networks.pods.base.is_ipv6();
                let proxy = world
                    .seen_by_proxy(n)
                    .map(|objects| {
                        let ports = service_ports(objects, v6, name);
                        let rules = if world.mode.is_ipvs() {
                            proxy::ipvs::render(&ports, networks.pods, &world.settings)
                        } else {
                            iptables::render(&ports, networks.pods, &world.settings)
                        };
                        all.extend(ports);
                        rules
                    })
                    .unwrap_or_default();
                let (chains, rules) = policy::iptables(&fences, &lab.plan.word, v6);
                let rules = iptables::Rules {
                    filter_chains: [chains, proxy.filter_chains].concat(),
                    filter: [iptables_filters(&filters, v6), rules, proxy.filter].concat(),
                    ..proxy
                };
                restore(&ns, world.mode, v6, &rules)?;
            }
            if world.mode.is_ipvs() {
                ipvs::program(&ns, &all)?;
            }
            Ok(())
        }
        Mode::Nftables => {
            let own = nft_filters(&filters, &lab.plan.word)
                + &policy::nftables(&fences, &lab.plan.word)
                + &nft_proxy(&lab.plan, world, n);
            nft(&ns, &own)
        }
    }
}

/// The tables of node `n`'s nftables proxiers, of which there is one for each family.
fn nft_proxy(plan: &Plan, world: &World, n: usize) -> String {
    let Some(objects) = world.seen_by_proxy(n) else {
        return String::new();
    };
    let layout = if plan.dnat_maps {
        nftables::Layout::DnatMaps
    } else {
        nftables::Layout::EndpointChains
    };
    let networks = plan.networks().zip(plan.nodes[n].nets());
    networks
        .map(|(Networks { pods, services, .. }, net)| {
            let ports = service_ports(objects, net.ip.is_ipv6(), &plan.nodes[n].name);
            let masquerade = world.settings.masquerade;
            nftables::render(&ports, pods, services, net.ip, layout, masquerade)
        })
        .collect()
}

/// Replaces every rule inside the Pods.
pub fn pods(lab: &mut Lab, world: &World) -> Result<()> {
    let pods: Vec<PodPlan> = lab.plan.pods().cloned().collect();
    for pod in &pods {
        let filters = filters_at(world, &Spot::Pod(pod.ip));
        if filters.is_empty() && !lab.has_rules(pod.ip) {
            continue;
        }
        let ns = lab.pod(pod);
        match world.mode {
            Mode::Nftables => nft(&ns, &nft_filters(&filters, &lab.plan.word))?,
            Mode::IptablesLegacy | Mode::IptablesNft | Mode::Ipvs | Mode::IpvsUntracked => {
                let v6 = pod.ip.is_ipv6();
                let rules = iptables::Rules {
                    filter: iptables_filters(&filters, v6),
                    ..iptables::Rules::default()
                };
                restore(&ns, world.mode, v6, &rules)?;
            }
        }
        lab.set_has_rules(pod.ip, !filters.is_empty());
    }
    Ok(())
}

fn restore(ns: &str, mode: Mode, v6: bool, rules: &iptables::Rules) -> Result<()> {
    let program = match (v6, mode) {
        (false, Mode::IptablesLegacy) => "iptables-legacy-restore",
        (true, Mode::IptablesLegacy) => "ip6tables-legacy-restore",
        (false, _) => "iptables-nft-restore",
        (true, _) => "ip6tables-nft-restore",
    };
    netns::within(ns, || {
        netns::feed(program, &["--wait", "10"], &rules.restore())
    })
}

fn nft(ns: &str, rules: &str) -> Result<()> {
    let input = format!("flush ruleset\n{rules}");
    netns::within(ns, || netns::feed("nft", &["-f", "-"], &input))
}

fn filters_at<'a>(world: &'a World, spot: &Spot) -> Vec<&'a Filter> {
    world.filters.iter().filter(|f| f.spot == *spot).collect()
}

fn iptables_filters(filters: &[&Filter], v6: bool) -> Vec<String> {
    let line = |f: &&Filter| {
        let Filter {
            hook,
            proto,
            dst,
            dport,
            deed,
            ..
        } = f;
        format!(
            "-A {} -d {dst} -p {proto} -m {proto} --dport {dport} -j {}",
            hook.chain(),
            deed.target()
        )
    };
    let own = filters.iter().filter(|f| f.dst.is_ipv6() == v6);
    own.map(line).collect()
}

fn nft_filters(filters: &[&Filter], word: &str) -> String {
    let line = |f: &&Filter| {
        let Filter {
            hook,
            proto,
            dst,
            dport,
            deed,
            ..
        } = f;
        let (hook, ip) = (hook.chain().to_lowercase(), nftables::family(*dst));
        let deed = deed.statement();
        format!(
            "table inet {word} {{ chain {word}_{hook} {{ type filter hook {hook} priority 0; {ip} daddr {dst} {proto} dport {dport} counter {deed}\n}}\n}}\n"
        )
    };
    filters.iter().map(line).collect()
}
