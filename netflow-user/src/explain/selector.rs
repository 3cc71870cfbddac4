//! Label selectors, and what keeps labels from satisfying one.

use crate::model::objects::{Labels, Requirement, Selector};
use crate::model::shared::Name;
use std::fmt;

/// One label that a selector does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMiss {
    /// Label key.
    pub key: String,
    /// What the selector asks of it.
    pub wanted: Wanted,
    /// Its value; `None` = there is no such label.
    pub found: Option<String>,
}

/// What a selector asks of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This value.
    Value(String),
    /// One of these values (`In`).
    OneOf(Vec<String>),
    /// None of these values; absent is fine (`NotIn`).
    NoneOf(Vec<String>),
    /// Any value (`Exists`).
    Present,
    /// No such label (`DoesNotExist`).
    Absent,
    /// An operator that Kubernetes does not have, which selects nothing.
    Unknown(String),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Value(v) => write!(f, "{v:?}"),
            Wanted::OneOf(values) => write!(f, "one of {}", values.join(", ")),
            Wanted::NoneOf(values) => write!(f, "none of {}", values.join(", ")),
            Wanted::Present => f.write_str("any value"),
            Wanted::Absent => f.write_str("no such label"),
            Wanted::Unknown(operator) => write!(f, "unknown operator {operator:?}"),
        }
    }
}

/// `label role is "batch", wanted "frontend"`; `no label role, wanted "frontend"`.
impl fmt::Display for LabelMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LabelMiss { key, wanted, found } = self;
        match found {
            Some(found) => write!(f, "label {key} is {found:?}, wanted {wanted}"),
            None => write!(f, "no label {key}, wanted {wanted}"),
        }
    }
}

/// Whether a selector accepts labels.
pub fn matches(selector: &Selector, labels: &Labels) -> bool {
    misses(selector, labels).is_empty()
}

/// What a selector does not accept in labels; empty = it accepts them.
pub fn misses(selector: &Selector, labels: &Labels) -> Vec<LabelMiss> {
    let mut misses = label_misses(&selector.labels, labels);
    misses.extend(selector.expressions.iter().filter_map(|r| miss(r, labels)));
    misses
}

/// As [`misses`], for a plain set of labels such as a Service's selector.
pub fn label_misses(wanted: &Labels, labels: &Labels) -> Vec<LabelMiss> {
    wanted
        .iter()
        .filter(|(key, value)| labels.get(key) != Some(value))
        .map(|(key, value)| LabelMiss {
            key: key.to_string(),
            wanted: Wanted::Value(value.to_string()),
            found: labels.get(key).map(Name::to_string),
        })
        .collect()
}

fn miss(requirement: &Requirement, labels: &Labels) -> Option<LabelMiss> {
    let Requirement {
        key,
        operator,
        values,
    } = requirement;
    let found = labels.get(key);
    let listed = found.is_some_and(|f| values.iter().any(|v| f == v));
    let (holds, wanted) = match operator.as_str() {
        "In" => (listed, Wanted::OneOf(values.clone())),
        // An absent label is in no list.
        "NotIn" => (!listed, Wanted::NoneOf(values.clone())),
        "Exists" => (found.is_some(), Wanted::Present),
        "DoesNotExist" => (found.is_none(), Wanted::Absent),
        other => (false, Wanted::Unknown(other.to_owned())),
    };
    (!holds).then(|| LabelMiss {
        key: key.clone(),
        wanted,
        found: found.map(Name::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Selector {
        Selector {
            labels: Labels::default(),
            expressions: vec![Requirement {
                key: key.into(),
                operator: operator.into(),
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn expressions_as_kubernetes_reads_them() {
        let with = labels(&[("tier", "web")]);
        let without = labels(&[("other", "web")]);
        let cases = [
            ("In", &["web", "api"][..], true, false),
            ("In", &["api"][..], false, false),
            ("In", &[][..], false, false),
            ("NotIn", &["web"][..], false, true),
            ("NotIn", &["api"][..], true, true),
            ("Exists", &[][..], true, false),
            ("DoesNotExist", &[][..], false, true),
            ("Gt", &["1"][..], false, false),
        ];
        for (operator, values, present, absent) in cases {
            let selector = expression("tier", operator, values);
            assert_eq!(matches(&selector, &with), present, "{operator} {values:?}");
            assert_eq!(
                matches(&selector, &without),
                absent,
                "{operator} {values:?} absent"
            );
        }
    }

    #[test]
    fn every_term_must_hold() {
        let mut selector = expression("tier", "Exists", &[]);
        selector.labels = labels(&[("app", "web")]);
        assert!(matches(
            &selector,
            &labels(&[("app", "web"), ("tier", "x")])
        ));
        assert!(!matches(&selector, &labels(&[("app", "web")])));
        assert!(!matches(&selector, &labels(&[("tier", "x")])));
        assert!(matches(&Selector::default(), &labels(&[])));
    }

    #[test]
    fn a_miss_names_key_wanted_and_found() {
        let wanted = labels(&[("app", "web"), ("tier", "front")]);
        let found = label_misses(&wanted, &labels(&[("app", "wep")]));
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                r#"label app is "wep", wanted "web""#,
                r#"no label tier, wanted "front""#
            ]
        );
    }
}
