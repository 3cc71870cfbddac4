//! What the nodes' kernels are set to.

use super::plan::Network;
use super::{Lab, conntrack, netns};
use crate::settings::Settings;
use anyhow::Result;

/// Sets both nodes.
pub fn set(lab: &mut Lab, settings: &Settings) -> Result<()> {
    let switch = |on| if on { "1" } else { "0" };
    for n in 0..2 {
        let node = lab.node(n);
        for name in [
            "net.bridge.bridge-nf-call-iptables",
            "net.bridge.bridge-nf-call-ip6tables",
        ] {
            netns::sysctl(&node, &[(name, switch(settings.bridge_nf))])?;
        }
        if lab.plan.shape.network == Network::Veth {
            continue;
        }
        let hairpin = if settings.hairpin { "on" } else { "off" };
        let ports = lab.plan.pods().filter(|p| p.node == n);
        let lines: Vec<String> = ports
            .map(|p| format!("link set {} type bridge_slave hairpin {hairpin}", p.veth))
            .collect();
        netns::batch(&node, &lines)?;
    }
    fill(lab, settings.conntrack_fill)
}

/// Fills the client node's conntrack table as far as wanted.
fn fill(lab: &mut Lab, percent: u8) -> Result<()> {
    let node = lab.node(0);
    if percent < lab.conntrack_fill {
        conntrack::empty(&node)?;
    }
    if percent > 0 {
        conntrack::fill(&node, percent)?;
    }
    lab.conntrack_fill = percent;
    Ok(())
}
