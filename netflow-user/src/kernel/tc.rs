//! The tc programs on every interface of a network namespace, new interfaces included.
//!
//! A thread waits on an rtnetlink subscription, so that an interface is attached to as soon as it appears. Interfaces are
//! named by index only: a name may belong to another interface by the time it is used.

use super::clsact::{self, Filter, FilterName, Qdisc, Side};
use super::links::{self, Change, Interface};
use super::owner::Owner;
use super::rtnl::Rtnl;
use super::sys;
use aya::maps::{HashMap as BpfHashMap, MapData};
use netflow_ebpf::{IFACE_EMIT_EGRESS, IFACE_EMIT_INGRESS};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How tc programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// BPF links (Linux 6.6): first in the list, gone with the process.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

impl Method {
    /// As the tier table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Tcx => "tcx",
            Method::Clsact => "clsact",
        }
    }
}

/// The loaded programs, by side and by whether packets begin with an Ethernet header.
#[derive(Debug)]
pub struct Programs {
    /// Ingress, Ethernet.
    pub ingress: OwnedFd,
    /// Egress, Ethernet.
    pub egress: OwnedFd,
    /// Ingress, IP header first.
    pub ingress_l3: OwnedFd,
    /// Egress, IP header first.
    pub egress_l3: OwnedFd,
}

impl Programs {
    fn pick(&self, side: Side, ethernet: bool) -> BorrowedFd<'_> {
        match (side, ethernet) {
            (Side::Ingress, true) => self.ingress.as_fd(),
            (Side::Egress, true) => self.egress.as_fd(),
            (Side::Ingress, false) => self.ingress_l3.as_fd(),
            (Side::Egress, false) => self.egress_l3.as_fd(),
        }
    }
}

/// An interface and how far we are attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Index in the namespace.
    pub ifindex: u32,
    /// Name when it was last announced.
    pub name: String,
    /// What is not attached and why; empty when all is well.
    pub problem: String,
}

#[derive(Debug)]
enum Link {
    Tcx(#[expect(dead_code, reason = "held: closing it detaches the program")] OwnedFd),
    Clsact(Filter),
}

#[derive(Debug, Default)]
struct Attached {
    interface: Interface,
    links: Vec<Link>,
    created_qdisc: bool,
    problem: String,
}

/// Everything attached in one namespace.
#[derive(Debug)]
struct Attachments {
    method: Method,
    programs: Programs,
    switches: BpfHashMap<MapData, u32, u32>,
    rtnl: Rtnl,
    owner: Owner,
    interfaces: BTreeMap<u32, Attached>,
}

impl Attachments {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Gone(ifindex) => {
                // Its qdisc went with it, and links to it are defunct.
                self.interfaces.remove(&ifindex);
                // An entry that is not there needs no removal.
                let _ = self.switches.remove(&ifindex);
            }
            Change::Here(interface) => self.here(interface),
        }
    }

    fn here(&mut self, interface: Interface) {
        let ifindex = interface.ifindex;
        let known = self.interfaces.get_mut(&ifindex);
        if known.as_ref().is_some_and(|a| a.interface == interface) {
            return;
        }
        let mut switches = 0;
        if interface.is_first_on_ingress() {
            switches |= IFACE_EMIT_INGRESS;
        }
        if interface.is_first_on_egress() {
            switches |= IFACE_EMIT_EGRESS;
        }
        let mut problem = String::new();
        if let Err(e) = self.switches.insert(ifindex, switches, 0) {
            problem = format!("packets may be reported twice: {e}");
        }
        if let Some(attached) = known {
            attached.interface = interface;
            return;
        }
        let mut attached = Attached {
            interface,
            problem,
            ..Attached::default()
        };
        if let Err(e) = self.attach(&mut attached) {
            attached.problem = format!("not attached: {e}");
        }
        self.interfaces.insert(ifindex, attached);
    }

    fn attach(&mut self, attached: &mut Attached) -> io::Result<()> {
        let Interface { ifindex, .. } = attached.interface;
        let ethernet = attached.interface.is_ethernet();
        let mut sides = &Side::BOTH[..];
        if self.method == Method::Clsact {
            let qdisc = clsact::ensure_qdisc(&mut self.rtnl, ifindex)?;
            attached.created_qdisc = qdisc == Qdisc::Ours;
            if qdisc == Qdisc::IngressOnly {
                sides = &Side::BOTH[..1];
                "egress not attached: an ingress qdisc stands where clsact would"
                    .clone_into(&mut attached.problem);
            }
        }
        let name = FilterName {
            owner: self.owner.token().to_owned(),
            created_qdisc: attached.created_qdisc,
        };
        for &side in sides {
            let program = self.programs.pick(side, ethernet);
            let link = match self.method {
                Method::Tcx => Link::Tcx(sys::tcx_attach_first(
                    program,
                    ifindex,
                    side == Side::Egress,
                )?),
                Method::Clsact => Link::Clsact(clsact::attach(
                    &mut self.rtnl,
                    ifindex,
                    side,
                    program,
                    &name,
                )?),
            };
            attached.links.push(link);
        }
        Ok(())
    }

    /// Brings what we know in line with what there is, after announcements were lost.
    fn relist(&mut self) -> io::Result<()> {
        let now = links::list(&mut self.rtnl)?;
        let gone: Vec<u32> = self
            .interfaces
            .keys()
            .copied()
            .filter(|known| now.iter().all(|i| i.ifindex != *known))
            .collect();
        for ifindex in gone {
            self.apply(Change::Gone(ifindex));
        }
        for interface in now {
            self.here(interface);
        }
        Ok(())
    }

    /// Filters can be removed by whoever may add some; links cannot.
    fn examine(&mut self) {
        let rtnl = &mut self.rtnl;
        for (ifindex, attached) in &mut self.interfaces {
            let ours = attached.links.iter().filter_map(|link| match link {
                Link::Clsact(filter) => Some(filter),
                Link::Tcx(_) => None,
            });
            let removed = ours
                .filter(|filter| {
                    // Where they cannot be listed nothing is known to be wrong.
                    clsact::filters(rtnl, *ifindex, filter.side)
                        .is_ok_and(|there| !there.iter().any(|f| f.is(filter)))
                })
                .count();
            if removed > 0 {
                "somebody removed the filters of netflow".clone_into(&mut attached.problem);
            }
        }
    }

    fn detach_all(&mut self) {
        for (ifindex, attached) in std::mem::take(&mut self.interfaces) {
            for link in &attached.links {
                if let Link::Clsact(filter) = link {
                    // The interface may be gone by now, and the filter with it.
                    let _ = clsact::detach(&mut self.rtnl, filter);
                }
            }
            if attached.created_qdisc {
                let _ = clsact::remove_qdisc_if_unused(&mut self.rtnl, ifindex);
            }
        }
    }
}

/// Keeps the programs attached to every interface of the namespace of the thread that started it, until it is dropped.
#[derive(Debug)]
pub struct TcMonitor {
    state: Arc<Mutex<Attachments>>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl TcMonitor {
    /// Attaches to all interfaces there are, and starts to wait for others.
    pub fn start(
        method: Method,
        programs: Programs,
        switches: BpfHashMap<MapData, u32, u32>,
    ) -> io::Result<TcMonitor> {
        // Subscribed before listing: what appears in between is announced.
        let mut announcements = links::subscribe()?;
        let mut state = Attachments {
            method,
            programs,
            switches,
            rtnl: Rtnl::requests()?,
            owner: Owner::claim()?,
            interfaces: BTreeMap::new(),
        };
        state.relist()?;
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("netflow-links".to_owned())
            .spawn(move || watch(&mut announcements, &stopped, &shared))?;
        Ok(TcMonitor {
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Notes which of the filters somebody else has removed, and says what is wrong with each interface.
    pub fn examine(&self) -> Vec<InterfaceStatus> {
        lock(&self.state).examine();
        let mut all = self.interfaces();
        all.retain(|i| !i.problem.is_empty());
        all
    }

    /// How the programs are attached.
    pub fn method(&self) -> Method {
        lock(&self.state).method
    }

    /// Every interface and what is wrong with it, if anything.
    pub fn interfaces(&self) -> Vec<InterfaceStatus> {
        lock(&self.state)
            .interfaces
            .values()
            .map(|attached| InterfaceStatus {
                ifindex: attached.interface.ifindex,
                name: attached.interface.name.clone(),
                problem: attached.problem.clone(),
            })
            .collect()
    }
}

impl Drop for TcMonitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; what is attached is removed all the same.
            let _ = thread.join();
        }
        lock(&self.state).detach_all();
    }
}

/// A thread that panicked while holding the lock leaves a list that is still right about what is attached.
fn lock(state: &Mutex<Attachments>) -> MutexGuard<'_, Attachments> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies announcements until the other end of `stopped` closes.
fn watch(announcements: &mut Rtnl, stopped: &UnixStream, state: &Mutex<Attachments>) {
    loop {
        let mut waiting = [
            PollFd::new(announcements.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if waiting[1].any().unwrap_or(true) {
            return;
        }
        let mut changes = Vec::new();
        let received = announcements.pending(|message| changes.extend(links::decode(message)));
        let mut state = lock(state);
        for change in changes {
            state.apply(change);
        }
        // ENOBUFS: more was announced than the socket could hold. Should the list fail too, the next
        // announcement brings another try.
        if received.is_err() {
            let _ = state.relist();
        }
    }
}

/// Whether this kernel takes tc programs as BPF links; the error says why not. The program is detached again at once.
pub fn probe_tcx(program: BorrowedFd<'_>) -> Result<(), io::Error> {
    let mut rtnl = Rtnl::requests()?;
    let Some(first) = links::list(&mut rtnl)?.into_iter().next() else {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    };
    sys::tcx_attach_first(program, first.ifindex, false).map(drop)
}
