//! What user space finds out about types and functions of modules.
//!
//! A module may be loaded long after netflow has started, when [`super::Layout`] is frozen. So its part stands in a map, the array
//! `MODULES` of one element, that user space writes before it attaches to functions of the module. Only programs on functions read
//! it, and those read the kernel's memory through a helper anyway, to which an offset need not be a constant.

use super::plain::plain;
use super::{ABSENT, Hook};

/// How one offset of a module's type is found: see [`super::Field`].
#[derive(Clone, Copy)]
pub struct ModuleField {
    /// Name in [`ModuleLayout`].
    pub name: &'static str,
    /// Path in the module's BTF.
    pub path: &'static str,
    /// See [`super::Field::bytes`].
    pub bytes: u32,
    /// Hooks that must not be attached without it.
    pub need: &'static [Hook],
    /// Puts the offset into the layout.
    pub set: fn(&mut ModuleLayout, u16),
}

macro_rules! module_layout {
    ($($(#[$doc:meta])* $name:ident: $path:literal, $bytes:literal, $need:expr;)+) => {
        /// Offsets and addresses of modules.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct ModuleLayout {
            /// First address of `early_drop`; 0 = not known.
            pub early_drop: u64,
            /// First address after it.
            pub early_drop_end: u64,
            /// Always 0.
            pub pad: [u16; 4],
            $($(#[$doc])* pub $name: u16,)+
        }

        /// Every offset of [`ModuleLayout`].
        pub const MODULE_FIELDS: &[ModuleField] = &[$(ModuleField {
            name: stringify!($name),
            path: $path,
            bytes: $bytes,
            need: $need,
            set: |layout, offset| layout.$name = offset,
        },)+];

        impl ModuleLayout {
            /// Nothing known.
            pub const EMPTY: Self = Self { early_drop: 0, early_drop_end: 0, pad: [0; 4], $($name: ABSENT,)+ };
        }
    };
}

const NFT: &[Hook] = &[Hook::NftChain];
const XT: &[Hook] = &[Hook::XtTable];
const IPVS: &[Hook] = &[Hook::IpvsXmit];

module_layout! {
    /// Packet that nftables works on.
    nft_pkt_skb: "nft_pktinfo.skb", 8, NFT;
    /// Hook that it is at.
    nft_pkt_state: "nft_pktinfo.state", 8, NFT;
    /// Table of a chain.
    nft_chain_table: "nft_chain.table", 8, NFT;
    /// Name of a chain.
    nft_chain_name: "nft_chain.name", 8, NFT;
    /// Name of a table.
    nft_table_name: "nft_table.name", 8, NFT;
    /// Family of a table, in the low six bits.
    nft_table_family: "nft_table.family", 1, &[];
    /// Name of a table of iptables.
    xt_table_name: "xt_table.name", 0, XT;
    /// Flags of an IPVS connection, with the way of forwarding in the low three bits.
    vs_flags: "ip_vs_conn.flags", 4, IPVS;
    /// Client's port.
    vs_cport: "ip_vs_conn.cport", 2, IPVS;
    /// Address of the destination.
    vs_daddr: "ip_vs_conn.daddr", 16, IPVS;
    /// Its port.
    vs_dport: "ip_vs_conn.dport", 2, IPVS;
    /// Its address family: of 16 bits in older kernels, and of 8 in 7.2, the first byte.
    vs_daf: "ip_vs_conn.daf", 1, IPVS;
}

plain!(ModuleLayout = 8 + 8 + 4 * 2 + 2 * MODULE_FIELDS.len());
