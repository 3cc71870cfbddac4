//! Records as the ring has them.

use crate::objects;
use netflow_ebpf::{
    Addr, Ct, CtRecord, DIR_INGRESS, Header, Kind, NatRecord, Plain, SegmentRecord, Tuple, VERSION,
};
use std::net::Ipv4Addr;

/// Connections that are live at once.
pub const CONNECTIONS: u32 = 100_000;
/// Records of each; the last says that conntrack has forgotten it, which leaves it as it is.
const EACH: u32 = 4;

/// Status of an entry that is in the table with its destination translated (`enum ip_conntrack_status`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/netfilter/nf_conntrack_common.h>).
const TRANSLATED: u32 = 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8;
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// What backends listen on.
const TARGET: u16 = 8080;

/// Bytes one after another, and where each record ends.
pub struct Ring {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Ring {
    /// Every connection begins, then every one is translated, and so on: the worst order for what was touched last.
    pub fn fill() -> Ring {
        let mut ring = Ring {
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        for step in 0..EACH {
            for number in 0..CONNECTIONS {
                ring.push(step, number);
            }
        }
        ring
    }

    /// How many records there are.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Each record's bytes.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    fn push(&mut self, step: u32, number: u32) {
        let (orig, reply) = tuples(number);
        let time = u64::from(step * CONNECTIONS + number) * 1_000;
        match step {
            0 => self.add(&segment(Kind::Syn, SYN, orig, time)),
            1 => self.add(&NatRecord {
                header: header(Kind::Nat, turned(&reply), time),
                ct: entry(orig, reply),
            }),
            2 => self.add(&segment(Kind::SynAck, SYN | ACK, reply, time)),
            _ => self.add(&CtRecord {
                header: header(Kind::CtEnd, orig, time),
                ct: entry(orig, reply),
                ..CtRecord::zero()
            }),
        }
    }

    fn add(&mut self, record: &impl Plain) {
        self.bytes.extend(record.bytes());
        self.ends.push(self.bytes.len());
    }
}

/// Client → Service, and the Pod that serves it → client.
fn tuples(number: u32) -> (Tuple, Tuple) {
    let (client, backend) = (objects::pod(number), objects::pod(number / 7 + 1));
    // A Pod has so many ports, and there are more connections than Pods.
    let sport = 32_768 + (number / objects::PODS) as u16;
    let orig = tuple((client, sport), (objects::service(number), objects::PORT));
    (orig, tuple((backend, TARGET), (client, sport)))
}

fn tuple(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Tuple {
    let address = |ip: Ipv4Addr| Addr::v4(u32::from_ne_bytes(ip.octets()));
    Tuple {
        saddr: address(from.0),
        daddr: address(to.0),
        sport: from.1,
        dport: to.1,
        proto: TCP,
        family: 4,
        pad: 0,
    }
}

fn turned(tuple: &Tuple) -> Tuple {
    Tuple {
        saddr: tuple.daddr,
        daddr: tuple.saddr,
        sport: tuple.dport,
        dport: tuple.sport,
        ..*tuple
    }
}

fn header(kind: Kind, tuple: Tuple, time: u64) -> Header {
    Header {
        time,
        netns_inum: 1,
        ifindex: 2,
        tuple,
        kind: kind as u8,
        version: VERSION,
        ..Header::zero()
    }
}

fn segment(kind: Kind, flags: u8, tuple: Tuple, time: u64) -> SegmentRecord {
    SegmentRecord {
        header: header(kind, tuple, time),
        flags,
        mss: 1460,
        dir: DIR_INGRESS,
        ..SegmentRecord::zero()
    }
}

fn entry(orig: Tuple, reply: Tuple) -> Ct {
    Ct {
        orig,
        reply,
        status: TRANSLATED,
        ..Ct::zero()
    }
}
