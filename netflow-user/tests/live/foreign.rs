//! Programs of others, a few instructions each.

use crate::attached::kernel_has_tcx;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, LinkOrder, SchedClassifier, TcAttachType};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// `TC_ACT_OK`: the packet goes on, and no program after this one is asked.
const OK: i32 = 0;
/// `BPF_FUNC_redirect` of `include/uapi/linux/bpf.h`.
const REDIRECT: i32 = 23;

/// An attached program, gone when dropped.
pub struct Foreign(#[expect(dead_code, reason = "held: dropping it detaches the program")] Ebpf);

/// Ends the list of programs, as a CNI's does that has found its packet in order.
pub fn says_ok() -> Vec<u8> {
    [load(0, OK), exit()].concat()
}

/// Sends every packet out of another interface.
pub fn redirects(ifindex: u32) -> Vec<u8> {
    let call = instruction(0x85, 0, REDIRECT);
    [load(1, ifindex.cast_signed()), load(2, 0), call, exit()].concat()
}

/// Gives a socket that connects to `from` the other address and port, as an eBPF proxy does with a Service's.
pub fn connects_elsewhere(from: Ipv4Addr, to: SocketAddrV4) -> Vec<u8> {
    // `user_ip4` and `user_port` of `struct bpf_sock_addr` (`include/uapi/linux/bpf.h`, v6.18) are in network order.
    const IP: i16 = 4;
    const PORT: i16 = 24;
    let network = |ip: Ipv4Addr| i32::from_ne_bytes(ip.octets());
    [
        full(0x61, 2, 1, IP, 0),
        // Of 32 bits; past the next four instructions.
        full(0x56, 2, 0, 4, network(from)),
        full(0xb4, 3, 0, 0, network(*to.ip())),
        full(0x63, 1, 3, IP, 0),
        full(0xb4, 3, 0, 0, i32::from(to.port().to_be())),
        full(0x63, 1, 3, PORT, 0),
        load(0, 1),
        exit(),
    ]
    .concat()
}

/// `rN = value`
fn load(register: u8, value: i32) -> Vec<u8> {
    instruction(0xb7, register, value)
}

fn exit() -> Vec<u8> {
    instruction(0x95, 0, 0)
}

fn instruction(code: u8, register: u8, immediate: i32) -> Vec<u8> {
    full(code, register, 0, 0, immediate)
}

fn full(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Vec<u8> {
    let mut bytes = vec![code, from << 4 | to];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(immediate.to_le_bytes());
    bytes
}

/// Attaches a program in the network namespace of the calling thread, before or after all that are there: by TCX, and where the kernel
/// has none as a filter before those of netflow, which then goes with the namespace.
pub fn attach(name: &str, code: &[u8], device: &str, first: bool) -> Result<Foreign> {
    let mut ebpf = Ebpf::load(&elf("classifier", name, code)?)?;
    let program: &mut SchedClassifier =
        ebpf.program_mut(name).context("the program")?.try_into()?;
    program.load()?;
    if !kernel_has_tcx() {
        qdisc_add_clsact(device)?;
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: 1,
            ..NlOptions::default()
        });
        let id = program.attach_with_options(device, TcAttachType::Ingress, options)?;
        // Dropped, it would be detached by index in whatever namespace the thread is in by then.
        std::mem::forget(program.take_link(id)?);
        return Ok(Foreign(ebpf));
    }
    let order = if first {
        LinkOrder::first()
    } else {
        LinkOrder::last()
    };
    program.attach_with_options(
        device,
        TcAttachType::Ingress,
        TcAttachOptions::TcxOrder(order),
    )?;
    Ok(Foreign(ebpf))
}

/// Attaches a program that `connect()` of the processes in a cgroup passes.
pub fn attach_connect(name: &str, code: &[u8], cgroup: &Path) -> Result<Foreign> {
    let mut ebpf = Ebpf::load(&elf("cgroup/connect4", name, code)?)?;
    let program: &mut CgroupSockAddr = ebpf.program_mut(name).context("the program")?.try_into()?;
    program.load()?;
    program.attach(File::open(cgroup)?, CgroupAttachMode::Single)?;
    Ok(Foreign(ebpf))
}

/// The object file that a compiler would have made.
fn elf(section: &str, name: &str, code: &[u8]) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let text = file.add_section(Vec::new(), section.as_bytes().to_vec(), SectionKind::Text);
    file.append_section_data(text, code, 8);
    file.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    Ok(file.write()?)
}
