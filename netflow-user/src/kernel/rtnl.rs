//! A small rtnetlink client: requests with an answer, dumps, and a subscription.
//!
//! Messages are read attribute by attribute, so that one that holds something unknown is still counted and never stops a
//! dump: whether a foreign filter is there must not depend on whether we understand it.

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

/// `NLM_F_CREATE | NLM_F_EXCL`: make it, fail if it is there.
pub const CREATE: u16 = 0x400 | 0x200;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The kernel fills at most 32 KiB of a dump at once (`NLMSG_GOODSIZE` and `max_recvmsg_len` in
/// `net/netlink/af_netlink.c`, v6.18).
const BUFFER: usize = 64 << 10;

/// Receive buffer of a subscription: a burst of 100 new interfaces is about 300 KiB of messages.
const SUBSCRIPTION_BUFFER: i32 = 4 << 20;

/// A netlink message without its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_*` or, of netfilter, subsystem and type.
    pub kind: u16,
    /// Sequence number of the request it answers.
    sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

#[cfg(test)]
impl<'a> Message<'a> {
    /// A message as if received.
    pub fn of(kind: u16, payload: &'a [u8]) -> Self {
        Message {
            kind,
            sequence: 0,
            payload,
        }
    }
}

/// The messages of one datagram. Ends at the first that does not fit.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            sequence: u32_at(datagram, 8)?,
            payload: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Attributes of a message or of a nested attribute: kind and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let end = 4 + attribute.value_length();
        Some((attribute.kind(), attribute.into_inner().get(4..end)?))
    })
}

/// The value of attribute `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// A native 32-bit number at a place.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// A native 16-bit number at a place.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

/// A string attribute, without its terminating zero.
pub fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|&c| c == 0).unwrap_or(value.len());
    str::from_utf8(&value[..end]).unwrap_or("")
}

/// A request being written.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request of that kind with its fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Request {
            kind,
            flags,
            body: fixed.to_vec(),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.body, kind, value);
        self
    }

    fn bytes(&self, sequence: u32, flags: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.body.len());
        out.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        out.extend(self.kind.to_ne_bytes());
        out.extend((NLM_F_REQUEST | self.flags | flags).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(&self.body);
        out
    }
}

/// Appends an attribute to a list of attributes.
pub fn append(list: &mut Vec<u8>, kind: u16, value: &[u8]) {
    list.extend(((4 + value.len()) as u16).to_ne_bytes());
    list.extend(kind.to_ne_bytes());
    list.extend(value);
    list.resize(list.len().next_multiple_of(4), 0);
}

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        Ok(Rtnl {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// For requests to rtnetlink.
    pub fn requests() -> io::Result<Self> {
        Self::open(NETLINK_ROUTE)
    }

    /// Subscribed to rtnetlink multicast `groups`.
    pub fn subscription(groups: &[u32]) -> io::Result<Self> {
        Self::subscribe(NETLINK_ROUTE, groups)
    }

    /// Subscribed to netfilter multicast `groups`.
    pub fn netfilter_subscription(groups: &[u32]) -> io::Result<Self> {
        Self::subscribe(NETLINK_NETFILTER, groups)
    }

    fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let rtnl = Self::open(protocol)?;
        rtnl.socket.set_non_blocking(true)?;
        // More than net.core.rmem_max needs a privilege that a container may lack; less is only lost sooner.
        if super::sys::force_receive_buffer(rtnl.as_fd(), SUBSCRIPTION_BUFFER).is_err() {
            rtnl.socket.set_rx_buf_sz(SUBSCRIPTION_BUFFER)?;
        }
        for &group in groups {
            rtnl.socket.add_membership(group)?;
        }
        Ok(rtnl)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Sends `request` and calls `each` for every message of the answer up to its end.
    fn converse(
        &mut self,
        request: &Request,
        flags: u16,
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.bytes(self.sequence, flags);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        loop {
            let len = self.receive()?;
            for message in messages(&self.buffer[..len]) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match u32_at(message.payload, 0).unwrap_or(0).cast_signed() {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    _ => each(message),
                }
            }
        }
    }

    /// Asks for something to be changed and waits for the answer.
    pub fn change(&mut self, request: &Request) -> io::Result<()> {
        self.converse(request, NLM_F_ACK, |_| {})
    }

    /// Asks for a list.
    pub fn dump(&mut self, request: &Request, each: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.converse(request, NLM_F_DUMP, each)
    }

    /// Calls `each` for every message that waits, without blocking. `ENOBUFS` says that some were lost.
    pub fn pending(&mut self, mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        loop {
            match self.receive() {
                Ok(len) => messages(&self.buffer[..len]).for_each(&mut each),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Rtnl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut nested = Vec::new();
        append(&mut nested, 7, b"name\0");
        append(&mut nested, 6, &9_u32.to_ne_bytes());
        let request = Request::new(44, CREATE, &[1, 2, 3, 4])
            .with(1, b"bpf\0")
            .with(2, &nested);
        let bytes = request.bytes(5, NLM_F_ACK);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (44, 5));
        let body = &all[0].payload[4..];
        assert_eq!(attribute(body, 1).map(text), Some("bpf"));
        let options = attribute(body, 2).unwrap();
        assert_eq!(attribute(options, 7).map(text), Some("name"));
        assert_eq!(u32_at(attribute(options, 6).unwrap(), 0), Some(9));
        assert_eq!(attribute(options, 8), None);
    }

    #[test]
    fn garbage_ends_the_walk() {
        let request = Request::new(16, 0, &[0; 16]).with(3, b"lo\0");
        let good = request.bytes(1, 0);
        for cut in 0..good.len() {
            assert_eq!(messages(&good[..cut]).count(), 0);
        }
        let mut bad = good.clone();
        bad[0] = 3;
        assert_eq!(messages(&bad).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(text(&[0xff, 0xfe]), "");
    }
}
