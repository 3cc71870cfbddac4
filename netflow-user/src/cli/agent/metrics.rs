//! The agent's metrics: one table of them, written as OpenMetrics.
//!
//! Labels are of closed sets (kinds, tiers, the kernel's own reasons): nothing that grows with the cluster.

use super::hub::Health;
use super::outcome::Outcome;
use crate::cli::COMMIT;
use crate::flows::{Evicted, Stock};
use crate::kernel::{Held, lost};
use crate::model::feed::TOO_SLOW;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// All that is told, as it was at one moment.
#[derive(Debug)]
pub struct Readings {
    /// What the thread that owns the programs says.
    pub health: Health,
    /// How looks ended.
    pub ended: [(Outcome, u64); Outcome::ALL.len()],
    /// When the process began, in seconds since the epoch.
    pub started: Option<u64>,
}

impl Readings {
    /// As OpenMetrics text.
    pub fn render(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        METRICS
            .iter()
            .try_for_each(|m| m.encode(&mut encoder, self))
    }
}

/// One metric.
struct Metric {
    /// Without what its kind and unit add.
    name: &'static str,
    kind: MetricType,
    /// Its unit is in the name.
    unit: Option<&'static str>,
    help: &'static str,
    values: Values,
}

/// Where its numbers come from.
enum Values {
    /// One, where it is known.
    One(fn(&Readings) -> Option<u64>),
    /// By labels of these names.
    By(&'static [&'static str], fn(&Readings) -> Vec<Value>),
}

/// Names of labels, and their values.
type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Values of the labels, and the number.
type Value = (Vec<String>, u64);

fn named(name: &str, number: u64) -> Value {
    (vec![name.to_owned()], number)
}

/// All of them.
static METRICS: [Metric; 17] = [
    Metric {
        name: "netflow_records",
        kind: MetricType::Counter,
        unit: None,
        help: "Records read from the kernel.",
        values: Values::By(&["kind"], records),
    },
    Metric {
        name: "netflow_dropped",
        kind: MetricType::Counter,
        unit: Some("packets"),
        help: "Packets dropped in the network namespaces of the node and of its Pods, by the kernel's own reason.",
        values: Values::By(&["reason"], dropped),
    },
    Metric {
        name: "netflow_lost",
        kind: MetricType::Counter,
        unit: None,
        help: "What was lost or cannot be followed: records, flows and packets, by kind.",
        values: Values::By(&["kind"], lost),
    },
    Metric {
        name: "netflow_map_entries",
        kind: MetricType::Gauge,
        unit: None,
        help: "Entries of a BPF map (of the flow map: at its latest sweep).",
        values: Values::By(&["map"], |r| held(r, |h| h.entries as u64)),
    },
    Metric {
        name: "netflow_map_max_entries",
        kind: MetricType::Gauge,
        unit: None,
        help: "Entries that fit into a BPF map.",
        values: Values::By(&["map"], |r| held(r, |h| u64::from(h.max))),
    },
    Metric {
        name: "netflow_capability_tier",
        kind: MetricType::Gauge,
        unit: None,
        help: "1 for the tier on which a capability runs; tier none where nothing of it is seen.",
        values: Values::By(&["capability", "tier", "best"], tiers),
    },
    Metric {
        name: "netflow_unseen_interfaces",
        kind: MetricType::Gauge,
        unit: None,
        help: "Interfaces whose packets are not all seen.",
        values: Values::One(|r| Some(r.health.unseen.len() as u64)),
    },
    Metric {
        name: "netflow_pod_addresses",
        kind: MetricType::Gauge,
        unit: None,
        help: "Addresses of Pods placed on this node.",
        values: Values::One(|r| Some(r.health.pods as u64)),
    },
    Metric {
        name: "netflow_looks",
        kind: MetricType::Gauge,
        unit: None,
        help: "Looks through the agent that are under way.",
        values: Values::One(|r| Some(r.health.looks as u64)),
    },
    Metric {
        name: "netflow_looks_ended",
        kind: MetricType::Counter,
        unit: None,
        help: "Looks through the agent that have ended, by how.",
        values: Values::By(&["outcome"], ended),
    },
    Metric {
        name: "netflow_history_limit",
        kind: MetricType::Gauge,
        unit: Some("bytes"),
        help: "Memory that the history may take; 0: none is kept.",
        values: Values::One(|r| Some(history(r).limit as u64)),
    },
    Metric {
        name: "netflow_history",
        kind: MetricType::Gauge,
        unit: Some("bytes"),
        help: "Memory that the history takes.",
        values: Values::One(|r| Some(history(r).bytes as u64)),
    },
    Metric {
        name: "netflow_history_connections",
        kind: MetricType::Gauge,
        unit: None,
        help: "Connections in the history; of long ones, pieces.",
        values: Values::One(|r| Some(history(r).connections as u64)),
    },
    Metric {
        name: "netflow_history_evicted",
        kind: MetricType::Counter,
        unit: None,
        help: "Connections that had to make room in the history, by how they were.",
        values: Values::By(&["state"], |r| by_state(r, |e| e.connections)),
    },
    Metric {
        name: "netflow_history_evicted_until",
        kind: MetricType::Gauge,
        unit: Some("seconds"),
        help: "When the last of them was heard of, since the Unix epoch: all that came later is there.",
        values: Values::By(&["state"], |r| by_state(r, |e| e.until.0 / 1_000_000_000)),
    },
    Metric {
        name: "netflow_build",
        kind: MetricType::Info,
        unit: None,
        help: "The netflow that runs.",
        values: Values::By(&["version", "commit"], build),
    },
    Metric {
        name: "process_start_time",
        kind: MetricType::Gauge,
        unit: Some("seconds"),
        help: "When the process began, since the Unix epoch.",
        values: Values::One(|r| r.started),
    },
];

fn history(readings: &Readings) -> Stock {
    readings.health.history.unwrap_or_default()
}

fn by_state(readings: &Readings, number: fn(Evicted) -> u64) -> Vec<Value> {
    let Stock {
        healthy_evicted,
        failing_evicted,
        ..
    } = history(readings);
    let states = [("healthy", healthy_evicted), ("failing", failing_evicted)];
    states.map(|(state, e)| named(state, number(e))).to_vec()
}

fn records(readings: &Readings) -> Vec<Value> {
    let records = readings.health.counts.records();
    records.map(|(kind, n)| named(kind.name(), n)).collect()
}

fn dropped(readings: &Readings) -> Vec<Value> {
    let dropped = readings.health.counts.dropped();
    dropped.map(|(reason, n)| named(reason, n)).collect()
}

/// With those kinds, too, of which nothing was lost: a counter that comes into being at 1 has not grown, as Prometheus sees it.
fn lost(readings: &Readings) -> Vec<Value> {
    let health = &readings.health;
    let lost = lost::kinds().map(|kind| {
        let count = health.lost.get(kind).copied().unwrap_or(0);
        named(kind, count)
    });
    lost.chain([named(TOO_SLOW, health.counts.too_slow)])
        .collect()
}

fn held(readings: &Readings, number: fn(&Held) -> u64) -> Vec<Value> {
    let held = readings.health.held.iter();
    held.map(|h| named(&h.map.to_lowercase(), number(h)))
        .collect()
}

fn tiers(readings: &Readings) -> Vec<Value> {
    let tiers = readings.health.tiers.iter();
    tiers
        .map(|t| {
            let tier = t.tier.as_deref().unwrap_or("none");
            let best = if t.best { "true" } else { "false" };
            let labels = [t.capability.name(), tier, best];
            (labels.map(str::to_owned).to_vec(), 1)
        })
        .collect()
}

fn ended(readings: &Readings) -> Vec<Value> {
    let ended = readings.ended.iter();
    ended.map(|(how, n)| named(how.name(), *n)).collect()
}

fn build(_: &Readings) -> Vec<Value> {
    let version = env!("CARGO_PKG_VERSION");
    vec![([version, COMMIT].map(str::to_owned).to_vec(), 1)]
}

impl Metric {
    fn encode(&self, encoder: &mut DescriptorEncoder, readings: &Readings) -> fmt::Result {
        let unit = self.unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut metric =
            encoder.encode_descriptor(self.name, self.help, unit.as_ref(), self.kind)?;
        match self.values {
            Values::One(value) => match value(readings) {
                Some(number) => self.number(&mut metric, number),
                None => Ok(()),
            },
            Values::By(names, values) => {
                values(readings).iter().try_for_each(|(labels, number)| {
                    let labels = names.iter().copied().zip(labels.iter().map(String::as_str));
                    self.labelled(&mut metric, &labels.collect(), *number)
                })
            }
        }
    }

    fn labelled(&self, metric: &mut MetricEncoder, labels: &Labels, number: u64) -> fmt::Result {
        match self.kind {
            MetricType::Info => metric.encode_info(labels),
            _ => self.number(&mut metric.encode_family(labels)?, number),
        }
    }

    fn number(&self, metric: &mut MetricEncoder, number: u64) -> fmt::Result {
        match self.kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&number, None),
            _ => metric.encode_gauge(&number),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::cli::agent::counts::tests::dropped as record;
    use crate::model::Time;
    use crate::model::capability::{Capability, TierStatus};
    use std::collections::BTreeSet;
    use std::fmt::Write;

    const DOCS: &str = include_str!("../../../../docs/metrics.md");

    fn readings() -> Readings {
        let mut health = Health {
            tiers: vec![TierStatus {
                capability: Capability::Nat,
                tier: None,
                best: false,
                reasons: Vec::new(),
                lost: String::new(),
            }],
            lost: [("ring:drop".to_owned(), 4)].into(),
            looks: 2,
            held: vec![Held {
                map: "FLOWS",
                entries: 5,
                max: 10,
            }],
            history: Some(Stock {
                limit: 1000,
                bytes: 900,
                connections: 3,
                healthy_evicted: Evicted {
                    connections: 8,
                    until: Time(1_700_000_009_900_000_000),
                },
                failing_evicted: Evicted::default(),
            }),
            ..Health::default()
        };
        health
            .counts
            .add(&[record("NO_SOCKET", 3), record("a\"b", 1)]);
        Readings {
            health,
            ended: Outcome::ALL.map(|how| (how, 7)),
            started: Some(1_700_000_000),
        }
    }

    fn ending(metric: &Metric) -> &'static str {
        match metric.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        }
    }

    /// As it stands in the text, without the ending of its samples.
    fn name(metric: &Metric) -> String {
        match metric.unit {
            Some(unit) => format!("{}_{unit}", metric.name),
            None => metric.name.to_owned(),
        }
    }

    #[test]
    fn numbers_are_those_that_were_counted() {
        let text = readings().render().unwrap();
        for line in [
            "netflow_records_total{kind=\"drop\"} 2",
            "netflow_records_total{kind=\"syn\"} 0",
            "netflow_dropped_packets_total{reason=\"NO_SOCKET\"} 3",
            "netflow_dropped_packets_total{reason=\"a\\\"b\"} 1",
            "netflow_lost_total{kind=\"ring:drop\"} 4",
            "netflow_lost_total{kind=\"agent:too-slow\"} 0",
            "netflow_map_entries{map=\"flows\"} 5",
            "netflow_map_max_entries{map=\"flows\"} 10",
            "netflow_capability_tier{capability=\"nat\",tier=\"none\",best=\"false\"} 1",
            "netflow_looks 2",
            "netflow_history_limit_bytes 1000",
            "netflow_history_bytes 900",
            "netflow_history_connections 3",
            "netflow_history_evicted_total{state=\"healthy\"} 8",
            "netflow_history_evicted_total{state=\"failing\"} 0",
            "netflow_history_evicted_until_seconds{state=\"healthy\"} 1700000009",
            "netflow_looks_ended_total{outcome=\"answered\"} 7",
            "process_start_time_seconds 1700000000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert_eq!(text, readings().render().unwrap());
    }

    #[test]
    fn the_text_is_open_metrics() {
        let text = readings().render().unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.pop(), Some("# EOF"));
        let mut lines = lines.into_iter().peekable();
        let mut series = BTreeSet::new();
        for metric in &METRICS {
            let name = name(metric);
            let kind = metric.kind.as_str();
            assert_eq!(
                lines.next().unwrap(),
                format!("# HELP {name} {}", metric.help)
            );
            assert_eq!(lines.next().unwrap(), format!("# TYPE {name} {kind}"));
            if let Some(unit) = metric.unit {
                assert_eq!(lines.next().unwrap(), format!("# UNIT {name} {unit}"));
            }
            let mut samples = 0;
            while let Some(line) = lines.next_if(|l| !l.starts_with('#')) {
                let (one, number) = line.rsplit_once(' ').unwrap();
                let own = format!("{name}{}", ending(metric));
                assert_eq!(one.split('{').next(), Some(own.as_str()));
                assert!(number.parse::<u64>().is_ok(), "{line}");
                assert!(series.insert(one.to_owned()), "{one} is there twice");
                samples += 1;
            }
            assert!(samples > 0, "{name} has no number");
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn the_table_of_the_docs_is_that_of_the_program() {
        let mut table = String::from("| metric | kind | labels | says |\n|---|---|---|---|\n");
        for metric in &METRICS {
            let name = name(metric) + ending(metric);
            let labels = match metric.values {
                Values::One(_) => String::new(),
                Values::By(names, _) => format!("`{}`", names.join("`, `")),
            };
            let (kind, help) = (metric.kind.as_str(), metric.help);
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        let block = DOCS.split("<!-- metrics -->\n").nth(1);
        let block = block.and_then(|rest| rest.split("<!-- /metrics -->").next());
        assert_eq!(block, Some(table.as_str()), "put this in:\n{table}");
    }
}
