//! The programs on functions of the kernel (kprobes and kretprobes).
//!
//! fentry and fexit would cost less, but aya attaches them to functions of vmlinux only, and most of what is listened to here lives
//! in modules; one way for all is simpler than two.

use super::Hook;

/// A function and the programs on it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The hook that it belongs to; some have several functions.
    pub hook: Hook,
    /// Name of the function.
    pub function: &'static str,
    /// Module that it lives in, where it may live in one.
    pub module: Option<&'static str>,
    /// Position and name of each argument that the programs read. Where the kernel's BTF describes the function, they must be so.
    pub reads: &'static [(usize, &'static str)],
    /// Whether the arguments are known to be these on every kernel since 5.10 even where BTF does not describe the function (there
    /// is none for modules before 5.11).
    pub stable: bool,
    /// Program on entry.
    pub entry: &'static str,
    /// Program on return.
    pub ret: Option<&'static str>,
    /// Hot: attached only while netfilter drops packets of ours.
    pub on_demand: bool,
}

const fn on(
    hook: Hook,
    function: &'static str,
    reads: &'static [(usize, &'static str)],
    entry: &'static str,
) -> Probe {
    Probe {
        hook,
        function,
        module: None,
        reads,
        stable: true,
        entry,
        ret: None,
        on_demand: false,
    }
}

impl Probe {
    const fn of(self, module: &'static str) -> Self {
        Self {
            module: Some(module),
            ..self
        }
    }

    const fn and(self, ret: &'static str) -> Self {
        Self {
            ret: Some(ret),
            ..self
        }
    }

    const fn unstable(self) -> Self {
        Self {
            stable: false,
            ..self
        }
    }

    const fn on_demand(self) -> Self {
        Self {
            on_demand: true,
            ..self
        }
    }
}

const CT: &str = "nf_conntrack";
const NFT: &str = "nf_tables";
const IPT: &str = "ip_tables";
const IP6T: &str = "ip6_tables";
const REJECT: &str = "nf_reject_ipv4";
const REJECT6: &str = "nf_reject_ipv6";
const IPVS: &str = "ip_vs";

/// Every probe. Of several rows with one function, the first whose arguments fit is taken.
pub const PROBES: &[Probe] = &[
    on(
        Hook::CtConfirm,
        "__nf_conntrack_confirm",
        &[(0, "skb")],
        "netflow_confirm",
    )
    .and("netflow_confirm_ret")
    .of(CT),
    on(
        Hook::CtDelete,
        "nf_ct_delete",
        &[(0, "ct")],
        "netflow_ct_end",
    )
    .of(CT),
    on(
        Hook::CtAlloc,
        "__nf_conntrack_alloc",
        &[(0, "net"), (2, "orig")],
        "netflow_ct_alloc",
    )
    .and("netflow_ct_alloc_ret")
    .of(CT),
    on(
        Hook::CtClash,
        "nf_ct_resolve_clash",
        &[(0, "skb")],
        "netflow_clash",
    )
    .and("netflow_clash_ret")
    .of(CT),
    on(
        Hook::HookSlow,
        "nf_hook_slow",
        &[(0, "skb"), (1, "state")],
        "netflow_hook",
    )
    .on_demand(),
    on(
        Hook::NftChain,
        "nft_do_chain",
        &[(0, "pkt"), (1, "priv")],
        "netflow_nft",
    )
    .and("netflow_nft_ret")
    .of(NFT)
    .on_demand(),
    // Linux 6.1 moved the table to the front.
    on(Hook::XtTable, "ipt_do_table", XT_READS, "netflow_xt")
        .and("netflow_xt_ret")
        .of(IPT)
        .unstable()
        .on_demand(),
    on(
        Hook::XtTable,
        "ipt_do_table",
        XT_READS_OLD,
        "netflow_xt_old",
    )
    .and("netflow_xt_ret")
    .of(IPT)
    .unstable()
    .on_demand(),
    on(Hook::XtTable, "ip6t_do_table", XT_READS, "netflow_xt")
        .and("netflow_xt_ret")
        .of(IP6T)
        .unstable()
        .on_demand(),
    on(
        Hook::XtTable,
        "ip6t_do_table",
        XT_READS_OLD,
        "netflow_xt_old",
    )
    .and("netflow_xt_ret")
    .of(IP6T)
    .unstable()
    .on_demand(),
    on(
        Hook::SendUnreach,
        "nf_send_unreach",
        &[(0, "skb_in"), (1, "code")],
        "netflow_reject",
    )
    .of(REJECT),
    on(
        Hook::SendUnreach6,
        "nf_send_unreach6",
        &[(1, "skb_in"), (2, "code")],
        "netflow_reject6",
    )
    .of(REJECT6),
    // Linux 5.11 put the socket before the packet.
    on(
        Hook::SendReset,
        "nf_send_reset",
        &[(2, "oldskb")],
        "netflow_reset",
    )
    .of(REJECT)
    .unstable(),
    on(
        Hook::SendReset6,
        "nf_send_reset6",
        &[(2, "oldskb")],
        "netflow_reset",
    )
    .of(REJECT6)
    .unstable(),
    on(
        Hook::IcmpSendCall,
        "__icmp_send",
        &[(0, "skb_in"), (1, "type"), (2, "code"), (3, "info")],
        "netflow_icmp_call",
    ),
    on(
        Hook::Icmp6Send,
        "icmp6_send",
        &[(0, "skb"), (1, "type"), (2, "code"), (3, "info")],
        "netflow_icmp6_call",
    ),
    on(
        Hook::IcmpUnreach,
        "icmp_unreach",
        &[(0, "skb")],
        "netflow_too_big",
    )
    .and("netflow_too_big_ret"),
    on(
        Hook::Icmp6Notify,
        "icmpv6_notify",
        &[(0, "skb"), (1, "type")],
        "netflow_too_big6",
    )
    .and("netflow_too_big_ret"),
    on(Hook::TcpErr, "tcp_v4_err", &[(0, "skb")], "netflow_tcp_err").and("netflow_tcp_err_ret"),
    on(
        Hook::Tcp6Err,
        "tcp_v6_err",
        &[(0, "skb")],
        "netflow_tcp_err",
    )
    .and("netflow_tcp_err_ret"),
    on(
        Hook::PmtuLearned,
        "update_or_create_fnhe",
        &[(0, "nhc"), (1, "daddr"), (3, "pmtu")],
        "netflow_learned",
    ),
    on(
        Hook::PmtuLearned6,
        "rt6_do_update_pmtu",
        &[(0, "rt"), (1, "mtu")],
        "netflow_learned6",
    ),
    on(
        Hook::Fragment,
        "ip_do_fragment",
        &[(0, "net"), (2, "skb")],
        "netflow_fragment",
    ),
    on(
        Hook::Fragment6,
        "ip6_fragment",
        &[(0, "net"), (2, "skb")],
        "netflow_fragment",
    ),
    ipvs("ip_vs_nat_xmit"),
    ipvs("ip_vs_nat_xmit_v6"),
    ipvs("ip_vs_dr_xmit"),
    ipvs("ip_vs_dr_xmit_v6"),
    ipvs("ip_vs_tunnel_xmit"),
    ipvs("ip_vs_tunnel_xmit_v6"),
    ipvs("ip_vs_null_xmit"),
    on(
        Hook::IpvsLeave,
        "ip_vs_leave",
        &[(1, "skb")],
        "netflow_ipvs_leave",
    )
    .of(IPVS),
    on(
        Hook::ListenSyn,
        "tcp_conn_request",
        &[(2, "sk"), (3, "skb")],
        "netflow_listen_syn",
    ),
    on(
        Hook::ListenAck,
        "tcp_v4_syn_recv_sock",
        &[(0, "sk"), (1, "skb")],
        "netflow_listen_ack",
    ),
    on(
        Hook::ListenAck6,
        "tcp_v6_syn_recv_sock",
        &[(0, "sk"), (1, "skb")],
        "netflow_listen_ack",
    ),
];

const XT_READS: &[(usize, &str)] = &[(0, "priv"), (1, "skb"), (2, "state")];
const XT_READS_OLD: &[(usize, &str)] = &[(0, "skb"), (1, "state"), (2, "table")];

const fn ipvs(function: &'static str) -> Probe {
    on(
        Hook::IpvsXmit,
        function,
        &[(0, "skb"), (1, "cp")],
        "netflow_ipvs",
    )
    .of(IPVS)
}
