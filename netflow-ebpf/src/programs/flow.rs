//! The flow map: what every packet adds, and what changes a connection's story.

use super::layout::layout;
use super::netns::Netns;
use super::ring::{self, Place};
use super::zero::clear;
use super::{clock, lost, room};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::TcContext;
use core::mem::MaybeUninit;
use core::ptr;
use netflow_ebpf::map::{FLOWS_ENTRIES, IFACES_ENTRIES};
use netflow_ebpf::parse::{ACK, FIN, Packet, RST, SYN, TCP, UDP, Whole};
use netflow_ebpf::{
    DIR_EGRESS, FLOW_END_WITHIN, FlowEndRecord, FlowKey, FlowValue, IFACE_EMIT_EGRESS,
    IFACE_EMIT_INGRESS, IcmpErrorRecord, Kind, Lost, SegmentRecord, Tuple, parse,
};

/// Not LRU: what is watched must not be pushed out by what is not. When it is full, it says so.
#[map]
pub static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(FLOWS_ENTRIES, 0);

/// Which interfaces are first observation points.
#[map]
static IFACES: HashMap<u32, u32> = HashMap::with_max_entries(IFACES_ENTRIES, 0);

/// The packet at hand. In a map rather than on the stack: the stack is small, and what stands in a map is just a number to the
/// verifier, which else would follow every outcome of the parser through all that comes after. tc programs run with bottom halves
/// disabled, so one per CPU is enough.
#[map]
static SIGHT: PerCpuArray<Sight> = PerCpuArray::with_max_entries(1, 0);

/// One packet at one place.
pub struct Sight {
    key: FlowKey,
    /// Segments that it stands for.
    segments: u32,
    /// Bytes from the IP header on, headers of each segment included.
    bytes: u32,
    /// The same of the biggest segment.
    len: u32,
    /// Payload of all segments.
    payload: u32,
    seq: u32,
    ack: u32,
    transport: u32,
    transport_len: u32,
    flags: u8,
    ttl: u8,
    later_fragment: bool,
    no_ports: bool,
}

/// Where this CPU's packet is noted.
#[inline(always)]
pub fn sight() -> Option<&'static mut Sight> {
    // SAFETY: never removed, and used by one program at a time.
    SIGHT.get_ptr_mut(0).map(|sight| unsafe { &mut *sight })
}

/// Counts the packet.
#[inline(always)]
pub fn count(ctx: &TcContext, sight: &Sight) {
    let is_error = if sight.is_tcp() {
        false
    } else {
        if parse::is_link_control(&sight.key.tuple) {
            return;
        }
        if sight.later_fragment {
            lost::count(Lost::FragmentNoPorts);
        } else if sight.no_ports {
            lost::count(Lost::NoPorts);
        }
        !sight.later_fragment && parse::is_icmp_error(&sight.key.tuple)
    };
    match FLOWS.get_ptr_mut(&sight.key) {
        Some(value) => known(ctx, sight, value),
        None => begin(ctx.skb.skb, sight),
    }
    if is_error {
        icmp_error(ctx.skb.skb, sight);
    }
}

impl Sight {
    /// Notes a packet.
    #[inline(always)]
    pub fn note(&mut self, ctx: &TcContext, packet: &Packet, vlan: u16, dir: u8) {
        // SAFETY: the context of a tc program.
        let skb = unsafe { &*ctx.skb.skb };
        let aggregate = skb.gso_size;
        let carried = skb.len.wrapping_sub(packet.ip);
        // The IP header knows about link padding, and does not know the size of a big aggregate.
        let whole = if aggregate != 0 || packet.len == 0 {
            carried
        } else {
            packet.len
        };
        let payload = packet.payload(whole);
        let (segments, bytes, len) = if aggregate == 0 || payload <= aggregate {
            (1, whole, whole)
        } else {
            let headers = whole - payload;
            let segments = payload.div_ceil(aggregate);
            (
                segments,
                whole + (segments - 1) * headers,
                headers + aggregate,
            )
        };
        *self = Self {
            key: FlowKey {
                tuple: packet.tuple,
                ifindex: skb.ifindex,
                vlan,
                dir,
                depth: 0,
            },
            segments,
            bytes,
            len,
            payload,
            seq: packet.seq,
            ack: packet.ack,
            transport: packet.transport,
            transport_len: packet.transport_len,
            flags: packet.flags,
            ttl: packet.ttl,
            later_fragment: packet.later_fragment,
            no_ports: packet.no_ports,
        };
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.key.tuple.proto == TCP && !self.later_fragment
    }

    /// Biggest packet, as far as the ABI counts.
    #[inline(always)]
    fn len16(&self) -> u16 {
        if self.len > 0xffff {
            0xffff
        } else {
            self.len as u16
        }
    }
}

/// A packet of a flow that has an entry.
#[inline(always)]
fn known(ctx: &TcContext, sight: &Sight, value: *mut FlowValue) {
    // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
    let value = unsafe { &mut *value };
    if sight.is_tcp() {
        if sight.flags & (SYN | RST | FIN) != 0 {
            turn(ctx.skb.skb, sight, value);
        }
        if sight.payload != 0 {
            let end = sight.seq.wrapping_add(sight.payload);
            if value.data == 0 {
                value.data = clock::now();
                value.seq_end = end;
            } else if is_after(end, value.seq_end) {
                value.seq_end = end;
            } else {
                retransmitted(ctx.skb.skb, sight, value);
            }
        }
        if sight.flags & ACK != 0 && (value.flags & ACK == 0 || is_after(sight.ack, value.ack)) {
            value.ack = sight.ack;
        }
        value.flags |= sight.flags;
    }
    value.last_tick = clock::tick();
    add(sight, value);
}

/// What is the same for every protocol.
#[inline(always)]
fn add(sight: &Sight, value: &mut FlowValue) {
    value.packets += u64::from(sight.segments);
    value.bytes += u64::from(sight.bytes);
    value.ttl = sight.ttl;
    let len = sight.len16();
    if len > value.max_packet {
        value.max_packet = len;
    }
}

/// Sequence numbers wrap.
#[inline(always)]
fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b)).cast_signed() > 0
}

/// The first packet of a flow.
#[inline(never)]
fn begin(skb: *mut __sk_buff, sight: &Sight) {
    let now = clock::now();
    let mut value = MaybeUninit::<FlowValue>::uninit();
    // SAFETY: `restart` writes all of it.
    let value = unsafe {
        restart(value.as_mut_ptr(), now);
        value.assume_init_mut()
    };
    add(sight, value);
    value.ack = sight.ack;
    value.flags = sight.flags;
    let mut kind = Kind::FirstPacket;
    if sight.is_tcp() {
        if sight.payload != 0 {
            value.data = now;
            value.seq_end = sight.seq.wrapping_add(sight.payload);
        }
        if sight.flags & FIN != 0 {
            value.fin = now;
        }
        if sight.flags & RST != 0 {
            value.rst = now;
            kind = Kind::Rst;
        } else if sight.flags & SYN != 0 {
            kind = open(skb, sight, value, now);
        }
    }
    let inserted = if room::takes_flow(&sight.key.tuple) {
        FLOWS.insert(&sight.key, &*value, u64::from(BPF_NOEXIST))
    } else {
        Err(E2BIG)
    };
    match inserted {
        Ok(()) => room::take_flow(),
        // Another CPU was quicker and has told the story.
        Err(EEXIST) => return,
        Err(_) => lost::count(Lost::FlowMapFull),
    }
    let quiet = sight.later_fragment
        || is_tunnel(&sight.key.tuple)
        || parse::is_icmp_error(&sight.key.tuple);
    if !quiet && is_first_point(skb, sight.key.dir) {
        segment(skb, sight, kind, value.mss, now);
    }
}

/// The map is full.
const E2BIG: i32 = -7;
const EEXIST: i32 = -17;

/// A packet that carries one of SYN, RST, FIN.
#[inline(never)]
fn turn(skb: *mut __sk_buff, sight: &Sight, value: &mut FlowValue) {
    let now = clock::now();
    if sight.flags & SYN != 0 && sight.flags & RST == 0 {
        let again = value.syn | value.syn_ack != 0 && value.isn == sight.seq;
        if again {
            value.syn_retrans += 1;
            return;
        }
        if clock::since(value.last_tick) < FLOW_END_WITHIN {
            flow_end(sight, value, now);
        }
        // SAFETY: a valid reference.
        unsafe { restart(value, now) };
        let kind = open(skb, sight, value, now);
        if is_first_point(skb, sight.key.dir) {
            segment(skb, sight, kind, value.mss, now);
        }
    }
    if sight.flags & FIN != 0 && value.fin == 0 {
        value.fin = now;
    }
    if sight.flags & RST != 0 && value.rst == 0 {
        value.rst = now;
        if is_first_point(skb, sight.key.dir) {
            segment(skb, sight, Kind::Rst, 0, now);
        }
    }
}

/// Notes a SYN or SYN-ACK in an entry that begins with it.
#[inline(always)]
fn open(skb: *mut __sk_buff, sight: &Sight, value: &mut FlowValue, now: u64) -> Kind {
    let ctx = TcContext::new(skb);
    value.isn = sight.seq;
    value.mss = parse::mss(&Whole(&ctx), sight.transport, sight.transport_len);
    if sight.flags & ACK == 0 {
        value.syn = now;
        Kind::Syn
    } else {
        value.syn_ack = now;
        Kind::SynAck
    }
}

/// Makes an entry that of a new flow; the packet at hand is counted after.
///
/// # Safety
/// `value` can be written.
#[inline(always)]
unsafe fn restart(value: *mut FlowValue, now: u64) {
    let tick = clock::tick();
    // SAFETY: zeros are a valid value.
    unsafe {
        clear(value);
        (*value).first = now;
        (*value).first_tick = tick;
        (*value).last_tick = tick;
    }
}

/// A data segment that brings nothing new.
#[inline(never)]
fn retransmitted(skb: *mut __sk_buff, sight: &Sight, value: &mut FlowValue) {
    let now = clock::now();
    value.retrans += 1;
    value.retrans_last = now;
    let len = sight.len16();
    if len > value.retrans_max {
        value.retrans_max = len;
    }
    if value.retrans_first == 0 {
        value.retrans_first = now;
        if is_first_point(skb, sight.key.dir) {
            segment(skb, sight, Kind::Retransmit, 0, now);
        }
    }
}

/// Whether this is where the node sees the packet first: where it came in, or, if it began here, where it leaves.
#[inline(always)]
fn is_first_point(skb: *mut __sk_buff, dir: u8) -> bool {
    // SAFETY: the context of a tc program.
    let (ifindex, came_in) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex) };
    let flag = if dir == DIR_EGRESS {
        if came_in != 0 {
            return false;
        }
        IFACE_EMIT_EGRESS
    } else {
        IFACE_EMIT_INGRESS
    };
    // SAFETY: preallocated, so valid memory; the value is a plain word.
    IFACES
        .get_ptr(&ifindex)
        .is_none_or(|flags| unsafe { *flags } & flag != 0)
}

/// Each inner connection has an outer source port of its own: a record for each would say nothing.
#[inline(always)]
fn is_tunnel(tuple: &Tuple) -> bool {
    if tuple.proto != UDP {
        return false;
    }
    let mut tunnel = false;
    for n in 0..8 {
        let port = layout!(tunnel_ports[n]);
        tunnel |= port != 0 && (port == tuple.dport || port == tuple.sport);
    }
    tunnel
}

#[inline(always)]
fn place(sight: &Sight, time: u64) -> Place<'_> {
    Place {
        time,
        netns: Netns::own(),
        ifindex: sight.key.ifindex,
        tuple: Some(&sight.key.tuple),
    }
}

#[inline(never)]
fn segment(_skb: *mut __sk_buff, sight: &Sight, kind: Kind, mss: u16, now: u64) {
    let Some(mut entry) = ring::reserve::<SegmentRecord>(kind, &place(sight, now)) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).seq = sight.seq;
        (*record).ack = sight.ack;
        (*record).mss = mss;
        (*record).len = sight.len16();
        (*record).vlan = sight.key.vlan;
        (*record).flags = sight.flags;
        (*record).ttl = sight.ttl;
        (*record).dir = sight.key.dir;
        clear(&raw mut (*record).pad);
    }
    ring::submit(entry);
}

#[inline(always)]
fn flow_end(sight: &Sight, value: &FlowValue, now: u64) {
    let place = place(sight, now);
    let Some(mut entry) = ring::reserve::<FlowEndRecord>(Kind::FlowEnd, &place) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        (*record).key = sight.key;
        ptr::copy_nonoverlapping(value, &raw mut (*record).value, 1);
    }
    ring::submit(entry);
}

#[inline(never)]
fn icmp_error(skb: *mut __sk_buff, sight: &Sight) {
    if !is_first_point(skb, sight.key.dir) {
        return;
    }
    let ctx = TcContext::new(skb);
    let Some((mtu, quoted)) =
        parse::icmp_error(&Whole(&ctx), sight.key.tuple.proto, sight.transport)
    else {
        return;
    };
    let place = place(sight, clock::now());
    let Some(mut entry) = ring::reserve::<IcmpErrorRecord>(Kind::IcmpError, &place) else {
        return;
    };
    let (icmp_type, code) = parse::icmp_type_code(&sight.key.tuple);
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring, big enough for the record.
    unsafe {
        clear(&raw mut (*record).quoted);
        if let Some(packet) = quoted {
            (*record).quoted = packet.tuple;
        }
        (*record).mtu = mtu;
        (*record).icmp_type = icmp_type;
        (*record).code = code;
        (*record).dir = sight.key.dir;
        (*record).pad = 0;
    }
    ring::submit(entry);
}
