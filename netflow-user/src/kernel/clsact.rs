//! The clsact qdisc and bpf filters on it, by rtnetlink: how tc programs are attached before Linux 6.6.
//!
//! A filter outlives the process that added it. Ours carry their owner in their name, so that the next start finds those
//! of killed runs; nothing else is ever removed, except a qdisc that we created and that nobody uses.

use super::owner;
use super::rtnl::{CREATE, Message, Request, Rtnl, append, attribute, text, u32_at};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's return value is the verdict (`TCA_BPF_FLAG_ACT_DIRECT`).
const ACT_DIRECT: u32 = 1;

/// Handle `ffff:`, which clsact and the older ingress qdisc share.
const QDISC_HANDLE: u32 = 0xffff_0000;
/// `TC_H_CLSACT`, the parent of the qdisc itself.
const QDISC_PARENT: u32 = 0xffff_fff1;
/// `ETH_P_ALL` in network order.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// Our handle within a priority: "nf".
const HANDLE: u32 = 0x6e66;
/// Priorities tried, first the one that sees packets before all others.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;

/// Which side of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Received packets.
    Ingress,
    /// Sent packets.
    Egress,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Ingress, Side::Egress];

    fn parent(self) -> u32 {
        match self {
            Side::Ingress => QDISC_HANDLE | 0xfff2,
            Side::Egress => QDISC_HANDLE | 0xfff3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Side::Ingress => "in",
            Side::Egress => "out",
        }
    }
}

/// The name of a filter of ours: `netflow:SIDE:OWNER`, with `:qdisc` behind it when netflow also created the qdisc: the last
/// of several runs at a time then removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterName {
    /// Token of the owner.
    pub owner: String,
    /// Whether the qdisc is netflow's own.
    pub created_qdisc: bool,
}

impl FilterName {
    fn format(&self, side: Side) -> String {
        let qdisc = if self.created_qdisc { ":qdisc" } else { "" };
        format!("netflow:{}:{}{qdisc}", side.word(), self.owner)
    }

    /// Reads a name; `None` if the filter is not ours.
    pub fn parse(name: &str) -> Option<FilterName> {
        let mut parts = name.split(':');
        let (Some("netflow"), Some("in" | "out"), Some(owner)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let created_qdisc = match (parts.next(), parts.next()) {
            (None, None) => false,
            (Some("qdisc"), None) => true,
            _ => return None,
        };
        let mut numbers = owner.split('-');
        let numeric = numbers.by_ref().take(3).all(|n| n.parse::<u64>().is_ok());
        if owner.split('-').count() != 3 || !numeric {
            return None;
        }
        Some(FilterName {
            owner: owner.to_owned(),
            created_qdisc,
        })
    }
}

/// A filter as it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Interface.
    pub ifindex: u32,
    /// Side.
    pub side: Side,
    /// Handle within its priority.
    handle: u32,
    /// Priority in the upper half, protocol in the lower, as `tcm_info` has it.
    info: u32,
    /// `bpf`, `flower`, …
    kind: String,
    /// Name of a bpf filter, else empty.
    name: String,
    /// The kernel's id of its program, where the filter was listed.
    pub program: Option<u32>,
}

impl Filter {
    /// Whether both are one, whatever is known of its program.
    pub fn is(&self, other: &Filter) -> bool {
        let place = |f: &Filter| (f.ifindex, f.side, f.handle, f.info);
        place(self) == place(other) && (&self.kind, &self.name) == (&other.kind, &other.name)
    }

    /// Its name, or its kind where it has none; nothing for a priority that is no filter.
    pub fn title(&self) -> Option<String> {
        let name = if self.name.is_empty() {
            &self.kind
        } else {
            &self.name
        };
        (self.handle != 0).then(|| name.clone())
    }
}

/// What stands at handle `ffff:` of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qdisc {
    /// clsact of somebody else.
    Foreign,
    /// clsact that netflow created: this run now, or another one that still has filters on it.
    Ours,
    /// The older ingress qdisc, which has no egress side.
    IngressOnly,
}

/// `struct tcmsg`.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut out = [0; 20];
    for (four, word) in out
        .chunks_exact_mut(4)
        .skip(1)
        .zip([ifindex, handle, parent, info])
    {
        four.copy_from_slice(&word.to_ne_bytes());
    }
    out
}

/// Makes sure that there is a qdisc to attach to.
///
/// Where there is none, the interface drops what it would send in the moment in which one is put in place, and again when it
/// is removed: `qdisc_graft` calls `dev_deactivate` also for a qdisc that queues nothing (`net/sched/sch_api.c`, v6.18).
pub fn ensure_qdisc(rtnl: &mut Rtnl, ifindex: u32) -> io::Result<Qdisc> {
    let fixed = tcmsg(ifindex, QDISC_HANDLE, QDISC_PARENT, 0);
    let create = Request::new(RTM_NEWQDISC, CREATE, &fixed).with(TCA_KIND, b"clsact\0");
    match rtnl.change(&create) {
        Ok(()) => Ok(Qdisc::Ours),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            let ingress_only = qdiscs(rtnl)?
                .into_iter()
                .any(|(index, kind)| index == ifindex && kind == "ingress");
            if ingress_only {
                return Ok(Qdisc::IngressOnly);
            }
            let mut ours = false;
            for side in Side::BOTH {
                let filters = filters(rtnl, ifindex, side)?;
                let mut names = filters.iter().filter_map(|f| FilterName::parse(&f.name));
                ours |= names.any(|name| name.created_qdisc);
            }
            Ok(if ours { Qdisc::Ours } else { Qdisc::Foreign })
        }
        Err(e) => Err(e),
    }
}

/// Interfaces with a qdisc at handle `ffff:`, and its kind.
fn qdiscs(rtnl: &mut Rtnl) -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    let all = Request::new(RTM_GETQDISC, 0, &tcmsg(0, 0, 0, 0));
    rtnl.dump(&all, |Message { payload, .. }| {
        if let (Some(ifindex), Some(QDISC_HANDLE), Some(list)) =
            (u32_at(payload, 4), u32_at(payload, 8), payload.get(20..))
        {
            let kind = attribute(list, TCA_KIND).map_or("", text);
            found.push((ifindex, kind.to_owned()));
        }
    })?;
    Ok(found)
}

/// Removes the qdisc if no filter is on it, ours or anybody's.
pub fn remove_qdisc_if_unused(rtnl: &mut Rtnl, ifindex: u32) -> io::Result<bool> {
    for side in Side::BOTH {
        if !filters(rtnl, ifindex, side)?.is_empty() {
            return Ok(false);
        }
    }
    let fixed = tcmsg(ifindex, QDISC_HANDLE, QDISC_PARENT, 0);
    rtnl.change(&Request::new(RTM_DELQDISC, 0, &fixed).with(TCA_KIND, b"clsact\0"))?;
    Ok(true)
}

/// Everything attached on one side of an interface. A priority shows up as one more entry without a handle.
pub fn filters(rtnl: &mut Rtnl, ifindex: u32, side: Side) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    let ask = Request::new(RTM_GETTFILTER, 0, &tcmsg(ifindex, 0, side.parent(), 0));
    rtnl.dump(&ask, |Message { payload, .. }| {
        let list = payload.get(20..).unwrap_or(&[]);
        let options = attribute(list, TCA_OPTIONS).unwrap_or(&[]);
        found.push(Filter {
            ifindex,
            side,
            handle: u32_at(payload, 8).unwrap_or(0),
            info: u32_at(payload, 16).unwrap_or(0),
            kind: attribute(list, TCA_KIND).map_or("", text).to_owned(),
            name: attribute(options, TCA_BPF_NAME).map_or("", text).to_owned(),
            program: attribute(options, TCA_BPF_ID).and_then(|id| u32_at(id, 0)),
        });
    })?;
    Ok(found)
}

/// Attaches a program under the first priority that nobody uses.
pub fn attach(
    rtnl: &mut Rtnl,
    ifindex: u32,
    side: Side,
    program: BorrowedFd<'_>,
    name: &FilterName,
) -> io::Result<Filter> {
    let taken: Vec<u16> = filters(rtnl, ifindex, side)?
        .iter()
        .map(|filter| (filter.info >> 16) as u16)
        .collect();
    let name = name.format(side);
    let mut options = Vec::new();
    let fd = program.as_raw_fd().cast_unsigned();
    append(&mut options, TCA_BPF_FD, &fd.to_ne_bytes());
    append(&mut options, TCA_BPF_NAME, format!("{name}\0").as_bytes());
    append(&mut options, TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    for priority in PRIORITIES.filter(|priority| !taken.contains(priority)) {
        let info = u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS);
        let fixed = tcmsg(ifindex, HANDLE, side.parent(), info);
        let request = Request::new(RTM_NEWTFILTER, CREATE, &fixed)
            .with(TCA_KIND, b"bpf\0")
            .with(TCA_OPTIONS, &options);
        match rtnl.change(&request) {
            Ok(()) => {
                return Ok(Filter {
                    ifindex,
                    side,
                    handle: HANDLE,
                    info,
                    kind: "bpf".to_owned(),
                    name,
                    program: None,
                });
            }
            // Somebody took the priority in between.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Removes exactly this filter.
pub fn detach(rtnl: &mut Rtnl, filter: &Filter) -> io::Result<()> {
    let Filter {
        ifindex,
        side,
        handle,
        info,
        kind,
        name: _,
        program: _,
    } = filter;
    let fixed = tcmsg(*ifindex, *handle, side.parent(), *info);
    let request =
        Request::new(RTM_DELTFILTER, 0, &fixed).with(TCA_KIND, format!("{kind}\0").as_bytes());
    rtnl.change(&request)
}

/// What was left behind by a run that is gone, and is removed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Interface.
    pub ifindex: u32,
    /// `filter NAME` or `clsact qdisc`.
    pub what: String,
}

/// Removes the filters of owners that no longer run, and the qdiscs that those created and nobody uses.
pub fn remove_leftovers(rtnl: &mut Rtnl) -> io::Result<Vec<Removed>> {
    let mut removed = Vec::new();
    for (ifindex, _) in qdiscs(rtnl)? {
        let mut created_qdisc = false;
        for side in Side::BOTH {
            for filter in filters(rtnl, ifindex, side)? {
                let Some(name) = FilterName::parse(&filter.name) else {
                    continue;
                };
                if filter.handle != HANDLE || owner::is_alive(&name.owner) {
                    continue;
                }
                detach(rtnl, &filter)?;
                created_qdisc |= name.created_qdisc;
                removed.push(Removed {
                    ifindex,
                    what: format!("filter {}", filter.name),
                });
            }
        }
        if created_qdisc && remove_qdisc_if_unused(rtnl, ifindex)? {
            removed.push(Removed {
                ifindex,
                what: "clsact qdisc".to_owned(),
            });
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_and_of_others() {
        for created_qdisc in [false, true] {
            let name = FilterName {
                owner: "4021-88123-0".to_owned(),
                created_qdisc,
            };
            for side in Side::BOTH {
                assert_eq!(FilterName::parse(&name.format(side)), Some(name.clone()));
            }
        }
        for other in [
            "",
            "netflow",
            "netflow:in",
            "netflow:in:",
            "netflow:in:1-2",
            "netflow:in:1-2-3-4",
            "netflow:in:a-b-c",
            "netflow:in:1-2-3:other",
            "netflow:in:1-2-3:qdisc:more",
            "netflow:up:1-2-3",
            "cil_from_netdev",
        ] {
            assert_eq!(FilterName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_fixed_part() {
        let bytes = tcmsg(7, 1, 0xffff_fff2, 0x0001_0300);
        assert_eq!(u32_at(&bytes, 4), Some(7));
        assert_eq!(u32_at(&bytes, 12), Some(0xffff_fff2));
        assert_eq!(u32_at(&bytes, 16), Some(0x0001_0300));
        assert_eq!(ALL_PROTOCOLS.to_ne_bytes(), [0, 3]);
    }
}
