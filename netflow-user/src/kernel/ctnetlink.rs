//! Conntrack events by netlink: the last way to learn of translations, where no tracepoint shows them.
//!
//! Only confirmed connections are announced, without the kernel's own time, and each event costs a message: so nothing
//! listens unless it has to. Never with `NETLINK_BROADCAST_ERROR`, which would let a slow reader make
//! conntrack drop packets (`nf_conntrack_eventmask_report` in `net/netfilter/nf_conntrack_ecache.c`, v6.18).

use super::clock::Clock;
use super::rtnl::{Message, Rtnl, attribute, u32_at};
use crate::model::record::{Event, Record};
use crate::model::{CtStatus, CtTuples, Proto, Time, Tuple};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

const NFNLGRP_CONNTRACK_NEW: u32 = 1;
const NFNLGRP_CONNTRACK_DESTROY: u32 = 3;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const CT_NEW: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const CT_DELETE: u16 = 1 << 8 | 2;

/// Attributes (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`, v6.18).
mod cta {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const MARK: u16 = 8;
    pub const ZONE: u16 = 18;
    pub const TUPLE_IP: u16 = 1;
    pub const TUPLE_PROTO: u16 = 2;
    pub const IP_V4_SRC: u16 = 1;
    pub const IP_V4_DST: u16 = 2;
    pub const IP_V6_SRC: u16 = 3;
    pub const IP_V6_DST: u16 = 4;
    pub const PROTO_NUM: u16 = 1;
    pub const PROTO_SRC_PORT: u16 = 2;
    pub const PROTO_DST_PORT: u16 = 3;
    pub const PROTO_ICMP_ID: u16 = 4;
    pub const PROTO_ICMP_TYPE: u16 = 5;
    pub const PROTO_ICMP_CODE: u16 = 6;
    pub const PROTO_ICMPV6_ID: u16 = 7;
    pub const PROTO_ICMPV6_TYPE: u16 = 8;
    pub const PROTO_ICMPV6_CODE: u16 = 9;
}

/// A subscription to new and ended entries of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct CtEvents {
    socket: Rtnl,
    netns: u32,
    clock: Clock,
    /// When everything had been read.
    read: Time,
}

/// What one drain gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// [`Event::Nat`] and [`Event::CtEnd`].
    pub records: Vec<Record>,
    /// Messages that could not be read.
    pub garbled: u64,
    /// Whether the kernel had to throw announcements away.
    pub overrun: bool,
}

impl CtEvents {
    /// Starts to listen; `netns` is the inode number of the thread's namespace.
    pub fn open(netns: u32, clock: Clock) -> io::Result<Self> {
        let groups = [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY];
        Ok(CtEvents {
            socket: Rtnl::netfilter_subscription(&groups)?,
            netns,
            read: clock.now(),
            clock,
        })
    }

    /// Everything that waits, without blocking.
    pub fn drain(&mut self) -> io::Result<Announced> {
        let mut announced = Announced::default();
        let now = self.clock.now();
        // A connection began between the reading before, when it was not there yet, and this one.
        let before = std::mem::replace(&mut self.read, now);
        let netns = self.netns;
        let received = self.socket.pending(|message| {
            let Message { kind, .. } = message;
            if kind != CT_NEW && kind != CT_DELETE {
                return;
            }
            let Some(ct) = decode(message).map(Arc::new) else {
                announced.garbled += 1;
                return;
            };
            let tuple = Some(ct.orig);
            let (time, event) = if kind == CT_NEW {
                (before, Event::Nat { ct, by: Some(now) })
            } else {
                (now, Event::CtEnd { ct, evicted: false })
            };
            announced.records.push(Record {
                time,
                netns,
                ifindex: 0,
                tuple,
                event,
            });
        });
        match received {
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => announced.overrun = true,
            result => result?,
        }
        Ok(announced)
    }
}

pub(super) fn decode(message: Message<'_>) -> Option<CtTuples> {
    let attributes = message.payload.get(4..)?;
    let number = |kind| {
        let value = attribute(attributes, kind)?;
        Some(u32::from_be(u32_at(value, 0)?))
    };
    Some(CtTuples {
        orig: tuple(attribute(attributes, cta::TUPLE_ORIG)?)?,
        reply: tuple(attribute(attributes, cta::TUPLE_REPLY)?)?,
        status: CtStatus(number(cta::STATUS).unwrap_or(0)),
        zone: attribute(attributes, cta::ZONE).and_then(be16).unwrap_or(0),
        mark: number(cta::MARK).unwrap_or(0),
        info: 0,
    })
}

fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

fn tuple(attributes: &[u8]) -> Option<Tuple> {
    let ip = attribute(attributes, cta::TUPLE_IP)?;
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(value) = attribute(ip, v4) {
            return Some(<[u8; 4]>::try_from(value).ok()?.into());
        }
        Some(<[u8; 16]>::try_from(attribute(ip, v6)?).ok()?.into())
    };
    let l4 = attribute(attributes, cta::TUPLE_PROTO)?;
    let byte = |kind| attribute(l4, kind).and_then(|value| value.first().copied());
    let short = |kind| attribute(l4, kind).and_then(be16);
    let proto = Proto(byte(cta::PROTO_NUM)?);
    let (sport, dport) = match proto {
        Proto::ICMP => (
            short(cta::PROTO_ICMP_ID),
            byte(cta::PROTO_ICMP_TYPE).zip(byte(cta::PROTO_ICMP_CODE)),
        ),
        Proto::ICMPV6 => (
            short(cta::PROTO_ICMPV6_ID),
            byte(cta::PROTO_ICMPV6_TYPE).zip(byte(cta::PROTO_ICMPV6_CODE)),
        ),
        _ => (
            short(cta::PROTO_SRC_PORT),
            short(cta::PROTO_DST_PORT)
                .map(u16::to_be_bytes)
                .map(Into::into),
        ),
    };
    let dport = dport.map_or(0, |(high, low)| u16::from_be_bytes([high, low]));
    Some(Tuple {
        proto,
        src: address(cta::IP_V4_SRC, cta::IP_V6_SRC)?,
        sport: sport.unwrap_or(0),
        dst: address(cta::IP_V4_DST, cta::IP_V6_DST)?,
        dport,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::rtnl::append;
    use super::*;

    fn nest(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, value) in parts {
            append(&mut out, *kind, value);
        }
        out
    }

    fn message(orig: &[u8], reply: &[u8]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0];
        out.extend(nest(&[
            (cta::TUPLE_ORIG, orig),
            (cta::TUPLE_REPLY, reply),
            (cta::STATUS, &0x1a8_u32.to_be_bytes()),
            (cta::MARK, &7_u32.to_be_bytes()),
            (cta::ZONE, &3_u16.to_be_bytes()),
        ]));
        out
    }

    fn tcp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Vec<u8> {
        nest(&[
            (
                cta::TUPLE_IP,
                &nest(&[(cta::IP_V4_SRC, &src), (cta::IP_V4_DST, &dst)]),
            ),
            (
                cta::TUPLE_PROTO,
                &nest(&[
                    (cta::PROTO_NUM, &[6]),
                    (cta::PROTO_SRC_PORT, &sport.to_be_bytes()),
                    (cta::PROTO_DST_PORT, &dport.to_be_bytes()),
                ]),
            ),
        ])
    }

    #[test]
    fn a_translated_connection() {
        let bytes = message(
            &tcp([10, 1, 0, 2], 40_000, [10, 96, 0, 7], 80),
            &tcp([10, 1, 0, 9], 8080, [10, 1, 0, 2], 40_000),
        );
        let ct = decode(Message::of(CT_NEW, &bytes)).unwrap();
        assert!(ct.is_dnat() && !ct.is_snat());
        assert_eq!((ct.status.0, ct.mark, ct.zone), (0x1a8, 7, 3));
        assert_eq!(ct.orig.to_string(), "TCP 10.1.0.2:40000 → 10.96.0.7:80");
        for cut in 0..bytes.len() {
            let _ = decode(Message::of(CT_NEW, &bytes[..cut]));
        }
        assert_eq!(decode(Message::of(CT_NEW, &bytes[..40])), None);
    }

    #[test]
    fn ping_by_ipv6() {
        let echo = nest(&[
            (
                cta::TUPLE_IP,
                &nest(&[(cta::IP_V6_SRC, &[0xfd; 16]), (cta::IP_V6_DST, &[0xfe; 16])]),
            ),
            (
                cta::TUPLE_PROTO,
                &nest(&[
                    (cta::PROTO_NUM, &[58]),
                    (cta::PROTO_ICMPV6_ID, &9_u16.to_be_bytes()),
                    (cta::PROTO_ICMPV6_TYPE, &[128]),
                    (cta::PROTO_ICMPV6_CODE, &[0]),
                ]),
            ),
        ]);
        let ct = decode(Message::of(CT_DELETE, &message(&echo, &echo))).unwrap();
        assert_eq!((ct.orig.sport, ct.orig.dport), (9, 128 << 8));
    }
}
