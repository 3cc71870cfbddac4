//! The only place where bytes of packets are read: link, IP and transport headers, TCP options up to MSS, and the headers
//! quoted in an ICMP error. Never a byte after the transport header.
//!
//! The parser is written once over a [`Source`]: the linear part of a packet at tc, the whole packet at tc through a helper (real
//! network cards leave headers in page fragments), the buffer of an `sk_buff` in a tracing program, or a slice in a test.

use crate::abi::{Addr, Plain, Tuple};
use network_types::eth::EtherType;
use network_types::ip::IpProto;

// In network order, as are all `EtherType`s below.
/// IPv4.
pub const IPV4: u16 = EtherType::Ipv4 as u16;
/// IPv6.
pub const IPV6: u16 = EtherType::Ipv6 as u16;
const ARP: u16 = EtherType::Arp as u16;
const VLAN: u16 = EtherType::Ieee8021q as u16;
const QINQ: u16 = EtherType::Ieee8021ad as u16;

/// ICMP.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// TCP.
pub const TCP: u8 = IpProto::Tcp as u8;
/// UDP.
pub const UDP: u8 = IpProto::Udp as u8;
/// ICMP for IPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
/// SCTP.
pub const SCTP: u8 = IpProto::Sctp as u8;

const IPIP: u8 = IpProto::Ipv4 as u8;
const IPV6_IN_IP: u8 = IpProto::Ipv6 as u8;
const GRE: u8 = IpProto::Gre as u8;
const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTH: u8 = IpProto::Ah as u8;
const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
const MOBILITY: u8 = 135;

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

/// IPv6 extension headers followed before giving up.
const MAX_EXTENSIONS: usize = 6;
/// Offsets beyond this are not followed; the verifier wants a bound below 64 KiB.
const MAX_OFFSET: u32 = 4_096;
/// TCP options looked at before the MSS option, which stacks put first.
const MAX_OPTIONS: usize = 8;

/// Where bytes come from.
pub trait Source {
    /// The header at `offset`, `None` if the packet (or the part that can be seen) ends before it does.
    fn load<T: Plain>(&self, offset: u32) -> Option<T>;

    /// The same offset. Where the verifier follows every chain of extension headers, it forgets here how long this one is, so that
    /// chains of as many headers are one to it.
    #[inline(always)]
    fn forget(&self, offset: u32) -> u32 {
        offset
    }
}

/// Why a packet is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It ends within a header.
    Truncated,
    /// Not IP.
    UnknownEtherType,
    /// ARP, which is no flow.
    Arp,
    /// Not a valid IP header, or too many extension headers.
    BadIpHeader,
}

/// What the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Five-tuple.
    pub tuple: Tuple,
    /// Offset of the IP header.
    pub ip: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Length of the transport header; for protocols that are not known, 0.
    pub transport_len: u32,
    /// Bytes from the IP header on as it states them, 0 = it does not (jumbograms).
    pub len: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// A fragment that is not the first: no transport header.
    pub later_fragment: bool,
    /// The protocol has no ports that are known here, and is none of a tunnel.
    pub no_ports: bool,
}

impl Packet {
    /// Bytes after the transport header, where `len` bytes from the IP header on are in the packet.
    #[inline]
    #[must_use]
    pub fn payload(&self, len: u32) -> u32 {
        let headers = self.transport - self.ip + self.transport_len;
        len.saturating_sub(headers)
    }
}

/// `EtherType` and what stands before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Offset of the IP header.
    pub ip: u32,
    /// `EtherType` of what follows, network order.
    pub ethertype: u16,
    /// Id of the outermost tag in the packet, 0 for none.
    pub vlan: u16,
}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($field:ident: $ty:ty),+ })+) => { $(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        struct $name { $($field: $ty),+ }
        const _: () = assert!(size_of::<$name>() == $size);
        // SAFETY: integers only, and the size leaves no padding.
        unsafe impl Plain for $name {}
    )+ };
}

// Headers as words in network order: read so, each field is one load of the BPF machine, where a packed struct would be
// put together from bytes.
wire! {
    EthernetType = 2 { ethertype: u16 }
    VlanTag = 4 { tci: u16, ethertype: u16 }
    Ipv4 = 20 { version_len: u8, tos: u8, total: u16, id: u16, fragment: u16, ttl: u8, proto: u8, check: u16, saddr: u32, daddr: u32 }
    Ipv6 = 40 { version_class: u8, class_label: u8, label: u16, payload: u16, next: u8, hops: u8, saddr: [u32; 4], daddr: [u32; 4] }
    /// Any extension header begins so; the offset is that of a fragment header.
    Extension = 4 { next: u8, len: u8, offset: u16 }
    Ports = 4 { sport: u16, dport: u16 }
    /// What an ICMP error must quote of TCP.
    TcpQuoted = 8 { sport: u16, dport: u16, seq: u32 }
    Tcp = 16 { sport: u16, dport: u16, seq: u32, ack: u32, len_reserved: u8, flags: u8, window: u16 }
    Icmp = 8 { kind: u8, code: u8, check: u16, id: u16, mtu: u16 }
    TcpOption = 2 { kind: u8, len: u8 }
    Short = 2 { value: u16 }
}

/// The Ethernet header with up to two tags.
#[inline(always)]
pub fn ethernet<S: Source + ?Sized>(source: &S) -> Result<Link, Odd> {
    let EthernetType { ethertype } = source.load(12).ok_or(Odd::Truncated)?;
    if ethertype != VLAN && ethertype != QINQ {
        return Ok(Link {
            ip: 14,
            ethertype,
            vlan: 0,
        });
    }
    let VlanTag { tci, ethertype } = source.load(14).ok_or(Odd::Truncated)?;
    let vlan = u16::from_be(tci) & 0xfff;
    if ethertype != VLAN && ethertype != QINQ {
        return Ok(Link {
            ip: 18,
            ethertype,
            vlan,
        });
    }
    let VlanTag { ethertype, .. } = source.load(18).ok_or(Odd::Truncated)?;
    Ok(Link {
        ip: 22,
        ethertype,
        vlan,
    })
}

/// The IP and transport headers of a packet whose IP header is at `ip`.
#[inline(always)]
pub fn packet<S: Source + ?Sized>(source: &S, ip: u32, ethertype: u16) -> Result<Packet, Odd> {
    let mut packet = network(source, ip, ethertype)?;
    if !packet.later_fragment {
        transport(source, &mut packet)?;
    }
    Ok(packet)
}

/// The same as far as it can be seen: without its transport header a packet is taken for a later fragment.
#[inline(always)]
pub fn visible<S: Source + ?Sized>(source: &S, ip: u32, ethertype: u16) -> Result<Packet, Odd> {
    let mut packet = network(source, ip, ethertype)?;
    if !packet.later_fragment {
        packet.later_fragment = transport(source, &mut packet).is_err();
    }
    Ok(packet)
}

#[inline(always)]
fn transport<S: Source + ?Sized>(source: &S, packet: &mut Packet) -> Result<(), Odd> {
    if packet.tuple.proto != TCP {
        return connectionless(source, packet);
    }
    let tcp: Tcp = source.load(packet.transport).ok_or(Odd::Truncated)?;
    packet.tuple.sport = u16::from_be(tcp.sport);
    packet.tuple.dport = u16::from_be(tcp.dport);
    packet.seq = u32::from_be(tcp.seq);
    packet.ack = u32::from_be(tcp.ack);
    packet.flags = tcp.flags;
    packet.transport_len = u32::from(tcp.len_reserved >> 4) * 4;
    Ok(())
}

/// The headers that an ICMP error quotes, whose IP header is at `ip`: of TCP there may be no more than eight bytes.
#[inline(always)]
pub fn quoted<S: Source + ?Sized>(source: &S, ip: u32, ethertype: u16) -> Result<Packet, Odd> {
    let mut packet = network(source, ip, ethertype)?;
    if packet.later_fragment {
        return Ok(packet);
    }
    if packet.tuple.proto == TCP {
        let tcp: TcpQuoted = source.load(packet.transport).ok_or(Odd::Truncated)?;
        packet.tuple.sport = u16::from_be(tcp.sport);
        packet.tuple.dport = u16::from_be(tcp.dport);
        packet.seq = u32::from_be(tcp.seq);
        return Ok(packet);
    }
    connectionless(source, &mut packet)?;
    Ok(packet)
}

#[inline(always)]
fn network<S: Source + ?Sized>(source: &S, ip: u32, ethertype: u16) -> Result<Packet, Odd> {
    if ethertype == IPV4 {
        ipv4(source, ip)
    } else if ethertype == IPV6 {
        ipv6(source, ip)
    } else if ethertype == ARP {
        Err(Odd::Arp)
    } else {
        Err(Odd::UnknownEtherType)
    }
}

#[inline(always)]
fn ipv4<S: Source + ?Sized>(source: &S, ip: u32) -> Result<Packet, Odd> {
    let header: Ipv4 = source.load(ip).ok_or(Odd::Truncated)?;
    let words = u32::from(header.version_len & 0xf);
    if header.version_len >> 4 != 4 || words < 5 {
        return Err(Odd::BadIpHeader);
    }
    Ok(Packet {
        tuple: Tuple {
            saddr: Addr::v4(header.saddr),
            daddr: Addr::v4(header.daddr),
            proto: header.proto,
            family: 4,
            ..Tuple::NONE
        },
        ip,
        transport: ip + words * 4,
        transport_len: 0,
        len: u32::from(u16::from_be(header.total)),
        seq: 0,
        ack: 0,
        flags: 0,
        ttl: header.ttl,
        later_fragment: u16::from_be(header.fragment) & 0x1fff != 0,
        no_ports: false,
    })
}

#[inline(always)]
fn ipv6<S: Source + ?Sized>(source: &S, ip: u32) -> Result<Packet, Odd> {
    let header: Ipv6 = source.load(ip).ok_or(Odd::Truncated)?;
    if header.version_class >> 4 != 6 {
        return Err(Odd::BadIpHeader);
    }
    let payload = u32::from(u16::from_be(header.payload));
    let mut packet = Packet {
        tuple: Tuple {
            saddr: Addr(header.saddr),
            daddr: Addr(header.daddr),
            proto: header.next,
            family: 6,
            ..Tuple::NONE
        },
        ip,
        transport: ip + 40,
        transport_len: 0,
        len: if payload == 0 { 0 } else { payload + 40 },
        seq: 0,
        ack: 0,
        flags: 0,
        ttl: header.hops,
        later_fragment: false,
        no_ports: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(packet.tuple.proto) {
            return Ok(packet);
        }
        if packet.transport > MAX_OFFSET {
            break;
        }
        let extension: Extension = source.load(packet.transport).ok_or(Odd::Truncated)?;
        packet.transport += match packet.tuple.proto {
            FRAGMENT => {
                // The low three bits are not offset.
                packet.later_fragment = u16::from_be(extension.offset) & !7 != 0;
                8
            }
            AUTH => (u32::from(extension.len) + 2) * 4,
            _ => (u32::from(extension.len) + 1) * 8,
        };
        packet.transport = source.forget(packet.transport);
        packet.tuple.proto = extension.next;
        if packet.later_fragment {
            return Ok(packet);
        }
    }
    Err(Odd::BadIpHeader)
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DESTINATION | MOBILITY
    )
}

/// Ports, or what stands for them, of everything but TCP.
#[inline(always)]
fn connectionless<S: Source + ?Sized>(source: &S, packet: &mut Packet) -> Result<(), Odd> {
    match packet.tuple.proto {
        UDP | SCTP => {
            let ports: Ports = source.load(packet.transport).ok_or(Odd::Truncated)?;
            packet.tuple.sport = u16::from_be(ports.sport);
            packet.tuple.dport = u16::from_be(ports.dport);
            packet.transport_len = if packet.tuple.proto == UDP { 8 } else { 12 };
        }
        ICMP | ICMPV6 => {
            let icmp: Icmp = source.load(packet.transport).ok_or(Odd::Truncated)?;
            packet.tuple.dport = u16::from_be_bytes([icmp.kind, icmp.code]);
            if has_id(packet.tuple.proto, icmp.kind) {
                packet.tuple.sport = u16::from_be(icmp.id);
            }
            packet.transport_len = 8;
        }
        // A tunnel's packets: the two addresses tell them apart.
        IPIP | IPV6_IN_IP | GRE => {}
        _ => packet.no_ports = true,
    }
    Ok(())
}

/// Echo, timestamp and information messages carry an identifier, which conntrack takes for a port.
#[inline(always)]
fn has_id(proto: u8, kind: u8) -> bool {
    if proto == ICMPV6 {
        matches!(kind, 128 | 129)
    } else {
        matches!(kind, 0 | 8 | 13..=18)
    }
}

/// ICMP type and code of a tuple, which stand where a destination port would.
#[inline]
#[must_use]
pub const fn icmp_type_code(tuple: &Tuple) -> (u8, u8) {
    ((tuple.dport >> 8) as u8, tuple.dport as u8)
}

/// An ICMP or `ICMPv6` message that quotes the packet it complains about.
#[inline]
#[must_use]
pub const fn is_icmp_error(tuple: &Tuple) -> bool {
    let (kind, _) = icmp_type_code(tuple);
    match tuple.proto {
        ICMP => matches!(kind, 3 | 11 | 12),
        ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Neighbour discovery and multicast listener messages: how a link works, not traffic between endpoints.
#[inline]
#[must_use]
pub const fn is_link_control(tuple: &Tuple) -> bool {
    let (kind, _) = icmp_type_code(tuple);
    tuple.proto == ICMPV6 && matches!(kind, 130..=137 | 143)
}

/// An ICMP redirect, which routers of the same link send and hosts may ignore.
#[inline]
#[must_use]
pub const fn is_redirect(tuple: &Tuple) -> bool {
    tuple.proto == ICMP && icmp_type_code(tuple).0 == 5
}

/// What the ICMP or `ICMPv6` error at `transport` says: next-hop MTU (0 where it says none), and the packet quoted.
#[inline(always)]
pub fn icmp_error<S: Source + ?Sized>(
    source: &S,
    proto: u8,
    transport: u32,
) -> Option<(u32, Option<Packet>)> {
    let icmp: Icmp = source.load(transport)?;
    let (mtu, ethertype) = if proto == ICMPV6 {
        // The MTU takes the whole word.
        let high = u32::from(u16::from_be(icmp.id)) << 16;
        let too_big = icmp.kind == 2;
        let mtu = high | u32::from(u16::from_be(icmp.mtu));
        (if too_big { mtu } else { 0 }, IPV6)
    } else {
        let too_big = (icmp.kind, icmp.code) == (3, 4);
        let mtu = u32::from(u16::from_be(icmp.mtu));
        (if too_big { mtu } else { 0 }, IPV4)
    };
    Some((mtu, quoted(source, transport + 8, ethertype).ok()))
}

/// MSS option of the SYN or SYN-ACK whose TCP header of `len` bytes is at `transport`, 0 if it has none.
#[inline(always)]
pub fn mss<S: Source + ?Sized>(source: &S, transport: u32, len: u32) -> u16 {
    let end = transport + len;
    let mut at = transport + 20;
    for _ in 0..MAX_OPTIONS {
        if at + 4 > end || at > MAX_OFFSET {
            return 0;
        }
        let Some(option) = source.load::<TcpOption>(at) else {
            return 0;
        };
        match (option.kind, option.len) {
            (0, _) => return 0,
            (1, _) => at += 1,
            (2, 4) => {
                return source
                    .load::<Short>(at + 2)
                    .map_or(0, |mss| u16::from_be(mss.value));
            }
            (_, len) if len < 2 => return 0,
            (_, len) => at += u32::from(len),
        }
    }
    0
}

#[cfg(target_arch = "bpf")]
pub use kernel::{Buffer, Linear, Whole};

/// The sources inside the kernel.
#[cfg(target_arch = "bpf")]
mod kernel {
    use super::{Plain, Source};
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes};
    use aya_ebpf::programs::TcContext;
    use core::mem::MaybeUninit;

    /// The linear part of a packet at tc, by direct access.
    pub struct Linear {
        start: usize,
        end: usize,
    }

    impl Linear {
        /// Of this packet.
        #[inline(always)]
        pub fn new(ctx: &TcContext) -> Self {
            Self {
                start: ctx.data(),
                end: ctx.data_end(),
            }
        }

        /// Whether the packet goes on in page fragments.
        #[inline(always)]
        pub fn is_partial(&self, ctx: &TcContext) -> bool {
            self.end - self.start < ctx.len() as usize
        }
    }

    impl Source for Linear {
        #[inline(always)]
        fn load<T: Plain>(&self, offset: u32) -> Option<T> {
            let at = self.start + offset as usize;
            if at + size_of::<T>() > self.end {
                return None;
            }
            // SAFETY: inside the packet, as the verifier checks too; any bytes are a valid `T`. Headers may lie at any address: the
            // BPF machine loads words from everywhere, and nothing here is known to the compiler about the address.
            Some(unsafe { *(at as *const T) })
        }
    }

    /// The whole packet at tc, by a helper that also reads page fragments (and never changes the packet, as pulling them would).
    pub struct Whole<'a>(pub &'a TcContext);

    impl Source for Whole<'_> {
        #[inline(always)]
        fn load<T: Plain>(&self, offset: u32) -> Option<T> {
            let mut value = MaybeUninit::<T>::uninit();
            let size = size_of::<T>() as u32;
            // SAFETY: the helper fills all of `value` or returns an error; any bytes are a valid `T`.
            unsafe {
                let to = value.as_mut_ptr().cast();
                (bpf_skb_load_bytes(self.0.as_ptr(), offset, to, size) == 0)
                    .then(|| value.assume_init())
            }
        }
    }

    /// The linear buffer of an `sk_buff` in a tracing program.
    #[derive(Clone, Copy)]
    pub struct Buffer {
        /// Address of offset 0.
        pub start: u64,
        /// Bytes that are part of the packet.
        pub len: u32,
    }

    impl Source for Buffer {
        #[inline(always)]
        fn load<T: Plain>(&self, offset: u32) -> Option<T> {
            let size = size_of::<T>() as u32;
            if offset + size > self.len {
                return None;
            }
            let mut value = MaybeUninit::<T>::uninit();
            // SAFETY: the helper takes any address, and fills all of `value` or returns an error.
            unsafe {
                let to = value.as_mut_ptr().cast();
                let from = (self.start + u64::from(offset)) as *const _;
                (bpf_probe_read_kernel(to, size, from) == 0).then(|| value.assume_init())
            }
        }

        #[inline(always)]
        fn forget(&self, offset: u32) -> u32 {
            let mut offset = offset;
            let at = (&raw mut offset).cast();
            // SAFETY: the variable is written over with itself; what a helper has written is just bytes to the verifier.
            unsafe { bpf_probe_read_kernel(at, size_of::<u32>() as u32, at.cast()) };
            offset
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    extern crate std;

    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    impl Source for [u8] {
        fn load<T: Plain>(&self, offset: u32) -> Option<T> {
            T::read(self.get(offset as usize..)?)
        }
    }
    impl Source for Vec<u8> {
        fn load<T: Plain>(&self, offset: u32) -> Option<T> {
            self[..].load(offset)
        }
    }

    fn eth(ethertype: u16, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut frame = Vec::from([2u8; 12]);
        for (tpid, tci) in tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    fn ip4(proto: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let total = (20 + options + payload.len()) as u16;
        let mut ip = Vec::from([0x40 | (5 + options as u8 / 4), 0]);
        ip.extend(total.to_be_bytes());
        ip.extend([0, 7]);
        ip.extend(fragment.to_be_bytes());
        ip.extend([63, proto, 0, 0]);
        ip.extend([10, 0, 0, 1]);
        ip.extend([10, 96, 0, 2]);
        ip.extend(core::iter::repeat_n(1, options));
        ip.extend(payload);
        ip
    }

    fn ip6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut ip = Vec::from([0x60, 0, 0, 0]);
        ip.extend((rest.len() as u16).to_be_bytes());
        ip.extend([next, 61]);
        ip.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        ip.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        ip.extend(rest);
        ip
    }

    fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(40_000u16.to_be_bytes());
        tcp.extend(8_080u16.to_be_bytes());
        tcp.extend(0x0102_0304u32.to_be_bytes());
        tcp.extend(0x0506_0708u32.to_be_bytes());
        tcp.extend([
            ((20 + options.len()) as u8 / 4) << 4,
            flags,
            1,
            1,
            0,
            0,
            0,
            0,
        ]);
        tcp.extend(options);
        tcp
    }

    fn parse(frame: &[u8]) -> Result<Packet, Odd> {
        let link = ethernet(frame)?;
        packet(frame, link.ip, link.ethertype)
    }

    fn syn_mss(bytes: &[u8], packet: &Packet) -> u16 {
        mss(bytes, packet.transport, packet.transport_len)
    }

    fn quote_of(bytes: &[u8], packet: &Packet) -> Option<(u32, Option<Packet>)> {
        icmp_error(bytes, packet.tuple.proto, packet.transport)
    }

    fn ports(packet: &Packet) -> (u16, u16) {
        (packet.tuple.sport, packet.tuple.dport)
    }

    #[test]
    fn tcp_over_ipv4() {
        let mut segment = tcp(SYN | ACK, &[]);
        segment.extend([0xca; 9]);
        let frame = [eth(0x0800, &[]), ip4(TCP, 0, 0x4000, &segment)].concat();
        let packet = parse(&frame).unwrap();
        assert_eq!(ports(&packet), (40_000, 8_080));
        assert_eq!((packet.seq, packet.ack), (0x0102_0304, 0x0506_0708));
        assert_eq!((packet.flags, packet.ttl), (SYN | ACK, 63));
        assert_eq!(packet.payload(packet.len), 9);
        let daddr = Ipv4Addr::new(10, 96, 0, 2).to_ipv6_mapped();
        assert_eq!(packet.tuple.daddr.octets(), daddr.octets());
    }

    #[test]
    fn ipv4_options_and_vlan_tags_shift_the_headers() {
        for options in [0, 4, 40] {
            for tags in [&[][..], &[(0x8100, 0x2064)], &[(0x88a8, 100), (0x8100, 7)]] {
                let frame = [
                    eth(0x0800, tags),
                    ip4(UDP, options, 0, &[0, 53, 0x12, 0x34, 0, 8, 0, 0]),
                ]
                .concat();
                let link = ethernet(&frame).unwrap();
                assert_eq!(link.vlan, if tags.is_empty() { 0 } else { 100 });
                assert_eq!(ports(&parse(&frame).unwrap()), (53, 0x1234));
            }
        }
        let three = eth(0x0800, &[(0x8100, 1), (0x8100, 2), (0x8100, 3)]);
        assert_eq!(parse(&three), Err(Odd::UnknownEtherType));
    }

    #[test]
    fn ipv6_extension_headers_are_followed() {
        let mut rest = Vec::from([ROUTING, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([AUTH, 1]);
        rest.extend([0; 14]);
        rest.extend([TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend(tcp(ACK, &[]));
        let frame = [eth(0x86dd, &[]), ip6(HOP_BY_HOP, &rest)].concat();
        let packet = parse(&frame).unwrap();
        assert_eq!((packet.tuple.proto, packet.tuple.family), (TCP, 6));
        assert_eq!(ports(&packet), (40_000, 8_080));
        assert_eq!(packet.payload(packet.len), 0);
    }

    #[test]
    fn too_many_extension_headers() {
        let mut rest = Vec::new();
        for _ in 0..MAX_EXTENSIONS {
            rest.extend([DESTINATION, 0, 0, 0, 0, 0, 0, 0]);
        }
        let frame = [eth(0x86dd, &[]), ip6(DESTINATION, &rest)].concat();
        assert_eq!(parse(&frame), Err(Odd::BadIpHeader));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let v4 = [eth(0x0800, &[]), ip4(UDP, 0, 185, &[0xaa; 16])].concat();
        let packet = parse(&v4).unwrap();
        assert!(packet.later_fragment);
        assert_eq!((packet.tuple.proto, ports(&packet)), (UDP, (0, 0)));

        let first = [
            eth(0x0800, &[]),
            ip4(UDP, 0, 0x2000, &[0, 1, 0, 2, 0, 0, 0, 0]),
        ]
        .concat();
        assert_eq!(ports(&parse(&first).unwrap()), (1, 2));

        let rest = [&[UDP, 0, 0x05, 0xa8, 0, 0, 0, 9][..], &[0xaa; 16]].concat();
        let v6 = parse(&[eth(0x86dd, &[]), ip6(FRAGMENT, &rest)].concat()).unwrap();
        assert!(v6.later_fragment);
        assert_eq!((v6.tuple.proto, ports(&v6)), (UDP, (0, 0)));
    }

    #[test]
    fn every_cut_is_truncated_and_never_misread() {
        let options = [2, 4, 5, 0xb4];
        let frame = [
            eth(0x0800, &[(0x8100, 5)]),
            ip4(TCP, 8, 0, &tcp(SYN, &options)),
        ]
        .concat();
        // The last bytes read are the window, at 16 of the TCP header.
        let needed = frame.len() - options.len() - 4;
        for cut in 0..needed {
            assert_eq!(parse(&frame[..cut]), Err(Odd::Truncated), "cut at {cut}");
        }
        for cut in 18 + 28..needed {
            let seen = visible(&frame[..cut], 18, IPV4).unwrap();
            assert!(
                seen.later_fragment && ports(&seen) == (0, 0),
                "cut at {cut}"
            );
            assert_eq!(seen.tuple.proto, TCP);
        }
        let packet = parse(&frame[..needed]).unwrap();
        assert_eq!(syn_mss(&frame[..needed], &packet), 0);
        assert_eq!(syn_mss(&frame, &packet), 1460);
    }

    #[test]
    fn mss_is_found_behind_other_options_and_not_beyond_the_header() {
        let cases: [(&[u8], u16); 7] = [
            (&[2, 4, 0x05, 0xb4], 1460),
            (&[1, 1, 1, 1, 2, 4, 2, 0x18], 536),
            (
                &[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 4, 0x22, 0xb4],
                8884,
            ),
            (&[0, 0, 0, 0, 2, 4, 5, 5], 0),
            (&[3, 0, 2, 4, 5, 5, 1, 1], 0),
            (&[3, 60, 2, 4], 0),
            (&[], 0),
        ];
        for (options, expected) in cases {
            let mut bytes = ip4(TCP, 0, 0, &tcp(SYN, options));
            // What follows the header looks like an option and is not one.
            bytes.extend([2, 4, 9, 9, 2, 4, 9, 9]);
            let packet = packet(&bytes, 0, IPV4).unwrap();
            assert_eq!(syn_mss(&bytes, &packet), expected, "{options:?}");
        }
    }

    #[test]
    fn icmp_echo_has_its_id_and_errors_their_quote() {
        let echo = ip4(ICMP, 0, 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
        let packet4 = packet(&echo, 0, IPV4).unwrap();
        assert_eq!(ports(&packet4), (0x1234, 8 << 8));
        assert!(!is_icmp_error(&packet4.tuple));

        let inner = ip4(TCP, 4, 0, &tcp(ACK, &[])[..8]);
        let mut error = Vec::from([3u8, 4, 0, 0, 0, 0, 0x05, 0x78]);
        error.extend(&inner);
        let error = ip4(ICMP, 0, 0, &error);
        let outer = packet(&error, 0, IPV4).unwrap();
        assert!(is_icmp_error(&outer.tuple));
        assert_eq!(ports(&outer), (0, 3 << 8 | 4));
        let (mtu, quote) = quote_of(&error, &outer).unwrap();
        let quote = quote.unwrap();
        assert_eq!(mtu, 1400);
        assert_eq!(ports(&quote), (40_000, 8_080));
        assert_eq!(quote.seq, 0x0102_0304);
    }

    #[test]
    fn icmpv6_too_big() {
        let inner = ip6(UDP, &[0, 53, 0, 54, 0, 8, 0, 0]);
        let mut error = Vec::from([2u8, 0, 0, 0, 0, 1, 0x11, 0x70]);
        error.extend(&inner);
        let error = ip6(ICMPV6, &error);
        let outer = packet(&error, 0, IPV6).unwrap();
        let (mtu, quote) = quote_of(&error, &outer).unwrap();
        assert_eq!(mtu, 70_000);
        assert_eq!(ports(&quote.unwrap()), (53, 54));
        let cut = &error[..error.len() - 6];
        assert_eq!(quote_of(cut, &outer), Some((70_000, None)));
    }

    #[test]
    fn what_is_not_ip() {
        assert_eq!(parse(&eth(0x0806, &[])), Err(Odd::Arp));
        assert_eq!(parse(&eth(0x88cc, &[])), Err(Odd::UnknownEtherType));
        let mut bad = [eth(0x0800, &[]), ip4(TCP, 0, 0, &tcp(0, &[]))].concat();
        bad[14] = 0x44;
        assert_eq!(parse(&bad), Err(Odd::BadIpHeader));
        bad[14] = 0x65;
        assert_eq!(parse(&bad), Err(Odd::BadIpHeader));
    }

    #[test]
    fn unknown_transports_are_counted_without_ports() {
        let esp = parse(&[eth(0x0800, &[]), ip4(50, 0, 0, &[])].concat()).unwrap();
        assert!(esp.no_ports);
        assert_eq!((esp.tuple.proto, ports(&esp)), (50, (0, 0)));
    }

    #[test]
    fn packets_of_a_tunnel_need_no_ports() {
        for proto in [IPIP, IPV6_IN_IP, GRE] {
            let outer = parse(&[eth(0x0800, &[]), ip4(proto, 0, 0, &[])].concat()).unwrap();
            assert!(!outer.no_ports);
            assert_eq!((outer.tuple.proto, ports(&outer)), (proto, (0, 0)));
        }
    }

    #[test]
    fn neighbour_discovery_is_link_control() {
        for (kind, control) in [
            (128u8, false),
            (1, false),
            (134, true),
            (135, true),
            (143, true),
        ] {
            let bytes = ip6(ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            let packet = packet(&bytes, 0, IPV6).unwrap();
            assert_eq!(is_link_control(&packet.tuple), control, "type {kind}");
        }
    }
}
