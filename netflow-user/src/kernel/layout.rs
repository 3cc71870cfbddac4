//! Fills the programs' [`Layout`] for the running kernel.

use super::btf::{Field, KernelTypes};
use super::kallsyms::Ranges;
use super::reasons::{DropReasons, NOT_SPECIFIED};
use super::sys;
use crate::model::NetnsId;
use netflow_ebpf::{
    ARGS, FIELDS, Hook, HookInfo, Layout, NOISE, Noise, NoisePlace, NoiseRule, Probe, REASON_ABSENT,
};
use std::collections::HashMap;
use std::ops::Range;

/// Names of the functions whose addresses the layout wants.
pub fn functions() -> Vec<&'static str> {
    let mut names: Vec<_> = NOISE
        .iter()
        .filter_map(|noise| match noise.place {
            NoisePlace::Function(name) => Some(name),
            NoisePlace::Any => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The layout of the running kernel and what it lacks.
#[derive(Debug)]
pub struct Filled {
    /// For the programs.
    pub layout: Layout,
    /// Why a field of the layout is absent, by the field's path.
    missing: HashMap<&'static str, String>,
    /// Argument counts of the hooks' tracepoints, those that exist.
    arguments: HashMap<&'static str, u32>,
}

/// Looks everything up. What is not there stays absent in the layout; nothing here fails.
pub fn fill(
    types: &KernelTypes,
    reasons: &DropReasons,
    functions: &Ranges,
    own: NetnsId,
) -> Filled {
    let mut layout = Layout::EMPTY;
    let mut missing = HashMap::new();
    for field in FIELDS {
        match offset(types, field.path, field.bytes) {
            Ok(offset) => (field.set)(&mut layout, offset),
            Err(why) => {
                missing.insert(field.path, why);
            }
        }
    }
    for args in ARGS {
        let count = types.tracepoint_args(args.tracepoint).unwrap_or(0);
        (args.set)(&mut layout, u16::try_from(count).unwrap_or(0));
    }
    let arguments = netflow_ebpf::HOOKS
        .iter()
        .filter_map(|hook| {
            Some((
                hook.tracepoint,
                types.tracepoint_args(hook.tracepoint).ok()?,
            ))
        })
        .collect();
    layout.own_cookie = if layout.net_cookie == netflow_ebpf::ABSENT {
        0
    } else {
        own.cookie
    };
    layout.own_inum = own.inum;
    layout.tick_ns = sys::tick_ns();
    let has_reason = layout.kfree_skb_args >= 3 && !reasons.is_empty();
    let rules = NOISE
        .iter()
        .flat_map(|noise| noise_rules(noise, has_reason.then_some(reasons), functions));
    for (slot, rule) in layout.noise.iter_mut().zip(rules) {
        *slot = rule;
    }
    Filled {
        layout,
        missing,
        arguments,
    }
}

impl Filled {
    /// Whether the programs of a hook may be loaded; the error is a sentence.
    pub fn permits(&self, hook: &HookInfo) -> Result<(), String> {
        let tracepoint = hook.tracepoint;
        match self.arguments.get(tracepoint) {
            None => return Err(format!("the kernel has no tracepoint {tracepoint}")),
            Some(&n) if n < u32::from(hook.min_args) => {
                return Err(format!(
                    "tracepoint {tracepoint} hands over {n} arguments, {} are needed",
                    hook.min_args
                ));
            }
            Some(_) => {}
        }
        match self.lacking(hook.hook) {
            Some(why) => Err(format!("{tracepoint}: {why}")),
            None => Ok(()),
        }
    }

    /// Whether the programs on a function may be loaded.
    pub fn permits_function(&self, probe: &Probe) -> Result<(), String> {
        match self.lacking(probe.hook) {
            Some(why) => Err(format!("{}: {why}", probe.function)),
            None => Ok(()),
        }
    }

    /// Why a field is missing that a hook needs.
    fn lacking(&self, hook: Hook) -> Option<&String> {
        FIELDS
            .iter()
            .filter(|field| field.need.contains(&hook))
            .find_map(|field| self.missing.get(field.path))
    }

    /// Paths that the kernel does not have, sorted.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut paths: Vec<_> = self.missing.keys().copied().collect();
        paths.sort_unstable();
        paths
    }
}

/// Where the programs may read `bytes` of a field of the kernel's own; the error says why nowhere.
fn offset(types: &KernelTypes, path: &str, bytes: u32) -> Result<u16, String> {
    // Linux 5.12 made the cookie a plain number; before, it was an atomic that stays 0 until a program asks for it
    // (net/core/net_namespace.c, `net_gen_cookie`).
    if path == "net.net_cookie" && types.integer_size(path) != Ok(Some(8)) {
        return Err(format!("{path} is not kept by this kernel"));
    }
    let found = types.place(path).map_err(|e| e.to_string())?;
    if found.0.bit_width.is_some() {
        return Err(format!("{path} is a bitfield"));
    }
    readable(found, path, bytes)
}

/// The same for a field that may be of some bits, the first of which begins a byte.
pub(super) fn place(types: &KernelTypes, path: &str, bytes: u32) -> Result<u16, String> {
    let found = types.place(path).map_err(|e| e.to_string())?;
    readable(found, path, bytes)
}

fn readable((field, size): (Field, u32), path: &str, bytes: u32) -> Result<u16, String> {
    if field.bit_offset % 8 != 0 {
        return Err(format!("{path} begins amid a byte"));
    }
    if size < bytes {
        return Err(format!("{path} has {size} bytes here, {bytes} are read"));
    }
    u16::try_from(field.byte_offset())
        .ok()
        .filter(|&offset| offset != netflow_ebpf::ABSENT)
        .ok_or_else(|| format!("{path} lies too far behind the start of its struct"))
}

/// A row of the noise table as rules of this kernel; `reasons` is `None` where the tracepoint gives none.
fn noise_rules(noise: &Noise, reasons: Option<&DropReasons>, functions: &Ranges) -> Vec<NoiseRule> {
    let known = |name: &str| reasons.and_then(|r| r.number(name));
    let reason = match (reasons, known(noise.reason)) {
        (_, Some(number)) => number,
        (None, None) if noise.reason == NOT_SPECIFIED => REASON_ABSENT,
        _ => return Vec::new(),
    };
    if noise.only_with.is_some_and(|name| known(name).is_none()) {
        return Vec::new();
    }
    let rule = |range: &Range<u64>| NoiseRule {
        start: range.start,
        end: range.end,
        reason,
        flags: noise.flags,
    };
    match noise.place {
        NoisePlace::Any => vec![rule(&(0..u64::MAX))],
        NoisePlace::Function(name) => functions
            .get(name)
            .map(|ranges| ranges.iter().map(rule).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::btf::Btf;
    use super::super::btf::tests::Builder;
    use super::*;
    use netflow_ebpf::HOOKS;

    const OWN: NetnsId = NetnsId {
        inum: 4_026_531_840,
        cookie: 9,
    };

    fn running() -> (KernelTypes, DropReasons) {
        let types = KernelTypes::read(None, &["nf_conntrack"]).unwrap();
        let reasons = DropReasons::read(&types).unwrap();
        (types, reasons)
    }

    #[test]
    fn the_running_kernel_permits_the_hooks_it_has() {
        let (types, reasons) = running();
        let filled = fill(&types, &reasons, &Ranges::new(), OWN);
        for hook in &HOOKS {
            let exists = types.tracepoint_args(hook.tracepoint).is_ok();
            assert_eq!(filled.permits(hook).is_ok(), exists, "{}", hook.tracepoint);
        }
        assert_eq!(filled.missing(), Vec::<&str>::new());
        assert_eq!(filled.layout.own_inum, OWN.inum);
    }

    #[test]
    fn what_is_missing_is_said_by_the_hook_that_needs_it() {
        let mut b = Builder::new();
        let proto = b.proto(5);
        let pointer = b.alias(2, "", proto);
        b.alias(8, "btf_trace_kfree_skb", pointer);
        b.alias(8, "btf_trace_neigh_timer_handler", pointer);
        let types = KernelTypes::only(Btf::parse(b.build()).unwrap());
        let filled = fill(&types, &DropReasons::default(), &Ranges::new(), OWN);
        let why = |tracepoint| {
            let hook = HOOKS.iter().find(|h| h.tracepoint == tracepoint).unwrap();
            filled.permits(hook).unwrap_err()
        };
        assert_eq!(why("icmp_send"), "the kernel has no tracepoint icmp_send");
        assert_eq!(
            why("kfree_skb"),
            "kfree_skb: the kernel has no struct sk_buff"
        );
        assert_eq!(filled.layout.kfree_skb_args, 4);
        assert_eq!(filled.layout.own_cookie, 0);
    }

    #[test]
    fn too_few_arguments() {
        let mut b = Builder::new();
        let proto = b.proto(2);
        let pointer = b.alias(2, "", proto);
        b.alias(8, "btf_trace_kfree_skb", pointer);
        let types = KernelTypes::only(Btf::parse(b.build()).unwrap());
        let filled = fill(&types, &DropReasons::default(), &Ranges::new(), OWN);
        assert_eq!(
            filled.permits(&HOOKS[0]).unwrap_err(),
            "tracepoint kfree_skb hands over 1 arguments, 2 are needed"
        );
    }

    #[test]
    fn noise_is_resolved_for_the_kernel() {
        let (_, reasons) = running();
        let mut functions = Ranges::new();
        functions.insert("f".to_owned(), vec![10..20, 30..40]);
        let noise = |reason, place, only_with| Noise {
            reason,
            place,
            only_with,
            flags: 1,
        };
        let at = NoisePlace::Function("f");
        let count = |n: &Noise, r| noise_rules(n, r, &functions).len();
        let unspecified = noise(NOT_SPECIFIED, at, None);
        assert_eq!(count(&unspecified, Some(&reasons)), 2);
        let rules = noise_rules(&unspecified, None, &functions);
        assert_eq!(rules[1].reason, REASON_ABSENT);
        assert_eq!((rules[1].start, rules[1].end, rules[1].flags), (30, 40, 1));
        let conditional = noise(NOT_SPECIFIED, at, Some("NO_SOCKET"));
        assert_eq!(count(&conditional, Some(&reasons)), 2);
        assert_eq!(count(&conditional, None), 0);
        let absent = noise("NO_SUCH_REASON", NoisePlace::Any, None);
        assert_eq!(count(&absent, Some(&reasons)), 0);
        assert_eq!(count(&absent, None), 0);
        let elsewhere = noise(NOT_SPECIFIED, NoisePlace::Function("g"), None);
        assert_eq!(count(&elsewhere, Some(&reasons)), 0);
    }
}
