//! One netlink request or dump at a time, over `netlink-sys`.
//!
//! Messages are read field by field and not through typed structures: an attribute that a newer kernel adds or widens
//! then costs nothing, and a dump of 262,144 conntrack entries is walked without building what is thrown away.

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long the kernel may take for one part of an answer. It answers at once unless a lock is held for long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a dump is read again when the table changed under it.
const ATTEMPTS: usize = 4;
/// Netlink dumps fill at most 32 KiB at a time (`netlink_recvmsg`, `net/netlink/af_netlink.c`, v6.18).
const BUFFER: usize = 64 * 1024;
const HEADER: usize = 16;

/// A request over netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened or set up.
    #[error("netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The request could not be sent or its answer not be received.
    #[error("netlink: {0}")]
    Transport(#[source] io::Error),
    /// The kernel refused.
    #[error("{0}")]
    Kernel(#[source] io::Error),
    /// No answer in time.
    #[error("the kernel did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// The answer could not be understood.
    #[error("an answer of the kernel could not be understood")]
    Malformed,
}

impl NetlinkError {
    /// Errno with which the kernel refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Kernel(e) => e.raw_os_error(),
            _ => None,
        }
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The fixed structure of `N` bytes at the start, and the attributes after it.
    pub fn split<const N: usize>(&self) -> Option<(&'a [u8; N], Attributes<'a>)> {
        let (fixed, rest) = self.payload.split_first_chunk::<N>()?;
        // The kernel pads the fixed part to the alignment of attributes.
        let padding = align(N) - N;
        Some((fixed, Attributes(rest.get(padding..).unwrap_or_default())))
    }
}

/// Walks the attributes of a message; stops at the first that is cut short.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    /// Type without its flag bits, and value.
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// `NLA_TYPE_MASK`: without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
        const TYPE: u16 = 0x3fff;
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

const fn align(len: usize) -> usize {
    len.div_ceil(4) * 4
}

/// The bytes at `offset`, as many as asked for.
pub fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// A number in the host's byte order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_ne_bytes)
}

/// A number in the host's byte order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_ne_bytes)
}

/// A number in network byte order.
pub fn be16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_be_bytes)
}

/// A number in network byte order.
pub fn be32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_be_bytes)
}

/// A string with or without its terminating zero.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// An address by its length: 4 or 16 bytes.
pub fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => bytes_at::<4>(bytes, 0).map(Into::into),
        16 => bytes_at::<16>(bytes, 0).map(Into::into),
        _ => None,
    }
}

/// The body of a request: a fixed structure, then attributes.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request of `nlmsg_type` `kind` whose fixed part is `fixed`.
    pub fn new(kind: u16, fixed: &[u8]) -> Self {
        let mut body = fixed.to_vec();
        body.resize(align(body.len()), 0);
        Self { kind, body }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, attribute: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.body.extend(len.to_ne_bytes());
        self.body.extend(attribute.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(align(self.body.len()), 0);
        self
    }

    fn encode(&self, flags: i32, seq: u32) -> Vec<u8> {
        let len = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        let mut out = Vec::with_capacity(HEADER + self.body.len());
        out.extend(len.to_ne_bytes());
        out.extend(self.kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(seq.to_ne_bytes());
        out.extend(0_u32.to_ne_bytes());
        out.extend(&self.body);
        out
    }
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Netlink {
    /// Opens a socket of a netlink family (`libc::NETLINK_ROUTE`, …).
    pub fn open(family: libc::c_int) -> Result<Self, NetlinkError> {
        let family = isize::try_from(family).map_err(|_| NetlinkError::Malformed)?;
        let mut socket = Socket::new(family).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        // Connected to the kernel, so that no process can slip an answer in.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(NetlinkError::Open)?;
        setsockopt(
            &socket,
            ReceiveTimeout,
            &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0),
        )
        .map_err(|e| NetlinkError::Open(e.into()))?;
        Ok(Self {
            socket,
            seq: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Asks for one thing and gives the first message of the answer to `read`.
    pub fn get<T>(
        &mut self,
        request: &Request,
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        let seq = self.send(request, 0)?;
        loop {
            let len = self.receive()?.ok_or(NetlinkError::Malformed)?;
            for part in Parts(self.buffer.get(..len).unwrap_or_default()) {
                if part.seq != seq {
                    continue;
                }
                return match part.error() {
                    Some(e) => Err(e),
                    None => read(part.message).ok_or(NetlinkError::Malformed),
                };
            }
        }
    }

    /// Asks for a whole table and keeps what `keep` makes of its messages.
    ///
    /// A table that changed while it was read is read again; if it never stands still the last reading is taken: each
    /// row of it was true, only a row that came or went meanwhile may be missing.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        mut keep: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut attempt = 1;
        loop {
            let mut rows = Vec::new();
            let torn = self.dump_once(request, &mut |message| rows.extend(keep(message)))?;
            if !torn || attempt == ATTEMPTS {
                return Ok(rows);
            }
            attempt += 1;
        }
    }

    /// Reads a whole table once. Returns whether it changed, or part of the answer was lost, meanwhile.
    pub fn dump_once(
        &mut self,
        request: &Request,
        row: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, NetlinkError> {
        let seq = self.send(request, libc::NLM_F_DUMP)?;
        let mut torn = false;
        loop {
            let Some(len) = self.receive()? else {
                torn = true;
                continue;
            };
            for part in Parts(self.buffer.get(..len).unwrap_or_default()) {
                if part.seq != seq {
                    continue;
                }
                torn |= part.is(libc::NLMSG_OVERRUN)
                    || i32::from(part.flags) & libc::NLM_F_DUMP_INTR != 0;
                if let Some(e) = part.error() {
                    return Err(e);
                }
                if part.is(libc::NLMSG_DONE) {
                    return Ok(torn);
                }
                if !part.is(libc::NLMSG_NOOP) && !part.is(libc::NLMSG_OVERRUN) {
                    row(part.message);
                }
            }
        }
    }

    /// Overwrites what the kernel has answered.
    pub fn wipe(&mut self) {
        self.buffer.fill(0);
        // Nobody reads it again, which is no reason to leave it out.
        std::hint::black_box(&self.buffer);
    }

    fn send(&mut self, request: &Request, flags: i32) -> Result<u32, NetlinkError> {
        self.seq = self.seq.wrapping_add(1);
        let bytes = request.encode(flags, self.seq);
        loop {
            match self.socket.send(&bytes, 0) {
                Ok(_) => return Ok(self.seq),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::Transport(e)),
            }
        }
    }

    /// Length of the next datagram in the buffer; `None` if one was lost.
    fn receive(&mut self) -> Result<Option<usize>, NetlinkError> {
        loop {
            match self
                .socket
                .recv(&mut self.buffer.as_mut_slice(), libc::MSG_TRUNC)
            {
                Ok(len) if len > self.buffer.len() => {
                    self.buffer.resize(len.next_power_of_two(), 0);
                    return Ok(None);
                }
                Ok(len) => return Ok(Some(len)),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENOBUFS) => return Ok(None),
                    Some(libc::EAGAIN) => return Err(NetlinkError::Timeout),
                    _ => return Err(NetlinkError::Transport(e)),
                },
            }
        }
    }
}

/// A message with the header fields that only this module needs.
pub(super) struct Part<'a> {
    pub message: Message<'a>,
    flags: u16,
    seq: u32,
}

impl Part<'_> {
    fn is(&self, kind: libc::c_int) -> bool {
        i32::from(self.message.kind) == kind
    }

    /// The error that this message carries. `NLMSG_DONE` carries one too when a dump ended early.
    pub fn error(&self) -> Option<NetlinkError> {
        let (error, done) = (self.is(libc::NLMSG_ERROR), self.is(libc::NLMSG_DONE));
        if !error && !done {
            return None;
        }
        match bytes_at(self.message.payload, 0).map(i32::from_ne_bytes) {
            Some(code) if code < 0 => Some(NetlinkError::Kernel(io::Error::from_raw_os_error(
                code.saturating_neg(),
            ))),
            None if error => Some(NetlinkError::Malformed),
            _ => None,
        }
    }
}

/// Walks the messages of one datagram; stops at the first that is cut short.
pub(super) struct Parts<'a>(pub &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let len = u32_at(self.0, 0)? as usize;
        let payload = self.0.get(HEADER..len)?;
        let part = Part {
            message: Message {
                kind: u16_at(self.0, 4)?,
                payload,
            },
            flags: u16_at(self.0, 6)?,
            seq: u32_at(self.0, 8)?,
        };
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(part)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use super::*;

    /// Feeds `read` every prefix of `bytes` and `bytes` with each byte changed: nothing may panic.
    pub fn torture<T>(bytes: &[u8], read: impl Fn(&[u8]) -> T) {
        for end in 0..=bytes.len() {
            read(&bytes[..end]);
        }
        let mut changed = bytes.to_vec();
        for at in 0..bytes.len() {
            for value in [0, 1, 3, 5, 0x7f, 0x80, 0xff] {
                changed[at] = value;
                read(&changed);
            }
            changed[at] = bytes[at];
        }
    }

    /// Attributes as a byte string, for the tests of the parsers.
    pub fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut request = Request::new(0, &[]);
        for (kind, value) in list {
            request = request.with(*kind, value);
        }
        request.body
    }

    #[test]
    fn attributes_come_back_as_written() {
        let bytes = attributes(&[(1, b"abc"), (0x8002, &[]), (3, &[1, 2, 3, 4])]);
        let read: Vec<_> = Attributes(&bytes).collect();
        let expected: [(u16, &[u8]); 3] = [(1, b"abc"), (2, &[]), (3, &[1, 2, 3, 4])];
        assert_eq!(read, expected);
        torture(&bytes, |b| Attributes(b).count());
    }

    #[test]
    fn a_zero_length_does_not_loop() {
        assert_eq!(Attributes(&[0; 64]).count(), 0);
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Parts(&[0; 64]).count(), 0);
    }

    #[test]
    fn messages_are_walked_and_errors_found() {
        let mut bytes = Request::new(16, b"hello").encode(0, 7);
        let refused = Request::new(2, &(-libc::EPERM).to_ne_bytes()).encode(0, 7);
        bytes.extend(refused);
        let parts: Vec<_> = Parts(&bytes).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].message.kind, 16);
        assert!(parts[0].message.payload.starts_with(b"hello"));
        assert_eq!(parts[1].error().unwrap().errno(), Some(libc::EPERM));
        let done = Request::new(3, &0_i32.to_ne_bytes()).encode(0, 7);
        assert!(Parts(&done).next().unwrap().error().is_none());
        let cut = Request::new(2, &[]).encode(0, 7);
        assert!(matches!(
            Parts(&cut).next().unwrap().error(),
            Some(NetlinkError::Malformed)
        ));
        torture(&bytes, |b| Parts(b).filter_map(|p| p.error()).count());
    }

    #[test]
    fn an_unknown_request_is_refused_by_name() {
        let mut route = Netlink::open(libc::NETLINK_ROUTE).unwrap();
        let refused = route.get(&Request::new(0x7000, &[0; 4]), |_| Some(()));
        assert!(refused.unwrap_err().errno().is_some());
        // The socket still works, and sees the answer to the request that it sends next.
        let links = Request::new(libc::RTM_GETLINK, &[0; 16]);
        assert!(!route.dump(&links, |m| Some(m.kind)).unwrap().is_empty());
    }
}
