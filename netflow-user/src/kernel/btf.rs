//! Reader of BTF, the kernel's description of its own types.
//!
//! Only what the tiers need: where a member lies, how many arguments a tracepoint hands over, what an enum's values
//! are called. The format is Documentation/bpf/btf.rst (v6.18). Input is not trusted: every offset is checked, and
//! every walk along type references is bounded, so that garbage is an error and never a panic.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the kernel shows its BTF: `vmlinux` and one file for each module.
pub const SYSFS: &str = "/sys/kernel/btf";

/// Longest name (`KSYM_NAME_LEN` of `include/linux/kallsyms.h`, v6.18): a longer one is none that anybody asks for.
const NAME_LEN: usize = 512;

/// Typedefs, qualifiers and anonymous members are followed at most this deep (the kernel's own bound for resolving is
/// 32, `MAX_RESOLVE_DEPTH` in kernel/bpf/btf.c, v6.18).
const MAX_DEPTH: usize = 32;

/// At most so many members are looked at for one path; the biggest structs have some hundreds.
const MAX_MEMBERS: usize = 100_000;

/// A function with more arguments is none that anybody asks for.
const MAX_ARGUMENTS: u16 = 64;

/// The longest fixed header that this reader knows.
const HEADER: usize = 24;

/// Why BTF could not be read, or does not have what was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The data does not start as BTF does.
    #[error("not BTF of this machine's byte order (magic {0:#06x})")]
    Magic(u16),
    /// A header, type or string reaches beyond the data.
    #[error("{what} at byte {offset} lies outside the data")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where.
        offset: usize,
    },
    /// A kind of type that this reader does not know; its length is unknown, so nothing behind it can be read.
    #[error("unknown kind of type {0}")]
    UnknownKind(u8),
    /// No type of that id.
    #[error("no type with id {0}")]
    NoId(u32),
    /// No type of that name.
    #[error("the kernel has no {what} {name}")]
    NoType {
        /// `struct`, `enum`, `tracepoint`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The type has no such member.
    #[error("{path}: no member {member}")]
    NoMember {
        /// The whole path.
        path: String,
        /// The part that is missing.
        member: String,
    },
    /// The path asks for what the types do not allow, or is itself malformed.
    #[error("{path}: {why}")]
    Path {
        /// The whole path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Type references that do not end.
    #[error("type {0} refers to itself")]
    Endless(u32),
    /// The file could not be read.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// `BTF_KIND_*` (include/uapi/linux/btf.h, v6.18).
pub(super) mod kind {
    pub const INT: u8 = 1;
    pub const PTR: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FWD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNC: u8 = 12;
    pub const FUNC_PROTO: u8 = 13;
    pub const VAR: u8 = 14;
    pub const DATASEC: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECL_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;

    /// Bytes that follow the common part of a type with `vlen` elements.
    pub fn trailer(kind: u8, vlen: usize) -> Option<usize> {
        Some(match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * vlen,
            ENUM | FUNC_PROTO => 8 * vlen,
            PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
            _ => return None,
        })
    }
}

/// The common part of a type and where the rest of it lies.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    kflag: bool,
    vlen: u16,
    /// The type referred to, or the size in bytes, by kind.
    referent: u32,
    trailer: usize,
}

/// Where a member lies within the outermost struct of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Offset in bits.
    pub bit_offset: u32,
    /// Width in bits where it is a bitfield.
    pub bit_width: Option<u32>,
    type_id: u32,
}

impl Field {
    /// Offset in bytes, of the byte that holds the first bit of a bitfield.
    pub fn byte_offset(self) -> u32 {
        self.bit_offset / 8
    }
}

/// Names by which a type can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Space {
    Aggregate,
    Enum,
    Typedef,
}

impl Space {
    fn of(kind: u8) -> Option<Space> {
        match kind {
            kind::STRUCT | kind::UNION => Some(Space::Aggregate),
            kind::ENUM | kind::ENUM64 => Some(Space::Enum),
            kind::TYPEDEF => Some(Space::Typedef),
            _ => None,
        }
    }
}

/// One blob of BTF: vmlinux, or a module on top of it.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: std::ops::Range<usize>,
    types: Vec<Type>,
    names: HashMap<(Space, Box<str>), u32>,
    first_id: u32,
    base: Option<Arc<Btf>>,
}

impl Btf {
    /// Reads BTF that stands on its own (vmlinux).
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        Self::read(data, None)
    }

    /// Reads a module's BTF, whose type ids and strings continue those of `base`.
    pub fn parse_split(data: Vec<u8>, base: Arc<Btf>) -> Result<Btf, BtfError> {
        Self::read(data, Some(base))
    }

    fn read(data: Vec<u8>, base: Option<Arc<Btf>>) -> Result<Btf, BtfError> {
        let magic = u16_at(&data, 0, "header")?;
        if magic != 0xeb9f {
            return Err(BtfError::Magic(magic));
        }
        let header = u32_at(&data, 4, "header")? as usize;
        if header < HEADER {
            return Err(BtfError::Truncated {
                what: "header",
                offset: header,
            });
        }
        let types = section(&data, header, 8, "types")?;
        let strings = section(&data, header, 16, "strings")?;
        let first_id = base.as_ref().map_or(1, |b| b.end_id());
        let mut btf = Btf {
            data,
            strings,
            types: Vec::new(),
            names: HashMap::new(),
            first_id,
            base,
        };
        btf.read_types(types)?;
        btf.index()?;
        Ok(btf)
    }

    fn read_types(&mut self, section: std::ops::Range<usize>) -> Result<(), BtfError> {
        let mut at = section.start;
        while at < section.end {
            let info = u32_at(&self.data, at + 4, "type")?;
            let (kind, vlen) = ((info >> 24 & 0x1f) as u8, info as u16);
            let trailer =
                kind::trailer(kind, usize::from(vlen)).ok_or(BtfError::UnknownKind(kind))?;
            self.types.push(Type {
                name: u32_at(&self.data, at, "type")?,
                kind,
                kflag: info >> 31 == 1,
                vlen,
                referent: u32_at(&self.data, at + 8, "type")?,
                trailer: at + 12,
            });
            at += 12 + trailer;
            if at > section.end {
                return Err(BtfError::Truncated {
                    what: "type",
                    offset: at,
                });
            }
        }
        Ok(())
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut names = HashMap::new();
        for (id, ty) in (self.first_id..).zip(&self.types) {
            if let Some(space) = Space::of(ty.kind)
                && ty.name != 0
            {
                let name = self.string(ty.name)?;
                // The first of several same-named types wins, as in the kernel's own search.
                names.entry((space, Box::from(name))).or_insert(id);
            }
        }
        self.names = names;
        Ok(())
    }

    fn end_id(&self) -> u32 {
        self.first_id.saturating_add(self.types.len() as u32)
    }

    fn end_string(&self) -> u32 {
        let before = self.base.as_ref().map_or(0, |b| b.end_string());
        before.saturating_add(self.strings.len() as u32)
    }

    fn string(&self, offset: u32) -> Result<&str, BtfError> {
        let before = self.base.as_ref().map_or(0, |b| b.end_string());
        if let Some(base) = &self.base
            && offset < before
        {
            return base.string(offset);
        }
        let outside = BtfError::Truncated {
            what: "string",
            offset: offset as usize,
        };
        let strings = &self.data[self.strings.clone()];
        let tail = strings
            .get((offset - before) as usize..)
            .ok_or_else(|| outside.clone())?;
        // Strings may overlap: without a limit a crafted file costs its size for each of its types.
        let near = &tail[..tail.len().min(NAME_LEN)];
        let Some(end) = near.iter().position(|&c| c == 0) else {
            return if near.len() < NAME_LEN {
                Err(outside)
            } else {
                Ok("")
            };
        };
        // Names are C identifiers; anything else is a name that nobody asks for.
        Ok(str::from_utf8(&tail[..end]).unwrap_or(""))
    }

    /// The type with that id and the blob that holds it.
    fn lookup(&self, id: u32) -> Result<(&Btf, Type), BtfError> {
        if id < self.first_id
            && let Some(base) = &self.base
        {
            return base.lookup(id);
        }
        let index = id.checked_sub(self.first_id).ok_or(BtfError::NoId(id))?;
        let ty = self.types.get(index as usize).ok_or(BtfError::NoId(id))?;
        Ok((self, *ty))
    }

    fn find(&self, space: Space, name: &str) -> Option<u32> {
        let base = self.base.as_ref();
        self.names
            .get(&(space, Box::from(name)))
            .copied()
            .or_else(|| base.and_then(|b| b.find(space, name)))
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, id: u32) -> Result<u32, BtfError> {
        let mut at = id;
        for _ in 0..MAX_DEPTH {
            match self.lookup(at)?.1 {
                Type {
                    kind:
                        kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG,
                    referent,
                    ..
                } => at = referent,
                _ => return Ok(at),
            }
        }
        Err(BtfError::Endless(id))
    }

    /// A member by name, also one of an anonymous struct or union inside.
    fn member(
        &self,
        id: u32,
        want: &str,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Option<Field>, BtfError> {
        if depth > MAX_DEPTH {
            return Err(BtfError::Endless(id));
        }
        let (owner, ty) = self.lookup(self.strip(id)?)?;
        if !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for i in 0..usize::from(ty.vlen) {
            *budget = budget.checked_sub(1).ok_or(BtfError::Endless(id))?;
            let at = ty.trailer + 12 * i;
            let name = u32_at(&owner.data, at, "member")?;
            let type_id = u32_at(&owner.data, at + 4, "member")?;
            let packed = u32_at(&owner.data, at + 8, "member")?;
            let (bit_offset, width) = if ty.kflag {
                (packed & 0x00ff_ffff, packed >> 24)
            } else {
                (packed, 0)
            };
            let name = owner.string(name)?;
            if name == want {
                return Ok(Some(Field {
                    bit_offset,
                    bit_width: (width != 0).then_some(width),
                    type_id,
                }));
            }
            if name.is_empty()
                && let Some(inner) = self.member(type_id, want, depth + 1, budget)?
            {
                return Ok(Some(Field {
                    bit_offset: bit_offset.saturating_add(inner.bit_offset),
                    ..inner
                }));
            }
        }
        Ok(None)
    }

    /// Size of a type in bytes.
    fn size(&self, id: u32, depth: usize) -> Result<u32, BtfError> {
        if depth > MAX_DEPTH {
            return Err(BtfError::Endless(id));
        }
        let (owner, ty) = self.lookup(self.strip(id)?)?;
        match ty.kind {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => Ok(ty.referent),
            kind::PTR => Ok(size_of::<usize>() as u32),
            kind::ARRAY => {
                let element = u32_at(&owner.data, ty.trailer, "array")?;
                let count = u32_at(&owner.data, ty.trailer + 8, "array")?;
                Ok(self.size(element, depth + 1)?.saturating_mul(count))
            }
            _ => Err(BtfError::NoId(id)),
        }
    }

    /// Where a member lies: `struct.member[index].member`. Members of anonymous structs are named as in C.
    pub fn field(&self, path: &str) -> Result<Field, BtfError> {
        let malformed = |why| BtfError::Path {
            path: path.to_owned(),
            why,
        };
        let mut parts = path.split('.');
        let root = parts.next().unwrap_or_default();
        let mut type_id = self
            .find(Space::Aggregate, root)
            .or_else(|| self.find(Space::Typedef, root))
            .ok_or_else(|| BtfError::NoType {
                what: "struct",
                name: root.to_owned(),
            })?;
        let mut field = Field {
            bit_offset: 0,
            bit_width: None,
            type_id,
        };
        let mut budget = MAX_MEMBERS;
        for part in parts {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => {
                    let index = index.strip_suffix(']').and_then(|i| i.parse::<u32>().ok());
                    (name, Some(index.ok_or_else(|| malformed("bad index"))?))
                }
                None => (part, None),
            };
            let member =
                self.member(type_id, name, 0, &mut budget)?
                    .ok_or_else(|| BtfError::NoMember {
                        path: path.to_owned(),
                        member: name.to_owned(),
                    })?;
            field = Field {
                bit_offset: field.bit_offset.saturating_add(member.bit_offset),
                ..member
            };
            if let Some(index) = index {
                let (owner, array) = self.lookup(self.strip(field.type_id)?)?;
                if array.kind != kind::ARRAY {
                    return Err(malformed("index on what is no array"));
                }
                let element = u32_at(&owner.data, array.trailer, "array")?;
                let count = u32_at(&owner.data, array.trailer + 8, "array")?;
                if index >= count {
                    return Err(malformed("index beyond the array"));
                }
                let bits = self.size(element, 0)?.saturating_mul(8);
                field.bit_offset = field.bit_offset.saturating_add(bits.saturating_mul(index));
                field.type_id = element;
            }
            type_id = field.type_id;
        }
        Ok(field)
    }

    /// Size in bytes of what a path names.
    pub fn size_of(&self, path: &str) -> Result<u32, BtfError> {
        self.size(self.field(path)?.type_id, 0)
    }

    /// Size in bytes if what a path names is a plain integer, `None` if it is anything else.
    pub fn integer_size(&self, path: &str) -> Result<Option<u32>, BtfError> {
        let (_, ty) = self.lookup(self.strip(self.field(path)?.type_id)?)?;
        Ok((ty.kind == kind::INT).then_some(ty.referent))
    }

    /// How many arguments tracepoint `name` hands to a raw or BTF tracepoint program.
    pub fn tracepoint_args(&self, name: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoType {
            what: "tracepoint",
            name: name.to_owned(),
        };
        // typedef btf_trace_X = pointer to a function whose first parameter is the tracepoint's own data
        // (include/trace/bpf_probe.h, v6.18).
        let id = self
            .find(Space::Typedef, &format!("btf_trace_{name}"))
            .ok_or_else(missing)?;
        let (_, pointer) = self.lookup(self.strip(id)?)?;
        if pointer.kind != kind::PTR {
            return Err(missing());
        }
        let (_, proto) = self.lookup(self.strip(pointer.referent)?)?;
        if proto.kind != kind::FUNC_PROTO || proto.vlen == 0 {
            return Err(missing());
        }
        Ok(u32::from(proto.vlen) - 1)
    }

    /// Names of the arguments of those of these functions that this blob (not its base) describes. Functions are many and seldom asked
    /// for, so they are looked through rather than indexed.
    pub fn arguments_of(&self, functions: &[&'static str]) -> HashMap<&'static str, Vec<String>> {
        let functions: HashSet<&'static str> = functions.iter().copied().collect();
        let mut found = HashMap::new();
        for ty in self.types.iter().filter(|ty| ty.kind == kind::FUNC) {
            let name = self.string(ty.name).unwrap_or_default();
            if let Some(function) = functions.get(name)
                && let Some(arguments) = self.arguments(ty.referent)
            {
                found.entry(*function).or_insert(arguments);
            }
        }
        found
    }

    fn arguments(&self, proto: u32) -> Option<Vec<String>> {
        let (owner, proto) = self.lookup(proto).ok()?;
        if proto.kind != kind::FUNC_PROTO || proto.vlen > MAX_ARGUMENTS {
            return None;
        }
        (0..usize::from(proto.vlen))
            .map(|i| {
                let name = u32_at(&owner.data, proto.trailer + 8 * i, "argument").ok()?;
                Some(owner.string(name).ok()?.to_owned())
            })
            .collect()
    }

    /// Names and values of an enum, of 32 or 64 bits.
    pub fn enum_values(&self, name: &str) -> Result<Vec<(String, i64)>, BtfError> {
        let id = self
            .find(Space::Enum, name)
            .ok_or_else(|| BtfError::NoType {
                what: "enum",
                name: name.to_owned(),
            })?;
        let (owner, ty) = self.lookup(id)?;
        let wide = ty.kind == kind::ENUM64;
        let step = if wide { 12 } else { 8 };
        (0..usize::from(ty.vlen))
            .map(|i| {
                let at = ty.trailer + step * i;
                let name = owner.string(u32_at(&owner.data, at, "enumerator")?)?;
                let low = u32_at(&owner.data, at + 4, "enumerator")?;
                let value = if wide {
                    let high = u32_at(&owner.data, at + 8, "enumerator")?;
                    (u64::from(high) << 32 | u64::from(low)).cast_signed()
                } else if ty.kflag {
                    i64::from(low.cast_signed())
                } else {
                    i64::from(low)
                };
                Ok((name.to_owned(), value))
            })
            .collect()
    }

    /// Names of the enums of this blob (not of its base) that `wanted` picks, sorted.
    pub fn enum_names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names: Vec<String> = self
            .names
            .keys()
            .filter(|(space, name)| *space == Space::Enum && wanted(name))
            .map(|(_, name)| name.to_string())
            .collect();
        names.sort_unstable();
        names
    }

    /// Whether there is a struct or union of that name.
    pub fn has_struct(&self, name: &str) -> bool {
        self.find(Space::Aggregate, name).is_some()
    }
}

/// Types of the running kernel: vmlinux and those modules that may hold what we look for.
#[derive(Debug)]
pub struct KernelTypes {
    vmlinux: Arc<Btf>,
    modules: Vec<Btf>,
}

impl KernelTypes {
    /// Reads the BTF of the running kernel, or `file` in place of vmlinux, and that of those `modules` that are loaded.
    /// A module whose BTF is missing or does not fit is left out: what lives in it is then missing by name.
    pub fn read(file: Option<&Path>, modules: &[&str]) -> Result<KernelTypes, BtfError> {
        let sysfs = Path::new(SYSFS);
        let vmlinux = sysfs.join("vmlinux");
        let vmlinux = Arc::new(Btf::parse(read_file(file.unwrap_or(&vmlinux))?)?);
        let modules = modules
            .iter()
            .filter_map(|module| read_file(&sysfs.join(module)).ok())
            .filter_map(|data| Btf::parse_split(data, Arc::clone(&vmlinux)).ok())
            .collect();
        Ok(KernelTypes { vmlinux, modules })
    }

    /// Only these types.
    pub fn only(vmlinux: Btf) -> KernelTypes {
        KernelTypes {
            vmlinux: Arc::new(vmlinux),
            modules: Vec::new(),
        }
    }

    /// Asks vmlinux first, then each module; the error is that of vmlinux.
    fn ask<T>(&self, question: impl Fn(&Btf) -> Result<T, BtfError>) -> Result<T, BtfError> {
        let first = match question(&self.vmlinux) {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        self.modules
            .iter()
            .find_map(|module| question(module).ok())
            .ok_or(first)
    }

    /// See [`Btf::field`].
    pub fn field(&self, path: &str) -> Result<Field, BtfError> {
        self.ask(|btf| btf.field(path))
    }

    /// See [`Btf::field`] and [`Btf::size_of`].
    pub fn place(&self, path: &str) -> Result<(Field, u32), BtfError> {
        self.ask(|btf| Ok((btf.field(path)?, btf.size_of(path)?)))
    }

    /// See [`Btf::integer_size`].
    pub fn integer_size(&self, path: &str) -> Result<Option<u32>, BtfError> {
        self.ask(|btf| btf.integer_size(path))
    }

    /// See [`Btf::tracepoint_args`].
    pub fn tracepoint_args(&self, name: &str) -> Result<u32, BtfError> {
        self.ask(|btf| btf.tracepoint_args(name))
    }

    /// See [`Btf::enum_values`].
    pub fn enum_values(&self, name: &str) -> Result<Vec<(String, i64)>, BtfError> {
        self.ask(|btf| btf.enum_values(name))
    }

    /// See [`Btf::arguments_of`].
    pub fn arguments_of(&self, functions: &[&'static str]) -> HashMap<&'static str, Vec<String>> {
        let mut found = HashMap::new();
        for module in &self.modules {
            found.extend(module.arguments_of(functions));
        }
        found.extend(self.vmlinux.arguments_of(functions));
        found
    }

    /// Names of the enums that `wanted` picks.
    pub fn enum_names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names = self.vmlinux.enum_names(&wanted);
        for module in &self.modules {
            names.extend(module.enum_names(&wanted));
        }
        names
    }

    /// See [`Btf::has_struct`].
    pub fn has_struct(&self, name: &str) -> bool {
        self.vmlinux.has_struct(name) || self.modules.iter().any(|m| m.has_struct(name))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, BtfError> {
    std::fs::read(path).map_err(|e| BtfError::File {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

/// The byte range of a section whose offset and length stand in the header at `at`.
fn section(
    data: &[u8],
    header: usize,
    at: usize,
    what: &'static str,
) -> Result<std::ops::Range<usize>, BtfError> {
    let start = header.saturating_add(u32_at(data, at, "header")? as usize);
    let end = start.saturating_add(u32_at(data, at + 4, "header")? as usize);
    if start > data.len() || end > data.len() {
        return Err(BtfError::Truncated {
            what,
            offset: start,
        });
    }
    Ok(start..end)
}

fn bytes_at<const N: usize>(
    data: &[u8],
    at: usize,
    what: &'static str,
) -> Result<[u8; N], BtfError> {
    at.checked_add(N)
        .and_then(|end| data.get(at..end))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(BtfError::Truncated { what, offset: at })
}

fn u32_at(data: &[u8], at: usize, what: &'static str) -> Result<u32, BtfError> {
    bytes_at(data, at, what).map(u32::from_ne_bytes)
}

fn u16_at(data: &[u8], at: usize, what: &'static str) -> Result<u16, BtfError> {
    bytes_at(data, at, what).map(u16::from_ne_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use super::*;

    /// Writes small BTF blobs.
    #[derive(Default)]
    pub(crate) struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        next: u32,
        string_base: u32,
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Builder {
                strings: vec![0],
                next: 1,
                ..Builder::default()
            }
        }

        fn on(base: &Btf) -> Self {
            Builder {
                next: base.end_id(),
                string_base: base.end_string(),
                ..Builder::default()
            }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.bytes());
            self.strings.push(0);
            self.string_base + at
        }

        fn push(&mut self, name: &str, info: u32, size: u32, trailer: &[u32]) -> u32 {
            let name = self.name(name);
            for word in [name, info, size].iter().chain(trailer) {
                self.types.extend(word.to_ne_bytes());
            }
            self.next += 1;
            self.next - 1
        }

        pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
            self.push(name, u32::from(kind::INT) << 24, size, &[size * 8])
        }

        pub(crate) fn alias(&mut self, kind: u8, name: &str, of: u32) -> u32 {
            self.push(name, u32::from(kind) << 24, of, &[])
        }

        pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
            self.push("", u32::from(kind::ARRAY) << 24, 0, &[of, of, count])
        }

        /// Members are (name, type, offset in bits, width in bits or 0).
        pub(crate) fn aggregate(
            &mut self,
            kind: u8,
            name: &str,
            size: u32,
            members: &[(&str, u32, u32, u32)],
        ) -> u32 {
            let kflag = u32::from(members.iter().any(|m| m.3 != 0));
            let mut trailer = Vec::new();
            for &(member, ty, offset, width) in members {
                trailer.extend([self.name(member), ty, width << 24 | offset]);
            }
            let info = kflag << 31 | u32::from(kind) << 24 | members.len() as u32;
            self.push(name, info, size, &trailer)
        }

        pub(crate) fn proto(&mut self, params: u32) -> u32 {
            let info = u32::from(kind::FUNC_PROTO) << 24 | params;
            self.push("", info, 0, &vec![0; 2 * params as usize])
        }

        pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
            let mut trailer = Vec::new();
            for &(value, number) in values {
                trailer.extend([self.name(value), number]);
            }
            let info = u32::from(kind::ENUM) << 24 | values.len() as u32;
            self.push(name, info, 4, &trailer)
        }

        pub(crate) fn build(&self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend(0xeb9f_u16.to_ne_bytes());
            out.extend([1, 0]);
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for word in [24, 0, types, types, strings] {
                out.extend(word.to_ne_bytes());
            }
            out.extend(&self.types);
            out.extend(&self.strings);
            out
        }
    }

    /// A kernel in miniature: a struct with an array, anonymous members, a bitfield and typedefs on the way.
    fn sample() -> Vec<u8> {
        let mut b = Builder::new();
        let byte = b.int("unsigned char", 1);
        let word = b.int("unsigned int", 4);
        let volatile = b.alias(kind::VOLATILE, "", word);
        let typedef = b.alias(kind::TYPEDEF, "__u32", volatile);
        let inner = b.aggregate(
            kind::STRUCT,
            "inner",
            8,
            &[("a", typedef, 0, 0), ("b", word, 32, 0)],
        );
        let array = b.array(inner, 3);
        let anonymous = b.aggregate(
            kind::UNION,
            "",
            4,
            &[("left", word, 0, 0), ("right", word, 0, 0)],
        );
        b.aggregate(
            kind::STRUCT,
            "outer",
            40,
            &[
                ("first", word, 0, 0),
                ("list", array, 32, 0),
                ("", anonymous, 256, 0),
                ("bits", byte, 291, 3),
            ],
        );
        let proto = b.proto(4);
        let pointer = b.alias(kind::PTR, "", proto);
        b.alias(kind::TYPEDEF, "btf_trace_event", pointer);
        b.alias(kind::TYPEDEF, "btf_trace_not_a_pointer", word);
        b.enumeration("color", &[("RED", 1), ("BLUE", 0xffff_ffff)]);
        b.build()
    }

    #[test]
    fn fields_by_path() {
        let btf = Btf::parse(sample()).unwrap();
        for (path, offset) in [
            ("outer.first", 0),
            ("outer.list[0].a", 4),
            ("outer.list[2].b", 4 + 2 * 8 + 4),
            ("outer.left", 32),
            ("outer.right", 32),
            ("__u32", 0),
        ] {
            assert_eq!(btf.field(path).unwrap().byte_offset(), offset, "{path}");
        }
        let bits = btf.field("outer.bits").unwrap();
        assert_eq!((bits.bit_offset, bits.bit_width), (291, Some(3)));
        assert_eq!(btf.size_of("outer.list").unwrap(), 24);
        assert_eq!(btf.integer_size("outer.list[0].a"), Ok(Some(4)));
        assert_eq!(btf.integer_size("outer.list"), Ok(None));
        assert!(btf.has_struct("inner") && !btf.has_struct("color"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(sample()).unwrap();
        for (path, says) in [
            ("nothing.a", "the kernel has no struct nothing"),
            ("outer.gone", "outer.gone: no member gone"),
            ("outer.list[3].a", "outer.list[3].a: index beyond the array"),
            (
                "outer.first[0]",
                "outer.first[0]: index on what is no array",
            ),
            ("outer.list[x].a", "outer.list[x].a: bad index"),
            ("outer.first.deeper", "outer.first.deeper: no member deeper"),
        ] {
            assert_eq!(btf.field(path).unwrap_err().to_string(), says);
        }
        assert!(btf.enum_values("outer").is_err());
    }

    #[test]
    fn tracepoints_and_enums() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.tracepoint_args("event"), Ok(3));
        assert!(btf.tracepoint_args("not_a_pointer").is_err());
        assert!(btf.tracepoint_args("other").is_err());
        let color = btf.enum_values("color").unwrap();
        assert_eq!(
            color,
            [("RED".to_owned(), 1), ("BLUE".to_owned(), 0xffff_ffff)]
        );
    }

    #[test]
    fn wide_and_signed_enums() {
        let mut b = Builder::new();
        let (minus, big) = (b.name("MINUS"), b.name("BIG"));
        b.push(
            "signed",
            1 << 31 | u32::from(kind::ENUM) << 24 | 1,
            4,
            &[minus, u32::MAX],
        );
        b.push("wide", u32::from(kind::ENUM64) << 24 | 1, 8, &[big, 7, 1]);
        let btf = Btf::parse(b.build()).unwrap();
        assert_eq!(
            btf.enum_values("signed").unwrap(),
            [("MINUS".to_owned(), -1)]
        );
        assert_eq!(
            btf.enum_values("wide").unwrap(),
            [("BIG".to_owned(), 0x1_0000_0007)]
        );
    }

    #[test]
    fn a_module_continues_the_base() {
        let base = Arc::new(Btf::parse(sample()).unwrap());
        let Some(inner) = base.find(Space::Aggregate, "inner") else {
            panic!("the sample has inner");
        };
        let mut b = Builder::on(&base);
        b.aggregate(kind::STRUCT, "module_struct", 16, &[("x", inner, 64, 0)]);
        let split = Btf::parse_split(b.build(), Arc::clone(&base)).unwrap();
        assert_eq!(split.field("module_struct.x.b").unwrap().byte_offset(), 12);
        assert_eq!(split.field("outer.left").unwrap().byte_offset(), 32);
        assert!(base.field("module_struct.x").is_err());
    }

    #[test]
    fn garbage_is_an_error_never_a_panic() {
        let good = sample();
        let probe = |data: Vec<u8>| {
            if let Ok(btf) = Btf::parse(data) {
                let _ = btf.field("outer.list[2].b");
                let _ = btf.field("outer.right");
                let _ = btf.size_of("outer.list");
                let _ = btf.tracepoint_args("event");
                let _ = btf.enum_values("color");
            }
        };
        for len in 0..good.len() {
            probe(good[..len].to_vec());
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, good[at].wrapping_add(1)] {
                let mut bad = good.clone();
                bad[at] = value;
                probe(bad);
            }
        }
        assert_eq!(Btf::parse(vec![0; 64]).unwrap_err(), BtfError::Magic(0));
        assert!(Btf::parse(Vec::new()).is_err());
    }

    #[test]
    fn overlapping_names_cost_no_more_than_names_do() {
        let mut b = Builder::new();
        let long = "x".repeat(1 << 20);
        b.int(&long, 4);
        // Each type's name is a tail of the same long string.
        for _ in 0..20_000 {
            b.push("", u32::from(kind::INT) << 24, 4, &[32]);
        }
        for (at, name) in b.types.chunks_exact_mut(16).zip(1_u32..) {
            at[..4].copy_from_slice(&name.to_ne_bytes());
        }
        let began = std::time::Instant::now();
        let btf = Btf::parse(b.build()).unwrap();
        // Read whole they are 20 GB.
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
        assert_eq!(btf.string(1).unwrap(), "");
    }

    #[test]
    fn references_that_do_not_end() {
        let mut b = Builder::new();
        b.alias(kind::TYPEDEF, "loop", 1);
        // The array is its own element; the struct its own member.
        let array = b.array(2, 5);
        b.aggregate(
            kind::STRUCT,
            "nest",
            8,
            &[("", 3, 0, 0), ("matrix", array, 0, 0)],
        );
        let btf = Btf::parse(b.build()).unwrap();
        assert_eq!(btf.field("loop.x"), Err(BtfError::Endless(1)));
        assert_eq!(btf.field("nest.x"), Err(BtfError::Endless(3)));
        assert_eq!(btf.size(array, 0), Err(BtfError::Endless(2)));
    }

    #[test]
    fn nesting_that_branches_is_bounded() {
        let mut b = Builder::new();
        let mut below = b.int("int", 4);
        for _ in 0..30 {
            below = b.aggregate(
                kind::STRUCT,
                "level",
                4,
                &[("", below, 0, 0), ("", below, 0, 0)],
            );
        }
        b.alias(kind::TYPEDEF, "top", below);
        let btf = Btf::parse(b.build()).unwrap();
        assert!(matches!(btf.field("top.x"), Err(BtfError::Endless(_))));
    }

    #[test]
    fn many_members_on_many_levels_are_bounded() {
        let mut b = Builder::new();
        let word = b.int("int", 4);
        let mut below = word;
        for _ in 0..5 {
            let mut members = vec![("member", word, 0, 0); 10_000];
            members.extend([("", below, 0, 0); 2]);
            below = b.aggregate(kind::STRUCT, "level", 4, &members);
        }
        b.alias(kind::TYPEDEF, "top", below);
        let btf = Btf::parse(b.build()).unwrap();
        assert!(matches!(btf.field("top.x"), Err(BtfError::Endless(_))));
    }

    #[test]
    fn a_function_of_many_arguments_is_none_that_is_asked_for() {
        let mut b = Builder::new();
        for (name, params) in [("usual", 5), ("absurd", 65_535)] {
            let proto = b.proto(params);
            b.alias(kind::FUNC, name, proto);
        }
        let btf = Btf::parse(b.build()).unwrap();
        let found = btf.arguments_of(&["usual", "absurd"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&"usual"]);
    }

    #[test]
    fn the_running_kernel() {
        let types = KernelTypes::read(None, &["nf_conntrack"]).unwrap();
        assert_eq!(types.field("sk_buff.next").unwrap().byte_offset(), 0);
        assert_eq!(types.field("iphdr.saddr").unwrap().byte_offset(), 12);
        assert_eq!(types.field("ipv6hdr.daddr").unwrap().byte_offset(), 24);
        let ihl = types.field("iphdr.ihl").unwrap();
        assert_eq!(ihl.bit_width, Some(4));
        assert!(types.tracepoint_args("kfree_skb").unwrap() >= 2);
        let hooks = types.enum_values("nf_inet_hooks").unwrap();
        assert!(hooks.contains(&("NF_INET_FORWARD".to_owned(), 2)));
        assert!(types.field("sk_buff.no_such_member").is_err());
    }
}
