//! iptables-legacy: tables as blobs of entries, read with `getsockopt`.
//!
//! Asking for a table creates it (`xt_find_table_lock` runs the template's init, `net/netfilter/x_tables.c`, v6.18), so only
//! tables that the kernel lists for this namespace are asked for. The list is read through `thread-self`: `/proc/net`
//! shows the namespace of the process's first thread.

use super::ruleset::{
    Base, Chain, Family, Field, Mode, Operand, Ranges, Rule, Step, Table, Test, Value, Verdict,
    number, ones,
};
use super::xt::{self, Blob};
use crate::kernel::sys;
use crate::model::node::Unread;
use crate::model::record::NfHook;
use crate::node::netlink::text;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
const NAME: usize = 32;
/// `struct ipt_getinfo`.
pub const INFO: usize = 84;
/// `struct ipt_get_entries` before its entries, which are aligned to 8.
const HEAD: usize = 40;
/// A table larger than this is not read (some 2,000,000 rules).
const LARGEST: usize = 512 << 20;
/// The rules may change between asking for their size and asking for them.
const TRIES: usize = 5;
const HOOKS: [NfHook; 5] = [
    NfHook::Prerouting,
    NfHook::Input,
    NfHook::Forward,
    NfHook::Output,
    NfHook::Postrouting,
];
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the kernel gave does not parse.
    #[error("entries cannot be parsed at offset {0}")]
    Malformed(usize),
    /// Too large.
    #[error("table of {0} bytes is too large")]
    TooLarge(usize),
}

/// Reads every legacy table of the calling thread's network namespace.
pub fn read(tables: &mut Vec<Table>, unread: &mut Vec<Unread>) {
    for v6 in [false, true] {
        let list = if v6 {
            "/proc/thread-self/net/ip6_tables_names"
        } else {
            "/proc/thread-self/net/ip_tables_names"
        };
        let names = match std::fs::read_to_string(list) {
            Ok(names) => names,
            // no x_tables on this kernel, or not loaded: no rules
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                unread.push(Unread {
                    what: format!("iptables-legacy {}", family(v6).name()),
                    why: format!("{list}: {e}"),
                });
                continue;
            }
        };
        for name in names.lines() {
            match table(v6, name) {
                Ok(table) => tables.push(table),
                Err(e) => unread.push(Unread {
                    what: format!("iptables-legacy {} {name}", family(v6).name()),
                    why: e.to_string(),
                }),
            }
        }
    }
}

fn family(v6: bool) -> Family {
    if v6 { Family::Ip6 } else { Family::Ip }
}

fn table(v6: bool, name: &str) -> Result<Table, LegacyError> {
    let (domain, level) = if v6 {
        (AddressFamily::Inet6, libc::IPPROTO_IPV6)
    } else {
        (AddressFamily::Inet, libc::IPPROTO_IP)
    };
    let socket = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(io::Error::from)?;
    let mut tries = 0;
    loop {
        let mut info = vec![0_u8; INFO];
        let written = name.len().min(NAME - 1);
        info[..written].copy_from_slice(&name.as_bytes()[..written]);
        sys::getsockopt_bytes(socket.as_fd(), level, GET_INFO, &mut info)?;
        let size = Blob(&info).u32(INFO - 4).unwrap_or(0) as usize;
        if size > LARGEST {
            return Err(LegacyError::TooLarge(size));
        }
        let mut entries = vec![0_u8; HEAD + size];
        entries[..written].copy_from_slice(&name.as_bytes()[..written]);
        entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_ne_bytes());
        match sys::getsockopt_bytes(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            Ok(_) => return decode(v6, name, &info, &entries[HEAD..]),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && tries < TRIES => tries += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Where things stand in `struct ipt_entry` and `struct ip6t_entry`.
struct Layout {
    v6: bool,
    protocol: usize,
    flags: usize,
    inverse: usize,
    target_offset: usize,
    counters: usize,
    size: usize,
    goto: u8,
    interfaces: usize,
}

const V4: Layout = Layout {
    v6: false,
    interfaces: 16,
    protocol: 80,
    flags: 82,
    inverse: 83,
    target_offset: 88,
    counters: 96,
    size: 112,
    goto: 2,
};

const V6: Layout = Layout {
    v6: true,
    interfaces: 64,
    protocol: 128,
    flags: 131,
    inverse: 132,
    target_offset: 140,
    counters: 152,
    size: 168,
    goto: 4,
};

/// An entry of the blob.
struct Entry<'a> {
    at: usize,
    next: usize,
    bytes: Blob<'a>,
    target: Extension<'a>,
}

/// `struct xt_entry_match` or `xt_entry_target`.
struct Extension<'a> {
    name: String,
    revision: u8,
    info: &'a [u8],
    size: usize,
}

impl<'a> Extension<'a> {
    const HEAD: usize = 32;

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let blob = Blob(bytes);
        let size = usize::from(blob.u16(0)?);
        Some(Extension {
            name: text(blob.bytes(2, 29)?),
            revision: blob.u8(31)?,
            info: bytes.get(Self::HEAD..size)?,
            size,
        })
    }
}

fn entries<'a>(layout: &Layout, blob: &'a [u8]) -> Result<Vec<Entry<'a>>, LegacyError> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < blob.len() {
        let entry = entry(layout, blob, at).ok_or(LegacyError::Malformed(at))?;
        at = entry.next;
        all.push(entry);
    }
    Ok(all)
}

fn entry<'a>(layout: &Layout, blob: &'a [u8], at: usize) -> Option<Entry<'a>> {
    let bytes = blob.get(at..)?;
    let length = usize::from(Blob(bytes).u16(layout.target_offset + 2)?);
    let bytes = bytes.get(..length)?;
    let target = usize::from(Blob(bytes).u16(layout.target_offset)?);
    if target < layout.size {
        return None;
    }
    Some(Entry {
        at,
        next: at + length,
        bytes: Blob(bytes),
        target: Extension::parse(bytes.get(target..)?)?,
    })
}

/// Decodes `struct ipt_getinfo` and the entries of one table.
pub fn decode(v6: bool, name: &str, info: &[u8], blob: &[u8]) -> Result<Table, LegacyError> {
    let layout = if v6 { &V6 } else { &V4 };
    let entries = entries(layout, blob)?;
    let info = Blob(info);
    let valid = info.u32(32).unwrap_or(0);
    let mut chains: Vec<Chain> = Vec::new();
    // Offset of a chain's first rule → chain, for jumps.
    let mut starts: HashMap<usize, usize> = HashMap::new();
    // Entry index → chain that begins with it.
    let mut heads: HashMap<usize, usize> = HashMap::new();
    let mut policies = Vec::new();
    for (hook, kind) in HOOKS.iter().enumerate() {
        if valid >> hook & 1 == 0 {
            continue;
        }
        let begin = info.u32(36 + 4 * hook).unwrap_or(0) as usize;
        let underflow = info.u32(56 + 4 * hook).unwrap_or(0) as usize;
        heads.insert(begin, chains.len());
        policies.push((underflow, chains.len()));
        chains.push(Chain {
            name: BUILTIN[hook].to_owned(),
            base: Some(Base {
                hook: Some(*kind),
                priority: priority(name, *kind),
                policy_drop: false,
                nat: name == "nat",
                packets: None,
            }),
            rules: Vec::new(),
        });
    }
    for entry in &entries {
        if let Some(user) = user_chain(entry) {
            starts.insert(entry.next, chains.len());
            heads.insert(entry.next, chains.len());
            chains.push(Chain {
                name: user,
                ..Chain::default()
            });
        }
    }
    let mut current = None;
    for entry in &entries {
        if let Some(chain) = heads.get(&entry.at) {
            current = Some(*chain);
        }
        if entry.target.name == "ERROR" {
            current = None;
            continue;
        }
        let Some(index) = current else { continue };
        if let Some((_, chain)) = policies.iter().find(|(at, _)| *at == entry.at) {
            if let Some(base) = &mut chains[*chain].base {
                base.policy_drop = standard(entry) == Some(-1);
                base.packets = entry.bytes.u64(layout.counters);
            }
            current = None;
            continue;
        }
        let position = chains[index].rules.len() as u64 + 1;
        let rule = rule(layout, entry, position, &starts);
        chains[index].rules.push(rule);
    }
    // The last entry of a user chain is the return that iptables adds.
    for chain in chains.iter_mut().filter(|c| c.base.is_none()) {
        chain.rules.pop();
    }
    Ok(Table {
        mode: Mode::IptablesLegacy,
        family: family(v6),
        name: name.to_owned(),
        chains,
    })
}

/// Name of the user chain that begins after this entry.
fn user_chain(entry: &Entry<'_>) -> Option<String> {
    let name = (entry.target.name == "ERROR").then(|| text(entry.target.info))?;
    (name != "ERROR").then_some(name)
}

fn standard(entry: &Entry<'_>) -> Option<i32> {
    if !entry.target.name.is_empty() {
        return None;
    }
    Blob(entry.target.info).u32(0).map(u32::cast_signed)
}

/// Priorities at which the tables are hooked in (enum `nf_ip_hook_priorities`).
pub fn priority(table: &str, hook: NfHook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", NfHook::Prerouting | NfHook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

fn rule(layout: &Layout, entry: &Entry<'_>, position: u64, starts: &HashMap<usize, usize>) -> Rule {
    let mut rule = Rule {
        handle: position,
        packets: entry.bytes.u64(layout.counters),
        ..Rule::default()
    };
    let mut steps = Vec::new();
    match header(layout, entry.bytes) {
        Some(tests) => steps.extend(tests.into_iter().map(Step::Test)),
        None => steps.push(Step::Test(Test::Unknown("entry".into()))),
    }
    let target = usize::from(entry.bytes.u16(layout.target_offset).unwrap_or(0));
    let mut at = layout.size;
    while at < target {
        let Some(extension) = entry
            .bytes
            .0
            .get(at..target)
            .and_then(Extension::parse)
            .filter(|e| e.size >= Extension::HEAD)
        else {
            steps.push(Step::Test(Test::Unknown("entry".into())));
            break;
        };
        at += extension.size;
        let decoded = xt::decode_match(
            layout.v6,
            &extension.name,
            extension.revision,
            extension.info,
        );
        steps.extend(decoded.tests.into_iter().map(Step::Test));
        rule.comment = rule.comment.or(decoded.comment);
    }
    steps.extend(target_of(layout, entry, starts));
    rule.steps = steps.into();
    rule
}

fn target_of(layout: &Layout, entry: &Entry<'_>, starts: &HashMap<usize, usize>) -> Option<Step> {
    let Some(verdict) = standard(entry) else {
        let target = &entry.target;
        return xt::decode_target(layout.v6, &target.name, target.revision, target.info);
    };
    Some(Step::Verdict(match verdict {
        -1 => Verdict::Drop,
        -2 => Verdict::Accept,
        -4 => Verdict::Queue,
        -5 => Verdict::Return,
        to => {
            let to = usize::try_from(to).ok();
            // A rule without a target jumps to the next one.
            if to == Some(entry.next) && !starts.contains_key(&entry.next) {
                return None;
            }
            let goto = entry.bytes.u8(layout.flags).unwrap_or(0) & layout.goto != 0;
            match to.and_then(|to| starts.get(&to)) {
                Some(chain) if goto => Verdict::Goto(*chain),
                Some(chain) => Verdict::Jump(*chain),
                None => Verdict::Unknown("jump".into()),
            }
        }
    }))
}

/// The tests of `struct ipt_ip` or `struct ip6t_ip6`.
fn header(layout: &Layout, entry: Blob<'_>) -> Option<Vec<Test>> {
    const INV_VIA_IN: u8 = 1;
    const INV_VIA_OUT: u8 = 2;
    const INV_SRC: u8 = 8;
    const INV_DST: u8 = 16;
    const INV_PROTO: u8 = 64;
    const FRAGMENT: u8 = 1;
    let v6 = layout.v6;
    let step = usize::from(xt::width(v6));
    let inverse = entry.u8(layout.inverse)?;
    let address = |at| entry.address(at, v6);
    let mut tests = Vec::new();
    tests.extend(xt::network(
        Field::Saddr,
        v6,
        address(0)?,
        address(2 * step)?,
        inverse & INV_SRC != 0,
    ));
    tests.extend(xt::network(
        Field::Daddr,
        v6,
        address(step)?,
        address(3 * step)?,
        inverse & INV_DST != 0,
    ));
    for (field, at, not) in [
        (Field::IifName, 0, inverse & INV_VIA_IN != 0),
        (Field::OifName, 16, inverse & INV_VIA_OUT != 0),
    ] {
        let name = entry.bytes(layout.interfaces + at, 16)?;
        let mask = entry.bytes(layout.interfaces + 32 + at, 16)?;
        tests.extend(interface(field, name, mask, not));
    }
    let protocol = entry.u16(layout.protocol)?;
    if protocol != 0 {
        tests.push(xt::within(
            Field::Proto,
            1,
            Ranges::only(protocol.into()),
            inverse & INV_PROTO != 0,
        ));
    }
    if !v6 && entry.u8(layout.flags)? & FRAGMENT != 0 {
        tests.push(Test::Free("fragment".into()));
    }
    Some(tests)
}

/// A name with a mask: `eth0` masks its NUL too, `eth+` does not.
fn interface(field: Field, name: &[u8], mask: &[u8], not: bool) -> Option<Test> {
    let mask: Value = number(mask, false);
    if mask == 0 {
        return None;
    }
    let name = number(name, false) & mask;
    Some(Test::Range {
        operand: Operand::whole(field, 16),
        not,
        ranges: Ranges::One(name, name | (ones(16) & !mask)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table blob put together by hand: one INPUT rule, policy drop, a user chain.
    struct Built {
        info: Vec<u8>,
        blob: Vec<u8>,
    }

    fn put(blob: &mut [u8], at: usize, bytes: &[u8]) {
        blob[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn target(name: &str, data: &[u8]) -> Vec<u8> {
        let size = (32 + data.len()).next_multiple_of(8);
        let mut bytes = vec![0; size];
        put(
            &mut bytes,
            0,
            &u16::try_from(size).unwrap_or(0).to_ne_bytes(),
        );
        put(&mut bytes, 2, name.as_bytes());
        put(&mut bytes, 32, data);
        bytes
    }

    fn entry_of(packets: u64, proto: u16, extensions: &[Vec<u8>], end: &[u8]) -> Vec<u8> {
        let matches: usize = extensions.iter().map(Vec::len).sum();
        let target_at = 112 + matches;
        let mut bytes = vec![0; target_at];
        put(&mut bytes, 80, &proto.to_ne_bytes());
        let length = u16::try_from(target_at + end.len()).unwrap_or(0);
        put(
            &mut bytes,
            88,
            &u16::try_from(target_at).unwrap_or(0).to_ne_bytes(),
        );
        put(&mut bytes, 90, &length.to_ne_bytes());
        put(&mut bytes, 96, &packets.to_ne_bytes());
        let mut at = 112;
        for extension in extensions {
            put(&mut bytes, at, extension);
            at += extension.len();
        }
        bytes.extend_from_slice(end);
        bytes
    }

    fn built() -> Built {
        let verdict = |v: i32| target("", &v.to_ne_bytes());
        let head = entry_of(0, 0, &[], &target("ERROR", b"MINE"));
        let tail = entry_of(0, 0, &[], &target("ERROR", b"ERROR"));
        let policy = entry_of(7, 0, &[], &verdict(-1));
        let jump_len = entry_of(0, 6, &[], &verdict(0)).len();
        let user_at = jump_len + policy.len() + head.len();
        let jump = entry_of(3, 6, &[], &verdict(i32::try_from(user_at).unwrap_or(0)));
        let mut comment = vec![0; 256];
        put(&mut comment, 0, b"why");
        let drop = entry_of(9, 0, &[target("comment", &comment)], &verdict(-1));
        let back = entry_of(0, 0, &[], &verdict(-5));
        let blob = [&jump, &policy, &head, &drop, &back, &tail]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let mut info = vec![0; INFO];
        put(&mut info, 32, &2_u32.to_ne_bytes());
        put(
            &mut info,
            56 + 4,
            &u32::try_from(jump_len).unwrap_or(0).to_ne_bytes(),
        );
        Built { info, blob }
    }

    #[test]
    fn chains_rules_policy_counters() -> Result<(), LegacyError> {
        let Built { info, blob } = built();
        let table = decode(false, "filter", &info, &blob)?;
        let [input, mine] = table.chains.as_slice() else {
            panic!("{table:?}")
        };
        let base = input.base.ok_or(LegacyError::Malformed(0))?;
        assert!(base.policy_drop);
        assert_eq!((base.hook, base.packets), (Some(NfHook::Input), Some(7)));
        assert_eq!(input.rules.len(), 1);
        assert_eq!(input.rules[0].verdict(), Some(&Verdict::Jump(1)));
        assert_eq!(input.rules[0].packets, Some(3));
        assert_eq!(mine.name, "MINE");
        assert_eq!(mine.rules.len(), 1);
        assert_eq!(mine.rules[0].verdict(), Some(&Verdict::Drop));
        assert_eq!(mine.rules[0].comment.as_deref(), Some("why"));
        assert_eq!(mine.rules[0].packets, Some(9));
        Ok(())
    }

    #[test]
    fn a_cut_or_damaged_blob_is_an_error_or_a_table() {
        let Built { info, blob } = built();
        for cut in 0..blob.len() {
            // at an entry's boundary what is left is a table of fewer entries
            let _ = decode(false, "filter", &info, &blob[..cut]);
            let _ = decode(true, "filter", &info, &blob[..cut]);
        }
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            for value in [0, 1, 0x7f, 0xff] {
                damaged[at] = value;
                let _ = decode(false, "filter", &info, &damaged);
                let _ = decode(true, "filter", &info, &damaged);
            }
        }
        for cut in 0..info.len() {
            let _ = decode(false, "filter", &info[..cut], &blob);
        }
    }

    #[test]
    fn interface_names_with_and_without_plus() {
        let mut name = [0_u8; 16];
        name[..3].copy_from_slice(b"eth");
        let mut mask = [0_u8; 16];
        mask[..3].fill(0xff);
        let Some(Test::Range { ranges, .. }) = interface(Field::IifName, &name, &mask, false)
        else {
            panic!("no test")
        };
        let mut eth7 = [0_u8; 16];
        eth7[..4].copy_from_slice(b"eth7");
        assert!(ranges.contains(number(&eth7, false)));
        mask[3] = 0xff;
        let Some(Test::Range { ranges, .. }) = interface(Field::IifName, &name, &mask, false)
        else {
            panic!("no test")
        };
        assert!(!ranges.contains(number(&eth7, false)));
        assert!(ranges.contains(number(&name, false)));
    }
}
