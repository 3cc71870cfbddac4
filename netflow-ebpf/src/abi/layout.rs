//! What user space finds out about the running kernel and freezes into the programs.
//!
//! The object has one `static LAYOUT: Layout`. The loader starts from [`Layout::EMPTY`], sets each offset of [`FIELDS`] that the
//! kernel's BTF has, each argument count of [`ARGS`] and the switches below, and hands the bytes ([`super::Plain::bytes`]) to
//! `EbpfLoader::override_global("LAYOUT", …, true)`. The section is frozen before the programs are loaded, so the verifier knows
//! every field as a constant: it prunes branches on what is absent, and takes `*(skb + offset)` for the typed load that it is
//! (`check_mem_access` with `bpf_map_direct_read`, <https://elixir.bootlin.com/linux/v6.18/source/kernel/bpf/verifier.c>).

use super::plain::plain;
use super::{Hook, NoiseRule};

/// An offset that the running kernel does not have.
pub const ABSENT: u16 = u16::MAX;

/// Rules in [`Layout::noise`].
const NOISE_RULES: usize = 40;

/// Which hooks cannot do without a field. Everything else treats [`ABSENT`] as "not known".
pub type Need = &'static [Hook];

/// How one offset is found.
#[derive(Clone, Copy)]
pub struct Field {
    /// Name of the field of [`Layout`], for messages.
    pub name: &'static str,
    /// Path in BTF: struct, then members, through anonymous structs and unions; `[n]` indexes an array. The value is the byte
    /// offset of the last member from the start of the struct.
    pub path: &'static str,
    /// Bytes that the programs read there, 0 where they only take the address: a kernel whose field is smaller keeps something
    /// else behind it.
    pub bytes: u32,
    /// Hooks that must not be loaded without it.
    pub need: Need,
    /// Puts the offset into the layout.
    pub set: fn(&mut Layout, u16),
    /// Reads it back.
    pub get: fn(&Layout) -> u16,
}

/// How many arguments a tracepoint has: the parameters of `btf_trace_<name>` minus one.
#[derive(Clone, Copy)]
pub struct Args {
    /// Tracepoint.
    pub tracepoint: &'static str,
    /// Puts the count into the layout.
    pub set: fn(&mut Layout, u16),
}

macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident: $path:literal, $bytes:literal, $need:expr;)+) => {
        /// Everything that differs between kernels and between runs.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Layout {
            /// Healthy drops: [`super::NOISE`] resolved for this kernel, rules in use first.
            pub noise: [NoiseRule; NOISE_RULES],
            /// Cookie of the network namespace that the tc programs are attached in; 0 where the kernel has none.
            pub own_cookie: u64,
            /// Its inode number.
            pub own_inum: u32,
            /// Ordinary records ([`super::Kind::is_ordinary`]) are refused when more bytes than this wait in the ring.
            pub ring_limit: u32,
            /// Nanoseconds of a kernel tick: what `clock_getres(CLOCK_MONOTONIC_COARSE)` says.
            pub tick_ns: u32,
            /// Destination or source ports (host order, 0 = none) of UDP tunnels: their packets are counted, but send no
            /// first-packet record, since each inner connection has a source port of its own.
            pub tunnel_ports: [u16; 8],
            /// `kfree_skb`: 2, 3 (reason) or 4 (receiving socket); 0 = no such tracepoint.
            pub kfree_skb_args: u16,
            /// `tcp_send_reset`: 2 or 3 (reason); 0 = no such tracepoint.
            pub tcp_send_reset_args: u16,
            /// `icmp_send`: 3; 0 = no such tracepoint, `__icmp_send` is listened to in its place.
            pub icmp_send_args: u16,
            /// Always 0.
            pub pad: [u16; 3],
            $($(#[$doc])* pub $name: u16,)+
        }

        /// Every offset of [`Layout`].
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            path: $path,
            bytes: $bytes,
            need: $need,
            set: |layout, offset| layout.$name = offset,
            get: |layout| layout.$name,
        },)+];

        impl Layout {
            /// Nothing known, nothing filtered.
            pub const EMPTY: Self = Self {
                noise: [NoiseRule::NONE; NOISE_RULES],
                own_cookie: 0,
                own_inum: 0,
                ring_limit: super::map::RECORDS_BYTES / 4 * 3,
                tick_ns: 10_000_000,
                tunnel_ports: [4789, 8472, 6081, 51820, 0, 0, 0, 0],
                kfree_skb_args: 0,
                tcp_send_reset_args: 0,
                icmp_send_args: 0,
                pad: [0; 3],
                $($name: ABSENT,)+
            };
        }
    };
}

/// Hooks that are given a packet whose headers they read.
const PACKET: Need = &[
    Hook::KfreeSkb,
    Hook::IcmpSend,
    Hook::TcpSendReset,
    Hook::NeighEventSendDone,
];
/// Hooks that are given a socket.
const SOCKET: Need = &[
    Hook::TcpRetransmitSkb,
    Hook::TcpSendReset,
    Hook::TcpReceiveReset,
];
/// Hooks that find the namespace through a socket.
const SOCKET_NET: Need = &[
    Hook::TcpRetransmitSkb,
    Hook::TcpSendReset,
    Hook::TcpReceiveReset,
    Hook::ListenSyn,
    Hook::ListenAck,
    Hook::ListenAck6,
];
/// Hooks that find the namespace through a device.
const DEVICE: Need = &[
    Hook::KfreeSkb,
    Hook::IcmpSend,
    Hook::TcpSendReset,
    Hook::NetDevStartXmit,
    Hook::NeighTimerHandler,
    Hook::NeighEventSendDone,
];
/// All hooks.
const EVERY: Need = &[
    Hook::KfreeSkb,
    Hook::IcmpSend,
    Hook::TcpSendReset,
    Hook::NetDevStartXmit,
    Hook::NeighTimerHandler,
    Hook::NeighEventSendDone,
    Hook::TcpRetransmitSkb,
    Hook::TcpReceiveReset,
    Hook::FibTableLookup,
];
/// Hooks that read both tuples of a conntrack entry.
const NAT: Need = &[
    Hook::NetDevStartXmit,
    Hook::CtConfirm,
    Hook::CtDelete,
    Hook::CtClash,
];
/// Hooks that find the namespace through a conntrack entry.
const ENTRY: Need = &[Hook::CtConfirm, Hook::CtDelete, Hook::CtClash];
/// Hooks that read a conntrack tuple.
const TUPLE: Need = &[
    Hook::NetDevStartXmit,
    Hook::CtConfirm,
    Hook::CtDelete,
    Hook::CtClash,
    Hook::CtAlloc,
];
/// Hooks that are told at which netfilter hook a packet is.
const STATE: Need = &[Hook::HookSlow, Hook::NftChain, Hook::XtTable];
const LEARNED: Need = &[Hook::PmtuLearned];
const LEARNED6: Need = &[Hook::PmtuLearned6];
const LISTEN: Need = &[Hook::ListenSyn, Hook::ListenAck, Hook::ListenAck6];
const ROUTE: Need = &[Hook::FibTableLookup];
const NEIGHBOR: Need = &[Hook::NeighTimerHandler, Hook::NeighEventSendDone];
const WAITING: Need = &[Hook::NeighEventSendDone];
const OPTIONAL: Need = &[];

layout! {
    /// Bytes of the packet from `data` on.
    skb_len: "sk_buff.len", 4, &[Hook::KfreeSkb];
    /// Device it is at.
    skb_dev: "sk_buff.dev", 8, PACKET;
    /// Socket it belongs to.
    skb_sk: "sk_buff.sk", 8, PACKET;
    /// Start of the buffer.
    skb_head: "sk_buff.head", 8, PACKET;
    /// Offset of the end of the linear data from `head`.
    skb_tail: "sk_buff.tail", 4, PACKET;
    /// Offset of the IP header from `head`.
    skb_network_header: "sk_buff.network_header", 2, PACKET;
    /// Ethertype, network order.
    skb_protocol: "sk_buff.protocol", 2, PACKET;
    /// Conntrack entry with `enum ip_conntrack_info` in the low three bits.
    skb_nfct: "sk_buff._nfct", 8, NAT;
    /// Route with a flag in the low bit.
    skb_refdst: "sk_buff._skb_refdst", 8, OPTIONAL;
    /// Interface it came in through.
    skb_iif: "sk_buff.skb_iif", 4, OPTIONAL;
    /// Interface index.
    dev_ifindex: "net_device.ifindex", 4, DEVICE;
    /// Namespace of a device.
    dev_net: "net_device.nd_net.net", 8, DEVICE;
    /// Inode number of a namespace.
    net_inum: "net.ns.inum", 4, EVERY;
    /// Cookie of a namespace. Set it only where the member is a plain 64-bit integer (5.12): before it was an
    /// `atomic64_t` that stays 0 until somebody asks.
    net_cookie: "net.net_cookie", 8, OPTIONAL;
    /// Namespace of a socket.
    sk_net: "sock.__sk_common.skc_net.net", 8, SOCKET_NET;
    /// Address family.
    sk_family: "sock.__sk_common.skc_family", 2, SOCKET;
    /// TCP state.
    sk_state: "sock.__sk_common.skc_state", 1, SOCKET;
    /// Remote IPv4 address.
    sk_daddr: "sock.__sk_common.skc_daddr", 4, SOCKET;
    /// Local IPv4 address.
    sk_saddr: "sock.__sk_common.skc_rcv_saddr", 4, SOCKET;
    /// Remote port, network order.
    sk_dport: "sock.__sk_common.skc_dport", 2, SOCKET;
    /// Local port, host order.
    sk_num: "sock.__sk_common.skc_num", 2, SOCKET;
    /// Remote IPv6 address.
    sk_v6_daddr: "sock.__sk_common.skc_v6_daddr", 16, OPTIONAL;
    /// Local IPv6 address.
    sk_v6_saddr: "sock.__sk_common.skc_v6_rcv_saddr", 16, OPTIONAL;
    /// Tuple in the original direction.
    ct_orig: "nf_conn.tuplehash[0].tuple", 0, NAT;
    /// Tuple of replies.
    ct_reply: "nf_conn.tuplehash[1].tuple", 0, NAT;
    /// Status bits.
    ct_status: "nf_conn.status", 4, NAT;
    /// Namespace of an entry.
    ct_net: "nf_conn.ct_net.net", 8, ENTRY;
    /// Mark.
    ct_mark: "nf_conn.mark", 4, OPTIONAL;
    /// Zone.
    ct_zone: "nf_conn.zone.id", 2, OPTIONAL;
    /// Source address of a conntrack tuple.
    tuple_src: "nf_conntrack_tuple.src.u3", 16, TUPLE;
    /// Its source port or ICMP id.
    tuple_sport: "nf_conntrack_tuple.src.u", 2, TUPLE;
    /// Its address family.
    tuple_l3num: "nf_conntrack_tuple.src.l3num", 2, TUPLE;
    /// Its destination address.
    tuple_dst: "nf_conntrack_tuple.dst.u3", 16, TUPLE;
    /// Its destination port, or ICMP type and code.
    tuple_dport: "nf_conntrack_tuple.dst.u", 2, TUPLE;
    /// Its protocol.
    tuple_proto: "nf_conntrack_tuple.dst.protonum", 1, TUPLE;
    /// Device that a route leads to.
    dst_dev: "dst_entry.dev", 8, OPTIONAL;
    /// Function that a route hands received packets to.
    dst_input: "dst_entry.input", 8, OPTIONAL;
    /// Device of a neighbour.
    neigh_dev: "neighbour.dev", 8, NEIGHBOR;
    /// Table of a neighbour.
    neigh_tbl: "neighbour.tbl", 8, NEIGHBOR;
    /// Address of a neighbour.
    neigh_key: "neighbour.primary_key", 0, NEIGHBOR;
    /// State of a neighbour.
    neigh_state: "neighbour.nud_state", 1, NEIGHBOR;
    /// Packets that wait for a neighbour's link-layer address, oldest first.
    neigh_queue: "neighbour.arp_queue", 0, WAITING;
    /// Last packet of a queue; that of an empty one is the queue itself.
    queue_last: "sk_buff_head.prev", 8, WAITING;
    /// Address family of a neighbour table.
    neigh_family: "neigh_table.family", 4, NEIGHBOR;
    /// Source of a route lookup.
    fl4_saddr: "flowi4.saddr", 4, ROUTE;
    /// Destination of a route lookup.
    fl4_daddr: "flowi4.daddr", 4, ROUTE;
    /// Input interface of a route lookup, that of `lo` for a packet of this machine's own.
    fl4_iif: "flowi4.__fl_common.flowic_iif", 4, ROUTE;
    /// Output interface of a route lookup, where one was asked for.
    fl4_oif: "flowi4.__fl_common.flowic_oif", 4, ROUTE;
    /// Protocol of a route lookup.
    fl4_proto: "flowi4.__fl_common.flowic_proto", 1, ROUTE;
    /// Source port of a route lookup.
    fl4_sport: "flowi4.uli.ports.sport", 2, ROUTE;
    /// Destination port of a route lookup.
    fl4_dport: "flowi4.uli.ports.dport", 2, ROUTE;
    /// Namespaces of a task.
    task_nsproxy: "task_struct.nsproxy", 8, ROUTE;
    /// Network namespace among them.
    nsproxy_net: "nsproxy.net_ns", 8, ROUTE;
    /// Number of a netfilter hook.
    state_hook: "nf_hook_state.hook", 1, STATE;
    /// Its family.
    state_pf: "nf_hook_state.pf", 1, STATE;
    /// Interface that a packet at it came in through.
    state_in: "nf_hook_state.in", 8, STATE;
    /// Interface that it is about to leave through.
    state_out: "nf_hook_state.out", 8, STATE;
    /// Namespace of the hook.
    state_net: "nf_hook_state.net", 8, STATE;
    /// Interface that a next hop is behind.
    nhc_dev: "fib_nh_common.nhc_dev", 8, LEARNED;
    /// Interface that an IPv6 route leads to.
    rt6_dev: "rt6_info.dst.dev", 8, LEARNED6;
    /// Destination of an IPv6 route.
    rt6_dst: "rt6_info.rt6i_dst.addr", 16, LEARNED6;
    /// MTU of an interface.
    dev_mtu: "net_device.mtu", 4, OPTIONAL;
    /// Connections that wait to be accepted.
    sk_ack_backlog: "sock.sk_ack_backlog", 4, LISTEN;
    /// How many may.
    sk_max_ack_backlog: "sock.sk_max_ack_backlog", 4, LISTEN;
}

/// Every argument count of [`Layout`].
pub const ARGS: &[Args] = &[
    Args {
        tracepoint: "kfree_skb",
        set: |layout, count| layout.kfree_skb_args = count,
    },
    Args {
        tracepoint: "tcp_send_reset",
        set: |layout, count| layout.tcp_send_reset_args = count,
    },
    Args {
        tracepoint: "icmp_send",
        set: |layout, count| layout.icmp_send_args = count,
    },
];

plain!(Layout = 40 * 24 + 8 + 3 * 4 + 8 * 2 + 6 * 2 + 2 * FIELDS.len());

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::{MODULE_FIELDS, Plain as _};
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::path::Path;
    use std::string::String;
    use std::vec::Vec;
    use std::{format, fs};

    #[test]
    fn each_field_sets_its_own_offset() {
        let mut layout = Layout::EMPTY;
        for (n, field) in FIELDS.iter().enumerate() {
            assert_eq!((field.get)(&layout), ABSENT, "{}", field.name);
            (field.set)(&mut layout, n as u16);
        }
        for (n, field) in FIELDS.iter().enumerate() {
            assert_eq!((field.get)(&layout), n as u16, "{}", field.name);
        }
        let paths: HashSet<_> = FIELDS.iter().map(|f| f.path).collect();
        assert_eq!(paths.len(), FIELDS.len());
    }

    #[test]
    fn bytes_round_trip() {
        let mut layout = Layout::EMPTY;
        layout.own_cookie = 7;
        layout.nsproxy_net = 40;
        assert_eq!(Layout::read(layout.bytes()), Some(layout));
        assert_eq!(Layout::read(&layout.bytes()[1..]), None);
    }

    /// The programs' sources in one, without comments.
    fn programs() -> String {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/programs");
        let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let text: String = texts.collect();
        let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn bytes_of(ty: &str) -> u32 {
        match ty.trim() {
            "u8" => 1,
            "u16" => 2,
            "u32" | "i32" => 4,
            "u64" | "*const c_void" => 8,
            other => panic!("what is read is {other}"),
        }
    }

    /// Arguments of every `call(…)`, which hold no other call.
    fn calls<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
        let starts = text.match_indices(call).map(|(at, _)| at + call.len());
        starts
            .filter_map(|start| text[start..].split(')').next())
            .collect()
    }

    #[test]
    fn the_programs_read_as_many_bytes_as_the_tables_say() {
        let text = programs();
        let kernel = FIELDS.iter().map(|f| (f.name, f.bytes));
        let modules = MODULE_FIELDS.iter().map(|f| (f.name, f.bytes));
        let told: HashMap<&str, u32> = kernel.chain(modules).collect();
        let mut read = HashMap::new();
        // field!(R, base, name: T)
        for arguments in calls(&text, "field!(") {
            let last = arguments.trim().trim_end_matches(',').rsplit(',').next();
            if let Some((name, ty)) = last.and_then(|last| last.split_once(':'))
                && !ty.contains('$')
            {
                read.insert(name.trim(), bytes_of(ty));
            }
        }
        // at::<T>(base, modules.name)
        for rest in text.split("at::<").skip(1) {
            if let Some((ty, rest)) = rest.split_once(">(")
                && let Some((_, name)) = rest.split(')').next().unwrap_or("").split_once("modules.")
            {
                read.insert(name, bytes_of(ty));
            }
        }
        assert!(read.len() > 60, "{} found", read.len());
        for (name, bytes) in read {
            let row = told.get(name).copied();
            assert_eq!(row, Some(bytes), "{}", format!("{name} in its table"));
        }
    }
}
