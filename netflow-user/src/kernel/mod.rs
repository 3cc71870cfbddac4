//! The kernel side seen from user space: load, attach, tiers, BTF layout, ring reader.
//!
//! The only module of this crate with `unsafe` code, and only in the files that say so.

pub mod beside;
pub mod btf;
pub mod bytemap;
pub mod clock;
pub mod clsact;
pub mod ctnetlink;
pub mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod kallsyms;
pub mod layout;
pub mod links;
pub mod load;
mod log;
pub mod lost;
pub mod owner;
pub mod pressure;
pub mod probes;
pub mod reasons;
pub mod ring;
pub mod rtnl;
pub mod socket;
pub mod sweep;
pub mod sys;
pub mod tc;
pub mod tiers;
pub mod uevent;
pub mod verifier;

use self::btf::{BtfError, KernelTypes};
use self::bytemap::{ByteMap, ByteMapError};
use self::clock::Clock;
use self::ctnetlink::CtEvents;
use self::kallsyms::{Ranges, Symbols};
use self::layout::Filled;
use self::load::{HookLink, LoadError, Parameters, chain};
use self::log::StderrLog;
use self::lost::LostCounters;
use self::probes::{Known, ProbeState, Probes};
use self::reasons::DropReasons;
use self::ring::Reader;
use self::rtnl::Rtnl;
use self::sweep::Sweeper;
use self::tc::{InterfaceStatus, Method, Programs, TcMonitor};
use self::tiers::{HookState, Outcome};
use crate::model::capability::{Capability, TierStatus};
use crate::model::record::{Event, Record};
use crate::model::source::{RecordSource, SourceError};
use crate::model::{Input, NetnsId};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::{Btf, Ebpf, Endianness, Pod, VerifierLogLevel};
use aya_log::EbpfLogger;
use netflow_ebpf::{ABSENT, Addr, HOOKS, Hook, HookInfo, map};
use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two sweeps of the flow map.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How to start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own on the command line"
)]
pub struct Options {
    /// Attach tc programs by clsact even where the kernel has TCX.
    pub force_clsact: bool,
    /// Attach tracing programs as raw tracepoints even where the kernel takes BTF tracepoints.
    pub force_raw_tp: bool,
    /// Learn of translations by conntrack events even where a tracepoint shows them.
    pub force_ctnetlink: bool,
    /// Do not attach to functions of the kernel even where it has kprobes.
    pub without_kprobes: bool,
    /// Read vmlinux BTF from here rather than from the kernel.
    pub btf: Option<PathBuf>,
    /// Bytes of the ring: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Show what the programs log of rare events.
    pub verbose_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            force_clsact: false,
            force_raw_tp: false,
            force_ctnetlink: false,
            without_kprobes: false,
            btf: None,
            ring_bytes: map::RECORDS_BYTES,
            verbose_log: false,
        }
    }
}

/// Why netflow cannot look into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Privileges are missing.
    #[error("not allowed to load BPF programs ({0})")]
    NotPermitted(String),
    /// The kernel's types cannot be read.
    #[error("the kernel's types (BTF) cannot be read: {0}")]
    NoBtf(BtfError),
    /// aya cannot read the same types.
    #[error("the kernel's types (BTF) cannot be read: {0}")]
    BadBtf(String),
    /// A capability that nothing works without has no tier.
    #[error("no way to see {} on this kernel: {why}", capability.name())]
    NoTier {
        /// Which.
        capability: Capability,
        /// Each tier and why not.
        why: String,
    },
    /// The size of the ring is not one.
    #[error("a ring of {0} bytes: the size must be a power of two, at least 4096")]
    RingBytes(u32),
    /// The BPF object cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map cannot be used.
    #[error("a BPF map cannot be used: {0}")]
    Map(#[from] MapError),
    /// A map cannot be used.
    #[error("a BPF map cannot be used: {0}")]
    ByteMap(#[from] ByteMapError),
    /// The interfaces cannot be listed or attached to.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

impl KernelError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> KernelError {
        move |why| KernelError::Io { what, why }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            KernelError::NotPermitted(_) => {
                "run netflow as root on the node, or give it CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYSLOG"
                    .to_owned()
            }
            KernelError::NoBtf(_) | KernelError::BadBtf(_) => format!(
                "netflow needs a kernel built with CONFIG_DEBUG_INFO_BTF ({}/vmlinux), or the kernel's BTF in a file given with --btf",
                btf::SYSFS
            ),
            KernelError::NoTier { .. } => {
                "netflow supports Linux 5.10 and newer with BTF; `netflow doctor` lists what this kernel lacks".to_owned()
            }
            KernelError::RingBytes(_) => "give a size such as 4194304".to_owned(),
            KernelError::Load(_) | KernelError::Map(_) | KernelError::ByteMap(_) => {
                "the kernel's memory limits for BPF (RLIMIT_MEMLOCK before Linux 5.11, the memory cgroup since) must allow about 32 MiB".to_owned()
            }
            KernelError::Io { .. } => {
                "check that netflow may use netlink in this network namespace (CAP_NET_ADMIN)".to_owned()
            }
        }
    }
}

/// Programs loaded and attached in the network namespace of the thread that started it. Dropping it detaches all.
pub struct Kernel {
    // In this order: the tc programs are detached before their maps go.
    tc: TcMonitor,
    reader: Reader,
    sweeper: Sweeper,
    swept: Option<Instant>,
    lost: LostCounters,
    conntrack: Option<CtEvents>,
    netns: Watched,
    /// The addresses that room is kept for.
    watched: Set<[u8; size_of::<Addr>()]>,
    log: Option<EbpfLogger<StderrLog>>,
    clock: Clock,
    own: NetnsId,
    probes: Probes,
    /// The program on route lookups, while it is attached.
    routes: Option<HookLink>,
    /// What the kernel's own types are like, for modules that are loaded later.
    filled: Filled,
    outcome: Outcome,
    ebpf: Ebpf,
}

/// What is in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub map: &'static str,
    /// Entries.
    pub entries: usize,
    /// Entries that fit.
    pub max: u32,
}

/// The namespaces that the tracing programs keep.
struct Watched {
    set: Set<u64>,
    by_cookie: bool,
}

/// Keys of a map whose values say nothing.
struct Set<K: Pod> {
    map: HashMap<MapData, K, u32>,
    keys: HashSet<K>,
}

impl<K: Pod + Eq + Hash> Set<K> {
    fn new(map: HashMap<MapData, K, u32>) -> Self {
        Set {
            map,
            keys: HashSet::new(),
        }
    }

    /// These and no others.
    fn set(&mut self, keys: impl IntoIterator<Item = K>) -> Result<(), MapError> {
        let wanted: HashSet<K> = keys.into_iter().collect();
        // First what goes: it makes room. Whatever fails, it is known what is in the map.
        let gone: Vec<K> = self.keys.difference(&wanted).copied().collect();
        for key in gone {
            self.map.remove(&key)?;
            self.keys.remove(&key);
        }
        for key in wanted {
            if !self.keys.contains(&key) {
                self.map.insert(key, 1, 0)?;
                self.keys.insert(key);
            }
        }
        Ok(())
    }
}

impl Watched {
    fn key(&self, netns: NetnsId) -> u64 {
        if self.by_cookie {
            netns.cookie
        } else {
            u64::from(netns.inum)
        }
    }

    fn set(&mut self, netns: impl IntoIterator<Item = NetnsId>) -> Result<(), MapError> {
        let keys: Vec<u64> = netns.into_iter().map(|n| self.key(n)).collect();
        self.set.set(keys.into_iter().filter(|&key| key != 0))
    }
}

impl Kernel {
    /// Loads the programs and attaches them; everything is attached when this returns. Leftovers of killed runs in this
    /// network namespace are removed first.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "options are made for one start"
    )]
    pub fn start(options: Options) -> Result<Kernel, KernelError> {
        let ring_bytes = options.ring_bytes;
        if !ring_bytes.is_power_of_two() || ring_bytes < 4096 {
            return Err(KernelError::RingBytes(ring_bytes));
        }
        check_privileges()?;
        sys::give_back_big_blocks();
        cleanup()?;
        let own = sys::current_netns().map_err(KernelError::io("own network namespace"))?;
        let clock = Clock::measure();
        let Read {
            types,
            symbols,
            filled,
            reasons,
        } = read_kernel(options.btf.as_deref(), own)?;
        let mut layout = filled.layout;
        layout.ring_limit = ring_bytes / 4 * 3;
        let btf = aya_btf(options.btf.as_deref())?;
        let mut ebpf = load::object(Parameters {
            layout: &layout,
            btf: &btf,
            ring_bytes,
            verbose_log: options.verbose_log,
            verifier_log: VerifierLogLevel::default(),
        })?;
        let mut netns = Watched {
            set: Set::new(load::take_map(&mut ebpf, map::NETNS)?.try_into()?),
            by_cookie: layout.net_cookie != ABSENT,
        };
        netns.set([own])?;

        let probes = attach_probes(&mut ebpf, &filled, &types, symbols, &options)?;
        drop(types);
        let mut outcome = Outcome {
            probes: probes.states(),
            ..Outcome::default()
        };
        attach_hooks(&mut ebpf, &filled, &btf, &options, &mut outcome);
        drop(btf);
        let conntrack = listen_if_needed(&options, own, clock, &mut outcome);
        let programs = load::tc_programs(&mut ebpf)?;
        let method = choose_method(&programs, &options, &mut outcome);
        outcome.tc = Some(method);
        require(&outcome, Capability::Flow)?;
        require(&outcome, Capability::Drop)?;

        let flows = ByteMap::new(load::take_map(&mut ebpf, map::FLOWS)?)?;
        let taken = Array::try_from(load::take_map(&mut ebpf, map::TAKEN)?)?;
        let watched = Set::new(load::take_map(&mut ebpf, map::WATCHED)?.try_into()?);
        let drops = ByteMap::new(load::take_map(&mut ebpf, map::DROPS)?)?;
        let ring = RingBuf::try_from(load::take_map(&mut ebpf, map::RECORDS)?)?;
        let lost = PerCpuArray::try_from(load::take_map(&mut ebpf, map::LOST)?)?;
        let switches = load::take_map(&mut ebpf, map::IFACES)?.try_into()?;
        // An object without a line to log has no map for it either.
        let log = options
            .verbose_log
            .then(|| EbpfLogger::init_with_logger(&mut ebpf, StderrLog).ok())
            .flatten();
        let tc = TcMonitor::start(method, programs, switches)
            .map_err(KernelError::io("attaching to the interfaces"))?;
        Ok(Kernel {
            tc,
            reader: Reader::new(ring, drops, reasons, clock),
            sweeper: Sweeper::new(flows, taken, map::FLOWS_ENTRIES, clock),
            watched,
            swept: None,
            lost: LostCounters::new(lost),
            conntrack,
            netns,
            log,
            clock,
            own,
            probes,
            routes: None,
            filled,
            outcome,
            ebpf,
        })
    }

    /// What conntrack netlink has announced.
    fn announced(&mut self) -> Result<Vec<Record>, KernelError> {
        let Some(conntrack) = &mut self.conntrack else {
            return Ok(Vec::new());
        };
        let announced = conntrack
            .drain()
            .map_err(KernelError::io("conntrack events"))?;
        self.count(lost::GARBLED, announced.garbled);
        self.count(lost::CTNETLINK, u64::from(announced.overrun));
        Ok(announced.records)
    }

    /// Which tier each capability runs on.
    pub fn tiers(&self) -> Vec<TierStatus> {
        self.outcome.statuses()
    }

    /// The network namespace that the programs are attached in.
    pub fn own_netns(&self) -> NetnsId {
        self.own
    }

    /// The network namespaces that the tracing hooks keep besides the own one; replaces those of the call before.
    pub fn watch_netns(&mut self, netns: &[NetnsId]) -> Result<(), KernelError> {
        let own = self.own;
        Ok(self.netns.set(netns.iter().copied().chain([own]))?)
    }

    /// Addresses of the Service asked about: room is kept for records and flows that touch them, and such flows are the last
    /// to be evicted from a full map. What does not fit into the map of addresses is only watched while nothing is full.
    pub fn watch_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), KernelError> {
        self.sweeper.watch(addresses);
        let keys = addresses.iter().map(|address| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        });
        // Whether or not there is room for all of them.
        self.follow_routes(!addresses.is_empty());
        Ok(self.watched.set(keys)?)
    }

    /// Listens to route lookups, or no longer: there are several for each packet that is forwarded, so that it is done only while
    /// somebody asks about a Service.
    fn follow_routes(&mut self, wanted: bool) {
        let Some(hook) = HOOKS.iter().find(|h| h.hook == Hook::FibTableLookup) else {
            return;
        };
        let state = self.outcome.hooks.get(&hook.hook);
        let loaded = state.is_some_and(|s| !matches!(s, HookState::Absent(_)));
        match self.routes.take() {
            Some(link) if !wanted => load::detach_hook(&mut self.ebpf, hook, link),
            None if wanted && loaded => match load::attach_hook(&mut self.ebpf, hook) {
                Ok(link) => self.routes = Some(link),
                Err(why) => {
                    let why = HookState::Absent(why.to_string());
                    self.outcome.hooks.insert(hook.hook, why);
                }
            },
            link => self.routes = link,
        }
    }

    /// The interfaces and how far they are attached to.
    pub fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.tc.interfaces()
    }

    /// Interfaces whose packets are not all seen, and why.
    pub fn unseen(&self) -> Vec<InterfaceStatus> {
        self.tc.examine()
    }

    /// Programs of others on the same interfaces.
    pub fn beside(&self) -> io::Result<Vec<beside::Beside>> {
        beside::programs(&self.tc.interfaces(), self.tc.method())
    }

    /// How full the maps are whose fill is known without a walk.
    pub fn held(&self) -> [Held; 3] {
        let held = |map, entries, max| Held { map, entries, max };
        [
            held(map::FLOWS, self.live_flows(), map::FLOWS_ENTRIES),
            held(map::NETNS, self.netns.set.keys.len(), map::NETNS_ENTRIES),
            held(map::WATCHED, self.watched.keys.len(), map::WATCHED_ENTRIES),
        ]
    }

    /// Entries of the flow map at the latest sweep.
    pub fn live_flows(&self) -> usize {
        self.sweeper.entries()
    }

    fn collect(&mut self) -> Result<Vec<Input>, KernelError> {
        self.follow_modules();
        let mut inputs = Vec::new();
        let drained = self.reader.drain()?;
        self.count(lost::GARBLED, drained.garbled);
        let mut records = drained.records;
        records.extend(self.announced()?);
        if records.iter().any(is_verdict) {
            self.probes.demand(&mut self.ebpf);
        } else {
            self.probes.rest(&mut self.ebpf);
        }
        if !records.is_empty() {
            inputs.push(Input::Records { records });
        }
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_INTERVAL) {
            self.swept = Some(Instant::now());
            let time = self.clock.now();
            let swept = self.sweeper.sweep()?;
            self.count(lost::GARBLED, swept.garbled);
            self.count(lost::FLOW_EVICTED, swept.evicted);
            self.count(lost::FLOW_UNTOLD, swept.untold);
            // That nothing changed is worth telling: what hangs is known by it.
            let flows = swept.flows;
            inputs.push(Input::Flows { time, flows });
        }
        inputs.extend(self.lost.changed()?);
        if let Some(log) = &mut self.log {
            log.flush();
        }
        Ok(inputs)
    }

    /// Functions of a module that has been loaded are listened to from now on; where the tracepoint had stood in for conntrack's own
    /// function, it goes, so that nothing is told twice.
    fn follow_modules(&mut self) {
        if !self.probes.follow_modules(&mut self.ebpf, &self.filled) {
            return;
        }
        self.outcome.probes = self.probes.states();
        let confirmed = self.outcome.probes.get(&Hook::CtConfirm) == Some(&ProbeState::Ready);
        let stand_in = HOOKS.iter().find(|h| h.hook == Hook::NetDevStartXmit);
        if let Some(hook) = stand_in
            && confirmed
        {
            load::unload_hook(&mut self.ebpf, hook);
            let why = HookState::Absent(CONFIRM_SUFFICES.to_owned());
            self.outcome.hooks.insert(hook.hook, why);
        }
    }

    fn count(&mut self, kind: &'static str, lost: u64) {
        if lost > 0 {
            self.lost.add(kind, lost);
        }
    }
}

impl RecordSource for Kernel {
    fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
        self.swept = None;
        self.drain()
    }

    fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
        self.collect().map_err(|e| SourceError {
            what: "records of the kernel".to_owned(),
            why: e.to_string(),
            hint: e.hint(),
        })
    }
}

/// Removes what killed runs left in the network namespace of the calling thread: clsact filters whose owner is dead. Other
/// attachments end with their process. Says what it removed.
pub fn cleanup() -> Result<Vec<String>, KernelError> {
    let mut rtnl = Rtnl::requests().map_err(KernelError::io("netlink"))?;
    let removed = clsact::remove_leftovers(&mut rtnl)
        .map_err(KernelError::io("removing leftovers of a killed run"))?;
    Ok(removed
        .into_iter()
        .map(|r| format!("{} on interface {}", r.what, r.ifindex))
        .collect())
}

/// Fails early and clearly where nothing can work: without the privileges, the first program would be refused with a
/// bare EPERM.
fn check_privileges() -> Result<(), KernelError> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(KernelError::io("/proc/self/status"))?;
    let lacking = lacking_capabilities(&status);
    if lacking.is_empty() {
        return Ok(());
    }
    Err(KernelError::NotPermitted(format!(
        "missing {}",
        lacking.join(", ")
    )))
}

/// Names of the capabilities that `CapEff` lacks. `CAP_SYS_ADMIN` stands for those that were split off it
/// (`include/linux/capability.h`, v6.18).
fn lacking_capabilities(status: &str) -> Vec<&'static str> {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    [
        ("CAP_NET_ADMIN", NET_ADMIN),
        ("CAP_BPF", BPF | SYS_ADMIN),
        ("CAP_PERFMON", PERFMON | SYS_ADMIN),
    ]
    .into_iter()
    .filter(|(_, any)| effective & any == 0)
    .map(|(name, _)| name)
    .collect()
}

/// What is found out about the kernel before anything is loaded.
struct Read {
    types: KernelTypes,
    symbols: io::Result<Symbols>,
    filled: Filled,
    reasons: DropReasons,
}

fn read_kernel(file: Option<&Path>, own: NetnsId) -> Result<Read, KernelError> {
    let types = KernelTypes::read(file, probes::MODULES).map_err(KernelError::NoBtf)?;
    let reasons = DropReasons::read(&types).map_err(KernelError::NoBtf)?;
    let symbols = Symbols::read(&[layout::functions(), probes::functions()].concat());
    // Without function addresses no noise is filtered by place: more records, none lost.
    let none = Ranges::new();
    let ranges = symbols.as_ref().map_or(&none, Symbols::ranges);
    let filled = layout::fill(&types, &reasons, ranges, own);
    Ok(Read {
        types,
        symbols,
        filled,
        reasons,
    })
}

/// Why the tracepoint is left alone.
const CONFIRM_SUFFICES: &str = "__nf_conntrack_confirm tells the same";

fn attach_probes(
    ebpf: &mut Ebpf,
    filled: &Filled,
    types: &KernelTypes,
    symbols: io::Result<Symbols>,
    options: &Options,
) -> Result<Probes, KernelError> {
    let modules = load::take_map(ebpf, map::MODULES)?.try_into()?;
    if options.without_kprobes || options.force_ctnetlink {
        return Ok(Probes::none(modules, "to be done without, as was asked"));
    }
    if !tiers::kernel_has_kprobes() {
        return Ok(Probes::none(modules, "this kernel has no kprobes"));
    }
    Ok(match symbols {
        Ok(symbols) => {
            let known = Known::of(filled, types, &symbols);
            Probes::attach(ebpf, modules, &known, options.btf.clone())
        }
        Err(e) => Probes::none(modules, &format!("/proc/kallsyms cannot be read: {e}")),
    })
}

/// Whether netfilter has dropped a packet, by a rule or of its own accord.
fn is_verdict(record: &Record) -> bool {
    matches!(&record.event, Event::Drop(drop) if drop.hook.is_some() || drop.verdict.is_some())
}

fn aya_btf(file: Option<&Path>) -> Result<Btf, KernelError> {
    match file {
        Some(file) => Btf::parse_file(file, Endianness::default()),
        None => Btf::from_sys_fs(),
    }
    .map_err(|e| KernelError::BadBtf(chain(&e)))
}

fn attach_hooks(
    ebpf: &mut Ebpf,
    filled: &Filled,
    btf: &Btf,
    options: &Options,
    outcome: &mut Outcome,
) {
    for hook in &HOOKS {
        let state = if hook.hook == Hook::NetDevStartXmit && options.force_ctnetlink {
            HookState::Absent("conntrack events were asked for".to_owned())
        } else if hook.hook == Hook::NetDevStartXmit
            && outcome.probes.get(&Hook::CtConfirm) == Some(&ProbeState::Ready)
        {
            HookState::Absent(CONFIRM_SUFFICES.to_owned())
        } else if let Err(why) = filled.permits(hook) {
            HookState::Absent(why)
        } else {
            let state = load_hook(ebpf, hook, btf, options.force_raw_tp);
            // Route lookups are listened to only while somebody asks (`watch_addresses`).
            match hook.hook {
                Hook::FibTableLookup => state,
                _ => attach_loaded(ebpf, hook, state),
            }
        };
        outcome.hooks.insert(hook.hook, state);
    }
}

fn load_hook(ebpf: &mut Ebpf, hook: &HookInfo, btf: &Btf, force_raw_tp: bool) -> HookState {
    let why = if force_raw_tp {
        "raw tracepoints were asked for".to_owned()
    } else {
        match load::load_tp_btf(ebpf, hook, btf) {
            Ok(()) => return HookState::TpBtf,
            Err(why) => why.to_string(),
        }
    };
    match load::load_raw_tp(ebpf, hook) {
        Ok(()) => HookState::RawTp(why),
        Err(raw) => HookState::Absent(format!("{why}; {raw}")),
    }
}

/// Attaches what was loaded, for as long as the programs live.
fn attach_loaded(ebpf: &mut Ebpf, hook: &HookInfo, state: HookState) -> HookState {
    if matches!(state, HookState::Absent(_)) {
        return state;
    }
    match load::attach_hook(ebpf, hook) {
        Ok(_) => state,
        Err(why) => HookState::Absent(why.to_string()),
    }
}

/// Conntrack events are listened to only where no tracepoint shows translations, or when asked for.
fn listen_if_needed(
    options: &Options,
    own: NetnsId,
    clock: Clock,
    outcome: &mut Outcome,
) -> Option<CtEvents> {
    let shown = outcome
        .hooks
        .get(&Hook::NetDevStartXmit)
        .is_some_and(|state| !matches!(state, HookState::Absent(_)))
        || outcome.probes.get(&Hook::CtConfirm) == Some(&ProbeState::Ready);
    if shown && !options.force_ctnetlink {
        return None;
    }
    match CtEvents::open(own.inum, clock) {
        Ok(events) => {
            outcome.ctnetlink = Some(Ok(()));
            Some(events)
        }
        Err(e) => {
            outcome.ctnetlink = Some(Err(format!("no conntrack events: {e}")));
            None
        }
    }
}

fn choose_method(programs: &Programs, options: &Options, outcome: &mut Outcome) -> Method {
    let why_not = if options.force_clsact {
        Some("clsact was asked for".to_owned())
    } else {
        tc::probe_tcx(programs.ingress.as_fd())
            .err()
            .map(|e| format!("the kernel does not take tc programs as links: {e}"))
    };
    match why_not {
        None => Method::Tcx,
        Some(why) => {
            outcome.tc_reasons.insert(Method::Tcx.name(), why);
            Method::Clsact
        }
    }
}

fn require(outcome: &Outcome, capability: Capability) -> Result<(), KernelError> {
    let status = outcome.status(capability);
    match status.tier {
        Some(_) => Ok(()),
        None => Err(KernelError::NoTier {
            capability,
            why: status.reasons.join("; "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges() {
        let lacking = |hex: &str| lacking_capabilities(&format!("Name:\tx\nCapEff:\t{hex}\n"));
        assert!(lacking("000001ffffffffff").is_empty());
        assert!(lacking("0000000000201000").is_empty());
        assert_eq!(lacking("0000000000200000"), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking("0000000000001000"), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(lacking("0").len(), 3);
        assert_eq!(lacking("").len(), 3);
    }

    #[test]
    fn a_ring_of_a_bad_size() {
        for ring_bytes in [0, 2048, 4097] {
            let options = Options {
                ring_bytes,
                ..Options::default()
            };
            assert!(matches!(
                Kernel::start(options),
                Err(KernelError::RingBytes(_))
            ));
        }
    }

    #[test]
    fn every_error_says_what_to_do() {
        let errors = [
            KernelError::NotPermitted("missing CAP_BPF".to_owned()),
            KernelError::NoBtf(BtfError::Magic(0)),
            KernelError::RingBytes(1),
            KernelError::NoTier {
                capability: Capability::Drop,
                why: "tp_btf: no".to_owned(),
            },
        ];
        for error in errors {
            assert!(!error.hint().is_empty() && !error.to_string().is_empty());
        }
    }
}
