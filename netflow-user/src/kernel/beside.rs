//! Programs of others on the interfaces that netflow watches, and who sees a packet first.
//!
//! A program can redirect, end or rewrite a packet; whoever comes after it does not see it as it was. TCX programs run
//! before the qdisc with its filters (`sch_handle_ingress` and `sch_handle_egress` in `net/core/dev.c`, v6.18), each in
//! the order of its list, filters by priority.

use super::clsact::{self, FilterName, Side};
use super::rtnl::Rtnl;
use super::tc::{InterfaceStatus, Method};
use crate::model::node::TcProgram;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use netflow_ebpf::TC_PROGRAMS;
use serde::Serialize;
use std::io;

/// A program or a filter of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// Interface.
    pub interface: String,
    /// `ingress` or `egress`.
    pub side: &'static str,
    /// `tcx` or `clsact`.
    pub how: &'static str,
    /// Name of the program or of the filter; the filter's kind (`flower`, …) where it has no name.
    pub name: String,
    /// It sees packets before netflow does.
    pub first: bool,
    /// Index of the interface.
    #[serde(skip)]
    pub ifindex: u32,
    /// The kernel's id of the program, where there is one.
    #[serde(skip)]
    pub id: Option<u32>,
}

impl From<Beside> for TcProgram {
    fn from(beside: Beside) -> TcProgram {
        TcProgram {
            ifindex: beside.ifindex,
            interface: beside.interface,
            side: beside.side.to_owned(),
            how: beside.how.to_owned(),
            name: beside.name,
            id: beside.id,
            first: beside.first,
        }
    }
}

/// Name and id, as far as there are any.
type Title = (String, Option<u32>);

/// Looks at every interface, in the network namespace of the calling thread, while `method` holds ours.
pub fn programs(interfaces: &[InterfaceStatus], method: Method) -> io::Result<Vec<Beside>> {
    let mut rtnl = Rtnl::requests()?;
    let mut all = Vec::new();
    for InterfaceStatus { ifindex, name, .. } in interfaces {
        for (side, word) in [(Side::Ingress, "ingress"), (Side::Egress, "egress")] {
            let beside = |how, (title, id): Title, first| Beside {
                interface: name.clone(),
                side: word,
                how,
                name: title,
                first,
                ifindex: *ifindex,
                id,
            };
            let tcx = before_and_after(tcx(name, side), |(name, _)| is_ours(name));
            let filters = clsact::filters(&mut rtnl, *ifindex, side)?;
            let titles = filters.iter().filter_map(|f| Some((f.title()?, f.program)));
            let ours = |(title, _): &Title| FilterName::parse(title).is_some();
            let clsact = before_and_after(titles.collect(), ours);
            let ours_is_tcx = method == Method::Tcx;
            let found = tcx
                .into_iter()
                .map(|(title, first)| beside("tcx", title, first || !ours_is_tcx))
                .chain(
                    clsact
                        .into_iter()
                        .map(|(title, first)| beside("clsact", title, first && !ours_is_tcx)),
                );
            all.extend(found);
        }
    }
    Ok(all)
}

/// Those that are not ours, and whether each stands before ours.
fn before_and_after<T>(all: Vec<T>, is_ours: impl Fn(&T) -> bool) -> Vec<(T, bool)> {
    let ours = all.iter().position(&is_ours).unwrap_or(all.len());
    all.into_iter()
        .enumerate()
        .filter(|(_, one)| !is_ours(one))
        .map(|(place, one)| (one, place < ours))
        .collect()
}

/// The TCX programs, first to last; none where the kernel has no TCX or the interface is gone by now.
fn tcx(interface: &str, side: Side) -> Vec<Title> {
    let kind = match side {
        Side::Ingress => TcAttachType::Ingress,
        Side::Egress => TcAttachType::Egress,
    };
    let found: Result<_, ProgramError> = SchedClassifier::query_tcx(interface, kind);
    let programs = found.map(|(_, programs)| programs).unwrap_or_default();
    programs
        .iter()
        .map(|p| match p.name_as_str() {
            Some(name) if !name.is_empty() => (name.to_owned(), Some(p.id())),
            _ => (format!("program {}", p.id()), Some(p.id())),
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    TC_PROGRAMS.iter().any(|p| is_kernel_name_of(name, p.name))
}

/// The kernel keeps the first 15 bytes of a name (`BPF_OBJ_NAME_LEN`).
fn is_kernel_name_of(name: &str, whole: &str) -> bool {
    !name.is_empty() && (name == whole || (name.len() == 15 && whole.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_before_ours_sees_packets_first() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let found = before_and_after(names(&["cil_from", "ours", "late"]), |n| n == "ours");
        assert_eq!(
            found,
            [("cil_from".to_owned(), true), ("late".to_owned(), false)]
        );
    }

    #[test]
    fn a_long_name_is_cut_by_the_kernel() {
        assert!(is_kernel_name_of("netflow_in", "netflow_in"));
        assert!(is_kernel_name_of(
            "netflow_in_with",
            "netflow_in_without_ethernet"
        ));
        assert!(!is_kernel_name_of("netflow", "netflow_in"));
        assert!(!is_kernel_name_of("", "netflow_in"));
    }
}
