//! What a tracing program reads off a `sock`.

use super::layout::layout;
use super::read::{Read, address, field, field_address};
use core::ffi::c_void;
use netflow_ebpf::parse::TCP;
use netflow_ebpf::{ABSENT, Addr, Tuple};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Tuple of a TCP socket, local → remote. A socket of either family may hold an IPv4 connection, mapped.
#[inline(always)]
pub fn tuple<R: Read>(sk: *const c_void) -> Option<Tuple> {
    let family = field!(R, sk, sk_family: u16);
    let (saddr, daddr) = if family == AF_INET {
        (
            Addr::v4(field!(R, sk, sk_saddr: u32)),
            Addr::v4(field!(R, sk, sk_daddr: u32)),
        )
    } else if family == AF_INET6 && layout!(sk_v6_saddr) != ABSENT && layout!(sk_v6_daddr) != ABSENT
    {
        (
            address::<R>(field_address!(sk, sk_v6_saddr)),
            address::<R>(field_address!(sk, sk_v6_daddr)),
        )
    } else {
        return None;
    };
    let is_mapped = daddr.0[0] == 0 && daddr.0[1] == 0 && daddr.0[2] == Addr::MAPPED;
    Some(Tuple {
        saddr,
        daddr,
        sport: field!(R, sk, sk_num: u16),
        dport: u16::from_be(field!(R, sk, sk_dport: u16)),
        proto: TCP,
        family: if is_mapped { 4 } else { 6 },
        pad: 0,
    })
}

/// `sk->sk_state`.
#[inline(always)]
pub fn state<R: Read>(sk: *const c_void) -> u8 {
    field!(R, sk, sk_state: u8)
}
