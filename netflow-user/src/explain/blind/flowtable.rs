//! Connections that a flowtable forwards: where their packets come in, it translates and sends them on
//! (`nf_flow_offload_ip_hook`, `net/netfilter/nf_flow_table_ip.c`, v6.18), past prerouting, forward and postrouting.
//!
//! tc stands before the ingress hook and behind `dev_queue_xmit`, so interfaces show these packets still. Rules are not asked
//! about them: neither a counter that stands still nor a rule that should drop them says anything. Hardware shows them to
//! nobody.

use super::{Case, View};
use crate::model::answer::Blind;
use crate::model::conntrack::CtStatus;
use crate::model::node::Flowtable;

/// What flowtables hide on a node. Where the cause is `proved` on packets only connections of the Service that one holds
/// matter.
pub fn on_node(case: &Case<'_>, index: usize, view: &View, proved: bool) -> Option<Blind> {
    let tables: Vec<&Flowtable> = view.facts.iter().flat_map(|f| &f.flowtables).collect();
    let count = |is: fn(CtStatus) -> bool| {
        let parts = case.attempts.iter().flat_map(|a| &a.parts);
        let held = parts.filter(|p| p.view == index && p.conn.ct().is_some_and(|ct| is(ct.status)));
        held.count()
    };
    let (held, in_hardware) = (
        count(CtStatus::offloaded),
        count(CtStatus::offloaded_to_hardware),
    );
    if held == 0 && (proved || tables.is_empty()) {
        return None;
    }
    let names: Vec<String> = tables.into_iter().map(name).collect();
    let name = if names.is_empty() {
        "A flowtable that is gone by now".to_owned()
    } else {
        format!("Flowtable {}", names.join(", "))
    };
    let hardware = if in_hardware > 0 {
        format!(
            "; hardware forwards {in_hardware} of them, whose packets nobody sees: their silence says nothing"
        )
    } else {
        String::new()
    };
    let text = format!(
        "{name} forwards established connections past the node's rules ({held} of the Service's): rules and policies do not \
         act on them, and their counters stand still while packets pass{hardware}"
    );
    Some(Blind {
        code: "flowtable".to_owned(),
        node: view.name().to_owned(),
        capability: "drop".to_owned(),
        text,
    })
}

/// `inet filter/fast (eth0, eth1; hardware)`.
fn name(table: &Flowtable) -> String {
    let mut at = table.devices.join(", ");
    if table.hardware {
        at.push_str("; hardware");
    }
    format!("{}/{} ({at})", table.table, table.name)
}
