//! `netflow doctor`.

use super::args::Format;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::output::Output;
use super::{host, live, render};
use crate::kernel::beside::Beside;
use crate::kernel::pressure::{self, Fill};
use crate::model::capability::TierStatus;
use clap::Args;
use serde::Serialize;
use std::path::Path;

/// Value of `schema`.
const SCHEMA: &str = "netflow.doctor/v1";

/// Say what can be seen on this node, on which tier, and what is lost
#[derive(Debug, Args)]
#[command(
    after_help = "It attaches the programs for a moment, to see that they load, and detaches them.

Exit status: 0 well, 1 degraded, 2 could not run"
)]
pub struct Doctor {
    #[command(flatten)]
    tiers: super::args::TierArgs,
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing is lost.
    Well,
    /// Something cannot be seen.
    Degraded,
    /// Nothing can be seen.
    Broken,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How well it is.
    pub health: Health,
    /// As found.
    pub value: String,
    /// What it means, where it is not well or not plain.
    pub text: String,
}

/// All that `doctor` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The worst of all.
    pub health: Health,
    /// The machine.
    pub host: Vec<Finding>,
    /// What can be seen.
    pub capabilities: Vec<TierStatus>,
    /// Programs and filters of others on the same interfaces.
    pub programs: Vec<Beside>,
    /// Every BPF map of the machine, fullest first.
    pub maps: Vec<Fill>,
}

/// What is known once the programs were attached.
#[derive(Debug, Default)]
struct Seen {
    tiers: Vec<TierStatus>,
    programs: Vec<Beside>,
    maps: Vec<Fill>,
    /// What could not be looked at.
    unread: Vec<Finding>,
}

/// Runs it.
pub fn run(args: &Doctor, output: &Output, format: Format) -> Result<u8, Failure> {
    let mut host = examine(args.tiers.btf.as_deref());
    let seen = attach(args);
    let failure = seen.as_ref().err().cloned();
    let Seen {
        tiers: capabilities,
        programs,
        maps,
        unread,
    } = seen.unwrap_or_default();
    host.extend(unread);
    host.extend(others(&programs));
    host.extend(pressure(&maps));
    let report = Report {
        schema: SCHEMA,
        health: worst(&host, &capabilities),
        host,
        capabilities,
        programs,
        maps,
    };
    if let Some(failure) = failure {
        // A reader wants to see why; a program gets the failure.
        if !format.is_json() {
            super::print(output, &render::doctor(&report, output.width()))?;
        }
        return Err(failure);
    }
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        Format::Jsonl => serde_json::to_string(&report).unwrap_or_default() + "\n",
        Format::Text | Format::Wide => render::doctor(&report, output.width()),
    };
    super::print(output, &text)?;
    Ok(u8::from(report.health != Health::Well))
}

/// Looks around while the programs are loaded and attached.
fn attach(args: &Doctor) -> Result<Seen, Failure> {
    let interrupts = Interrupts::listen()
        .map_err(|e| Failure::new("signals", format!("signals cannot be taken over: {e}"), ""))?;
    let kernel = live::attach(&args.tiers, false)?;
    let tiers = kernel.tiers();
    let maps = pressure::maps();
    let (programs, why) = match kernel.beside() {
        Ok(programs) => (programs, None),
        Err(e) => (Vec::new(), Some(e.to_string())),
    };
    let interfaces = kernel.interfaces().into_iter();
    let unattached: Vec<String> = interfaces
        .filter(|i| !i.problem.is_empty())
        .map(|i| format!("{}: {}", i.name, i.problem))
        .collect();
    drop(kernel);
    interrupts.detached();
    let unread = [
        (!unattached.is_empty()).then(|| Finding {
            name: "interfaces",
            health: Health::Degraded,
            value: unattached.join("; "),
            text: "packets there are not seen".into(),
        }),
        why.map(|why| Finding {
            name: "other programs",
            health: Health::Degraded,
            value: "unknown".into(),
            text: format!("they could not be listed: {why}"),
        }),
    ];
    Ok(Seen {
        tiers,
        programs,
        maps,
        unread: unread.into_iter().flatten().collect(),
    })
}

/// Who sees a packet before netflow can keep it from being seen.
fn others(programs: &[Beside]) -> Option<Finding> {
    let first = programs.iter().filter(|p| p.first).count();
    let value = format!("{} on these interfaces", programs.len());
    match (programs.len(), first) {
        (0, _) => None,
        (_, 0) => Some(well(
            "other programs",
            value,
            "netflow sees each packet before them; one that they redirect or drop is seen no further on, and no record says why",
        )),
        (_, n) => Some(Finding {
            name: "other programs",
            health: Health::Degraded,
            value: format!("{value}, {n} of them before netflow"),
            text: "packets that they redirect, drop or rewrite are not seen as they were".into(),
        }),
    }
}

/// `bpf-map-pressure`.
fn pressure(maps: &[Fill]) -> Option<Finding> {
    let full: Vec<String> = maps
        .iter()
        .filter(|m| m.is_nearly_full())
        .map(|m| {
            let entries = m.entries.unwrap_or_default();
            format!("{} (map {}): {entries} of {}", m.name, m.id, m.max)
        })
        .collect();
    if maps.is_empty() {
        return None;
    }
    if !full.is_empty() {
        return Some(Finding {
            name: "bpf-map-pressure",
            health: Health::Degraded,
            value: full.join("; "),
            text: "nearly full: its owner cannot add what is new, be it a connection or a Service"
                .into(),
        });
    }
    let counted = maps.iter().filter(|m| m.entries.is_some()).count();
    let uncounted = maps.len() - counted;
    Some(well(
        "bpf-map-pressure",
        format!("none of {counted} maps is nearly full"),
        &format!(
            "{uncounted} more are arrays, rings or of other kinds whose fill cannot be counted"
        ),
    ))
}

fn worst(host: &[Finding], capabilities: &[TierStatus]) -> Health {
    let tiers = capabilities.iter().map(tier_health);
    host.iter()
        .map(|f| f.health)
        .chain(tiers)
        .max()
        .unwrap_or(Health::Well)
}

/// A lower tier that loses nothing is as good as the best.
pub fn tier_health(tier: &TierStatus) -> Health {
    if tier.best || (tier.tier.is_some() && tier.lost.is_empty()) {
        Health::Well
    } else {
        Health::Degraded
    }
}

fn examine(btf: Option<&Path>) -> Vec<Finding> {
    vec![
        kernel(),
        type_information(btf.unwrap_or(Path::new("/sys/kernel/btf/vmlinux"))),
        module_types(),
        lockdown(&host::lockdown()),
        rights(&host::missing_capabilities()),
        well(
            "bpffs",
            host::bpffs().unwrap_or_else(|| "not mounted".into()),
            "not needed: nothing is pinned",
        ),
        conntrack(&host::line("/proc/sys/net/netfilter/nf_conntrack_max")),
        well(
            "conntrack events",
            on_off("/proc/sys/net/netfilter/nf_conntrack_events"),
            "used only where connections are followed through ctnetlink",
        ),
        well(
            "conntrack timestamps",
            on_off("/proc/sys/net/netfilter/nf_conntrack_timestamp"),
            "not needed: records carry the kernel's time",
        ),
        well(
            "conntrack accounting",
            on_off("/proc/sys/net/netfilter/nf_conntrack_acct"),
            "not needed: packets are counted at the interfaces",
        ),
    ]
}

fn well(name: &'static str, value: String, text: &str) -> Finding {
    Finding {
        name,
        health: Health::Well,
        value,
        text: text.into(),
    }
}

fn kernel() -> Finding {
    let value = host::kernel();
    let (health, text) = match version(&value) {
        Some(v) if v < (5, 10) => (
            Health::Degraded,
            "older than 5.10, the oldest kernel that netflow is tested on",
        ),
        _ => (Health::Well, ""),
    };
    Finding {
        name: "kernel",
        health,
        value,
        text: text.into(),
    }
}

/// Major and minor of `uname -r`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn type_information(path: &Path) -> Finding {
    let found = path.exists();
    Finding {
        name: "BTF",
        health: if found { Health::Well } else { Health::Broken },
        value: path.display().to_string(),
        text: if found {
            String::new()
        } else {
            "missing: the kernel must be built with CONFIG_DEBUG_INFO_BTF, or --btf must name its BTF".into()
        },
    }
}

fn module_types() -> Finding {
    let (loaded, typed) = host::modules();
    let untyped: Vec<&str> = loaded
        .iter()
        .filter(|m| !typed.contains(m))
        .copied()
        .collect();
    let (value, text) = if loaded.is_empty() {
        ("built in", "what netflow looks into is part of the kernel")
    } else if untyped.is_empty() {
        ("there", "")
    } else {
        (
            "missing",
            "what only these modules' types tell is not read; the tiers below say what that costs",
        )
    };
    let value = if untyped.is_empty() {
        value.to_owned()
    } else {
        format!("{value} for {}", untyped.join(", "))
    };
    well("BTF of modules", value, text)
}

fn lockdown(mode: &str) -> Finding {
    let (health, text) = match mode {
        "confidentiality" => (
            Health::Degraded,
            "tracing programs may not read kernel memory: drops and NAT are not seen",
        ),
        "" => (
            Health::Well,
            "this kernel has no lockdown, or securityfs is not mounted",
        ),
        _ => (Health::Well, ""),
    };
    let value = if mode.is_empty() { "unknown" } else { mode };
    Finding {
        name: "lockdown",
        health,
        value: value.into(),
        text: text.into(),
    }
}

fn rights(missing: &[&str]) -> Finding {
    let (health, value, text) = if missing.is_empty() {
        (Health::Well, host::held_capabilities().join(", "), "")
    } else if missing
        .iter()
        .all(|c| matches!(*c, "CAP_SYS_ADMIN" | "CAP_SYSLOG"))
    {
        (
            Health::Degraded,
            format!("without {}", missing.join(", ")),
            "Pods' network namespaces and the names of kernel functions may stay hidden",
        )
    } else {
        (
            Health::Broken,
            format!("without {}", missing.join(", ")),
            "no program can be attached: run it as root",
        )
    };
    Finding {
        name: "own capabilities",
        health,
        value,
        text: text.into(),
    }
}

fn conntrack(max: &str) -> Finding {
    if max.is_empty() {
        return Finding {
            name: "conntrack",
            health: Health::Degraded,
            value: "not there".into(),
            text:
                "without it no address translation can be followed; kube-proxy cannot work either"
                    .into(),
        };
    }
    let used = host::line("/proc/sys/net/netfilter/nf_conntrack_count");
    well("conntrack", format!("{used} of {max} entries"), "")
}

fn on_off(path: &str) -> String {
    match host::line(path).as_str() {
        "" => "unknown",
        "0" => "off",
        _ => "on",
    }
    .into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::model::capability::Capability;

    fn tier(tier: Option<&str>, best: bool, lost: &str) -> TierStatus {
        TierStatus {
            capability: Capability::Flow,
            tier: tier.map(Into::into),
            best,
            reasons: vec![],
            lost: lost.into(),
        }
    }

    #[test]
    fn degraded_is_what_loses_something() {
        assert_eq!(tier_health(&tier(Some("tcx"), true, "")), Health::Well);
        assert_eq!(tier_health(&tier(Some("clsact"), false, "")), Health::Well);
        assert_eq!(
            tier_health(&tier(Some("raw_tp"), false, "names")),
            Health::Degraded
        );
        assert_eq!(tier_health(&tier(None, false, "")), Health::Degraded);
    }

    #[test]
    fn the_worst_decides() {
        let host = [well("a", String::new(), ""), lockdown("confidentiality")];
        assert_eq!(worst(&host[..1], &[]), Health::Well);
        assert_eq!(worst(&host, &[]), Health::Degraded);
        assert_eq!(rights(&["CAP_SYSLOG"]).health, Health::Degraded);
        assert_eq!(rights(&["CAP_SYSLOG", "CAP_BPF"]).health, Health::Broken);
    }

    #[test]
    fn the_report_is_as_its_schema_says() {
        let capabilities = vec![tier(Some("tcx"), true, ""), tier(None, false, "everything")];
        let host = examine(None);
        let report = Report {
            schema: SCHEMA,
            health: worst(&host, &capabilities),
            host,
            capabilities,
            programs: vec![Beside {
                interface: "eth0".into(),
                side: "ingress",
                how: "tcx",
                name: "cil_from_netdev".into(),
                first: true,
                ifindex: 2,
                id: Some(7),
            }],
            maps: vec![fill(95), fill(3)],
        };
        let schema = include_str!("../../../docs/schema/doctor.v1.json");
        let schema = serde_json::from_str(schema).unwrap();
        let errors: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&serde_json::to_value(&report).unwrap())
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    fn fill(entries: u64) -> Fill {
        Fill {
            id: 7,
            name: "cilium_lb4".into(),
            kind: "hash".into(),
            entries: Some(entries),
            max: 100,
            uncounted: String::new(),
        }
    }

    #[test]
    fn a_map_that_is_nearly_full_degrades() {
        let found = pressure(&[fill(95), fill(3)]).unwrap();
        assert_eq!(found.health, Health::Degraded);
        assert_eq!(found.value, "cilium_lb4 (map 7): 95 of 100");
        assert_eq!(pressure(&[fill(3)]).unwrap().health, Health::Well);
        assert_eq!(pressure(&[]), None);
    }

    #[test]
    fn who_comes_first_can_hide_packets() {
        let beside = |first| Beside {
            interface: "eth0".into(),
            side: "ingress",
            how: "tcx",
            name: "cil_from_netdev".into(),
            first,
            ifindex: 2,
            id: Some(7),
        };
        assert_eq!(others(&[]), None);
        assert_eq!(others(&[beside(false)]).unwrap().health, Health::Well);
        let both = others(&[beside(false), beside(true)]).unwrap();
        assert_eq!(both.health, Health::Degraded);
        assert!(both.value.contains("1 of them before netflow"), "{both:?}");
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.18.5-flatcar"), Some((6, 18)));
        assert_eq!(version("5.4.0-42-generic"), Some((5, 4)));
        assert_eq!(version("odd"), None);
    }
}
