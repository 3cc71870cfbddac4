//! Programs on functions of the kernel: which can be had, attaching them, and attaching more when a module is loaded.

use super::btf::KernelTypes;
use super::kallsyms::{Ranges, Symbols};
use super::layout::{self, Filled};
use super::load;
use super::uevent::Modules;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use netflow_ebpf::{Hook, MODULE_FIELDS, ModuleLayout, PROBES, Plain as _, Probe};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Modules whose types the programs may need; those of [`PROBES`] are among them.
pub const MODULES: &[&str] = &[
    "nf_conntrack",
    "nf_tables",
    "x_tables",
    "ip_tables",
    "ip6_tables",
    "nf_reject_ipv4",
    "nf_reject_ipv6",
    "ip_vs",
];

/// Functions of rules are listened to for so long after the latest drop by netfilter.
const ON_DEMAND_FOR: Duration = Duration::from_mins(1);

/// How far a hook on functions is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeState {
    /// Attached, or to be attached when it is asked for.
    Ready,
    /// Its module is not loaded: nothing of it can happen, and it is attached when that changes.
    Waiting(&'static str),
    /// Not to be had, and why.
    Absent(String),
}

/// The programs on functions.
pub struct Probes {
    /// By row of [`PROBES`].
    states: Vec<ProbeState>,
    /// Names of the functions in this kernel, which a compiler may have given a suffix.
    names: HashMap<&'static str, String>,
    /// Held also where nothing is attached: other programs refer to it.
    layout: LayoutMap,
    modules: Option<Modules>,
    btf: Option<PathBuf>,
    /// Attached on demand, and since when nothing has demanded it.
    demanded: Option<(Vec<load::KprobeLink>, Instant)>,
}

/// The map that holds the [`ModuleLayout`].
pub type LayoutMap = Array<MapData, [u8; size_of::<ModuleLayout>()]>;

impl Probes {
    /// None of them, because of `why`.
    pub fn none(layout: LayoutMap, why: &str) -> Self {
        Probes {
            states: vec![ProbeState::Absent(why.to_owned()); PROBES.len()],
            names: HashMap::new(),
            layout,
            modules: None,
            btf: None,
            demanded: None,
        }
    }

    /// Attaches what there is, and listens for modules.
    pub fn attach(
        ebpf: &mut Ebpf,
        layout: LayoutMap,
        known: &Known<'_>,
        btf: Option<PathBuf>,
    ) -> Self {
        let mut probes = Self::none(layout, "");
        // Before the modules are looked at, so that none slips in between.
        probes.modules = Modules::listen().ok();
        probes.btf = btf;
        probes.update(ebpf, known, |_| true);
        probes
    }

    /// Looks again at the rows that `concerns`.
    fn update(&mut self, ebpf: &mut Ebpf, known: &Known<'_>, concerns: impl Fn(&Probe) -> bool) {
        let (layout, missing) = module_layout(known.types, known.symbols.ranges());
        let mut bytes = [0; size_of::<ModuleLayout>()];
        bytes.copy_from_slice(layout.bytes());
        if let Err(e) = self.layout.set(0, bytes, 0) {
            let why = format!("offsets of modules cannot be set: {e}");
            self.states.fill(ProbeState::Absent(why));
            return;
        }
        for (row, probe) in PROBES.iter().enumerate() {
            if concerns(probe) {
                let state = self.judge(ebpf, probe, known, &missing);
                self.states[row] = state;
            }
        }
    }

    fn judge(
        &mut self,
        ebpf: &mut Ebpf,
        probe: &Probe,
        known: &Known<'_>,
        missing: &HashMap<&'static str, String>,
    ) -> ProbeState {
        let name = match known.find(probe) {
            Ok(Found::Symbol(name)) => name,
            Ok(Found::NotLoaded(module)) => return ProbeState::Waiting(module),
            Err(why) => return ProbeState::Absent(why),
        };
        let lacking = MODULE_FIELDS
            .iter()
            .filter(|field| field.need.contains(&probe.hook))
            .find_map(|field| missing.get(field.path));
        if let Some(why) = lacking {
            return ProbeState::Absent(format!("{}: {why}", probe.function));
        }
        if let Err(why) = known.filled.permits_function(probe) {
            return ProbeState::Absent(why);
        }
        let loaded = load::kprobes(ebpf, probe)
            .and_then(|()| {
                if probe.on_demand {
                    return Ok(());
                }
                load::attach_kprobes(ebpf, probe, &name).map(drop)
            })
            .map_err(|e| e.to_string());
        self.names.insert(probe.function, name);
        match loaded {
            Ok(()) => ProbeState::Ready,
            Err(why) => ProbeState::Absent(why),
        }
    }

    /// Each hook: ready if all its functions are, or wait for their module. Of rows that differ in their arguments only, one is enough.
    pub fn states(&self) -> HashMap<Hook, ProbeState> {
        let mut by_function: Vec<(&Probe, ProbeState)> = Vec::new();
        for (probe, state) in PROBES.iter().zip(&self.states) {
            match by_function
                .iter_mut()
                .find(|(p, _)| p.function == probe.function)
            {
                Some((_, known)) if matches!(known, ProbeState::Absent(_)) => {
                    known.clone_from(state);
                }
                Some(_) => {}
                None => by_function.push((probe, state.clone())),
            }
        }
        let mut hooks: HashMap<Hook, ProbeState> = HashMap::new();
        for (probe, state) in by_function {
            match hooks.get_mut(&probe.hook) {
                Some(known) if rank(known) >= rank(&state) => {}
                Some(known) => *known = state,
                None => {
                    hooks.insert(probe.hook, state);
                }
            }
        }
        hooks
    }

    /// Attaches to functions of modules that were loaded since. Says whether any was.
    pub fn follow_modules(&mut self, ebpf: &mut Ebpf, filled: &Filled) -> bool {
        let loaded = self
            .modules
            .as_mut()
            .map(Modules::loaded)
            .unwrap_or_default();
        let concerned = |probe: &Probe| {
            let told = |module| loaded.overrun || loaded.names.iter().any(|l| l == module);
            self.waits(probe.function) && probe.module.is_some_and(told)
        };
        let rows: Vec<&str> = PROBES
            .iter()
            .filter(|p| concerned(p))
            .map(|p| p.function)
            .collect();
        if rows.is_empty() {
            return false;
        }
        let Ok(types) = KernelTypes::read(self.btf.as_deref(), MODULES) else {
            return false;
        };
        let Ok(symbols) = Symbols::read(&functions()) else {
            return false;
        };
        let known = Known::of(filled, &types, &symbols);
        self.update(ebpf, &known, |probe| rows.contains(&probe.function));
        if self.demanded.is_some() {
            self.relax(ebpf);
            self.demand(ebpf);
        }
        true
    }

    fn waits(&self, function: &str) -> bool {
        PROBES
            .iter()
            .zip(&self.states)
            .any(|(p, s)| p.function == function && matches!(s, ProbeState::Waiting(_)))
    }

    /// netfilter has dropped a packet: from now on its functions tell whose verdict the next one is.
    pub fn demand(&mut self, ebpf: &mut Ebpf) {
        if let Some((_, latest)) = &mut self.demanded {
            *latest = Instant::now();
            return;
        }
        let mut links = Vec::new();
        for (row, probe) in PROBES.iter().enumerate() {
            if !probe.on_demand || self.states[row] != ProbeState::Ready {
                continue;
            }
            let Some(name) = self.names.get(probe.function) else {
                continue;
            };
            match load::attach_kprobes(ebpf, probe, name) {
                Ok(attached) => links.extend(attached),
                Err(why) => self.states[row] = ProbeState::Absent(why.to_string()),
            }
        }
        self.demanded = Some((links, Instant::now()));
    }

    /// Detaches what has not been in demand for a while.
    pub fn rest(&mut self, ebpf: &mut Ebpf) {
        if let Some((_, latest)) = &self.demanded
            && latest.elapsed() > ON_DEMAND_FOR
        {
            self.relax(ebpf);
        }
    }

    fn relax(&mut self, ebpf: &mut Ebpf) {
        if let Some((links, _)) = self.demanded.take() {
            for link in links {
                load::detach_kprobe(ebpf, link);
            }
        }
    }
}

/// Best first.
fn rank(state: &ProbeState) -> u8 {
    match state {
        ProbeState::Ready => 0,
        ProbeState::Waiting(_) => 1,
        ProbeState::Absent(_) => 2,
    }
}

/// The function whose callees are known by their return address.
const EARLY_DROP: &str = "early_drop";

/// Names of the functions that the programs ask about.
pub fn functions() -> Vec<&'static str> {
    let mut names: Vec<_> = PROBES.iter().map(|p| p.function).collect();
    names.push(EARLY_DROP);
    names.sort_unstable();
    names.dedup();
    names
}

/// What was found out about the kernel.
pub struct Known<'a> {
    /// Offsets of its own types.
    filled: &'a Filled,
    /// Its types and those of modules.
    types: &'a KernelTypes,
    /// Functions, those of [`functions`] among them.
    symbols: &'a Symbols,
    /// Names of their arguments.
    arguments: HashMap<&'static str, Vec<String>>,
}

enum Found {
    Symbol(String),
    NotLoaded(&'static str),
}

impl<'a> Known<'a> {
    /// Looks up the functions' arguments.
    pub fn of(filled: &'a Filled, types: &'a KernelTypes, symbols: &'a Symbols) -> Self {
        Known {
            filled,
            types,
            symbols,
            arguments: types.arguments_of(&functions()),
        }
    }

    /// The symbol to attach to, whose arguments are where the programs read them.
    fn find(&self, probe: &Probe) -> Result<Found, String> {
        let function = probe.function;
        let symbols = self.symbols.of(function);
        let Some(name) = symbols.first() else {
            return match probe.module {
                Some(module) if !self.symbols.has_module(module) => Ok(Found::NotLoaded(module)),
                _ => Err(format!("the kernel has no function {function}")),
            };
        };
        if symbols.len() > 1 && symbols.iter().filter(|s| *s == name).count() > 1 {
            return Err(format!("the kernel has several functions {function}"));
        }
        match self.arguments.get(function) {
            Some(arguments) => {
                let fits = |&(at, name): &(usize, &str)| {
                    arguments.get(at).is_some_and(|argument| argument == name)
                };
                if !probe.reads.iter().all(fits) {
                    return Err(format!(
                        "{function} has other arguments here: {}",
                        arguments.join(", ")
                    ));
                }
            }
            // A compiler that makes a function special may leave out its arguments, and BTF then leaves out the function.
            None if name != function => {
                return Err(format!(
                    "{function} is {name} here, whose arguments are not described"
                ));
            }
            None if !probe.stable => {
                return Err(match probe.module {
                    Some(module) => {
                        format!("{function}: the kernel describes no types of module {module}")
                    }
                    None => format!("{function} is not described"),
                });
            }
            None => {}
        }
        Ok(Found::Symbol(name.clone()))
    }
}

/// Offsets in types of modules, and why those are missing that are.
fn module_layout(
    types: &KernelTypes,
    functions: &Ranges,
) -> (ModuleLayout, HashMap<&'static str, String>) {
    let mut layout = ModuleLayout::EMPTY;
    let mut missing = HashMap::new();
    for field in MODULE_FIELDS {
        match layout::place(types, field.path, field.bytes) {
            Ok(offset) => (field.set)(&mut layout, offset),
            Err(why) => {
                missing.insert(field.path, why);
            }
        }
    }
    if let Some(range) = functions.get(EARLY_DROP).and_then(|r| r.first()) {
        layout.early_drop = range.start;
        layout.early_drop_end = range.end;
    }
    (layout, missing)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::btf::tests::Builder;
    use super::super::btf::{Btf, kind};
    use super::*;

    /// `struct ip_vs_conn` as 7.2 has it, as far as it matters, with a port of `port` bytes.
    fn missing(port: u32) -> HashMap<&'static str, String> {
        let mut b = Builder::new();
        let byte = b.int("u8", 1);
        let word = b.int("u32", 4);
        let port = b.int("port", port);
        let address = b.aggregate(kind::UNION, "nf_inet_addr", 16, &[("ip", word, 0, 0)]);
        let members = [
            ("cport", port, 22 * 8, 0),
            ("daf", byte, 45 * 8, 0),
            ("dport", port, 46 * 8, 0),
            ("flags", word, 60 * 8, 0),
            ("daddr", address, 128 * 8, 0),
        ];
        b.aggregate(kind::STRUCT, "ip_vs_conn", 296, &members);
        let types = KernelTypes::only(Btf::parse(b.build()).unwrap());
        let (layout, missing) = module_layout(&types, &Ranges::new());
        assert_eq!((layout.vs_daf, layout.vs_daddr), (45, 128));
        missing
    }

    #[test]
    fn what_is_smaller_than_what_is_read_is_missing() {
        let none = missing(2);
        assert!(none.keys().all(|path| !path.starts_with("ip_vs_conn.")));
        let ports = missing(1);
        assert_eq!(
            ports["ip_vs_conn.dport"],
            "ip_vs_conn.dport has 1 bytes here, 2 are read"
        );
    }
}
