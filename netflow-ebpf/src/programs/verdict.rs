//! Which hook and which rules give a packet up.
//!
//! netfilter frees a packet that it drops deep inside its own functions, before any of them returns. So what they work on is noted
//! by packet when they begin, and the program on `kfree_skb` takes the note into the drop's one record.

use super::call::{self, Function, Note};
use super::module::{at, modules};
use super::netns::Netns;
use super::read::{Probe, Read as _, field};
use super::skb::Skb;
use super::zero::clear;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::{kprobe, kretprobe, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use core::ffi::c_void;
use netflow_ebpf::map::VERDICTS_ENTRIES;
use netflow_ebpf::{
    ABSENT, NAME, REJECT_RESET, REJECT_UNREACHABLE, RULES_NFT, RULES_NONE, RULES_XT, Verdict,
};

/// Verdicts (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/netfilter.h>); an error may stand above.
const NF_VERDICT_MASK: u32 = 0xff;
/// See [`NF_VERDICT_MASK`].
const NF_DROP: u32 = 0;

/// What is noted of a packet. Names are read when they are needed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Noted {
    /// `struct nft_chain` or `struct xt_table`.
    rules: u64,
    input: u32,
    output: u32,
    hook: u8,
    family: u8,
    kind: u8,
    sure: u8,
    reject: u8,
    code: u8,
    pad: u16,
}

/// By address of the packet.
#[map]
static VERDICTS: LruHashMap<u64, Noted> = LruHashMap::with_max_entries(VERDICTS_ENTRIES, 0);

#[kprobe]
fn netflow_hook(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(state)) = (ctx.arg::<u64>(0), ctx.arg::<*const c_void>(1)) {
        let _ = note(skb, state, 0, RULES_NONE);
    }
    0
}

#[kprobe]
fn netflow_nft(ctx: ProbeContext) -> u32 {
    let _ = chain(&ctx);
    0
}

#[inline(always)]
fn chain(ctx: &ProbeContext) -> Option<()> {
    let pkt: *const c_void = ctx.arg(0)?;
    let modules = modules()?;
    // SAFETY: integers and pointers.
    let (skb, state) = unsafe {
        (
            Probe::read(at::<u64>(pkt, modules.nft_pkt_skb)),
            Probe::read(at::<*const c_void>(pkt, modules.nft_pkt_state)),
        )
    };
    note(skb, state, ctx.arg(1)?, RULES_NFT)?;
    begins(ctx, Function::Nft, skb);
    Some(())
}

#[kretprobe]
fn netflow_nft_ret(ctx: RetProbeContext) -> u32 {
    judged(&ctx, Function::Nft);
    0
}

#[kprobe]
fn netflow_xt(ctx: ProbeContext) -> u32 {
    let _ = table(&ctx, 1, 2, 0);
    0
}

/// Before 6.1.
#[kprobe]
fn netflow_xt_old(ctx: ProbeContext) -> u32 {
    let _ = table(&ctx, 0, 1, 2);
    0
}

#[inline(always)]
fn table(ctx: &ProbeContext, skb: usize, state: usize, table: usize) -> Option<()> {
    let skb: u64 = ctx.arg(skb)?;
    note(skb, ctx.arg(state)?, ctx.arg(table)?, RULES_XT)?;
    begins(ctx, Function::Xt, skb);
    Some(())
}

#[kretprobe]
fn netflow_xt_ret(ctx: RetProbeContext) -> u32 {
    judged(&ctx, Function::Xt);
    0
}

#[inline(always)]
fn begins(ctx: &ProbeContext, function: Function, skb: u64) {
    let note = Note {
        first: skb,
        second: 0,
    };
    call::begins(ctx, function, note);
}

/// Notes the hook, `struct nf_hook_state`, and the rules asked there.
#[inline(always)]
fn note(skb: u64, state: *const c_void, rules: u64, kind: u8) -> Option<()> {
    Netns::watched::<Probe>(field!(Probe, state, state_net: *const c_void))?;
    let noted = Noted {
        rules,
        input: ifindex(field!(Probe, state, state_in: *const c_void)),
        output: ifindex(field!(Probe, state, state_out: *const c_void)),
        hook: field!(Probe, state, state_hook: u8),
        family: field!(Probe, state, state_pf: u8),
        kind,
        sure: 0,
        reject: 0,
        code: 0,
        pad: 0,
    };
    let _ = VERDICTS.insert(&skb, &noted, 0);
    Some(())
}

#[inline(always)]
fn ifindex(dev: *const c_void) -> u32 {
    if dev.is_null() {
        0
    } else {
        field!(Probe, dev, dev_ifindex: u32)
    }
}

/// The rules have answered. Where they say "drop" the packet is freed by whoever asked them; where they have freed it themselves
/// there is no note any more.
#[inline(always)]
fn judged(ctx: &RetProbeContext, function: Function) {
    let Some(note) = call::ends(ctx, function) else {
        return;
    };
    let Some(noted) = VERDICTS.get_ptr_mut(&note.first) else {
        return;
    };
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let noted = unsafe { &mut *noted };
    if ctx.ret::<u32>() & NF_VERDICT_MASK == NF_DROP {
        noted.sure = 1;
    } else {
        noted.kind = RULES_NONE;
    }
}

#[kprobe]
fn netflow_reject(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(code)) = (ctx.arg(0), ctx.arg(1)) {
        rejected(skb, REJECT_UNREACHABLE, code);
    }
    0
}

#[kprobe]
fn netflow_reject6(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(code)) = (ctx.arg(1), ctx.arg(2)) {
        rejected(skb, REJECT_UNREACHABLE, code);
    }
    0
}

#[kprobe]
fn netflow_reset(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(2) {
        rejected(skb, REJECT_RESET, 0);
    }
    0
}

/// A rule has the sender told. It gives the packet up right after.
#[inline(always)]
fn rejected(skb: *const c_void, reject: u8, code: u8) {
    if Skb::watched::<Probe>(skb).is_none() {
        return;
    }
    let key = skb as u64;
    if let Some(noted) = VERDICTS.get_ptr_mut(&key) {
        // SAFETY: as above.
        unsafe {
            (*noted).reject = reject;
            (*noted).code = code;
        }
        return;
    }
    let noted = Noted {
        rules: 0,
        input: 0,
        output: 0,
        hook: 0,
        family: 0,
        kind: RULES_NONE,
        sure: 0,
        reject,
        code,
        pad: 0,
    };
    let _ = VERDICTS.insert(&key, &noted, 0);
}

/// Writes what was noted of the packet that is dropped to `to`, and forgets it; all zero if nothing was.
///
/// # Safety
/// `to` can be written.
#[inline(always)]
pub unsafe fn take(skb: *const c_void, to: *mut Verdict) {
    // SAFETY: zeros are a valid value.
    unsafe { clear(to) };
    let key = skb as u64;
    let Some(noted) = VERDICTS.get_ptr(&key) else {
        return;
    };
    // SAFETY: as above.
    let noted = unsafe { *noted };
    let _ = VERDICTS.remove(&key);
    // SAFETY: `to` can be written.
    unsafe {
        (*to).input = noted.input;
        (*to).output = noted.output;
        (*to).hook = noted.hook;
        (*to).family = noted.family;
        (*to).rules = noted.kind;
        (*to).sure = noted.sure;
        (*to).reject = noted.reject;
        (*to).code = noted.code;
    }
    let Some(modules) = modules() else {
        return;
    };
    let rules = noted.rules as *const c_void;
    // SAFETY: integers and pointers; the names are read through the helper, which ends them with a zero.
    unsafe {
        if noted.kind == RULES_NFT {
            let table = Probe::read(at::<*const c_void>(rules, modules.nft_chain_table));
            let chain = Probe::read(at::<*const c_void>(rules, modules.nft_chain_name));
            name(&raw mut (*to).chain, chain);
            let text = Probe::read(at::<*const c_void>(table, modules.nft_table_name));
            name(&raw mut (*to).table, text);
            if modules.nft_table_family != ABSENT {
                let bits = Probe::read(at::<u8>(table, modules.nft_table_family));
                (*to).table_family = bits & 0x3f;
            }
        } else if noted.kind == RULES_XT {
            name(&raw mut (*to).table, at(rules, modules.xt_table_name));
        }
    }
}

/// # Safety
/// `to` can be written.
#[inline(always)]
unsafe fn name(to: *mut [u8; NAME], from: *const c_void) {
    // SAFETY: the helper takes any address to read from, and writes no more than it is told.
    unsafe { bpf_probe_read_kernel_str(to.cast(), NAME as u32, from) };
}
