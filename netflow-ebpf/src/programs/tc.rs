//! The programs on interfaces. They count, and always return -1: whatever comes after them decides about the packet as
//! if they were not there (`TCX_NEXT` and `TC_ACT_UNSPEC`,
//! <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/bpf.h>).

use super::{flow, lost};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use netflow_ebpf::parse::{self, Linear, Link, Odd, Packet, Source, Whole};
use netflow_ebpf::{DIR_EGRESS, DIR_INGRESS};

/// Not our decision.
pub const NEXT: i32 = -1;

#[classifier]
fn netflow_in(ctx: TcContext) -> i32 {
    observe(&ctx, DIR_INGRESS, true)
}

#[classifier]
fn netflow_out(ctx: TcContext) -> i32 {
    observe(&ctx, DIR_EGRESS, true)
}

#[classifier]
fn netflow_in_l3(ctx: TcContext) -> i32 {
    observe(&ctx, DIR_INGRESS, false)
}

#[classifier]
fn netflow_out_l3(ctx: TcContext) -> i32 {
    observe(&ctx, DIR_EGRESS, false)
}

#[inline(always)]
fn observe(ctx: &TcContext, dir: u8, is_ethernet: bool) -> i32 {
    let Some(sight) = flow::sight() else {
        return NEXT;
    };
    let linear = Linear::new(ctx);
    match headers(&linear, ctx, is_ethernet) {
        Ok((packet, vlan)) => sight.note(ctx, &packet, vlan, dir),
        // The headers are there, in page fragments.
        Err(Odd::Truncated) if linear.is_partial(ctx) => {
            let skb = ctx.skb.skb;
            let is_noted = if is_ethernet {
                note_whole_ethernet(skb, dir)
            } else {
                note_whole_l3(skb, dir)
            };
            if is_noted == 0 {
                log(ctx.skb.skb);
                return NEXT;
            }
        }
        Err(odd) => {
            lost::odd(odd);
            if odd != Odd::Arp {
                log(ctx.skb.skb);
            }
            return NEXT;
        }
    }
    flow::count(ctx, sight);
    NEXT
}

#[inline(never)]
fn note_whole_ethernet(skb: *mut __sk_buff, dir: u8) -> u32 {
    u32::from(note_whole(skb, dir, true))
}

#[inline(never)]
fn note_whole_l3(skb: *mut __sk_buff, dir: u8) -> u32 {
    u32::from(note_whole(skb, dir, false))
}

#[inline(always)]
fn note_whole(skb: *mut __sk_buff, dir: u8, is_ethernet: bool) -> bool {
    let ctx = TcContext::new(skb);
    let Some(sight) = flow::sight() else {
        return false;
    };
    match headers(&Whole(&ctx), &ctx, is_ethernet) {
        Ok((packet, vlan)) => {
            sight.note(&ctx, &packet, vlan, dir);
            true
        }
        Err(odd) => {
            lost::odd(odd);
            false
        }
    }
}

/// Says that a packet is not followed. The log is off, and this empty to the verifier, unless `AYA_LOG_LEVEL` was raised before
/// the programs were loaded.
#[inline(never)]
fn log(skb: *mut __sk_buff) {
    let ctx = TcContext::new(skb);
    // SAFETY: the context of a tc program.
    let (ifindex, protocol) = unsafe { ((*skb).ifindex, (*skb).protocol) };
    debug!(
        &ctx,
        "interface {}: a packet of protocol {:x} is not followed",
        ifindex,
        u16::from_be(protocol as u16)
    );
}

/// The packet and its outermost VLAN id. A tag may stand in the packet or, taken out by the card, beside it.
#[inline(always)]
pub fn headers<S: Source>(
    source: &S,
    ctx: &TcContext,
    is_ethernet: bool,
) -> Result<(Packet, u16), Odd> {
    // SAFETY: the context of a tc program.
    let skb = unsafe { &*ctx.skb.skb };
    let link = if is_ethernet {
        parse::ethernet(source)?
    } else {
        Link {
            ip: 0,
            ethertype: skb.protocol as u16,
            vlan: 0,
        }
    };
    let vlan = if skb.vlan_present == 0 {
        link.vlan
    } else {
        skb.vlan_tci as u16 & 0xfff
    };
    Ok((parse::packet(source, link.ip, link.ethertype)?, vlan))
}
