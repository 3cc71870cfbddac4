//! `netflow doctor`.

use super::args::Format;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::output::Output;
use super::{host, live, render};
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
}

/// Runs it.
pub fn run(args: &Doctor, output: &Output, format: Format) -> Result<u8, Failure> {
    let host = examine(args.tiers.btf.as_deref());
    let tiers = tiers(args);
    let failure = tiers.as_ref().err().cloned();
    let capabilities = tiers.unwrap_or_default();
    let report = Report {
        schema: SCHEMA,
        health: worst(&host, &capabilities),
        host,
        capabilities,
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

/// Tiers as they turn out when the programs are loaded and attached.
fn tiers(args: &Doctor) -> Result<Vec<TierStatus>, Failure> {
    let interrupts = Interrupts::listen()
        .map_err(|e| Failure::new("signals", format!("signals cannot be taken over: {e}"), ""))?;
    let kernel = live::attach(&args.tiers, false)?;
    let tiers = kernel.tiers();
    drop(kernel);
    interrupts.detached();
    Ok(tiers)
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
        (Health::Well, "all".to_owned(), "")
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

    #[test]
    fn versions() {
        assert_eq!(version("6.18.5-flatcar"), Some((6, 18)));
        assert_eq!(version("5.4.0-42-generic"), Some((5, 4)));
        assert_eq!(version("odd"), None);
    }
}
