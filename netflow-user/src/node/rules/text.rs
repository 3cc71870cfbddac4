//! Tests as text for the reader, as nft would write them.

use super::ruleset::{
    Elements, Field, Operand, Ranges, Ruleset, Test, Value, ct_state, number, ones,
};
use super::walk::ip;
use crate::node::netlink;
use std::fmt::Write;

/// Elements of an anonymous set that are written out.
const MOST_ELEMENTS: usize = 8;

/// Renders tests in order; the protocol goes into the ports' names where there are any.
pub fn tests<'a>(
    tests: impl Iterator<Item = &'a Test> + Clone,
    ruleset: &Ruleset,
    elements: &dyn Elements,
) -> String {
    let proto = tests.clone().find_map(protocol);
    let has_ports = tests.clone().any(|test| {
        matches!(test, Test::Range { operand, .. } if is_port(operand.field))
            || matches!(test, Test::Lookup { key, .. } if key.iter().any(|o| is_port(o.field)))
    });
    let has_address = tests.clone().any(|test| {
        matches!(test, Test::Range { operand, .. } if is_address(operand.field))
            || matches!(test, Test::Lookup { key, .. } if key.iter().any(|o| is_address(o.field)))
    });
    let mut text = String::new();
    for test in tests {
        // The address says the version.
        let version =
            matches!(test, Test::Range { operand, .. } if operand.field == Field::NfProto);
        if version && has_address {
            continue;
        }
        if has_ports && proto.is_some() && protocol(test).is_some() {
            continue;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        one(&mut text, test, proto, ruleset, elements);
    }
    text
}

fn is_port(field: Field) -> bool {
    matches!(field, Field::Sport | Field::Dport)
}

fn is_address(field: Field) -> bool {
    matches!(field, Field::Saddr | Field::Daddr)
}

fn protocol(test: &Test) -> Option<Value> {
    match test {
        Test::Range {
            operand,
            not: false,
            ranges: Ranges::One(from, to),
        } if operand.field == Field::Proto && from == to => Some(*from),
        _ => None,
    }
}

fn one(
    text: &mut String,
    test: &Test,
    proto: Option<Value>,
    ruleset: &Ruleset,
    elements: &dyn Elements,
) {
    // Writing to a String cannot fail.
    let _ = match test {
        Test::Range {
            operand,
            not,
            ranges,
        } => write!(
            text,
            "{}{}",
            name(operand, proto),
            comparison(operand, *not, ranges)
        ),
        Test::Lookup { key, set, not } => {
            let names: Vec<String> = key.iter().map(|operand| name(operand, proto)).collect();
            let not = if *not { " !=" } else { "" };
            write!(
                text,
                "{}{not} {}",
                names.join(" . "),
                set_text(key, *set, ruleset, elements)
            )
        }
        Test::Free(what) => text.write_str(what),
        Test::Unknown(what) => write!(text, "({what}?)"),
    };
}

fn set_text(key: &[Operand], set: usize, ruleset: &Ruleset, elements: &dyn Elements) -> String {
    let Some(found) = ruleset.sets.get(set) else {
        return "@?".to_owned();
    };
    if !found.anonymous {
        return format!("@{}", found.name);
    }
    let Ok(all) = elements.of(set) else {
        return "{ ? }".to_owned();
    };
    let mut parts: Vec<String> = all
        .iter()
        .take(MOST_ELEMENTS)
        .map(|element| key_text(key, &element.from, element.to.as_deref()))
        .collect();
    if all.len() > MOST_ELEMENTS {
        parts.push(format!("… {} more", all.len() - MOST_ELEMENTS));
    }
    format!("{{ {} }}", parts.join(", "))
}

/// One key of a set.
fn key_text(key: &[Operand], from: &[u8], to: Option<&[u8]>) -> String {
    if from.is_empty() {
        return "*".to_owned();
    }
    let mut at = 0;
    let mut parts = Vec::new();
    for operand in key {
        let width = usize::from(operand.width);
        let part = |bytes: &[u8]| bytes.get(at..at + width).map(|b| number(b, operand.host));
        let low = part(from).unwrap_or(0);
        let high = to.and_then(part).unwrap_or(low);
        parts.push(range(operand, low, high));
        at += width.next_multiple_of(4);
    }
    parts.join(" . ")
}

fn name(operand: &Operand, proto: Option<Value>) -> String {
    let ip = if operand.width == 16 { "ip6" } else { "ip" };
    let th = proto.map_or("th".to_owned(), proto_name);
    let plain = match operand.field {
        Field::Saddr => format!("{ip} saddr"),
        Field::Daddr => format!("{ip} daddr"),
        Field::Proto => "meta l4proto".to_owned(),
        Field::Sport => format!("{th} sport"),
        Field::Dport => format!("{th} dport"),
        Field::NfProto => "meta nfproto".to_owned(),
        Field::EtherType => "ether type".to_owned(),
        Field::Mark => "meta mark".to_owned(),
        Field::CtMark => "ct mark".to_owned(),
        Field::CtState => return "ct state".to_owned(),
        Field::CtStatus => return "ct status".to_owned(),
        Field::CtOrigSaddr => format!("ct original {ip} saddr"),
        Field::CtOrigDaddr => format!("ct original {ip} daddr"),
        Field::CtProto => "ct protocol".to_owned(),
        Field::CtOrigSport => "ct original proto-src".to_owned(),
        Field::CtOrigDport => "ct original proto-dst".to_owned(),
        Field::IifName => "iifname".to_owned(),
        Field::OifName => "oifname".to_owned(),
        Field::DstType => "fib daddr type".to_owned(),
        Field::SrcType => "fib saddr type".to_owned(),
        Field::Random { modulus, .. } => format!("numgen mod {modulus}"),
        Field::IcmpType => "icmp type".to_owned(),
        Field::TcpFlags => "tcp flags".to_owned(),
        Field::Meta(key) => format!("meta #{key}"),
        Field::Ct(key) => format!("ct #{key}"),
        Field::Header { base, offset } => {
            let bits = u64::from(offset) * 8;
            format!("@{base},{bits},{}", u32::from(operand.width) * 8)
        }
        Field::Other(what) => what.to_owned(),
    };
    if operand.is_plain() {
        plain
    } else if operand.xor == 0 {
        format!("{plain} & {:#x}", operand.mask << operand.shift.min(127))
    } else {
        format!("{plain} & {:#x} ^ {:#x}", operand.mask, operand.xor)
    }
}

fn comparison(operand: &Operand, not: bool, ranges: &Ranges) -> String {
    // «state & bits != 0» is how nft asks for one of several states.
    if matches!(operand.field, Field::CtState | Field::CtStatus)
        && operand.mask != ones(operand.width)
        && *ranges == Ranges::only(0)
    {
        let not = if not { "" } else { " !=" };
        return format!("{not} {}", bits(operand.field, operand.mask));
    }
    let mut all: Vec<String> = ranges
        .as_slice()
        .map(|(from, to)| range(operand, from, to))
        .collect();
    let values = match all.len() {
        1 => all.remove(0),
        _ => format!("{{ {} }}", all.join(", ")),
    };
    let operator = match (not, operand.is_plain()) {
        (true, _) => " !=",
        (false, true) => "",
        (false, false) => " ==",
    };
    format!("{operator} {values}")
}

fn range(operand: &Operand, from: Value, to: Value) -> String {
    let field = operand.field;
    if let Some((address, prefix)) = network(operand, from, to) {
        return match prefix {
            32 if operand.width == 4 => address.to_string(),
            128 => address.to_string(),
            _ => format!("{address}/{prefix}"),
        };
    }
    if matches!(field, Field::IifName | Field::OifName) {
        let bytes = from.to_be_bytes();
        let name = netlink::text(&bytes);
        return if from == to {
            format!("\"{name}\"")
        } else {
            format!("\"{name}*\"")
        };
    }
    if from == to {
        return value(operand, from);
    }
    format!("{}-{}", value(operand, from), value(operand, to))
}

/// The network that a range of addresses is.
pub fn network(operand: &Operand, from: Value, to: Value) -> Option<(std::net::IpAddr, u8)> {
    let address = matches!(
        operand.field,
        Field::Saddr | Field::Daddr | Field::CtOrigSaddr | Field::CtOrigDaddr
    );
    if !address || !operand.is_plain() || !matches!(operand.width, 4 | 16) {
        return None;
    }
    let host = from ^ to;
    (host & host.wrapping_add(1) == 0 && from & host == 0).then(|| {
        let bits = u32::from(operand.width) * 8;
        let prefix = bits - (Value::BITS - host.leading_zeros());
        (ip(from, operand.width == 16), prefix as u8)
    })
}

fn value(operand: &Operand, value: Value) -> String {
    match operand.field {
        Field::Saddr | Field::Daddr | Field::CtOrigSaddr | Field::CtOrigDaddr
            if operand.is_plain() && matches!(operand.width, 4 | 16) =>
        {
            ip(value, operand.width == 16).to_string()
        }
        Field::Proto | Field::CtProto => proto_name(value),
        Field::NfProto if value == 2 => "ipv4".to_owned(),
        Field::NfProto if value == 10 => "ipv6".to_owned(),
        Field::EtherType if value == 0x0800 => "ip".to_owned(),
        Field::EtherType if value == 0x86dd => "ip6".to_owned(),
        Field::CtState => bits(operand.field, value),
        Field::DstType | Field::SrcType => route_type(value),
        Field::Mark | Field::CtMark | Field::TcpFlags | Field::Header { .. } | Field::EtherType => {
            format!("{value:#x}")
        }
        _ => value.to_string(),
    }
}

fn bits(field: Field, value: Value) -> String {
    let names: &[(u32, &str)] = match field {
        Field::CtState => &ct_state::NAMES,
        _ => &[
            (1, "expected"),
            (2, "seen-reply"),
            (4, "assured"),
            (8, "confirmed"),
            (16, "snat"),
            (32, "dnat"),
        ],
    };
    let found: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| value & Value::from(*bit) != 0)
        .map(|(_, name)| *name)
        .collect();
    if found.is_empty() {
        format!("{value:#x}")
    } else {
        found.join(",")
    }
}

fn proto_name(value: Value) -> String {
    match value {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn route_type(value: Value) -> String {
    const NAMES: [&str; 9] = [
        "unspec",
        "unicast",
        "local",
        "broadcast",
        "anycast",
        "multicast",
        "blackhole",
        "unreachable",
        "prohibit",
    ];
    usize::try_from(value)
        .ok()
        .and_then(|at| NAMES.get(at))
        .map_or_else(|| value.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::NoElements;
    use super::*;

    #[test]
    fn bytes_at_any_offset_have_a_name() {
        let test = Test::Range {
            operand: Operand::whole(
                Field::Header {
                    base: 2,
                    offset: u32::MAX,
                },
                1,
            ),
            not: false,
            ranges: Ranges::only(7),
        };
        let text = tests([&test].into_iter(), &Ruleset::default(), &NoElements);
        assert_eq!(text, "@2,34359738360,8 0x7");
    }
}
