//! Evidence: id, when, where, and in words.

use super::page::{FAINT, Page, STRONG};
use super::words;
use crate::model::answer::{Evidence, EvidenceFlow, Peer, Plane, Window};
use anstyle::Style;
use std::net::SocketAddr;

/// One piece of evidence; `alike` are the ids of others that say the same of other packets.
pub fn evidence(page: &mut Page, e: &Evidence, alike: &[&str], window: Window, wide: bool) {
    let mut facts = Vec::new();
    facts.extend(e.time.map(|t| words::offset(window.from, t)));
    let place: Vec<&str> = [&e.node, &e.ifname, &e.hook]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if place.is_empty() {
        facts.push(plane(e.plane).to_owned());
    } else {
        facts.push(place.join(" "));
    }
    if wide {
        facts.extend(e.netns.map(|n| format!("netns {n}")));
    }
    let lead = format!("  {:<4}", e.id);
    page.hang(&lead, STRONG, &e.text, Style::new());
    if !alike.is_empty() {
        facts.push(format!("and {} alike ({})", alike.len(), alike.join(" ")));
    }
    page.paragraph(6, &facts.join(", "), FAINT);
    if let Some(flow) = &e.flow {
        page.paragraph(6, &flow_text(flow), FAINT);
        if wide && let (Some(orig), Some(reply)) = (&flow.orig, &flow.reply) {
            let text = format!("conntrack: {}; reply {}", orig.0, reply.0);
            page.paragraph(6, &text, FAINT);
        }
    }
}

fn plane(p: Plane) -> &'static str {
    match p {
        Plane::Flow => "packets",
        Plane::Ct => "conntrack",
        Plane::Drop => "kernel drop",
        Plane::Mtu => "path MTU",
        Plane::K8s => "Kubernetes object",
        Plane::Node => "state of the node",
        Plane::Probe => "probe",
    }
}

fn flow_text(flow: &EvidenceFlow) -> String {
    let end = |p: &Peer| {
        let address = if flow.proto.has_ports() {
            SocketAddr::new(p.ip, p.port).to_string()
        } else {
            p.ip.to_string()
        };
        match p.pod.as_ref().or(p.service.as_ref()).or(p.node.as_ref()) {
            Some(name) => format!("{address} ({name})"),
            None => address,
        }
    };
    format!("{} {} → {}", flow.proto, end(&flow.src), end(&flow.dst))
}
