//! The tier table: for each capability the ways to have it, best first, and what the next one loses.

use super::tc::Method;
use crate::model::capability::{Capability, TierStatus};
use netflow_ebpf::Hook;
use std::collections::HashMap;

/// What a tier rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// tc programs attached in this way.
    Tc(Method),
    /// All of these hooks, by BTF tracepoint programs.
    TpBtf(&'static [Hook]),
    /// All of these hooks, by raw tracepoint programs at least.
    RawTp(&'static [Hook]),
    /// Programs on functions of the kernel.
    Kprobes,
    /// The listener to conntrack events.
    Ctnetlink,
    /// Derived from what another capability shows.
    From(Capability),
    /// Read by netlink, from /proc and from sockets, which needs no program.
    NodeFacts,
}

/// A way to have a capability.
#[derive(Debug, Clone, Copy)]
struct Tier {
    name: &'static str,
    means: Means,
    /// What is not seen on this tier.
    lost: &'static str,
}

const fn tier(name: &'static str, means: Means, lost: &'static str) -> Tier {
    Tier { name, means, lost }
}

/// The table.
const fn tiers(capability: Capability) -> &'static [Tier] {
    const DROP: &[Hook] = &[Hook::KfreeSkb];
    const NAT: &[Hook] = &[Hook::NetDevStartXmit];
    const ICMP: &[Hook] = &[Hook::IcmpSend];
    const TCP: &[Hook] = &[
        Hook::TcpRetransmitSkb,
        Hook::TcpSendReset,
        Hook::TcpReceiveReset,
    ];
    const NEIGHBOR: &[Hook] = &[Hook::NeighTimerHandler, Hook::NeighEventSendDone];
    match capability {
        Capability::Flow => {
            const {
                &[
                    tier("tcx", Means::Tc(Method::Tcx), ""),
                    tier(
                        "clsact",
                        Means::Tc(Method::Clsact),
                        "packets that a tc program with a higher priority takes away are not seen",
                    ),
                ]
            }
        }
        Capability::Nat => {
            const {
                &[
                    tier("kprobe", Means::Kprobes, ""),
                    tier(
                        "tp_btf:net_dev_start_xmit",
                        Means::TpBtf(NAT),
                        "connections whose first packet never leaves through an interface show their translation only in drops",
                    ),
                    tier(
                        "raw_tp:net_dev_start_xmit",
                        Means::RawTp(NAT),
                        "connections whose first packet never leaves through an interface show their translation only in drops",
                    ),
                    tier(
                        "ctnetlink",
                        Means::Ctnetlink,
                        "only confirmed connections are seen, without the kernel's own time, and it costs more",
                    ),
                ]
            }
        }
        Capability::CtEvents => {
            const {
                &[
                    tier("kprobe", Means::Kprobes, ""),
                    tier(
                        "ctnetlink",
                        Means::Ctnetlink,
                        "a full table and clashes are seen in statistics only",
                    ),
                    tier(
                        "table",
                        Means::NodeFacts,
                        "the end of an entry is not seen as it happens; a full table and clashes are seen in statistics only",
                    ),
                ]
            }
        }
        Capability::Drop => {
            const {
                &[
                    tier("tp_btf", Means::TpBtf(DROP), ""),
                    tier("raw_tp", Means::RawTp(DROP), ""),
                ]
            }
        }
        Capability::Reject => {
            const {
                &[
                    tier("kprobe", Means::Kprobes, ""),
                    tier(
                        "icmp_send",
                        Means::RawTp(ICMP),
                        "a REJECT shows as ICMP error and drop, IPv6 ones and TCP resets as packets at interfaces only",
                    ),
                    tier(
                        "drop",
                        Means::From(Capability::Drop),
                        "a REJECT shows as a drop, and as an ICMP error where one passes an interface",
                    ),
                ]
            }
        }
        Capability::Mtu => {
            const {
                &[
                    tier("kprobe", Means::Kprobes, ""),
                    tier(
                        "icmp_send",
                        Means::RawTp(ICMP),
                        "whether a sender learnt the path MTU is read from its sockets and seen in the size of what it sends",
                    ),
                    tier(
                        "tc",
                        Means::From(Capability::Flow),
                        "ICMP errors are seen only where they pass an interface",
                    ),
                ]
            }
        }
        Capability::Tcp => {
            const {
                &[
                    tier("tp_btf", Means::TpBtf(TCP), ""),
                    tier("raw_tp", Means::RawTp(TCP), ""),
                    tier(
                        "tc",
                        Means::From(Capability::Flow),
                        "resets and retransmissions are seen at interfaces only, not which socket sent or got them",
                    ),
                ]
            }
        }
        Capability::Neighbor => {
            const {
                &[
                    tier("tp_btf", Means::TpBtf(NEIGHBOR), ""),
                    tier("raw_tp", Means::RawTp(NEIGHBOR), ""),
                    tier(
                        "table",
                        Means::NodeFacts,
                        "failed neighbours are seen when the table is read, not when they fail",
                    ),
                ]
            }
        }
        Capability::Ipvs => {
            const {
                &[
                    tier("kprobe", Means::Kprobes, ""),
                    tier(
                        "conntrack",
                        Means::From(Capability::Nat),
                        "the scheduler's decision shows only through conntrack, not at all where IPVS runs without it",
                    ),
                ]
            }
        }
    }
}

/// How a hook's program is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookState {
    /// By BTF tracepoint.
    TpBtf,
    /// By raw tracepoint; the reason says why not better.
    RawTp(String),
    /// Not at all, and why.
    Absent(String),
}

/// What could be loaded and attached.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How tc programs are attached, and why not better.
    pub tc: Option<Method>,
    /// Why a tc method is not in use.
    pub tc_reasons: HashMap<&'static str, String>,
    /// Each hook.
    pub hooks: HashMap<Hook, HookState>,
    /// Whether the kernel has kprobes at all.
    pub has_kprobes: bool,
    /// Whether the conntrack listener runs; the error says why not.
    pub ctnetlink: Option<Result<(), String>>,
}

impl Outcome {
    /// Whether a tier can be had; the error is a sentence.
    fn check(&self, means: Means) -> Result<(), String> {
        match means {
            Means::Tc(method) if self.tc == Some(method) => Ok(()),
            Means::Tc(method) => Err(self
                .tc_reasons
                .get(method.name())
                .cloned()
                .unwrap_or_else(|| "not attached".to_owned())),
            Means::TpBtf(hooks) => hooks.iter().try_for_each(|hook| match self.hook(*hook) {
                HookState::TpBtf => Ok(()),
                HookState::RawTp(why) | HookState::Absent(why) => Err(why),
            }),
            Means::RawTp(hooks) => hooks.iter().try_for_each(|hook| match self.hook(*hook) {
                HookState::TpBtf | HookState::RawTp(_) => Ok(()),
                HookState::Absent(why) => Err(why),
            }),
            Means::Kprobes if self.has_kprobes => {
                Err("not built yet in this version of netflow".to_owned())
            }
            Means::Kprobes => Err("this kernel has no kprobes".to_owned()),
            Means::Ctnetlink => match &self.ctnetlink {
                Some(Ok(())) => Ok(()),
                Some(Err(why)) => Err(why.clone()),
                None => Err("not needed".to_owned()),
            },
            Means::From(capability) => match self.status(capability).tier {
                Some(_) => Ok(()),
                None => Err(format!("{} has no tier", capability.name())),
            },
            Means::NodeFacts => Ok(()),
        }
    }

    fn hook(&self, hook: Hook) -> HookState {
        self.hooks
            .get(&hook)
            .cloned()
            .unwrap_or_else(|| HookState::Absent("not asked for".to_owned()))
    }

    /// The tier that a capability runs on.
    pub fn status(&self, capability: Capability) -> TierStatus {
        let mut reasons = Vec::new();
        for (rank, tier) in tiers(capability).iter().enumerate() {
            match self.check(tier.means) {
                Ok(()) => {
                    return TierStatus {
                        capability,
                        tier: Some(tier.name.to_owned()),
                        best: rank == 0,
                        reasons,
                        lost: tier.lost.to_owned(),
                    };
                }
                Err(why) => reasons.push(format!("{}: {why}", tier.name)),
            }
        }
        TierStatus {
            capability,
            tier: None,
            best: false,
            reasons,
            lost: "nothing of it is seen".to_owned(),
        }
    }

    /// Every capability, in the order of the table.
    pub fn statuses(&self) -> Vec<TierStatus> {
        Capability::ALL.map(|c| self.status(c)).to_vec()
    }
}

/// Whether the kernel has kprobes: the perf PMU through which they are attached (`kernel/events/core.c`, v6.18), or
/// the file of tracefs.
pub fn kernel_has_kprobes() -> bool {
    [
        "/sys/bus/event_source/devices/kprobe",
        "/sys/kernel/tracing/kprobe_events",
        "/sys/kernel/debug/tracing/kprobe_events",
    ]
    .iter()
    .any(|path| std::path::Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(state: &HookState) -> Outcome {
        let hooks = netflow_ebpf::HOOKS
            .iter()
            .map(|info| (info.hook, state.clone()))
            .collect();
        Outcome {
            tc: Some(Method::Tcx),
            hooks,
            ..Outcome::default()
        }
    }

    #[test]
    fn without_kprobes() {
        let outcome = all(&HookState::TpBtf);
        let name = |c| outcome.status(c).tier;
        assert_eq!(name(Capability::Flow).as_deref(), Some("tcx"));
        assert_eq!(
            name(Capability::Nat).as_deref(),
            Some("tp_btf:net_dev_start_xmit")
        );
        assert_eq!(name(Capability::CtEvents).as_deref(), Some("table"));
        let nat = outcome.status(Capability::Nat);
        assert!(!nat.best && !nat.lost.is_empty());
        assert_eq!(nat.reasons, ["kprobe: this kernel has no kprobes"]);
        let drop = outcome.status(Capability::Drop);
        assert!(drop.best && drop.lost.is_empty() && drop.reasons.is_empty());
    }

    #[test]
    fn what_is_not_built_is_not_the_kernels_fault() {
        let mut outcome = all(&HookState::TpBtf);
        outcome.has_kprobes = true;
        let mtu = outcome.status(Capability::Mtu);
        assert_eq!(
            mtu.reasons,
            ["kprobe: not built yet in this version of netflow"]
        );
    }

    #[test]
    fn raw_tracepoints_say_why() {
        let outcome = all(&HookState::RawTp("refused".to_owned()));
        let drop = outcome.status(Capability::Drop);
        assert_eq!(drop.tier.as_deref(), Some("raw_tp"));
        assert_eq!(drop.reasons, ["tp_btf: refused"]);
    }

    #[test]
    fn nothing_at_all() {
        let outcome = all(&HookState::Absent("no tracepoint".to_owned()));
        assert_eq!(outcome.status(Capability::Drop).tier, None);
        assert_eq!(outcome.status(Capability::Reject).tier, None);
        assert_eq!(outcome.status(Capability::Nat).tier, None);
        assert_eq!(outcome.status(Capability::Tcp).tier.as_deref(), Some("tc"));
        let mut listening = outcome.clone();
        listening.ctnetlink = Some(Ok(()));
        assert_eq!(
            listening.status(Capability::Nat).tier.as_deref(),
            Some("ctnetlink")
        );
        assert_eq!(
            listening.status(Capability::Ipvs).tier.as_deref(),
            Some("conntrack")
        );
    }

    #[test]
    fn every_tier_but_the_first_says_what_it_loses() {
        for capability in Capability::ALL {
            let tiers = tiers(capability);
            assert_eq!(tiers[0].lost, "");
            for tier in tiers[1..].iter().filter(|t| t.name != "raw_tp") {
                assert!(!tier.lost.is_empty(), "{} {}", capability.name(), tier.name);
            }
        }
    }
}
