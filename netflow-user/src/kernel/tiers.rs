//! The tier table: for each capability the ways to have it, best first, and what the next one loses.

use super::probes::ProbeState;
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
    /// Programs on all of these functions of the kernel, as far as their modules are loaded.
    Kprobes(&'static [Hook]),
    /// BTF tracepoint programs, and programs on functions.
    Both(&'static [Hook], &'static [Hook]),
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
    const CONFIRM: &[Hook] = &[Hook::CtConfirm];
    const ENTRIES: &[Hook] = &[
        Hook::CtConfirm,
        Hook::CtDelete,
        Hook::CtAlloc,
        Hook::CtClash,
    ];
    const VERDICT: &[Hook] = &[Hook::HookSlow, Hook::NftChain, Hook::XtTable];
    const REJECT: &[Hook] = &[
        Hook::SendUnreach,
        Hook::SendUnreach6,
        Hook::SendReset,
        Hook::SendReset6,
    ];
    const MTU: &[Hook] = &[
        Hook::IcmpSendCall,
        Hook::Icmp6Send,
        Hook::IcmpUnreach,
        Hook::Icmp6Notify,
        Hook::TcpErr,
        Hook::Tcp6Err,
        Hook::PmtuLearned,
        Hook::PmtuLearned6,
        Hook::Fragment,
        Hook::Fragment6,
    ];
    const LISTEN: &[Hook] = &[Hook::ListenSyn, Hook::ListenAck, Hook::ListenAck6];
    const IPVS: &[Hook] = &[Hook::IpvsXmit, Hook::IpvsLeave];
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
                    tier("kprobe", Means::Kprobes(CONFIRM), ""),
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
                    tier("kprobe", Means::Kprobes(ENTRIES), ""),
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
                    tier("tp_btf+kprobe", Means::Both(DROP, VERDICT), ""),
                    tier(
                        "tp_btf",
                        Means::TpBtf(DROP),
                        "a drop by a rule does not tell which table and chain the rule is in",
                    ),
                    tier(
                        "raw_tp",
                        Means::RawTp(DROP),
                        "a drop by a rule does not tell which table and chain the rule is in",
                    ),
                ]
            }
        }
        Capability::Reject => {
            const {
                &[
                    tier("kprobe", Means::Kprobes(REJECT), ""),
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
                    tier("kprobe", Means::Kprobes(MTU), ""),
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
                    tier("tp_btf+kprobe", Means::Both(TCP, LISTEN), ""),
                    tier(
                        "tp_btf",
                        Means::TpBtf(TCP),
                        "a listener that is overrun is known by its statistics, not by the connections that it turns away",
                    ),
                    tier(
                        "raw_tp",
                        Means::RawTp(TCP),
                        "a listener that is overrun is known by its statistics, not by the connections that it turns away",
                    ),
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
                    tier("kprobe", Means::Kprobes(IPVS), ""),
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
    /// Each hook on functions.
    pub probes: HashMap<Hook, ProbeState>,
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
            Means::Kprobes(hooks) => hooks.iter().try_for_each(|hook| self.probe(*hook)),
            Means::Both(hooks, probes) => {
                self.check(Means::TpBtf(hooks))?;
                self.check(Means::Kprobes(probes))
            }
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

    /// A function whose module is not loaded is nobody's loss.
    fn probe(&self, hook: Hook) -> Result<(), String> {
        match self.probes.get(&hook) {
            Some(ProbeState::Ready | ProbeState::Waiting(_)) => Ok(()),
            Some(ProbeState::Absent(why)) => Err(why.clone()),
            None => Err("not asked for".to_owned()),
        }
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
            probes: probes(&ProbeState::Absent("this kernel has no kprobes".to_owned())),
            ..Outcome::default()
        }
    }

    fn probes(state: &ProbeState) -> HashMap<Hook, ProbeState> {
        netflow_ebpf::PROBES
            .iter()
            .map(|probe| (probe.hook, state.clone()))
            .collect()
    }

    #[test]
    fn with_kprobes_everything_is_best() {
        let mut outcome = all(&HookState::TpBtf);
        outcome.probes = probes(&ProbeState::Ready);
        outcome
            .probes
            .insert(Hook::IpvsXmit, ProbeState::Waiting("ip_vs"));
        for status in outcome.statuses() {
            assert!(status.best && status.reasons.is_empty(), "{status:?}");
        }
        let why = "nf_send_reset has other arguments here".to_owned();
        outcome
            .probes
            .insert(Hook::SendReset, ProbeState::Absent(why));
        let reject = outcome.status(Capability::Reject);
        assert_eq!(reject.tier.as_deref(), Some("icmp_send"));
        assert_eq!(
            reject.reasons,
            ["kprobe: nf_send_reset has other arguments here"]
        );
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
        assert_eq!(drop.tier.as_deref(), Some("tp_btf"));
        assert_eq!(drop.reasons, ["tp_btf+kprobe: this kernel has no kprobes"]);
        let neighbor = outcome.status(Capability::Neighbor);
        assert!(neighbor.best && neighbor.lost.is_empty() && neighbor.reasons.is_empty());
    }

    #[test]
    fn raw_tracepoints_say_why() {
        let outcome = all(&HookState::RawTp("refused".to_owned()));
        let drop = outcome.status(Capability::Drop);
        assert_eq!(drop.tier.as_deref(), Some("raw_tp"));
        assert_eq!(drop.reasons, ["tp_btf+kprobe: refused", "tp_btf: refused"]);
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
