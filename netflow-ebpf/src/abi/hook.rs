//! The programs: their names in the object and where each is attached.

/// A place in the kernel that netflow listens at, with one program per way of getting there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A packet was dropped.
    KfreeSkb,
    /// A packet is handed to a device: new conntrack entries are read off it.
    NetDevStartXmit,
    /// An ICMP error is generated (tracepoint since 6.0, backported to some).
    IcmpSend,
    /// A local socket retransmits.
    TcpRetransmitSkb,
    /// TCP sends a RST.
    TcpSendReset,
    /// A local socket got a RST.
    TcpReceiveReset,
    /// A route lookup ended. Expensive to listen to (several times per forwarded packet): attach while a question is asked.
    FibTableLookup,
    /// A neighbour's timer fired.
    NeighTimerHandler,
    /// A packet was handed to a neighbour whose link-layer address is not known to be good.
    NeighEventSendDone,
    /// A new connection goes into the conntrack table.
    CtConfirm,
    /// A conntrack entry is taken out.
    CtDelete,
    /// A packet is to have a new conntrack entry.
    CtAlloc,
    /// Two packets of one connection raced for an entry.
    CtClash,
    /// A packet is at a netfilter hook.
    HookSlow,
    /// It is at a base chain of nftables.
    NftChain,
    /// It is at a table of iptables or ip6tables.
    XtTable,
    /// A rule answers it with an ICMP error.
    SendUnreach,
    /// The same for IPv6.
    SendUnreach6,
    /// A rule answers it with a TCP reset.
    SendReset,
    /// The same for IPv6.
    SendReset6,
    /// An ICMP error is asked for, with its MTU.
    IcmpSendCall,
    /// An `ICMPv6` error is asked for.
    Icmp6Send,
    /// An ICMP "unreachable" is taken in.
    IcmpUnreach,
    /// An `ICMPv6` error is taken in.
    Icmp6Notify,
    /// An ICMP error is given to TCP.
    TcpErr,
    /// An `ICMPv6` error is given to TCP.
    Tcp6Err,
    /// A path MTU is learnt.
    PmtuLearned,
    /// The same for IPv6.
    PmtuLearned6,
    /// A packet is cut into fragments.
    Fragment,
    /// The same for IPv6.
    Fragment6,
    /// IPVS sends a packet on.
    IpvsXmit,
    /// IPVS has no destination.
    IpvsLeave,
    /// A SYN is at a listening socket.
    ListenSyn,
    /// The ACK that completes a handshake is.
    ListenAck,
    /// The same for IPv6.
    ListenAck6,
}

/// How a [`Hook`] at a tracepoint is attached; for the others see [`super::PROBES`].
#[derive(Clone, Copy, Debug)]
pub struct HookInfo {
    /// Which.
    pub hook: Hook,
    /// Name of the tracepoint, as in `btf_trace_<name>`.
    pub tracepoint: &'static str,
    /// Program of type tracing, for `tp_btf`: try this first.
    pub tp_btf: &'static str,
    /// Program of type raw tracepoint, where `tp_btf` does not load.
    pub raw_tp: &'static str,
    /// Arguments that the programs read at least: with fewer, neither may be loaded.
    pub min_args: u16,
}

/// Every hook at a tracepoint. A hook may be loaded when its tracepoint exists and all [`super::FIELDS`] that name it are present.
pub const HOOKS: [HookInfo; 9] = [
    HookInfo {
        hook: Hook::KfreeSkb,
        tracepoint: "kfree_skb",
        tp_btf: "netflow_drop",
        raw_tp: "netflow_drop_raw",
        min_args: 2,
    },
    HookInfo {
        hook: Hook::NetDevStartXmit,
        tracepoint: "net_dev_start_xmit",
        tp_btf: "netflow_nat",
        raw_tp: "netflow_nat_raw",
        min_args: 2,
    },
    HookInfo {
        hook: Hook::IcmpSend,
        tracepoint: "icmp_send",
        tp_btf: "netflow_icmp",
        raw_tp: "netflow_icmp_raw",
        min_args: 3,
    },
    HookInfo {
        hook: Hook::TcpRetransmitSkb,
        tracepoint: "tcp_retransmit_skb",
        tp_btf: "netflow_retransmit",
        raw_tp: "netflow_retransmit_raw",
        min_args: 2,
    },
    HookInfo {
        hook: Hook::TcpSendReset,
        tracepoint: "tcp_send_reset",
        tp_btf: "netflow_reset_sent",
        raw_tp: "netflow_reset_sent_raw",
        min_args: 2,
    },
    HookInfo {
        hook: Hook::TcpReceiveReset,
        tracepoint: "tcp_receive_reset",
        tp_btf: "netflow_reset_received",
        raw_tp: "netflow_reset_received_raw",
        min_args: 1,
    },
    HookInfo {
        hook: Hook::FibTableLookup,
        tracepoint: "fib_table_lookup",
        tp_btf: "netflow_route",
        raw_tp: "netflow_route_raw",
        min_args: 4,
    },
    HookInfo {
        hook: Hook::NeighTimerHandler,
        tracepoint: "neigh_timer_handler",
        tp_btf: "netflow_neighbor",
        raw_tp: "netflow_neighbor_raw",
        min_args: 1,
    },
    HookInfo {
        hook: Hook::NeighEventSendDone,
        tracepoint: "neigh_event_send_done",
        tp_btf: "netflow_waiting",
        raw_tp: "netflow_waiting_raw",
        min_args: 2,
    },
];

/// A tc program.
#[derive(Clone, Copy, Debug)]
pub struct TcProgram {
    /// Name in the object.
    pub name: &'static str,
    /// For the egress side (else ingress).
    pub egress: bool,
    /// For interfaces whose packets begin with an Ethernet header (`ARPHRD_ETHER`, `ARPHRD_LOOPBACK`); the others (tun, tunl,
    /// sit, wireguard, ppp: `ARPHRD_NONE`, `ARPHRD_TUNNEL`, `ARPHRD_TUNNEL6`, `ARPHRD_SIT`, `ARPHRD_IPGRE`, `ARPHRD_RAWIP`, …)
    /// begin with the IP header.
    pub ethernet: bool,
}

/// The tc programs. All return -1 (`TCX_NEXT`, `TC_ACT_UNSPEC`): they never decide about a packet. `bench_empty` and
/// `bench_reference` are two more classifiers, for `cargo xtask bench` only: they are never attached.
pub const TC_PROGRAMS: [TcProgram; 4] = [
    TcProgram {
        name: "netflow_in",
        egress: false,
        ethernet: true,
    },
    TcProgram {
        name: "netflow_out",
        egress: true,
        ethernet: true,
    },
    TcProgram {
        name: "netflow_in_l3",
        egress: false,
        ethernet: false,
    },
    TcProgram {
        name: "netflow_out_l3",
        egress: true,
        ethernet: false,
    },
];
