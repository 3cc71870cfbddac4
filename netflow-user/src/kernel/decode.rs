//! Records of the ring to the model's types. Pure: the same bytes and names give the same record.

use super::clock::Clock;
use super::kallsyms::Kallsyms;
use super::reasons::{DropReasons, NOT_SPECIFIED};
use crate::model::flow::{Direction, FlowKey, FlowSnapshot, FlowStats, TcpFlags};
use crate::model::record::{
    Drop, Event, IcmpError, IpvsMethod, NfFamily, NfHook, Record, Rejection, Rules, Segment,
    Verdict,
};
use crate::model::{CtStatus, CtTuples, Proto, Tuple};
use netflow_ebpf::{
    self as abi, Addr, CT_CLASHED, CT_EVICTED, Ct, CtRecord, DROP_HAS_DST, DropRecord, FibRecord,
    FlowEndRecord, FlowValue, FragmentedRecord, Header, IcmpErrorRecord, IcmpSentRecord,
    IpvsRecord, Kind, ListenOverflowRecord, NAME, NatRecord, NeighborRecord, NeighborWaitRecord,
    Plain, PmtuLearnedRecord, PmtuReceivedRecord, REASON_ABSENT, SegmentRecord, SocketRecord,
    VERSION,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a record of its kind.
    #[error("{0} bytes are too few for the record")]
    Short(usize),
    /// Written by programs of another version.
    #[error("record of version {0}")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("record of kind {0}")]
    Kind(u8),
    /// An address family that is neither IPv4 nor IPv6.
    #[error("address family {0}")]
    Family(u8),
    /// A direction that is neither in nor out.
    #[error("direction {0}")]
    Direction(u8),
    /// A way of IPVS that this version does not know.
    #[error("IPVS method {0}")]
    Method(u8),
}

/// What turns numbers into words.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Clock of the programs.
    pub clock: Clock,
    /// Drop reasons.
    pub reasons: &'a DropReasons,
    /// Functions, those of [`addresses`] learnt before.
    pub symbols: &'a Kallsyms,
}

/// Kernel addresses that decoding these bytes asks the names of.
pub fn addresses(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let dropped = Header::read(bytes)
        .filter(|header| header.kind == Kind::Drop as u8)
        .and_then(|_| DropRecord::read(bytes));
    dropped
        .into_iter()
        .flat_map(|record| [record.place, record.dst_input])
        .filter(|&address| address != 0)
}

/// One record of the ring.
pub fn record(bytes: &[u8], names: Names<'_>) -> Result<Record, DecodeError> {
    let header: Header = read(bytes)?;
    if header.version != VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let kind = Kind::from_u8(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    let event = match kind {
        Kind::Syn => Event::Syn(segment(bytes)?),
        Kind::SynAck => Event::SynAck(segment(bytes)?),
        Kind::Rst => Event::Rst(segment(bytes)?),
        Kind::FirstPacket => Event::FirstPacket(segment(bytes)?),
        Kind::Retransmit => Event::Retransmit(segment(bytes)?),
        Kind::FlowEnd => {
            let FlowEndRecord { key, value, .. } = read(bytes)?;
            Event::FlowEnd {
                flow: Box::new(snapshot(&key, &value, names.clock)?),
            }
        }
        Kind::IcmpError => {
            let record: IcmpErrorRecord = read(bytes)?;
            Event::IcmpError(IcmpError {
                dir: direction(record.dir)?,
                icmp_type: record.icmp_type,
                code: record.code,
                mtu: record.mtu,
                quoted: tuple(&record.quoted)?,
            })
        }
        Kind::Drop => Event::Drop(Box::new(dropped(&read(bytes)?, names)?)),
        Kind::Nat => {
            let NatRecord { ct, .. } = read(bytes)?;
            Event::Nat {
                ct: Arc::new(conntrack(&ct)?.ok_or(DecodeError::Family(0))?),
                by: None,
            }
        }
        Kind::IcmpSent => {
            let record: IcmpSentRecord = read(bytes)?;
            Event::IcmpSent {
                icmp_type: record.icmp_type,
                code: record.code,
                mtu: record.mtu,
                ct: conntrack(&record.ct)?.map(Arc::new),
            }
        }
        Kind::TcpRetransmit => {
            let SocketRecord { state, .. } = read(bytes)?;
            Event::TcpRetransmit { state }
        }
        Kind::ResetSent => Event::ResetSent,
        Kind::ResetReceived => Event::ResetReceived,
        Kind::FibError => {
            let record: FibRecord = read(bytes)?;
            Event::FibError {
                dst: canonical(record.dst),
                err: record.err,
                table: record.table,
            }
        }
        Kind::NeighborFailed => {
            let NeighborRecord { ip, .. } = read(bytes)?;
            Event::NeighborFailed { ip: canonical(ip) }
        }
        Kind::NeighborWait => {
            let NeighborWaitRecord { ip, ct, .. } = read(bytes)?;
            Event::NeighborWait {
                ip: canonical(ip),
                ct: conntrack(&ct)?.map(Arc::new),
            }
        }
        Kind::CtEnd | Kind::CtInsertFailed | Kind::CtClash => entry(kind, &read(bytes)?)?,
        Kind::CtFull => Event::CtFull,
        Kind::PmtuReceived => {
            let record: PmtuReceivedRecord = read(bytes)?;
            Event::PmtuReceived {
                mtu: record.mtu,
                quoted: tuple(&record.quoted)?,
                socket: record.socket != 0,
            }
        }
        Kind::PmtuLearned => {
            let record: PmtuLearnedRecord = read(bytes)?;
            Event::PmtuLearned {
                dst: canonical(record.dst),
                mtu: record.mtu,
                link_mtu: record.link_mtu,
            }
        }
        Kind::Fragmented => {
            let FragmentedRecord { len, link_mtu, .. } = read(bytes)?;
            Event::Fragmented { len, link_mtu }
        }
        Kind::Ipvs => ipvs(&read(bytes)?)?,
        Kind::ListenOverflow => {
            let ListenOverflowRecord { backlog, limit, .. } = read(bytes)?;
            Event::ListenOverflow { backlog, limit }
        }
    };
    Ok(Record {
        time: names.clock.time(header.time),
        netns: header.netns_inum,
        ifindex: header.ifindex,
        tuple: tuple(&header.tuple)?,
        event,
    })
}

fn read<T: Plain>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read(bytes).ok_or(DecodeError::Short(bytes.len()))
}

fn segment(bytes: &[u8]) -> Result<Segment, DecodeError> {
    let record: SegmentRecord = read(bytes)?;
    Ok(Segment {
        dir: direction(record.dir)?,
        flags: TcpFlags(record.flags),
        seq: record.seq,
        ack: record.ack,
        mss: record.mss,
        len: record.len,
        ttl: record.ttl,
    })
}

fn direction(dir: u8) -> Result<Direction, DecodeError> {
    match dir {
        abi::DIR_INGRESS => Ok(Direction::Ingress),
        abi::DIR_EGRESS => Ok(Direction::Egress),
        other => Err(DecodeError::Direction(other)),
    }
}

fn canonical(address: Addr) -> IpAddr {
    Ipv6Addr::from(address.octets()).to_canonical()
}

fn tuple(tuple: &abi::Tuple) -> Result<Option<Tuple>, DecodeError> {
    let address = |address: Addr| match tuple.family {
        4 => canonical(address),
        _ => IpAddr::V6(Ipv6Addr::from(address.octets())),
    };
    match tuple.family {
        0 => Ok(None),
        4 | 6 => Ok(Some(Tuple {
            proto: Proto(tuple.proto),
            src: address(tuple.saddr),
            sport: tuple.sport,
            dst: address(tuple.daddr),
            dport: tuple.dport,
        })),
        other => Err(DecodeError::Family(other)),
    }
}

fn conntrack(ct: &Ct) -> Result<Option<CtTuples>, DecodeError> {
    let (Some(orig), Some(reply)) = (tuple(&ct.orig)?, tuple(&ct.reply)?) else {
        return Ok(None);
    };
    Ok(Some(CtTuples {
        orig,
        reply,
        status: CtStatus(ct.status),
        zone: ct.zone,
        mark: ct.mark,
        info: ct.info,
    }))
}

/// What befell a conntrack entry.
fn entry(kind: Kind, record: &CtRecord) -> Result<Event, DecodeError> {
    let ct = Arc::new(conntrack(&record.ct)?.ok_or(DecodeError::Family(0))?);
    Ok(match kind {
        Kind::CtEnd => Event::CtEnd {
            ct,
            evicted: record.flags & CT_EVICTED != 0,
        },
        Kind::CtInsertFailed => Event::CtInsertFailed {
            ct,
            clash: record.flags & CT_CLASHED != 0,
        },
        _ => Event::CtClash { ct },
    })
}

fn ipvs(record: &IpvsRecord) -> Result<Event, DecodeError> {
    let method = match record.method {
        abi::IPVS_NAT => IpvsMethod::Nat,
        abi::IPVS_DIRECT => IpvsMethod::Direct,
        abi::IPVS_TUNNEL => IpvsMethod::Tunnel,
        abi::IPVS_LOCAL => IpvsMethod::Local,
        abi::IPVS_NONE => IpvsMethod::NoDestination,
        other => return Err(DecodeError::Method(other)),
    };
    let to = (record.family != 0).then(|| SocketAddr::new(canonical(record.dst), record.dport));
    Ok(Event::Ipvs { method, to })
}

fn dropped(record: &DropRecord, names: Names<'_>) -> Result<Drop, DecodeError> {
    let place = names.symbols.known(record.place);
    let reason = match record.reason {
        REASON_ABSENT => NOT_SPECIFIED.to_owned(),
        number => names.reasons.name(number),
    };
    let by_netfilter = reason == "NETFILTER_DROP"
        || reason == NOT_SPECIFIED && matches!(place.as_str(), "nf_hook_slow" | "nft_do_chain");
    let verdict = if by_netfilter {
        verdict(&record.verdict, &place)
    } else {
        None
    };
    let told = verdict.as_ref().filter(|v| v.family.is_some());
    let hook = match told {
        Some(_) => hook_numbered(record.verdict.hook),
        None if by_netfilter => hook(record, names.symbols),
        None => None,
    };
    Ok(Drop {
        hook,
        reason,
        place,
        flags: TcpFlags(record.tcp_flags),
        seq: record.seq,
        len: record.len,
        ct: conntrack(&record.ct)?,
        quoted: tuple(&record.quoted)?,
        count: record.count.max(1),
        verdict,
    })
}

/// What the hooks of netfilter have noted about a packet that it dropped at `place`. Rules that were asked last are those that
/// dropped it if they said so, or if the packet was dropped inside them (nftables does that since 6.8, `NF_DROP_REASON` in
/// include/linux/netfilter.h, v6.18).
fn verdict(noted: &abi::Verdict, place: &str) -> Option<Verdict> {
    let family = family(noted.family);
    let reject = match noted.reject {
        abi::REJECT_UNREACHABLE => Some(Rejection::Unreachable { code: noted.code }),
        abi::REJECT_RESET => Some(Rejection::Reset),
        _ => None,
    };
    let by_rules = noted.sure != 0 || place == "nft_do_chain";
    let rules = match noted.rules {
        _ if !by_rules => None,
        abi::RULES_NFT => Some(Rules::Nftables {
            family: self::family(noted.table_family),
            table: name(&noted.table)?,
            chain: name(&noted.chain)?,
        }),
        abi::RULES_XT => Some(Rules::Iptables {
            table: name(&noted.table)?,
        }),
        _ => None,
    };
    let known = family.is_some() || reject.is_some() || rules.is_some();
    known.then_some(Verdict {
        family,
        input: noted.input,
        output: noted.output,
        rules,
        reject,
    })
}

/// A name that the kernel ends with a zero; `None` if there is none.
fn name(bytes: &[u8; NAME]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(NAME);
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// `NFPROTO_*` (`include/uapi/linux/netfilter.h`, v6.18).
fn family(number: u8) -> Option<NfFamily> {
    Some(match number {
        1 => NfFamily::Inet,
        2 => NfFamily::Ip,
        3 => NfFamily::Arp,
        5 => NfFamily::Netdev,
        7 => NfFamily::Bridge,
        10 => NfFamily::Ip6,
        _ => return None,
    })
}

/// `enum nf_inet_hooks`; the first five are the same for bridges (`include/uapi/linux/netfilter_bridge.h`, v6.18).
fn hook_numbered(number: u8) -> Option<NfHook> {
    Some(match number {
        0 => NfHook::Prerouting,
        1 => NfHook::Input,
        2 => NfHook::Forward,
        3 => NfHook::Output,
        4 => NfHook::Postrouting,
        _ => return None,
    })
}

/// The netfilter hook that a rule's drop happened at, from what the packet's route had decided and which device the
/// packet is at. A packet without a route has not been routed yet. `ip_forward` and `ip_local_deliver` are what
/// a route hands received packets to (`rt_dst_alloc` and its callers in `net/ipv4/route.c`, v6.18); from the output
/// hook on `skb->dev` is the device it leaves by (`ip_output`), at the output hook of a local packet it is not set yet. IPv6
/// writes `ip6_forward` into the routes of local packets, too (`ip6_rt_init_dst`, `net/ipv6/route.c`).
fn hook(record: &DropRecord, symbols: &Kallsyms) -> Option<NfHook> {
    let began_here = record.iif == 0;
    if record.flags & DROP_HAS_DST == 0 {
        return (!began_here).then_some(NfHook::Prerouting);
    }
    match symbols.known(record.dst_input).as_str() {
        "ip_local_deliver" | "ip6_input" if !began_here => Some(NfHook::Input),
        "ip_forward" | "ip6_forward" if !began_here => {
            let leaving =
                record.header.ifindex == record.dst_ifindex && record.header.ifindex != record.iif;
            Some(if leaving {
                NfHook::Postrouting
            } else {
                NfHook::Forward
            })
        }
        _ if began_here && record.header.ifindex == 0 => Some(NfHook::Output),
        _ if began_here => Some(NfHook::Postrouting),
        _ => None,
    }
}

/// Key and value of the flow map.
pub fn snapshot(
    key: &abi::FlowKey,
    value: &FlowValue,
    clock: Clock,
) -> Result<FlowSnapshot, DecodeError> {
    let key = FlowKey {
        tuple: tuple(&key.tuple)?.ok_or(DecodeError::Family(0))?,
        ifindex: key.ifindex,
        dir: direction(key.dir)?,
        vlan: key.vlan,
        depth: key.depth,
    };
    Ok(FlowSnapshot {
        key,
        stats: stats(value, clock),
    })
}

fn stats(value: &FlowValue, clock: Clock) -> FlowStats {
    let FlowValue {
        packets,
        bytes,
        first_tick: _,
        last_tick: _,
        data,
        seq_end,
        ack,
        max_packet,
        mss,
        flags,
        ttl,
        retrans_max,
        retrans,
        syn_retrans,
        first,
        syn,
        syn_ack,
        rst,
        fin,
        retrans_first,
        retrans_last,
        isn,
        tunnel_id,
    } = *value;
    FlowStats {
        packets,
        bytes,
        first: clock.time(first),
        last: clock.time(clock.last(value)),
        flags: TcpFlags(flags),
        syn: clock.some_time(syn),
        syn_ack: clock.some_time(syn_ack),
        rst: clock.some_time(rst),
        fin: clock.some_time(fin),
        data: clock.some_time(data),
        syn_retrans,
        retrans,
        retrans_first: clock.some_time(retrans_first),
        retrans_last: clock.some_time(retrans_last),
        retrans_max,
        max_packet,
        isn,
        seq_end,
        ack,
        mss,
        ttl,
        tunnel_id,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::*;
    use crate::model::Time;
    use std::net::Ipv4Addr;

    fn clock() -> Clock {
        Clock::with_offset(1_000_000)
    }
    const FORWARD: u64 = 0x1000;
    const DELIVER: u64 = 0x2000;
    const PLACE: u64 = 0x3000;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Addr {
        Addr::v4(u32::from_ne_bytes([a, b, c, d]))
    }

    pub(crate) fn sample_tuple() -> abi::Tuple {
        abi::Tuple {
            saddr: v4(10, 1, 0, 2),
            daddr: v4(10, 96, 0, 7),
            sport: 40_000,
            dport: 80,
            proto: 6,
            family: 4,
            pad: 0,
        }
    }

    fn header(kind: Kind) -> Header {
        Header {
            time: 500,
            netns_inum: 77,
            ifindex: 3,
            tuple: sample_tuple(),
            kind: kind as u8,
            version: VERSION,
            ..Header::zero()
        }
    }

    fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let symbols = Kallsyms::with([
            (FORWARD, "ip_forward"),
            (DELIVER, "ip_local_deliver"),
            (PLACE, "nft_do_chain"),
        ]);
        let reasons = DropReasons::with([(12, "NETFILTER_DROP"), (3, "NO_SOCKET")]);
        let names = Names {
            clock: clock(),
            reasons: &reasons,
            symbols: &symbols,
        };
        record(bytes, names)
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { cases: 4096, failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_the_ring_holds_is_a_record_or_an_error(
            kind in proptest::prelude::any::<u8>(),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512),
            small in proptest::prelude::any::<bool>(),
        ) {
            let mut bytes = rest;
            if small {
                // Numbers that mean something: families, directions, hooks.
                for byte in &mut bytes {
                    *byte %= 11;
                }
            }
            for (offset, value) in [
                (std::mem::offset_of!(Header, version), VERSION),
                (std::mem::offset_of!(Header, kind), kind % 32),
            ] {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte = value;
                }
            }
            let _ = decode(&bytes);
            let _ = addresses(&bytes).count();
        }
    }

    #[test]
    fn a_syn() {
        let bytes = SegmentRecord {
            header: header(Kind::Syn),
            seq: 9,
            flags: 2,
            mss: 1460,
            dir: abi::DIR_EGRESS,
            ..SegmentRecord::zero()
        };
        let record = decode(bytes.bytes()).unwrap();
        assert_eq!(record.time, Time(1_000_500));
        assert_eq!((record.netns, record.ifindex), (77, 3));
        let tuple = record.tuple.unwrap();
        assert_eq!(tuple.src, IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)));
        assert_eq!(tuple.dport, 80);
        let Event::Syn(segment) = record.event else {
            panic!("a SYN");
        };
        assert_eq!(segment.dir, Direction::Egress);
        assert!(segment.flags.syn());
        assert_eq!((segment.seq, segment.mss), (9, 1460));
    }

    #[test]
    fn what_is_no_record() {
        let good = SegmentRecord {
            header: header(Kind::Rst),
            ..SegmentRecord::zero()
        };
        for len in 0..good.bytes().len() {
            assert_eq!(
                decode(&good.bytes()[..len]),
                Err(DecodeError::Short(len)),
                "{len}"
            );
        }
        let with = |change: fn(&mut SegmentRecord)| {
            let mut bad = good;
            change(&mut bad);
            decode(bad.bytes()).unwrap_err()
        };
        assert_eq!(with(|r| r.header.version = 9), DecodeError::Version(9));
        assert_eq!(with(|r| r.header.kind = 99), DecodeError::Kind(99));
        assert_eq!(with(|r| r.header.tuple.family = 5), DecodeError::Family(5));
        assert_eq!(with(|r| r.dir = 2), DecodeError::Direction(2));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        // A small generator of its own: the same bytes on every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = [0_u8; size_of::<DropRecord>()];
        for round in 0..20_000 {
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            let mut start = Header::read(&bytes).unwrap();
            start.version = VERSION;
            start.kind = (round % 28) as u8;
            start.tuple.family = [0, 4, 6, 7][round % 4];
            bytes[..72].copy_from_slice(start.bytes());
            let _ = decode(&bytes);
            assert!(addresses(&bytes).count() <= 2);
        }
    }

    fn drop_record() -> DropRecord {
        let ct = Ct {
            orig: sample_tuple(),
            reply: abi::Tuple {
                saddr: v4(10, 1, 0, 9),
                daddr: v4(10, 1, 0, 2),
                sport: 8080,
                dport: 40_000,
                ..sample_tuple()
            },
            status: 0x120,
            ..Ct::default()
        };
        DropRecord {
            header: header(Kind::Drop),
            place: PLACE,
            reason: 12,
            count: 0,
            iif: 3,
            ct,
            ..DropRecord::zero()
        }
    }

    #[test]
    fn a_drop_with_conntrack() {
        let bytes = drop_record();
        assert_eq!(addresses(bytes.bytes()).collect::<Vec<_>>(), [PLACE]);
        let Event::Drop(dropped) = decode(bytes.bytes()).unwrap().event else {
            panic!("a drop");
        };
        assert_eq!(dropped.reason, "NETFILTER_DROP");
        assert_eq!(dropped.place, "nft_do_chain");
        assert_eq!(dropped.count, 1);
        let ct = dropped.ct.unwrap();
        assert!(ct.is_dnat() && !ct.is_snat());
        assert_eq!(ct.translated().dport, 8080);
        assert_eq!(dropped.quoted, None);
    }

    #[test]
    fn the_hook_of_a_drop() {
        let hook_of = |change: &dyn Fn(&mut DropRecord)| {
            let mut record = drop_record();
            change(&mut record);
            let Event::Drop(dropped) = decode(record.bytes()).unwrap().event else {
                panic!("a drop");
            };
            dropped.hook
        };
        let routed = |r: &mut DropRecord, input| {
            r.flags = DROP_HAS_DST;
            r.dst_input = input;
            r.dst_ifindex = 8;
        };
        assert_eq!(hook_of(&|_| {}), Some(NfHook::Prerouting));
        assert_eq!(hook_of(&|r| routed(r, DELIVER)), Some(NfHook::Input));
        assert_eq!(hook_of(&|r| routed(r, FORWARD)), Some(NfHook::Forward));
        let at_the_exit = |r: &mut DropRecord| {
            routed(r, FORWARD);
            r.header.ifindex = 8;
        };
        assert_eq!(hook_of(&at_the_exit), Some(NfHook::Postrouting));
        let local = |r: &mut DropRecord| {
            routed(r, 0x9999);
            r.iif = 0;
            r.header.ifindex = 0;
        };
        assert_eq!(hook_of(&local), Some(NfHook::Output));
        let local_ipv6 = |r: &mut DropRecord| {
            local(r);
            r.dst_input = FORWARD;
        };
        assert_eq!(hook_of(&local_ipv6), Some(NfHook::Output));
        assert_eq!(
            hook_of(&|r| {
                routed(r, 0x9999);
                r.iif = 0;
            }),
            Some(NfHook::Postrouting)
        );
        assert_eq!(hook_of(&|r| r.reason = 3), None);
        assert_eq!(
            hook_of(&|r| r.reason = REASON_ABSENT),
            Some(NfHook::Prerouting)
        );
    }

    fn named(name: &str) -> [u8; NAME] {
        let mut bytes = [0; NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    fn verdict_of(change: &dyn Fn(&mut DropRecord)) -> (Option<NfHook>, Option<Verdict>) {
        let mut record = drop_record();
        change(&mut record);
        let Event::Drop(dropped) = decode(record.bytes()).unwrap().event else {
            panic!("a drop");
        };
        (dropped.hook, dropped.verdict)
    }

    #[test]
    fn the_rules_that_dropped_it() {
        let noted = |r: &mut DropRecord| {
            r.verdict.family = 2;
            r.verdict.hook = 2;
            r.verdict.output = 8;
            r.verdict.rules = abi::RULES_NFT;
            r.verdict.table_family = 1;
            r.verdict.table = named("filter");
            r.verdict.chain = named("forward");
        };
        let (hook, verdict) = verdict_of(&noted);
        let verdict = verdict.unwrap();
        assert_eq!(hook, Some(NfHook::Forward));
        assert_eq!((verdict.family, verdict.output), (Some(NfFamily::Ip), 8));
        let forward = Rules::Nftables {
            family: Some(NfFamily::Inet),
            table: "filter".to_owned(),
            chain: "forward".to_owned(),
        };
        assert_eq!(verdict.rules, Some(forward));
        assert_eq!(verdict.reject, None);
        // Dropped by the hook's caller, after rules that said nothing of the kind.
        let later = |r: &mut DropRecord| {
            noted(r);
            r.place = 0x99;
        };
        assert_eq!(verdict_of(&later).1.unwrap().rules, None);
        let table = |r: &mut DropRecord| {
            later(r);
            r.verdict.rules = abi::RULES_XT;
            r.verdict.sure = 1;
        };
        let iptables = Rules::Iptables {
            table: "filter".to_owned(),
        };
        assert_eq!(verdict_of(&table).1.unwrap().rules, Some(iptables));
        // Notes of a packet that was dropped elsewhere later on mean nothing.
        let elsewhere = |r: &mut DropRecord| {
            table(r);
            r.reason = 3;
        };
        assert_eq!(verdict_of(&elsewhere), (None, None));
    }

    #[test]
    fn a_rejection_without_its_hook() {
        let noted = |r: &mut DropRecord| {
            r.verdict.reject = abi::REJECT_UNREACHABLE;
            r.verdict.code = 13;
        };
        let (hook, verdict) = verdict_of(&noted);
        assert_eq!(hook, Some(NfHook::Prerouting));
        let verdict = verdict.unwrap();
        assert_eq!(verdict.reject, Some(Rejection::Unreachable { code: 13 }));
        assert_eq!((verdict.family, verdict.rules), (None, None));
    }

    #[test]
    fn entries_and_ipvs() {
        let bytes = CtRecord {
            header: header(Kind::CtInsertFailed),
            ct: drop_record().ct,
            flags: CT_CLASHED,
            ..CtRecord::zero()
        };
        let event = decode(bytes.bytes()).unwrap().event;
        assert!(matches!(event, Event::CtInsertFailed { clash: true, ct } if ct.is_dnat()));
        let mut bytes = IpvsRecord {
            header: header(Kind::Ipvs),
            dst: v4(10, 1, 0, 9),
            dport: 8080,
            method: abi::IPVS_DIRECT,
            family: 4,
            ..IpvsRecord::zero()
        };
        let to = "10.1.0.9:8080".parse().unwrap();
        assert_eq!(
            decode(bytes.bytes()).unwrap().event,
            Event::Ipvs {
                method: IpvsMethod::Direct,
                to: Some(to)
            }
        );
        bytes.method = abi::IPVS_NONE;
        bytes.family = 0;
        assert_eq!(
            decode(bytes.bytes()).unwrap().event,
            Event::Ipvs {
                method: IpvsMethod::NoDestination,
                to: None
            }
        );
        bytes.method = 77;
        assert_eq!(decode(bytes.bytes()), Err(DecodeError::Method(77)));
    }

    #[test]
    fn counters_of_a_flow() {
        let key = abi::FlowKey {
            tuple: sample_tuple(),
            ifindex: 4,
            vlan: 0,
            dir: abi::DIR_INGRESS,
            depth: 0,
        };
        let value = FlowValue {
            packets: 5,
            first: 900,
            first_tick: 7,
            last_tick: 7,
            syn: 900,
            retrans: 2,
            ..FlowValue::zero()
        };
        let flow = snapshot(&key, &value, clock()).unwrap();
        assert_eq!(flow.key.dir, Direction::Ingress);
        assert_eq!(flow.stats.first, Time(1_000_900));
        assert_eq!(flow.stats.last, flow.stats.first);
        assert_eq!(flow.stats.syn, Some(Time(1_000_900)));
        assert_eq!(flow.stats.syn_ack, None);
        let mut none = key;
        none.tuple.family = 0;
        assert_eq!(
            snapshot(&none, &value, clock()),
            Err(DecodeError::Family(0))
        );
    }

    #[test]
    fn ipv6_keeps_mapped_looking_addresses_as_they_are() {
        let mut record = SegmentRecord {
            header: header(Kind::Syn),
            ..SegmentRecord::zero()
        };
        record.header.tuple.family = 6;
        let tuple = decode(record.bytes()).unwrap().tuple.unwrap();
        assert!(tuple.src.is_ipv6());
    }
}
