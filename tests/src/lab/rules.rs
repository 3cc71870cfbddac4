//! Rule sets of nodes and Pods, loaded as a whole.

use super::plan::PodPlan;
use super::{Lab, netns};
use crate::policy;
use crate::proxy::{Mode, iptables, nftables, service_ports};
use crate::world::{Filter, Spot, World};
use anyhow::Result;

/// Replaces every rule of node `n`.
pub fn node(lab: &Lab, world: &World, n: usize) -> Result<()> {
    let plan = &lab.plan;
    let name = &plan.nodes[n].name;
    let fences = if world.enforced {
        policy::fences(&world.objects, name)
    } else {
        Vec::new()
    };
    let filters = filters_at(world, &Spot::Node(n));
    let ports = world.seen_by_proxy(n).map(service_ports);
    let input = match world.mode {
        Mode::IptablesLegacy | Mode::IptablesNft => {
            let proxy = ports
                .map(|p| iptables::render(&p, plan.pod_cidr))
                .unwrap_or_default();
            let (chains, rules) = policy::iptables(&fences, &plan.word);
            iptables::Rules {
                filter_chains: [chains, proxy.filter_chains].concat(),
                filter: [iptables_filters(&filters), rules, proxy.filter].concat(),
                ..proxy
            }
            .restore()
        }
        Mode::Nftables => {
            let layout = if plan.dnat_maps {
                nftables::Layout::DnatMaps
            } else {
                nftables::Layout::EndpointChains
            };
            let proxy = ports.map(|p| {
                nftables::render(
                    &p,
                    plan.pod_cidr,
                    plan.service_cidr,
                    plan.nodes[n].ip,
                    layout,
                )
            });
            nft_filters(&filters, &plan.word)
                + &policy::nftables(&fences, &plan.word)
                + &proxy.unwrap_or_default()
        }
    };
    load(&lab.node(n), world.mode, &input)
}

/// Replaces every rule inside the Pods.
pub fn pods(lab: &mut Lab, world: &World) -> Result<()> {
    let pods: Vec<PodPlan> = lab.plan.pods().cloned().collect();
    for pod in &pods {
        let filters = filters_at(world, &Spot::Pod(pod.ip));
        if filters.is_empty() && !lab.has_rules(pod.ip) {
            continue;
        }
        let input = match world.mode {
            Mode::Nftables => nft_filters(&filters, &lab.plan.word),
            Mode::IptablesLegacy | Mode::IptablesNft => iptables::Rules {
                filter: iptables_filters(&filters),
                ..iptables::Rules::default()
            }
            .restore(),
        };
        load(&lab.pod(pod), world.mode, &input)?;
        lab.set_has_rules(pod.ip, !filters.is_empty());
    }
    Ok(())
}

fn load(ns: &str, mode: Mode, input: &str) -> Result<()> {
    let wait = &["--wait", "10"][..];
    netns::within(ns, || match mode {
        Mode::IptablesLegacy => netns::feed("iptables-legacy-restore", wait, input),
        Mode::IptablesNft => netns::feed("iptables-nft-restore", wait, input),
        Mode::Nftables => netns::feed("nft", &["-f", "-"], &format!("flush ruleset\n{input}")),
    })
}

fn filters_at<'a>(world: &'a World, spot: &Spot) -> Vec<&'a Filter> {
    world.filters.iter().filter(|f| f.spot == *spot).collect()
}

fn iptables_filters(filters: &[&Filter]) -> Vec<String> {
    let line = |f: &&Filter| {
        let Filter {
            hook,
            proto,
            dst,
            dport,
            ..
        } = f;
        format!(
            "-A {} -d {dst} -p {proto} -m {proto} --dport {dport} -j DROP",
            hook.chain()
        )
    };
    filters.iter().map(line).collect()
}

fn nft_filters(filters: &[&Filter], word: &str) -> String {
    let line = |f: &&Filter| {
        let Filter {
            hook,
            proto,
            dst,
            dport,
            ..
        } = f;
        let hook = hook.chain().to_lowercase();
        format!(
            "table inet {word} {{ chain {word}_{hook} {{ type filter hook {hook} priority 0; ip daddr {dst} {proto} dport {dport} counter drop\n}}\n}}\n"
        )
    };
    filters.iter().map(line).collect()
}
