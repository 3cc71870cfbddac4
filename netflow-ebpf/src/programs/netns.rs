//! Network namespaces: identity, and which ones are watched.

use super::layout::layout;
use super::read::{Read, field};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use core::ffi::c_void;
use netflow_ebpf::ABSENT;
use netflow_ebpf::map::NETNS_ENTRIES;

/// The tracing programs see every namespace of the machine and keep what happens in these.
#[map]
static NETNS: HashMap<u64, u32> = HashMap::with_max_entries(NETNS_ENTRIES, 0);

/// A namespace.
#[derive(Clone, Copy)]
pub struct Netns {
    /// `net_cookie`, 0 = none.
    pub cookie: u64,
    /// `ns.inum`.
    pub inum: u32,
}

impl Netns {
    /// The one that the tc programs are attached in.
    #[inline(always)]
    pub fn own() -> Self {
        Self {
            cookie: layout!(own_cookie),
            inum: layout!(own_inum),
        }
    }

    /// A `struct net`, if it is watched.
    #[inline(always)]
    pub fn watched<R: Read>(net: *const c_void) -> Option<Self> {
        if net.is_null() {
            return None;
        }
        let cookie = if layout!(net_cookie) == ABSENT {
            0
        } else {
            field!(R, net, net_cookie: u64)
        };
        let inum = field!(R, net, net_inum: u32);
        let key = if layout!(net_cookie) == ABSENT {
            u64::from(inum)
        } else {
            cookie
        };
        NETNS.get_ptr(&key)?;
        Some(Self { cookie, inum })
    }

    /// That of a `struct net_device`, if it is watched.
    #[inline(always)]
    pub fn of_device<R: Read>(dev: *const c_void) -> Option<Self> {
        if dev.is_null() {
            return None;
        }
        Self::watched::<R>(field!(R, dev, dev_net: *const c_void))
    }

    /// That of a `struct sock`, if it is watched.
    #[inline(always)]
    pub fn of_socket<R: Read>(sk: *const c_void) -> Option<Self> {
        if sk.is_null() {
            return None;
        }
        Self::watched::<R>(field!(R, sk, sk_net: *const c_void))
    }
}
