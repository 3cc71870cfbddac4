//! tc programs of others, a few instructions each.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

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

/// `rN = value`
fn load(register: u8, value: i32) -> Vec<u8> {
    instruction(0xb7, register, value)
}

fn exit() -> Vec<u8> {
    instruction(0x95, 0, 0)
}

fn instruction(code: u8, register: u8, immediate: i32) -> Vec<u8> {
    [&[code, register, 0, 0], &immediate.to_le_bytes()[..]].concat()
}

/// Attaches a program in the network namespace of the calling thread, before or after all that are there.
pub fn attach(name: &str, code: &[u8], device: &str, first: bool) -> Result<Foreign> {
    let mut ebpf = Ebpf::load(&elf(name, code)?)?;
    let program: &mut SchedClassifier =
        ebpf.program_mut(name).context("the program")?.try_into()?;
    program.load()?;
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

/// The object file that a compiler would have made.
fn elf(name: &str, code: &[u8]) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let text = file.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
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
