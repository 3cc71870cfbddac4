//! What `cargo xtask bench tc` measures the tc programs against. Never attached.

use super::flow::FLOWS;
use super::tc::{NEXT, headers};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use netflow_ebpf::parse::Linear;
use netflow_ebpf::{DIR_INGRESS, FlowKey};

/// Does nothing.
#[classifier]
fn bench_empty(_ctx: TcContext) -> i32 {
    NEXT
}

/// The least that a flow counter can do: parse, look the flow up, add packet and bytes.
#[classifier]
fn bench_reference(ctx: TcContext) -> i32 {
    let Ok((packet, vlan)) = headers(&Linear::new(&ctx), &ctx, true) else {
        return NEXT;
    };
    // SAFETY: the context of a tc program.
    let skb = unsafe { &*ctx.skb.skb };
    let key = FlowKey {
        tuple: packet.tuple,
        ifindex: skb.ifindex,
        vlan,
        dir: DIR_INGRESS,
        depth: 0,
    };
    if let Some(value) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
        unsafe {
            (*value).packets += 1;
            (*value).bytes += u64::from(packet.len);
        }
    }
    NEXT
}
