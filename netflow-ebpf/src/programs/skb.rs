//! What a tracing program reads off an `sk_buff`.

use super::netns::Netns;
use super::read::{Probe, Read, field};
use core::ffi::c_void;
use netflow_ebpf::parse::{self, Buffer, IPV4, IPV6, Odd, Packet};

/// An `sk_buff` in a namespace that is watched.
pub struct Skb {
    /// Where it is.
    pub address: *const c_void,
    /// Namespace of its device, else of its socket.
    pub netns: Netns,
    /// `skb->dev->ifindex`, 0 = no device (a packet of this machine's own that is not routed yet).
    pub ifindex: u32,
    /// `skb->protocol`, network order.
    pub ethertype: u16,
}

impl Skb {
    /// `None` if nobody watches its namespace.
    #[inline(always)]
    pub fn watched<R: Read>(skb: *const c_void) -> Option<Self> {
        let dev = field!(R, skb, skb_dev: *const c_void);
        // In the receive queue of a UDP socket `dev` is something else: whatever it leads to is no namespace that is watched.
        let (netns, ifindex) = if dev.is_null() {
            let sk = field!(R, skb, skb_sk: *const c_void);
            (Netns::of_socket::<R>(sk)?, 0)
        } else {
            (
                Netns::of_device::<R>(dev)?,
                field!(R, dev, dev_ifindex: u32),
            )
        };
        Some(Self {
            address: skb,
            netns,
            ifindex,
            ethertype: field!(R, skb, skb_protocol: u16),
        })
    }

    /// Whether it carries IP.
    #[inline(always)]
    pub fn is_ip(&self) -> bool {
        self.ethertype == IPV4 || self.ethertype == IPV6
    }

    /// The linear buffer from the IP header on.
    #[inline(always)]
    pub fn buffer<R: Read>(&self) -> Buffer {
        let head = field!(R, self.address, skb_head: u64);
        let network = u32::from(field!(R, self.address, skb_network_header: u16));
        let tail = field!(R, self.address, skb_tail: u32);
        Buffer {
            start: head + u64::from(network),
            len: tail.saturating_sub(network),
        }
    }

    /// Its headers, as far as they are in the buffer.
    #[inline(always)]
    pub fn packet(&self, buffer: &Buffer) -> Result<Packet, Odd> {
        parse::visible(buffer, 0, self.ethertype)
    }

    /// The packet that an ICMP error quotes.
    #[inline(always)]
    pub fn quoted(buffer: &Buffer, packet: &Packet) -> Option<Packet> {
        if packet.later_fragment || !parse::is_icmp_error(&packet.tuple) {
            return None;
        }
        parse::icmp_error(buffer, packet.tuple.proto, packet.transport)?.1
    }
}

/// A route of a packet.
pub struct Route {
    /// `dst->input`.
    pub input: u64,
    /// `dst->dev->ifindex`.
    pub ifindex: u32,
}

impl Route {
    /// `None` if the packet is not routed yet.
    #[inline(always)]
    pub fn of<R: Read>(skb: *const c_void) -> Option<Self> {
        use super::layout::layout;
        use netflow_ebpf::ABSENT;

        if layout!(skb_refdst) == ABSENT
            || layout!(dst_input) == ABSENT
            || layout!(dst_dev) == ABSENT
        {
            return None;
        }
        // The low bit says who owns the reference.
        let dst = (field!(R, skb, skb_refdst: u64) & !1) as *const c_void;
        if dst.is_null() {
            return None;
        }
        // A number to the verifier, so read through the helper.
        let dev = field!(Probe, dst, dst_dev: *const c_void);
        Some(Self {
            input: field!(Probe, dst, dst_input: u64),
            ifindex: field!(Probe, dev, dev_ifindex: u32),
        })
    }
}
