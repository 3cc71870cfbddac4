//! The conntrack table of the thread's network namespace, by ctnetlink.
//!
//! A table may hold hundreds of thousands of entries: the dump is walked message by message and only what touches an
//! address asked about is kept. The kernel needs about 2 µs for each entry that it shows, this side a fortieth of that;
//! its own filter (`CTA_FILTER`) would walk the table once more for every address and side.

use super::modules::CTNETLINK;
use super::netlink::{
    Attributes, Message, Netlink, NetlinkError, Request, address, be16_at, be32_at,
};
use crate::model::conntrack::{CtEntry, CtTable};
use crate::model::{CtStatus, CtTuples, Proto, Time, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// `IPCTNL_MSG_*` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`, v6.18).
mod msg {
    pub const NEW: u16 = 0;
    pub const GET: u16 = 1;
    pub const GET_STATS_CPU: u16 = 4;
    pub const GET_STATS: u16 = 5;
}

/// Attributes of an entry, `CTA_*`.
mod cta {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const PROTOINFO: u16 = 4;
    pub const TIMEOUT: u16 = 7;
    pub const MARK: u16 = 8;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    /// Inside `PROTOINFO`.
    pub const PROTOINFO_TCP: u16 = 1;
    /// Inside `PROTOINFO_TCP`.
    pub const PROTOINFO_TCP_STATE: u16 = 1;
    /// Inside a tuple.
    pub const TUPLE_IP: u16 = 1;
    pub const TUPLE_PROTO: u16 = 2;
}

/// `CTA_STATS_*` by number, with the names that `conntrack -S` and `/proc/net/stat/nf_conntrack` use.
const STATS: [&str; 16] = [
    "",
    "searched",
    "found",
    "new",
    "invalid",
    "ignore",
    "delete",
    "delete_list",
    "insert",
    "insert_failed",
    "drop",
    "early_drop",
    "error",
    "search_restart",
    "clash_resolve",
    "chaintoolong",
];

/// More matching entries than this are not kept: they would tell nothing more.
const MOST: usize = 16_384;

/// Why the table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The part of the kernel is not loaded.
    #[error("the module {} is not loaded, and netflow loads none", CTNETLINK.module)]
    NotLoaded,
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A listing that takes longer than this (100,000s of entries) is not made again for each reading of the node: what is
/// seen meanwhile would wait for it.
const DEAR: Duration = Duration::from_millis(400);
/// It is made again after so many times as long as it took.
const REST: u32 = 5;

/// A table, and whether there were more matching entries than are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// What was read.
    pub table: CtTable,
    /// How many matching entries were left out.
    pub left_out: usize,
}

/// Reads the table again and again.
#[derive(Debug, Default)]
pub struct Reader {
    /// The latest listing that was dear.
    latest: Option<Listing>,
}

/// Entries as they were found.
#[derive(Debug, Clone)]
struct Listing {
    entries: Vec<CtEntry>,
    left_out: usize,
    /// Addresses that it was made for.
    wanted: BTreeSet<IpAddr>,
    at: Time,
    took: Duration,
}

impl Listing {
    fn make(
        netfilter: &mut Netlink,
        wanted: &BTreeSet<IpAddr>,
        at: Time,
    ) -> Result<Listing, NetlinkError> {
        let began = Instant::now();
        let mut entries = if wanted.is_empty() {
            Vec::new()
        } else {
            netfilter.dump(&request(msg::GET), |m| entry(&m, wanted))?
        };
        let left_out = entries.len().saturating_sub(MOST);
        entries.truncate(MOST);
        Ok(Listing {
            entries,
            left_out,
            wanted: wanted.clone(),
            at,
            took: began.elapsed(),
        })
    }

    fn serves(&self, wanted: &BTreeSet<IpAddr>, now: Time) -> bool {
        self.wanted == *wanted && now.since(self.at) < self.took * REST
    }
}

impl Reader {
    /// Reads statistics, and the entries that touch one of `wanted`.
    pub fn read(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        now: Time,
    ) -> Result<Reading, ConntrackError> {
        if !CTNETLINK.is_present() {
            return Err(ConntrackError::NotLoaded);
        }
        let mut netfilter = Netlink::open(libc::NETLINK_NETFILTER)?;
        let (count, max) = netfilter
            .get(&request(msg::GET_STATS), |m| totals(&m))
            .unwrap_or_default();
        let known = self.latest.take().filter(|l| l.serves(wanted, now));
        let listing = match known {
            Some(listing) => listing,
            None => Listing::make(&mut netfilter, wanted, now)?,
        };
        if listing.took > DEAR {
            self.latest = Some(listing.clone());
        }
        let Listing {
            entries,
            left_out,
            at,
            ..
        } = listing;
        Ok(Reading {
            table: CtTable {
                time: now,
                listed: (at < now).then_some(at),
                entries,
                count,
                max,
                stats: statistics(&mut netfilter)?,
            },
            left_out,
        })
    }
}

fn request(message: u16) -> Request {
    // struct nfgenmsg: family (0 = all), version, res_id (u16)
    Request::new(kind(message), &[0; 4])
}

fn kind(message: u16) -> u16 {
    u16::try_from(libc::NFNL_SUBSYS_CTNETLINK).unwrap_or(1) << 8 | message
}

/// `CTA_STATS_GLOBAL_ENTRIES`, `CTA_STATS_GLOBAL_MAX_ENTRIES`.
pub(super) fn totals(message: &Message<'_>) -> Option<(u64, u64)> {
    let (_, attributes) = message.split::<4>()?;
    let (mut count, mut max) = (0, 0);
    for (kind, value) in attributes {
        match kind {
            1 => count = u64::from(be32_at(value, 0)?),
            2 => max = u64::from(be32_at(value, 0)?),
            _ => {}
        }
    }
    Some((count, max))
}

/// Statistics are kept per CPU: the sum of each.
fn statistics(netfilter: &mut Netlink) -> Result<BTreeMap<String, u64>, NetlinkError> {
    let per_cpu = netfilter.dump(&request(msg::GET_STATS_CPU), |m| {
        let (_, attributes) = m.split::<4>()?;
        let numbers = attributes.filter_map(|(kind, value)| {
            let name = STATS.get(usize::from(kind)).filter(|n| !n.is_empty())?;
            Some((*name, be32_at(value, 0)?))
        });
        Some(numbers.collect::<Vec<_>>())
    })?;
    let mut sums = BTreeMap::new();
    for (name, n) in per_cpu.into_iter().flatten() {
        *sums.entry(name.to_owned()).or_insert(0) += u64::from(n);
    }
    Ok(sums)
}

pub(super) fn entry(message: &Message<'_>, wanted: &BTreeSet<IpAddr>) -> Option<CtEntry> {
    if message.kind != kind(msg::NEW) {
        return None;
    }
    let (_, attributes) = message.split::<4>()?;
    let find = |wanted| attributes.clone().find(|(kind, _)| *kind == wanted);
    let orig = tuple(find(cta::TUPLE_ORIG)?.1)?;
    let reply = tuple(find(cta::TUPLE_REPLY)?.1)?;
    if ![orig.src, orig.dst, reply.src, reply.dst]
        .iter()
        .any(|ip| wanted.contains(ip))
    {
        return None;
    }
    let mut entry = CtEntry {
        tuples: CtTuples {
            orig,
            reply,
            status: CtStatus::default(),
            zone: 0,
            mark: 0,
            info: 0,
        },
        id: 0,
        timeout_secs: 0,
        tcp_state: None,
    };
    for (kind, value) in attributes {
        match kind {
            cta::STATUS => entry.tuples.status = CtStatus(be32_at(value, 0)?),
            cta::MARK => entry.tuples.mark = be32_at(value, 0)?,
            cta::ZONE => entry.tuples.zone = be16_at(value, 0)?,
            cta::ID => entry.id = be32_at(value, 0)?,
            cta::TIMEOUT => entry.timeout_secs = be32_at(value, 0)?,
            cta::PROTOINFO => entry.tcp_state = tcp_state(value),
            _ => {}
        }
    }
    Some(entry)
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut src, mut dst, mut ports) = (None, None, None);
    for (kind, value) in Attributes(bytes) {
        match kind {
            cta::TUPLE_IP => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        // CTA_IP_V4_SRC, CTA_IP_V6_SRC
                        1 | 3 => src = address(value),
                        // CTA_IP_V4_DST, CTA_IP_V6_DST
                        2 | 4 => dst = address(value),
                        _ => {}
                    }
                }
            }
            cta::TUPLE_PROTO => ports = transport(value),
            _ => {}
        }
    }
    let (proto, sport, dport) = ports?;
    Some(Tuple {
        proto,
        src: src?,
        sport,
        dst: dst?,
        dport,
    })
}

/// Protocol and ports (`CTA_PROTO_*`); for ICMP the identifier, and type and code.
fn transport(bytes: &[u8]) -> Option<(Proto, u16, u16)> {
    let (mut proto, mut sport, mut dport) = (None, 0, 0);
    for (kind, value) in Attributes(bytes) {
        match kind {
            1 => proto = value.first().copied().map(Proto),
            // SRC_PORT, ICMP_ID, ICMPV6_ID
            2 | 4 | 7 => sport = be16_at(value, 0)?,
            // DST_PORT
            3 => dport = be16_at(value, 0)?,
            // ICMP_TYPE, ICMPV6_TYPE
            5 | 8 => dport |= u16::from(*value.first()?) << 8,
            // ICMP_CODE, ICMPV6_CODE
            6 | 9 => dport |= u16::from(*value.first()?),
            _ => {}
        }
    }
    Some((proto?, sport, dport))
}

fn tcp_state(bytes: &[u8]) -> Option<u8> {
    let (_, tcp) = Attributes(bytes).find(|(kind, _)| *kind == cta::PROTOINFO_TCP)?;
    let (_, state) = Attributes(tcp).find(|(kind, _)| *kind == cta::PROTOINFO_TCP_STATE)?;
    state.first().copied()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;

    fn side(src: &[u8], dst: &[u8], proto: &[(u16, &[u8])]) -> Vec<u8> {
        let v6 = if src.len() == 16 { 2 } else { 0 };
        let ip = attributes(&[(1 + v6, src), (2 + v6, dst)]);
        let proto = attributes(proto);
        attributes(&[(0x8001, &ip), (0x8002, &proto)])
    }

    fn message(orig: &[u8], reply: &[u8], rest: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(attributes(&[(0x8001, orig), (0x8002, reply)]));
        bytes.extend(attributes(rest));
        bytes
    }

    fn read_for(wanted: &[IpAddr], payload: &[u8]) -> Option<CtEntry> {
        let kind = kind(msg::NEW);
        entry(
            &Message { kind, payload },
            &wanted.iter().copied().collect(),
        )
    }

    fn dnat() -> Vec<u8> {
        let ports = |src: u16, dst: u16| (src.to_be_bytes(), dst.to_be_bytes());
        let (sport, dport) = ports(40_000, 80);
        let orig = side(
            &[10, 1, 0, 2],
            &[10, 96, 0, 1],
            &[(1, &[6]), (2, &sport), (3, &dport)],
        );
        let (sport, dport) = ports(8080, 40_000);
        let reply = side(
            &[10, 1, 0, 3],
            &[10, 1, 0, 2],
            &[(1, &[6]), (2, &sport), (3, &dport)],
        );
        let tcp = attributes(&[(1, &[3])]);
        let info = attributes(&[(0x8001, &tcp)]);
        message(
            &orig,
            &reply,
            &[
                (3, &0x1ae_u32.to_be_bytes()),
                (7, &86_399_u32.to_be_bytes()),
                (8, &0x4000_u32.to_be_bytes()),
                (12, &0xdead_beef_u32.to_be_bytes()),
                (18, &5_u16.to_be_bytes()),
                (0x8004, &info),
            ],
        )
    }

    #[test]
    fn a_dear_listing_serves_for_a_while_and_for_the_same_addresses() {
        let wanted: BTreeSet<IpAddr> = [IpAddr::from([10, 96, 0, 1])].into();
        let at = Time(1_000_000_000);
        let listing = Listing {
            entries: Vec::new(),
            left_out: 0,
            wanted: wanted.clone(),
            at,
            took: Duration::from_secs(2),
        };
        assert!(listing.serves(&wanted, at + Duration::from_secs(9)));
        assert!(!listing.serves(&wanted, at + Duration::from_secs(10)));
        let others = [IpAddr::from([10, 96, 0, 2])].into();
        assert!(!listing.serves(&others, at));
    }

    #[test]
    fn a_translated_connection() {
        let bytes = dnat();
        let entry = read_for(&[[10, 96, 0, 1].into()], &bytes).unwrap();
        assert_eq!(
            entry.tuples.orig.to_string(),
            "TCP 10.1.0.2:40000 → 10.96.0.1:80"
        );
        assert_eq!(
            entry.tuples.translated().to_string(),
            "TCP 10.1.0.2:40000 → 10.1.0.3:8080"
        );
        assert!(entry.tuples.is_dnat() && !entry.tuples.is_snat());
        assert!(entry.tuples.status.assured() && entry.tuples.status.dst_nat());
        assert_eq!((entry.tuples.zone, entry.tuples.mark), (5, 0x4000));
        assert_eq!((entry.id, entry.timeout_secs), (0xdead_beef, 86_399));
        assert_eq!(entry.tcp_state, Some(3));
        torture(&bytes, |b| read_for(&[[10, 96, 0, 1].into()], b));
    }

    #[test]
    fn only_what_touches_an_address_is_kept() {
        for ip in [[10, 1, 0, 2], [10, 96, 0, 1], [10, 1, 0, 3]] {
            assert!(read_for(&[ip.into()], &dnat()).is_some());
        }
        assert_eq!(read_for(&[[10, 1, 0, 4].into()], &dnat()), None);
    }

    #[test]
    fn echo_over_ipv6() {
        let (a, b) = ([0x20; 16], [0x21; 16]);
        let id = 77_u16.to_be_bytes();
        let orig = side(&a, &b, &[(1, &[58]), (7, &id), (8, &[128]), (9, &[0])]);
        let reply = side(&b, &a, &[(1, &[58]), (7, &id), (8, &[129]), (9, &[0])]);
        let entry = read_for(&[b.into()], &message(&orig, &reply, &[])).unwrap();
        let orig = entry.tuples.orig;
        assert_eq!(
            (orig.proto, orig.sport, orig.dport),
            (Proto::ICMPV6, 77, 128 << 8)
        );
        assert_eq!(orig.src, IpAddr::from(a));
    }
}
