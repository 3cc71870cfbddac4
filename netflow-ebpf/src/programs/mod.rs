//! One file per concept. `tc`, `drop`, `conntrack`, `icmp`, `tcp`, `route`, `neigh`, those on functions (`entry`, `verdict`, `pmtu`,
//! `ipvs`, `listen`) and `bench` hold the programs, the others what they share.

mod bench;
mod call;
mod clock;
mod conntrack;
mod drop;
mod entry;
mod flow;
mod icmp;
mod ipvs;
mod layout;
mod listen;
mod lost;
mod module;
mod neigh;
mod netns;
mod pmtu;
mod read;
mod ring;
mod room;
mod route;
mod seen;
mod skb;
mod sock;
mod tc;
mod tcp;
mod verdict;
mod zero;

/// The kernel gives the helpers used here to programs that are GPL-compatible only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics: the verifier would not accept the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
