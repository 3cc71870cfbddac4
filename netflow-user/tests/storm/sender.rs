//! Datagrams of ever new tuples, as fast as one core sends them.

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType,
    SockaddrIn, sendmmsg, socket,
};
use nix::time::{ClockId, clock_gettime};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Packets in one system call.
const BATCH: usize = 64;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PACKET: usize = IP_HEADER + UDP_HEADER;

/// Ports of either side: none that the tests use.
const PORTS: std::ops::Range<u64> = 20_000..60_000;

/// From one address to another.
pub struct Sender {
    from: Ipv4Addr,
    to: Ipv4Addr,
    sent: AtomicU64,
    /// Nanoseconds of the sending thread.
    time: AtomicU64,
}

impl Sender {
    /// Nothing sent yet.
    pub fn new(from: Ipv4Addr, to: Ipv4Addr) -> Sender {
        Sender {
            from,
            to,
            sent: AtomicU64::new(0),
            time: AtomicU64::new(0),
        }
    }

    /// Time that the sending thread had a core, until it ended.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.time.load(Ordering::Relaxed))
    }

    /// Packets sent, each of a tuple of its own.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends until `stop`, in the network namespace of the calling thread.
    pub fn send(&self, stop: &AtomicBool) -> Result<()> {
        // It takes whole packets, and so needs no socket for each source port.
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )?;
        let addresses = [Some(SockaddrIn::from(SocketAddrV4::new(self.to, 0))); BATCH];
        let mut packets = [self.packet(); BATCH];
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            for (at, packet) in (number..).zip(&mut packets) {
                packet[IP_HEADER..][..4].copy_from_slice(&ports(at));
            }
            let slices = packets.each_ref().map(|packet| [IoSlice::new(packet)]);
            let mut headers = MultiHeaders::preallocate(BATCH, None);
            let sent = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                addresses,
                [] as [ControlMessage<'_>; 0],
                MsgFlags::empty(),
            );
            match sent {
                Ok(sent) => number += sent.count() as u64,
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.sent.store(number, Ordering::Relaxed);
        }
        let time = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
        self.time.store(time.as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// A datagram without payload; the kernel writes the header's checksum, and UDP needs none.
    fn packet(&self) -> [u8; PACKET] {
        const UDP: u8 = 17;
        let mut packet = [0; PACKET];
        packet[..10].copy_from_slice(&[0x45, 0, 0, PACKET as u8, 0, 0, 0x40, 0, 64, UDP]);
        packet[12..16].copy_from_slice(&self.from.octets());
        packet[16..20].copy_from_slice(&self.to.octets());
        packet[IP_HEADER + 5] = UDP_HEADER as u8;
        packet
    }
}

/// Source and destination port of packet `number`, as they stand in the header.
fn ports(number: u64) -> [u8; 4] {
    let count = PORTS.end - PORTS.start;
    let source = (PORTS.start + number / count % count) as u16;
    let destination = (PORTS.start + number % count) as u16;
    let [[a, b], [c, d]] = [source, destination].map(u16::to_be_bytes);
    [a, b, c, d]
}
