//! Matches and targets of `x_tables`, as they stand in iptables-legacy entries and in nftables' compat expressions.
//!
//! Layouts: `include/uapi/linux/netfilter/xt_*.h` and `include/uapi/linux/netfilter_ipv{4,6}/`, v6.18. A match of a name or
//! revision that is not listed here, or shorter than its structure, becomes [`Test::Unknown`].

use super::ruleset::{
    Dnat, Effect, Field, Operand, Ranges, Source, Step, Test, Value, Verdict, ct_state, number,
    ones,
};
use crate::node::netlink::text;

/// Bytes of a structure; every read is checked.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a>(pub &'a [u8]);

impl<'a> Blob<'a> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    /// A byte.
    pub fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    /// In the machine's order.
    pub fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    /// In the network's order.
    pub fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// In the machine's order.
    pub fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    /// In the machine's order.
    pub fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }

    /// `len` bytes.
    pub fn bytes(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(len)?)
    }

    /// An address, which stands at the beginning of a `union nf_inet_addr` where it is IPv4.
    pub fn address(self, at: usize, v6: bool) -> Option<Value> {
        Some(number(self.bytes(at, width(v6).into())?, false))
    }
}

/// Bytes of an address.
pub fn width(v6: bool) -> u8 {
    if v6 { 16 } else { 4 }
}

/// `field` lies in `ranges`.
pub fn within(field: Field, width: u8, ranges: Ranges, not: bool) -> Test {
    Test::Range {
        operand: Operand::whole(field, width),
        not,
        ranges,
    }
}

/// `field & mask == address`; a mask of leading ones becomes a range.
pub fn network(field: Field, v6: bool, address: Value, mask: Value, not: bool) -> Option<Test> {
    let all = ones(width(v6));
    let (address, hole) = (address & mask, all & !mask);
    if mask == 0 && !not {
        return None;
    }
    Some(if hole & hole.wrapping_add(1) == 0 {
        within(field, width(v6), Ranges::One(address, address | hole), not)
    } else {
        Test::Range {
            operand: Operand {
                mask,
                ..Operand::whole(field, width(v6))
            },
            not,
            ranges: Ranges::only(address),
        }
    })
}

fn port(field: Field, from: u16, to: u16, not: bool) -> Option<Test> {
    if (from, to) == (0, u16::MAX) && !not {
        return None;
    }
    Some(within(field, 2, Ranges::One(from.into(), to.into()), not))
}

/// Mask test on a host-order word: `(field & mask)` is (not) one of the values.
fn masked(field: Field, mask: u32, value: u32, not: bool) -> Test {
    Test::Range {
        operand: Operand {
            mask: mask.into(),
            ..Operand::whole(field, 4)
        },
        not,
        ranges: Ranges::only(value.into()),
    }
}

/// What a match adds to its rule.
#[derive(Debug, Default)]
pub struct Match {
    /// Conditions, all of which must hold.
    pub tests: Vec<Test>,
    /// Text of `-m comment`.
    pub comment: Option<Box<str>>,
}

/// Decodes a match.
pub fn decode_match(v6: bool, name: &str, revision: u8, info: &[u8]) -> Match {
    if name == "comment" {
        return Match {
            tests: Vec::new(),
            comment: Some(text(info).into()),
        };
    }
    let tests = tests_of(v6, name, revision, Blob(info))
        .unwrap_or_else(|| vec![Test::Unknown(format!("xt {name}").into())]);
    Match {
        tests,
        comment: None,
    }
}

fn tests_of(v6: bool, name: &str, revision: u8, info: Blob<'_>) -> Option<Vec<Test>> {
    Some(match (name, revision) {
        ("tcp", 0) => tcp(info)?,
        ("udp" | "udplite", 0) => {
            let inverse = info.u8(8)?;
            ports(
                (info.u16(0)?, info.u16(2)?, inverse & 1 != 0),
                (info.u16(4)?, info.u16(6)?, inverse & 2 != 0),
            )
        }
        ("sctp", 0) => sctp(info)?,
        ("multiport", 1) => vec![multiport(info)?],
        ("conntrack", 1..=3) => conntrack(v6, revision, info)?,
        ("state", 0) => vec![state(info.u32(0)?, false)],
        ("mark", 1) => vec![masked(
            Field::Mark,
            info.u32(4)?,
            info.u32(0)?,
            info.u8(8)? != 0,
        )],
        ("connmark", 1) => vec![masked(
            Field::CtMark,
            info.u32(4)?,
            info.u32(0)?,
            info.u8(8)? != 0,
        )],
        ("addrtype", 0) => addrtype(
            info.u16(0)?,
            info.u16(2)?,
            info.u32(4)? != 0,
            info.u32(8)? != 0,
        ),
        ("addrtype", 1) => {
            let flags = info.u32(4)?;
            addrtype(info.u16(0)?, info.u16(2)?, flags & 1 != 0, flags & 2 != 0)
        }
        ("statistic", 0) => vec![statistic(info)?],
        ("iprange", 1) => iprange(v6, info)?,
        ("icmp" | "icmp6", 0) => icmp(info)?,
        // What they look at has nothing to do with address or port.
        (
            "limit" | "hashlimit" | "recent" | "connlimit" | "quota" | "time" | "owner" | "mac"
            | "pkttype" | "physdev" | "rpfilter" | "length" | "ttl" | "hl" | "dscp" | "tos" | "ecn"
            | "policy" | "cpu" | "cgroup" | "connbytes" | "tcpmss" | "helper" | "realm" | "socket"
            | "eui64" | "ah" | "esp" | "frag" | "rateest" | "nfacct" | "devgroup",
            _,
        ) => vec![Test::Free(name.into())],
        _ => return None,
    })
}

fn ports(source: (u16, u16, bool), destination: (u16, u16, bool)) -> Vec<Test> {
    [
        port(Field::Sport, source.0, source.1, source.2),
        port(Field::Dport, destination.0, destination.1, destination.2),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `struct xt_tcp`.
fn tcp(info: Blob<'_>) -> Option<Vec<Test>> {
    let (option, mask, flags, inverse) = (info.u8(8)?, info.u8(9)?, info.u8(10)?, info.u8(11)?);
    let mut tests = ports(
        (info.u16(0)?, info.u16(2)?, inverse & 1 != 0),
        (info.u16(4)?, info.u16(6)?, inverse & 2 != 0),
    );
    if mask != 0 {
        tests.push(Test::Range {
            operand: Operand {
                mask: mask.into(),
                ..Operand::whole(Field::TcpFlags, 1)
            },
            not: inverse & 4 != 0,
            ranges: Ranges::only(flags.into()),
        });
    }
    if option != 0 {
        tests.push(Test::Free("tcp option".into()));
    }
    Some(tests)
}

/// `struct xt_sctp_info`: destination ports come first, flags say what is compared.
fn sctp(info: Blob<'_>) -> Option<Vec<Test>> {
    const SRC: u32 = 1;
    const DEST: u32 = 2;
    const CHUNKS: u32 = 4;
    let (flags, inverse) = (info.u32(60)?, info.u32(64)?);
    let mut tests = Vec::new();
    if flags & SRC != 0 {
        tests.extend(port(
            Field::Sport,
            info.u16(4)?,
            info.u16(6)?,
            inverse & SRC != 0,
        ));
    }
    if flags & DEST != 0 {
        tests.extend(port(
            Field::Dport,
            info.u16(0)?,
            info.u16(2)?,
            inverse & DEST != 0,
        ));
    }
    if flags & CHUNKS != 0 {
        tests.push(Test::Free("sctp chunk".into()));
    }
    Some(tests)
}

/// `struct xt_multiport_v1`.
fn multiport(info: Blob<'_>) -> Option<Test> {
    let field = match info.u8(0)? {
        0 => Field::Sport,
        1 => Field::Dport,
        _ => return None,
    };
    let count = usize::from(info.u8(1)?).min(15);
    let not = info.u8(47)? != 0;
    let mut ranges = Vec::with_capacity(count);
    let mut at = 0;
    while at < count {
        let from = Value::from(info.u16(2 + 2 * at)?);
        // A set flag says that the next port is the end of a range.
        let is_range = info.u8(32 + at)? != 0 && at + 1 < count;
        at += usize::from(is_range);
        ranges.push((from, info.u16(2 + 2 * at)?.into()));
        at += 1;
    }
    Some(within(field, 2, Ranges::Many(ranges.into()), not))
}

fn state(mask: u32, not: bool) -> Test {
    // One bit is set in the state; it is one of those of the mask.
    let known = ct_state::NAMES.iter().map(|(bit, _)| *bit);
    let ranges: Box<[_]> = known
        .filter(|bit| mask & bit != 0)
        .map(|bit| (bit.into(), bit.into()))
        .collect();
    Test::Range {
        operand: Operand::whole(Field::CtState, 4),
        not,
        ranges: Ranges::Many(ranges),
    }
}

/// `struct xt_conntrack_mtinfo{1,2,3}`.
fn conntrack(v6: bool, revision: u8, info: Blob<'_>) -> Option<Vec<Test>> {
    const STATE: u16 = 1;
    const PROTO: u16 = 1 << 1;
    const ORIGSRC: u16 = 1 << 2;
    const ORIGDST: u16 = 1 << 3;
    const STATUS: u16 = 1 << 6;
    const ORIGSRC_PORT: u16 = 1 << 8;
    const ORIGDST_PORT: u16 = 1 << 9;
    const ALIAS: u16 = 1 << 13;
    const DECODED: u16 = STATE | PROTO | ORIGSRC | ORIGDST | STATUS | ORIGSRC_PORT | ORIGDST_PORT;
    /// `XT_CONNTRACK_STATE_SNAT` and `_DNAT` stand above the connection's own states.
    const STATE_NAT: u32 = 1 << 6 | 1 << 7;
    const STATE_UNTRACKED: u32 = 1 << 8;

    let (flags, inverse) = (info.u16(146)?, info.u16(148)?);
    let (state_mask, status_mask): (u32, u32) = if revision == 1 {
        (info.u8(150)?.into(), info.u8(151)?.into())
    } else {
        (info.u16(150)?.into(), info.u16(152)?.into())
    };
    let not = |flag: u16| inverse & flag != 0;
    let mut tests = Vec::new();
    if flags & STATE != 0 {
        let nat = state_mask & STATE_NAT != 0;
        let mut mask = state_mask & 0x3f;
        if state_mask & STATE_UNTRACKED != 0 {
            mask |= ct_state::UNTRACKED;
        }
        tests.push(match (nat, mask) {
            (false, _) => state(mask, not(STATE)),
            // SNAT and DNAT are bits of the status (IPS_SRC_NAT, IPS_DST_NAT).
            (true, 0) => {
                let bits = (state_mask & STATE_NAT) >> 2;
                masked(Field::CtStatus, bits, 0, !not(STATE))
            }
            (true, _) => return None,
        });
    }
    if flags & PROTO != 0 {
        tests.push(within(
            Field::CtProto,
            1,
            Ranges::only(info.u16(136)?.into()),
            not(PROTO),
        ));
    }
    if flags & ORIGSRC != 0 {
        tests.extend(network(
            Field::CtOrigSaddr,
            v6,
            info.address(0, v6)?,
            info.address(16, v6)?,
            not(ORIGSRC),
        ));
    }
    if flags & ORIGDST != 0 {
        tests.extend(network(
            Field::CtOrigDaddr,
            v6,
            info.address(32, v6)?,
            info.address(48, v6)?,
            not(ORIGDST),
        ));
    }
    if flags & STATUS != 0 {
        tests.push(masked(Field::CtStatus, status_mask, 0, !not(STATUS)));
    }
    let orig_ports = [
        (ORIGSRC_PORT, Field::CtOrigSport, 138, 154),
        (ORIGDST_PORT, Field::CtOrigDport, 140, 156),
    ];
    for (flag, field, low, high) in orig_ports {
        if flags & flag != 0 {
            let (from, to) = if revision == 3 {
                (info.u16(low)?, info.u16(high)?)
            } else {
                (info.be16(low)?, info.be16(low)?)
            };
            tests.push(within(
                field,
                2,
                Ranges::One(from.into(), to.into()),
                not(flag),
            ));
        }
    }
    if flags & !(DECODED | ALIAS) != 0 {
        tests.push(Test::Free("conntrack".into()));
    }
    Some(tests)
}

/// `struct xt_addrtype_info`: bits of address types.
fn addrtype(source: u16, destination: u16, not_source: bool, not_destination: bool) -> Vec<Test> {
    let one = |field, mask: u16, not| {
        let ranges: Box<[_]> = (0..16_u32)
            .filter(|bit| mask >> bit & 1 != 0)
            .map(|bit| (bit.into(), bit.into()))
            .collect();
        (mask != 0).then(|| within(field, 4, Ranges::Many(ranges), not))
    };
    [
        one(Field::SrcType, source, not_source),
        one(Field::DstType, destination, not_destination),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `struct xt_statistic_info`. A random one compares 31 random bits with a threshold.
fn statistic(info: Blob<'_>) -> Option<Test> {
    const RANDOM: u16 = 0;
    const ALWAYS: u32 = 0x8000_0000;
    let not = info.u16(2)? & 1 != 0;
    let (mode, first) = (info.u16(0)?, info.u32(4)?);
    let text = match mode {
        RANDOM => format!("probability {:.5}", f64::from(first) / f64::from(ALWAYS)),
        _ => format!("every {}", u64::from(first) + 1),
    };
    let always = mode == RANDOM && first >= ALWAYS || mode != RANDOM && first == 0;
    Some(if always && !not {
        within(
            Field::Random {
                modulus: 1,
                offset: 0,
            },
            4,
            Ranges::only(0),
            false,
        )
    } else {
        Test::Free(text.into())
    })
}

/// `struct xt_iprange_mtinfo`.
fn iprange(v6: bool, info: Blob<'_>) -> Option<Vec<Test>> {
    let flags = info.u8(64)?;
    let mut tests = Vec::new();
    for (flag, inverse, field, at) in [(1, 1 << 4, Field::Saddr, 0), (2, 1 << 5, Field::Daddr, 32)]
    {
        if flags & flag != 0 {
            tests.push(within(
                field,
                width(v6),
                Ranges::One(info.address(at, v6)?, info.address(at + 16, v6)?),
                flags & inverse != 0,
            ));
        }
    }
    Some(tests)
}

/// `struct ipt_icmp`; type 255 with all codes is any.
fn icmp(info: Blob<'_>) -> Option<Vec<Test>> {
    let (kind, low, high, inverse) = (info.u8(0)?, info.u8(1)?, info.u8(2)?, info.u8(3)?);
    if kind == u8::MAX && inverse & 1 == 0 {
        return Some(Vec::new());
    }
    if (low, high) != (0, u8::MAX) {
        return Some(vec![Test::Free(
            format!("icmp type {kind} code {low}-{high}").into(),
        )]);
    }
    Some(vec![within(
        Field::IcmpType,
        1,
        Ranges::only(kind.into()),
        inverse & 1 != 0,
    )])
}

/// Decodes a target; `None` is one that only has side effects and goes on.
pub fn decode_target(v6: bool, name: &str, revision: u8, info: &[u8]) -> Option<Step> {
    let blob = Blob(info);
    Some(match name {
        "REJECT" => Step::Verdict(Verdict::Reject),
        "DROP" => Step::Verdict(Verdict::Drop),
        "ACCEPT" => Step::Verdict(Verdict::Accept),
        "SNAT" | "MASQUERADE" => Step::Verdict(Verdict::Snat),
        "REDIRECT" => Step::Verdict(Verdict::Redirect),
        "NFQUEUE" | "QUEUE" => Step::Verdict(Verdict::Queue),
        "DNAT" => Step::Verdict(match dnat(v6, revision, blob) {
            Some(dnat) => Verdict::Dnat(Box::new(dnat)),
            None => Verdict::Unknown("xt DNAT".into()),
        }),
        // mark = (mark & ~mask) ^ value
        "MARK" => Step::Effect(match (revision, blob.u32(0), blob.u32(4)) {
            (2, Some(value), Some(mask)) => Effect::Mark {
                keep: !mask,
                xor: value,
            },
            _ => Effect::MarkUnknown,
        }),
        "CONNMARK" => match blob.u8(12) {
            // XT_CONNMARK_RESTORE writes the packet's mark; SET and SAVE the connection's only.
            Some(0 | 1) => return None,
            _ => Step::Effect(Effect::MarkUnknown),
        },
        "HMARK" => Step::Effect(Effect::MarkUnknown),
        "NOTRACK" => Step::Effect(Effect::Notrack),
        // XT_CT_NOTRACK is the lowest flag bit of struct xt_ct_target_info.
        "CT" => {
            if blob.u16(0)? & 1 == 0 {
                return None;
            }
            Step::Effect(Effect::Notrack)
        }
        "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "TCPMSS" | "TCPOPTSTRIP" | "CLASSIFY"
        | "CHECKSUM" | "DSCP" | "TOS" | "TTL" | "HL" | "SET" | "TEE" | "SECMARK"
        | "CONNSECMARK" | "RATEEST" | "IDLETIMER" | "LED" | "ECN" => return None,
        _ => Step::Verdict(Verdict::Unknown(format!("xt {name}").into())),
    })
}

/// `struct nf_nat_ipv4_multi_range_compat` (IPv4, revision 0), `nf_nat_range` (1, and 0 for IPv6), `nf_nat_range2` (2).
fn dnat(v6: bool, revision: u8, info: Blob<'_>) -> Option<Dnat> {
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 1 << 1;
    const PROTO_OFFSET: u32 = 1 << 5;
    const NETMAP: u32 = 1 << 6;
    let v4_compat = revision == 0 && !v6;
    let (flags, addresses, ports) = if v4_compat {
        (info.u32(4)?, (8, 12), (16, 18))
    } else {
        (info.u32(0)?, (4, 20), (36, 38))
    };
    if flags & (NETMAP | PROTO_OFFSET) != 0 {
        return None;
    }
    let constant = |from, to| (Source::Const(from), Source::Const(to));
    Some(Dnat {
        v6,
        addr: (flags & MAP_IPS != 0)
            .then(|| {
                Some(constant(
                    info.address(addresses.0, v6)?,
                    info.address(addresses.1, v6)?,
                ))
            })
            .flatten(),
        port: (flags & PROTO_SPECIFIED != 0)
            .then(|| {
                Some(constant(
                    info.be16(ports.0)?.into(),
                    info.be16(ports.1)?.into(),
                ))
            })
            .flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(v6: bool, name: &str, revision: u8, info: &[u8]) -> Vec<Test> {
        decode_match(v6, name, revision, info).tests
    }

    #[test]
    fn tcp_ports_and_flags() {
        let mut info = [0_u8; 12];
        info[2..4].copy_from_slice(&u16::MAX.to_ne_bytes());
        info[4..6].copy_from_slice(&80_u16.to_ne_bytes());
        info[6..8].copy_from_slice(&90_u16.to_ne_bytes());
        assert_eq!(
            only(false, "tcp", 0, &info),
            [within(Field::Dport, 2, Ranges::One(80, 90), false)]
        );
        info[11] = 2;
        assert_eq!(
            only(false, "tcp", 0, &info),
            [within(Field::Dport, 2, Ranges::One(80, 90), true)]
        );
        info[9] = 0x17;
        info[10] = 2;
        assert_eq!(only(false, "tcp", 0, &info).len(), 2);
    }

    #[test]
    fn multiport_ranges() {
        let mut info = [0_u8; 48];
        info[0] = 1;
        info[1] = 3;
        for (i, port) in [1_u16, 2, 5].into_iter().enumerate() {
            info[2 + 2 * i..4 + 2 * i].copy_from_slice(&port.to_ne_bytes());
        }
        info[33] = 1;
        assert_eq!(
            only(false, "multiport", 1, &info),
            [within(
                Field::Dport,
                2,
                Ranges::Many([(1, 1), (2, 5)].into()),
                false
            )]
        );
    }

    #[test]
    fn what_is_too_short_or_new_is_unknown() {
        for name in [
            "tcp",
            "udp",
            "sctp",
            "multiport",
            "conntrack",
            "mark",
            "addrtype",
            "statistic",
            "iprange",
            "icmp",
            "bpf",
            "set",
        ] {
            for revision in 0..5 {
                let tests = only(true, name, revision, &[]);
                assert!(
                    matches!(tests.as_slice(), [Test::Unknown(_)]),
                    "{name} {revision}"
                );
                // any length, any bytes: no panic
                for len in 0..300 {
                    only(true, name, revision, &vec![0xff; len]);
                    only(false, name, revision, &vec![0x01; len]);
                }
            }
        }
        for name in ["DNAT", "MARK", "CT", "CONNMARK", "XYZ"] {
            for revision in 0..4 {
                for len in 0..64 {
                    decode_target(len % 2 == 0, name, revision, &vec![0xff; len]);
                }
            }
        }
    }

    #[test]
    fn dnat_of_every_revision() {
        let mut compat = [0_u8; 20];
        compat[0] = 1;
        compat[4] = 3;
        compat[8..12].copy_from_slice(&[10, 0, 0, 1]);
        compat[12..16].copy_from_slice(&[10, 0, 0, 1]);
        compat[16..20].copy_from_slice(&[0x1f, 0x90, 0x1f, 0x90]);
        let wanted = Dnat {
            v6: false,
            addr: Some((Source::Const(0x0a00_0001), Source::Const(0x0a00_0001))),
            port: Some((Source::Const(8080), Source::Const(8080))),
        };
        assert_eq!(dnat(false, 0, Blob(&compat)), Some(wanted.clone()));
        let mut range = [0_u8; 44];
        range[0] = 3;
        range[4..8].copy_from_slice(&[10, 0, 0, 1]);
        range[20..24].copy_from_slice(&[10, 0, 0, 1]);
        range[36..40].copy_from_slice(&[0x1f, 0x90, 0x1f, 0x90]);
        assert_eq!(dnat(false, 2, Blob(&range)), Some(wanted));
    }
}
