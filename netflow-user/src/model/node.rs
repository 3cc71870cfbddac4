//! Facts about one node, read at a moment: links, routes, neighbours, sysctls, conntrack, proxy rules, Pods' sockets.

use super::cidr::Cidr;
use super::conntrack::CtTable;
use super::record::NfHook;
use super::{Proto, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Everything read from the node at `time`. A part that could not be read is empty and named in `unread`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// When it was read.
    pub time: Time,
    /// Network namespace of the node (inode number).
    pub netns: u32,
    /// Interfaces of the node's namespace.
    pub links: Vec<Link>,
    /// Routes of the node's namespace.
    pub routes: Vec<Route>,
    /// Neighbour entries of the node's namespace.
    pub neighbors: Vec<Neighbor>,
    /// Peers of the tunnel devices of the node's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnel_peers: Vec<TunnelPeer>,
    /// Sysctls that matter, by dotted name (`net.ipv4.ip_forward`, `net.ipv4.conf.eth0.forwarding`, …).
    pub sysctls: BTreeMap<String, String>,
    /// Conntrack table and statistics.
    pub conntrack: CtTable,
    /// Service proxy rules for the addresses asked about.
    pub proxy: ProxyRules,
    /// Rules and policies that can drop or reject, with counters, in the node's namespace.
    pub firewall: Vec<FirewallRule>,
    /// nftables flowtables of the node's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flowtables: Vec<Flowtable>,
    /// Programs that may change where sockets of the node and its Pods connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub socket_programs: Vec<SocketProgram>,
    /// tc programs and filters of others on the node's interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tc_programs: Vec<TcProgram>,
    /// Network namespaces of the node's Pods, as far as found. A Pod of the host's network is here with the node's
    /// own number.
    pub pods: Vec<PodNetns>,
    /// The kernel's own answer for the addresses asked about, in the node's namespace and in those of its Pods.
    #[serde(default)]
    pub lookups: Vec<RouteLookup>,
    /// Sockets of the node's own namespace that wait for connections or datagrams.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Connected TCP sockets of the node's own namespace that touch an address asked about.
    #[serde(default)]
    pub sockets: Vec<TcpSocket>,
    /// `TcpExt`, `Tcp`, `Ip` … counters of the node's own namespace.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// What could not be read, and why.
    #[serde(default)]
    pub unread: Vec<Unread>,
}

/// A part of the facts that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Which part, in words (`iptables-legacy nat`, `conntrack`, `sockets of 10.1.2.3`).
    pub what: String,
    /// The reason.
    pub why: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own in the kernel"
)]
pub struct Link {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// `IFLA_INFO_KIND` (`veth`, `bridge`, `vxlan`, `wireguard`, …), empty for a plain device.
    #[serde(default)]
    pub kind: String,
    /// MTU, bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Carrier/operational state is up or unknown.
    #[serde(default)]
    pub running: bool,
    /// Index of the master (bridge, bond, vrf), 0 for none.
    #[serde(default)]
    pub master: u32,
    /// `IFLA_LINK`: peer of a veth, lower device of a vlan/vxlan; 0 for none.
    #[serde(default)]
    pub link: u32,
    /// Whether `link` lives in another namespace (`IFLA_LINK_NETNSID` present).
    #[serde(default)]
    pub link_elsewhere: bool,
    /// `ARPHRD_*` type (1 = Ethernet, 65534 = none, 772 = loopback).
    #[serde(default)]
    pub arphrd: u16,
    /// Port of a bridge that may send a frame back where it came from.
    #[serde(default)]
    pub hairpin: bool,
    /// Link-layer address, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<String>,
    /// For a device that puts packets into others: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Addresses with prefix length.
    pub addrs: Vec<(IpAddr, u8)>,
}

impl Link {
    /// Bytes that the device, if it is a tunnel, puts before a packet of its MTU, from the outer IP header (of IPv6: `v6`) to the
    /// inner packet, and behind it. `docs/mtu.md` holds what they measured. 0 for a kind that is not known.
    pub fn overhead(&self, v6: bool) -> u32 {
        let Some(tunnel) = &self.tunnel else {
            return 0;
        };
        let own = match self.kind.as_str() {
            // UDP, the tunnel's own header, the inner Ethernet header: RFC 7348, RFC 8926 (without options).
            "vxlan" | "geneve" => 8 + 8 + 14,
            // RFC 2784, with the Ethernet header of a frame; without.
            "gretap" | "ip6gretap" => 4 + 14,
            "gre" | "ip6gre" => 4,
            // UDP, 16 of header, 16 of authentication: https://www.wireguard.com/protocol/. Smaller packets are padded to a multiple
            // of 16, those of the MTU are not.
            "wireguard" => 8 + 16 + 16,
            _ => 0,
        };
        own + tunnel.options + if v6 { 40 } else { 20 }
    }
}

/// What a tunnel device makes of packets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tunnel {
    /// UDP port that it sends to, where it uses UDP; of WireGuard the one that it sends from and listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Source address of what it sends, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The only peer, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// Bytes that options of the device add to its header: key, checksum and sequence number of GRE, the encapsulation limit of
    /// tunnels over IPv6.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub options: u32,
    /// The IPv4 packets that it makes may be cut on the way: a path that is too narrow for them loses none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
    /// Of WireGuard: its peers; of very many those that packets asked about go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<WireguardPeer>,
}

/// A peer of a WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardPeer {
    /// Where its packets are sent, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Networks that are sent to it and taken from it.
    pub allowed: Vec<Cidr>,
    /// When both last agreed on a key; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Time>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// An entry of a tunnel device's forwarding table: where it sends frames for a link-layer address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPeer {
    /// The tunnel device.
    pub ifindex: u32,
    /// Link-layer address of frames.
    pub lladdr: String,
    /// The node that gets them.
    pub remote: IpAddr,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination network; prefix length 0 is the default route.
    pub dst: IpAddr,
    /// Prefix length.
    pub prefix: u8,
    /// Next hop, if not on-link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Output interface, 0 for none (unreachable, blackhole, multipath).
    #[serde(default)]
    pub ifindex: u32,
    /// Routing table id (254 = main).
    pub table: u32,
    /// `unicast`, `local`, `blackhole`, `unreachable`, `prohibit`, `throw`, …
    pub kind: String,
    /// Route MTU metric, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Next hops of a multipath route; `via` and `ifindex` are empty then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nexthops: Vec<Nexthop>,
}

/// One way of a multipath route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nexthop {
    /// Next hop, if not on-link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Output interface.
    pub ifindex: u32,
}

/// What the kernel answers when a socket in `netns` sends to `dst` (`RTM_GETROUTE`): a missing route inside a Pod
/// leaves no packet to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLookup {
    /// Namespace it was asked in (inode number).
    pub netns: u32,
    /// Address asked for.
    pub dst: IpAddr,
    /// Errno of a lookup without a usable route (101 = `ENETUNREACH`, 113 = `EHOSTUNREACH`, 22 = a blackhole).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// `unicast`, `local`, …; empty for a failed lookup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Next hop, if not on-link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Output interface.
    #[serde(default)]
    pub ifindex: u32,
    /// Source address the kernel would choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Routing table that answered.
    #[serde(default)]
    pub table: u32,
    /// MTU of the route or of the path, where it differs from the interface's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Seconds until a learned path MTU is forgotten: `mtu` came from an ICMP error and from nothing configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_expires_secs: Option<u32>,
}

impl RouteLookup {
    /// The path MTU that an ICMP error taught this namespace for `dst`.
    pub fn learned_mtu(&self) -> Option<u32> {
        self.mtu.filter(|_| self.mtu_expires_secs.is_some())
    }
}

/// A neighbour (ARP/ND) entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// Interface.
    pub ifindex: u32,
    /// `reachable`, `stale`, `failed`, `incomplete`, `permanent`, `delay`, `probe`, `noarp`, `none`.
    pub state: String,
    /// Link-layer address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<String>,
}

/// What the node's Service proxy would do with the addresses asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyRules {
    /// Rule systems in which Service rules of any kind were found: `iptables-legacy`, `iptables-nft`, `nftables`, `ipvs`.
    /// Empty = no Service proxy rules on this node at all.
    pub modes: Vec<String>,
    /// One row per (address, port, protocol) asked about that some rule handles.
    pub services: Vec<ProxyService>,
    /// Number of Service rules seen in all, for scale (0 if unknown).
    #[serde(default)]
    pub rules: u64,
}

/// Rules that match one VIP and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyService {
    /// Which rule system holds it.
    pub mode: String,
    /// Destination address matched (`None`: any local address, as for a NodePort).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Destination port matched.
    pub port: u16,
    /// Protocol matched.
    pub proto: Proto,
    /// DNAT targets.
    pub backends: Vec<SocketAddr>,
    /// A rule answers with REJECT (no endpoints, or a port the Service does not have).
    #[serde(default)]
    pub reject: bool,
    /// A rule drops (for example internalTrafficPolicy Local without a local endpoint).
    #[serde(default)]
    pub drop: bool,
    /// Where it stands, for the reader (`nat/KUBE-SVC-XPGD46QRK7WJZT7O`).
    pub place: String,
}

/// A rule or a base-chain policy that drops or rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// `iptables-legacy`, `iptables-nft` or `nftables`.
    pub mode: String,
    /// Table, with family where nftables (`filter`, `inet policy`).
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Position in the chain (iptables, from 1) or rule handle (nftables); 0 for a chain's policy.
    pub handle: u64,
    /// `drop`, `reject` or `policy drop`.
    pub verdict: String,
    /// Hook from which the chain is reached, where it is a base chain or reached from exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<NfHook>,
    /// Matches as far as decoded, for the reader (`ip saddr 10.0.0.0/24 tcp dport 8080`).
    #[serde(default)]
    pub text: String,
    /// Comment on the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Packets counted, where the rule has a counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Matches that the decoder understood, so that a tuple can be tested; `None` where a part was not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<RuleMatch>,
    /// The rule has conditions that `matches` does not hold (an interface, a mark, a negation, a rate, a set): a tuple
    /// that fits may still pass it.
    #[serde(default)]
    pub partial: bool,
}

/// The address and port matches of a rule. An empty field matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleMatch {
    /// Source network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<(IpAddr, u8)>,
    /// Destination network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<(IpAddr, u8)>,
    /// Protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Destination port range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<(u16, u16)>,
    /// Source port range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<(u16, u16)>,
}

/// A flowtable: packets of connections that a rule (`flow add`) gave to it are forwarded where they come in and pass no
/// further hook of the IP layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flowtable {
    /// Table with its family (`inet filter`).
    pub table: String,
    /// Name.
    pub name: String,
    /// Interfaces at which it takes packets; none where it waits for them to appear.
    #[serde(default)]
    pub devices: Vec<String>,
    /// It may hand connections over to the interfaces' hardware, which shows their packets to nobody.
    #[serde(default)]
    pub hardware: bool,
}

/// An eBPF program that a socket passes before there is a packet. It may put another destination in place of the one asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketProgram {
    /// The kernel's id.
    pub id: u32,
    /// Name, as the kernel keeps it; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// Where it is called: `cgroup/connect4`, `cgroup/connect6`, `cgroup/sendmsg4`, `cgroup/sendmsg6`.
    pub hook: String,
}

impl SocketProgram {
    /// `connect()` of IPv4 sockets.
    pub const CONNECT4: &str = "cgroup/connect4";
    /// `connect()` of IPv6 sockets.
    pub const CONNECT6: &str = "cgroup/connect6";
    /// `sendmsg()` of IPv4 UDP sockets that are not connected.
    pub const SENDMSG4: &str = "cgroup/sendmsg4";
    /// `sendmsg()` of IPv6 UDP sockets that are not connected.
    pub const SENDMSG6: &str = "cgroup/sendmsg6";

    /// Whether sockets that dial an address of a family by a protocol pass it. Only TCP and UDP ask at `connect()`
    /// (`pre_connect` of `tcp_prot` and `udp_prot`, v6.18).
    pub fn concerns(&self, proto: Proto, v6: bool) -> bool {
        let (connect, send) = if v6 {
            (Self::CONNECT6, Self::SENDMSG6)
        } else {
            (Self::CONNECT4, Self::SENDMSG4)
        };
        match proto {
            Proto::TCP => self.hook == connect,
            Proto::UDP => self.hook == connect || self.hook == send,
            _ => false,
        }
    }
}

/// A tc program or filter of somebody else. It may rewrite, redirect or end a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcProgram {
    /// Index of its interface.
    pub ifindex: u32,
    /// Name of its interface.
    pub interface: String,
    /// `ingress` or `egress`.
    pub side: String,
    /// `tcx` or `clsact`.
    pub how: String,
    /// Name of the program or filter; the filter's kind where it has none.
    pub name: String,
    /// The kernel's id of the program, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// It sees packets before netflow does.
    #[serde(default)]
    pub first: bool,
}

/// The network namespace that holds a Pod's address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodNetns {
    /// Inode number.
    pub netns: u32,
    /// `SO_NETNS_COOKIE`, never reused; 0 where the kernel has none (before 5.14).
    #[serde(default)]
    pub cookie: u64,
    /// The Pod addresses asked about that it holds.
    pub ips: Vec<IpAddr>,
    /// Its interfaces.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Its neighbour entries.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// Listening TCP sockets and bound UDP sockets.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Connected TCP sockets that touch an address asked about.
    #[serde(default)]
    pub sockets: Vec<TcpSocket>,
    /// `TcpExt` and `Tcp` counters that matter (`ListenOverflows`, `ListenDrops`, …).
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Rules and policies that can drop or reject inside the Pod.
    #[serde(default)]
    pub firewall: Vec<FirewallRule>,
    /// Conntrack in use inside the Pod with redirects (a mesh): targets of local redirects.
    #[serde(default)]
    pub redirects: Vec<SocketAddr>,
}

/// A socket that waits for connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Protocol.
    pub proto: Proto,
    /// Bound address; unspecified = any.
    pub addr: SocketAddr,
    /// An IPv6 socket that does not take IPv4.
    #[serde(default)]
    pub v6only: bool,
    /// Connections waiting to be accepted (TCP).
    #[serde(default)]
    pub queue: u32,
    /// Backlog (TCP).
    #[serde(default)]
    pub backlog: u32,
    /// A UDP socket on a port that the kernel hands out to whoever asks for none: more likely a client's than a
    /// server's.
    #[serde(default)]
    pub ephemeral: bool,
}

impl Listener {
    /// Whether a packet to `to` would find this socket.
    pub fn accepts(&self, proto: Proto, to: SocketAddr) -> bool {
        if self.proto != proto || self.addr.port() != to.port() {
            return false;
        }
        match (self.addr.ip(), to.ip()) {
            (IpAddr::V6(a), IpAddr::V4(t)) => {
                !self.v6only && (a.is_unspecified() || a.to_ipv4_mapped() == Some(t))
            }
            (IpAddr::V4(a), IpAddr::V4(t)) => a.is_unspecified() || a == t,
            (IpAddr::V6(a), IpAddr::V6(t)) => a.is_unspecified() || a == t,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }

    /// Bound to a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.addr.ip() {
            IpAddr::V4(a) => a.is_loopback(),
            IpAddr::V6(a) => a.is_loopback() || a.to_ipv4_mapped().is_some_and(|m| m.is_loopback()),
        }
    }
}

/// A connected TCP socket inside a Pod or on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSocket {
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// `sk_state` (1 = ESTABLISHED, 2 = `SYN_SENT`).
    pub state: u8,
    /// Path MTU the socket uses (`tcpi_pmtu`).
    pub pmtu: u32,
    /// Segment size it sends with (`tcpi_snd_mss`).
    pub snd_mss: u32,
    /// Retransmissions in all.
    pub total_retrans: u32,
    /// Bytes in the send queue that are not acknowledged.
    #[serde(default)]
    pub unacked: u32,
}
