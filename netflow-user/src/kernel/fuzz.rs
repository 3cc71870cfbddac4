//! Entry to the private readers of `kernel/` for [`crate::fuzz`].

use super::btf::{Btf, KernelTypes};
use super::clock::Clock;
use super::decode::{self, Names};
use super::kallsyms::{Kallsyms, Ranges, Symbols};
use super::reasons::DropReasons;
use super::{ctnetlink, layout, links, probes, rtnl, uevent};
use crate::model::NetnsId;
use crate::model::record::Record;
use netflow_ebpf::{Header, Plain};
use std::sync::Arc;

/// Addresses in drops whose functions mean something, and reasons that do.
const SYMBOLS: [(u64, &str); 3] = [
    (1, "ip_forward"),
    (2, "ip_local_deliver"),
    (3, "nft_do_chain"),
];
const REASONS: [(u32, &str); 2] = [(1, "NETFILTER_DROP"), (2, "NO_SOCKET")];

/// BTF as vmlinux's, then as a module's on top of itself.
pub fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec()) else {
        return;
    };
    let base = Arc::new(btf);
    if let Ok(module) = Btf::parse_split(data.to_vec(), base) {
        let types = KernelTypes::only(module);
        let reasons = DropReasons::read(&types).unwrap_or_default();
        layout::fill(&types, &reasons, &Ranges::new(), NetnsId::default());
        types.arguments_of(&probes::functions());
    }
}

/// Records one behind the other, each as long as it says.
pub fn ring(mut data: &[u8]) -> Vec<Record> {
    let (reasons, symbols) = (DropReasons::with(REASONS), Kallsyms::with(SYMBOLS));
    let names = Names {
        clock: Clock::with_offset(0),
        reasons: &reasons,
        symbols: &symbols,
    };
    let mut records = Vec::new();
    while let Some(header) = Header::read(data) {
        let size = usize::from(header.size).max(size_of::<Header>());
        let (record, rest) = data.split_at(size.min(data.len()));
        decode::addresses(record).for_each(drop);
        records.extend(decode::record(record, names));
        data = rest;
    }
    records
}

/// A datagram of rtnetlink or conntrack.
pub fn netlink(datagram: &[u8]) {
    for message in rtnl::messages(datagram) {
        links::decode(message);
        ctnetlink::decode(message);
    }
}

/// `/proc/kallsyms`, and the kernel's announcements.
pub fn text(data: &[u8]) {
    uevent::added(data);
    // An error is one of reading, and memory can be read.
    let _ = Symbols::of_list(data, &layout::functions());
}

#[cfg(test)]
mod tests {
    use super::super::decode::tests::sample_tuple;
    use super::*;
    use netflow_ebpf::{
        Ct, CtFullRecord, CtRecord, DropRecord, FibRecord, FlowEndRecord, FlowKey,
        FragmentedRecord, IcmpErrorRecord, IcmpSentRecord, IpvsRecord, Kind, ListenOverflowRecord,
        NatRecord, NeighborRecord, NeighborWaitRecord, PmtuLearnedRecord, PmtuReceivedRecord,
        SegmentRecord, SocketRecord, VERSION,
    };
    use std::io;
    use std::path::Path;

    const SEED: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fuzz/seeds/ring/every-kind"
    );

    fn kinds() -> impl Iterator<Item = Kind> {
        (0..=u8::MAX).filter_map(Kind::from_u8)
    }

    /// A record with a header that says what it is.
    fn record<T: Plain>(kind: Kind, fill: impl FnOnce(&mut T)) -> Vec<u8> {
        let mut record = T::zero();
        fill(&mut record);
        let header = Header {
            time: 500,
            netns_inum: 77,
            ifindex: 3,
            tuple: sample_tuple(),
            size: size_of::<T>() as u16,
            kind: kind as u8,
            version: VERSION,
            ..Header::zero()
        };
        let mut bytes = record.bytes().to_vec();
        bytes[..size_of::<Header>()].copy_from_slice(header.bytes());
        bytes
    }

    fn of_kind(kind: Kind) -> Vec<u8> {
        let tuple = sample_tuple();
        let ct = Ct {
            orig: tuple,
            reply: tuple,
            status: 0x1a8,
            ..Ct::zero()
        };
        let dir = netflow_ebpf::DIR_INGRESS;
        match kind {
            Kind::Syn | Kind::SynAck | Kind::Rst | Kind::FirstPacket | Kind::Retransmit => {
                record::<SegmentRecord>(kind, |r| r.dir = dir)
            }
            Kind::FlowEnd => record::<FlowEndRecord>(kind, |r| {
                r.key = FlowKey {
                    tuple,
                    dir,
                    ..FlowKey::zero()
                };
            }),
            Kind::IcmpError => record::<IcmpErrorRecord>(kind, |r| {
                (r.quoted, r.dir) = (tuple, dir);
            }),
            Kind::Drop => record::<DropRecord>(kind, |r| {
                (r.reason, r.place, r.ct) = (REASONS[0].0, SYMBOLS[2].0, ct);
                (r.verdict.family, r.verdict.rules) = (2, netflow_ebpf::RULES_NFT);
                (r.verdict.table[0], r.verdict.chain[0]) = (b't', b'c');
            }),
            Kind::Nat => record::<NatRecord>(kind, |r| r.ct = ct),
            Kind::IcmpSent => record::<IcmpSentRecord>(kind, |r| r.ct = ct),
            Kind::TcpRetransmit | Kind::ResetSent | Kind::ResetReceived => {
                record::<SocketRecord>(kind, |_| {})
            }
            Kind::FibError => record::<FibRecord>(kind, |r| r.dst = tuple.daddr),
            Kind::NeighborFailed => record::<NeighborRecord>(kind, |r| r.ip = tuple.daddr),
            Kind::NeighborWait => record::<NeighborWaitRecord>(kind, |r| r.ct = ct),
            Kind::CtEnd | Kind::CtInsertFailed | Kind::CtClash => {
                record::<CtRecord>(kind, |r| r.ct = ct)
            }
            Kind::CtFull => record::<CtFullRecord>(kind, |_| {}),
            Kind::PmtuReceived => record::<PmtuReceivedRecord>(kind, |r| r.quoted = tuple),
            Kind::PmtuLearned => record::<PmtuLearnedRecord>(kind, |r| r.dst = tuple.daddr),
            Kind::Fragmented => record::<FragmentedRecord>(kind, |_| {}),
            Kind::Ipvs => record::<IpvsRecord>(kind, |r| r.method = netflow_ebpf::IPVS_NAT),
            Kind::ListenOverflow => record::<ListenOverflowRecord>(kind, |_| {}),
        }
    }

    #[test]
    fn the_seed_holds_a_record_of_every_kind() -> io::Result<()> {
        let seed: Vec<u8> = kinds().flat_map(of_kind).collect();
        assert_eq!(ring(&seed).len(), kinds().count());
        crate::fuzz::keep(Path::new(SEED), &seed)
    }
}
